//! A token server (distribution, "Token Authentication Specification" and "Token Authentication Implementation").
//!
//! A token is a JSON Web Token: `base64url(header).base64url(claims).base64url(signature)`, signed here with RSA by the `openssl` program. The registry
//! trusts the certificate that stands in the header (`x5c`).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

pub struct TokenServer {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

struct Signer {
    key: PathBuf,
    certificate: String,
    login: String,
}

impl TokenServer {
    pub fn start(certificate: &Path, key: &Path, user: &str, password: &str) -> TokenServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let pem = fs::read_to_string(certificate).expect("the certificate");
        let certificate = pem.lines().filter(|l| !l.starts_with("-----")).collect();
        let signer =
            Signer { key: key.to_owned(), certificate, login: format!("Basic {}", base64(format!("{user}:{password}").as_bytes())) };
        let seen = Arc::new(Mutex::new(vec![]));
        let log = seen.clone();
        // The thread ends with the process of the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(stream, &signer, &log);
            }
        });
        TokenServer { port, seen }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }
}

fn serve(mut stream: TcpStream, signer: &Signer, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
    let login = headers.iter().find_map(|h| h.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case("authorization"))).map(|(_, v)| v);
    let url = request.split(' ').nth(1).unwrap_or_default();
    seen.lock().expect("no panic").push(url.to_owned());
    let is_known = login == Some(&signer.login);
    let (status, body) = if login.is_some() && !is_known {
        ("401 Unauthorized", r#"{"details":"incorrect username or password"}"#.to_owned())
    } else {
        let query = url.split_once('?').map_or("", |(_, q)| q);
        let scopes: Vec<String> = query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("scope="))
            .map(|s| s.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/"))
            .collect();
        ("200 OK", format!(r#"{{"token":"{}","expires_in":300}}"#, signer.token(&scopes, is_known)))
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

impl Signer {
    /// Everybody may read; only who is known may write.
    fn token(&self, scopes: &[String], is_known: bool) -> String {
        let access: Vec<String> = scopes
            .iter()
            .filter_map(|scope| {
                let mut parts = scope.splitn(3, ':');
                let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
                let allowed: Vec<String> = actions.split(',').filter(|a| *a == "pull" || is_known).map(|a| format!("\"{a}\"")).collect();
                Some(format!(r#"{{"type":"{kind}","name":"{name}","actions":[{}]}}"#, allowed.join(",")))
            })
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let header = format!(r#"{{"typ":"JWT","alg":"RS256","x5c":["{}"]}}"#, self.certificate);
        let claims = format!(
            r#"{{"iss":"test-issuer","sub":"","aud":"test-registry","exp":{},"nbf":{},"iat":{now},"jti":"{now}","access":[{}]}}"#,
            now + 300,
            now - 10,
            access.join(",")
        );
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let mut child = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(&self.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl starts");
        child.stdin.take().expect("piped").write_all(signed.as_bytes()).expect("openssl reads");
        let signature = child.wait_with_output().expect("openssl ends").stdout;
        format!("{signed}.{}", base64url(&signature))
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        (0..4).for_each(|n| out.push(if n <= chunk.len() { LETTERS[(word >> (18 - 6 * n) & 63) as usize] as char } else { '=' }));
    }
    out
}

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    base64(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}
