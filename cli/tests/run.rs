//! `ukc run` from outside, with QEMU: status, signals, and what it says when it cannot run.

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Place, did, exits, pauses};

#[test]
fn the_programs_status_is_ours() {
    for status in [0, 7, 255] {
        let place = Place::with_program(&exits(status));
        let ran = place.ukc(&["run", "-q", "context"]).status(i32::from(status));
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "nothing but what the program prints");
    }
}

#[test]
fn images_run_by_name_by_directory_and_from_a_disk() {
    let place = Place::with_program(&exits(9));
    place.ukc(&["build", "-q", "-t", "nine", "context"]).status(0);
    place.ukc(&["run", "-q", "nine"]).status(9);
    place.ukc(&["run", "-q", "--disk", "nine:latest"]).status(9);
    place.ukc(&["build", "-q", "-o", "out", "context"]).status(0);
    place.ukc(&["run", "-q", "--machine", "q35", "out"]).status(9);
    place.ukc(&["run", "-q", "--machine", "pc", "--disk", "out"]).status(9);
}

#[test]
fn failures_of_ours_are_125() {
    let place = Place::with_program(&exits(0));
    place.ukc(&["run", "nothing"]).status(125).says("there is no image `nothing`");
    place.file("context/Dockerfile", "FROM scratch\nENTRYPOINT [\"/gone\"]\n");
    place.ukc(&["run", "context"]).status(125).says("error[program-not-found]");
    let place = Place::with_program(&exits(0));
    place.ukc(&["run", "-q", "-m", "1m", "context"]).status(125).says("this image needs");
    did(place.command(&["run", "-q", "context"]).env("PATH", "/nowhere")).status(125).says("apt install qemu-system-x86");
}

#[test]
fn the_command_line_of_qemu_can_be_seen() {
    let place = Place::with_program(&exits(0));
    let args = ["run", "-q", "--dry-run", "-p", "8080:80", "-e", "A=two words", "--memory", "64m", "context", "--", "x"];
    let line = place.ukc(&args).status(0).out;
    assert!(line.contains("-m 64M") && line.contains("ukc.arg=/app ukc.arg=x ukc.env=A=two%20words"), "{line}");
}

#[test]
fn a_second_interrupt_ends_the_machine_at_once() {
    let place = Place::with_program(&pauses());
    let mut child = place.command(&["run", "-q", "context"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let interrupt = || Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    // The build is interrupted with 130, the machine killed with 137, and a first process that dies of SIGTERM is 143: all of them end soon.
    std::thread::sleep(Duration::from_secs(2));
    interrupt();
    std::thread::sleep(Duration::from_millis(500));
    interrupt();
    let status = child.wait().unwrap().code();
    assert!(matches!(status, Some(130 | 137 | 143)), "{status:?}");
}
