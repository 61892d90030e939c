//! Signal names and numbers of STOPSIGNAL (signal(7), x86-64 numbers).

/// Names without `SIG`, at the index of their number minus one.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD",
    "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Parses `SIGTERM`, `term`, `15`, `RTMIN+3`, `SIGRTMAX-1`; returns the number, 1 to 64.
///
/// # Errors
/// A sentence, lower case, with the closest name if one is close.
pub fn parse(text: &str) -> Result<u8, String> {
    if let Ok(number) = text.parse::<u32>() {
        return match number {
            1..=64 => Ok(number as u8),
            _ => Err(format!("there is no signal {number}: they are numbered 1 to 64")),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|n| *n == name) {
        return Ok(index as u8 + 1);
    }
    match name {
        "IOT" => return Ok(6),
        "CLD" => return Ok(17),
        "POLL" => return Ok(29),
        // The C library keeps 32 and 33 for itself (nptl(7)).
        "RTMIN" => return Ok(34),
        "RTMAX" => return Ok(64),
        _ => {}
    }
    let offset = |prefix: &str, base: i32, sign: i32| {
        let n: i32 = name.strip_prefix(prefix)?.parse().ok()?;
        (0..=64).contains(&n).then_some(base + sign * n).filter(|n| (34..=64).contains(n)).map(|n| n as u8)
    };
    if let Some(number) = offset("RTMIN+", 34, 1).or_else(|| offset("RTMAX-", 64, -1)) {
        return Ok(number);
    }
    let hint = match ukc_diagnostics::suggest::closest(name, NAMES) {
        Some(close) => format!("; did you mean `SIG{close}`?"),
        None => String::new(),
    };
    Err(format!("there is no signal `{text}`{hint}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn table() {
        for (input, expected) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGQUIT", 3), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("SIGWINCH", 28), ("SYS", 31)]
        {
            assert_eq!(super::parse(input), Ok(expected), "{input}");
        }
        assert_eq!(super::parse("SIGTREM").unwrap_err(), "there is no signal `SIGTREM`; did you mean `SIGTERM`?");
        for wrong in ["", "0", "65", "SIG", "RTMIN+40", "RTMAX--1", "-1"] {
            assert!(super::parse(wrong).is_err(), "{wrong}");
        }
    }
}
