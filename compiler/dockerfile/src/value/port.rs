//! Ports of EXPOSE: `80`, `8000-8010`, `53/udp`.

use std::fmt;

/// The protocols EXPOSE knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// The default.
    Tcp,
    /// `/udp`.
    Udp,
    /// `/sctp`.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// A range of ports, usually of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// At least 1.
    pub first: u16,
    /// Not below `first`.
    pub last: u16,
    /// Of all of them.
    pub protocol: Protocol,
}

impl Ports {
    /// Each port as the image config writes it: `80/tcp`.
    pub fn keys(&self) -> impl Iterator<Item = String> + use<> {
        let protocol = self.protocol;
        (self.first..=self.last).map(move |port| format!("{port}/{protocol}"))
    }
}

/// Parses one word of EXPOSE. An address or host port before the port (`127.0.0.1:80:80`) means nothing here and is ignored, as Docker does; the check
/// ExposeInvalidFormat warns about it.
///
/// # Errors
/// A sentence, lower case.
pub fn parse(text: &str) -> Result<Ports, String> {
    let (range, protocol) = match text.split_once('/') {
        Some((range, protocol)) => (range, protocol),
        None => (text, "tcp"),
    };
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(format!("the protocol `{protocol}` of `{text}` is not one of tcp, udp, sctp")),
    };
    let range = range.rsplit(':').next().unwrap_or(range);
    let number = |digits: &str| match digits.parse::<u16>() {
        Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(format!("`{text}` is not a port such as `80`, `8000-8010` or `53/udp`: ports are numbers from 1 to 65535")),
    };
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(range)?, number(range)?),
    };
    if first > last {
        return Err(format!("the range `{range}` ends before it starts"));
    }
    Ok(Ports { first, last, protocol })
}

#[cfg(test)]
mod tests {
    #[test]
    fn table() {
        let shown = |text: &str| super::parse(text).map(|p| p.keys().collect::<Vec<_>>().join(" "));
        for (input, expected) in [
            ("80", "80/tcp"),
            ("53/udp", "53/udp"),
            ("53/UDP", "53/udp"),
            ("8000-8002/sctp", "8000/sctp 8001/sctp 8002/sctp"),
            ("127.0.0.1:80:8080", "8080/tcp"),
            ("[::1]:80:8080", "8080/tcp"),
            ("65535", "65535/tcp"),
        ] {
            assert_eq!(shown(input), Ok(expected.to_string()), "{input}");
        }
        for wrong in ["", "0", "65536", "http", "80/", "80/quic", "9-8", "1-", "-1", "+80", "80-90-100"] {
            assert!(super::parse(wrong).is_err(), "{wrong}");
        }
    }
}
