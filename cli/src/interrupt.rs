//! Ctrl-C during a build: the build is asked to give up, cleans up behind itself, and the process ends with 130.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use ukc_driver::fetch::Cancel;

use crate::report::{Failure, INTERRUPTED};

/// How long the build has to notice; what it leaves then is swept by the next build.
const PATIENCE: Duration = Duration::from_secs(3);

/// Listens for signals as long as it lives.
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    handle: Handle,
}

impl Interrupt {
    /// Starts to listen.
    pub fn listen() -> Result<Interrupt, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|e| Failure::new(format!("cannot listen for signals: {e}")))?;
        let handle = signals.handle();
        let seen = flag.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if seen.swap(true, Ordering::Relaxed) {
                    // The second one: at once.
                    std::process::exit(128 + signal);
                }
                std::thread::spawn(move || {
                    std::thread::sleep(PATIENCE);
                    std::process::exit(128 + signal);
                });
            }
        });
        Ok(Interrupt { flag, handle })
    }

    /// Returns what long work asks whether a signal came.
    pub fn cancel(&self) -> Cancel {
        Cancel::flag(self.flag.clone())
    }

    /// Whether a signal came.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Ends the command when a signal came.
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_set() { Err(Failure { status: INTERRUPTED, message: "interrupted".to_owned() }) } else { Ok(()) }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.handle.close();
    }
}
