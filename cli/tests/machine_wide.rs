//! `ukc doctor`, `completion` and `man` from outside.

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};

use common::{Place, did};

#[test]
fn doctor_tries_what_can_be_tried() {
    let place = Place::new();
    let found: serde_json::Value = serde_json::from_str(&place.ukc(&["doctor", "--format", "json"]).status(0).out).unwrap();
    let verdict = |check: &str| found.as_array().unwrap().iter().find(|f| f["check"] == check).map(|f| f["verdict"].clone()).unwrap();
    assert_eq!(verdict("build"), "ok");
    assert_eq!(verdict("boot"), "ok");
    assert_eq!(verdict("qemu"), "ok");
}

#[test]
fn doctor_says_what_is_missing_and_how_to_get_it() {
    let place = Place::new();
    let did = did(place.command(&["doctor"]).env("PATH", "/nowhere")).status(1);
    assert!(did.out.contains("missing") && did.out.contains("apt install qemu-system-x86"), "{}", did.out);
}

#[test]
fn the_completion_script_is_one() {
    let script = Place::new().ukc(&["completion", "bash"]).status(0).out;
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success());
    assert!(script.contains("--build-arg"));
    for shell in ["zsh", "fish", "powershell"] {
        assert!(Place::new().ukc(&["completion", shell]).status(0).out.contains("build-arg"), "{shell}");
    }
}

#[test]
fn every_command_has_a_page() {
    let place = Place::new();
    place.ukc(&["man", "pages"]).status(0);
    let page = std::fs::read_to_string(place.path("pages/ukc-build.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("build\\-arg"), "{page}");
    assert!(place.path("pages/ukc.1").is_file() && !place.path("pages/ukc-supervise.1").exists());
}
