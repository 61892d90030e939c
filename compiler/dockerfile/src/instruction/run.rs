//! RUN.

use super::Cursor;
use super::flags::{Kind, Spec};
use crate::ast::{Network, RunArgs, Security, Spanned, Word};
use crate::value::mount;
use ukc_diagnostics::suggest;

const FLAGS: [Spec; 4] =
    [Spec::new("mount", Kind::Many), Spec::new("network", Kind::One), Spec::new("security", Kind::One), Spec::new("device", Kind::Many)];

pub(super) fn parse(cursor: &mut Cursor) -> Option<RunArgs> {
    let flags = cursor.flags("RUN", &FLAGS);
    let mounts = flags.many("mount");
    for word in &mounts {
        cursor.problems.extend(mount::check(word, cursor.escape));
    }
    let networks = [("default", Network::Default), ("none", Network::None), ("host", Network::Host)];
    let network = flags.one("network").and_then(|word| choice(cursor, "--network", &word, &networks));
    let securities = [("sandbox", Security::Sandbox), ("insecure", Security::Insecure)];
    let security = flags.one("security").and_then(|word| choice(cursor, "--security", &word, &securities));
    let command = cursor.command(cursor.raw.rest.clone());
    Some(RunArgs { command, heredocs: cursor.heredocs.to_vec(), mounts, network, security, devices: flags.many("device") })
}

fn choice<T: Copy>(cursor: &mut Cursor, flag: &str, word: &Word, choices: &[(&str, T)]) -> Option<Spanned<T>> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word.value) {
        return Some(Spanned { value: *value, span: word.span });
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let help = match suggest::closest(&word.value, names.iter().copied()) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("use one of {}", names.join(", ")),
    };
    cursor.error("invalid-flag-value", word.span, format!("`{flag}` cannot be `{}`", word.value)).help.push(help);
    None
}
