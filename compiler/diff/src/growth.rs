//! What a policy says of growth from one image to the next.

use serde::Serialize;
use ukc_policy::{Growth, Size};

use crate::Comparison;

/// Growth that the policy forbids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The rule's name in `[policy] growth`.
    pub rule: &'static str,
    /// One sentence.
    pub message: String,
    /// The file it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl Comparison {
    /// Returns everything that grew though the policy forbids it.
    pub fn violations(&self, growth: &Growth) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut names = |rule, is_allowed: bool, added: &[String], sentence: &dyn Fn(&str) -> String| {
            if !is_allowed {
                found.extend(added.iter().map(|name| Violation { rule, message: sentence(name), file: None }));
            }
        };
        names("syscalls", growth.syscalls, &self.syscalls.added, &|name| {
            format!("the kernel answers the system call `{name}`, which it did not before")
        });
        names("modules", growth.modules, &self.modules.added, &|name| format!("the kernel module `{name}` is new"));
        names("ports", growth.ports, &self.ports.added, &|name| format!("the port {name} is new"));
        names("packages", growth.packages, &self.packages.added, &|name| format!("the package `{name}` is new"));
        if !growth.setuid {
            found.extend(self.setuid.added.iter().map(|path| Violation {
                rule: "setuid",
                message: format!("`{path}` runs as its owner or group, and did not before"),
                file: Some(path.clone()),
            }));
            found.extend(self.capabilities.added.iter().map(|text| Violation {
                rule: "setuid",
                message: format!("a program has a new capability: {text}"),
                file: text.rsplit_once(' ').map(|(path, _)| path.to_owned()),
            }));
        }
        let by = self.image_bytes.new.saturating_sub(self.image_bytes.old);
        if let Some(limit) = growth.max_size.filter(|limit| by > limit.0) {
            let message = format!("the image grew by {}, and the policy allows {limit}", Size(by));
            found.push(Violation { rule: "max-size", message, file: None });
        }
        found
    }
}
