//! Sizes as people write them.

use std::fmt;

use serde::Deserialize;

/// A number of bytes, written `1048576`, `1024k`, `1m` or `1g`: powers of 1024, as docker's `--memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Written")]
pub struct Size(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl Size {
    /// Parses a size; none for what is none or too large for 64 bits.
    pub fn parse(text: &str) -> Option<Size> {
        let lower = text.to_ascii_lowercase();
        let digits = lower.trim_end_matches("ib").trim_end_matches('b');
        let (number, shift) = match digits.as_bytes().last()? {
            b'k' => (&digits[..digits.len() - 1], 10),
            b'm' => (&digits[..digits.len() - 1], 20),
            b'g' => (&digits[..digits.len() - 1], 30),
            b't' => (&digits[..digits.len() - 1], 40),
            _ => (digits, 0),
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        number.parse::<u64>().ok()?.checked_mul(1 << shift).map(Size)
    }
}

impl TryFrom<Written> for Size {
    type Error = String;

    fn try_from(written: Written) -> Result<Size, String> {
        match written {
            Written::Number(bytes) => Ok(Size(bytes)),
            Written::Text(text) => Size::parse(&text).ok_or_else(|| format!("`{text}` is no size; sizes look like `64m` or `1g`")),
        }
    }
}

impl fmt::Display for Size {
    /// `64 MiB` for whole units, `1.5 MiB` for others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match UNITS.iter().find(|(_, shift)| self.0 >> shift > 0) {
            None => write!(f, "{} bytes", self.0),
            Some((unit, shift)) if self.0.trailing_zeros() >= *shift => write!(f, "{} {unit}", self.0 >> shift),
            Some((unit, shift)) => write!(f, "{:.2} {unit}", self.0 as f64 / (1u64 << shift) as f64),
        }
    }
}
