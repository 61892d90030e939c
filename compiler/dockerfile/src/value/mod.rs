//! The little languages inside arguments: durations, modes, owners, ports, signals, sizes, mounts. Each takes text *after* expansion and returns a typed
//! value or a sentence that says what is wrong; none knows instructions. One more is one more file here.

pub mod chmod;
pub mod chown;
pub mod duration;
pub mod mount;
pub mod port;
pub mod signal;
pub mod size;
