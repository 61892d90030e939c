//! `ukc images`, `rm`, `prune`, `inspect`. `rm` and `inspect` know machines, too.

use std::path::{Path, PathBuf};

use ukc_driver::image_json::Image;
use ukc_store::{ImageStore, read_document};

use crate::args::{Format, ImagesArgs, InspectArgs, InspectFormat, RmArgs};
use crate::machine_commands::{self, machines};
use crate::report::{self, FAILED, Failure};
use crate::{markdown, places, table, units};

/// Digits of an id that tables show.
const SHORT_ID: usize = 12;

fn store() -> Result<ImageStore, Failure> {
    Ok(ImageStore::open(places::data()?)?)
}

/// Lists images.
pub fn images(args: &ImagesArgs) -> Result<u8, Failure> {
    let all = store()?.list()?;
    let mut out = String::new();
    if args.json || args.format == Format::Json {
        let entries: Vec<_> = all
            .iter()
            .map(|s| {
                let names: Vec<String> = s.names.iter().map(ToString::to_string).collect();
                serde_json::json!({ "id": format!("sha256:{}", s.id), "names": names, "directory": s.dir, "image": s.image })
            })
            .collect();
        out = report::json(&entries)?;
    } else if args.quiet {
        all.iter().for_each(|s| out += &format!("sha256:{}\n", s.id));
    } else {
        let mut rows = vec![["NAME", "ID", "KERNEL", "ROOT", "PROGRAM"].map(str::to_owned).to_vec()];
        for stored in &all {
            let root = stored.image.artefacts.iter().find(|a| a.name.as_str() == "rootfs.ext4").map_or(0, |a| a.len_bytes);
            let names =
                if stored.names.is_empty() { vec!["<none>".to_owned()] } else { stored.names.iter().map(ToString::to_string).collect() };
            for name in names {
                let id = stored.id[..SHORT_ID].to_owned();
                rows.push(vec![name, id, units::size(stored.image.kernel.len_bytes), units::size(root), stored.image.program.path.clone()]);
            }
        }
        out = table::aligned(&rows);
    }
    report::output(&out).map(|()| 0)
}

/// Removes machines and images; goes on after one that cannot be removed.
pub fn rm(args: &RmArgs) -> Result<u8, Failure> {
    let (machines, store) = (machines()?, store()?);
    let mut has_failed = false;
    for text in &args.names {
        if let Ok(known) = machines.find(text) {
            match known.remove(args.force) {
                Ok(()) => report::output(&format!("removed {text}\n"))?,
                Err(e) => {
                    has_failed = true;
                    report::error(&e.to_string());
                }
            }
            continue;
        }
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

/// Prints an image's or a machine's document.
pub fn inspect(args: &InspectArgs) -> Result<u8, Failure> {
    let dir = Path::new(&args.image);
    let image = if dir.join("image.json").is_file() {
        read_document(dir)?
    } else if let (Ok(known), InspectFormat::Json) = (machines()?.find(&args.image), args.format) {
        return report::output(&report::json(&machine_commands::document(&known))?).map(|()| 0);
    } else {
        store()?.find(&args.image)?.image
    };
    let text = match args.format {
        InspectFormat::Json => image.to_json(),
        InspectFormat::Markdown => markdown::summary(&args.image, &image),
    };
    report::output(&text).map(|()| 0)
}

/// Returns the image of a name or directory, and where it is.
pub fn find_image(text: &str) -> Result<(Image, PathBuf), Failure> {
    let dir = Path::new(text);
    if dir.join("image.json").is_file() {
        return Ok((read_document(dir)?, dir.to_owned()));
    }
    let found = store()?.find(text)?;
    Ok((found.image, found.dir))
}
