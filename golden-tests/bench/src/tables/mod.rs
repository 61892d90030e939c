//! One file per table.

pub mod boot;
pub mod build;
pub mod http;
pub mod instructions;
pub mod memory;
pub mod root;

use std::time::Duration;

use crate::guest::Guest;
use crate::lab::Lab;
use crate::run::{Result, median};

/// Long enough for the slowest guest here on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Median time from the start of QEMU to the output of hello, and median time of the same QEMU with an empty guest. The two alternate, so that a
/// machine that becomes busy disturbs both.
fn hello_and_floor(lab: &Lab, guest: &Guest, runs: usize) -> Result<(Duration, Duration)> {
    let empty = lab.empty(guest);
    let (mut hello, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        hello.push(guest.start()?.wait_for("hello", LIMIT)?);
        floor.push(empty.start()?.wait_end(LIMIT)?.1);
    }
    Ok((median(hello).unwrap_or_default(), median(floor).unwrap_or_default()))
}
