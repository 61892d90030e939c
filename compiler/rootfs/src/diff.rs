//! Two trees → the changes that make one into the other: what a layer between them would hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::{Action, Change, Content, Kind, Name, NodeId, Tree};

impl Content {
    /// Whether both refer to the same bytes. `false` proves nothing: the bytes may still be equal.
    pub fn is_same(&self, other: &Content) -> bool {
        match (self, other) {
            (Content::Bytes(a), Content::Bytes(b)) => Arc::ptr_eq(a, b) || a == b,
            (
                Content::Host { path: a, offset: a_offset, len_bytes: a_len },
                Content::Host { path: b, offset: b_offset, len_bytes: b_len },
            ) => a_len == b_len && a_offset == b_offset && (Arc::ptr_eq(a, b) || a == b),
            _ => false,
        }
    }
}

impl Tree {
    /// Returns the changes that make `old` into this tree, in byte order of their paths (without a leading `/`; the root itself is the empty path), so
    /// parents come before children. As in a layer, the directories above a change are there too. Names that share a node are hard links of each other
    /// if both are in the changes; a new name of an unchanged file is a copy of it. No directory among the changes is opaque.
    pub fn changes_since(&self, old: &Tree) -> Vec<Change> {
        let mut diff = Diff { old, new: self, out: BTreeMap::new(), names: HashMap::new() };
        if old.node(Tree::ROOT).meta != self.node(Tree::ROOT).meta {
            diff.put(vec![], Tree::ROOT);
        }
        diff.run();
        diff.out.into_iter().map(|(path, action)| Change { path, action }).collect()
    }
}

struct Diff<'a> {
    old: &'a Tree,
    new: &'a Tree,
    out: BTreeMap<Vec<u8>, Action>,
    /// The first name under which a node was put.
    names: HashMap<NodeId, Vec<u8>>,
}

impl Diff<'_> {
    fn run(&mut self) {
        let none = BTreeMap::new();
        // A stack of our own: a tree may be deeper than a thread's. `None` stands for an old directory that is not there; the last member are the nodes
        // of the directories above, the root first.
        let mut todo: Vec<(Vec<u8>, Option<NodeId>, Vec<NodeId>)> = vec![(vec![], Some(Tree::ROOT), vec![Tree::ROOT])];
        while let Some((dir, old_dir, above)) = todo.pop() {
            let old_entries: &BTreeMap<Name, NodeId> = old_dir.and_then(|id| self.old.entries(id)).unwrap_or(&none);
            let new_entries: &BTreeMap<Name, NodeId> =
                self.new.entries(*above.last().expect("a directory is below itself")).unwrap_or(&none);
            let at = |name: &[u8]| if dir.is_empty() { name.to_vec() } else { [dir.as_slice(), b"/", name].concat() };
            let before = self.out.len();
            for name in old_entries.keys().filter(|name| !new_entries.contains_key(*name)) {
                self.out.insert(at(name), Action::Whiteout);
            }
            let mut below = vec![];
            for (name, &new_id) in new_entries {
                let old_id = old_entries.get(name).copied();
                let path = at(name);
                if old_id.is_none_or(|old_id| self.differs(old_id, new_id)) {
                    self.put(path.clone(), new_id);
                }
                if self.new.entries(new_id).is_some() {
                    let old_id = old_id.filter(|&id| self.old.entries(id).is_some());
                    below.push((path, old_id, [above.as_slice(), &[new_id]].concat()));
                }
            }
            if self.out.len() > before {
                self.put_above(&dir, &above);
            }
            todo.extend(below.into_iter().rev());
        }
    }

    /// Puts the directory `dir` and those above it, unless they are there.
    fn put_above(&mut self, dir: &[u8], above: &[NodeId]) {
        let ends = dir.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain((!dir.is_empty()).then_some(dir.len()));
        for (end, id) in std::iter::once(0).chain(ends).zip(above) {
            if !self.out.contains_key(&dir[..end]) {
                self.put(dir[..end].to_vec(), *id);
            }
        }
    }

    fn put(&mut self, path: Vec<u8>, id: NodeId) {
        let node = self.new.node(id);
        let kind = match &node.kind {
            Kind::Dir(_) => Kind::Dir(BTreeMap::new()),
            other => {
                if let Some(first) = self.names.get(&id) {
                    self.out.insert(path, Action::HardLink(first.clone()));
                    return;
                }
                self.names.insert(id, path.clone());
                other.clone()
            }
        };
        self.out.insert(path, Action::Put(node.meta.clone(), kind));
    }

    fn differs(&self, old: NodeId, new: NodeId) -> bool {
        let (old, new) = (self.old.node(old), self.new.node(new));
        old.meta != new.meta
            || match (&old.kind, &new.kind) {
                (Kind::Dir(_), Kind::Dir(_)) | (Kind::Fifo, Kind::Fifo) => false,
                (Kind::File(a), Kind::File(b)) => !a.is_same(b),
                (Kind::Symlink(a), Kind::Symlink(b)) => a != b,
                (Kind::CharDevice(a, b), Kind::CharDevice(c, d)) | (Kind::BlockDevice(a, b), Kind::BlockDevice(c, d)) => (a, b) != (c, d),
                _ => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Action, Change, Content, Kind, Meta, Tree};

    fn put(path: &str, kind: Kind) -> Change {
        Change { path: path.into(), action: Action::Put(Meta::new(0o644), kind) }
    }

    fn file(path: &str, text: &str) -> Change {
        put(path, Kind::File(Content::from_bytes(text.as_bytes())))
    }

    fn shown(changes: &[Change]) -> String {
        let line = |c: &Change| {
            let path = String::from_utf8_lossy(&c.path).into_owned();
            match &c.action {
                Action::Put(_, Kind::Dir(_)) => format!("{path}/"),
                Action::Put(..) => format!("+{path}"),
                Action::HardLink(to) => format!("{path}={}", String::from_utf8_lossy(to)),
                Action::Whiteout => format!("-{path}"),
                Action::Opaque => format!("!{path}"),
            }
        };
        changes.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_changes_are_what_differs_and_make_the_new_tree() {
        let mut old = Tree::new();
        let dir = || Kind::Dir(Default::default());
        old.apply(b"/", vec![file("a/x", "1"), file("a/y", "2"), file("b/z", "3"), put("l", Kind::Symlink(b"a".to_vec()))], None).unwrap();
        for (changes, expected) in [
            (vec![], ""),
            (vec![file("a/x", "1")], ""),
            (vec![file("a/x", "9")], "/ a/ +a/x"),
            (vec![file("c/d", "9")], "/ c/ +c/d"),
            (vec![Change { path: b"b".to_vec(), action: Action::Whiteout }], "/ -b"),
            (vec![file("b", "9")], "/ +b"),
            (vec![put("a/x", dir()), file("a/x/n", "")], "/ a/ a/x/ +a/x/n"),
            (vec![put("l", dir())], "/ l/"),
            (vec![file("n", "9"), Change { path: b"m/n".to_vec(), action: Action::HardLink(b"n".to_vec()) }], "/ m/ m/n=n +n"),
            (vec![Change { path: b"n".to_vec(), action: Action::HardLink(b"a/x".to_vec()) }], "/ +n"),
            (vec![Change { path: b"".to_vec(), action: Action::Put(Meta::new(0o700), dir()) }], "/"),
        ] {
            let mut new = old.clone();
            new.apply(b"/", changes, None).unwrap();
            let diff = new.changes_since(&old);
            assert_eq!(shown(&diff), expected);
            let mut again = old.clone();
            again.apply(b"/", diff, None).unwrap();
            assert_eq!(again.to_text(), new.to_text());
        }
        let all = old.changes_since(&Tree::new());
        let mut again = Tree::new();
        again.apply(b"/", all, None).unwrap();
        assert_eq!(again.to_text(), old.to_text());
    }
}
