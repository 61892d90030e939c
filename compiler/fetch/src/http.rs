//! HTTP requests, blocking.
//!
//! Connections are kept and shared between threads. Every status is an answer, not an error; redirects are followed, and credentials stay with the host
//! they were meant for. Machines on the loopback are never reached through a proxy (as in Go, `httpproxy.Config`).

use std::fmt;
use std::io::{self, Read};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use ureq::config::RedirectAuthHeaders;
use ureq::{Agent, SendBody};

use crate::Trust;
use crate::retry::{Again, retry_after};

/// Resolving and connecting together.
const CONNECT: Duration = Duration::from_secs(20);
/// Until the first byte of an answer: a registry may hash a large upload before it answers.
const ANSWER: Duration = Duration::from_secs(300);
/// Between two bytes.
const SILENCE: Duration = Duration::from_secs(60);
/// Connections that are kept to one host.
const KEPT: usize = 8;
/// What an error message of a server may fill.
const MAX_MESSAGE: u64 = 16 << 10;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the methods of HTTP
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }
}

/// What is sent along.
pub enum Body<'a> {
    /// Nothing.
    Empty,
    /// Some bytes.
    Bytes(&'a [u8]),
    /// This many bytes of a reader.
    Reader(&'a mut dyn Read, u64),
}

/// A request. Header names are lower case.
pub struct Request<'a> {
    /// What to do.
    pub method: Method,
    /// Absolute.
    pub url: &'a str,
    /// In order.
    pub headers: &'a [(&'static str, String)],
    /// See [`Body`].
    pub body: Body<'a>,
}

impl<'a> Request<'a> {
    /// Returns a GET without headers.
    pub fn get(url: &'a str) -> Request<'a> {
        Request { method: Method::Get, url, headers: &[], body: Body::Empty }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub struct HttpError {
    /// A sentence, lower case.
    pub why: String,
    /// Whether another attempt may do better.
    pub again: Again,
    /// Whether the certificates are to blame.
    pub is_tls: bool,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for HttpError {}

/// An answer, whatever its status.
pub struct Answer {
    status: u16,
    response: ureq::http::Response<ureq::Body>,
}

impl Answer {
    /// Returns the status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is 2xx.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the first header of a name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns all headers of a name.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(name).iter().filter_map(|v| v.to_str().ok())
    }

    /// Returns the length of what follows, if the server says.
    pub fn len_bytes(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Whether the same request may be answered better later: 408, 429 and 5xx, except 501 and 505, which say that it never will.
    pub fn again(&self) -> Again {
        match self.status {
            408 | 429 | 500 | 502..=504 | 506..=599 => {
                self.header("retry-after").and_then(|v| retry_after(v, SystemTime::now())).map_or(Again::Soon, Again::After)
            }
            _ => Again::No,
        }
    }

    /// Returns what follows as a stream.
    pub fn into_reader(self) -> Box<dyn Read + Send> {
        Box::new(self.response.into_body().into_with_config().limit(u64::MAX).reader())
    }

    /// Reads what follows, up to a limit; more than that is an error.
    ///
    /// # Errors
    /// Those of reading.
    pub fn into_bytes(self, limit: u64) -> io::Result<Vec<u8>> {
        let mut out = vec![];
        self.into_reader().take(limit + 1).read_to_end(&mut out)?;
        if out.len() as u64 > limit {
            return Err(io::Error::other(format!("the answer is longer than {limit} bytes")));
        }
        Ok(out)
    }

    /// Reads the start of what follows as text, for messages.
    pub fn into_message(self) -> String {
        let mut out = vec![];
        let _ = self.into_reader().take(MAX_MESSAGE).read_to_end(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// A client. Cheap to share, not to make.
pub struct Http {
    trust: Trust,
    /// With and without the proxy of the environment.
    agents: [OnceLock<Result<Agent, String>>; 2],
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Default for Http {
    fn default() -> Http {
        Http::new(Trust::default())
    }
}

impl Http {
    /// Returns a client that trusts these.
    pub fn new(trust: Trust) -> Http {
        Http { trust, agents: Default::default() }
    }

    fn agent(&self, url: &str) -> Result<&Agent, HttpError> {
        let is_direct = is_loopback(host_of(url));
        let made = self.agents[usize::from(is_direct)].get_or_init(|| self.make(is_direct));
        made.as_ref().map_err(|why| HttpError { why: why.clone(), again: Again::No, is_tls: true })
    }

    fn make(&self, is_direct: bool) -> Result<Agent, String> {
        let builder = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("ukc/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(SILENCE.max(ANSWER)))
            .timeout_per_write(Some(SILENCE))
            .max_idle_connections_per_host(KEPT)
            .input_buffer_size(128 << 10)
            .output_buffer_size(128 << 10)
            .tls_config(self.trust.config()?);
        let builder = if is_direct { builder.proxy(None) } else { builder };
        Ok(builder.build().new_agent())
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`HttpError`] when there is no answer; every status is an answer.
    pub fn send(&self, request: Request<'_>) -> Result<Answer, HttpError> {
        let agent = self.agent(request.url)?;
        let mut builder = ureq::http::Request::builder().method(request.method.name()).uri(request.url);
        for (name, value) in request.headers {
            builder = builder.header(*name, value);
        }
        let bad = |why: String| HttpError { why, again: Again::No, is_tls: false };
        let sent = match request.body {
            Body::Empty if matches!(request.method, Method::Get | Method::Head | Method::Delete) => {
                agent.run(builder.body(()).map_err(|e| bad(format!("`{}` is not a URL: {e}", request.url)))?)
            }
            Body::Empty => agent.run(builder.body(&[][..]).map_err(|e| bad(e.to_string()))?),
            Body::Bytes(bytes) => agent.run(builder.body(bytes).map_err(|e| bad(e.to_string()))?),
            Body::Reader(reader, len_bytes) => {
                builder = builder.header("content-length", len_bytes.to_string());
                let mut reader = reader.take(len_bytes);
                agent.run(builder.body(SendBody::from_reader(&mut reader)).map_err(|e| bad(e.to_string()))?)
            }
        };
        let response = sent.map_err(|e| describe(&e, request.url))?;
        Ok(Answer { status: response.status().as_u16(), response })
    }
}

/// Says what is wrong, without the words of the libraries where there are better ones.
fn describe(error: &ureq::Error, url: &str) -> HttpError {
    let host = host_of(url);
    let (why, again, is_tls) = match error {
        ureq::Error::HostNotFound => (format!("there is no machine `{host}` (its name cannot be resolved)"), Again::Soon, false),
        ureq::Error::ConnectionFailed => (format!("`{host}` does not answer"), Again::Soon, false),
        ureq::Error::Timeout(_) => (format!("`{host}` took too long to answer"), Again::Soon, false),
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            (format!("`{host}` refuses the connection: nothing listens there"), Again::Soon, false)
        }
        ureq::Error::Io(e) => match e.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(inner) => return describe(inner, url),
            // rustls wraps its own errors as InvalidData.
            None if e.kind() == io::ErrorKind::InvalidData => (format!("no safe connection to `{host}`: {e}"), Again::No, true),
            None => (format!("the connection to `{host}` failed: {e}"), Again::Soon, false),
        },
        ureq::Error::Tls(why) => (format!("no safe connection to `{host}`: {why}"), Again::No, true),
        ureq::Error::Rustls(why) => (format!("no safe connection to `{host}`: {why}"), Again::No, true),
        ureq::Error::Protocol(why) => (format!("`{host}` does not speak HTTP: {why}"), Again::Soon, false),
        ureq::Error::TooManyRedirects => (format!("`{host}` redirects without end"), Again::No, false),
        ureq::Error::BadUri(why) => (format!("`{url}` is not a URL: {why}"), Again::No, false),
        ureq::Error::InvalidProxyUrl => ("the proxy of the environment is not a URL".to_owned(), Again::No, false),
        other => (format!("`{host}`: {other}"), Again::Soon, false),
    };
    HttpError { why, again, is_tls }
}

/// Returns `host[:port]` of a URL, without a user.
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Whether `host[:port]` is this machine.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (url, host, is_ours) in [
            ("https://example.org/a?b", "example.org", false),
            ("http://me:pw@localhost:5000/v2/", "localhost:5000", true),
            ("http://[::1]:80/", "[::1]:80", true),
            ("127.9.0.1:1", "127.9.0.1:1", true),
            ("http://localhost.example.org", "localhost.example.org", false),
        ] {
            assert_eq!((host_of(url), is_loopback(host_of(url))), (host, is_ours), "{url}");
        }
    }

    #[test]
    fn trouble_is_a_sentence() {
        let http = Http::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let refused = http.send(Request::get(&format!("http://127.0.0.1:{port}/"))).err().unwrap();
        assert!(refused.why.contains("nothing listens there") && refused.again == Again::Soon, "{refused}");
        let bad = http.send(Request::get("http://a b/")).err().unwrap();
        assert!(bad.again == Again::No, "{bad}");
    }
}
