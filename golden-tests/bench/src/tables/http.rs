//! An HTTP server in C over a tap device: throughput, instructions per request, and what long and wide loads do to it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::guest::{Guest, Running};
use crate::lab::Lab;
use crate::network;
use crate::run::{self, Result, median};
use crate::table::{Table, grouped, ratio};

use super::LIMIT;

/// More than a server that works needs for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// See the module.
pub fn measure(lab: &Lab) -> Result<()> {
    let guests = [lab.ukc("http"), lab.linux("http")?];
    throughput(lab, &guests)?;
    instructions(lab, &guests)?;
    soak(lab, &guests)
}

fn throughput(lab: &Lab, guests: &[Guest]) -> Result<()> {
    let (rounds, time) = lab.pick((2, 3), (3, 8));
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); guests.len()];
    for _ in 0..rounds {
        for (guest, rates) in guests.iter().zip(&mut rates) {
            let _running = ready(guest)?;
            load(16, Duration::from_secs(1))?;
            rates.push(load(16, Duration::from_secs(time))?.per_second);
        }
    }
    let medians: Vec<f64> = rates.into_iter().map(|r| median(r).unwrap_or_default()).collect();
    let title = format!("C HTTP server over tap, 16 keep-alive connections (medians of {rounds} boots, {time} s each)");
    let mut table = Table::new(title, &["guest", "requests/s", "of Linux"]);
    for (guest, &rate) in guests.iter().zip(&medians) {
        table.row([guest.name.to_owned(), grouped(rate as u64), ratio(rate, medians.last().copied().unwrap_or_default())]);
    }
    print!("{table}");
    Ok(())
}

fn instructions(lab: &Lab, guests: &[Guest]) -> Result<()> {
    let mut table = Table::new("The same, guest instructions per request", &["guest", "instructions", "of Linux"]);
    let mut counts = Vec::new();
    for guest in guests {
        let counter = lab.counter();
        let _running = guest.start_counted(&counter).and_then(until_ready)?;
        load(16, Duration::from_secs(1))?;
        let before = counter.read()?;
        let load = load(16, Duration::from_secs(lab.pick(2, 5)))?;
        counts.push((counter.read()? - before) / load.requests.max(1));
    }
    for (guest, &count) in guests.iter().zip(&counts) {
        table.row([guest.name.to_owned(), grouped(count), ratio(count as f64, counts.last().copied().unwrap_or_default() as f64)]);
    }
    print!("{table}");
    Ok(())
}

fn soak(lab: &Lab, guests: &[Guest]) -> Result<()> {
    let time = lab.soak();
    let mut table = Table::new(
        format!("Soak of {} s", time.as_secs()),
        &["guest", "connections", "requests/s", "of Linux", "errors", "slowest answer", "memory taken, KiB"],
    );
    for connections in [16, 256] {
        let mut rows = Vec::new();
        for guest in guests {
            let _running = ready(guest)?;
            // Buffers and caches reach their size first.
            load(connections, Duration::from_secs(2))?;
            let before = free_memory()?;
            let load = load(connections, time)?;
            // Closed connections leave within a moment.
            std::thread::sleep(Duration::from_millis(500));
            rows.push((guest.name, load, (before - free_memory()?) / 1024));
        }
        let peer = rows.last().map_or(0.0, |(_, load, _)| load.per_second);
        for (name, load, taken) in rows {
            let rate = load.per_second;
            let cells = [name.to_owned(), connections.to_string(), grouped(rate as u64), ratio(rate, peer)];
            let [name, connections, rate, of_linux] = cells;
            table.row([name, connections, rate, of_linux, load.errors.to_string(), load.slowest, taken.to_string()]);
        }
    }
    print!("{table}");
    Ok(())
}

fn ready(guest: &Guest) -> Result<Running> {
    guest.start().and_then(until_ready)
}

/// Waits until the server answers: it listens before the guest's address can be reached.
pub fn until_ready(mut running: Running) -> Result<Running> {
    running.wait_for("ready", LIMIT)?;
    let mut tries = 0;
    while let Err(error) = free_memory() {
        tries += 1;
        if tries == 5 {
            return Err(format!("the server in {} does not answer: {error}", running.name()).into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(running)
}

/// What wrk saw.
#[derive(Debug, PartialEq)]
pub struct Load {
    /// Answers.
    pub requests: u64,
    /// Answers per second.
    pub per_second: f64,
    /// Connections that failed or broke, and answers that took longer than two seconds.
    pub errors: u64,
    /// The longest time an answer took, as wrk writes it.
    pub slowest: String,
}

/// Loads the guest's server with requests on so many keep-alive connections.
pub fn load(connections: u32, time: Duration) -> Result<Load> {
    let args = ["-t1".to_owned(), format!("-c{connections}"), format!("-d{}s", time.as_secs()), format!("http://{}/", network::GUEST)];
    parse(&run::tool("wrk", args)?)
}

fn parse(text: &str) -> Result<Load> {
    let mut load = Load { requests: 0, per_second: 0.0, errors: 0, slowest: String::new() };
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["Latency", _, _, max, ..] => load.slowest = max.to_owned(),
            [requests, "requests", "in", ..] => load.requests = requests.parse()?,
            ["Requests/sec:", rate] => load.per_second = rate.parse()?,
            // Socket errors: connect 0, read 0, write 0, timeout 0
            ["Socket", "errors:", ..] => {
                load.errors = words.iter().filter_map(|w| w.trim_end_matches(',').parse::<u64>().ok()).sum();
            }
            _ => {}
        }
    }
    match load.requests {
        0 => Err("the server answered no request".into()),
        _ => Ok(load),
    }
}

/// The bytes of free memory in the guest, by its own account.
fn free_memory() -> Result<i64> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(network::GUEST.parse()?, 80), ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(b"GET /meminfo HTTP/1.1\r\nHost: guest\r\n\r\n")?;
    let mut text = String::new();
    // The answer ends in a line feed, its headers in an empty line.
    while !(text.contains("\r\n\r\n") && text.ends_with('\n') && !text.ends_with("\r\n")) {
        let mut buffer = [0; 512];
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Err("the server closed the connection".into());
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..len]));
    }
    let body = text.rsplit("\r\n\r\n").next().unwrap_or_default();
    body.trim().parse().map_err(|_| format!("not a number of bytes: {body:?}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood() {
        let text = "Running 5s test @ http://10.111.0.2/\n  1 threads and 16 connections\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
                    Latency   612.51us   85.02us   2.30ms   81.84%\n    Req/Sec    26.25k     1.05k   27.54k    76.00%\n  130623 requests in 5.00s, \
                    11.46MB read\n  Socket errors: connect 0, read 2, write 0, timeout 3\nRequests/sec:  26123.72\nTransfer/sec:      2.29MB\n";
        let load = parse(text).expect("understood");
        assert_eq!(load, Load { requests: 130_623, per_second: 26123.72, errors: 5, slowest: "2.30ms".to_owned() });
        assert!(parse("  0 requests in 5.00s, 0B read\n").is_err());
    }
}
