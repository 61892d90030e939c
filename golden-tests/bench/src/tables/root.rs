//! Whether the time to boot depends on the size of the root file system.

use std::io::Write as _;

use crate::guest::Guest;
use crate::lab::{Image, Lab};
use crate::run::{Result, ms};
use crate::table::{Table, ratio};

/// See the module.
pub fn measure(lab: &Lab) -> Result<()> {
    let runs = lab.pick(3, 9);
    let sizes = [10, lab.pick(256, 1024)];
    let mut table = Table::new(
        format!("Start of QEMU to hello's output by the size of the root, less an empty guest with the same devices (medians of {runs})"),
        &["root, MB", "medium", "hello, ms", "empty, ms", "difference, ms", "of the smaller"],
    );
    let images = [with_filler(lab, sizes[0])?, with_filler(lab, sizes[1])?];
    for medium in ["initrd", "disk"] {
        let mut smaller = 0.0;
        for (size, image) in sizes.into_iter().zip(&images) {
            let mut guest = Guest { memory_kib: (sizes[1] + 128) << 10, ..Guest::new("ukc", image.kernel.clone()) };
            match medium {
                "initrd" => guest.initrd = Some(image.root.clone()),
                _ => guest.disk = Some(image.root.clone()),
            }
            let (hello, floor) = super::hello_and_floor(lab, &guest, runs)?;
            let difference = ms(hello) - ms(floor);
            if smaller == 0.0 {
                smaller = difference;
            }
            let cells = [ms(hello), ms(floor), difference].map(|n| format!("{n:.1}"));
            let [hello, floor, text] = cells;
            table.row([size.to_string(), medium.to_owned(), hello, floor, text, ratio(difference, smaller)]);
        }
    }
    print!("{table}");
    for image in images {
        std::fs::remove_file(image.root)?;
    }
    Ok(())
}

/// An image with hello and `size_mb` megabytes of files that do not compress.
fn with_filler(lab: &Lab, size_mb: u64) -> Result<Image> {
    let name = format!("root-{size_mb}");
    let context = lab.path().join(format!("{name}-context"));
    std::fs::create_dir_all(context.join("filler"))?;
    std::fs::copy(lab.path().join("hello"), context.join("hello"))?;
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY hello /hello\nCOPY filler /filler\nENTRYPOINT [\"/hello\"]\n")?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for index in 0..size_mb {
        let mut block = Vec::with_capacity(1 << 20);
        while block.len() < 1 << 20 {
            // xorshift64 (Marsaglia 2003)
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend(state.to_le_bytes());
        }
        std::fs::File::create(context.join(format!("filler/{index}")))?.write_all(&block)?;
    }
    let image = lab.build(&context, &name)?;
    std::fs::remove_dir_all(context)?;
    Ok(image)
}
