//! Sizes of memory: `64m`, `1.5GiB`, `4096` (docker/go-units, `RAMInBytes`: all prefixes are powers of 1024).

/// Parses a size in bytes.
///
/// # Errors
/// A sentence, lower case.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as `64m` or `1g`");
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits_end].parse().map_err(|_| wrong())?;
    let unit = text[digits_end..].strip_prefix(' ').unwrap_or(&text[digits_end..]).to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let shift = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    let bytes = number * (1u64 << shift) as f64;
    // The cast saturates; beyond 2^63 nothing can be that large.
    if bytes < i64::MAX as f64 { Ok(bytes as u64) } else { Err(format!("the size `{text}` is too large")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn table() {
        for (input, expected) in
            [("4096", Some(4096)), ("64m", Some(64 << 20)), ("1.5GiB", Some(3 << 29)), ("1 kb", Some(1024)), ("2P", Some(2 << 50))]
        {
            assert_eq!(super::parse(input).ok(), expected, "{input}");
        }
        for wrong in ["", "m", "1x", "-1", "1..2", "9999999999p"] {
            assert!(super::parse(wrong).is_err(), "{wrong}");
        }
    }
}
