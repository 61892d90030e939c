//! `ukc build` from outside: exit status, what goes where, and that nothing is lost.

mod common;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use common::{Place, bytes, did, exits};

#[test]
fn results_go_to_stdout_and_progress_to_stderr() {
    let place = Place::with_program(&exits(0));
    let built = place.ukc(&["build", "-t", "app:1", "context"]).status(0).says("[1/6] FROM scratch").says("COPY app /app");
    let id = built.out.strip_suffix('\n').unwrap();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let quiet = place.ukc(&["build", "-q", "context"]).status(0);
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), (built.out.as_str(), ""), "the same image, and no progress");
    let images = place.ukc(&["images"]).status(0).out;
    assert!(images.lines().nth(1).unwrap().starts_with("app:1 "), "{images}");
    assert!(place.ukc(&["inspect", "app:1"]).status(0).out.contains("\"format\": \"ukc-image\""));
    assert_eq!(place.ukc(&["rm", "app:1"]).status(0).out, format!("untagged app:1\ndeleted {id}\n"));
    place.ukc(&["inspect", "app:1"]).status(1).says("there is no image `app:1`").no_output();
    assert_eq!(place.unfinished(), 0);
}

#[test]
fn stages_are_printed_and_end_the_build() {
    let place = Place::with_program(&exits(0));
    let one = place.ukc(&["build", "--emit", "ast", "context"]).status(0).out;
    assert_eq!(one, "stage 0 from \"scratch\"\n  copy \"app\" -> \"/app\"\n  entrypoint exec \"/app\"\n");
    let two = place.ukc(&["build", "--emit", "rootfs", "--emit", "ast", "context"]).status(0).out;
    assert!(two.starts_with("# ast\nstage 0") && two.contains("\n# rootfs\nenv"), "{two}");
    assert!(!place.path("data").exists(), "no image was made");
    place.ukc(&["build", "--emit", "grpah", "context"]).status(2).says("did you mean `graph`?").no_output();
}

#[test]
fn a_directory_gets_the_artefacts_and_equal_inputs_equal_bytes() {
    let place = Place::with_program(&exits(0));
    assert_eq!(place.ukc(&["build", "-o", "out", "context"]).status(0).out, "out\n");
    place.ukc(&["build", "-o", "again", "context"]).status(0);
    for name in ["kernel.elf", "rootfs.ext4", "kernel.map", "image.json"] {
        assert_eq!(bytes(&place.path("out").join(name)), bytes(&place.path("again").join(name)), "{name}");
    }
    assert!(!place.path("data").exists(), "the store was not touched");
    place.file("out/precious", "mine");
    place.ukc(&["build", "-o", "out", "context"]).status(1).says("`precious`, which is not part of an image");
    assert_eq!(fs::read_to_string(place.path("out/precious")).unwrap(), "mine");
}

#[test]
fn dockerfiles_are_found_and_read_from_stdin() {
    let place = Place::with_program(&exits(0));
    fs::rename(place.path("context/Dockerfile"), place.path("context/Containerfile")).unwrap();
    place.ukc(&["build", "context"]).status(0);
    fs::rename(place.path("context/Containerfile"), place.path("other")).unwrap();
    place.ukc(&["build", "context"]).status(1).says("has neither a Dockerfile nor a Containerfile");
    place.ukc(&["build", "-f", "other", "context"]).status(0);
    place.ukc(&["build", "-f", "nowhere", "context"]).status(1).says("cannot read `nowhere`");
    let mut child =
        place.command(&["build", "-f", "-", "--emit", "ast", "context"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"FROM scratch\nCMD [\"/x\"]\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("cmd exec \"/x\""));
}

#[test]
fn mistakes_in_the_dockerfile_are_status_1_and_all_shown() {
    let place = Place::new();
    place.file("context/Dockerfile", "FROM scratch\nCOPPY a b\nEXPOSE x\nCMD [\"/a\"]\n");
    let failed = place.ukc(&["build", "-t", "bad", "context"]).status(1).no_output();
    failed.says("error[unknown-instruction]").says("context/Dockerfile:2:1").says("error[invalid-port]").says("the build failed: 2 errors");
    place.ukc(&["build", "--check", "context"]).status(1).says("check complete, 2 errors found");
    assert_eq!(place.ukc(&["images", "-q"]).status(0).out, "");
}

#[test]
fn a_command_line_without_sense_is_status_2() {
    let place = Place::with_program(&exits(0));
    for (args, says) in [
        (&["build"][..], "required arguments"),
        (&["build", "--progres", "plain", "context"], "--progress"),
        (&["build", "-t", "Upper", "context"], "must be lower case"),
        (&["build", "-t", "a", "-o", "out", "context"], "nothing to name"),
        (&["build", "--build-context", "nonsense", "context"], "NAME=DIR"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["run", "-p", "80", "context"], "[ADDR:]HOST:GUEST"),
        (&["run", "--memory", "lots", "context"], "sizes look like"),
        (&["run", "--initrd", "--disk", "context"], "cannot be used with"),
    ] {
        place.ukc(args).status(2).says(says).no_output();
    }
    place.ukc(&["build", "nowhere"]).status(1).says("`nowhere` does not exist");
    place.ukc(&["build", "--platform", "linux/arm64", "context"]).status(3).says("linux/amd64");
    place.ukc(&["build", "--force-rm", "--rm", "-q", "context"]).status(0).says("--rm, --force-rm have no meaning here");
}

#[test]
fn help_has_examples_and_the_version() {
    let place = Place::new();
    for command in ["build", "run"] {
        assert!(place.ukc(&[command, "--help"]).status(0).out.contains("Examples:\n"), "{command}");
    }
    assert_eq!(place.ukc(&["--version"]).status(0).out, format!("ukc {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn builds_at_once_do_each_other_no_harm() {
    let place = Place::with_program(&exits(0));
    let children: Vec<_> = (0..6)
        .map(|_| place.command(&["build", "-q", "-t", "app", "context"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    let mut ids: Vec<String> = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ids.push(String::from_utf8(output.stdout).unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(place.ukc(&["images", "-q"]).status(0).out, ids[0]);
    assert_eq!(place.unfinished(), 0);
}

/// A context that takes a while to write.
fn slow() -> Place {
    let place = Place::with_program(&exits(0));
    let file = fs::File::create(place.path("context/big")).unwrap();
    file.set_len(2 << 30).unwrap();
    place.file("context/Dockerfile", "FROM scratch\nCOPY app big /\nENTRYPOINT [\"/app\"]\n");
    place
}

/// Starts a build and waits until it writes.
fn writing(place: &Place) -> std::process::Child {
    let child = place.command(&["build", "-t", "app", "context"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while place.unfinished() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child
}

#[test]
fn a_killed_build_leaves_the_old_image_and_the_next_one_works() {
    let place = slow();
    let old = Place::with_program(&exits(3));
    let copied = did(old.command(&["build", "-q", "-t", "app", "context"]).env("XDG_DATA_HOME", place.path("data"))).status(0).out;
    let mut child = writing(&place);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(place.ukc(&["images", "-q"]).status(0).out, copied, "the name still means the old image");
    fs::remove_file(place.path("context/big")).unwrap();
    place.file("context/big", "small now");
    let new = place.ukc(&["build", "-q", "-t", "app", "context"]).status(0).out;
    assert!(place.ukc(&["images", "-q"]).status(0).out.contains(new.trim()));
}

#[test]
fn an_interrupted_build_ends_with_130_and_leaves_nothing() {
    let place = slow();
    let mut child = writing(&place);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(place.unfinished(), 0);
    assert_eq!(place.ukc(&["images", "-q"]).status(0).out, "");
}

#[test]
fn a_disk_that_is_full_is_a_sentence() {
    let place = slow();
    // No file larger than 1 MiB can be written; sh counts in blocks of 512 bytes.
    let mut shell = Command::new("sh");
    place.at_home(&mut shell);
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" build -t app context";
    did(shell.args(["-c", script, env!("CARGO_BIN_EXE_ukc")])).status(1).says("cannot write the image").says("data/ukc").no_output();
    assert_eq!(place.unfinished(), 0);
    assert_eq!(place.ukc(&["images", "-q"]).status(0).out, "");
}

#[test]
fn no_place_to_keep_files_is_a_sentence() {
    let place = Place::with_program(&exits(0));
    let mut command = place.command(&["build", "context"]);
    did(command.env_remove("XDG_CACHE_HOME").env_remove("XDG_DATA_HOME").env_remove("HOME")).status(1).says("XDG_CACHE_HOME nor HOME");
    place.file("data", "a file where a folder should be");
    place.ukc(&["build", "context"]).status(1).says("cannot write");
}

#[test]
fn a_dockerfile_says_what_it_offers() {
    let place = Place::new();
    let text = "ARG BASE=debian\nFROM $BASE AS base\n# VERSION is what is built\nARG VERSION=1\nRUN --mount=type=secret,id=token,required=true true\n\
                FROM scratch AS other\nARG UNSEEN\n# app is the program\nFROM base AS app\nRUN --mount=type=ssh true\n";
    place.file("context/Dockerfile", text);
    let targets = place.ukc(&["build", "--call=targets", "context"]).status(0).out;
    assert_eq!(targets, "TARGET          DESCRIPTION\nbase\nother\napp (default)   is the program\n");
    let outline = place.ukc(&["build", "--call=outline", "--build-arg", "VERSION=2", "context"]).status(0).out;
    assert!(outline.starts_with("TARGET:        app\nDESCRIPTION:   is the program\n\nBUILD ARG   VALUE    DESCRIPTION\n"), "{outline}");
    assert!(
        outline.contains("VERSION     2        is what is built\n") && outline.contains("SECRET   REQUIRED\ntoken    true\n"),
        "{outline}"
    );
    assert!(outline.contains("SSH       REQUIRED\ndefault\n") && !outline.contains("UNSEEN"), "{outline}");
    place.ukc(&["build", "--call=outline", "--target", "nope", "context"]).status(1).says("no stage `nope`").no_output();
}
