//! The readable, deterministic text form of a tree (`--emit rootfs`).

use std::fmt::Write;

use crate::{Kind, Tree};

impl Tree {
    /// Writes one line per name: type and mode, owner, size or device numbers, path, link target. Paths that are not UTF-8 are escaped.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.walk(&mut |path, id| {
            let node = self.node(id);
            let (letter, size) = match &node.kind {
                Kind::Dir(_) => ('d', String::new()),
                Kind::File(content) => ('-', content.len_bytes().to_string()),
                Kind::Symlink(_) => ('l', String::new()),
                Kind::CharDevice(major, minor) => ('c', format!("{major}:{minor}")),
                Kind::BlockDevice(major, minor) => ('b', format!("{major}:{minor}")),
                Kind::Fifo => ('p', String::new()),
            };
            let _ = write!(out, "{letter}{:04o} {}:{} {size:>8} {}", node.meta.mode, node.meta.uid, node.meta.gid, path.escape_ascii());
            if let Kind::Symlink(target) = &node.kind {
                let _ = write!(out, " -> {}", target.escape_ascii());
            }
            for (name, value) in &node.meta.xattrs {
                let _ = write!(out, " {}={}", name.escape_ascii(), value.escape_ascii());
            }
            out.push('\n');
        });
        out
    }
}
