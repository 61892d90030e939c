//! The control channel: the guest's second serial port (0x2f8, interrupt 3), a few text lines each way.
//!
//! ```text
//! host to guest    signal 15\n     send this signal to the first process
//! guest to host    exit 137\n      the first process ended with this status (128 + n after signal n)
//! ```
//!
//! QEMU's own exit status cannot carry the program's: `isa-debug-exit` loses the top bit of eight.

/// Returns the line that asks the guest to send a signal to its first process.
pub fn signal_line(signo: u8) -> String {
    format!("signal {signo}\n")
}

/// Returns the status of the last complete `exit` line of what the guest sent.
pub fn exit_status(received: &[u8]) -> Option<u8> {
    received
        .split_inclusive(|&b| b == b'\n')
        .filter_map(|line| std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?.strip_prefix("exit ")?.trim_end().parse().ok())
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_exit_line_counts() {
        for (received, expected) in [
            (&b""[..], None),
            (b"exit 0\n", Some(0)),
            (b"exit 137\r\n", Some(137)),
            (b"noise\nexit 3\n", Some(3)),
            (b"exit 3\nexit 4", Some(3)),
            (b"exit 256\n", None),
            (b"\xff\nexit 1\n", Some(1)),
        ] {
            assert_eq!(exit_status(received), expected, "{}", received.escape_ascii());
        }
    }
}
