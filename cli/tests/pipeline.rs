//! `cli/pipeline/run`: what a pipeline runs, with a release on this machine.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Did, Place, did, exits};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipeline/run")
}

/// Runs the step with these settings.
fn step(place: &Place, settings: &[(&str, &str)]) -> Did {
    let mut command = Command::new("bash");
    place.at_home(&mut command);
    for name in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "RUNNER_TEMP"] {
        command.env_remove(name);
    }
    did(command.arg(script()).env("UKC_CONTEXT", "context").envs(settings.iter().copied()))
}

/// Makes a release of the program under test, whose archive is that file or another.
fn release(place: &Place, is_genuine: bool) -> String {
    let dir = place.path("releases/latest/download");
    fs::create_dir_all(&dir).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_ukc"));
    let run = |command: &mut Command| assert!(command.current_dir(&dir).status().unwrap().success());
    run(Command::new("tar").arg("-C").arg(binary.parent().unwrap()).args(["-czf", "ukc-x86_64-linux.tar.gz", "ukc"]));
    let sums = Command::new("sha256sum").arg("ukc-x86_64-linux.tar.gz").current_dir(&dir).output().unwrap().stdout;
    fs::write(dir.join("SHA256SUMS"), sums).unwrap();
    if !is_genuine {
        run(Command::new("sh").args(["-c", "echo more >> ukc-x86_64-linux.tar.gz"]));
    }
    format!("file://{}", place.path("releases").display())
}

#[test]
fn the_release_is_fetched_and_the_step_says_what_came_of_it() {
    let place = Place::with_program(&exits(0));
    let releases = release(&place, true);
    let (output, summary) = (place.path("output"), place.path("summary.md"));
    let settings = [
        ("UKC_RELEASES", &*releases),
        ("UKC_TAGS", "app:1\napp:2\n"),
        ("GITHUB_OUTPUT", output.to_str().unwrap()),
        ("GITHUB_STEP_SUMMARY", summary.to_str().unwrap()),
    ];
    step(&place, &settings).status(0);
    let names = place.ukc(&["images"]).status(0).out;
    assert!(names.contains("app:1") && names.contains("app:2"), "{names}");
    let output = fs::read_to_string(output).unwrap();
    let id = output.lines().find_map(|line| line.strip_prefix("id=")).unwrap();
    place.ukc(&["inspect", id]).status(0);
    assert!(fs::read_to_string(summary).unwrap().contains("| Kernel modules |"));
}

#[test]
fn a_release_that_is_not_genuine_is_refused() {
    let place = Place::with_program(&exits(0));
    let releases = release(&place, false);
    step(&place, &[("UKC_RELEASES", &*releases)]).status(4).says("not that of its list");
    let nowhere = format!("{releases}/nowhere");
    step(&place, &[("UKC_RELEASES", &*nowhere)]).status(4).says("cannot fetch");
    assert_eq!(place.ukc(&["images", "-q"]).status(0).out, "");
}

#[test]
fn growth_against_the_policy_fails_the_step() {
    let place = Place::with_program(&exits(0));
    let binary = [("UKC_BINARY", env!("CARGO_BIN_EXE_ukc"))];
    let with = |more: &[(&'static str, &'static str)]| binary.iter().chain(more).copied().collect::<Vec<_>>();
    step(&place, &with(&[("UKC_TAGS", "app:old")])).status(0);
    place.file("ukc.toml", "[policy]\ngrowth = { ports = false }\n");
    place.file("context/Dockerfile", "FROM scratch\nCOPY app /app\nENTRYPOINT [\"/app\"]\nEXPOSE 80\n");
    step(&place, &with(&[("UKC_COMPARE", "app:old")])).status(1).says("the port 80/tcp is new");
    assert!(fs::read_to_string(place.path("ukc-summary.md")).unwrap().contains("+ 80/tcp"));
    place.file("context/Dockerfile", "FROM scratch\nCOPY gone /\n");
    step(&place, &with(&[])).status(1);
}
