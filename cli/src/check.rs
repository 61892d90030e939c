//! `ukc check`: which system calls a program, an image or a directory to build can make, what the libOS makes of them, and which guest is right for it.

use std::path::{Path, PathBuf};

use serde_json::json;
use ukc_config::Config;
use ukc_diagnostics::SourceMap;
use ukc_driver::{Checked, check_program};

use crate::args::{CheckArgs, CheckFormat};
use crate::report::{self, FAILED, Failure, UNSUPPORTED};
use crate::{places, table};

/// Runs the command. The status says the verdict: 0 for the libOS, 3 for what needs a Linux kernel.
pub fn command(args: &CheckArgs, _config: &Config) -> Result<u8, Failure> {
    let (root, file) = place(&args.program, &args.root)?;
    let cache = places::cache().ok().map(|dir| dir.join("analysis"));
    let checked = check_program(&root, &file, &args.args, ukc_runtime_libos::archive(), cache.as_deref()).map_err(|found| {
        report::diagnostics(&SourceMap::default(), &found);
        Failure { status: FAILED, message: format!("`{}` cannot be checked", args.program.display()) }
    })?;
    report::diagnostics(&SourceMap::default(), &checked.facts.warnings);
    let text = match args.format {
        CheckFormat::Json => report::json(&document(&checked))?,
        CheckFormat::Text => text(&checked),
    };
    report::output(&text)?;
    let is_libos = checked.verdict.guest == ukc_driver::Recommended::Libos;
    Ok(if is_libos || !args.strict { 0 } else { UNSUPPORTED })
}

/// Returns the root and the program's absolute path inside it. The program is given as this machine names it, or as the root does.
fn place(program: &Path, root: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Failure::new(format!("`{}`: {e}", path.display())));
    let root = root.canonicalize().map_err(|e| Failure::new(format!("cannot read the root directory `{}`: {e}", root.display())))?;
    let here = absolute(program)?;
    // The same file by its folder's real name: the root's was resolved, too.
    let real = here.parent().and_then(|dir| Some(dir.canonicalize().ok()?.join(here.file_name()?)));
    for candidate in [Some(here.clone()), real].into_iter().flatten() {
        if let Ok(inside) = candidate.strip_prefix(&root)
            && candidate.symlink_metadata().is_ok()
        {
            return Ok((root.clone(), Path::new("/").join(inside)));
        }
    }
    let inside = root.join(program.strip_prefix("/").unwrap_or(program));
    match inside.symlink_metadata() {
        Ok(_) => Ok((root, Path::new("/").join(program.strip_prefix("/").unwrap_or(program)))),
        Err(_) => Err(Failure::new(format!("there is no program `{}` in `{}`", program.display(), root.display()))),
    }
}

/// How much of a call the libOS does.
fn state(checked: &Checked, number: u32) -> (&'static str, Option<&str>, &str) {
    match checked.plan.handlers.iter().find(|h| h.nr == number) {
        Some(handler) => (handler.state.word(), Some(&handler.module), &handler.note),
        None => ("none", None, ""),
    }
}

fn document(checked: &Checked) -> serde_json::Value {
    let facts = &checked.facts;
    let calls = facts.syscalls.iter().map(|(&number, call)| {
        let (state, module, note) = state(checked, number);
        let sites: Vec<String> = call.sites.iter().take(SITES).map(|site| facts.place(site)).collect();
        json!({"name": call.name, "number": number, "state": state, "module": module, "note": note, "sites": sites, "count": call.sites.len()})
    });
    json!({
        "program": facts.program.executable,
        "syscalls": calls.collect::<Vec<_>>(),
        "guest": checked.verdict.guest,
        "reasons": checked.verdict.reasons,
        "unknown": facts.unknown.iter().map(|place| facts.place(place)).collect::<Vec<_>>(),
        "objects": facts.objects.iter().map(|o| o.path.as_str()).collect::<Vec<_>>(),
    })
}

/// How many places of a call are listed.
const SITES: usize = 5;

fn text(checked: &Checked) -> String {
    let facts = &checked.facts;
    let mut rows = vec![["CALL", "LIBOS", "MODULE", "MADE BY"].map(str::to_owned).to_vec()];
    for (&number, call) in &facts.syscalls {
        let (state, module, _) = state(checked, number);
        let place = call.sites.first().map(|site| facts.place(site)).unwrap_or_default();
        rows.push(vec![call.name.clone(), state.to_owned(), module.unwrap_or("").to_owned(), place]);
    }
    let guest = match checked.verdict.guest {
        ukc_driver::Recommended::Libos => "libos",
        ukc_driver::Recommended::Linux => "linux",
    };
    let reasons: String = checked.verdict.reasons.iter().map(|reason| format!("  {reason}\n")).collect();
    let unknown: String = facts.unknown.iter().map(|place| format!("unknown number: {}\n", facts.place(place))).collect();
    format!(
        "{}\n{unknown}{} calls in {} objects\nguest {guest}\n{reasons}",
        table::aligned(&rows),
        facts.syscalls.len(),
        facts.objects.len()
    )
}
