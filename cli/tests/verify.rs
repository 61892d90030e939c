//! `ukc verify`, and that nothing of the machine gets into an image: path, user's surroundings, time zone, umask and number of processors vary.

mod common;

use std::process::Command;

use common::{Place, did, exits};

#[test]
fn an_image_is_verified_and_a_difference_named() {
    let place = Place::with_program(&exits(0));
    place.ukc(&["build", "-q", "-o", "out", "context"]).status(0);
    let same = place.ukc(&["verify", "out", "context"]).status(0);
    assert!(same.out.contains("are the same, byte for byte"), "{}", same.out);

    let root = place.path("out/rootfs.ext4");
    let whole = std::fs::read(&root).unwrap();
    let mut changed = whole.clone();
    changed[5 * 4096 + 7] ^= 1;
    std::fs::write(&root, changed).unwrap();
    place.ukc(&["verify", "out", "context"]).status(5).says("`rootfs.ext4` differs from byte 20487 on, in block 5");
    std::fs::write(&root, whole).unwrap();

    place.file("context/Dockerfile", "FROM scratch\nCOPY app /app\nENTRYPOINT [\"/app\", \"x\"]\n");
    place.ukc(&["verify", "out", "context"]).status(5).says("the input `Dockerfile` was sha256:");
}

#[test]
fn nothing_of_the_machine_is_in_an_image() {
    let place = Place::with_program(&exits(0));
    place.ukc(&["build", "-q", "-o", "out", "context"]).status(0);
    let other = Place::new();
    let moved = other.path("some where/else");
    std::fs::create_dir_all(moved.parent().unwrap()).unwrap();
    // cp -a keeps the times of files, which are part of the input.
    did(Command::new("cp").arg("-a").arg(place.path("context")).arg(&moved)).status(0);
    let ukc = env!("CARGO_BIN_EXE_ukc");
    let mut shell = Command::new("sh");
    // One processor, another umask.
    shell.args(["-c", "umask 077; exec taskset -c 0 \"$0\" build -q -o out \"$1\"", ukc]).arg(&moved);
    other.at_home(&mut shell);
    shell
        .env("TZ", "Pacific/Auckland")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("LANG", "de_DE")
        .env("USER", "somebody")
        .env("HOME", other.path("home"));
    did(&mut shell).status(0);
    for name in ["kernel.elf", "rootfs.ext4", "kernel.map", "image.json"] {
        assert!(std::fs::read(place.path("out").join(name)).unwrap() == std::fs::read(other.path("out").join(name)).unwrap(), "{name}");
    }
}
