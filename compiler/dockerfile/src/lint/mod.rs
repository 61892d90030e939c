//! The build checks (lint rules) that need nothing but the text of the file. Names and conditions are BuildKit's
//! (<https://docs.docker.com/reference/build-checks/>), so that existing `# check=skip=` lines and habits hold.
//!
//! Not here, because they need more than the text: InvalidBaseImagePlatform (the base image), CopyIgnoredFile (the context) and UndefinedVar (the base
//! image's environment). Whoever knows these sends findings through [`Check::admit`](crate::Check::admit); [`undefined_var`] makes the last one.
//!
//! A new rule is one function that returns findings, one line in `run`, and its name in [`RULES`].

mod from;
mod line;
mod reference;
mod stage;

use crate::ast::{Parsed, Word};
use crate::lines::Line;
use ukc_diagnostics::{Diagnostic, suggest};

/// The names of all rules.
pub const RULES: [&str; 22] = [
    "StageNameCasing",
    "FromAsCasing",
    "NoEmptyContinuation",
    "ConsistentInstructionCasing",
    "DuplicateStageName",
    "ReservedStageName",
    "JSONArgsRecommended",
    "MaintainerDeprecated",
    "UndefinedArgInFrom",
    "WorkdirRelativePath",
    "UndefinedVar",
    "MultipleInstructionsDisallowed",
    "LegacyKeyValueFormat",
    "InvalidBaseImagePlatform",
    "RedundantTargetPlatform",
    "SecretsUsedInArgOrEnv",
    "InvalidDefaultArgInFrom",
    "FromPlatformFlagConstDisallowed",
    "CopyIgnoredFile",
    "InvalidDefinitionDescription",
    "ExposeProtoCasing",
    "ExposeInvalidFormat",
];

/// Runs every rule that the file does not skip.
pub(crate) fn run(parsed: &Parsed, lines: &[Line]) -> Vec<Diagnostic> {
    let mut found = vec![];
    line::check(lines, parsed.directives.escape, &mut found);
    stage::check(parsed, &mut found);
    from::check(parsed, &mut found);
    found.into_iter().filter_map(|finding| parsed.directives.check.admit(finding)).collect()
}

/// Returns the finding of UndefinedVar: `name` was used in `word` and is not set. `known` are the names that are, for a suggestion.
pub fn undefined_var<'a>(word: &Word, name: &str, known: impl IntoIterator<Item = &'a str>) -> Diagnostic {
    let text = word.as_str();
    let at = [format!("${{{name}"), format!("${name}")].iter().find_map(|form| text.find(form.as_str()).map(|at| at..at + form.len()));
    let span = at.map_or(word.span, |range| crate::expand::part_of(word, range));
    let finding = Diagnostic::warning("UndefinedVar", format!("the variable `{name}` is not set here")).at(span, "");
    match suggest::closest(name, known) {
        Some(close) => finding.help(format!("did you mean `${close}`?")),
        None => finding,
    }
}
