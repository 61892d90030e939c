//! Writes a cpio archive as Linux wants its initramfs: the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! An entry is "070701", thirteen numbers of eight hexadecimal digits, the name with a zero byte, and the bytes; header with name and the bytes are
//! each padded with zeros to a multiple of four. The archive ends with an entry named `TRAILER!!!`.

/// The type of a file's mode, as in stat(2).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive in memory.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    /// Adds a directory; its parents must have been added before it.
    pub fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY | 0o755, &[]);
    }

    /// Adds a file that everybody may run.
    pub fn file(&mut self, name: &str, data: &[u8]) {
        self.entry(name, REGULAR | 0o755, data);
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let len = u32::try_from(data.len()).expect("a file of an initramfs here is small");
        let name_len = u32::try_from(name.len() + 1).expect("a name is short");
        self.bytes.extend(b"070701");
        // inode, mode, uid, gid, links, mtime, length, device (major, minor), device node (major, minor), length of the name, checksum
        for field in [self.entries, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0] {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// busybox is the oracle; without it there is nothing to compare with.
    #[test]
    fn busybox_reads_it() {
        let mut archive = Cpio::default();
        archive.directory("d");
        archive.file("d/odd", b"12345");
        archive.file("init", b"x");
        let Ok(mut child) = Command::new("busybox").args(["cpio", "-t"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            return;
        };
        child.stdin.take().expect("piped").write_all(&archive.finish()).expect("written");
        let out = child.wait_with_output().expect("ends");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "d\nd/odd\ninit\n");
    }
}
