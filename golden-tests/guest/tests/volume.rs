//! Volumes: what a program writes is there after a restart, e2fsck agrees, and pulling the plug loses nothing that was synced.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Builds the program and an image with it; returns the program, the image and `ukc`.
fn prepare(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let context = dir.join("context");
    std::fs::create_dir_all(context.join("volume")).unwrap();
    let program = context.join("program");
    let source = workspace.join("fixtures/volume/volume.c");
    assert!(Command::new("cc").args(["-O1", "-static", "-o"]).args([&program, &source]).status().unwrap().success());
    std::fs::write(context.join("volume/from-the-image"), "content\n").unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY program /program\nCOPY volume /volume\nVOLUME /volume\nENTRYPOINT [\"/program\"]\n",
    )
    .unwrap();
    let ukc = golden_guest::compile::ukc(&workspace).unwrap();
    let image = dir.join("image");
    let mut build = Command::new(&ukc);
    build.arg("build").arg("--quiet").arg("-o").arg(&image).arg(&context);
    let built = build.env("XDG_CACHE_HOME", dir.join("cache")).env("XDG_DATA_HOME", dir.join("data")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    (program, image, ukc)
}

fn guest(ukc: &Path, image: &Path, volume: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(ukc);
    command.args(["run", "--quiet", "--volume-size", "64m", "-v"]).arg(format!("{}:/volume", volume.display()));
    command.arg(image).arg("--").args(words).stdin(Stdio::null());
    command.env("XDG_STATE_HOME", volume.with_extension("state"));
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn e2fsck(volume: &Path, options: &str) -> Output {
    let sbin = Path::new("/usr/sbin/e2fsck");
    Command::new(if sbin.exists() { sbin } else { Path::new("e2fsck") }).arg(options).arg(volume).output().unwrap()
}

#[test]
fn what_is_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (program, image, ukc) = prepare(dir.path());
    let (volume, linux) = (dir.path().join("volume.img"), dir.path().join("linux"));
    std::fs::create_dir(&linux).unwrap();
    let on_linux = |word: &str| Command::new(&program).arg(word).arg(&linux).output().unwrap();
    for word in ["write", "check"] {
        let (expected, found) = (on_linux(word), guest(&ukc, &image, &volume, &[word, "/volume"]).output().unwrap());
        assert_eq!(text(&found), text(&expected), "{}", String::from_utf8_lossy(&found.stderr));
        assert_eq!(found.status.code(), expected.status.code());
    }
    let checked = e2fsck(&volume, "-fn");
    assert!(checked.status.success(), "{}", text(&checked));
    // Its first content came from the image.
    let debugfs = Command::new("/usr/sbin/debugfs").args(["-R", "cat from-the-image"]).arg(&volume).output();
    if let Ok(shown) = debugfs {
        assert_eq!(text(&shown), "content\n");
    }
}

#[test]
fn a_killed_machine_loses_nothing_that_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (_, image, ukc) = prepare(dir.path());
    let volume = dir.path().join("volume.img");
    let mut safe = 0;
    for records in [40, 90] {
        let mut child = guest(&ukc, &image, &volume, &["crash", "/volume"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let last = lines.by_ref().map_while(Result::ok).take(records).filter_map(|l| l.parse::<usize>().ok()).last();
        // The watcher ends its machine with SIGKILL when it is told to twice; here QEMU itself goes.
        let machines = Command::new("pgrep").arg("-f").arg(volume.to_str().unwrap()).output().unwrap();
        for id in text(&machines).lines().filter(|id| **id != child.id().to_string()) {
            let _ = Command::new("kill").args(["-9", id]).status();
        }
        let _ = child.wait();
        safe = last.expect("the program wrote something") + 1;
        if records == 40 {
            // The next start of the program appends from 0 again, so the log goes first.
            let after = guest(&ukc, &image, &volume, &["after", "/volume"]).output().unwrap();
            assert!(text(&after).contains("records") && !text(&after).contains("damaged"), "{}", text(&after));
            std::fs::remove_file(&volume).unwrap();
        }
    }
    let copy = dir.path().join("copy.img");
    std::fs::copy(&volume, &copy).unwrap();
    // e2fsck recovers it by the journal alone...
    let repaired = e2fsck(&copy, "-fp");
    assert!(repaired.status.code().unwrap() <= 1, "{}", text(&repaired));
    // ...and so does the next start.
    let after = guest(&ukc, &image, &volume, &["after", "/volume"]).output().unwrap();
    let found: usize = text(&after).split(' ').next().and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("{}", text(&after)));
    assert!(found >= safe, "{found} of {safe} records");
    let checked = e2fsck(&volume, "-fn");
    assert!(checked.status.success(), "{}", text(&checked));
}
