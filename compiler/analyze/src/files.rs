//! The image's ELF files, read once each, with what closure and composition ask of them.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use ukc_elf::{Elf, ElfError};
use ukc_rootfs::{Kind, NodeId, Tree};

/// What ld.so reads of an object, and a few more facts.
#[derive(Debug, Clone, Default)]
pub struct ElfFile {
    /// The file.
    pub bytes: Arc<Vec<u8>>,
    /// `PT_INTERP`.
    pub interpreter: Option<Vec<u8>>,
    /// `DT_NEEDED`.
    pub needed: Vec<Vec<u8>>,
    /// `DT_SONAME`.
    pub soname: Option<Vec<u8>>,
    /// `DT_RPATH`, unless there is a `DT_RUNPATH`.
    pub rpath: Option<Vec<u8>>,
    /// `DT_RUNPATH`.
    pub runpath: Option<Vec<u8>>,
    /// `DF_1_NODEFLIB`.
    pub ignores_default_directories: bool,
    /// Whether there is a dynamic table.
    pub is_dynamic: bool,
    /// Whether this is a program rather than a library: it has fixed addresses, an interpreter or says that it is position-independent.
    pub is_program: bool,
    /// Whether this is a Go program.
    pub is_go: bool,
    /// See [`Elf::has_writable_code`].
    pub has_writable_code: bool,
    /// See [`Elf::wants_executable_stack`].
    pub wants_executable_stack: bool,
    /// It may load objects by name.
    pub calls_dlopen: bool,
    /// It starts threads through the C library.
    pub starts_threads: bool,
    /// It uses sockets or resolves names through the C library.
    pub uses_network: bool,
}

/// Functions of the C library that load an object.
const DLOPEN: [&[u8]; 4] = [b"dlopen", b"dlmopen", b"__libc_dlopen_mode", b"__libc_dlopen"];
/// Functions that start a thread.
const THREADS: [&[u8]; 3] = [b"pthread_create", b"thrd_create", b"timer_create"];
/// Functions that use sockets.
const NETWORK: [&[u8]; 12] = [
    b"socket",
    b"connect",
    b"bind",
    b"listen",
    b"accept",
    b"accept4",
    b"sendto",
    b"recvfrom",
    b"getaddrinfo",
    b"gethostbyname",
    b"gethostbyname_r",
    b"syslog",
];

impl ElfFile {
    /// Reads the facts of a file.
    ///
    /// # Errors
    /// When it is not an ELF file of this architecture.
    pub fn parse(bytes: Vec<u8>) -> Result<ElfFile, ElfError> {
        let elf = Elf::parse(&bytes)?;
        let dynamic = elf.dynamic()?;
        let mut out = ElfFile {
            interpreter: elf.interpreter().map(<[u8]>::to_vec),
            is_go: [&b".gopclntab"[..], b".data.rel.ro.gopclntab", b".note.go.buildid"].iter().any(|n| elf.section(n).is_some()),
            has_writable_code: elf.has_writable_code(),
            wants_executable_stack: elf.wants_executable_stack(),
            is_dynamic: dynamic.is_some(),
            ..ElfFile::default()
        };
        out.is_program = elf.kind() == ukc_elf::ElfType::Exec || out.interpreter.is_some();
        if let Some(d) = &dynamic {
            out.is_program |= d.is_pie();
            out.needed = d.needed.iter().map(|n| n.to_vec()).collect();
            out.soname = d.soname.map(<[u8]>::to_vec);
            out.runpath = d.runpath.map(<[u8]>::to_vec);
            out.rpath = d.rpath.filter(|_| d.runpath.is_none()).map(<[u8]>::to_vec);
            out.ignores_default_directories = d.ignores_default_directories();
            for s in elf.dynamic_symbols(d).iter().filter(|s| !s.is_defined) {
                out.calls_dlopen |= DLOPEN.contains(&s.name);
                out.starts_threads |= THREADS.contains(&s.name);
                out.uses_network |= NETWORK.contains(&s.name);
            }
        }
        // The C library itself loads NSS plugins, libgcc_s and libidn2.
        out.calls_dlopen |= out.soname.as_deref() == Some(b"libc.so.6");
        out.bytes = Arc::new(bytes);
        Ok(out)
    }

    /// Whether this is a C library or its loader: what it can do is not yet what the program does.
    pub fn is_libc(&self) -> bool {
        let name = self.soname.as_deref().unwrap_or(b"");
        name == b"libc.so.6" || name.starts_with(b"ld-linux") || name.starts_with(b"libc.musl") || name == b"libc.so"
    }

    /// Returns the strings that look like names of shared objects: printable bytes between NULs that hold `.so`.
    pub fn soname_strings(&self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let bytes = &self.bytes;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._+-/".contains(&b);
        let mut at = 0;
        while let Some(dot) = bytes[at..].windows(3).position(|w| w == b".so").map(|p| at + p) {
            let start = bytes[..dot].iter().rposition(|&b| !allowed(b)).map_or(0, |p| p + 1);
            let end = bytes[dot..].iter().position(|&b| !allowed(b)).map_or(bytes.len(), |p| dot + p);
            let name = &bytes[start..end];
            let tail = &bytes[dot + 3..end];
            let is_versioned = tail.iter().all(|b| b.is_ascii_digit() || *b == b'.');
            if is_versioned && name.len() < 256 && dot > start && bytes.get(end) == Some(&0) {
                out.push(name.to_vec());
            }
            at = end.max(dot + 3);
        }
        out.sort_unstable();
        out.dedup();
        out
    }
}

/// What is at a node that should be an ELF file.
#[derive(Debug, Clone)]
pub enum Found {
    /// An ELF file.
    Elf(Arc<ElfFile>),
    /// A regular file that is none: why, and its first bytes.
    Other(ElfError, Vec<u8>),
    /// The host's file cannot be read.
    Unreadable(String),
    /// Not a regular file.
    NotRegular,
}

/// The files of a tree, read when first asked for.
pub struct Files<'t> {
    /// The tree.
    pub tree: &'t Tree,
    seen: BTreeMap<NodeId, Found>,
}

/// How much of a file that is not ELF is kept: scripts are searched for program names.
const SCRIPT_BYTES: usize = 256 << 10;

impl<'t> Files<'t> {
    /// Returns a reader of `tree`.
    pub fn new(tree: &'t Tree) -> Files<'t> {
        Files { tree, seen: BTreeMap::new() }
    }

    /// Returns what is at a node.
    pub fn get(&mut self, id: NodeId) -> Found {
        if let Some(found) = self.seen.get(&id) {
            return found.clone();
        }
        let found = self.read(id);
        self.seen.insert(id, found.clone());
        found
    }

    /// Returns the ELF file at a node, if it is one.
    pub fn elf(&mut self, id: NodeId) -> Option<Arc<ElfFile>> {
        match self.get(id) {
            Found::Elf(file) => Some(file),
            _ => None,
        }
    }

    fn read(&self, id: NodeId) -> Found {
        let Kind::File(content) = &self.tree.node(id).kind else { return Found::NotRegular };
        let mut magic = Vec::new();
        let head = content.open().and_then(|f| f.take(4).read_to_end(&mut magic));
        if let Err(e) = head {
            return Found::Unreadable(e.to_string());
        }
        if magic != b"\x7fELF" {
            let mut head = Vec::new();
            return match content.open().and_then(|f| f.take(SCRIPT_BYTES as u64).read_to_end(&mut head)) {
                Ok(_) => Found::Other(ElfError::NotElf, head),
                Err(e) => Found::Unreadable(e.to_string()),
            };
        }
        match content.read_all() {
            Ok(bytes) => match ElfFile::parse(bytes) {
                Ok(file) => Found::Elf(Arc::new(file)),
                Err(e) => Found::Other(e, magic),
            },
            Err(e) => Found::Unreadable(e.to_string()),
        }
    }
}
