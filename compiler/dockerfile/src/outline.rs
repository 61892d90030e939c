//! What a Dockerfile offers to its callers, as tables: its targets, and the arguments, secrets and agents of one of them (BuildKit's `--call=targets` and
//! `--call=outline`). Comments directly above an instruction that begin with its name describe it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::{Instruction, InstructionKind, Parsed, mount};

/// Lists the stages and what is said about them.
pub fn targets(parsed: &Parsed) -> String {
    let last = parsed.stages.len().saturating_sub(1);
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for (index, stage) in parsed.stages.iter().enumerate() {
        let name = stage.name.as_ref().map(|n| n.value.as_str());
        let shown = match (name, index == last) {
            (Some(name), false) => name.to_owned(),
            (Some(name), true) => format!("{name} (default)"),
            (None, true) => "(default)".to_owned(),
            // BuildKit leaves out what only a number names.
            (None, false) => continue,
        };
        rows.push(vec![shown, name.map(|n| description(&stage.from, n)).unwrap_or_default()]);
    }
    table(&rows)
}

/// Describes the stage `target` and everything it needs; `build_arg` gives the values of the command line.
pub fn outline(parsed: &Parsed, target: usize, build_arg: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let Some(stage) = parsed.stages.get(target) else { return out };
    if let Some(name) = &stage.name {
        let mut head = vec![vec!["TARGET:".to_owned(), name.value.clone()]];
        let text = description(&stage.from, &name.value);
        if !text.is_empty() {
            head.push(vec!["DESCRIPTION:".to_owned(), text]);
        }
        out += &table(&head);
    }
    let needed = needed(parsed, target);
    let (mut arguments, mut secrets, mut agents) = (vec![], BTreeMap::new(), BTreeMap::new());
    let of_stages = needed.iter().flat_map(|&index| &parsed.stages[index].instructions);
    for instruction in parsed.global_args.iter().chain(of_stages) {
        match &instruction.kind {
            InstructionKind::Arg(items) => {
                for item in items {
                    let name = item.name.value.clone();
                    let value = build_arg(&name).or_else(|| item.default.as_ref().map(|d| d.value.clone())).unwrap_or_default();
                    let row = vec![name.clone(), value, description(instruction, &name)];
                    match arguments.iter_mut().find(|known: &&mut Vec<String>| known[0] == name) {
                        // A bare ARG takes the global value, and the description of where that is.
                        Some(known) => known.iter_mut().zip(row).filter(|(_, new)| !new.is_empty()).for_each(|(old, new)| *old = new),
                        None => arguments.push(row),
                    }
                }
            }
            InstructionKind::Run(run) => {
                for word in &run.mounts {
                    match mount::parse(word, &mut |word| Ok(word.value.clone())).map(|m| m.kind) {
                        Ok(mount::MountKind::Secret { id, required, .. }) => *secrets.entry(id).or_insert(false) |= required,
                        Ok(mount::MountKind::Ssh { id, required, .. }) => {
                            *agents.entry(id.unwrap_or_else(|| "default".to_owned())).or_insert(false) |= required;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let mut section = |head: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let head = head.iter().map(|h| (*h).to_owned()).collect();
            let _ = write!(out, "{}{}", if out.is_empty() { "" } else { "\n" }, table(&[vec![head], rows].concat()));
        }
    };
    let marked = |of: BTreeMap<String, bool>| {
        of.into_iter().map(|(id, required)| vec![id, if required { "true".to_owned() } else { String::new() }]).collect()
    };
    section(&["BUILD ARG", "VALUE", "DESCRIPTION"], arguments);
    section(&["SECRET", "REQUIRED"], marked(secrets));
    section(&["SSH", "REQUIRED"], marked(agents));
    out
}

/// Returns the stages that `target` is made from, itself included.
fn needed(parsed: &Parsed, target: usize) -> BTreeSet<usize> {
    let mut out = BTreeSet::from([target]);
    for index in (0..=target).rev() {
        if !out.contains(&index) {
            continue;
        }
        let stage = &parsed.stages[index];
        let earlier = |name: &str| {
            let lower = name.to_lowercase();
            let by_name = parsed.stages[..index].iter().rposition(|s| s.name.as_ref().is_some_and(|n| n.value == lower));
            by_name.or_else(|| name.parse().ok().filter(|&i: &usize| i < index))
        };
        let by_name = |name: &str| earlier(name).filter(|_| name.parse::<usize>().is_err());
        out.extend(by_name(&stage.base.value));
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Copy(args) => out.extend(args.from.as_ref().and_then(|from| earlier(&from.value))),
                InstructionKind::Run(run) => {
                    for word in &run.mounts {
                        if let Ok(mount::MountKind::Bind { from: Some(from), .. } | mount::MountKind::Cache { from: Some(from), .. }) =
                            mount::parse(word, &mut |word| Ok(word.value.clone())).map(|m| m.kind)
                        {
                            out.extend(earlier(&from));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    out
}

/// What the comments above an instruction say about `name`.
fn description(instruction: &Instruction, name: &str) -> String {
    let about = |comment: &String| {
        let (word, rest) = comment.split_once(' ')?;
        word.eq_ignore_ascii_case(name).then(|| rest.trim().to_owned())
    };
    instruction.comments.iter().rev().find_map(about).unwrap_or_default()
}

/// Columns three spaces apart; nothing behind the last one.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = if column + 1 < columns { width(column) + 3 } else { 0 };
            let _ = write!(line, "{cell:<pad$}");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
