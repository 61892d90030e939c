//! Builds the kernel crates and packs them into the module archive.
//!
//! A nested cargo compiles `libos-core` and every crate in `kernel-libos/modules` and `kernel-libos/drivers` to LLVM bitcode, with the flags that kernel
//! code needs; one rustc then optimises all of them together, with Rust's own `core` and `alloc`, into a static library. A new module is a new folder and
//! no edit here. Nothing is linked, so the ordinary host toolchain suffices.
//!
//! Why together: the same generic code is in most crates, and what a caller never uses (a panic's location, an argument that is always the same) can only
//! go when all callers are known. Kernels are a fifth smaller for it and an HTTP answer takes a tenth fewer instructions. Every function still has a
//! section of its own, from which the linker picks for each application.
//!
//! `UKC_PANIC_MESSAGES=1` in the environment makes kernels whose panics say what and where; else they are a list of addresses for `kernel.elf`'s symbols.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use object::{Object as _, ObjectSection as _};
use ukc_bare_build::{Library, Request, TARGET, scrub_environment};

/// Asks for panics that say what and where.
const PANIC_MESSAGES: &str = "UKC_PANIC_MESSAGES";

/// Of the generated crate that holds all others.
const ROOT: &str = "libos_archive";

/// Static code in the top 2 GiB, no red zone because interrupts use the stack, no unwinding, and the baseline instruction set.
const RUSTFLAGS: &[&str] = &[
    "-Crelocation-model=static",
    "-Ccode-model=kernel",
    "-Cno-redzone=y",
    "-Cforce-unwind-tables=no",
    "-Ctarget-cpu=x86-64",
    "--cfg=ukc_kernel",
];

/// What optimises the crates together. As in the profile `kernel`, size comes first; functions of crates with a level of their own keep it.
const ROOT_FLAGS: &[&str] = &["-Clto=fat", "-Copt-level=z", "-Cpanic=abort", "-Ccodegen-units=1", "-Cdebuginfo=0"];

fn main() {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let workspace = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("../..");
    for input in ["kernel-libos", "image-format", "Cargo.toml", "Cargo.lock", "runtimes/libos/build.rs"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    let packages = kernel_packages(&workspace);
    println!("cargo::rerun-if-env-changed={PANIC_MESSAGES}");
    // Bitcode only: machine code is made once, by `optimise`.
    let flags = [&kernel_flags()[..], &["-Clinker-plugin-lto", "-Cembed-bitcode=yes"]].concat();
    let request = Request { workspace: &workspace, target_name: "kernel", out_dir: &out_dir, packages: &packages, rustflags: &flags };
    let objects = collect_objects(&optimise(&request, &ukc_bare_build::build(&request)));
    let archive = pack(&objects);
    let compressed = zstd::encode_all(archive.as_slice(), 19).expect("compressing in memory");
    fs::write(out_dir.join("modules.a.zst"), compressed).expect("writing to OUT_DIR");
}

/// Returns the package names of the core and of every module and driver, sorted.
fn kernel_packages(workspace: &Path) -> Vec<String> {
    let mut names = vec!["libos-core".to_owned()];
    for group in ["kernel-libos/modules", "kernel-libos/drivers"] {
        let mut manifests: Vec<PathBuf> = fs::read_dir(workspace.join(group))
            .unwrap_or_else(|e| panic!("{group}: {e}"))
            .map(|entry| entry.expect("reading a directory").path().join("Cargo.toml"))
            .filter(|manifest| manifest.exists())
            .collect();
        manifests.sort();
        for manifest in manifests {
            names.push(ukc_bare_build::package_name(&manifest));
        }
    }
    names
}

/// Makes one static library of a crate that names all packages, and returns it.
fn optimise(request: &Request<'_>, libraries: &[Library]) -> PathBuf {
    let source = request.out_dir.join(ROOT).with_extension("rs");
    let library = request.out_dir.join(ROOT).with_extension("a");
    let mut text = "#![no_std]\n".to_owned();
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args(["--edition=2024", "--crate-type=staticlib", "--crate-name", ROOT, "--target", TARGET])
        .args(kernel_flags())
        .args(ROOT_FLAGS);
    for package in request.packages {
        let name = package.replace('-', "_");
        let is_it = |l: &&Library| l.name == name && l.file.extension().is_some_and(|e| e == "rlib");
        let found = libraries.iter().find(is_it).unwrap_or_else(|| panic!("cargo made no library of {package}"));
        text.push_str(&format!("extern crate {name} as _;\n"));
        rustc.arg("--extern").arg(format!("{name}={}", found.file.display()));
    }
    rustc.arg("-L").arg(format!("dependency={}", request.library_dir().join("deps").display()));
    fs::write(&source, text).expect("writing to OUT_DIR");
    scrub_environment(&mut rustc);
    let status = rustc.arg("-o").arg(&library).arg(&source).status().expect("running rustc");
    assert!(status.success(), "optimising the kernel crates failed; the messages are above");
    library
}

/// [`RUSTFLAGS`], and whether panics have texts.
fn kernel_flags() -> Vec<&'static str> {
    let has_messages = env::var_os(PANIC_MESSAGES).is_some_and(|v| v != "0");
    RUSTFLAGS.iter().copied().chain(has_messages.then_some("--cfg=ukc_panic_messages")).collect()
}

/// Returns the objects of a library, stripped, with names that are unique and do not change between builds.
fn collect_objects(library: &Path) -> Vec<(String, Vec<u8>)> {
    let mut objects = Vec::new();
    let file = fs::File::open(library).unwrap_or_else(|e| panic!("{}: {e}", library.display()));
    let mut archive = ar::Archive::new(file);
    while let Some(member) = archive.next_entry() {
        let mut member = member.unwrap_or_else(|e| panic!("{}: {e}", library.display()));
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        if !name.ends_with(".o") {
            continue;
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut bytes).expect("reading a member");
        objects.push((format!("{:04}-{name}", objects.len()), strip(&name, &bytes)));
    }
    objects
}

/// Blanks debug information, unwind tables and comments, which no kernel is linked from. Blank sections keep their place, so that nothing else in the
/// object moves, and compress to nothing.
fn strip(name: &str, object: &[u8]) -> Vec<u8> {
    const BLANKED: &[&str] =
        &[".debug", ".rela.debug", ".eh_frame", ".rela.eh_frame", ".gcc_except_table", ".llvmbc", ".llvmcmd", ".comment"];
    let file = object::File::parse(object).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut out = object.to_vec();
    for section in file.sections() {
        let section_name = section.name().unwrap_or_else(|e| panic!("{name}: {e}"));
        if let Some((start, len)) = section.file_range()
            && BLANKED.iter().any(|prefix| section_name.starts_with(prefix))
        {
            out[start as usize..(start + len) as usize].fill(0);
        }
    }
    out
}

/// Writes an archive without times or owners.
fn pack(objects: &[(String, Vec<u8>)]) -> Vec<u8> {
    let identifiers = objects.iter().map(|(name, _)| name.clone().into_bytes()).collect();
    let mut builder = ar::GnuBuilder::new(Vec::new(), identifiers);
    for (name, bytes) in objects {
        let header = ar::Header::new(name.clone().into_bytes(), bytes.len() as u64);
        builder.append(&header, bytes.as_slice()).expect("writing to memory");
    }
    builder.into_inner().expect("writing to memory")
}
