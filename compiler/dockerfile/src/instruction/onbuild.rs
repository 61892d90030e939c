//! ONBUILD: an instruction for later.

use super::Cursor;
use crate::ast::{Instruction, Onbuild, Word};
use crate::raw;

pub(super) fn parse(cursor: &mut Cursor) -> Option<Onbuild> {
    cursor.flags("ONBUILD", &[]);
    let rest = cursor.rest();
    if rest.value.is_empty() {
        let span = cursor.line_span();
        cursor.error("missing-argument", span, "ONBUILD needs an instruction");
        return None;
    }
    let inner_raw = raw::split(cursor.text.as_str(), cursor.raw.rest.clone());
    let keyword = cursor.word(inner_raw.keyword.clone());
    let upper = keyword.value.to_ascii_uppercase();
    if let "ONBUILD" | "FROM" | "MAINTAINER" = upper.as_str() {
        cursor.error("invalid-onbuild", keyword.span, format!("{upper} cannot be the instruction of an ONBUILD"));
        return None;
    }
    let mut inner =
        Cursor { text: cursor.text, raw: &inner_raw, heredocs: cursor.heredocs, escape: cursor.escape, problems: &mut *cursor.problems };
    let kind = inner.kind(&keyword)?;
    let mut trigger = rest.value.clone();
    for doc in cursor.heredocs {
        trigger.push('\n');
        trigger.push_str(&doc.body.value);
        trigger.push_str(&doc.name.value);
    }
    let instruction = Instruction { kind, keyword, span: rest.span, source: rest.value, comments: vec![] };
    Some(Onbuild { trigger: Word { value: trigger, span: rest.span }, instruction: Box::new(instruction) })
}
