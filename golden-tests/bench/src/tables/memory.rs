//! The smallest memory in which the programs run, found by halving.

use std::time::Duration;

use crate::guest::Guest;
use crate::lab::Lab;
use crate::run::Result;
use crate::table::{Table, grouped, ratio};

use super::http;

/// See the module.
pub fn measure(lab: &Lab) -> Result<()> {
    let mut table = Table::new(
        "Smallest memory in which the program runs, KiB (root in memory; the image is kernel and root)",
        &["program", "guest", "memory", "image", "beyond the image", "of Linux"],
    );
    for name in ["hello", "http"] {
        let linux = lab.linux(name)?;
        let linux_image =
            std::fs::metadata(&linux.kernel)?.len() + linux.initrd.as_ref().map_or(Ok(0), |i| std::fs::metadata(i).map(|m| m.len()))?;
        let image = lab.image(name);
        let ours_image = image.kernel_len_bytes(lab.path())? + image.root_len_bytes()?;
        let ours = smallest(lab, &lab.ukc(name), name, lab.pick(256, 64))?;
        let peer = smallest(lab, &linux, name, lab.pick(16 << 10, 2 << 10))?;
        let beyond = |memory: u64, image: u64| memory.saturating_sub(image.div_ceil(1024));
        let linux_beyond = beyond(peer, linux_image);
        for (guest, memory, image) in [("ukc", ours, ours_image), ("Linux", peer, linux_image)] {
            let over = beyond(memory, image);
            table.row([
                name.to_owned(),
                guest.to_owned(),
                grouped(memory),
                grouped(image / 1024),
                grouped(over),
                ratio(over as f64, linux_beyond as f64),
            ]);
        }
    }
    print!("{table}");
    Ok(())
}

/// The smallest multiple of `step` (KiB) in which the guest does its work.
fn smallest(lab: &Lab, guest: &Guest, name: &str, step: u64) -> Result<u64> {
    let (mut low, mut high) = (0, (256 << 10) / step);
    if !runs(lab, guest, name, high * step) {
        return Err(format!("{name} does not run in {} KiB on {}", high * step, guest.name).into());
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        if runs(lab, guest, name, middle * step) { high = middle } else { low = middle }
    }
    Ok(high * step)
}

/// Whether the program does its work in so much memory.
fn runs(lab: &Lab, guest: &Guest, name: &str, memory_kib: u64) -> bool {
    let guest = Guest { memory_kib, ..guest.clone() };
    let limit = Duration::from_secs(if guest.name == "Linux" { 10 } else { 4 });
    let work = || -> Result<bool> {
        let mut running = guest.start()?;
        if name == "hello" {
            running.wait_for("hello", limit)?;
            return Ok(true);
        }
        running.wait_for("ready", limit)?;
        let _running = http::until_ready(running)?;
        let load = http::load(16, Duration::from_secs(lab.pick(1, 2)))?;
        Ok(load.requests > 100 && load.errors == 0)
    };
    work().unwrap_or(false)
}
