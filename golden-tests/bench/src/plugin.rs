//! The guest's instructions, counted by a plugin of QEMU's (`count.c` beside this folder).

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::run::{self, Result};

/// Compiles the plugin into `dir`.
pub fn compile(dir: &Path) -> Result<PathBuf> {
    let out = dir.join("count.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/count.c");
    run::tool("gcc", ["-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", &out.to_string_lossy(), source])?;
    Ok(out)
}

/// The plugin with the file it counts into.
pub struct Counter {
    library: PathBuf,
    total: PathBuf,
    profile: Option<PathBuf>,
}

impl Counter {
    /// A counter whose files are in `dir`; `UKC_BENCH_PROFILE=FILE` has it write a profile too.
    pub fn new(library: &Path, dir: &Path) -> Counter {
        let profile = std::env::var_os("UKC_BENCH_PROFILE").map(PathBuf::from);
        Counter { library: library.to_owned(), total: dir.join("instructions"), profile }
    }

    /// The value of `-plugin`.
    pub fn argument(&self) -> String {
        let profile = self.profile.as_ref().map_or_else(String::new, |p| format!(",profile={}", p.display()));
        format!("file={},total={}{profile}", self.library.display(), self.total.display())
    }

    /// The instructions executed since QEMU's start.
    pub fn read(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        std::fs::File::open(&self.total)?.read_exact_at(&mut bytes, 0)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
