//! The kernel command line in our own dialect: what it changes of the boot record. This is its writer and the one rule of its words; the kernel's reader
//! is `command_line.rs` in `kernel-libos/core`.
//!
//! Words are separated by spaces. In a word, `%` and two hexadecimal digits stand for a byte, so that a word can hold anything; the writer escapes
//! every byte that is not a printable ASCII character, the space, and `%` itself. `image-format/README.md` lists the words.

use alloc::format;
use alloc::string::String;
use core::fmt::Write as _;
use core::net::Ipv4Addr;

/// Collects the words of a command line.
///
/// ```
/// # use ukc_boot_record::CommandLine;
/// let line = CommandLine::new().arg(b"sh").arg(b"a b").env(b"RATE=100%").finish();
/// assert_eq!(line, "ukc.arg=sh ukc.arg=a%20b ukc.env=RATE=100%25");
/// ```
#[derive(Debug, Clone, Default)]
pub struct CommandLine {
    text: String,
}

impl CommandLine {
    /// Returns a line without words.
    pub fn new() -> CommandLine {
        CommandLine::default()
    }

    /// The program to start, instead of the record's.
    pub fn program(self, path: &[u8]) -> Self {
        self.word("ukc.program=", path)
    }

    /// The next argument, `argv[0]` first; together they replace the record's.
    pub fn arg(self, arg: &[u8]) -> Self {
        self.word("ukc.arg=", arg)
    }

    /// `NAME=VALUE` sets a variable, `NAME` removes it.
    pub fn env(self, variable: &[u8]) -> Self {
        self.word("ukc.env=", variable)
    }

    /// Makes the console a terminal.
    pub fn terminal(self) -> Self {
        self.word("ukc.tty", b"")
    }

    /// Prints system calls on the console.
    pub fn trace(self) -> Self {
        self.word("ukc.trace", b"")
    }

    /// Mounts a disk, named by its serial number, on an absolute path. `options` is a comma-separated list of `ro` and `nocopy` (an empty disk gets no copy
    /// of what the image has there).
    pub fn mount(self, disk: &str, target: &str, options: &str) -> Self {
        self.word("ukc.mount=", format!("{disk}:{target}:{options}").as_bytes())
    }

    /// The address of the first network interface, its gateway and a name server, instead of DHCP.
    pub fn ipv4(self, address: Ipv4Addr, prefix_len: u8, gateway: Ipv4Addr, dns: Ipv4Addr) -> Self {
        let mut value = String::new();
        let _ = write!(value, "{address}/{prefix_len}:{gateway}:{dns}");
        self.word("ukc.ip=", value.as_bytes())
    }

    /// Returns the line.
    pub fn finish(self) -> String {
        self.text
    }

    fn word(mut self, name: &str, value: &[u8]) -> Self {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(name);
        for &byte in value {
            match byte {
                b'%' | 0..=b' ' | 0x7f.. => {
                    let _ = write!(self.text, "%{byte:02x}");
                }
                _ => self.text.push(char::from(byte)),
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_in_a_word() {
        let all: alloc::vec::Vec<u8> = (0..=255).collect();
        let line = CommandLine::new().arg(&all).finish();
        let word = line.strip_prefix("ukc.arg=").unwrap().as_bytes();
        assert!(word.iter().all(u8::is_ascii_graphic), "one word of printable characters");
        let mut decoded = alloc::vec::Vec::new();
        let mut rest = word;
        while let [first, tail @ ..] = rest {
            if *first == b'%' {
                decoded.push(u8::from_str_radix(core::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
                rest = &tail[2..];
            } else {
                decoded.push(*first);
                rest = tail;
            }
        }
        assert_eq!(decoded, all);
    }

    #[test]
    fn words_in_the_order_of_the_calls() {
        let (own, gateway, dns) = (Ipv4Addr::new(10, 0, 2, 15), Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 2, 3));
        let line = CommandLine::new().program(b"/bin/a").trace().ipv4(own, 24, gateway, dns).env(b"A").finish();
        assert_eq!(line, "ukc.program=/bin/a ukc.trace ukc.ip=10.0.2.15/24:10.0.2.2:10.0.2.3 ukc.env=A");
        assert_eq!(CommandLine::new().finish(), "");
    }
}
