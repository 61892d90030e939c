//! Places for mounts that a root does not have: found in the tree, so that no link of the root is ever followed on the host.
//!
//! A missing target is made in a layer of its own (a *stub*), below the one that the process writes to. So it is there for the mount, and nothing has to be removed
//! afterwards: what the process changes is elsewhere. Directories above a stub are repeated with the metadata that they have in the tree, because a
//! directory of an upper layer has its own.

use std::collections::BTreeMap;

use ukc_rootfs::{Action, Change, Content, Kind, Meta, Tree, path};

use crate::spec::Hidden;

/// The stubs of one run.
#[derive(Debug, Default)]
pub(crate) struct Stubs {
    changes: BTreeMap<Vec<u8>, Action>,
    hidden: Vec<Hidden>,
}

impl Stubs {
    /// Returns where `target` (absolute) really is inside the root, and makes it if it is not there. `None` when links among its parents lead nowhere.
    pub fn place(&mut self, tree: &Tree, target: &[u8], is_dir: bool) -> Option<Vec<u8>> {
        if let Ok(found) = tree.resolve(target) {
            return Some(found.path);
        }
        let place = tree.resolve_for_creation(target).ok()?;
        let parts: Vec<&[u8]> = path::components(&place).collect();
        let mut at = vec![];
        self.put_known(tree, b"");
        for (n, part) in parts.iter().enumerate() {
            if !at.is_empty() {
                at.push(b'/');
            }
            at.extend_from_slice(part);
            if self.put_known(tree, &at) || self.changes.contains_key(&at) {
                continue;
            }
            let is_dir = is_dir || n + 1 < parts.len();
            let (mode, kind) = if is_dir { (0o755, Kind::Dir(BTreeMap::new())) } else { (0o644, Kind::File(Content::from_bytes(*b""))) };
            self.changes.insert(at.clone(), Action::Put(Meta::new(mode), kind));
            self.hidden.push(Hidden { path: at.clone(), is_dir });
        }
        Some(place)
    }

    /// Repeats a directory that the tree has.
    fn put_known(&mut self, tree: &Tree, at: &[u8]) -> bool {
        let Ok(found) = tree.resolve_nofollow(&[b"/", at].concat()) else { return false };
        let node = tree.node(found.id);
        if matches!(node.kind, Kind::Dir(_)) {
            self.changes.entry(at.to_vec()).or_insert_with(|| Action::Put(node.meta.clone(), Kind::Dir(BTreeMap::new())));
        }
        true
    }

    /// Returns what to write, and what to leave out of the result.
    pub fn finish(self) -> (Vec<Change>, Vec<Hidden>) {
        (self.changes.into_iter().map(|(path, action)| Change { path, action }).collect(), self.hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_and_parents_keep_their_metadata() {
        let mut tree = Tree::new();
        let link = |path: &str, to: &str| Change { path: path.into(), action: Action::Put(Meta::new(0o777), Kind::Symlink(to.into())) };
        let dir = |path: &str, mode| Change { path: path.into(), action: Action::Put(Meta::new(mode), Kind::Dir(BTreeMap::new())) };
        let changes = vec![
            dir("etc", 0o700),
            link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
            link("etc/hosts", "/../../etc/passwd"),
            link("etc/loop", "loop"),
            dir("run", 0o711),
        ];
        tree.apply(b"/", changes, None).unwrap();
        let mut stubs = Stubs::default();
        let mut place = |target: &str, is_dir| stubs.place(&tree, target.as_bytes(), is_dir).map(|p| String::from_utf8(p).unwrap());
        assert_eq!(place("/etc/resolv.conf", false).as_deref(), Some("/run/systemd/resolve/stub-resolv.conf"));
        assert_eq!(place("/etc/hosts", false).as_deref(), Some("/etc/passwd"));
        assert_eq!(place("/etc/loop", false), None);
        assert_eq!(place("/etc", true).as_deref(), Some("/etc"));
        assert_eq!(place("/proc", true).as_deref(), Some("/proc"));
        let (changes, hidden) = stubs.finish();
        let mode = |path: &str| {
            changes.iter().find(|c| c.path == path.as_bytes()).map(|c| match &c.action {
                Action::Put(meta, kind) => (meta.mode, matches!(kind, Kind::Dir(_))),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(mode("etc"), Some((0o700, true)));
        assert_eq!(mode("run"), Some((0o711, true)));
        assert_eq!(mode("run/systemd/resolve/stub-resolv.conf"), Some((0o644, false)));
        assert_eq!(mode("etc/passwd"), Some((0o644, false)));
        let hidden: Vec<_> = hidden.iter().map(|h| (String::from_utf8_lossy(&h.path).into_owned(), h.is_dir)).collect();
        let expected = [("run/systemd", true), ("run/systemd/resolve", true), ("run/systemd/resolve/stub-resolv.conf", false)];
        assert_eq!(hidden[..3], expected.map(|(p, d)| (p.to_owned(), d)));
        assert!(!hidden.iter().any(|(p, _)| p == "etc" || p == "run"));
    }
}
