//! The rules of COPY and ADD: where things go, what they look like there.

mod common;

use common::{case, debian_like, node, owner, paths, text};
use ukc_rootfs::{Content, ImageConfig, Kind, Meta, Node, Tree};

/// instruction(s) after `FROM scratch`, separated by `;` | resulting paths
#[test]
fn where_things_go() {
    for line in [
        "COPY a.txt /|/a.txt",
        "COPY a.txt /b.txt|/b.txt",
        "COPY a.txt /x/|/x/ /x/a.txt",
        "COPY a.txt /x/y/z|/x/ /x/y/ /x/y/z",
        "COPY a.txt b.txt /x/|/x/ /x/a.txt /x/b.txt",
        "COPY a.txt .|/a.txt",
        "COPY a.txt ./|/a.txt",
        "WORKDIR /w;COPY a.txt .|/w/ /w/a.txt",
        "WORKDIR /w;COPY a.txt sub/|/w/ /w/sub/ /w/sub/a.txt",
        "WORKDIR /w;COPY a.txt ..|/a.txt /w/|no slash, but the directory exists",
        "WORKDIR /w;COPY a.txt ../v|/v /w/",
        "COPY d /|/e/ /e/2 /1",
        "COPY d /n|/n/ /n/1 /n/e/ /n/e/2",
        "COPY d/ /n/|/n/ /n/1 /n/e/ /n/e/2",
        "COPY d/. /n/|/n/ /n/1 /n/e/ /n/e/2",
        "COPY d d2 /n/|/n/ /n/1 /n/3 /n/e/ /n/e/2",
        "COPY . /n/|/n/ /n/a.txt /n/b.txt /n/d/ /n/d/1 /n/d/e/ /n/d/e/2 /n/d2/ /n/d2/3 /n/d2/e/ /n/[x]",
        "COPY / /n|/n/ /n/a.txt /n/b.txt /n/d/ /n/d/1 /n/d/e/ /n/d/e/2 /n/d2/ /n/d2/3 /n/d2/e/ /n/[x]",
        "COPY /d/../a.txt /|/a.txt",
        "COPY ../../a.txt /|/a.txt",
        "COPY *.txt /x/|/x/ /x/a.txt /x/b.txt",
        "COPY d*/[0-9] /x/|/x/ /x/1 /x/3",
        "COPY */* /x/|/x/ /x/1 /x/2 /x/3|e is a directory: its contents",
        "COPY ?.txt /x/|/x/ /x/a.txt /x/b.txt",
        "COPY nothing*.c a.txt /x/|/x/ /x/a.txt",
        "COPY [[]x] /x/|/x/ /x/[x]",
        "COPY \\[x] /x/|",
        "COPY a.txt /x/;COPY b.txt /x|/x/ /x/a.txt /x/b.txt",
        "COPY a.txt /x;COPY b.txt /x|/x",
        "COPY [\"a.txt\", \"/with space/\"]|/with space/ /with space/a.txt",
        "COPY --parents d/e/2 /x/|/x/ /x/d/ /x/d/e/ /x/d/e/2",
        "COPY --parents d/./e/2 /x/|/x/ /x/e/ /x/e/2",
        "COPY --parents d/e /x|/x/ /x/d/ /x/d/e/ /x/d/e/2",
        "COPY --parents ./d/*/2 a.txt /x/|/x/ /x/a.txt /x/d/ /x/d/e/ /x/d/e/2",
        "COPY --parents **/[12] /x/|/x/ /x/d/ /x/d/1 /x/d/e/ /x/d/e/2",
        "COPY --exclude=e d /x|/x/ /x/1",
        "COPY --exclude=**/2 d /x|/x/ /x/1 /x/e/",
        "COPY --exclude=a* *.txt /x/|/x/ /x/b.txt",
        "COPY --exclude=* --exclude=!e/2 d /x|/x/ /x/e/ /x/e/2",
        "COPY --parents --exclude=**/1 d /x/|/x/ /x/d/ /x/d/e/ /x/d/e/2",
        "COPY --link a.txt /x/|/x/ /x/a.txt",
        "COPY <<one /x|/x",
        "COPY <<one <<two /x/|/x/ /x/one /x/two",
        "ADD a.txt /x/|/x/ /x/a.txt",
    ] {
        let case = case().files("a.txt b.txt d/1 d/e/2 d2/3 [x]").shell("mkdir d2/e");
        let fields: Vec<&str> = line.split('|').collect();
        let mut dockerfile = format!("FROM scratch\n{}\n", fields[0].replace(';', "\n"));
        for doc in ["one", "two"] {
            if dockerfile.contains(&format!("<<{doc}")) {
                dockerfile.push_str(&format!("text of {doc}\n{doc}\n"));
            }
        }
        let built = case.built(&dockerfile);
        let sort = |s: &str| {
            let mut v: Vec<String> = s.replace("/with space", "/with_space").split(' ').map(str::to_owned).collect();
            v.sort();
            v
        };
        assert_eq!(sort(&paths(&built)), sort(fields[1]), "{line}");
    }
}

#[test]
fn suspicious_wildcards_are_warned_about() {
    let case = case().files("a.txt b.txt");
    let warnings = |copy: &str| {
        let built = case.built(&format!("FROM scratch\n{copy}\n"));
        built.diagnostics.iter().map(|d| format!("{}: {}", d.name, d.message)).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(warnings("COPY *.c /x/"), "nothing-copied: `*.c` matches nothing in the build context");
    assert_eq!(warnings("COPY *.txt /x"), "overwritten-source: `*.txt` matches 2 files, and each replaces the one before at `/x`");
    assert_eq!(warnings("COPY *.txt /x/"), "");
    assert_eq!(warnings("WORKDIR /x\nCOPY *.txt /x"), "");
}

#[test]
fn later_sources_win_and_directories_merge() {
    let case = case().files("one/f one/only1 two/f two/only2").shell("chmod 700 two; mkdir -m 750 one/s; mkdir -m 711 two/s");
    let built = case.built("FROM scratch\nCOPY one two /x/\n");
    assert_eq!(text(&built, "/x/f"), "two/f");
    assert_eq!(owner(&built, "/x/s"), "0711 0:0", "a directory that is merged takes the later metadata");
    assert_eq!(owner(&built, "/x"), "0755 0:0", "the destination itself does not");
}

#[test]
fn modes_owners_and_times() {
    let c = case().files("f d/g").shell("chmod 4640 f; chmod 2750 d; touch -d @1000000000.5 f; ln -s nowhere d/l; mkfifo d/p");
    let c = c.base("base", &debian_like(), &ImageConfig::default());
    let built = c.built("FROM base\nCOPY f d /x/\nCOPY d /y/d\n");
    assert_eq!(owner(&built, "/x/f"), "4640 0:0");
    assert_eq!(node(&built, "/x/f").meta.mtime, (1_000_000_000, 500_000_000));
    assert_eq!(node(&built, "/x").meta.mtime, (0, 0), "a directory that nobody has is dated at the epoch");
    assert!(matches!(node(&built, "/x/p").kind, Kind::Fifo));
    for (flag, path, expected) in [
        ("--chown=www-data", "/x/f", "4640 33:33"),
        ("--chown=www-data", "/x", "0755 33:33"),
        ("--chown=app", "/x/f", "4640 1000:1001"),
        ("--chown=app:staff", "/x/d/g", "0644 1000:50"),
        ("--chown=7", "/x/d", "2750 7:7"),
        ("--chown=7:staff", "/x/d/l", "0777 7:50"),
        ("--chmod=600", "/x/f", "0600 0:0"),
        ("--chmod=600", "/x", "0755 0:0"),
        ("--chmod=0711", "/x/d", "0711 0:0"),
        ("--chmod=711", "/x/d/l", "0777 0:0"),
        ("--chmod=u=rwX,go=rX", "/x/d/g", "0644 0:0"),
        ("--chmod=a+X", "/x/d", "2751 0:0"),
        ("--chown=${WHO} --chmod=$MODE", "/x/f", "0750 33:33"),
    ] {
        let built = c.built(&format!("FROM base\nARG WHO=www-data MODE=750\nCOPY {flag} f /x/\nCOPY --parents {flag} d /x/\n"));
        assert_eq!(owner(&built, path), expected, "{flag} {path}");
    }
}

#[test]
fn links_in_the_source() {
    let case = case()
        .files("real/f other")
        .shell("ln -s real dirlink; ln -s real/f filelink; ln -s /other abs; ln -s ../../../other up; ln real/f real/hard; ln -s loop loop; ln -s f real/l");
    let built = case.built("FROM scratch\nCOPY filelink abs up /x/\nCOPY dirlink /y\nCOPY dirlink/f /z\nCOPY loo* real /w/\n");
    assert_eq!(text(&built, "/x/filelink"), "real/f", "a source that is a link is followed and keeps its name");
    assert_eq!((text(&built, "/x/abs"), text(&built, "/x/up")), ("other".into(), "other".into()), "the context is the root");
    assert_eq!(paths(&built).matches("/y/").count(), 4, "{}", paths(&built));
    assert!(matches!(&node(&built, "/y/l").kind, Kind::Symlink(t) if t == b"f"), "links inside a tree are copied");
    assert_eq!(text(&built, "/z"), "real/f");
    let id = |path: &str| built.tree.resolve(path.as_bytes()).unwrap().id;
    assert_eq!(id("/y/f"), id("/y/hard"), "hard links stay hard links");
    assert_ne!(id("/y/f"), id("/w/f"));
}

/// Only the entries that sources name are read; links that lead to others must not notice.
#[test]
fn links_between_entries_of_the_context() {
    let case = case()
        .files("app/f other/g top")
        .shell("ln -s ../other app/away; ln -s app link; ln -s /other/g app/abs; mkdir self; ln -s here self/l; : > self/here");
    let text_at = |copy: &str, path: &str| text(&case.built(&format!("FROM scratch\n{copy}\n")), path);
    assert_eq!(text_at("COPY app/away/g /x", "/x"), "other/g");
    assert_eq!(text_at("COPY app/abs /x", "/x"), "other/g");
    assert_eq!(text_at("COPY app/a* /x/", "/x/g"), "other/g");
    assert_eq!(text_at("COPY link/f /x", "/x"), "app/f");
    assert_eq!(text_at("COPY --parents app/./f top /x/", "/x/top"), "top");
    assert_eq!(text_at("COPY self/l /x", "/x"), "");
    assert!(case.error("FROM scratch\nCOPY tpo /\n").contains("did you mean `top`?"));
    // Sources of different steps count together.
    assert_eq!(text_at("COPY app/f /x\nCOPY top /y", "/y"), "top");
}

#[test]
fn links_in_the_destination() {
    let mut tree = Tree::new();
    tree.write_file(b"/data/keep", Content::from_bytes(*b"k"), Meta::new(0o644)).unwrap();
    tree.write_file(b"/target", Content::from_bytes(*b"t"), Meta::new(0o600)).unwrap();
    for (name, to) in [("dir", "/data"), ("up", "../../../data"), ("dangling", "/made/here"), ("file", "target"), ("loop", "loop")] {
        let link = tree.add(Node { meta: Meta::new(0o777), kind: Kind::Symlink(to.into()), origin: None });
        tree.link(Tree::ROOT, name.as_bytes(), link);
    }
    let case = case().files("f d/g").base_tree("base", &tree, &ImageConfig::default());
    let after = |copy: &str| paths(&case.built(&format!("FROM base\n{copy}\n")));
    let base = "/dangling /data/ /data/keep /dir /file /loop /target /up";
    assert_eq!(after("WORKDIR /"), base);
    assert!(after("COPY f /dir/").contains("/data/f"));
    assert!(after("COPY f /dir").contains("/data/f"));
    assert!(after("COPY f /up/new/").contains("/data/new/f"));
    assert!(after("COPY d /dir").contains("/data/g"));
    assert!(after("COPY f /dangling").contains("/made/here"));
    assert!(after("COPY f /dangling/").contains("/made/here/f"));
    assert_eq!(text(&case.built("FROM base\nCOPY f /file\n"), "/target"), "f", "a link that is the destination is followed");
    // An independent layer knows nothing of the links below it: they are replaced.
    let linked = case.built("FROM base\nCOPY --link f /dir/\n");
    assert!(linked.tree.entries(linked.tree.resolve_nofollow(b"/dir").unwrap().id).is_some());
    assert!(case.error("FROM base\nCOPY f /loop/\n").contains("error[link-loop]"));
}

#[test]
fn from_stages_contexts_and_images() {
    let mut tree = Tree::new();
    let mut meta = Meta { uid: 12, gid: 34, mtime: (5, 6), ..Meta::new(0o4755) };
    meta.xattrs.insert(b"security.capability".to_vec(), b"\x01\x02".to_vec());
    tree.write_file(b"/bin/ping", Content::from_bytes(*b"ping"), meta.clone()).unwrap();
    let ping = tree.resolve(b"/bin/ping").unwrap().id;
    let bin = tree.resolve(b"/bin").unwrap().id;
    tree.link(bin, b"ping6", ping);
    let c = case().files("f").base_tree("tools:1", &tree, &ImageConfig::default());
    let dir = c.dir.path().join("other");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("x"), "x of other").unwrap();
    std::fs::write(dir.join("y"), "y of other").unwrap();
    std::fs::write(dir.join(".dockerignore"), "y\n").unwrap();
    let c = c.named(&format!("other={}", dir.display()));
    let built = c.built(
        "FROM scratch AS first\nCOPY f /made\nFROM tools:1\nCOPY --from=first /made /1\nCOPY --from=0 made /2\nCOPY --from=other x /3\n\
         COPY --from=tools:1 /bin /b\nCOPY --from=FIRST /made /4\nCOPY --from=tools:1 --chown=1:2 bin/ping /owned\nCOPY --from=other . /all/",
    );
    assert_eq!(
        (text(&built, "/1"), text(&built, "/2"), text(&built, "/3"), text(&built, "/4")),
        ("f".into(), "f".into(), "x of other".into(), "f".into())
    );
    assert_eq!(node(&built, "/b/ping").meta, meta, "owners, times and attributes are kept");
    assert_eq!(built.tree.resolve(b"/b/ping").unwrap().id, built.tree.resolve(b"/b/ping6").unwrap().id);
    assert_eq!(owner(&built, "/owned"), "4755 1:2");
    assert!(!paths(&built).contains("/all/y"), "a named context has its own .dockerignore");
}

#[test]
fn heredocs() {
    let built = case().built(
        "FROM scratch\nENV WHO=world\nCOPY <<greeting /g\nhello $WHO \"quoted\" \\$x\ngreeting\nCOPY --chmod=755 --chown=3 <<'raw' /r\nhello $WHO\nraw\n\
         COPY <<-tabs /dir/\n\t\tindented\n\ttabs\n",
    );
    assert_eq!(text(&built, "/g"), "hello world \"quoted\" $x\n");
    assert_eq!((text(&built, "/r"), owner(&built, "/r")), ("hello $WHO\n".into(), "0755 3:3".into()));
    assert_eq!((text(&built, "/dir/tabs"), owner(&built, "/g")), ("indented\n".into(), "0644 0:0".into()));
}

#[test]
fn archives_are_unpacked_by_content() {
    let case = case().files("tree/a tree/b/c").shell(
        "ln tree/a tree/hard; ln -s a tree/sym; chmod 4711 tree/a
         tar --owner=5 --group=6 -C tree -cf plain.tar .; gzip -c plain.tar > gz.bin; bzip2 -c plain.tar > bz; xz -c plain.tar > x.zip; zstd -q plain.tar -o z
         echo not an archive | gzip -c > text.gz; tar -cf empty.tar -T /dev/null; printf '\\037\\213broken' > broken.gz",
    );
    for name in ["plain.tar", "gz.bin", "bz", "x.zip", "z"] {
        let built = case.built(&format!("FROM scratch\nADD {name} /x/\n"));
        assert_eq!(paths(&built), "/x/ /x/a /x/b/ /x/b/c /x/hard /x/sym", "{name}");
        assert_eq!((text(&built, "/x/a"), owner(&built, "/x/a")), ("tree/a".into(), "4711 5:6".into()));
        assert_eq!(built.tree.resolve(b"/x/a").unwrap().id, built.tree.resolve(b"/x/hard").unwrap().id);
    }
    let built = case.built(
        "FROM scratch\nADD --chown=8:9 gz.bin /x\nADD text.gz empty.tar broken.gz /y/\nCOPY gz.bin /z/\nADD --unpack=false gz.bin /w/\n",
    );
    assert_eq!(owner(&built, "/x/b/c"), "0644 8:9");
    for path in ["/y/text.gz", "/y/empty.tar", "/y/broken.gz", "/z/gz.bin", "/w/gz.bin"] {
        assert!(matches!(node(&built, path).kind, Kind::File(_)), "{path}");
    }
}

/// Archives that tools make of several pieces: blocks, concatenated streams, other checks.
#[test]
fn archives_in_several_pieces() {
    let case = case().shell(
        "seq 200000 > r; tar -cf a.tar r; sum r > /dev/null
         xz -T2 --block-size=100000 -c a.tar > blocks.xz; xz --check=sha256 -c a.tar > sha.xz; xz --check=none -c a.tar > none.xz; xz --check=crc32 -c a.tar > crc.xz
         for tool in xz gzip bzip2 'zstd -q'; do (head -c 700000 a.tar | $tool; tail -c +700001 a.tar | $tool) > \"cat.${tool%% *}\"; done; rm a.tar",
    );
    let expected = std::fs::read(case.context().join("r")).unwrap();
    for name in ["blocks.xz", "sha.xz", "none.xz", "crc.xz", "cat.xz", "cat.gzip", "cat.bzip2", "cat.zstd"] {
        let built = case.run(&format!("FROM scratch\nADD {name} /x/\n")).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(paths(&built) == "/x/ /x/r", "{name}: {}", paths(&built));
        assert!(text(&built, "/x/r").into_bytes() == expected, "{name}");
    }
    // One that is cut off is an error at its word.
    let cut = std::fs::read(case.context().join("cat.gzip")).unwrap();
    std::fs::write(case.context().join("cut.tgz"), &cut[..cut.len() - 100]).unwrap();
    let error = case.error("FROM scratch\nADD cut.tgz /x/\n");
    assert!(error.contains("error[broken-archive]") && error.contains("2:5"), "{error}");
}

#[test]
fn the_same_inputs_give_the_same_tree() {
    let text = "FROM scratch\nCOPY . /x/\nWORKDIR /made\nCOPY <<a /y\nb\na\n";
    let make = || case().files("b a d/c").shell("find . -exec touch -h -d @1700000000 {} +");
    let dump = |c: &common::Case| {
        let built = c.built(text);
        let mut tar = vec![];
        ukc_oci::tar::write_tree(&built.tree, &mut tar).unwrap();
        tar
    };
    assert!(dump(&make()) == dump(&make()));
    let mut clamped = make();
    clamped.options.source_date_epoch = Some(1000);
    let built = clamped.built(text);
    built.tree.walk(&mut |path, id| {
        let mtime = built.tree.node(id).meta.mtime;
        assert!(mtime <= (1000, 0), "{}: {mtime:?}", path.escape_ascii());
    });
    assert_eq!(built.history[0].created.as_deref(), Some("1970-01-01T00:16:40Z"));
}

#[test]
fn origins_point_at_the_words() {
    let case = case().files("a b");
    let dockerfile = "FROM scratch\nCOPY a /one\nCOPY a b /many/\n";
    let built = case.built(dockerfile);
    let origin = |path: &str| {
        let span = built.origins[node(&built, path).origin.unwrap().0 as usize];
        &dockerfile[span.start as usize..span.end as usize]
    };
    assert_eq!((origin("/one"), origin("/many/a"), origin("/many/b")), ("/one", "a", "b"));
}

/// A whole context through COPY and back through our tar writer, against GNU tar's view of the same directory.
#[test]
fn a_copied_context_is_what_gnu_tar_sees() {
    let case = case().files("a d/b d/e/c").shell(
        "ln d/b d/hard; ln -s ../a d/sym; chmod 4751 a; chmod 1777 d; mkfifo d/p; mkdir empty; : > \"$(printf 'odd\\377name')\"
         mkdir -p long/$(printf 'n%.0s' $(seq 200)); touch -d '1960-01-01 00:00:00.25 UTC' d/b; truncate -s 1M hole; setfattr -n user.x -v y a 2>/dev/null || true",
    );
    let built = case.built("FROM scratch\nCOPY . /\n");
    let ours = case.dir.path().join("ours.tar");
    ukc_oci::tar::write_tree(&built.tree, &mut std::fs::File::create(&ours).unwrap()).unwrap();
    let list = |command: &str| {
        let output = std::process::Command::new("sh")
            .args(["-c", command])
            .arg(&ours)
            .current_dir(case.context())
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|l| l.split_whitespace().map(|w| w.strip_prefix("./").unwrap_or(w)).collect::<Vec<_>>().join(" "))
            // The root's own line: COPY leaves the destination's metadata alone.
            .filter(|l| !l.ends_with(' '))
            .collect();
        lines.sort();
        lines
    };
    let view = "tar --numeric-owner --full-time --utc -tvf";
    let theirs = list(&format!("tar -c --format=pax --sort=name --owner=0 --group=0 -f - . | {view} -"));
    assert_eq!(list(&format!("{view} \"$0\"")), theirs);
    assert!(theirs.len() > 10, "{theirs:?}");
}

#[test]
fn two_builds_at_once_on_one_store() {
    let case = case().files("f").shell("tar -czf a.tgz f").base("base", &debian_like(), &ImageConfig::default());
    let one = case.built("FROM base\nADD a.tgz /x/\n").tree.to_text();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(case.built("FROM base\nADD a.tgz /x/\n").tree.to_text(), one));
        }
    });
}
