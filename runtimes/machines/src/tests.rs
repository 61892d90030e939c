//! Machines in a folder: what is kept of them, and when it goes.

use std::io::Write as _;

use ukc_runtime_qemu::{Accelerator, Board, RootMedium};

use super::*;

fn description(name: &str, is_detached: bool) -> Description {
    let machine = Machine {
        qemu: "qemu".into(),
        kernel: "kernel".into(),
        rootfs: "root".into(),
        root_medium: RootMedium::Disk,
        command_line: String::new(),
        memory_mib: 16,
        cpus: 1,
        board: Board::Microvm,
        accelerator: Accelerator::Kvm,
        network: false,
        forwards: vec![],
        disks: vec![],
        extra: vec![],
    };
    Description {
        id: String::new(),
        name: name.to_owned(),
        image: "shop/app:1".to_owned(),
        argv: vec!["/app".to_owned()],
        created: 0,
        is_detached,
        is_removed_at_end: false,
        stop_signal: 15,
        machine,
    }
}

fn machines() -> (tempfile::TempDir, Machines) {
    let dir = tempfile::tempdir().unwrap();
    let machines = Machines::open(dir.path().join("machines")).unwrap();
    (dir, machines)
}

#[test]
fn a_machine_is_known_by_name_and_id_for_as_long_as_it_is_held() {
    let (_dir, machines) = machines();
    let held = machines.create(description("", true)).unwrap();
    assert!(held.description.name.starts_with("app-"), "{}", held.description.name);
    assert_eq!(machines.find(&held.description.name).unwrap().state, State::Running);
    assert_eq!(machines.find(&held.description.id[..8]).unwrap().state, State::Running);
    let id = held.description.id.clone();
    held.end(&Ok(7));
    assert_eq!(machines.find(&id).unwrap().state, State::Exited(7));
    machines.find(&id).unwrap().remove(false).unwrap();
    assert!(matches!(machines.find(&id), Err(MachineError::Unknown { .. })));
}

#[test]
fn names_are_given_once_and_look_like_names() {
    let (_dir, machines) = machines();
    let held = machines.create(description("web", true)).unwrap();
    assert!(matches!(machines.create(description("web", true)), Err(MachineError::NameTaken { id, .. }) if id == held.description.id));
    for bad in ["w", "-web", "a b", "a/b", ".x"] {
        assert!(matches!(machines.create(description(bad, true)), Err(MachineError::BadName { .. })), "{bad}");
    }
    assert_eq!(machines.all().len(), 1, "what was refused left nothing");
}

#[test]
fn a_machine_of_the_foreground_leaves_nothing() {
    let (dir, machines) = machines();
    machines.create(description("one", false)).unwrap().end(&Ok(0));
    // Its supervisor is killed: the lock goes, the folder stays until somebody looks.
    drop(machines.create(description("two", false)).unwrap());
    assert!(machines.all().is_empty());
    let left: Vec<_> = fs::read_dir(dir.path().join("machines")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [".lock"]);
}

#[test]
fn a_supervisor_that_vanished_is_told_of() {
    let (_dir, machines) = machines();
    let id = machines.create(description("lost", true)).unwrap().release();
    let known = machines.find("lost").unwrap();
    assert!(matches!(&known.state, State::Failed(why) if why.contains("killed")));
    assert!(matches!(known.ask(Request::Kill), Err(MachineError::NotRunning { .. })));
    // Another supervisor takes it over, and only one.
    let held = machines.hold(&id).unwrap();
    assert!(machines.hold(&id).is_err());
    assert_eq!(machines.find("lost").unwrap().state, State::Running);
    drop(held);
}

#[test]
fn requests_reach_the_socket_from_a_deep_folder() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120)).join("machines");
    let machines = Machines::open(deep).unwrap();
    let held = machines.create(description("deep", true)).unwrap();
    let listener = held.requests().unwrap();
    let answering = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut line = [0; 10];
        socket.read_exact(&mut line).unwrap();
        socket.write_all(b"ok\n").unwrap();
        line
    });
    machines.find("deep").unwrap().ask(Request::Signal(12)).unwrap();
    assert_eq!(&answering.join().unwrap(), b"signal 12\n");
    assert!(matches!(machines.find("deep").unwrap().remove(false), Err(MachineError::Running { .. })));
}

#[test]
fn the_log_is_bounded_and_its_end_can_be_read() {
    let (_dir, machines) = machines();
    let held = machines.create(description("chatty", true)).unwrap();
    let mut log = held.log().unwrap();
    let line = [b'x'; 1023].iter().chain(b"\n").copied().collect::<Vec<u8>>();
    for _ in 0..40 << 10 {
        log.write_all(&line).unwrap();
    }
    log.write_all(b"last\nwords").unwrap();
    held.end(&Ok(0));
    let known = machines.find("chatty").unwrap();
    let read = |lines| {
        let mut out = Vec::new();
        known.write_log(&mut out, lines, false).unwrap();
        out
    };
    assert_eq!(read(Some(2)), b"last\nwords");
    assert_eq!(read(Some(0)), b"");
    assert_eq!(read(Some(200)).iter().filter(|b| **b == b'\n').count(), 199);
    let all = read(None).len();
    assert!((16 << 20..=33 << 20).contains(&all), "{all}");
}
