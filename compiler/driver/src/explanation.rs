//! Why an image is as it is: the facts of the analysis and the plan of the selection, kept beside the image for `ukc explain`.
//!
//! Written as `analysis.json` into the image's directory: `{"facts": …, "plan": …}`, deterministic as both are.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use ukc_analyze::{Facts, Place, Reason};
use ukc_select::Plan;

/// How many places of a call are kept: enough to see where it comes from, also when a shell brings a thousand programs.
const MAX_SITES: usize = 20;

/// Facts and plan of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    /// What was found.
    pub facts: Facts,
    /// What was chosen.
    pub plan: Plan,
}

impl Explanation {
    /// Returns the explanation of these, with the first places of each call.
    pub fn new(facts: &Facts, plan: &Plan) -> Explanation {
        let mut facts = facts.clone();
        for call in facts.syscalls.values_mut() {
            call.sites.truncate(MAX_SITES);
        }
        facts.dropped.truncate(MAX_SITES);
        Explanation { facts, plan: plan.clone() }
    }

    /// Returns the text of `analysis.json`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Returns the way from the program to a place: the files that bring each other in, with the reason of each, and the place in the last.
    pub fn chain(&self, place: &Place) -> Vec<String> {
        let mut chain = vec![self.facts.place(place)];
        chain.extend(self.origins(place.object));
        chain.reverse();
        chain
    }

    /// Returns a file and what brought it in, up to the program.
    pub fn origins(&self, object: usize) -> Vec<String> {
        let objects = &self.facts.objects;
        let mut out = Vec::new();
        let mut seen = BTreeSet::new();
        let mut at = Some(object);
        while let Some(object) = at.and_then(|at| objects.get(at).filter(|_| seen.insert(at))) {
            out.push(format!("{} ({})", object.path, object.reason.text()));
            let parent = match &object.reason {
                Reason::Needed(by) | Reason::Loader(by) | Reason::Hwcaps(by) | Reason::Plugin(_, by) => Some(by),
                _ => None,
            };
            at = parent.and_then(|path| objects.iter().position(|o| o.path == *path));
        }
        out
    }
}
