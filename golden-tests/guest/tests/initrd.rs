//! cpio archives: as the root, and appended to the root file system by somebody else, as urunc does.

use std::path::Path;
use std::process::{Command, Stdio};

/// Adds an entry to an archive (cpio(5), newc).
fn put(out: &mut Vec<u8>, ino: u32, name: &str, mode: u32, links: u32, data: &[u8]) {
    let numbers = [ino, mode, 0, 0, links, 1_000_000_000, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    out.extend_from_slice(b"070701");
    numbers.iter().for_each(|n| out.extend_from_slice(format!("{n:08X}").as_bytes()));
    for bytes in [&[name.as_bytes(), b"\0"].concat()[..], data] {
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

fn run(ukc: &Path, image: &Path, script: &str) -> String {
    let mut command = Command::new(ukc);
    command.args(["run", "--quiet"]).arg(image).args(["--", "sh", "-c", script]).stdin(Stdio::null());
    let output = command.env("XDG_STATE_HOME", image.with_extension("state")).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn archives_are_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let ukc = golden_guest::compile::ukc(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
    let context = dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists()).expect("busybox-static is installed");
    std::fs::copy(busybox, context.join("busybox")).unwrap();
    std::fs::write(context.join("old"), "old\n").unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY old /etc/old\nENTRYPOINT [\"/bin/busybox\"]\n",
    )
    .unwrap();
    let image = dir.path().join("image");
    let mut build = Command::new(&ukc);
    build.args(["build", "--quiet", "--module", "cpio", "-o"]).arg(&image).arg(&context);
    let built = build.env("XDG_CACHE_HOME", dir.path().join("cache")).env("XDG_DATA_HOME", dir.path().join("data")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    // Two archives behind the image, with a gap between them.
    let root = std::fs::read(image.join("rootfs.ext4")).unwrap();
    let mut bytes = root.clone();
    put(&mut bytes, 1, "etc/old", 0o100_600, 1, b"new\n");
    put(&mut bytes, 2, "made/on/the/way", 0o100_755, 2, b"");
    put(&mut bytes, 2, "made/again", 0o100_755, 2, b"both\n");
    put(&mut bytes, 3, "made/link", 0o120_777, 1, b"again");
    put(&mut bytes, 0, "TRAILER!!!", 0, 1, b"");
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    put(&mut bytes, 4, "second", 0o040_700, 1, b"");
    put(&mut bytes, 0, "TRAILER!!!", 0, 1, b"");
    std::fs::write(image.join("rootfs.ext4"), &bytes).unwrap();
    let script = "B=/bin/busybox; $B cat /etc/old /made/on/the/way /made/link; $B stat -c '%a %h' /etc/old /made/again /second; echo x > /etc/old; $B cat /etc/old";
    assert_eq!(run(&ukc, &image, script), "new\nboth\nboth\n600 1\n755 2\n700 2\nx\n");

    // An archive alone.
    let mut bytes = Vec::new();
    put(&mut bytes, 1, ".", 0o040_755, 2, b"");
    put(&mut bytes, 2, "bin/busybox", 0o100_755, 1, &std::fs::read(busybox).unwrap());
    put(&mut bytes, 3, "hello", 0o100_644, 1, b"from an archive\n");
    put(&mut bytes, 0, "TRAILER!!!", 0, 1, b"");
    std::fs::write(image.join("rootfs.ext4"), &bytes).unwrap();
    assert_eq!(run(&ukc, &image, "B=/bin/busybox; $B cat /hello; $B ls /"), "from an archive\nbin\ndev\nhello\nproc\nsys\n");
}
