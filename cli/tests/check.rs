//! `ukc check` from outside.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use common::{Place, exits, pauses};

fn names(json: &str) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    json["syscalls"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_program_is_checked_in_its_place() {
    let place = Place::with_program(&exits(0));
    let out = place.ukc(&["check", "--program", "context/app", "--format", "json"]).status(0).out;
    assert_eq!(names(&out), ["exit_group"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((json["guest"].as_str(), json["syscalls"][0]["state"].as_str()), (Some("libos"), Some("full")));
    assert!(json["reasons"][0].as_str().unwrap().contains("has every system call"));
    let text = place.ukc(&["check", "--program", "context/app"]).status(0).out;
    assert!(text.contains("exit_group   full") && text.contains("guest libos"), "{text}");
}

#[test]
fn a_program_of_another_root_is_named_either_way() {
    let place = Place::new();
    fs::create_dir_all(place.path("tree/opt")).unwrap();
    fs::write(place.path("tree/opt/app"), pauses()).unwrap();
    fs::set_permissions(place.path("tree/opt/app"), fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["/opt/app", "opt/app", "tree/opt/app"] {
        let out = place.ukc(&["check", "--program", program, "--root", "tree", "--format", "json"]).status(0).out;
        assert_eq!(names(&out), ["pause"], "{program}");
    }
    place.ukc(&["check", "--program", "/opt/gone", "--root", "tree"]).status(1).says("there is no program").no_output();
    place.ukc(&["check", "--program", "/opt/app", "--root", "nowhere"]).status(1).says("cannot read the root directory").no_output();
    place.file("tree/opt/text", "hello");
    place.ukc(&["check", "--program", "/opt/text", "--root", "tree"]).status(1).says("is not executable").no_output();
}

#[test]
fn a_program_below_the_libraries_has_its_libraries() {
    // Not every machine has one; this is where git keeps its own, gcc its compiler and java itself.
    let places = ["/usr/lib/git-core/git-daemon", "/usr/lib/git-core/git-shell", "/usr/lib/gcc/x86_64-linux-gnu/12/collect2"];
    let found = places.iter().filter(|p| std::path::Path::new(p).exists());
    for program in found {
        let out = Place::new().ukc(&["check", "--program", program, "--format", "json"]).status(0).out;
        assert!(names(&out).iter().any(|n| n == "exit_group"), "{program}");
    }
}

#[test]
fn dynamic_programs_have_the_calls_that_they_make() {
    let found = names(&Place::new().ukc(&["check", "--program", "/bin/true", "--format", "json"]).status(0).out);
    for call in ["execve", "mmap", "openat", "read", "close", "mprotect", "exit_group", "brk", "arch_prctl"] {
        assert!(call == "execve" || found.iter().any(|f| f == call), "{call} is not in {found:?}");
    }
}

/// A dynamic program cannot be made here without a compiler, so the static one stands for all: what it holds is never held against it.
#[test]
fn builds_say_what_the_guest_is_and_why() {
    let place = Place::with_program(&exits(0));
    let json = place.ukc(&["build", "-q", "--emit", "image", "context"]).status(0).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["guest"]["kind"], "unikernel");
    assert!(json["guest"]["reasons"][0].as_str().unwrap().contains("has every system call"), "{}", json["guest"]);
    place.ukc(&["build", "-q", "--strict", "context"]).status(0);
    place.ukc(&["build", "-q", "--guest", "linux", "context"]).status(3).says("with the libOS only").no_output();
    // mov eax, 172 (iopl); syscall; then exit.
    let code = [0xb8, 172, 0, 0, 0, 0x0f, 0x05, 0xbf, 0, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];
    let place = Place::with_program(&common::program(&code));
    place.ukc(&["build", "-q", "context"]).status(0);
    place.ukc(&["build", "-q", "--strict", "context"]).status(3).says("calls that the libOS does not have: iopl").no_output();
}
