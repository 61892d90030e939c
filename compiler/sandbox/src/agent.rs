//! An agent's socket for a process with other ids: a socket of our own that hands everything on.
//!
//! The agent's own socket belongs to whoever runs the build, and a process in another user namespace, or with another uid, may not connect to it.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    socket: PathBuf,
    is_over: Arc<AtomicBool>,
}

impl Relay {
    /// Starts to listen at `socket` for connections to `agent`.
    pub fn start(socket: &Path, agent: &Path) -> io::Result<Relay> {
        let listener = UnixListener::bind(socket)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (agent, seen) = (agent.to_owned(), is_over.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                // A connection that cannot be handed on is closed, as one to a dead agent is.
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&agent)) else { continue };
                let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { continue };
                std::thread::spawn(move || pass(from, to));
                std::thread::spawn(move || pass(server, client));
            }
        });
        Ok(Relay { socket: socket.to_owned(), is_over })
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the listener, which then ends.
        let _ = UnixStream::connect(&self.socket);
    }
}
