//! `-o`: the result of a build goes where it was asked for instead of to the local store.

use tempfile::TempDir;
use ukc_driver::Assembled;
use ukc_driver::image_json::Image;
use ukc_driver::machine::{self, Form, Loaders, Source};
use ukc_driver::output::{Output, OutputKind};

use crate::build::{Written, write_failure};
use crate::interrupt::Interrupt;
use crate::report::Failure;

/// Refuses combinations that make no sense, before anything is built.
pub fn check(outputs: &[Output], has_names: bool) -> Result<(), Failure> {
    if has_names && !outputs.is_empty() && outputs.iter().all(|o| o.kind == OutputKind::Dir) {
        return Err(Failure::usage("`--output` writes a directory instead of the local store, so `--tag` has nothing to name"));
    }
    for output in outputs {
        output.is_root_in_memory().map_err(Failure::usage)?;
    }
    for output in outputs {
        if !output.kind.needs_kernel() && output.needs_kernel().map_err(Failure::usage)? {
            return Err(Failure::new(format!("`unikernel=true` of `-o type={}` is not supported yet", output.kind)));
        }
    }
    Ok(())
}

/// Writes every output. Returns what the first one is.
pub fn write(image: &Assembled, outputs: &[Output], interrupt: &Interrupt) -> Result<Written, Failure> {
    let mut first = None;
    let mut machines = Machines::default();
    for output in outputs {
        if let Some(form) = output.machine_form() {
            first.get_or_insert(machines.write(form, output, image, interrupt)?);
            continue;
        }
        let dir = output.path().expect("a directory has a path");
        let document = image.write(dir, &|| interrupt.is_set()).map_err(|e| write_failure(&e, dir, interrupt))?;
        first.get_or_insert(Written { image: document, dir: dir.to_owned(), id: None });
    }
    first.ok_or_else(|| Failure::new("there is no output"))
}

/// Forms for monitors and clouds, which are made of one image directory.
#[derive(Default)]
struct Machines {
    /// The directory, which vanishes in the end, and its document.
    base: Option<(TempDir, Image)>,
}

impl Machines {
    fn write(&mut self, form: Form, output: &Output, image: &Assembled, interrupt: &Interrupt) -> Result<Written, Failure> {
        let dest = output.path().expect("these outputs have a path");
        let base = match self.base.take() {
            Some(base) => base,
            None => {
                let parent = std::path::absolute(dest).ok().and_then(|p| p.parent().map(ToOwned::to_owned)).unwrap_or_else(|| ".".into());
                let dir = std::fs::create_dir_all(&parent)
                    .and_then(|()| tempfile::Builder::new().prefix(".ukc-image-").tempdir_in(&parent))
                    .map_err(|e| write_failure(&e, dest, interrupt))?;
                let document =
                    image.write(&dir.path().join("image"), &|| interrupt.is_set()).map_err(|e| write_failure(&e, dest, interrupt))?;
                (dir, document)
            }
        };
        let (dir, document) = self.base.insert(base);
        let source = Source {
            dir: &dir.path().join("image"),
            image: document,
            loaders: LOADERS,
            is_root_in_memory: output.is_root_in_memory().map_err(Failure::usage)?,
        };
        machine::write(form, &source, dest).map_err(|e| write_failure(&e, dest, interrupt))?;
        Ok(Written { image: document.clone(), dir: dest.to_owned(), id: None })
    }
}

/// The boot loaders of disks.
pub const LOADERS: Loaders<'static> =
    Loaders { stage1: ukc_runtime_boot::stage1, stage2: ukc_runtime_boot::STAGE2, efi: ukc_runtime_boot::BOOTX64_EFI };
