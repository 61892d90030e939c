//! RUN from the command line: what is shown, what is done again, what Ctrl-C leaves.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{Place, did};

/// A place with a small Debian in an OCI layout, and flags that name it.
fn place() -> (Place, String) {
    let place = Place::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/make-debian-base");
    let layout = place.path("base");
    did(Command::new(script).arg(&layout)).status(0);
    (place, format!("--build-context=base=oci-layout://{}", layout.display()))
}

#[test]
fn output_cache_and_failure() {
    let (place, base) = place();
    let build = ["build", "--progress=plain", "--emit=rootfs", &base, "context"];
    place.file("context/Dockerfile", "FROM base\nRUN printf 'a\\rb\\033[1mold\\033[0m\\nno end'; echo x >/made\n");
    let first = place.ukc(&build).status(0).says("[2/2] bold\n[2/2] no end\n");
    assert!(first.out.contains(" /made\n"), "{first:#?}");
    let again = place.ukc(&build).status(0).says("[2/2] CACHED\n");
    assert!(!again.err.contains("bold") && again.out == first.out, "{again:#?}");
    let renewed = place.ukc(&["build", "--progress=plain", "--emit=rootfs", "--no-cache", &base, "context"]).status(0);
    assert!(renewed.err.contains("bold") && !renewed.err.contains("CACHED"), "{renewed:#?}");
    place.file("context/Dockerfile", "FROM base\nRUN echo trouble >&2; exit 9\n");
    place
        .ukc(&build)
        .status(1)
        .no_output()
        .says("[2/2] trouble\n")
        .says("did not complete successfully: exit code: 9")
        .says("2 | RUN echo");
}

#[test]
fn flags_of_steps() {
    let (place, base) = place();
    let build = |flags: &[&str]| place.ukc(&[&["build", "--progress=plain", "--emit=rootfs", &base], flags, &["context"]].concat());
    place.file("token", "hunter2");
    place.file(
        "context/Dockerfile",
        "FROM base\nRUN --mount=type=secret,id=t,required test \"$(cat /run/secrets/t)\" = \"hunter2\"; grep added /etc/hosts; grep : /proc/net/dev | wc -l\n",
    );
    build(&["--secret=id=t,src=token", "--add-host=added:10.1.2.3", "--network=none"]).status(0).says("10.1.2.3\tadded\n[2/2] 1\n");
    build(&[]).status(1).says("requires the secret `t`").says("--secret id=t,src=FILE");
    for (flag, says) in [
        ("--secret=src=x", "has no `id=`"),
        ("--secret=id=x,src=absent", "there is no file `absent`"),
        ("--allow=everything", "there are `network.host`"),
        ("--network=bridge", "there are `default`"),
        ("--add-host=x", "NAME:ADDRESS"),
        ("--ca-bundle=absent", "cannot read the certificates"),
    ] {
        let failed = build(&[flag]).says(says);
        assert!(matches!(failed.status, 1 | 2), "{failed:#?}");
    }
}

#[test]
fn an_interrupted_step_ends_with_130_and_leaves_no_process() {
    let (place, base) = place();
    place.file("context/Dockerfile", "FROM base\nRUN echo started; sleep 71.5\n");
    let mut child =
        place.command(&["build", "--progress=plain", &base, "context"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "[2/5] started"));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(lines.any(|line| line == "error: interrupted"));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let running = Command::new("pgrep").args(["-f", "sleep 71.5"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&running.stdout), "");
}
