//! A proxy between a client and a registry that makes things go wrong.
//!
//! It understands just enough HTTP/1.1: one request per connection, bodies with a length or in chunks passed on as they are. Answers of the registry are
//! passed on until its end of the connection, which is asked to close.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// This status, with these header lines.
    Status(u16, &'static str),
    /// The answer breaks off after this many bytes of its body.
    CutAnswer(usize),
    /// The connection breaks off after this many bytes of the request's body.
    CutRequest(usize),
    /// One byte of the answer's body is another one.
    Flip(usize),
    /// The connection closes without a word.
    HangUp,
    /// The answer comes later.
    Delay(Duration),
}

/// A request that came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, ...
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The value of `Range`.
    pub range: Option<String>,
    /// What was done.
    pub fault: Fault,
}

type Plan = dyn Fn(&str, &str, usize) -> Fault + Send + Sync;

/// The proxy; its threads end with the process of the tests.
pub struct Faults {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Faults {
    /// Starts it before `target` (`host:port`). `plan` gets method, path, and how many requests with both came before.
    pub fn before(target: &str, plan: impl Fn(&str, &str, usize) -> Fault + Send + Sync + 'static) -> Faults {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, target, plan): (_, _, Arc<Plan>) = (seen.clone(), target.to_owned(), Arc::new(plan));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (log, target, plan) = (log.clone(), target.clone(), plan.clone());
                std::thread::spawn(move || {
                    let _ = serve(client, &target, &*plan, &log);
                });
            }
        });
        Faults { port, seen }
    }

    /// Returns its name: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    /// Returns how many requests have this method and a path with this in it.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|s| s.method == method && s.path.contains(part)).count()
    }
}

fn serve(mut client: TcpStream, target: &str, plan: &Plan, log: &Mutex<Vec<Seen>>) -> io::Result<()> {
    let mut input = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 && line.trim_end() != "" {
        head.push_str(&std::mem::take(&mut line));
    }
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let header = |name: &str| {
        head.lines()
            .filter_map(|l| l.split_once(": "))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    let fault = {
        let mut log = log.lock().expect("no panic");
        let before = log.iter().filter(|s| s.method == method && s.path == path).count();
        let fault = plan(&method, &path, before);
        log.push(Seen { method, path, range: header("range"), fault: fault.clone() });
        fault
    };
    match fault {
        Fault::HangUp => return Ok(()),
        Fault::Status(status, lines) => {
            return write!(client, "HTTP/1.1 {status} Fault\r\n{lines}Content-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Fault::Delay(time) => std::thread::sleep(time),
        _ => {}
    }
    let mut server = TcpStream::connect(target)?;
    // The registry makes absolute URLs of the Host that it is asked by.
    for line in head.lines().filter(|l| !l.to_ascii_lowercase().starts_with("connection:")) {
        write!(server, "{line}\r\n")?;
    }
    write!(server, "Connection: close\r\n\r\n")?;
    let is_chunked = header("transfer-encoding").is_some_and(|t| t.contains("chunked"));
    let len_bytes = header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let expects = header("expect").is_some();
    if expects {
        write!(client, "HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if let Fault::CutRequest(after) = fault {
        io::copy(&mut input.take(after as u64), &mut server)?;
        return Ok(());
    }
    if is_chunked {
        chunks(&mut input, &mut server)?;
    } else {
        io::copy(&mut input.take(len_bytes), &mut server)?;
    }
    let mut answer = BufReader::new(server);
    let mut line = String::new();
    while answer.read_line(&mut line)? > 0 {
        client.write_all(line.as_bytes())?;
        if line.trim_end().is_empty() {
            break;
        }
        line.clear();
    }
    match fault {
        Fault::CutAnswer(after) => drop(io::copy(&mut answer.take(after as u64), &mut client)?),
        Fault::Flip(at) => {
            io::copy(&mut (&mut answer).take(at as u64), &mut client)?;
            let mut byte = [0];
            if answer.read(&mut byte)? == 1 {
                client.write_all(&[byte[0] ^ 1])?;
            }
            io::copy(&mut answer, &mut client)?;
        }
        _ => drop(io::copy(&mut answer, &mut client)?),
    }
    Ok(())
}

/// Passes on a body in chunks (RFC 9112, 7.1).
fn chunks(input: &mut BufReader<TcpStream>, server: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        server.write_all(line.as_bytes())?;
        let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16).map_err(io::Error::other)?;
        io::copy(&mut input.take(size + 2), server)?;
        if size == 0 {
            return Ok(());
        }
    }
}
