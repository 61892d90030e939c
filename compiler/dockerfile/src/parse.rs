//! The whole file: logical lines to stages, with everything that is wrong.

use crate::ast::{Instruction, InstructionKind, Parsed, Stage, Word};
use crate::instruction;
use crate::lines;
use crate::lint;
use ukc_diagnostics::{Diagnostic, FileId, Span};

/// Parses a Dockerfile.
///
/// Never fails: whatever cannot be understood is reported in [`Parsed::diagnostics`] and skipped, and the rest is still there. The build checks (lint rules)
/// that need only the text have run, as the file's `# check=` asks.
pub fn parse(file: FileId, bytes: &[u8]) -> Parsed {
    let mut problems = vec![];
    // Spans are u32; a Dockerfile of 4 GiB is a mistake.
    let bytes = match bytes.len() <= u32::MAX as usize {
        true => bytes,
        false => {
            problems.push(Diagnostic::error("file-too-large", "the file is larger than 4 GiB").at(Span { file, start: 0, end: 0 }, ""));
            &[]
        }
    };
    let lines::Lines { directives, lines, tree } = lines::split(file, bytes, true, &mut problems);
    let mut parsed = Parsed { file, directives, tree, global_args: vec![], stages: vec![], diagnostics: vec![] };
    let mut first_outside: Option<Span> = None;
    for line in &lines {
        match instruction::parse(line, parsed.directives.escape, &mut problems) {
            instruction::Parsed::Broken => {}
            instruction::Parsed::From(from) => parsed.stages.push(Stage {
                span: from.instruction.span,
                name: from.name,
                base: from.base,
                platform: from.platform,
                from: from.instruction,
                instructions: vec![],
            }),
            instruction::Parsed::Other(instruction) => match parsed.stages.last_mut() {
                Some(stage) => {
                    stage.span.end = stage.span.end.max(instruction.span.end);
                    stage.instructions.push(instruction);
                }
                None if matches!(instruction.kind, InstructionKind::Arg(_)) => parsed.global_args.push(instruction),
                None if first_outside.is_none() => {
                    first_outside = Some(instruction.span);
                    let message = format!("{} stands before the first FROM", instruction.name());
                    let problem = Diagnostic::error("outside-stage", message).at(instruction.keyword.span, "");
                    problems.push(
                        problem.help("begin with `FROM image`, or `FROM scratch` for an empty file system; only ARG may come before it"),
                    );
                }
                None => {}
            },
        }
    }
    if lines.is_empty() {
        let problem = Diagnostic::error("empty-dockerfile", "the file has no instructions").at(Span { file, start: 0, end: 0 }, "");
        problems.push(problem.help("the smallest one is `FROM image`"));
    } else if parsed.stages.is_empty() && first_outside.is_none() {
        let span = lines[lines.len() - 1].span;
        problems.push(Diagnostic::error("missing-from", "the file has no FROM").at(span, "the last instruction"));
    }
    summarize_other_language(&parsed, lines.len(), &mut problems);
    problems.extend(parsed.directives.syntax.as_ref().and_then(unknown_frontend));
    problems.extend(lint::run(&parsed, &lines));
    problems.sort_by_key(|d| d.labels.first().map_or(0, |l| l.span.start));
    parsed.diagnostics = problems;
    parsed
}

/// A file of another kind would give an error a line; one that says so is worth more. It has no FROM, and most of its lines begin with no instruction.
fn summarize_other_language(parsed: &Parsed, lines: usize, problems: &mut Vec<Diagnostic>) {
    let unknown: Vec<Span> = problems.iter().filter(|d| d.name == "unknown-instruction").map(|d| d.labels[0].span).collect();
    if !parsed.stages.is_empty() || unknown.len() < 4 || unknown.len() * 2 < lines {
        return;
    }
    problems.retain(|d| !matches!(d.name, "unknown-instruction" | "outside-stage" | "missing-from"));
    let message =
        format!("this does not look like a Dockerfile: {} of {lines} lines begin with no instruction, and there is no FROM", unknown.len());
    problems.push(Diagnostic::error("not-a-dockerfile", message).at(unknown[0], "the first of them"));
}

/// A `# syntax=` names an image that translates the file. All versions of Docker's own are this language; any other may be a different one.
fn unknown_frontend(syntax: &Word) -> Option<Diagnostic> {
    let image = syntax.value.split(' ').next().unwrap_or_default();
    let name = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = name.split(['@', ':']).next().unwrap_or_default();
    if let "docker/dockerfile" | "docker/dockerfile-upstream" = name {
        return None;
    }
    let problem = Diagnostic::error(
        "unknown-frontend",
        format!("the file asks to be translated by the image `{image}`, which is not Docker's front end"),
    );
    Some(problem.at(syntax.span, "").help("if it is an ordinary Dockerfile, remove the directive"))
}

/// An ONBUILD trigger that was read again.
#[derive(Debug, Clone)]
pub struct Trigger {
    /// The instruction, unless it is broken.
    pub instruction: Option<Instruction>,
    /// What is wrong with it; spans are in the trigger's text.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses the text of an ONBUILD trigger, as an image config stores it. `file` is the source the text was registered as, for the spans; the escape
/// character is `\` (the config does not record another).
pub fn parse_trigger(file: FileId, text: &str) -> Trigger {
    let mut problems = vec![];
    let lines::Lines { lines, .. } = lines::split(file, text.as_bytes(), false, &mut problems);
    let whole = Span { file, start: 0, end: text.len() as u32 };
    let mut instruction = None;
    match lines.as_slice() {
        [line] => match instruction::parse(line, '\\', &mut problems) {
            instruction::Parsed::Broken => {}
            instruction::Parsed::Other(Instruction {
                kind: InstructionKind::Onbuild(_) | InstructionKind::Maintainer(_), keyword, ..
            })
            | instruction::Parsed::From(instruction::From { instruction: Instruction { keyword, .. }, .. }) => {
                let message = format!("{} cannot be the instruction of an ONBUILD", keyword.value.to_ascii_uppercase());
                problems.push(Diagnostic::error("invalid-onbuild", message).at(keyword.span, ""));
            }
            instruction::Parsed::Other(parsed) => instruction = Some(parsed),
        },
        _ => problems.push(Diagnostic::error("invalid-onbuild", "an ONBUILD trigger is exactly one instruction").at(whole, "")),
    }
    Trigger { instruction, diagnostics: problems }
}
