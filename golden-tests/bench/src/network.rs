//! The network that hosts and guests of these measurements share: one tap device in a network namespace of our own, so that nothing else on the
//! machine can be reached or disturbed. (QEMU's user-mode network stalls under load with every guest; it cannot be measured with.)

use crate::run::{self, Result};

/// Name of the tap device.
pub const TAP: &str = "tap0";
/// Our address, with the length of the prefix.
const HOST: &str = "10.111.0.1/24";
/// The guest's address.
pub const GUEST: &str = "10.111.0.2";

/// Makes the tap device; the process is in its own namespace already.
pub fn set_up() -> Result<()> {
    run::tool("ip", ["link", "set", "lo", "up"])?;
    run::tool("ip", ["tuntap", "add", TAP, "mode", "tap"])?;
    run::tool("ip", ["addr", "add", HOST, "dev", TAP])?;
    run::tool("ip", ["link", "set", TAP, "up"])?;
    Ok(())
}
