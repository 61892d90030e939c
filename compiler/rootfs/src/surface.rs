//! What a tree offers to whoever gets into it: programs with more rights than their user, and the distribution's packages.
//!
//! Packages are what the distributions' own lists say: dpkg's `status` and `status.d/*` (deb-control(5)), apk's `installed` (apk-installed(5)).
//! Programs that were copied in by hand are in no list.

use std::collections::BTreeMap;

use crate::{Kind, NodeId, Tree};

const S_ISUID: u16 = 0o4000;
const S_ISGID: u16 = 0o2000;

/// What was found, each list by path or name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surface {
    /// Executable files that run as their owner or group.
    pub setuid: Vec<String>,
    /// Executable files with capabilities of their own, and the names of these.
    pub capabilities: Vec<(String, Vec<String>)>,
    /// Packages and their versions.
    pub packages: BTreeMap<String, String>,
}

/// Looks at a tree. Lists that cannot be read count as empty: they are the image's, and may hold anything.
pub fn surface(tree: &Tree) -> Surface {
    let mut surface = Surface::default();
    tree.walk(&mut |path, id| {
        let node = tree.node(id);
        if !matches!(node.kind, Kind::File(_)) {
            return;
        }
        let path = || String::from_utf8_lossy(path).into_owned();
        // S_ISGID without execution by the group marks mandatory locking, not a program (chmod(2)).
        if node.meta.mode & 0o111 != 0 && (node.meta.mode & S_ISUID != 0 || node.meta.mode & S_ISGID != 0 && node.meta.mode & 0o010 != 0) {
            surface.setuid.push(path());
        }
        if let Some(value) = node.meta.xattrs.get(&b"security.capability"[..]) {
            surface.capabilities.push((path(), capability_names(value)));
        }
    });
    for list in [&b"/var/lib/dpkg/status"[..], b"/lib/apk/db/installed", b"/usr/lib/apk/db/installed"] {
        if let Some(text) = text(tree, list) {
            surface.add_packages(&text);
        }
    }
    // Images without dpkg itself keep one file for each package.
    if let Ok(dir) = tree.resolve(b"/var/lib/dpkg/status.d") {
        let files: Vec<NodeId> =
            tree.entries(dir.id).into_iter().flatten().filter(|(name, _)| !name.ends_with(b".md5sums")).map(|(_, id)| *id).collect();
        files.into_iter().filter_map(|id| read(tree, id)).for_each(|text| surface.add_packages(&text));
    }
    surface
}

impl Surface {
    /// Adds the paragraphs of a list that are installed packages.
    fn add_packages(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            let field = |names: [&str; 2]| paragraph.lines().find_map(|line| names.iter().find_map(|name| line.strip_prefix(name)));
            let (Some(name), Some(version)) = (field(["Package: ", "P:"]), field(["Version: ", "V:"])) else { continue };
            // dpkg keeps packages of which only configuration files are left.
            let is_installed = field(["Status: ", "Status:\t"]).is_none_or(|status| status.ends_with(" installed"));
            if is_installed {
                self.packages.insert(name.trim().to_owned(), version.trim().to_owned());
            }
        }
    }
}

fn text(tree: &Tree, path: &[u8]) -> Option<String> {
    read(tree, tree.resolve(path).ok()?.id)
}

fn read(tree: &Tree, id: NodeId) -> Option<String> {
    match &tree.node(id).kind {
        Kind::File(content) => Some(String::from_utf8_lossy(&content.read_all().ok()?).into_owned()),
        _ => None,
    }
}

/// The capabilities in the order of their bits (linux/capability.h).
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Returns the names of an attribute's capabilities: `struct vfs_cap_data`, a magic and pairs of permitted and inheritable words, little-endian.
fn capability_names(value: &[u8]) -> Vec<String> {
    let word = |index: usize| value.get(index * 4..index * 4 + 4).and_then(|w| w.try_into().ok()).map_or(0, u32::from_le_bytes);
    let low = word(1) | word(2);
    let high = word(3) | word(4);
    let bits = u64::from(high) << 32 | u64::from(low);
    let name = |bit: usize| NAMES.get(bit).map_or_else(|| format!("cap_{bit}"), |name| format!("cap_{name}"));
    (0..64).filter(|bit| bits >> bit & 1 == 1).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, Meta, Node};

    fn tree(files: &[(&str, u16, &str)]) -> Tree {
        let mut tree = Tree::new();
        for (path, mode, text) in files {
            let mut dir = Tree::ROOT;
            let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
            let name = parts.pop().unwrap();
            for part in parts {
                dir = match tree.entries(dir).unwrap().get(part.as_bytes()) {
                    Some(id) => *id,
                    None => {
                        let id = tree.add(Node { meta: Meta::new(0o755), kind: Kind::Dir(BTreeMap::new()), origin: None });
                        tree.link(dir, part.as_bytes(), id);
                        id
                    }
                };
            }
            let file = tree.add(Node { meta: Meta::new(*mode), kind: Kind::File(Content::from_bytes(text.as_bytes())), origin: None });
            tree.link(dir, name.as_bytes(), file);
        }
        tree
    }

    #[test]
    fn programs_with_more_rights_are_found() {
        let mut tree = tree(&[
            ("/bin/su", 0o4755, ""),
            ("/bin/wall", 0o2755, ""),
            ("/data/locked", 0o2644, ""),
            ("/data/nothing", 0o4644, ""),
            ("/bin/ping", 0o755, ""),
        ]);
        let ping = tree.resolve(b"/bin/ping").unwrap().id;
        let mut value = 0x0200_0001u32.to_le_bytes().to_vec();
        for word in [1u32 << 13, 0, 1 << 7, 0] {
            value.extend(word.to_le_bytes());
        }
        tree.node_mut(ping).meta.xattrs.insert(b"security.capability".to_vec(), value);
        let found = surface(&tree);
        assert_eq!(found.setuid, ["/bin/su", "/bin/wall"]);
        assert_eq!(found.capabilities, [("/bin/ping".to_owned(), vec!["cap_net_raw".to_owned(), "cap_bpf".to_owned()])]);
        assert_eq!(capability_names(b"short"), [""; 0]);
    }

    #[test]
    fn packages_are_what_the_lists_say() {
        let status = "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\nDescription: C\n library\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
        let found = surface(&tree(&[
            ("/var/lib/dpkg/status", 0o644, status),
            ("/var/lib/dpkg/status.d/base", 0o644, "Package: base-files\nVersion: 12\n"),
            ("/var/lib/dpkg/status.d/base.md5sums", 0o644, "Package: not\nVersion: 1\n"),
            ("/lib/apk/db/installed", 0o644, "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\n\n"),
        ]));
        let packages: Vec<(&str, &str)> = found.packages.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(packages, [("base-files", "12"), ("libc6", "2.36-9"), ("musl", "1.2.4-r2")]);
    }
}
