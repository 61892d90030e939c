//! `ukc verify`: builds an image again and compares it with one that is there, down to the first byte that differs.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use ukc_config::Config;
use ukc_diagnostics::SourceMap;
use ukc_driver::compile;
use ukc_driver::image_json::Image;

use crate::args::VerifyArgs;
use crate::build::{Prepared, failed, write_failure};
use crate::image_commands::find_image;
use crate::interrupt::Interrupt;
use crate::progress::Display;
use crate::report::{self, Failure, MISMATCH};

/// Unit of the root file system.
const BLOCK: u64 = 4096;

/// Runs the command.
pub fn command(args: &VerifyArgs, config: &Config) -> Result<u8, Failure> {
    let (image, dir) = find_image(&args.image)?;
    let interrupt = Interrupt::listen()?;
    let mut display = Display::new(args.source.progress, false, &interrupt);
    let prepared = Prepared::new(&args.path, &args.source, config, interrupt.cancel(), display.transfers())?;
    let mut sources = SourceMap::default();
    let compiled = compile(&prepared.request, &mut sources, &mut display);
    let compiled = compiled.map_err(|found| failed(&mut display, &interrupt, &sources, &found))?;
    let built = compiled.image.as_ref().ok_or_else(|| Failure::new("the build made no image"))?;
    let work = tempfile::tempdir().map_err(|e| Failure::new(format!("cannot make a temporary directory: {e}")))?;
    let again = work.path().join("image");
    let document = built.write(&again, &|| interrupt.is_set()).map_err(|e| write_failure(&e, &again, &interrupt));
    display.finish();
    let document = document?;
    match first_difference(&image, &dir, &document, &again)? {
        Some(difference) => {
            Err(Failure { status: MISMATCH, message: format!("`{}` is not what this build makes: {difference}", args.image) })
        }
        None => {
            report::output(&format!("{}: {} artefacts are the same, byte for byte\n", args.image, image.artefacts.len()))?;
            Ok(0)
        }
    }
}

/// Returns what differs first, in the order in which one thing follows from another: inputs, artefacts, what the document says besides.
fn first_difference(image: &Image, dir: &Path, again: &Image, again_dir: &Path) -> Result<Option<String>, Failure> {
    for input in &image.inputs {
        let now = again.inputs.iter().find(|i| i.kind == input.kind && i.name == input.name);
        match now {
            Some(now) if now.digest == input.digest => {}
            Some(now) => {
                return Ok(Some(format!("the input `{}` was {} and is {}", input.name, input.digest.as_str(), now.digest.as_str())));
            }
            None => return Ok(Some(format!("the input `{}` is not used any more", input.name))),
        }
    }
    if let Some(new) = again.inputs.iter().find(|i| !image.inputs.iter().any(|o| o.kind == i.kind && o.name == i.name)) {
        return Ok(Some(format!("the input `{}` is new", new.name)));
    }
    for artefact in &image.artefacts {
        let name = artefact.name.as_str();
        if !again.artefacts.iter().any(|a| a.name.as_str() == name) {
            return Ok(Some(format!("the artefact `{name}` is not made any more")));
        }
        if let Some(at) = first_byte(&dir.join(name), &again_dir.join(name))? {
            let block = if name.ends_with(".ext4") { format!(", in block {}", at / BLOCK) } else { String::new() };
            return Ok(Some(format!("`{name}` differs from byte {at} on{block}")));
        }
    }
    if image.to_json() != again.to_json() {
        let (old, new) = (image.to_json(), again.to_json());
        let line = old.lines().zip(new.lines()).position(|(a, b)| a != b).unwrap_or_else(|| old.lines().count().min(new.lines().count()));
        return Ok(Some(format!("`image.json` differs in line {}", line + 1)));
    }
    Ok(None)
}

/// Returns where two files differ first.
fn first_byte(one: &Path, other: &Path) -> Result<Option<u64>, Failure> {
    let open = |path: &Path| File::open(path).map(|f| BufReader::with_capacity(1 << 20, f)).map_err(|e| unreadable(path, &e));
    let (mut a, mut b) = (open(one)?, open(other)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut at = 0;
    loop {
        let n = fill(&mut a, &mut left).map_err(|e| unreadable(one, &e))?;
        let m = fill(&mut b, &mut right).map_err(|e| unreadable(other, &e))?;
        let equal = left[..n].iter().zip(&right[..m]).take_while(|(a, b)| a == b).count();
        if equal < n || equal < m {
            return Ok(Some(at + equal as u64));
        }
        if n == 0 {
            return Ok(None);
        }
        at += n as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl std::io::Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut piece = Vec::with_capacity(buffer.len());
    let n = file.take(buffer.len() as u64).read_to_end(&mut piece)?;
    buffer[..n].copy_from_slice(&piece);
    Ok(n)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot read `{}`: {error}", path.display()))
}
