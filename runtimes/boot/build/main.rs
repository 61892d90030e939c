//! Builds the boot loaders: compiles them for the bare machine, links them with our own linker, and writes the three files that disks carry.
//!
//! | file | what it is |
//! |---|---|
//! | `stage1.bin` | the section `.stage1` of the BIOS loader, as it is |
//! | `stage2.bin` | the rest of the BIOS loader, linked at 0x8000, as it lies in memory, in whole sectors |
//! | `bootx64.efi` | the UEFI loader as a PE file ([`pe`]) |

mod pe;

use std::path::{Path, PathBuf};
use std::{env, fs};

use object::read::archive::ArchiveFile;
use object::{Object as _, ObjectSection as _};
use ukc_link::{Base, LinkInput, link};

/// Code for any address, because UEFI puts it anywhere; otherwise as the kernel's.
const RUSTFLAGS: &[&str] = &[
    "-Crelocation-model=pic",
    "-Ccode-model=small",
    "-Cno-redzone=y",
    "-Cforce-unwind-tables=no",
    "-Ctarget-cpu=x86-64",
    "-Cembed-bitcode=no",
    "--cfg=ukc_loader",
];

const STAGE1_BYTES: usize = 440;
const STAGE2_ADDR: u64 = 0x8000;
/// What one request of the BIOS reads.
const STAGE2_MAX_BYTES: usize = 127 * 512;

fn main() {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let workspace = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("../..");
    for input in ["runtimes/boot", "runtimes/bare-build", "image-format/gpt", "image-format/load-table", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    let packages = ["ukc-boot-bios".to_owned(), "ukc-boot-uefi".to_owned()];
    let request = ukc_bare_build::Request {
        workspace: &workspace,
        target_name: "loader",
        out_dir: &out_dir,
        packages: &packages,
        rustflags: RUSTFLAGS,
    };
    let libraries = ukc_bare_build::build(&request);
    let archive = |name: &str| {
        let found = libraries.iter().find(|l| l.file.file_name().is_some_and(|n| n == name)).unwrap_or_else(|| panic!("no {name}"));
        fs::read(&found.file).unwrap_or_else(|e| panic!("{}: {e}", found.file.display()))
    };
    let bios = archive("libukc_boot_bios.a");
    let write = |name: &str, bytes: &[u8]| fs::write(out_dir.join(name), bytes).expect("writing to OUT_DIR");
    write("stage1.bin", &stage1(&bios));
    write("stage2.bin", &stage2(&bios));
    let uefi = archive("libukc_boot_uefi.a");
    write("bootx64.efi", &pe::write(|base| linked(&uefi, "uefi_start", base)));
}

/// Links a loader; its entry is its first byte, which `.boot.text` puts there.
fn linked(archive: &[u8], root: &str, addr: u64) -> Vec<u8> {
    let base = Base { physical_start: addr, virtual_offset: 0 };
    let input = LinkInput { archive, roots: vec![root.to_owned()], base, ..LinkInput::default() };
    link(&input).unwrap_or_else(|e| panic!("linking a boot loader: {e}")).elf
}

fn stage1(archive: &[u8]) -> Vec<u8> {
    let file = ArchiveFile::parse(archive).expect("rustc writes archives");
    for member in file.members() {
        let data = member.and_then(|m| m.data(archive)).expect("rustc writes archives");
        let Ok(object) = object::File::parse(data) else { continue };
        if let Some(section) = object.section_by_name(".stage1") {
            assert_eq!(section.relocations().count(), 0, "stage 1 is not linked, so nothing in it may need it");
            let bytes = section.data().expect("a section has bytes").to_vec();
            assert_eq!(bytes.len(), STAGE1_BYTES, "stage 1 ends with its request");
            return bytes;
        }
    }
    panic!("stage 1 is missing");
}

fn stage2(archive: &[u8]) -> Vec<u8> {
    let elf = linked(archive, "bios_start", STAGE2_ADDR);
    let mut image = Vec::new();
    for segment in pe::segments(&elf) {
        // Zeroed data is in the file too: nobody else would clear it.
        image.resize((segment.addr - STAGE2_ADDR) as usize, 0);
        image.extend_from_slice(&segment.bytes);
        image.resize((segment.addr - STAGE2_ADDR + segment.memory_bytes) as usize, 0);
    }
    image.resize(image.len().next_multiple_of(512), 0);
    assert!(image.len() <= STAGE2_MAX_BYTES, "stage 2 has {} bytes, and one request reads {STAGE2_MAX_BYTES}", image.len());
    image
}
