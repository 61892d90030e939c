//! Violations as SARIF, which code hosts show beside a change (OASIS, "Static Analysis Results Interchange Format", version 2.1.0).
//!
//! A run has a tool with its rules, and results that name a rule by its place in that list (§3.27.6). A violation without a file is about the image as a
//! whole; its place is then the image's name.

use serde_json::{Value, json};

use crate::Violation;

/// The rules and what each is about.
const RULES: [(&str, &str); 6] = [
    ("syscalls", "The kernel answers system calls that it did not answer before"),
    ("modules", "The kernel has modules that it had not before"),
    ("ports", "The program listens on ports that it did not before"),
    ("packages", "The root file system has packages that it had not before"),
    ("setuid", "Programs run with rights of their own that did not before"),
    ("max-size", "The image grew by more than is allowed"),
];

impl Violation {
    /// Returns the log of these violations of the image `name`.
    pub fn to_sarif(all: &[Violation], name: &str, version: &str) -> Value {
        let rules: Vec<Value> = RULES.iter().map(|(id, text)| json!({"id": id, "shortDescription": {"text": text}})).collect();
        let results: Vec<Value> = all.iter().map(|violation| violation.result(name)).collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {"name": "ukc diff", "version": version, "rules": rules}},
                "results": results,
            }],
        })
    }

    fn result(&self, name: &str) -> Value {
        let index = RULES.iter().position(|(id, _)| *id == self.rule);
        let uri = match &self.file {
            // A relative reference must not begin with a slash (RFC 3986, section 4.2).
            Some(path) => escaped(path.trim_start_matches('/')),
            None => escaped(name),
        };
        json!({
            "ruleId": self.rule,
            "ruleIndex": index,
            "level": "error",
            "message": {"text": self.message},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}}}],
        })
    }
}

/// Escapes what a path may not have in a URI (RFC 3986, "pchar" and the slash).
fn escaped(path: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=@/".contains(&b);
    path.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
