//! Which guest an image gets: the user's wish and the verdict of the selection → what is said, and what is refused.

use ukc_diagnostics::Diagnostic;
use ukc_select::{Plan, Recommended, Verdict};

use crate::Request;

/// The name of diagnostics about programs that the libOS may not serve.
pub const UNSERVED: &str = "unserved-program";

/// The guest that the user wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GuestWish {
    /// Whichever the analysis finds right.
    #[default]
    Auto,
    /// The libOS, whatever the analysis finds.
    Libos,
    /// A Linux kernel.
    Linux,
}

/// Returns warnings, and an error where no image can or shall be made.
pub fn judge(request: &Request, verdict: &Verdict, plan: &Plan) -> Vec<Diagnostic> {
    if request.guest == GuestWish::Linux {
        let diagnostic = Diagnostic::error(UNSERVED, "this version makes images with the libOS only, not with a Linux kernel");
        return vec![diagnostic.help("leave `--guest` out; `ukc check` says whether the libOS has what the program needs")];
    }
    let is_right = verdict.guest == Recommended::Libos;
    let mut found = Vec::new();
    if !is_right && (request.is_strict || request.guest == GuestWish::Auto) {
        let message = "the program asks for what only a Linux kernel has";
        let mut diagnostic = if request.is_strict { Diagnostic::error(UNSERVED, message) } else { Diagnostic::warning(UNSERVED, message) };
        diagnostic.notes.clone_from(&verdict.reasons);
        let help = if request.is_strict {
            "without `--strict` the image is made; what is missing answers ENOSYS"
        } else {
            "what is missing answers ENOSYS; `--guest=libos` says that this is known, `--strict` fails the build"
        };
        found.push(diagnostic.help(help));
    } else if request.is_strict && !plan.missing.is_empty() {
        let names: Vec<&str> = plan.missing.iter().map(|m| m.name.as_str()).collect();
        let diagnostic =
            Diagnostic::error(UNSERVED, format!("code that can run makes calls that the libOS does not have: {}", names.join(", ")));
        found.push(diagnostic.help("without `--strict` these are assumed to be made by nobody"));
    }
    found
}

/// Returns why an image has the libOS, for its document.
pub fn reasons(verdict: &Verdict) -> Vec<String> {
    match verdict.guest {
        Recommended::Libos => verdict.reasons.clone(),
        Recommended::Linux => {
            let head = "the libOS is the only guest of this version, though a Linux kernel would be right".to_owned();
            std::iter::once(head).chain(verdict.reasons.iter().cloned()).collect()
        }
    }
}
