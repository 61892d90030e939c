//! Rules about single lines: NoEmptyContinuation, ConsistentInstructionCasing, LegacyKeyValueFormat, StageNameCasing, FromAsCasing.

use crate::instruction::KEYWORDS;
use crate::lines::Line;
use crate::raw;
use ukc_diagnostics::Diagnostic;

pub(super) fn check(lines: &[Line], escape: char, found: &mut Vec<Diagnostic>) {
    for line in lines {
        if let Some(blank) = line.blank_inside {
            let finding = Diagnostic::warning("NoEmptyContinuation", "blank line inside a continued instruction").at(blank, "");
            found.push(finding.help("remove it, or put a `#` on it"));
        }
        legacy_key_value(line, escape, found);
        from_casing(line, found);
    }
    instruction_casing(lines, found);
}

fn keyword(line: &Line) -> &str {
    &line.text.as_str()[line.raw.keyword.clone()]
}

fn is_known(keyword: &str) -> bool {
    KEYWORDS.iter().any(|k| k.eq_ignore_ascii_case(keyword))
}

fn is_lower(text: &str) -> bool {
    text == text.to_lowercase()
}

fn is_upper(text: &str) -> bool {
    text == text.to_uppercase()
}

/// All keywords should have the case of most of them; mixed case never counts.
fn instruction_casing(lines: &[Line], found: &mut Vec<Diagnostic>) {
    let known: Vec<&Line> = lines.iter().filter(|line| is_known(keyword(line))).collect();
    let lower = known.iter().filter(|line| is_lower(keyword(line))).count();
    let upper = known.iter().filter(|line| is_upper(keyword(line))).count();
    let (is_right, majority): (fn(&str) -> bool, &str) = if lower > upper { (is_lower, "lower") } else { (is_upper, "upper") };
    for line in known {
        let word = keyword(line);
        if !is_right(word) {
            let message = format!("the case of `{word}` differs from most instructions of the file ({majority} case)");
            let span = line.text.span(line.raw.keyword.clone());
            found.push(Diagnostic::warning("ConsistentInstructionCasing", message).at(span, ""));
        }
    }
}

fn legacy_key_value(line: &Line, escape: char, found: &mut Vec<Diagnostic>) {
    let name = keyword(line).to_ascii_uppercase();
    if name != "ENV" && name != "LABEL" {
        return;
    }
    let text = line.text.as_str();
    let words = raw::quoted(text, line.raw.rest.clone(), escape);
    let Some(first) = words.first() else { return };
    if text[first.clone()].contains('=') || words.len() < 2 {
        return;
    }
    let message = format!("`{name} key=value` should be used instead of the old form `{name} key value`");
    found.push(Diagnostic::warning("LegacyKeyValueFormat", message).at(line.text.span(line.raw.rest.clone()), ""));
}

fn from_casing(line: &Line, found: &mut Vec<Diagnostic>) {
    let from = keyword(line);
    if !from.eq_ignore_ascii_case("FROM") {
        return;
    }
    let text = line.text.as_str();
    let words = raw::blank_separated(text, line.raw.rest.clone());
    let [_, as_range, name_range] = words.as_slice() else { return };
    let (as_word, name) = (&text[as_range.clone()], &text[name_range.clone()]);
    if !as_word.eq_ignore_ascii_case("AS") {
        return;
    }
    if !is_lower(name) {
        let message = format!("the stage name `{name}` should be lower case");
        found.push(Diagnostic::warning("StageNameCasing", message).at(line.text.span(name_range.clone()), ""));
    }
    // A FROM of mixed case is the business of ConsistentInstructionCasing.
    if (is_lower(from) && !is_lower(as_word)) || (is_upper(from) && !is_upper(as_word)) {
        let message = format!("the cases of `{as_word}` and `{from}` differ");
        found.push(Diagnostic::warning("FromAsCasing", message).at(line.text.span(as_range.clone()), ""));
    }
}
