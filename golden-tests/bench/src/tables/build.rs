//! How long `ukc build` takes for a root of 100 MB, beside mke2fs that only writes the file system.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::lab::{self, Lab};
use crate::run::{self, Result, median, ms};
use crate::table::{Table, ratio};

const ROOT_BYTES: u64 = 100_000_000;

/// See the module.
pub fn measure(lab: &Lab) -> Result<()> {
    let runs = lab.pick(2, 5);
    let context = lab.path().join("build-context");
    let root = context.join("root");
    std::fs::create_dir_all(root.join("bin"))?;
    lab::compile("hello", &[], &root.join("bin/hello"))?;
    for object in run::tool("ldd", [root.join("bin/hello")])?.split_whitespace().filter(|w| w.starts_with('/')) {
        let to = root.join(object.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().ok_or("a library is a file in a directory")?)?;
        std::fs::copy(object, to)?;
    }
    let mut left = ROOT_BYTES;
    fill(Path::new("/usr/lib"), &root.join("filler"), &mut left)?;
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY root /\nENTRYPOINT [\"/bin/hello\"]\n")?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let start = Instant::now();
        lab.build(&context, "build")?;
        ours.push(start.elapsed());
        let disk = lab.path().join("mke2fs.img");
        let start = Instant::now();
        run::tool("mke2fs", ["-q", "-t", "ext4", "-b", "4096", "-d", &root.to_string_lossy(), &disk.to_string_lossy(), "1G"])?;
        peer.push(start.elapsed());
        std::fs::remove_file(disk)?;
    }
    let median_ms = |samples: Vec<Duration>| ms(median(samples).unwrap_or_default());
    let (ours, peer) = (median_ms(ours), median_ms(peer));
    let title = format!("A root of {} MB from a directory (medians of {runs})", (ROOT_BYTES - left) / 1_000_000);
    let mut table = Table::new(title, &["what", "ms", "of mke2fs"]);
    table.row(["ukc build: read, analyse, select, link, image".to_owned(), format!("{ours:.0}"), ratio(ours, peer)]);
    table.row(["mke2fs -d: only the file system".to_owned(), format!("{peer:.0}"), ratio(1.0, 1.0)]);
    print!("{table}");
    std::fs::remove_dir_all(context)?;
    Ok(())
}

/// Copies regular files below `from`, in the order of their names, until `left` bytes are used.
fn fill(from: &Path, to: &Path, left: &mut u64) -> Result<()> {
    let mut entries = std::fs::read_dir(from)?.collect::<std::result::Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    std::fs::create_dir_all(to)?;
    for entry in entries {
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            fill(&entry.path(), &to.join(entry.file_name()), left)?;
        } else if metadata.is_file() && metadata.len() <= *left {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            *left -= metadata.len();
        }
    }
    Ok(())
}
