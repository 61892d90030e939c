//! The control channel to whoever started the machine: the second serial port (0x2f8, interrupt 3), a few text lines each way.
//!
//! ```text
//! host to guest    signal 15\n     send this signal to the first process
//! guest to host    exit 137\n      the first process ended with this status (128 + n after signal n)
//! ```
//!
//! The port is a 16550 (National Semiconductor PC16550D): data, interrupt enable, ..., line status at offset 5. Nobody need be at the other end: without the
//! port, or without anything that reads it, the machine runs just the same.

use alloc::sync::Arc;

use crate::arch::io::{inb, outb};
use crate::arch::irq::Trigger;
use crate::sync::SpinLock;
use crate::task::signal::{self, SigInfo};
use crate::task::table;

const DATA: u16 = 0x2f8;
const INTERRUPT_ENABLE: u16 = DATA + 1;
const FIFO_CONTROL: u16 = DATA + 2;
const MODEM_CONTROL: u16 = DATA + 4;
const LINE_STATUS: u16 = DATA + 5;

const RECEIVED: u8 = 1;
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// Line status of a port that does not exist: the bus floats.
const ABSENT: u8 = 0xff;

/// The line read so far.
static LINE: SpinLock<Line> = SpinLock::new(Line::new());

/// Collects bytes to lines.
struct Line {
    bytes: [u8; 32],
    len: usize,
}

impl Line {
    const fn new() -> Line {
        Line { bytes: [0; 32], len: 0 }
    }

    /// Takes a byte; at the end of a line that asks for a signal, returns the signal.
    fn push(&mut self, byte: u8) -> Option<u32> {
        if byte != b'\n' {
            // A line that is too long cannot be ours: it is cut, and will not parse.
            if self.len < self.bytes.len() {
                self.bytes[self.len] = byte;
            }
            self.len = (self.len + 1).min(self.bytes.len() + 1);
            return None;
        }
        let len = core::mem::replace(&mut self.len, 0);
        let line = core::str::from_utf8(self.bytes.get(..len)?).ok()?;
        let signo = line.trim_end().strip_prefix("signal ")?.parse().ok()?;
        (1..=signal::set::MAX).contains(&signo).then_some(signo)
    }
}

/// Starts to listen.
pub(crate) fn start() {
    if inb(LINE_STATUS) == ABSENT {
        return;
    }
    let handler = Arc::new(on_interrupt);
    if crate::irq::register_gsi(3, Trigger::Edge, handler).is_err() {
        return;
    }
    // FIFOs on and empty; DTR, RTS and OUT2, without which the interrupt does not leave the chip; interrupt on received data.
    outb(FIFO_CONTROL, 0x07);
    outb(MODEM_CONTROL, 0x0b);
    outb(INTERRUPT_ENABLE, 0x01);
}

fn on_interrupt() {
    while inb(LINE_STATUS) & RECEIVED != 0 {
        let byte = inb(DATA);
        let wanted = LINE.lock().push(byte);
        if let (Some(signo), Ok(first)) = (wanted, table::process(1)) {
            // A signal of the kernel is never refused.
            let _ = signal::send_to_process(&first, SigInfo::kernel(signo));
        }
    }
}

/// Says with which status the first process ended.
pub(crate) fn report_exit(status: u8) {
    if inb(LINE_STATUS) == ABSENT {
        return;
    }
    let digits = [b'0' + status / 100, b'0' + status / 10 % 10, b'0' + status % 10];
    let first = if status >= 100 {
        0
    } else if status >= 10 {
        1
    } else {
        2
    };
    for &byte in b"exit ".iter().chain(&digits[first..]).chain(b"\n") {
        // Bounded: a port whose other end does not read must not keep the machine from ending.
        let mut tries = 100_000;
        while inb(LINE_STATUS) & TRANSMIT_EMPTY == 0 && tries > 0 {
            tries -= 1;
        }
        outb(DATA, byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<u32> {
        let mut line = Line::new();
        text.iter().filter_map(|&b| line.push(b)).collect()
    }

    #[test]
    fn lines_that_ask_for_signals_are_understood_and_others_skipped() {
        assert_eq!(read(b"signal 15\nsignal 2\r\n"), [15, 2]);
        assert_eq!(read(b"signal 0\nsignal 65\nsignal x\nhello\n\nsignal 9\n"), [9]);
        assert_eq!(read(b"a line that is much longer than the buffer that holds it signal 15\nsignal 10\n"), [10]);
        assert_eq!(read(b"signal 15"), []);
    }
}
