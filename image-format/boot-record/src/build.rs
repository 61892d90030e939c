//! The writer: values → a record in bytes.
//!
//! Entries come out in the order of the calls, nothing else enters the bytes: equal calls give equal records.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::{BootRecord, Error, Flags, HEADER_LEN, MAGIC, Mount, MountSource, Network, Port, VERSION, tag};

/// Collects the entries of a boot record; every method adds one and returns the builder.
///
/// ```
/// # use ukc_boot_record::{BootRecord, BootRecordBuilder, Mount};
/// let bytes = BootRecordBuilder::new().program(b"/bin/hello").arg(b"hello").env(b"PATH=/bin").mount(&Mount::ROOT).build()?;
/// assert_eq!(BootRecord::parse(&bytes)?.program, b"/bin/hello");
/// # Ok::<(), ukc_boot_record::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct BootRecordBuilder {
    entries: Vec<u8>,
}

impl BootRecordBuilder {
    /// Returns a builder without entries.
    pub fn new() -> BootRecordBuilder {
        BootRecordBuilder::default()
    }

    /// Path of the program.
    pub fn program(self, path: &[u8]) -> Self {
        self.entry(tag::PROGRAM, path)
    }

    /// The next argument; the first call is `argv[0]`.
    pub fn arg(self, arg: &[u8]) -> Self {
        self.entry(tag::ARG, arg)
    }

    /// An environment variable, `NAME=value`.
    pub fn env(self, variable: &[u8]) -> Self {
        self.entry(tag::ENV, variable)
    }

    /// Working directory, absolute.
    pub fn cwd(self, path: &[u8]) -> Self {
        self.entry(tag::CWD, path)
    }

    /// User id.
    pub fn uid(self, uid: u32) -> Self {
        self.entry(tag::UID, &uid.to_le_bytes())
    }

    /// Group id.
    pub fn gid(self, gid: u32) -> Self {
        self.entry(tag::GID, &gid.to_le_bytes())
    }

    /// A supplementary group id.
    pub fn group(self, gid: u32) -> Self {
        self.entry(tag::GROUP, &gid.to_le_bytes())
    }

    /// Host name, 1 to 64 bytes.
    pub fn hostname(self, name: &[u8]) -> Self {
        self.entry(tag::HOSTNAME, name)
    }

    /// Signal that asks the program to stop, 1..=64.
    pub fn stop_signal(self, number: u32) -> Self {
        self.entry(tag::STOP_SIGNAL, &number.to_le_bytes())
    }

    /// The next mount.
    pub fn mount(self, mount: &Mount<'_>) -> Self {
        let (kind, disk, name): (u32, u32, &[u8]) = match mount.source {
            MountSource::Auto => (0, 0, b""),
            MountSource::Initrd => (1, 0, b""),
            MountSource::Disk(number) => (2, number, b""),
            MountSource::Named(name) => (3, 0, name),
        };
        let mut bytes = Vec::new();
        for number in [kind, disk, mount.flags.0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for string in [name, mount.target, mount.fstype, mount.options] {
            bytes.extend_from_slice(&len_u32(string).to_le_bytes());
            bytes.extend_from_slice(string);
        }
        self.entry(tag::MOUNT, &bytes)
    }

    /// How the first network interface is configured.
    pub fn network(self, network: Network) -> Self {
        let mut bytes = Vec::new();
        match network {
            Network::None => bytes.push(0),
            Network::Dhcp => bytes.push(1),
            Network::Static { address, prefix_len, gateway } => {
                let address = ip_bytes(address);
                let gateway = gateway.map(ip_bytes).unwrap_or_default();
                bytes.extend_from_slice(&[2, prefix_len, address.len() as u8, gateway.len() as u8]);
                bytes.extend_from_slice(&address);
                bytes.extend_from_slice(&gateway);
            }
        }
        self.entry(tag::NETWORK, &bytes)
    }

    /// The next name server.
    pub fn dns(self, server: IpAddr) -> Self {
        self.entry(tag::DNS, &ip_bytes(server))
    }

    /// Switches of the kernel.
    pub fn flags(self, flags: Flags) -> Self {
        self.entry(tag::FLAGS, &flags.0.to_le_bytes())
    }

    /// An exposed port.
    pub fn port(self, port: Port) -> Self {
        let [a, b] = port.port.to_le_bytes();
        self.entry(tag::PORT, &[a, b, port.protocol as u8, 0])
    }

    /// Returns the record.
    ///
    /// # Errors
    /// What the reader would say of it: a string with NUL, a relative directory, a value given twice, a signal out of range.
    pub fn build(self) -> Result<Vec<u8>, Error> {
        let total_len = u32::try_from(HEADER_LEN + self.entries.len()).map_err(|_| Error::Truncated)?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.entries.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&total_len.to_le_bytes());
        bytes.extend_from_slice(&self.entries);
        BootRecord::parse(&bytes)?;
        Ok(bytes)
    }

    fn entry(mut self, tag: u16, value: &[u8]) -> Self {
        self.entries.extend_from_slice(&tag.to_le_bytes());
        self.entries.extend_from_slice(&[0, 0]);
        self.entries.extend_from_slice(&len_u32(value).to_le_bytes());
        self.entries.extend_from_slice(value);
        self.entries.resize(self.entries.len().next_multiple_of(4), 0);
        self
    }
}

/// A string over 4 GiB gets a wrong length here, and [`BootRecordBuilder::build`] then refuses the whole record for its size.
fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn ip_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}
