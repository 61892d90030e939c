//! The line discipline: from bytes that arrive to what read(2) returns (termios(3)).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use libos_core::abi::general as linux;

use crate::termios::{self, Termios, VEOF, VEOL, VEOL2, VERASE, VINTR, VKILL, VQUIT, VSUSP, VWERASE};

/// Bytes that wait to be read at most; more are dropped, as Linux does.
const LIMIT: usize = 4096;

/// An end of file among the bytes.
const EOF: u16 = 256;

/// Input that arrived.
pub struct Line {
    /// Bytes that can be read, with ends of file among them.
    ready: VecDeque<u16>,
    /// Line ends and ends of file in `ready`.
    lines: usize,
    /// The line that is being typed, still editable.
    edited: Vec<u8>,
}

/// What a byte caused besides input.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Shown to the user.
    pub echo: Vec<u8>,
    /// Sent to the foreground process group.
    pub signal: Option<u32>,
}

impl Line {
    pub const fn new() -> Line {
        Line { ready: VecDeque::new(), lines: 0, edited: Vec::new() }
    }

    /// Forgets all input (tcflush(3), signals).
    pub fn flush(&mut self) {
        *self = Line::new();
    }

    /// Bytes that a read can have now.
    pub fn available(&self, termios: &Termios) -> usize {
        if termios.local(linux::ICANON) && self.lines == 0 { 0 } else { self.ready.iter().filter(|b| **b != EOF).count() }
    }

    /// Whether a read that wants `min` bytes (in raw mode) has its answer.
    pub fn is_ready(&self, termios: &Termios, min: usize) -> bool {
        if termios.local(linux::ICANON) { self.lines > 0 } else { self.ready.len() >= min.max(1) }
    }

    /// Takes a byte from the device.
    pub fn input(&mut self, byte: u8, termios: &Termios) -> Effect {
        let mut effect = Effect::default();
        let mut byte = if termios.iflag & linux::ISTRIP != 0 { byte & 0x7f } else { byte };
        match byte {
            b'\r' if termios.iflag & linux::IGNCR != 0 => return effect,
            b'\r' if termios.iflag & linux::ICRNL != 0 => byte = b'\n',
            b'\n' if termios.iflag & linux::INLCR != 0 => byte = b'\r',
            _ => {}
        }
        if termios.local(linux::ISIG) {
            let signals = [(VINTR, linux::SIGINT), (VQUIT, linux::SIGQUIT), (VSUSP, linux::SIGTSTP)];
            if let Some((_, signal)) = signals.into_iter().find(|(place, _)| termios.is(byte, *place)) {
                self.echo(byte, termios, &mut effect);
                if !termios.local(linux::NOFLSH) {
                    self.flush();
                }
                effect.signal = Some(signal);
                return effect;
            }
        }
        if !termios.local(linux::ICANON) {
            self.push(u16::from(byte));
            self.echo(byte, termios, &mut effect);
            return effect;
        }
        self.edit(byte, termios, &mut effect);
        effect
    }

    fn edit(&mut self, byte: u8, termios: &Termios, effect: &mut Effect) {
        if termios.is(byte, VERASE) {
            self.erase(1, termios, effect);
        } else if termios.is(byte, VKILL) {
            self.erase(self.edited.len(), termios, effect);
        } else if termios.is(byte, VWERASE) && termios.local(linux::IEXTEN) {
            let spaces = self.edited.iter().rev().take_while(|b| **b == b' ').count();
            let word = self.edited.iter().rev().skip(spaces).take_while(|b| **b != b' ').count();
            self.erase(spaces + word, termios, effect);
        } else if termios.is(byte, VEOF) {
            self.commit();
            self.push(EOF);
            self.lines += 1;
        } else {
            let ends = byte == b'\n' || termios.is(byte, VEOL) || termios.is(byte, VEOL2);
            if self.edited.len() + self.ready.len() < LIMIT || ends {
                self.edited.push(byte);
            }
            self.echo(byte, termios, effect);
            if ends {
                self.commit();
                self.lines += 1;
            }
        }
    }

    fn commit(&mut self) {
        let edited = core::mem::take(&mut self.edited);
        self.ready.extend(edited.into_iter().map(u16::from));
    }

    fn push(&mut self, byte: u16) {
        if self.ready.len() < LIMIT {
            self.ready.push_back(byte);
        }
    }

    fn erase(&mut self, count: usize, termios: &Termios, effect: &mut Effect) {
        for _ in 0..count {
            let Some(byte) = self.edited.pop() else { break };
            if termios.local(linux::ECHO) && termios.local(linux::ECHOE) {
                // A control character was shown as two.
                let width = if byte < 32 && termios.local(linux::ECHOCTL) { 2 } else { 1 };
                for _ in 0..width {
                    effect.echo.extend_from_slice(b"\x08 \x08");
                }
            }
        }
    }

    fn echo(&self, byte: u8, termios: &Termios, effect: &mut Effect) {
        if byte == b'\n' && (termios.local(linux::ECHO) || (termios.local(linux::ECHONL) && termios.local(linux::ICANON))) {
            effect.echo.extend_from_slice(b"\r\n");
        } else if termios.local(linux::ECHO) {
            if byte < 32 && byte != b'\t' && termios.local(linux::ECHOCTL) {
                effect.echo.extend_from_slice(&[b'^', byte + b'@']);
            } else {
                effect.echo.push(byte);
            }
        }
    }

    /// Takes what a read gets: in lines, at most one; an end of file alone is no bytes.
    pub fn read(&mut self, termios: &Termios, max: usize, out: &mut Vec<u8>) {
        let by_line = termios.local(linux::ICANON);
        while out.len() < max {
            let Some(byte) = self.ready.pop_front() else { break };
            if byte == EOF {
                self.lines -= 1;
                break;
            }
            let byte = byte as u8;
            out.push(byte);
            let ends = byte == b'\n' || termios.is(byte, VEOL) || termios.is(byte, VEOL2);
            if ends && self.lines > 0 {
                self.lines -= 1;
                if by_line {
                    return;
                }
            }
        }
        // An end of file right after the bytes that filled the buffer belongs to them.
        if by_line && out.len() == max && self.ready.front() == Some(&EOF) && !out.is_empty() {
            self.ready.pop_front();
            self.lines -= 1;
        }
    }
}

/// How many bytes and how many tenths of a second a raw read waits for (termios(3), "Noncanonical mode").
pub fn raw_limits(termios: &Termios) -> (usize, u64) {
    (usize::from(termios.cc[termios::VMIN]), u64::from(termios.cc[termios::VTIME]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(line: &mut Line, text: &[u8], termios: &Termios) -> Vec<u8> {
        text.iter().flat_map(|byte| line.input(*byte, termios).echo).collect()
    }

    fn read(line: &mut Line, termios: &Termios, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        line.read(termios, max, &mut out);
        out
    }

    #[test]
    fn lines_come_one_at_a_time_and_can_be_edited() {
        let termios = Termios::initial();
        let mut line = Line::new();
        type_in(&mut line, b"helxx\x7f\x7flo\rsecond word\x17line\n", &termios);
        assert_eq!(read(&mut line, &termios, 100), b"hello\n");
        assert_eq!(read(&mut line, &termios, 3), b"sec");
        assert_eq!(read(&mut line, &termios, 100), b"ond line\n");
        assert!(!line.is_ready(&termios, 1));
        type_in(&mut line, b"gone\x15kept", &termios);
        assert!(!line.is_ready(&termios, 1));
        type_in(&mut line, b"\n", &termios);
        assert_eq!(read(&mut line, &termios, 100), b"kept\n");
    }

    #[test]
    fn the_end_of_file_is_no_bytes_or_ends_a_line_early() {
        let termios = Termios::initial();
        let mut line = Line::new();
        type_in(&mut line, b"\x04", &termios);
        assert!(line.is_ready(&termios, 1));
        assert_eq!(read(&mut line, &termios, 10), b"");
        type_in(&mut line, b"part\x04", &termios);
        assert_eq!(read(&mut line, &termios, 10), b"part");
        assert!(!line.is_ready(&termios, 1));
        type_in(&mut line, b"full\x04", &termios);
        assert_eq!(read(&mut line, &termios, 4), b"full");
        assert!(!line.is_ready(&termios, 1), "the end belonged to the bytes before it");
    }

    #[test]
    fn control_characters_signal_and_drop_what_was_typed() {
        let termios = Termios::initial();
        let mut line = Line::new();
        type_in(&mut line, b"typed", &termios);
        assert_eq!(line.input(3, &termios), Effect { echo: vec![], signal: Some(linux::SIGINT) });
        type_in(&mut line, b"x\n", &termios);
        assert_eq!(read(&mut line, &termios, 10), b"x\n");
    }

    #[test]
    fn raw_mode_passes_everything_and_echo_shows_it() {
        let mut termios = Termios::initial();
        termios.lflag = linux::ECHO | linux::ECHOCTL;
        let mut line = Line::new();
        assert_eq!(type_in(&mut line, b"a\x03\n", &termios), b"a^C\r\n");
        assert_eq!(read(&mut line, &termios, 10), b"a\x03\n");
        termios.lflag |= linux::ICANON | linux::ECHOE;
        assert_eq!(type_in(&mut line, b"b\x7f", &termios), b"b\x08 \x08");
    }
}
