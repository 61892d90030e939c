//! `ukc run`: finds or builds an image, boots it, and ends as its program does.

use std::path::{Path, PathBuf};

use ukc_config::Config;
use ukc_diagnostics::SourceMap;
use ukc_driver::image_json::Image;
use ukc_driver::{compile, stop_signal_number};
use ukc_machines::Description;
use ukc_runtime_qemu::Accelerator;
use ukc_store::{ImageStore, StoreError, read_document};

use crate::args::RunArgs;
use crate::build::{Prepared, failed, warn_of_ignored, write_to_store};
use crate::interrupt::Interrupt;
use crate::progress::Display;
use crate::report::{self, Failure, INTERRUPTED, RUN_FAILED, USAGE};
use crate::{launch, places, supervise};

/// Runs the command. Failures of ours have a status that programs rarely use.
pub fn command(args: RunArgs, config: &Config) -> Result<u8, Failure> {
    start(args, config).map_err(|failure| match failure.status {
        USAGE | INTERRUPTED => failure,
        _ => Failure { status: RUN_FAILED, ..failure },
    })
}

fn start(mut args: RunArgs, config: &Config) -> Result<u8, Failure> {
    // Not without a meaning here, as it is for a build.
    let is_removed_at_end = args.source.ignored.take_rm();
    warn_of_ignored(&args.source, None);
    let (image, dir) = image(&args, config)?;
    let accelerator = Accelerator::detect();
    if let (Accelerator::Tcg { reason }, false) = (&accelerator, args.quiet) {
        report::note(&format!("running without hardware virtualisation, many times slower: {reason}"));
    }
    let machine = launch::machine(&image, &dir, &args, accelerator)?;
    if args.dry_run {
        // The control channel's descriptor is only known when QEMU starts.
        let words = std::iter::once(machine.qemu.clone().into_os_string()).chain(machine.arguments(3));
        let line: Vec<String> = words.map(|w| quoted(&w.to_string_lossy())).collect();
        return report::output(&(line.join(" ") + "\n")).map(|()| 0);
    }
    let description = Description {
        id: String::new(),
        name: args.name.clone().unwrap_or_default(),
        image: args.image.clone(),
        argv: launch::argv(&image, &args),
        created: 0,
        is_detached: args.detach,
        is_removed_at_end,
        stop_signal: stop_signal_number(&image.program.stop_signal),
        machine,
    };
    if args.detach { supervise::background(description) } else { supervise::foreground(description, args.interactive) }
}

/// Returns the image to boot and its directory: an image directory, a directory to build, or a name.
fn image(args: &RunArgs, config: &Config) -> Result<(Image, PathBuf), Failure> {
    let path = Path::new(&args.image);
    if path.join("image.json").is_file() && args.source.file.is_none() {
        return Ok((read_document(path)?, path.to_owned()));
    }
    let is_written_as_path = args.image == "-" || args.image.starts_with(['.', '/']) || args.source.file.is_some();
    if !is_written_as_path {
        match ImageStore::open(places::data()?)?.find(&args.image) {
            Ok(stored) => return Ok((stored.image, stored.dir)),
            Err(StoreError::Unknown { .. }) if path.is_dir() => {}
            Err(e) => return Err(e.into()),
        }
    }
    build(args, path, config)
}

fn build(args: &RunArgs, path: &Path, config: &Config) -> Result<(Image, PathBuf), Failure> {
    let interrupt = Interrupt::listen()?;
    let mut display = Display::new(args.source.progress, args.quiet, &interrupt);
    let mut prepared = Prepared::new(path, &args.source, config, interrupt.cancel(), display.transfers())?;
    if args.trace {
        prepared.request.extra_modules.push(TRACE_MODULE.to_owned());
    }
    if !args.volumes.is_empty() {
        prepared.request.extra_modules.push(crate::volumes::MODULE.to_owned());
    }
    let mut sources = SourceMap::default();
    let compiled = compile(&prepared.request, &mut sources, &mut display);
    let compiled = compiled.map_err(|found| failed(&mut display, &interrupt, &sources, &found))?;
    let image = compiled.image.as_ref().ok_or_else(|| Failure::new("the build made no image"))?;
    let written = write_to_store(image, &[], &interrupt);
    display.finish();
    interrupt.check()?;
    report::diagnostics(&sources, &compiled.warnings);
    let written = written?;
    Ok((written.image, written.dir))
}

/// The kernel module that prints system calls.
const TRACE_MODULE: &str = "trace";

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=,%+@".contains(&b));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_survive_a_shell() {
        for (word, expected) in [("-m", "-m"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")] {
            assert_eq!(super::quoted(word), expected);
        }
    }
}
