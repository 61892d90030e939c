//! `-o`: the result of a build goes where it was asked for instead of to the local store.

use ukc_driver::Assembled;
use ukc_driver::output::{Output, OutputKind};

use crate::build::{Written, write_failure};
use crate::interrupt::Interrupt;
use crate::report::Failure;

/// Refuses combinations that make no sense, before anything is built.
pub fn check(outputs: &[Output], has_names: bool) -> Result<(), Failure> {
    if has_names && !outputs.is_empty() && outputs.iter().all(|o| o.kind == OutputKind::Dir) {
        return Err(Failure::usage("`--output` writes a directory instead of the local store, so `--tag` has nothing to name"));
    }
    match outputs.iter().find(|o| o.kind != OutputKind::Dir) {
        Some(other) => Err(Failure::new(format!("`-o type={}` is not supported yet", other.kind))),
        None => Ok(()),
    }
}

/// Writes every output. Returns what the first one is.
pub fn write(image: &Assembled, outputs: &[Output], interrupt: &Interrupt) -> Result<Written, Failure> {
    let mut first = None;
    for output in outputs {
        let dir = output.path().expect("a directory has a path");
        let document = image.write(dir, &|| interrupt.is_set()).map_err(|e| write_failure(&e, dir, interrupt))?;
        first.get_or_insert(Written { image: document, dir: dir.to_owned(), id: None });
    }
    first.ok_or_else(|| Failure::new("there is no output"))
}
