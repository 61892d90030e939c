//! Rules about stages and their instructions.

use crate::ast::{ArgItem, Command, Instruction, InstructionKind, Parsed, Stage, Word};
use crate::instruction::broken_exec_form;
use crate::value::port;
use ukc_diagnostics::{Diagnostic, Span};

pub(super) fn check(parsed: &Parsed, found: &mut Vec<Diagnostic>) {
    for instruction in &parsed.global_args {
        arg(instruction, found);
    }
    for (index, stage) in parsed.stages.iter().enumerate() {
        stage_name(parsed, index, stage, found);
        once(stage, found);
        workdir(parsed, index, found);
        json_args(stage, found);
        for instruction in &stage.instructions {
            single(instruction, found);
        }
    }
}

fn stage_name(parsed: &Parsed, index: usize, stage: &Stage, found: &mut Vec<Diagnostic>) {
    let Some(name) = &stage.name else { return };
    let earlier = parsed.stages[..index].iter().filter_map(|s| s.name.as_ref()).find(|n| n.value == name.value);
    if let Some(earlier) = earlier {
        let message = format!("the stage name `{}` is taken; later references mean the last stage of this name", name.value);
        found.push(Diagnostic::warning("DuplicateStageName", message).at(name.span, "").at(earlier.span, "first used here"));
    }
    if name.value == "scratch" || name.value == "context" {
        let message = format!("the name `{}` is reserved and should not name a stage", name.value);
        found.push(Diagnostic::warning("ReservedStageName", message).at(name.span, ""));
    }
    description("FROM", &stage.from, &[&name.value], found);
}

/// Of several CMD, ENTRYPOINT or HEALTHCHECK only the last one counts.
fn once(stage: &Stage, found: &mut Vec<Diagnostic>) {
    for name in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
        let spans: Vec<Span> = stage.instructions.iter().filter(|i| i.name() == name).map(|i| i.span).collect();
        let [ignored @ .., last] = spans.as_slice() else { continue };
        for span in ignored {
            let finding =
                Diagnostic::warning("MultipleInstructionsDisallowed", format!("only the last {name} of a stage counts, this one does not"));
            found.push(finding.at(*span, "").at(*last, "this one counts"));
        }
    }
}

/// A relative WORKDIR before any absolute one depends on the base image.
fn workdir(parsed: &Parsed, index: usize, found: &mut Vec<Diagnostic>) {
    let mut is_set = inherits_workdir(parsed, index);
    for instruction in &parsed.stages[index].instructions {
        let InstructionKind::Workdir(path) = &instruction.kind else { continue };
        let is_relative = !path.value.trim_start_matches(['"', '\'']).starts_with(['/', '$']);
        if is_relative && !is_set {
            let message = format!("the relative path `{}` depends on the working directory of the base image", path.value);
            found.push(Diagnostic::warning("WorkdirRelativePath", message).at(path.span, ""));
        }
        is_set = true;
    }
}

/// Whether a stage this one is based on sets a working directory.
fn inherits_workdir(parsed: &Parsed, index: usize) -> bool {
    let mut index = index;
    // Bases are earlier stages, so the walk ends.
    loop {
        let base = parsed.stages[index].base.value.to_lowercase();
        match parsed.stages[..index].iter().rposition(|s| s.name.as_ref().is_some_and(|n| n.value == base)) {
            None => return false,
            Some(earlier) => index = earlier,
        }
        if parsed.stages[index].instructions.iter().any(|i| matches!(i.kind, InstructionKind::Workdir(_))) {
            return true;
        }
    }
}

/// With a shell in between, the program does not get the signals. A SHELL in the same stage shows that the shell is wanted.
fn json_args(stage: &Stage, found: &mut Vec<Diagnostic>) {
    let mut has_shell = false;
    for instruction in &stage.instructions {
        match &instruction.kind {
            InstructionKind::Shell(_) => has_shell = true,
            InstructionKind::Cmd(Command::Shell(text)) | InstructionKind::Entrypoint(Command::Shell(text)) if !has_shell => {
                let message = format!("{} in shell form puts a shell between signals and the program", instruction.name());
                let why = broken_exec_form(text).unwrap_or_default();
                let finding = Diagnostic::warning("JSONArgsRecommended", message).at(text.span, why);
                found.push(finding.help("use the exec form: a JSON array of arguments"));
            }
            _ => {}
        }
    }
}

fn single(instruction: &Instruction, found: &mut Vec<Diagnostic>) {
    match &instruction.kind {
        InstructionKind::Maintainer(_) => {
            let finding = Diagnostic::warning("MaintainerDeprecated", "MAINTAINER is deprecated").at(instruction.span, "");
            found.push(finding.help("use `LABEL org.opencontainers.image.authors=\"...\"`"));
        }
        InstructionKind::Arg(_) => arg(instruction, found),
        InstructionKind::Env(pairs) => pairs.iter().for_each(|pair| secret("ENV", &pair.key, found)),
        InstructionKind::Expose(ports) => ports.iter().for_each(|word| expose(word, found)),
        _ => {}
    }
}

fn arg(instruction: &Instruction, found: &mut Vec<Diagnostic>) {
    let InstructionKind::Arg(items) = &instruction.kind else { return };
    for ArgItem { name, .. } in items {
        secret("ARG", name, found);
    }
    let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
    description("ARG", instruction, &names, found);
}

/// Values of ARG and ENV stay in the image.
fn secret(instruction: &str, name: &Word, found: &mut Vec<Diagnostic>) {
    const SECRET: [&str; 10] = ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let lower = name.value.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
    if has(&SECRET) && !has(&HARMLESS) {
        let message = format!("the value of {instruction} `{}` stays in the image; secrets do not belong there", name.value);
        let finding = Diagnostic::warning("SecretsUsedInArgOrEnv", message).at(name.span, "");
        found.push(finding.help("use `RUN --mount=type=secret`"));
    }
}

fn expose(word: &Word, found: &mut Vec<Diagnostic>) {
    let text = word.as_str();
    if text.contains('$') || port::parse(text).is_err() {
        return;
    }
    if let Some((_, protocol)) = text.split_once('/')
        && protocol != protocol.to_lowercase()
    {
        let message = format!("the protocol `{protocol}` should be lower case");
        found.push(Diagnostic::warning("ExposeProtoCasing", message).at(word.span, ""));
    }
    if text.contains(':') {
        let message = format!("EXPOSE names ports of the container; the address or host port in `{text}` is ignored");
        found.push(Diagnostic::warning("ExposeInvalidFormat", message).at(word.span, ""));
    }
}

/// A comment directly above should begin with the name it describes.
fn description(instruction_name: &str, instruction: &Instruction, names: &[&str], found: &mut Vec<Diagnostic>) {
    let (Some(comment), [first, more @ ..]) = (instruction.comments.last(), names) else { return };
    let word = comment.split(' ').next().unwrap_or_default();
    if names.contains(&word) {
        return;
    }
    let example = if more.is_empty() { first } else { "<name>" };
    let message = format!("the comment above this {instruction_name} does not have the form `# {example} <description>`");
    let finding = Diagnostic::warning("InvalidDefinitionDescription", message).at(instruction.span, "");
    found.push(finding.help("put a blank line between them if it is not a description"));
}
