//! The early console: a 16550 at port 0x3f8, as QEMU, Firecracker and Cloud Hypervisor emulate it; without one, QEMU's debug console at 0xe9.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::io::{inb, outb};

const BASE: u16 = 0x3f8;
// 16550 registers.
const DATA: u16 = BASE;
const INTERRUPT_ENABLE: u16 = BASE + 1;
const FIFO_CONTROL: u16 = BASE + 2;
const LINE_CONTROL: u16 = BASE + 3;
const MODEM_CONTROL: u16 = BASE + 4;
const LINE_STATUS: u16 = BASE + 5;

const RECEIVED: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 0x20;
/// Bytes that fit the transmit FIFO once it is empty.
const FIFO_BYTES: usize = 16;

/// ISA interrupt of the first serial port.
pub const SERIAL_GSI: u32 = 4;

const DEBUG_CONSOLE: u16 = 0xe9;

const UNKNOWN: u8 = 0;
const SERIAL: u8 = 1;
const DEBUG: u8 = 2;
const NONE: u8 = 3;
static KIND: AtomicU8 = AtomicU8::new(UNKNOWN);

fn kind() -> u8 {
    match KIND.load(Ordering::Relaxed) {
        UNKNOWN => {
            let kind = probe();
            KIND.store(kind, Ordering::Relaxed);
            kind
        }
        known => known,
    }
}

fn probe() -> u8 {
    if inb(LINE_STATUS) != 0xff {
        outb(LINE_CONTROL, 3); // 8 data bits, no parity, 1 stop bit
        outb(FIFO_CONTROL, 1); // FIFOs on
        SERIAL
    } else if inb(DEBUG_CONSOLE) == 0xe9 {
        // The debug console answers its own number.
        DEBUG
    } else {
        NONE
    }
}

/// Writes bytes, waiting for the device.
pub fn write_bytes(bytes: &[u8]) {
    match kind() {
        SERIAL => {
            for piece in bytes.chunks(FIFO_BYTES) {
                // A stuck device must not hang the machine: about 10 ms at the slowest port speed.
                for _ in 0..10_000 {
                    if inb(LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
                        break;
                    }
                    crate::cpu::relax();
                }
                for &byte in piece {
                    outb(DATA, byte);
                }
            }
        }
        DEBUG => bytes.iter().for_each(|&byte| outb(DEBUG_CONSOLE, byte)),
        _ => {}
    }
}

/// Returns a received byte, or `None` when there is none.
pub fn read_byte() -> Option<u8> {
    (kind() == SERIAL && inb(LINE_STATUS) & RECEIVED != 0).then(|| inb(DATA))
}

/// Makes the device interrupt when bytes arrive (GSI [`SERIAL_GSI`], edge). Returns false when there is no serial port.
pub fn enable_receive_interrupt() -> bool {
    if kind() != SERIAL {
        return false;
    }
    outb(MODEM_CONTROL, 0x0b); // DTR, RTS, and OUT2, which connects the interrupt line
    outb(INTERRUPT_ENABLE, 1);
    true
}

/// The console as a target of `write!`.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_bytes(text.as_bytes());
        Ok(())
    }
}

/// What a line of `report!` can be made of.
pub trait Print {
    /// Writes it on the early console.
    fn print(&self);
}

impl Print for &str {
    fn print(&self) {
        write_bytes(self.as_bytes());
    }
}

/// As it is: whoever chose a file's name chose its encoding.
impl Print for &[u8] {
    fn print(&self) {
        write_bytes(self);
    }
}

/// In decimal.
impl Print for u64 {
    fn print(&self) {
        print_number(*self, 10);
    }
}

/// In hexadecimal, after `0x`.
pub struct Hex(pub u64);

impl Print for Hex {
    fn print(&self) {
        write_bytes(b"0x");
        print_number(self.0, 16);
    }
}

fn print_number(number: u64, base: u64) {
    write_bytes(digits(number, base, &mut [0; DIGITS]));
}

/// Digits of the largest number in decimal.
pub const DIGITS: usize = 20;

/// Writes a number to the end of a buffer and returns its digits. The base is 10 or 16.
pub fn digits(mut number: u64, base: u64, buffer: &mut [u8; DIGITS]) -> &[u8] {
    let mut at = DIGITS;
    loop {
        at -= 1;
        let digit = (number % base) as u8;
        buffer[at] = if digit < 10 { b'0' + digit } else { b'a' - 10 + digit };
        number /= base;
        if number == 0 || at == 0 {
            return &buffer[at..];
        }
    }
}

/// Prints a line on the early console, made of pieces that are [`Print`]. What is in every kernel uses this: `core::fmt` is 10 KB of code.
#[macro_export]
macro_rules! report {
    ($($piece:expr),+ $(,)?) => {{
        $( $crate::console::Print::print(&$piece); )+
        $crate::console::write_bytes(b"\n");
    }};
}

/// Prints a formatted line on the early console. Only for modules that format anyway, and for tests; see `report!`.
#[macro_export]
macro_rules! kprintln {
    () => { $crate::console::write_bytes(b"\n") };
    ($($arg:tt)*) => {{
        let _ = ::core::fmt::Write::write_fmt(&mut $crate::console::Console, ::core::format_args!("{}\n", ::core::format_args!($($arg)*)));
    }};
}

#[cfg(test)]
mod tests {
    use super::{DIGITS, digits};

    #[test]
    fn numbers_have_their_digits() {
        for number in [0, 7, 10, 4095, 65536, u64::MAX] {
            assert_eq!(digits(number, 10, &mut [0; DIGITS]), number.to_string().as_bytes());
            assert_eq!(digits(number, 16, &mut [0; DIGITS]), format!("{number:x}").as_bytes());
        }
    }
}
