//! The document as Rust values. The order of fields here is the order in the file.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// [`crate::FORMAT`].
    pub format: String,
    /// [`crate::VERSION`].
    pub version: u32,
    /// What runs in it.
    pub program: Program,
    /// The kind of guest, and why this kind.
    pub guest: Guest,
    /// The kernel's sizes.
    pub kernel: Kernel,
    /// Kernel modules in the order of their initialisation, each with its reasons.
    pub modules: Vec<Module>,
    /// System calls that the analysis found or was told of, by number.
    pub syscalls: Vec<Syscall>,
    /// What the root file system holds.
    pub files: Files,
    /// Packages of the distribution in the root file system, by name.
    #[serde(default)]
    pub packages: Vec<Package>,
    /// Ports that the program is said to listen on (`EXPOSE`).
    pub ports: Vec<Port>,
    /// Paths that hold data to keep (`VOLUME`).
    pub volumes: Vec<String>,
    /// Least memory that the guest boots and runs in, beside the root file system when that lies in memory.
    pub memory_floor_bytes: u64,
    /// What the image was made from.
    pub inputs: Vec<Input>,
    /// The files beside this document.
    pub artefacts: Vec<Artefact>,
}

/// The process that the guest starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Path in the root file system.
    pub path: String,
    /// Arguments, `argv[0]` first.
    pub argv: Vec<String>,
    /// Index in `argv` of the first word that `CMD` gave: arguments given at run replace it and those behind it.
    #[serde(default)]
    pub command_at: usize,
    /// Environment, each `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Whom it runs as.
    pub user: User,
    /// The signal that asks it to stop: `SIGTERM`.
    pub stop_signal: String,
}

/// A user, as written and as resolved in the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// As `USER` has it; empty is root.
    pub name: String,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The guest's kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Which.
    pub kind: GuestKind,
    /// Why, in sentences.
    pub reasons: Vec<String>,
}

/// What boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// The libOS.
    Unikernel,
    /// A Linux kernel.
    Linux,
}

/// Sizes of the kernel's parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Size of the file.
    pub len_bytes: u64,
    /// Code.
    pub text_bytes: u64,
    /// Constants.
    pub rodata_bytes: u64,
    /// Initialised data.
    pub data_bytes: u64,
    /// Zeroed data.
    pub bss_bytes: u64,
}

/// A kernel module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Why it is in the image.
    pub reasons: Vec<String>,
}

/// A system call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syscall {
    /// Its number on x86-64.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// What happens when the program makes it.
    pub handling: Handling,
    /// Which module answers it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}

/// What happens at a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handling {
    /// A module answers it.
    Linked,
    /// It answers ENOSYS.
    Absent,
}

/// What the root file system holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Files, directories, links and devices.
    pub count: u64,
    /// Bytes in regular files.
    pub len_bytes: u64,
    /// Programs that run as their owner or group (S_ISUID, S_ISGID), by path.
    #[serde(default)]
    pub setuid: Vec<String>,
    /// Programs with capabilities of their own (capabilities(7), "File capabilities"), by path.
    #[serde(default)]
    pub capabilities: Vec<FileCapabilities>,
}

/// A program with capabilities.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileCapabilities {
    /// Its path.
    pub path: String,
    /// Names of those it is permitted or inherits, `cap_net_raw`.
    pub names: Vec<String>,
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as the distribution writes it.
    pub version: String,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it is.
    pub kind: InputKind,
    /// What it is called: a reference, a path in the context; never a path of the host.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
}

/// The kinds of inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputKind {
    /// The Dockerfile.
    Dockerfile,
    /// The files of the build context that were used.
    Context,
    /// A base image.
    Image,
    /// A named build context.
    NamedContext,
    /// The kernel module archive or the Linux kernel.
    Kernel,
    /// A remote file or repository.
    Remote,
}

/// A file of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artefact {
    /// What it is.
    pub kind: ArtefactKind,
    /// Its file name, in the document's directory.
    pub name: ArtefactName,
    /// Its size.
    pub len_bytes: u64,
    /// Its digest.
    pub digest: Digest,
}

/// The kinds of artefacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtefactKind {
    /// The kernel: an ELF executable, or a Linux image.
    Kernel,
    /// The root file system: ext4, as a disk or as an initrd.
    Rootfs,
    /// The linker's map.
    Map,
    /// Any other form (disk image, initrd archive, monitor configuration).
    Other,
}

/// A digest: `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Returns the digest of 32 bytes of SHA-256.
    pub fn from_sha256(bytes: &[u8; 32]) -> Digest {
        let mut text = String::from("sha256:");
        bytes.iter().for_each(|b| text.push_str(&format!("{b:02x}")));
        Digest(text)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Digest, String> {
        let is_digest =
            text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        if is_digest { Ok(Digest(text)) } else { Err(format!("`{text}` is not `sha256:` and 64 lower-case hexadecimal digits")) }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A plain file name: a document cannot make a reader leave its directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtefactName(String);

impl ArtefactName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ArtefactName {
    type Error = String;

    fn try_from(name: String) -> Result<ArtefactName, String> {
        let is_plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0']);
        if is_plain { Ok(ArtefactName(name)) } else { Err(format!("`{name}` is not a plain file name")) }
    }
}

impl From<ArtefactName> for String {
    fn from(name: ArtefactName) -> String {
        name.0
    }
}

/// A port with its protocol, in the form `8080/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// Number, 1 to 65535.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl TryFrom<String> for Port {
    type Error = String;

    fn try_from(text: String) -> Result<Port, String> {
        let parsed = text.split_once('/').and_then(|(port, protocol)| {
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => return None,
            };
            let is_number = port.bytes().all(|b| b.is_ascii_digit());
            port.parse().ok().filter(|p| *p != 0 && is_number).map(|port| Port { port, protocol })
        });
        parsed.ok_or_else(|| format!("`{text}` is not a port of the form `8080/tcp`"))
    }
}

impl From<Port> for String {
    fn from(port: Port) -> String {
        port.to_string()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.port)
    }
}
