//! The reader: a record in bytes → a checked view of it.
//!
//! All checks happen in [`BootRecord::parse`]; the iterators then walk the same bytes again and cannot meet anything new. No input panics.

use core::fmt;
use core::net::IpAddr;

use crate::value::{parse_ip, take_u32};
use crate::{ENTRY_HEADER_LEN, Flags, HEADER_LEN, MAGIC, Mount, Network, Port, VERSION, tag};

/// A checked boot record, borrowing the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootRecord<'a> {
    entries: &'a [u8],
    /// Path of the program; empty when the command line must name one.
    pub program: &'a [u8],
    /// Working directory, absolute.
    pub cwd: &'a [u8],
    /// User id of the program.
    pub uid: u32,
    /// Group id of the program.
    pub gid: u32,
    /// Host name.
    pub hostname: &'a [u8],
    /// Signal that asks the program to stop, 1..=64.
    pub stop_signal: u32,
    /// How the first interface is configured.
    pub network: Network,
    /// Switches of the kernel.
    pub flags: Flags,
}

/// Why bytes are not a boot record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Fewer bytes than the header or the stated length.
    Truncated,
    /// The first eight bytes are others.
    Magic,
    /// A version that this reader does not know.
    Version(u32),
    /// An entry reaches over the end of the record, or its reserved or padding bytes are not zero. The offset is in bytes from the record's start.
    Entry {
        /// Where the entry starts.
        offset: usize,
    },
    /// The contents of an entry are not what its tag promises.
    Value {
        /// The entry's tag.
        tag: u16,
        /// Where the entry starts.
        offset: usize,
    },
    /// A second entry of a tag that may stand once.
    Duplicate {
        /// The entry's tag.
        tag: u16,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated => f.write_str("the boot record ends too early"),
            Error::Magic => f.write_str("not a boot record: it does not start with UKCBOOT"),
            Error::Version(v) => write!(f, "boot record of version {v}; this kernel reads version {VERSION}"),
            Error::Entry { offset } => write!(f, "malformed boot record entry at byte {offset}"),
            Error::Value { tag, offset } => write!(f, "boot record entry with tag {tag} at byte {offset} has invalid contents"),
            Error::Duplicate { tag } => write!(f, "boot record entry with tag {tag} stands twice"),
        }
    }
}

impl core::error::Error for Error {}

impl<'a> BootRecord<'a> {
    /// Reads the record at the start of `bytes`; what follows its stated length is ignored.
    ///
    /// # Errors
    /// [`Error`] says which rule the first wrong byte breaks.
    pub fn parse(bytes: &'a [u8]) -> Result<BootRecord<'a>, Error> {
        let (header, _) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Error::Truncated)?;
        if !header.starts_with(&MAGIC) {
            return Err(Error::Magic);
        }
        let mut numbers = &header[MAGIC.len()..];
        let version = take_u32(&mut numbers).ok_or(Error::Truncated)?;
        let total_len = take_u32(&mut numbers).ok_or(Error::Truncated)?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let total_len = usize::try_from(total_len).map_err(|_| Error::Truncated)?;
        let entries = bytes.get(HEADER_LEN..total_len).ok_or(Error::Truncated)?;

        let mut record = BootRecord {
            entries,
            program: b"",
            cwd: b"/",
            uid: 0,
            gid: 0,
            hostname: b"localhost",
            stop_signal: 15,
            network: Network::Dhcp,
            flags: Flags(0),
        };
        // Bit n: an entry with tag n was seen. Tags that may stand once are all below 32.
        let mut seen = 0u32;
        let mut walk = Entries { rest: entries };
        while !walk.rest.is_empty() {
            let offset = HEADER_LEN + entries.len() - walk.rest.len();
            let (tag, value) = walk.take_entry().ok_or(Error::Entry { offset })?;
            let is_once = record.read(tag, value).ok_or(Error::Value { tag, offset })?;
            if is_once {
                if seen & 1 << tag != 0 {
                    return Err(Error::Duplicate { tag });
                }
                seen |= 1 << tag;
            }
        }
        Ok(record)
    }

    /// Takes over one entry; returns whether its tag may stand once, or `None` when the contents are wrong.
    fn read(&mut self, tag: u16, value: &'a [u8]) -> Option<bool> {
        match tag {
            tag::PROGRAM => self.program = text(value).filter(|t| !t.is_empty())?,
            tag::CWD => self.cwd = text(value).filter(|t| t.starts_with(b"/"))?,
            tag::HOSTNAME => self.hostname = text(value).filter(|t| (1..=64).contains(&t.len()))?,
            tag::UID => self.uid = number(value)?,
            tag::GID => self.gid = number(value)?,
            tag::STOP_SIGNAL => self.stop_signal = number(value).filter(|n| (1..=64).contains(n))?,
            tag::FLAGS => self.flags = Flags(number(value)?),
            tag::NETWORK => self.network = Network::parse(value)?,
            tag::ARG => return text(value).map(|_| false),
            tag::ENV => return text(value).filter(|t| t.iter().position(|&b| b == b'=').is_some_and(|at| at > 0)).map(|_| false),
            tag::GROUP => return number(value).map(|_| false),
            tag::MOUNT => return Mount::parse(value).map(|_| false),
            tag::DNS => return parse_ip(value).map(|_| false),
            tag::PORT => return Port::parse(value).map(|_| false),
            _ => return Some(false),
        }
        Some(true)
    }

    /// Returns the arguments, `argv[0]` first.
    pub fn args(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.with_tag(tag::ARG)
    }

    /// Returns the environment, each `NAME=value`.
    pub fn env(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.with_tag(tag::ENV)
    }

    /// Returns the supplementary group ids.
    pub fn groups(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        self.with_tag(tag::GROUP).filter_map(number)
    }

    /// Returns the mounts in the order of mounting. Without one whose target is `/` the kernel uses [`Mount::ROOT`].
    pub fn mounts(&self) -> impl Iterator<Item = Mount<'a>> + Clone + use<'a> {
        self.with_tag(tag::MOUNT).filter_map(Mount::parse)
    }

    /// Returns the name servers, preferred first.
    pub fn dns(&self) -> impl Iterator<Item = IpAddr> + Clone + use<'a> {
        self.with_tag(tag::DNS).filter_map(parse_ip)
    }

    /// Returns the ports that the program is said to listen on.
    pub fn ports(&self) -> impl Iterator<Item = Port> + Clone + use<'a> {
        self.with_tag(tag::PORT).filter_map(Port::parse)
    }

    fn with_tag(&self, wanted: u16) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        Entries { rest: self.entries }.filter(move |(tag, _)| *tag == wanted).map(|(_, value)| value)
    }
}

/// Walks entries; ends at the first malformed one, which a checked record does not have.
#[derive(Debug, Clone)]
struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// Takes one entry off the front, or returns `None` when there is no well-formed one.
    fn take_entry(&mut self) -> Option<(u16, &'a [u8])> {
        let (header, tail) = self.rest.split_first_chunk::<ENTRY_HEADER_LEN>()?;
        let [t0, t1, r0, r1, l0, l1, l2, l3] = *header;
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
        let padded = len.checked_next_multiple_of(4)?;
        let (contents, rest) = tail.split_at_checked(padded)?;
        let (value, padding) = contents.split_at_checked(len)?;
        if (r0, r1) != (0, 0) || padding.iter().any(|&b| b != 0) {
            return None;
        }
        self.rest = rest;
        Some((u16::from_le_bytes([t0, t1]), value))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.take_entry()
    }
}

fn text(value: &[u8]) -> Option<&[u8]> {
    (!value.contains(&0)).then_some(value)
}

fn number(value: &[u8]) -> Option<u32> {
    <[u8; 4]>::try_from(value).ok().map(u32::from_le_bytes)
}
