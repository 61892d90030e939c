//! Durations in Go's syntax: `1h30m`, `1.5s`, `300ms` (Go, `time.ParseDuration`).

use std::time::Duration;

/// Parses a duration: numbers with a unit (`ns`, `us`, `µs`, `ms`, `s`, `m`, `h`) one after the other, or `0`. Digits below a nanosecond are dropped.
///
/// # Errors
/// A sentence, lower case: no number, an unknown or missing unit, a negative or too large value.
pub fn parse(text: &str) -> Result<Duration, String> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.starts_with('-') {
        return Err(format!("the duration `{text}` is negative"));
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(format!("`{text}` is not a duration such as `30s` or `1m30s`"));
    }
    let mut total_ns: u128 = 0;
    while !rest.is_empty() {
        let (integer, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if integer.is_empty() && fraction.is_empty() {
            return Err(format!("`{text}` is not a duration such as `30s` or `1m30s`"));
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let unit_ns = unit_ns(text, &after[..unit_end])?;
        let too_large = || format!("the duration `{text}` is too large");
        let whole: u128 = if integer.is_empty() { 0 } else { integer.parse().map_err(|_| too_large())? };
        total_ns = whole.checked_mul(unit_ns).and_then(|ns| ns.checked_add(total_ns)).ok_or_else(too_large)?;
        // 18 digits are more than a nanosecond of an hour (3.6e12 ns) can show.
        let digits = &fraction[..fraction.len().min(18)];
        if !digits.is_empty() {
            let part: u128 = digits.parse().map_err(|_| too_large())?;
            total_ns += part * unit_ns / 10u128.pow(digits.len() as u32);
        }
        // Go keeps durations in an i64 of nanoseconds.
        if total_ns > i64::MAX as u128 {
            return Err(too_large());
        }
        rest = &after[unit_end..];
    }
    Ok(Duration::from_nanos(total_ns as u64))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_ns(text: &str, unit: &str) -> Result<u128, String> {
    Ok(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        "" => return Err(format!("the duration `{text}` lacks a unit: ns, us, ms, s, m or h")),
        other => return Err(format!("`{other}` in `{text}` is not a unit of time: use ns, us, ms, s, m or h")),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn table() {
        let table = "
            0 | 0
            +5s | 5000000000
            30s | 30000000000
            1h15m30.918s | 4530918000000
            100ms | 100000000
            .5s | 500000000
            1.s | 1000000000
            1us1µs1μs | 3000
            2540400h | 9145440000000000000
            3000000h | the duration `3000000h` is too large
            9999999999999999999999999999999999999999s | the duration `9999999999999999999999999999999999999999s` is too large
            -5s | the duration `-5s` is negative
            5 | the duration `5` lacks a unit: ns, us, ms, s, m or h
            s | `s` is not a duration such as `30s` or `1m30s`
            . | `.` is not a duration such as `30s` or `1m30s`
            + | `+` is not a duration such as `30s` or `1m30s`
            5d | `d` in `5d` is not a unit of time: use ns, us, ms, s, m or h";
        for line in table.lines().skip(1) {
            let (input, expected) = line.trim().split_once(" | ").unwrap();
            let got = match parse(input) {
                Ok(d) => d.as_nanos().to_string(),
                Err(e) => e,
            };
            assert_eq!(got, expected, "{input}");
        }
    }
}
