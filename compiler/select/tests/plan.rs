//! Notes to catalogue, facts to plan.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ukc_analyze::{Facts, Features, Object, Place, Program, Reason, Syscall, User};
use ukc_select::{Catalogue, Options, select};

const NOTES: &str = "UKCMOD1
name=fd
needs=
syscall=close:ukc_sys_close:full:
syscall=dup:ukc_sys_dup

UKCMOD1
name=pipe
needs=fd,wait,
always=false
init=ukc_init_pipe
future=ignored
syscall=pipe2:ukc_sys_pipe2:partial:O_DIRECT is refused: always
syscall=pipe:ukc_sys_pipe:full:

\0\0\0UKCMOD1
name=wait
init=ukc_init_wait

UKCMOD1
name=task
always=true
init=ukc_init_task
syscall=exit:ukc_sys_exit:full:

UKCMOD1
name=socket
needs=fd,
syscall=socket:ukc_sys_socket:full:

UKCMOD1
name=inet
needs=socket,
init=ukc_init_inet

UKCMOD1
name=virtio_net
needs=inet,
init=ukc_init_virtio_net
";

fn catalogue() -> Catalogue {
    Catalogue::from_notes(NOTES.as_bytes()).unwrap()
}

fn facts(calls: &[&str]) -> Facts {
    let object = |path: &str, reason| Object { path: path.into(), reason, hash: String::new(), code_bytes: 0 };
    let place = |object, offset| Place { object, offset, function: None, note: None };
    let call = |n: &&str| {
        let nr = libos_abi::syscall::number(n).unwrap() as u32;
        (nr, Syscall { name: n.to_string(), sites: vec![place(1, 0x100), place(0, 0x200)] })
    };
    Facts {
        program: Program::default(),
        user: User::default(),
        objects: vec![object("/app", Reason::Program), object("/lib/libc.so.6", Reason::Needed("/app".into()))],
        syscalls: calls.iter().map(call).collect::<BTreeMap<_, _>>(),
        unknown: vec![],
        dropped: vec![],
        features: Features::default(),
        rules: vec![],
        warnings: vec![],
    }
}

#[test]
fn modules_follow_calls_needs_and_declarations() {
    let plan = select(&facts(&["pipe2", "exit", "bpf"]), &catalogue(), &Options::default()).unwrap();
    assert_eq!(
        plan.to_text(),
        "guest libos
module fd (needed by pipe)
module wait (needed by pipe)
module pipe (handles pipe2)
module task (always; handles exit)
init ukc_init_wait
init ukc_init_pipe
init ukc_init_task
syscall 60 exit -> ukc_sys_exit in task: /app+0x200
syscall 293 pipe2 -> ukc_sys_pipe2 in pipe [partial: O_DIRECT is refused: always]: /app+0x200
missing 321 bpf: /app+0x200
"
    );
}

#[test]
fn sockets_bring_the_network() {
    let plan = select(&facts(&["socket"]), &catalogue(), &Options::default()).unwrap();
    let names: Vec<_> = plan.modules.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["fd", "socket", "inet", "task", "virtio_net"]);
    assert_eq!(plan.inits, ["ukc_init_inet", "ukc_init_task", "ukc_init_virtio_net"]);
    // A feature that a flag asks for.
    let options = Options { features: vec![("pipe".into(), "--with pipe".into())], calls: vec![(32, "--call dup".into())] };
    let plan = select(&facts(&[]), &catalogue(), &options).unwrap();
    assert_eq!(
        plan.to_text().lines().filter(|l| l.contains("--")).collect::<Vec<_>>(),
        ["module pipe (asked for by --with pipe)", "syscall 32 dup -> ukc_sys_dup in fd: --call dup",]
    );
}

#[test]
fn an_unknown_number_links_everything() {
    let mut facts = facts(&["exit"]);
    facts.unknown.push(Place { object: 0, offset: 0x42, function: Some("f".into()), note: Some("the number comes from memory".into()) });
    let plan = select(&facts, &catalogue(), &Options::default()).unwrap();
    assert_eq!(plan.handlers.len(), 6);
    assert_eq!(plan.widened.as_deref(), Some("/app+0x42 in f (the number comes from memory): every handler is linked"));
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<ukc_select::Plan>(&json).unwrap(), plan);
}

#[test]
fn mistakes_in_the_kernel_are_named() {
    for (notes, expected) in [
        ("name=x\n\n", "kernel module note 0: it does not start with `UKCMOD1`"),
        ("UKCMOD1\nneeds=\n\n", "kernel module note 0: it has no name"),
        ("UKCMOD1\nname=a\nsyscall=opne:s\n\n", "kernel module note 0: `opne` is no system call of x86-64"),
        ("UKCMOD1\nname=a\nsyscall=open:s:half\n\n", "kernel module note 0: the call `open` has the unknown state `half`"),
        ("UKCMOD1\nname=a\n\nUKCMOD1\nname=a\n\n", "two kernel modules are called `a`"),
        ("UKCMOD1\nname=a\nsyscall=open:s\n\nUKCMOD1\nname=b\nsyscall=open:t\n\n", "the kernel modules `a` and `b` both handle `open`"),
        ("UKCMOD1\nname=a\nneeds=b\n\n", "the kernel module `a` needs `b`, which does not exist"),
        (
            "UKCMOD1\nname=a\nneeds=b\n\nUKCMOD1\nname=b\nneeds=c\n\nUKCMOD1\nname=c\nneeds=b\n\n",
            "kernel modules need each other in a circle: b -> c -> b",
        ),
    ] {
        assert_eq!(Catalogue::from_notes(notes.as_bytes()).unwrap_err().to_string(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_notes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), tail in ".{0,60}") {
        let _ = Catalogue::from_notes(&bytes);
        let _ = Catalogue::from_notes(format!("UKCMOD1\nname=a\n{tail}").as_bytes());
    }

    #[test]
    fn every_need_is_linked_and_initialised_first(calls in proptest::sample::subsequence(vec!["close", "dup", "pipe", "pipe2", "exit", "socket"], 0..6)) {
        let catalogue = catalogue();
        let plan = select(&facts(&calls), &catalogue, &Options::default()).unwrap();
        let at = |name: &str| plan.modules.iter().position(|m| m.name == name);
        for m in &plan.modules {
            prop_assert!(!m.reasons.is_empty());
            for need in &catalogue.module(&m.name).unwrap().needs {
                prop_assert!(at(need) < at(&m.name) && at(need).is_some());
            }
        }
        prop_assert_eq!(plan.handlers.len(), calls.len());
    }
}
