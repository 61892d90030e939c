//! Writes the raw disk of an image directory: `cargo run -p ukc-image --example mkdisk -- IMAGE-DIRECTORY DISK`.

use std::path::Path;
use std::process::ExitCode;

use ukc_image::machine::{Form, Loaders, Source, write};
use ukc_image_json::Image;

const LOADERS: Loaders<'static> =
    Loaders { stage1: ukc_runtime_boot::stage1, stage2: ukc_runtime_boot::STAGE2, efi: ukc_runtime_boot::BOOTX64_EFI };

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, disk] = arguments.as_slice() else {
        eprintln!("usage: mkdisk IMAGE-DIRECTORY DISK");
        return ExitCode::from(2);
    };
    let write_disk = || -> Result<u64, Box<dyn std::error::Error>> {
        let image = Image::parse(&std::fs::read(Path::new(dir).join("image.json"))?)?;
        let source = Source { dir: Path::new(dir), image: &image, loaders: LOADERS, is_root_in_memory: false };
        Ok(write(Form::Disk, &source, Path::new(disk))?)
    };
    match write_disk() {
        Ok(len) => {
            println!("{disk}: {len} bytes");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mkdisk: {error}");
            ExitCode::FAILURE
        }
    }
}
