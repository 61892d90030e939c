//! Builds the kernel crates and packs them into the module archive.
//!
//! A nested cargo compiles the static library `libos-kernel` and every crate in `kernel-libos/modules` and `kernel-libos/drivers`, with the flags that
//! kernel code needs. The objects of all of them become one archive: a new module is a new folder and no edit here. Nothing is linked, so the ordinary
//! host toolchain suffices.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use object::{Object as _, ObjectSection as _};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Static code in the top 2 GiB, no red zone because interrupts use the stack, no unwinding, and the baseline instruction set.
const RUSTFLAGS: &[&str] = &[
    "-Crelocation-model=static",
    "-Ccode-model=kernel",
    "-Cno-redzone=y",
    "-Cforce-unwind-tables=no",
    "-Ctarget-cpu=x86-64",
    "-Cembed-bitcode=no",
    "--cfg=ukc_kernel",
];

fn main() {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let workspace = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("../..");
    for input in ["kernel-libos", "image-format", "Cargo.toml", "Cargo.lock", "runtimes/libos/build.rs"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    let packages = kernel_packages(&workspace);
    let libraries = build(&workspace, &out_dir, &packages);
    let objects = collect_objects(&libraries);
    let archive = pack(&objects);
    let compressed = zstd::encode_all(archive.as_slice(), 19).expect("compressing in memory");
    fs::write(out_dir.join("modules.a.zst"), compressed).expect("writing to OUT_DIR");
}

/// Returns the package names of the umbrella and of every module and driver, sorted.
fn kernel_packages(workspace: &Path) -> Vec<String> {
    let mut names = vec!["libos-kernel".to_owned()];
    for group in ["kernel-libos/modules", "kernel-libos/drivers"] {
        let mut manifests: Vec<PathBuf> = fs::read_dir(workspace.join(group))
            .unwrap_or_else(|e| panic!("{group}: {e}"))
            .map(|entry| entry.expect("reading a directory").path().join("Cargo.toml"))
            .filter(|manifest| manifest.exists())
            .collect();
        manifests.sort();
        for manifest in manifests {
            let text = fs::read_to_string(&manifest).unwrap_or_else(|e| panic!("{}: {e}", manifest.display()));
            let name = text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
            names.push(name.unwrap_or_else(|| panic!("{}: no line `name = \"...\"`", manifest.display())).to_owned());
        }
    }
    names
}

/// Runs the nested cargo and returns the libraries it made, the static library first.
fn build(workspace: &Path, out_dir: &Path, packages: &[String]) -> Vec<PathBuf> {
    // Beside the profiles' folders, so that debug, release, clippy and test builds share one kernel. The outer cargo holds the lock of its own folder
    // while build scripts run, so it cannot be that one.
    let target_dir = out_dir.ancestors().nth(4).expect("OUT_DIR lies four levels below the target folder").join("kernel");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo.current_dir(workspace).args([
        "build",
        "--profile",
        "kernel",
        "--target",
        TARGET,
        "--locked",
        "--message-format",
        "json-render-diagnostics",
    ]);
    cargo.arg("--target-dir").arg(&target_dir);
    for package in packages {
        cargo.args(["-p", package]);
    }
    scrub_environment(&mut cargo);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));
    if let Some(rustc) = env::var_os("RUSTC") {
        cargo.env("RUSTC", rustc);
    }
    let output = cargo.stderr(Stdio::inherit()).output().expect("running cargo");
    assert!(output.status.success(), "building the kernel crates failed; the messages are above");

    let mut static_library = None;
    let mut libraries = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        for file in message["filenames"].as_array().into_iter().flatten().filter_map(|f| f.as_str()) {
            // Build scripts and procedural macros of dependencies are built for the host, outside the target's folder.
            if !Path::new(file).starts_with(target_dir.join(TARGET)) {
                continue;
            }
            if file.ends_with(".a") {
                static_library = Some(PathBuf::from(file));
            } else if file.ends_with(".rlib") {
                libraries.push(PathBuf::from(file));
            }
        }
    }
    libraries.sort();
    let mut all = vec![static_library.expect("libos-kernel is a static library")];
    all.extend(libraries);
    all
}

/// Removes what the outer cargo exports and what would change the kernel's code, but keeps how cargo reaches its registry and its job server.
fn scrub_environment(cargo: &mut Command) {
    const KEEP: &[&str] = &["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE"];
    const KEEP_PREFIXES: &[&str] = &["RUSTUP_", "CARGO_HTTP_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_"];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let is_outer = ["CARGO", "RUST", "DEP_", "LLVM_PROFILE_FILE"].iter().any(|prefix| text.starts_with(prefix))
            || ["TARGET", "HOST", "OUT_DIR", "PROFILE", "OPT_LEVEL", "DEBUG", "NUM_JOBS"].contains(&text);
        if is_outer && !KEEP.contains(&text) && !KEEP_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
}

/// Returns the objects of all libraries, each once, stripped, with a name that is unique and does not change between builds.
fn collect_objects(libraries: &[PathBuf]) -> Vec<(String, Vec<u8>)> {
    let mut seen = HashSet::new();
    let mut objects = Vec::new();
    for library in libraries {
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
            // The static library repeats the objects of the libraries it was made from.
            if seen.insert(bytes.clone()) {
                objects.push((format!("{:04}-{name}", objects.len()), strip(&name, &bytes)));
            }
        }
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
