//! Base64 of texts (RFC 4648, section 4), as credentials are written.

/// Letters by value.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes, with padding.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let word = chunk.iter().fold(0u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { letter as char } else { '=' });
        }
    }
    out
}

/// Decodes; line ends and missing padding are forgiven. `None` for what is no base64 of UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut out = vec![];
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        if byte == b'=' {
            break;
        }
        let value = LETTERS.iter().position(|l| *l == byte)? as u32;
        word = word << 6 | value;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        // RFC 4648, section 10.
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!((encode(plain).as_str(), decode(coded).as_deref()), (coded, Some(plain)));
        }
        assert_eq!(decode("Zm9v\nYg"), Some("foob".to_owned()));
        assert_eq!((decode("%%"), decode("/w==")), (None, None));
    }
}
