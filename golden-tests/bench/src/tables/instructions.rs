//! Guest instructions from the kernel's entry to the end of hello, and what the kernels weigh.

use crate::guest::Guest;
use crate::lab::Lab;
use crate::run::Result;
use crate::table::{Table, grouped, ratio};

use super::LIMIT;

/// See the module.
pub fn measure(lab: &Lab) -> Result<()> {
    let (ours, linux) = (lab.ukc("hello"), lab.linux("hello")?);
    let mut table = Table::new("Guest instructions of a static hello, kernel entry to exit", &["guest", "instructions", "of Linux"]);
    let counts = [count(lab, &ours)?, count(lab, &linux)?];
    for (guest, count) in [&ours, &linux].into_iter().zip(counts) {
        table.row([guest.name.to_owned(), grouped(count), ratio(count as f64, counts[1] as f64)]);
    }
    print!("{table}");

    let mut table = Table::new("Kernel file, stripped", &["for", "bytes", "of Linux's bzImage"]);
    let peer = std::fs::metadata(&linux.kernel)?.len();
    for name in ["hello", "http"] {
        let len = lab.image(name).kernel_len_bytes(lab.path())?;
        table.row([name.to_owned(), grouped(len), ratio(len as f64, peer as f64)]);
    }
    table.row(["Linux".to_owned(), grouped(peer), ratio(1.0, 1.0)]);
    print!("{table}");
    Ok(())
}

/// Instructions of a guest until QEMU ends, less those of the firmware before an empty guest.
fn count(lab: &Lab, guest: &Guest) -> Result<u64> {
    let counter = lab.counter();
    let mut total = [0; 2];
    for (guest, total) in [lab.empty(guest), guest.clone()].iter().zip(&mut total) {
        let mut running = guest.start_counted(&counter)?;
        if guest.name != "empty" {
            running.wait_for("hello", LIMIT)?;
        }
        running.wait_end(LIMIT)?;
        *total = counter.read()?;
    }
    Ok(total[1].saturating_sub(total[0]))
}
