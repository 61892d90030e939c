//! `ukc images`, `rm`, `prune`, `inspect`.

use std::path::Path;

use ukc_store::{ImageStore, read_document};

use crate::args::{ImagesArgs, InspectArgs, RmArgs};
use crate::report::{self, FAILED, Failure};
use crate::{places, units};

/// Digits of an id that tables show.
const SHORT_ID: usize = 12;

fn store() -> Result<ImageStore, Failure> {
    Ok(ImageStore::open(places::data()?)?)
}

/// Lists images.
pub fn images(args: &ImagesArgs) -> Result<u8, Failure> {
    let all = store()?.list()?;
    let mut out = String::new();
    if args.json {
        let entries: Vec<_> = all
            .iter()
            .map(|s| {
                let names: Vec<String> = s.names.iter().map(ToString::to_string).collect();
                serde_json::json!({ "id": format!("sha256:{}", s.id), "names": names, "directory": s.dir, "image": s.image })
            })
            .collect();
        out = serde_json::to_string_pretty(&entries).map_err(|e| Failure::new(e.to_string()))? + "\n";
    } else if args.quiet {
        all.iter().for_each(|s| out += &format!("sha256:{}\n", s.id));
    } else {
        let mut rows = vec![["NAME", "ID", "KERNEL", "ROOT", "PROGRAM"].map(str::to_owned)];
        for stored in &all {
            let root = stored.image.artefacts.iter().find(|a| a.name.as_str() == "rootfs.ext4").map_or(0, |a| a.len_bytes);
            let names =
                if stored.names.is_empty() { vec!["<none>".to_owned()] } else { stored.names.iter().map(ToString::to_string).collect() };
            for name in names {
                let id = stored.id[..SHORT_ID].to_owned();
                rows.push([name, id, units::size(stored.image.kernel.len_bytes), units::size(root), stored.image.program.path.clone()]);
            }
        }
        out = table(&rows);
    }
    report::output(&out).map(|()| 0)
}

/// Aligns columns.
fn table(rows: &[[String; 5]]) -> String {
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 5]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Removes images; goes on after one that cannot be removed.
pub fn rm(args: &RmArgs) -> Result<u8, Failure> {
    let store = store()?;
    let mut has_failed = false;
    for text in &args.images {
        match store.remove(text, args.force) {
            Ok(removed) => {
                let mut out: String = removed.names.iter().map(|n| format!("untagged {n}\n")).collect();
                out += &removed.id.map(|id| format!("deleted sha256:{id}\n")).unwrap_or_default();
                report::output(&out)?;
            }
            Err(e) => {
                has_failed = true;
                report::error(&e.to_string());
            }
        }
    }
    Ok(if has_failed { FAILED } else { 0 })
}

/// Removes images without a name.
pub fn prune() -> Result<u8, Failure> {
    let ids = store()?.prune()?;
    report::output(&ids.iter().map(|id| format!("deleted sha256:{id}\n")).collect::<String>()).map(|()| 0)
}

/// Prints an image's document.
pub fn inspect(args: &InspectArgs) -> Result<u8, Failure> {
    let dir = Path::new(&args.image);
    let image = if dir.join("image.json").is_file() { read_document(dir)? } else { store()?.find(&args.image)?.image };
    report::output(&image.to_json()).map(|()| 0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let row = |cells: [&str; 5]| cells.map(str::to_owned);
        let text = super::table(&[row(["A", "B", "C", "D", "E"]), row(["long", "b", "c", "d", "/e"])]);
        assert_eq!(text, "A      B   C   D   E\nlong   b   c   d   /e\n");
    }
}
