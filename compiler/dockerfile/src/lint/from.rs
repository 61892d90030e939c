//! Rules about variables and platforms in FROM: UndefinedArgInFrom, InvalidDefaultArgInFrom, RedundantTargetPlatform, FromPlatformFlagConstDisallowed.

use super::reference;
use crate::ast::{InstructionKind, Parsed, Stage, Word};
use crate::expand;
use std::collections::BTreeMap;
use ukc_diagnostics::{Diagnostic, suggest};

/// Defined in the global scope without an ARG (dockerfile reference, "Automatic platform ARGs in the global scope").
const AUTOMATIC: [&str; 11] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETOSVERSION",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "BUILDOSVERSION",
    "TARGETSTAGE",
];

pub(super) fn check(parsed: &Parsed, found: &mut Vec<Diagnostic>) {
    let defaults = defaults(parsed);
    for stage in &parsed.stages {
        for word in std::iter::once(&stage.base).chain(&stage.platform) {
            undefined(parsed, word, &defaults, found);
        }
        invalid_default(stage, &defaults, found);
        if let Some(platform) = &stage.platform {
            platform_flag(stage, platform, found);
        }
    }
}

/// The values of the global arguments when no `--build-arg` is given; `None` for those without a default.
fn defaults(parsed: &Parsed) -> BTreeMap<String, Option<String>> {
    let mut values: BTreeMap<String, Option<String>> = AUTOMATIC.iter().map(|name| (name.to_string(), automatic(name))).collect();
    for instruction in &parsed.global_args {
        let InstructionKind::Arg(items) = &instruction.kind else { continue };
        for item in items {
            let lookup = |name: &str| values.get(name).cloned().flatten();
            let default = item
                .default
                .as_ref()
                .map(|word| expand::word(word, parsed.directives.escape, &lookup).map_or_else(|_| String::new(), |e| e.text));
            let value = values.entry(item.name.value.clone()).or_default();
            if default.is_some() {
                *value = default;
            }
        }
    }
    values
}

/// What an automatic argument is like, for the shape of the result only.
fn automatic(name: &str) -> Option<String> {
    Some(match name {
        "TARGETPLATFORM" | "BUILDPLATFORM" => "linux/amd64".to_string(),
        "TARGETOS" | "BUILDOS" => "linux".to_string(),
        "TARGETARCH" | "BUILDARCH" => "amd64".to_string(),
        "TARGETSTAGE" => "default".to_string(),
        _ => String::new(),
    })
}

fn undefined(parsed: &Parsed, word: &Word, defaults: &BTreeMap<String, Option<String>>, found: &mut Vec<Diagnostic>) {
    let lookup = |name: &str| defaults.get(name).map(|value| value.clone().unwrap_or_default());
    let Ok(expansion) = expand::word(word, parsed.directives.escape, &lookup) else { return };
    for name in expansion.unset.union(&expansion.unset_allowed) {
        let finding = super::undefined_var(word, name, std::iter::empty());
        let declared_later = parsed.stages.iter().flat_map(|s| &s.instructions).any(|i| match &i.kind {
            InstructionKind::Arg(items) => items.iter().any(|item| item.name.value == *name),
            _ => false,
        });
        let mut finding =
            Diagnostic { name: "UndefinedArgInFrom", message: format!("`{name}` is not declared before the first FROM"), ..finding };
        if let Some(close) = suggest::closest(name, defaults.keys().map(String::as_str)) {
            finding.help.push(format!("did you mean `${close}`?"));
        } else if declared_later {
            finding.help.push(format!("move `ARG {name}` above the first FROM"));
        }
        found.push(finding);
    }
}

fn invalid_default(stage: &Stage, defaults: &BTreeMap<String, Option<String>>, found: &mut Vec<Diagnostic>) {
    let lookup = |name: &str| defaults.get(name).cloned().flatten();
    let Ok(expansion) = expand::word(&stage.base, '\\', &lookup) else { return };
    let uses_variables = !(expansion.used.is_empty() && expansion.unset.is_empty() && expansion.unset_allowed.is_empty());
    // An undeclared name has its own finding.
    let all_declared = expansion.unset.union(&expansion.unset_allowed).all(|name| defaults.contains_key(name));
    if uses_variables && all_declared && !reference::is_valid(&expansion.text) {
        let message = format!("with default arguments `{}` becomes `{}`, which is no image name", stage.base.value, expansion.text);
        let finding = Diagnostic::warning("InvalidDefaultArgInFrom", message).at(stage.base.span, "");
        found.push(finding.help("give the ARG a default, or use `${NAME:-default}`"));
    }
}

fn platform_flag(stage: &Stage, platform: &Word, found: &mut Vec<Diagnostic>) {
    let text = platform.as_str();
    if text == "$TARGETPLATFORM" || text == "${TARGETPLATFORM}" {
        let message = "`$TARGETPLATFORM` is the default platform; the flag says nothing";
        found.push(Diagnostic::warning("RedundantTargetPlatform", message).at(platform.span, ""));
    }
    if text.contains('$') {
        return;
    }
    // A stage that is named after its platform means it.
    let name = stage.name.as_ref().map(Word::as_str).unwrap_or_default();
    if text.split('/').take(2).any(|part| !part.is_empty() && name.contains(part)) {
        return;
    }
    let message = format!("the constant platform `{text}` makes the file build for nothing else");
    found.push(Diagnostic::warning("FromPlatformFlagConstDisallowed", message).at(platform.span, ""));
}
