//! How long it takes from the start of QEMU to the first output of a program.

use crate::lab::Lab;
use crate::run::{Result, ms};
use crate::table::{Table, ratio};

/// See the module.
pub fn measure(lab: &Lab) -> Result<()> {
    let runs = lab.pick(5, 15);
    let mut table = Table::new(
        format!("Start of QEMU to hello's output, less the same QEMU with an empty guest (microvm, medians of {runs})"),
        &["guest", "hello, ms", "empty, ms", "difference, ms", "of Linux"],
    );
    let mut rows = Vec::new();
    for guest in [lab.ukc("hello"), lab.linux("hello")?] {
        // Linux takes a second and more: fewer runs say as much.
        let runs = if guest.name == "Linux" { lab.pick(2, 5) } else { runs };
        let (hello, floor) = super::hello_and_floor(lab, &guest, runs)?;
        rows.push((guest.name, ms(hello), ms(floor)));
    }
    let linux = rows.last().map_or(0.0, |r| r.1 - r.2);
    for (name, hello, floor) in rows {
        let difference = hello - floor;
        table.row([name.to_owned(), format!("{hello:.1}"), format!("{floor:.1}"), format!("{difference:.1}"), ratio(difference, linux)]);
    }
    print!("{table}");
    Ok(())
}
