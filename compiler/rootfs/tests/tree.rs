//! Path lookup, tree operations and layer application, through the public interface.

use proptest::prelude::*;
use ukc_rootfs::{Action, ApplyErrorKind, Change, Content, Kind, Meta, Node, Origin, ResolveError, Tree, path};

fn dir() -> Kind {
    Kind::Dir(Default::default())
}

fn file(text: &str) -> Kind {
    Kind::File(Content::from_bytes(text.as_bytes()))
}

fn put(path: &str, kind: Kind) -> Change {
    Change { path: path.into(), action: Action::Put(Meta::new(if matches!(kind, Kind::Dir(_)) { 0o755 } else { 0o644 }), kind) }
}

fn link(path: &str, to: &str) -> Change {
    put(path, Kind::Symlink(to.into()))
}

fn hard(path: &str, to: &str) -> Change {
    Change { path: path.into(), action: Action::HardLink(to.into()) }
}

fn whiteout(path: &str) -> Change {
    Change { path: path.into(), action: Action::Whiteout }
}

fn opaque(path: &str) -> Change {
    Change { path: path.into(), action: Action::Opaque }
}

fn tree(layers: impl IntoIterator<Item = Vec<Change>>) -> Tree {
    let mut tree = Tree::new();
    for layer in layers {
        tree.apply(b"/", layer, None).unwrap();
    }
    tree
}

fn paths(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    tree.walk(&mut |path, _| out.push(String::from_utf8_lossy(path).into_owned()));
    out.remove(0);
    out
}

fn text(tree: &Tree, path: &str) -> String {
    let id = tree.resolve(path.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e:?}")).id;
    let Kind::File(content) = &tree.node(id).kind else { panic!("{path} is not a file") };
    String::from_utf8(content.read_all().unwrap()).unwrap()
}

#[test]
fn resolve_follows_links_inside_the_tree() {
    let t = tree([vec![
        put("usr/bin/sh", file("sh")),
        link("bin", "usr/bin"),
        link("abs", "/usr/./bin"),
        link("up", "../../../../usr"),
        link("usr/back", "../bin/sh"),
        link("loop", "loop2"),
        link("loop2", "loop"),
        link("self/a", "../self/a"),
        link("dangling", "nowhere"),
    ]]);
    // path | result, `!` for an error.
    for line in [
        "/|/",
        "|/",
        "..|/",
        "/../..|/",
        "bin|/usr/bin",
        "bin/sh|/usr/bin/sh",
        "abs/sh|/usr/bin/sh",
        "up/bin/sh|/usr/bin/sh",
        "usr/back|/usr/bin/sh",
        "usr/bin/../bin/./sh|/usr/bin/sh",
        "bin/..|/usr",
        "//usr//bin//|/usr/bin",
        "loop|!Loop",
        "self/a|!Loop",
        "dangling|!NotFound",
        "nowhere/..|!NotFound",
        "bin/sh/|!NotADirectory",
        "bin/sh/x|!NotADirectory",
        "bin/sh/..|!NotADirectory",
        "usr/bin/SH|!NotFound",
    ] {
        let (input, expected) = line.split_once('|').unwrap();
        let got = match t.resolve(input.as_bytes()) {
            Ok(found) => String::from_utf8(found.path).unwrap(),
            Err(e) => format!("!{e:?}"),
        };
        assert_eq!(got, expected, "resolve({input:?})");
    }
    assert_eq!(t.resolve_nofollow(b"/bin").unwrap().path, b"/bin");
    assert_eq!(t.resolve_nofollow(b"/dangling").unwrap().path, b"/dangling");
    assert_eq!(t.resolve_from(b"/usr", b"bin/sh", true).unwrap().path, b"/usr/bin/sh");
    assert_eq!(t.resolve_from(b"/nowhere", b"x", true), Err(ResolveError::NotFound));
}

#[test]
fn resolve_for_creation_follows_dangling_links() {
    let t = tree([vec![
        put("usr/bin/sh", file("sh")),
        link("bin", "usr/bin"),
        link("new", "/not/yet"),
        link("usr/x", "../y"),
        link("loop", "loop"),
    ]]);
    for line in [
        "/|/",
        "/bin/ls|/usr/bin/ls",
        "/bin|/usr/bin",
        "/new|/not/yet",
        "/new/a/b|/not/yet/a/b",
        "/a/b/../c|/a/c",
        "/../..|/",
        "/usr/x|/y",
        "/loop|!Loop",
        "/bin/sh/x|!NotADirectory",
    ] {
        let (input, expected) = line.split_once('|').unwrap();
        let got = match t.resolve_for_creation(input.as_bytes()) {
            Ok(path) => String::from_utf8(path).unwrap(),
            Err(e) => format!("!{e:?}"),
        };
        assert_eq!(got, expected, "resolve_for_creation({input:?})");
    }
}

#[test]
fn forty_links_are_followed_and_one_more_is_a_loop() {
    let chain = |n: usize| {
        let mut layer = vec![put("l0", file("end"))];
        layer.extend((1..=n).map(|i| link(&format!("l{i}"), &format!("l{}", i - 1))));
        tree([layer])
    };
    assert!(chain(40).resolve(b"l40").is_ok());
    assert_eq!(chain(41).resolve(b"l41"), Err(ResolveError::Loop));
}

#[test]
fn whiteouts_and_opaque_directories() {
    let base = || vec![put("a/x", file("x")), put("a/y", file("y")), put("b/z", file("z")), put("c", file("c"))];
    assert_eq!(paths(&tree([base(), vec![whiteout("a/x"), whiteout("c"), whiteout("not/there")]])), ["/a", "/a/y", "/b", "/b/z"]);
    assert_eq!(paths(&tree([base(), vec![whiteout("a")]])), ["/b", "/b/z", "/c"]);
    // The order inside a layer does not matter: a whiteout never removes what its own layer brings.
    for flip in [false, true] {
        let mut layer = vec![opaque("a"), put("a/new", file("n")), put("c", file("new c")), whiteout("c")];
        if flip {
            layer.reverse();
        }
        let t = tree([base(), layer]);
        assert_eq!(paths(&t), ["/a", "/a/new", "/b", "/b/z", "/c"]);
        assert_eq!(text(&t, "/c"), "new c");
    }
}

#[test]
fn types_change_between_layers() {
    let t = tree([
        vec![put("d/inner", file("1")), put("f", file("2")), link("l", "d"), link("keep", "d")],
        vec![put("d", file("now a file")), put("f", dir()), put("l", dir()), put("f/below", file("3"))],
    ]);
    assert_eq!(paths(&t), ["/d", "/f", "/f/below", "/keep", "/l"]);
    assert_eq!(text(&t, "/keep"), "now a file");
    assert!(t.entries(t.resolve_nofollow(b"/l").unwrap().id).is_some(), "a directory entry replaces a link, it does not follow it");
}

#[test]
fn directory_metadata_of_the_upper_layer_wins_and_missing_parents_are_0755() {
    let mut upper = put("a", dir());
    upper.action = Action::Put(Meta { uid: 7, ..Meta::new(0o1777) }, dir());
    let t = tree([vec![put("a/x", file("x"))], vec![upper, put("p/q/r", file("r"))]]);
    let meta = |path: &[u8]| &t.node(t.resolve(path).unwrap().id).meta;
    assert_eq!((meta(b"/a").mode, meta(b"/a").uid), (0o1777, 7));
    assert_eq!((meta(b"/p").mode, meta(b"/p/q").mode), (0o755, 0o755));
    assert_eq!(text(&t, "/a/x"), "x");
}

#[test]
fn hard_links_share_a_node_across_layers() {
    let mut t = tree([vec![put("lib/a", file("1"))], vec![hard("lib/b", "./lib/a"), hard("c", "/lib/b")]]);
    let id = |t: &Tree, path: &[u8]| t.resolve(path).unwrap().id;
    assert_eq!(id(&t, b"/lib/a"), id(&t, b"/lib/b"));
    assert_eq!(id(&t, b"/lib/a"), id(&t, b"/c"));
    // Replacing one name leaves the others alone.
    t.apply(b"/", vec![put("lib/a", file("2"))], None).unwrap();
    assert_eq!((text(&t, "/lib/a"), text(&t, "/c")), ("2".into(), "1".into()));
    // A target that comes later in the layer is found; one that never comes is an error that names it.
    assert_eq!(text(&tree([vec![hard("early", "late"), put("late", file("l"))]]), "/early"), "l");
    let error = Tree::new().apply(b"/", vec![hard("x", "missing")], None).unwrap_err();
    assert_eq!(error.why, ApplyErrorKind::MissingTarget(b"missing".to_vec()));
    let error = tree([vec![put("d", dir())]]).apply(b"/", vec![hard("x", "d")], None).unwrap_err();
    assert!(matches!(error.why, ApplyErrorKind::LinkToDirectory(_)));
}

#[test]
fn names_cannot_escape() {
    let t = tree([vec![
        put("../../etc/a", file("a")),
        put("/abs", file("b")),
        link("out", "../../../.."),
        put("out/c", file("c")),
        link("dangling", "/made/here"),
        put("dangling/d", file("d")),
    ]]);
    assert_eq!(paths(&t), ["/abs", "/c", "/dangling", "/etc", "/etc/a", "/made", "/made/here", "/made/here/d", "/out"]);
    let mut t = Tree::new();
    // Below a base directory `..` stops at that directory.
    t.apply(b"/srv/x", vec![put("../../../up", file("u"))], None).unwrap();
    assert_eq!(paths(&t), ["/srv", "/srv/x", "/srv/x/up"]);
    for bad in ["a\0b".to_owned(), "n".repeat(256), "a/".repeat(3000)] {
        assert_eq!(Tree::new().apply(b"/", vec![put(&bad, file(""))], None).unwrap_err().why, ApplyErrorKind::BadName);
    }
    let looped = tree([vec![link("l", "l")]]).apply(b"/", vec![put("l/x", file(""))], None).unwrap_err();
    assert_eq!(looped.why, ApplyErrorKind::LinkLoop);
    assert_eq!(Tree::new().apply(b"/", vec![put("/", file(""))], None).unwrap_err().why, ApplyErrorKind::RootReplaced);
}

#[test]
fn compact_drops_the_unnamed_and_keeps_links_and_origins() {
    let mut t = tree([vec![put("a", file("1")), hard("b", "a"), put("gone", file("x"))], vec![whiteout("gone")]]);
    let id = t.resolve(b"/a").unwrap().id;
    t.node_mut(id).origin = Some(Origin(3));
    let small = t.compact();
    assert_eq!(small.len(), 2, "root and one file");
    assert_eq!(small.to_text(), t.to_text());
    assert_eq!(small.resolve(b"/a").unwrap().id, small.resolve(b"/b").unwrap().id);
    assert_eq!(small.node(small.resolve(b"/b").unwrap().id).origin, Some(Origin(3)));
}

#[test]
fn a_very_deep_tree_needs_no_stack() {
    let mut t = Tree::new();
    let mut at = Tree::ROOT;
    for _ in 0..200_000 {
        let next = t.add(Node { meta: Meta::new(0o755), kind: dir(), origin: None });
        t.link(at, b"d", next);
        at = next;
    }
    let mut count = 0;
    t.compact().walk(&mut |_, _| count += 1);
    assert_eq!(count, 200_001);
}

#[test]
fn text_form() {
    let mut t = tree([vec![put("bin/x", file("abc")), link("l", "bin"), put("dev/null", Kind::CharDevice(1, 3)), put("p", Kind::Fifo)]]);
    let id = t.resolve(b"/bin/x").unwrap().id;
    t.node_mut(id).meta.xattrs.insert(b"user.a".to_vec(), b"\x01".to_vec());
    t.node_mut(id).meta.mode = 0o4755;
    assert_eq!(
        t.to_text(),
        "d0755 0:0          /\nd0755 0:0          /bin\n-4755 0:0        3 /bin/x user.a=\\x01\nd0755 0:0          /dev\n\
         c0644 0:0      1:3 /dev/null\nl0644 0:0          /l -> bin\np0644 0:0          /p\n"
    );
}

fn any_path() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![Just("a"), Just("b"), Just(".."), Just("."), Just("c"), Just("")];
    (any::<bool>(), proptest::collection::vec(part, 0..5))
        .prop_map(|(abs, parts)| format!("{}{}", if abs { "/" } else { "" }, parts.join("/")).into_bytes())
}

fn any_change() -> impl Strategy<Value = Change> {
    let action = prop_oneof![
        3 => Just(Action::Put(Meta::new(0o644), file("x"))),
        3 => Just(Action::Put(Meta::new(0o755), dir())),
        3 => any_path().prop_map(|to| Action::Put(Meta::new(0o777), Kind::Symlink(to))),
        1 => any_path().prop_map(Action::HardLink),
        1 => Just(Action::Whiteout),
        1 => Just(Action::Opaque),
    ];
    (any_path(), action).prop_map(|(path, action)| Change { path, action })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the changes are: no panic, no cycle, nothing outside the base directory, every visited path resolves to itself.
    #[test]
    fn application_is_confined(layers in proptest::collection::vec(proptest::collection::vec(any_change(), 0..12), 0..3)) {
        let mut t = tree([vec![put("outside", file("o"))]]);
        for layer in layers {
            // Symbolic links may lead out of the base directory but not out of the tree, as with tar -C inside a chroot.
            let _ = t.apply(b"/", layer, None);
        }
        t.walk(&mut |path, id| {
            let found = t.resolve_nofollow(path).unwrap();
            assert_eq!((found.path.as_slice(), found.id), (path, id));
        });
        prop_assert_eq!(t.compact().to_text(), t.to_text());
    }

    #[test]
    fn clean_is_idempotent_and_absolute_never_goes_up(p in any_path()) {
        let once = path::clean(&p);
        prop_assert_eq!(path::clean(&once), once.clone());
        prop_assert!(path::components(&path::absolute(b"/a", &p)).all(|c| c != b".." && c != b"."));
    }
}
