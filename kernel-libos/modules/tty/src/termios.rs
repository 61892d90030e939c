//! Terminal attributes: `struct termios` of <asm/termbits.h>.

use libos_core::abi::general as linux;

/// Control characters, by their place in `c_cc`.
pub const VINTR: usize = linux::VINTR as usize;
pub const VQUIT: usize = linux::VQUIT as usize;
pub const VERASE: usize = linux::VERASE as usize;
pub const VKILL: usize = linux::VKILL as usize;
pub const VEOF: usize = linux::VEOF as usize;
pub const VTIME: usize = linux::VTIME as usize;
pub const VMIN: usize = linux::VMIN as usize;
pub const VSUSP: usize = linux::VSUSP as usize;
pub const VEOL: usize = linux::VEOL as usize;
pub const VWERASE: usize = linux::VWERASE as usize;
pub const VEOL2: usize = linux::VEOL2 as usize;

/// Terminal attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Termios {
    pub iflag: u32,
    pub oflag: u32,
    pub cflag: u32,
    pub lflag: u32,
    pub line: u8,
    pub cc: [u8; 19],
}

impl Termios {
    /// As the console starts: lines and signals as on any terminal, but no echo and no translation of output. The terminal at the other end of the serial
    /// line does both, and when it is a pipe, what goes through must not change.
    pub const fn initial() -> Termios {
        let mut cc = [0; 19];
        cc[VINTR] = 3;
        cc[VQUIT] = 28;
        cc[VERASE] = 127;
        cc[VKILL] = 21;
        cc[VEOF] = 4;
        cc[VMIN] = 1;
        cc[linux::VSTART as usize] = 17;
        cc[linux::VSTOP as usize] = 19;
        cc[VSUSP] = 26;
        cc[linux::VREPRINT as usize] = 18;
        cc[linux::VDISCARD as usize] = 15;
        cc[VWERASE] = 23;
        cc[linux::VLNEXT as usize] = 22;
        Termios {
            iflag: linux::ICRNL | linux::IXON,
            oflag: 0,
            cflag: linux::B38400 | linux::CS8 | linux::CREAD | linux::HUPCL,
            lflag: linux::ISIG | linux::ICANON | linux::IEXTEN,
            line: 0,
            cc,
        }
    }

    /// The nine words of `struct termios`: four flags, then line discipline and control characters as bytes.
    pub fn to_words(self) -> [u32; 9] {
        let mut bytes = [0; 20];
        bytes[0] = self.line;
        bytes[1..].copy_from_slice(&self.cc);
        let mut words = [self.iflag, self.oflag, self.cflag, self.lflag, 0, 0, 0, 0, 0];
        for (word, bytes) in words[4..].iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        words
    }

    /// Reads the nine words.
    pub fn from_words(words: [u32; 9]) -> Termios {
        let mut bytes = [0; 20];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(&words[4..]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut cc = [0; 19];
        cc.copy_from_slice(&bytes[1..]);
        Termios { iflag: words[0], oflag: words[1], cflag: words[2], lflag: words[3], line: bytes[0], cc }
    }

    pub fn local(&self, flag: u32) -> bool {
        self.lflag & flag != 0
    }

    /// Whether a byte is the control character in a place; 0 means that there is none.
    pub fn is(&self, byte: u8, place: usize) -> bool {
        byte != 0 && self.cc[place] == byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        let termios = Termios::initial();
        assert_eq!(Termios::from_words(termios.to_words()), termios);
        // c_cc[VINTR] follows c_line: byte 17 of the structure.
        assert_eq!(termios.to_words()[4] >> 8 & 0xff, 3);
    }
}
