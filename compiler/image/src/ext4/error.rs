//! What can go wrong, with the path it is about.

use std::fmt;
use std::io;

use ukc_rootfs::{Kind, NodeId, Tree};

/// Why a tree cannot be written as ext4.
#[derive(Debug)]
pub enum Ext4Error {
    /// A name is empty, longer than 255 bytes, or holds `/` or NUL, or is `.` or `..`.
    Name {
        /// The whole path.
        path: String,
    },
    /// A symbolic link's target is empty or longer than 4,095 bytes.
    Symlink {
        /// The link.
        path: String,
        /// Length of its target.
        len_bytes: usize,
    },
    /// More than 65,000 names for one file.
    TooManyLinks {
        /// One of them.
        path: String,
    },
    /// A directory with two names, or inside itself.
    DirectoryTwice {
        /// One of its names.
        path: String,
    },
    /// A device number that Linux does not have.
    Device {
        /// The device.
        path: String,
        /// Its number.
        major: u32,
        /// Its number.
        minor: u32,
    },
    /// An extended attribute in a namespace that ext4 does not have, or with a malformed value.
    Attribute {
        /// The file.
        path: String,
        /// The attribute.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The extended attributes of a file need more than the inode and one block.
    AttributesTooLarge {
        /// The file.
        path: String,
        /// Bytes that did not fit.
        len_bytes: usize,
    },
    /// A file or the whole image is above 16 TiB.
    TooLarge {
        /// Its size.
        len_bytes: u64,
    },
    /// The contents of a file cannot be read.
    Read {
        /// The file in the tree.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The contents of a file are longer or shorter than when the tree was made.
    SizeChanged {
        /// The file in the tree.
        path: String,
        /// Size when the tree was made.
        expected: u64,
        /// Size now, as far as it was read.
        found: u64,
    },
    /// The image cannot be written.
    Write {
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for Ext4Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ext4Error::Name { path } => write!(f, "`{path}` cannot be a file name"),
            Ext4Error::Symlink { path, len_bytes } => {
                write!(f, "symbolic link `{path}` has a target of {len_bytes} bytes; 1 to 4095 are possible")
            }
            Ext4Error::TooManyLinks { path } => write!(f, "`{path}` has more than 65000 hard links"),
            Ext4Error::DirectoryTwice { path } => write!(f, "directory `{path}` has two names"),
            Ext4Error::Device { path, major, minor } => write!(f, "device `{path}` has the impossible number {major}:{minor}"),
            Ext4Error::Attribute { path, name, reason } => write!(f, "extended attribute `{name}` of `{path}`: {reason}"),
            Ext4Error::AttributesTooLarge { path, len_bytes } => {
                write!(f, "the extended attributes of `{path}` need {len_bytes} bytes more than ext4 has room for")
            }
            Ext4Error::TooLarge { len_bytes } => write!(f, "{len_bytes} bytes are more than the 16 TiB an image can have"),
            Ext4Error::Read { path, source } => write!(f, "cannot read the contents of `{path}`: {source}"),
            Ext4Error::SizeChanged { path, expected, found } => {
                write!(f, "`{path}` changed while the image was made: {found} bytes instead of {expected}")
            }
            Ext4Error::Write { source } => write!(f, "cannot write the image: {source}"),
        }
    }
}

impl std::error::Error for Ext4Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Ext4Error::Read { source, .. } | Ext4Error::Write { source } => Some(source),
            _ => None,
        }
    }
}

/// Returns a path of a node, for messages. Searches; only errors pay for it. Survives trees with cycles.
pub(crate) fn path_of(tree: &Tree, wanted: NodeId) -> String {
    let mut visited = vec![false; tree.len()];
    let mut stack = vec![(Tree::ROOT, String::new())];
    while let Some((id, path)) = stack.pop() {
        if id == wanted {
            return if path.is_empty() { "/".to_owned() } else { path };
        }
        if std::mem::replace(&mut visited[id.0 as usize], true) {
            continue;
        }
        if let Kind::Dir(entries) = &tree.node(id).kind {
            stack.extend(entries.iter().map(|(name, &child)| (child, format!("{path}/{}", String::from_utf8_lossy(name)))));
        }
    }
    "?".to_owned()
}
