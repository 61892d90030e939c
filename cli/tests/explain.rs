//! `ukc explain` from outside.

mod common;

use common::{Place, exits};

#[test]
fn an_image_says_why_it_has_what_it_has() {
    let place = Place::with_program(&exits(0));
    place.ukc(&["build", "-q", "-t", "app", "context"]).status(0);
    let text = place.ukc(&["explain", "app"]).status(0).out;
    assert!(text.starts_with("guest libos\n") && text.contains("system calls"), "{text}");
    let text = place.ukc(&["explain", "app", "syscall:exit_group"]).status(0).out;
    assert!(text.starts_with("exit_group: answered by the module process (full)"), "{text}");
    assert!(text.contains("/app (the program)\n  /app+0x"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&place.ukc(&["explain", "app", "module:process", "--format", "json"]).status(0).out).unwrap();
    assert!(json["syscalls"].as_array().unwrap().iter().any(|c| c == "exit_group"), "{json}");
    let text = place.ukc(&["explain", "app", "file:/app"]).status(0).out;
    assert!(text.contains("makes exit_group"), "{text}");
    let text = place.ukc(&["explain", "app", "--size"]).status(0).out;
    assert!(text.contains("libos_core"), "{text}");
    assert!(place.ukc(&["explain", "app", "--guest"]).status(0).out.starts_with("guest libos"));
}

#[test]
fn what_is_not_there_is_said() {
    let place = Place::with_program(&exits(0));
    place.ukc(&["build", "-q", "-o", "out", "context"]).status(0);
    place.ukc(&["explain", "out", "syscall:ptrace"]).status(1).says("nothing that can run in this image makes").no_output();
    place.ukc(&["explain", "out", "module:inet"]).status(1).says("does not have the module `inet`").no_output();
    place.ukc(&["explain", "out", "file:libc.so.6"]).status(1).says("is not among the programs and libraries").no_output();
    place.ukc(&["explain", "out", "ptrace"]).status(2).says("topics are syscall:NAME").no_output();
    std::fs::remove_file(place.path("out/analysis.json")).unwrap();
    place.ukc(&["explain", "out", "syscall:exit_group"]).status(1).says("does not say why").no_output();
    place.ukc(&["explain", "nothing"]).status(1).says("there is no image `nothing`").no_output();
}
