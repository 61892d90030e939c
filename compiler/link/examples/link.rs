//! Links an archive from the shell, for work on the linker or the kernel:
//!
//! ```text
//! cargo run --release -p ukc-link --example link -- ARCHIVE OUT [INIT...]
//! ```
//!
//! Writes OUT with a symbol table and OUT.map, and prints figures and time. The application's own object is one without handlers: every system call
//! goes to the kernel's ENOSYS answer. It calls the named init functions, and its boot record has no entries.

use std::error::Error;
use std::time::Instant;

use ukc_link::{AppObject, ENOSYS_SYMBOL, LinkInput, app_object, link};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(archive), Some(out)) = (arguments.next(), arguments.next()) else { return Err("usage: link ARCHIVE OUT".into()) };
    let archive = std::fs::read(archive)?;
    let module_inits: Vec<String> = arguments.collect();
    // Magic, version 1, 16 bytes in all.
    let boot_record = b"UKCBOOT\0\x01\0\0\0\x10\0\0\0";
    let app = app_object(&AppObject { handlers: &[], stub: ENOSYS_SYMBOL, module_inits: &module_inits, boot_record })?;
    let input = LinkInput { has_symbol_table: true, ..LinkInput::kernel(&archive, app) };
    for round in 0..5 {
        let start = Instant::now();
        let linked = link(&input)?;
        println!("{:?}", start.elapsed());
        if round == 4 {
            println!("{:#?}\n{} bytes", linked.stats, linked.elf.len());
            std::fs::write(&out, &linked.elf)?;
            std::fs::write(format!("{out}.map"), &linked.map)?;
        }
    }
    Ok(())
}
