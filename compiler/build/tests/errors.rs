//! Every error of lowering and execution: what it says and where it points.

mod common;

use std::process::Command;

use common::{Case, case, debian_like, paths};
use ukc_rootfs::ImageConfig;

fn check(case: &Case, dockerfile: &str, expected: &[&str]) {
    let text = case.error(dockerfile);
    for part in expected {
        assert!(text.contains(part), "{dockerfile}\ngives\n{text}\nwithout\n{part}");
    }
    assert_eq!(text.matches("error[").count(), 1, "one mistake, one error:\n{text}");
}

#[test]
fn a_missing_source() {
    let case = case().files("config.json sub/x");
    assert_eq!(
        case.error("FROM scratch\nCOPY confg.json /etc/\n"),
        "error[missing-source]: `confg.json` is not in the build context
 --> Dockerfile:2:6
  |
2 | COPY confg.json /etc/
  |      ^^^^^^^^^^
  |
help: did you mean `config.json`?
"
    );
    check(&case, "FROM scratch\nCOPY sub/y sub/x /etc/\n", &["`sub/y` is not in the build context", "2:6"]);
    check(&case, "FROM scratch AS a\nFROM scratch\nCOPY --from=a x /\n", &["`x` is not in the stage `a`"]);
    check(&case, "FROM scratch\nCOPY ../secret /\n", &["error[missing-source]", "`..` does not leave it"]);
    check(&case, "FROM scratch\nCOPY --parents sub/y /x/\n", &["`sub/y` is not in the build context", "^^^^^"]);
    check(&case, "FROM scratch\nADD nope.tar /x/\n", &["`nope.tar` is not in the build context"]);
    check(&case, "FROM scratch\nCOPY sub/x/below /\n", &["error[missing-source]"]);
    // All that are missing are said at once.
    let text = case.error("FROM scratch\nCOPY a b /x/\nCOPY c /\n");
    assert_eq!(text.matches("error[missing-source]").count(), 3, "{text}");
}

#[test]
fn what_dockerignore_hides() {
    let case = case().files("a.log keep.log sub/b.log c").file(".dockerignore", "*.log\n!keep.log\n**/b.log\nDockerfile\n");
    assert_eq!(
        case.error("FROM scratch\nCOPY a.log /\n"),
        "error[missing-source]: `a.log` is not in the build context
 --> Dockerfile:2:6
  |
2 | COPY a.log /
  |      ^^^^^
  |
 ::: .dockerignore:1:1
  |
1 | *.log
  | ----- excluded here
  |
  = note: the path exists, but .dockerignore excludes it
help: add `!a.log` below that line
"
    );
    assert_eq!(paths(&case.built("FROM scratch\nCOPY . /\n")), "/.dockerignore /c /keep.log /sub/");
    // The file beside the Dockerfile wins.
    let mut case = case.file("docker/app.Dockerfile.dockerignore", "*\n!c\n");
    case.options.dockerfile = Some(case.context().join("docker/app.Dockerfile"));
    assert_eq!(paths(&case.built("FROM scratch\nCOPY . /\n")), "/c");
    let case = self::case().files("a").file(".dockerignore", "ok\n[broken\n");
    check(&case, "FROM scratch\nCOPY a /\n", &["error[invalid-pattern]", ".dockerignore:2:1", "[broken"]);
    assert!(case.run("FROM scratch\nCOPY <<x /y\nx\n").is_ok(), "no context, no ignore file");
}

#[test]
fn directories_excluded_with_exceptions() {
    let case = case().files("d/a d/b d/e/f x/y").file(".dockerignore", "*\n!d/e\n!x/y\n").shell("chmod 751 d");
    let built = case.built("FROM scratch\nCOPY . /\n");
    assert_eq!(paths(&built), "/d/ /d/e/ /d/e/f /x/ /x/y");
    assert_eq!(common::owner(&built, "/d"), "0751 0:0");
}

#[test]
fn stages_and_bases() {
    let case = case().files("f");
    check(
        &case,
        "FROM alpine\n",
        &["error[remote-image]: the image `alpine` cannot be pulled", "1:6", "--build-context alpine=oci-layout://DIR"],
    );
    check(&case, "FROM scratch AS build\nFROM biuld\n", &["error[remote-image]", "did you mean `build`?"]);
    check(
        &case,
        "FROM scratch AS build\nFROM scratch\nCOPY --from=biuld /x /\n",
        &["error[remote-image]", "3:13", "did you mean `build`?"],
    );
    check(&case, "FROM scratch\nCOPY --from=7 /x /\n", &["error[unknown-stage]: there is no stage 7"]);
    check(&case, "FROM scratch AS a\nCOPY --from=a /x /\n", &["error[copy-cycle]: a stage cannot copy from itself"]);
    check(&case, "FROM scratch\nCOPY --from=0 /x /\n", &["error[copy-cycle]"]);
    check(
        &case,
        "FROM scratch AS a\nCOPY --from=b /x /\nFROM a AS b\n",
        &["error[copy-cycle]: the stage `b` comes later", "it begins here"],
    );
    check(&case, "ARG X\nFROM $X\n", &["error[empty-base]", "--build-arg"]);
    check(&case, "FROM --platform=a/b/c/d scratch\n", &["error[invalid-platform]"]);
    let text = case.target("fnial").error("FROM scratch AS final\n");
    assert!(text.contains("error[unknown-target]: there is no stage `fnial`") && text.contains("did you mean `final`?"), "{text}");
    let text = self::case().target("3").error("FROM scratch\n");
    assert!(text.contains("no stage has a name; give its number, 0 to 0"), "{text}");
    assert!(self::case().error("ARG A=1\n").contains("error["));
}

#[test]
fn what_is_not_supported_yet() {
    let case = case().files("f");
    check(
        &case,
        "FROM scratch\nADD https://example.org/x.tar /\n",
        &["error[remote-source]: `https://example.org/x.tar` cannot be fetched", "2:5"],
    );
    check(&case, "FROM scratch\nADD git@example.org:x.git /\n", &["error[remote-source]"]);
    check(&case, "FROM scratch\nADD --checksum=sha256:00 f /\n", &["error[checksum-of-local-source]"]);
}

#[test]
fn users_and_modes() {
    let case = case().files("f").base("base", &debian_like(), &ImageConfig::default());
    check(
        &case,
        "FROM base\nCOPY --chown=ww-data f /\n",
        &["error[unknown-user]: no user `ww-data` in /etc/passwd", "2:14", "did you mean `www-data`?"],
    );
    check(&case, "FROM base\nCOPY --chown=app:satff f /\n", &["error[unknown-group]", "did you mean `staff`?"]);
    check(&case, "FROM scratch\nCOPY --chown=app f /\n", &["there is no /etc/passwd", "use a numeric id"]);
    check(&case, "FROM base\nUSER nobody\nWORKDIR /x\n", &["error[unknown-user]", "belongs to the current USER", "3:9"]);
    check(&case, "FROM base\nARG M=999\nCOPY --chmod=$M f /\n", &["error[invalid-chmod]", "3:14"]);
    check(&case, "FROM base\nARG U=a:b:c\nCOPY --chown=$U f /\n", &["error[invalid-chown]"]);
}

#[test]
fn destinations_in_the_way() {
    let case = case().files("f d/f x/d/g").shell("ln -s d l");
    check(&case, "FROM scratch\nCOPY f /a\nCOPY f /a/b\n", &["error[not-a-directory]", "3:8"]);
    check(&case, "FROM scratch\nCOPY f /d\nCOPY d /d\n", &["error[cannot-copy]: cannot copy the directory `d` over `/d`"]);
    check(&case, "FROM scratch\nCOPY f /y/d\nCOPY x /y\n", &["error[cannot-copy]: cannot copy the directory `x` over `/y/d`"]);
    check(
        &case,
        "FROM scratch\nCOPY d /y/f/\nCOPY d /y\n",
        &["error[cannot-copy]: cannot replace the directory `/y/f` with a file of `d`"],
    );
    check(&case, "FROM scratch\nCOPY f /a\nWORKDIR /a/b\n", &["error[not-a-directory]: `/a/b` cannot be the working directory"]);
    check(&case, "FROM scratch\nARG D\nCOPY f $D\n", &["error[empty-destination]"]);
    check(&case, "FROM scratch\nCOPY f d /x\n", &["error[destination-not-a-directory]", "write `/x/`"]);
}

#[test]
fn words_that_expand_badly() {
    let case = case().files("f");
    check(&case, "FROM scratch\nCOPY $NOPE /\n", &["error[empty-source]"]);
    check(&case, "FROM scratch\nARG P=http\nEXPOSE $P\n", &["error[invalid-port]"]);
    check(&case, "FROM scratch\nARG S=SIGTREM\nSTOPSIGNAL $S\n", &["error[invalid-signal]", "SIGTERM"]);
    check(&case, "FROM scratch\nLABEL a=\"${A?must be given}\"\n", &["error[required-variable]", "must be given"]);
    check(&case, "FROM scratch\nARG W\nWORKDIR $W\n", &["error[empty-workdir]"]);
    check(&case, "FROM scratch\nCOPY [a-] /\n", &["error[invalid-pattern]", "write `[[]` for a literal `[`"]);
    check(&case, "FROM scratch\nCOPY --exclude=[a f /\n", &["error[invalid-pattern]", "2:16"]);
}

#[test]
fn broken_files_give_their_own_errors() {
    assert!(case().error("FORM scratch\n").contains("error[unknown-instruction]"));
}

#[test]
fn contexts_that_are_none() {
    let mut case = case().files("f");
    case.options.context = case.dir.path().join("nowhere");
    check(&case, "FROM scratch\nCOPY f /\n", &["error[bad-context]: cannot read the build context `DIR/nowhere`", "2:1"]);
    case.options.context = case.dir.path().join("context/f");
    check(&case, "FROM scratch\nCOPY f /\n", &["error[bad-context]", "is not a directory"]);
    let case = case.named("x=/nonexistent/dir");
    check(&case, "FROM scratch\nCOPY --from=x f /\n", &["error[bad-context]: cannot read the build context `/nonexistent/dir`"]);
    let case = self::case().named("base=oci-layout:///nonexistent/dir");
    check(&case, "FROM base\n", &["error[not-a-layout]", "1:6", "skopeo"]);
}

#[test]
fn damaged_bases() {
    let case = case().base("base", &debian_like(), &ImageConfig::default());
    let blobs = case.dir.path().join("layout-base/blobs/sha256");
    for entry in std::fs::read_dir(blobs).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes[0] != b'{' {
            let at = bytes.len() / 2;
            bytes[at] ^= 0xff;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    check(
        &case,
        "FROM base\n",
        &["error[wrong-digest]: in the layout `DIR/layout-base`, the layer sha256:", "has the digest sha256:", "1:6"],
    );
}

#[test]
fn odd_things_in_the_context() {
    let case = case().files("f").shell(
        "mkdir a; ln -s ../a a/loop; ln -s b c; ln -s c b; ln -s self self; mkfifo pipe; : > $(printf 'na\\377me'); : > 'new
line'; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'; mkdir $(printf 'd\\300'); : > $(printf 'd\\300/x')",
    );
    let built = case.built("FROM scratch\nCOPY . /\n");
    assert!(built.tree.resolve_nofollow(b"/na\xffme").is_ok() && built.tree.resolve_nofollow(b"/new\nline").is_ok());
    assert!(built.tree.resolve_nofollow(b"/d\xc0/x").is_ok() && built.tree.resolve_nofollow(b"/a/loop").is_ok());
    assert!(built.tree.resolve_nofollow(b"/sock").is_err(), "sockets are skipped");
    check(&case, "FROM scratch\nCOPY sock /\n", &["error[missing-source]", "sockets cannot be copied"]);
    check(&case, "FROM scratch\nCOPY self /\n", &["error[link-loop]"]);
    check(&case, "FROM scratch\nCOPY a/loop/a/loop /x\n", &["error[missing-source]"]);
    // A wildcard can stand for a name that no Dockerfile can spell.
    assert_eq!(case.built("FROM scratch\nCOPY na?me /x\n").tree.len(), 2);
}

/// Root can read everything, so the test runs itself as nobody.
#[test]
fn unreadable_files() {
    if rustix::process::geteuid().is_root() && std::env::var_os("UKC_TEST_AS_NOBODY").is_none() {
        let status = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "unreadable_files"])
            .env("UKC_TEST_AS_NOBODY", "1")
            .env("TMPDIR", "/tmp")
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) if status.code() == Some(127) || status.code() == Some(126) => eprintln!("skipped: nobody cannot run the test"),
            Err(_) => eprintln!("skipped: setpriv is not installed"),
            other => panic!("{other:?}"),
        }
        return;
    }
    let case = case().files("ok locked/x secret").shell("chmod 000 locked secret");
    check(&case, "FROM scratch\nCOPY . /\n", &["error[unreadable-file]", "Permission denied", "2:6"]);
    check(&case, "FROM scratch\nCOPY secret /\n", &["error[unreadable-file]: `secret` cannot be read"]);
    check(&case, "FROM scratch\nCOPY locked/x /\n", &["error[unreadable-file]: `locked` cannot be read"]);
    assert_eq!(paths(&case.built("FROM scratch\nCOPY ok /\n")), "/ok", "what nobody asks for may be unreadable");
    let case = case.file(".dockerignore", "locked\nsecret\n");
    case.built("FROM scratch\nCOPY . /\n");
    case.shell("chmod 700 locked");
}
