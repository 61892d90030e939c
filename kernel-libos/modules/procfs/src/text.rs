//! Text of a file while it is made.

use alloc::vec::Vec;
use core::fmt;

/// Bytes that can be formatted into; names in them need not be UTF-8.
#[derive(Default)]
pub struct Text(pub Vec<u8>);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

impl Text {
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Formats a line. Writing to memory cannot fail.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        self.part(line);
        self.0.push(b'\n');
    }

    /// Formats without a line end.
    pub fn part(&mut self, part: fmt::Arguments<'_>) {
        let _ = fmt::Write::write_fmt(self, part);
    }

    /// A name in a list of fields: space, tab, newline and backslash as octal escapes (proc(5), "mounts").
    pub fn escaped(&mut self, name: &[u8], special: &[u8]) {
        for &byte in name {
            if special.contains(&byte) {
                self.part(format_args!("\\{byte:03o}"));
            } else {
                self.0.push(byte);
            }
        }
    }
}
