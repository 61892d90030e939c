//! `ukc run -d`, `ps`, `logs`, `stop`, `kill`, `wait`, `rm` from outside, with QEMU.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Place, did, exits, pauses};

/// A program that prints `hi` and pauses: write(1, "hi\n", 3), then pause for ever.
fn greets() -> Vec<u8> {
    let mut code = vec![0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0]; // mov eax, 1; mov edi, 1
    code.extend([0x48, 0x8d, 0x35, 16, 0, 0, 0]); // lea rsi, [rip + 16]: the text
    code.extend([0xba, 3, 0, 0, 0, 0x0f, 0x05]); // mov edx, 3; syscall
    code.extend([0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]); // mov eax, 34; syscall; jmp back
    code.extend(b"hi\n");
    common::program(&code)
}

fn built(program: &[u8]) -> Place {
    let place = Place::with_program(program);
    place.ukc(&["build", "-q", "-t", "app", "context"]).status(0);
    place
}

/// Waits until the command prints this; a guest needs its time to boot.
#[track_caller]
fn until(place: &Place, args: &[&str], text: &str) {
    let start = Instant::now();
    loop {
        let out = place.ukc(args).out;
        if out.contains(text) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{args:?} never printed `{text}`, but: {out}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_machine_in_the_background_has_a_life() {
    let place = built(&greets());
    let id = place.ukc(&["run", "-q", "-d", "--name", "web", "-p", "0:80", "app"]);
    assert_eq!(id.status, 2, "a port must be one: {id:#?}");
    let id = place.ukc(&["run", "-q", "-d", "--name", "web", "app"]).status(0).out.trim().to_owned();
    assert_eq!(id.len(), 12, "{id}");
    let listed = place.ukc(&["ps"]).status(0).out;
    assert!(listed.contains(&id) && listed.contains("running") && listed.contains("web"), "{listed}");
    until(&place, &["logs", "web"], "hi");
    place.ukc(&["run", "-q", "-d", "--name", "web", "app"]).status(125).says("has the name `web`");
    place.ukc(&["rm", "web"]).status(1).says("ukc stop web");
    assert_eq!(place.ukc(&["stop", "web"]).status(0).out, "web\n");
    assert_eq!(place.ukc(&["ps", "-q"]).status(0).out, "");
    assert_eq!(place.ukc(&["ps", "-aq"]).status(0).out.trim(), id);
    assert_eq!(place.ukc(&["wait", &id[..6]]).status(0).out, "143\n", "what SIGTERM ends has 128 + 15");
    assert!(place.ukc(&["logs", "--follow", "web"]).status(0).out.contains("hi"), "the log outlives the machine");
    assert!(place.ukc(&["inspect", "web"]).status(0).out.contains("\"exit_status\": 143"));
    assert_eq!(place.ukc(&["rm", "web"]).status(0).out, "removed web\n");
    place.ukc(&["logs", "web"]).status(1).says("there is no machine `web`");
}

#[test]
fn machines_can_be_killed_and_removed_by_force() {
    let place = built(&pauses());
    place.ukc(&["run", "-q", "-d", "--name", "one", "app"]).status(0);
    place.ukc(&["run", "-q", "-d", "--name", "two", "app"]).status(0);
    place.ukc(&["kill", "-s", "NONSENSE", "one"]).status(2).says("there is no signal `NONSENSE`");
    assert_eq!(place.ukc(&["kill", "one", "nobody"]).status(1).says("there is no machine `nobody`").out, "one\n");
    assert_eq!(place.ukc(&["wait", "one"]).status(0).out, "137\n");
    place.ukc(&["rm", "-f", "one", "two"]).status(0);
    assert_eq!(place.ukc(&["ps", "-aq"]).status(0).out, "");
}

#[test]
fn what_cannot_start_says_so_and_leaves_nothing() {
    let place = built(&exits(0));
    did(place.command(&["run", "-q", "-d", "app"]).env("PATH", "/nowhere")).status(125).says("apt install qemu-system-x86");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("{}:80", taken.local_addr().unwrap().port());
    place.file("context/Dockerfile", "FROM scratch\nCOPY app /app\nENTRYPOINT [\"/app\"]\n");
    place.ukc(&["run", "-q", "-d", "-p", &port, "app"]).status(125).says("Could not set up host forwarding");
    assert_eq!(place.ukc(&["ps", "-aq"]).status(0).out, "");
}

#[test]
fn a_machine_in_the_foreground_is_seen_while_it_runs() {
    let place = built(&pauses());
    let mut child = place.command(&["run", "-q", "--name", "front", "app"]).stdout(Stdio::null()).spawn().unwrap();
    until(&place, &["ps"], "front");
    place.ukc(&["logs", "front"]).status(1).says("runs in the foreground");
    // Whether the signal finds the program or only the machine's grace ends it, the supervisor has a status for us.
    place.ukc(&["stop", "-t", "5", "front"]).status(0);
    assert!(matches!(child.wait().unwrap().code(), Some(137 | 143)));
    assert_eq!(place.ukc(&["ps", "-aq"]).status(0).out, "");
}

#[test]
fn a_killed_supervisor_leaves_a_machine_that_can_be_ended() {
    let place = built(&pauses());
    let mut child = place.command(&["run", "-q", "--name", "orphan", "app"]).stdout(Stdio::null()).spawn().unwrap();
    until(&place, &["ps"], "orphan");
    std::thread::sleep(Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(place.ukc(&["ps"]).out.contains("orphan"), "QEMU lives, so the machine does");
    place.ukc(&["stop", "orphan"]).status(0);
    assert_eq!(place.ukc(&["ps", "-aq"]).status(0).out, "");
}
