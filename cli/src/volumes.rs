//! `-v`: names of volumes and files → disks of the machine. Volumes that do not exist yet are made.
//!
//! | form | meaning |
//! |---|---|
//! | `NAME:/path` | the volume of that name in ukc's own folder; made when it is missing |
//! | `FILE:/path`, with a slash or dot in front | a disk image on this machine; made when it is missing |
//! | `...:ro`, `...:nocopy` | never written to; not filled from the image when it is empty |

use std::path::{Path, PathBuf};

use ukc_driver::image_json::Image;
use ukc_image::volume;
use ukc_policy::Size;
use ukc_runtime_qemu::Disk;

use crate::args::RunArgs;
use crate::places;
use crate::report::Failure;

/// The module that writes to volumes; images with a `VOLUME` have it.
pub const MODULE: &str = "ext4rw";

/// Size of a new volume. It takes that much room on the host only once it is full.
const DEFAULT_BYTES: u64 = 1 << 30;

/// Disks a machine may have: microvm has eight places for devices, and others need three.
const MAX: usize = 5;

/// A disk and where the guest mounts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// The disk.
    pub disk: Disk,
    /// Absolute path in the guest.
    pub target: String,
    /// Options for the guest, separated by commas.
    pub options: String,
}

/// A `-v` as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spec<'a> {
    source: &'a str,
    target: &'a str,
    is_read_only: bool,
    copies: bool,
}

fn parse(text: &str) -> Result<Spec<'_>, Failure> {
    let bad = |why: &str| Failure::usage(format!("`--volume {text}`: {why}; the form is NAME:/path or ./FILE:/path, and `:ro` at the end"));
    let mut parts = text.split(':');
    let (source, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let options = parts.next().unwrap_or_default();
    if source.is_empty() || !target.starts_with('/') || target.trim_matches('/').is_empty() || parts.next().is_some() {
        return Err(bad("a source and an absolute path that is not `/` are needed"));
    }
    let mut spec = Spec { source, target, is_read_only: false, copies: true };
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" | "readonly" => spec.is_read_only = true,
            "rw" => {}
            "nocopy" => spec.copies = false,
            other => return Err(bad(&format!("there is no option `{other}`"))),
        }
    }
    Ok(spec)
}

/// Returns the file of a source: a path when it looks like one, otherwise a name as Docker allows them.
fn file(source: &str) -> Result<PathBuf, Failure> {
    if source.starts_with(['/', '.']) {
        return std::path::absolute(source).map_err(|e| Failure::new(format!("`{source}`: {e}")));
    }
    let is_name = source.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !is_name {
        return Err(Failure::usage(format!(
            "`{source}` is no name of a volume: letters, digits, `_`, `.` and `-`; a file is written `./{source}`"
        )));
    }
    Ok(places::data()?.join("volumes").join(format!("{source}.ext4")))
}

fn size(args: &RunArgs) -> Result<u64, Failure> {
    let Some(text) = &args.volume_size else { return Ok(DEFAULT_BYTES) };
    let bytes = Size::parse(text)
        .map(|size| size.0)
        .ok_or_else(|| Failure::usage(format!("`{text}` is no size; sizes look like `64m` or `1g`")))?;
    match bytes {
        volume::MIN_BYTES.. => Ok(bytes),
        _ => Err(Failure::usage(format!("a volume has at least {} MiB", volume::MIN_BYTES >> 20))),
    }
}

/// Returns the disks, making those that are missing unless this is a dry run.
pub fn disks(image: &Image, args: &RunArgs) -> Result<Vec<Mounted>, Failure> {
    if args.volumes.len() > MAX {
        return Err(Failure::usage(format!("a machine can have {MAX} volumes at most")));
    }
    let specs: Vec<Spec<'_>> = args.volumes.iter().map(|v| parse(v)).collect::<Result<_, _>>()?;
    let can_write = image.modules.iter().any(|m| m.name == MODULE);
    if !can_write && specs.iter().any(|s| !s.is_read_only) {
        return Err(Failure::new(
            "this image's kernel cannot write to volumes: build it with `VOLUME` in the Dockerfile or with `--module ext4rw`, or mount with `:ro`",
        ));
    }
    let len_bytes = size(args)?;
    let mut out = Vec::new();
    for (i, spec) in specs.into_iter().enumerate() {
        let path = file(spec.source)?;
        if !args.dry_run {
            prepare(&path, len_bytes, spec.is_read_only)?;
        }
        let options = match (spec.is_read_only, spec.copies) {
            (true, _) => "ro",
            (false, false) => "nocopy",
            (false, true) => "",
        };
        let disk = Disk { file: path, serial: format!("ukc-volume{i}"), is_read_only: spec.is_read_only };
        out.push(Mounted { disk, target: spec.target.to_owned(), options: options.to_owned() });
    }
    Ok(out)
}

fn prepare(path: &Path, len_bytes: u64, is_read_only: bool) -> Result<(), Failure> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Failure::usage(format!("`{shown}` is a directory; a volume is a disk image, so name a file"))),
        Ok(_) if volume::is_ext4(path) => Ok(()),
        Ok(_) => Err(Failure::new(format!("`{shown}` holds no ext4 file system"))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !is_read_only => {
            let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|e| e.to_string());
            let made = made.and_then(|()| volume::create(path, len_bytes, uuid(path)).map_err(|e| e.to_string()));
            // Another run may have made it at the same time.
            made.or_else(
                |e| if volume::is_ext4(path) { Ok(()) } else { Err(Failure::new(format!("cannot make the volume `{shown}`: {e}"))) },
            )
        }
        Err(e) => Err(Failure::new(format!("`{shown}`: {e}"))),
    }
}

/// A UUID that differs from volume to volume: from the path, the time and the process (RFC 9562, version 8).
fn uuid(path: &Path) -> [u8; 16] {
    use std::hash::{BuildHasher as _, RandomState};
    let now = std::time::SystemTime::now();
    let words = [RandomState::new().hash_one((path, now)), RandomState::new().hash_one((now, std::process::id()))];
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&words[0].to_le_bytes());
    uuid[8..].copy_from_slice(&words[1].to_le_bytes());
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let spec = |source, target, is_read_only, copies| Spec { source, target, is_read_only, copies };
        assert_eq!(parse("db:/var/lib/db").unwrap(), spec("db", "/var/lib/db", false, true));
        assert_eq!(parse("./disk.img:/data:ro").unwrap(), spec("./disk.img", "/data", true, true));
        assert_eq!(parse("db:/data:rw,nocopy").unwrap(), spec("db", "/data", false, false));
        for bad in ["db", "db:data", ":/data", "db:/", "db:/data:rx", "db:/data:ro:x", ""] {
            assert_eq!(parse(bad).unwrap_err().status, 2, "{bad}");
        }
        assert!(file("a/b").is_err() && file("./a").is_ok());
    }
}
