//! A policy against one image.

use ukc_diagnostics::Diagnostic;
use ukc_image_json::{GuestKind, Handling, Image};

use crate::{Names, Policy, Size};

/// The name of every diagnostic of a policy.
const NAME: &str = "policy";

impl Policy {
    /// Returns everything that the image is or has though the policy forbids it.
    pub fn check(&self, image: &Image) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        self.check_sizes(image, &mut found);
        self.check_guest(image, &mut found);
        for module in image.modules.iter().filter(|m| self.modules.forbids(&m.name)) {
            let mut diagnostic = forbidden("kernel module", &module.name);
            diagnostic.notes.extend(module.reasons.iter().map(|reason| format!("it is in the image because {reason}")));
            found.push(diagnostic);
        }
        for call in image.syscalls.iter().filter(|c| c.handling == Handling::Linked && self.syscalls.forbids(&c.name)) {
            let diagnostic = forbidden("system call", &call.name);
            found.push(diagnostic.help(format!("`ukc explain IMAGE syscall:{}` shows which program and library make it", call.name)));
        }
        for package in image.packages.iter().filter(|p| self.packages.forbids(&p.name)) {
            found.push(forbidden("package", &format!("{} {}", package.name, package.version)));
        }
        self.check_files(image, &mut found);
        found
    }

    fn check_sizes(&self, image: &Image, found: &mut Vec<Diagnostic>) {
        let whole = image.kernel.len_bytes + image.files.len_bytes;
        for (limit, actual, what) in [(self.max_image_size, whole, "image"), (self.max_kernel_size, image.kernel.len_bytes, "kernel")] {
            if let Some(limit) = limit.filter(|limit| actual > limit.0) {
                found.push(Diagnostic::error(NAME, format!("the {what} has {}, and the policy allows {limit}", Size(actual))));
            }
        }
    }

    fn check_guest(&self, image: &Image, found: &mut Vec<Diagnostic>) {
        let kind = image.guest.kind;
        if self.guests.as_ref().is_some_and(|allowed| !allowed.iter().any(|g| g.kind() == kind)) {
            let name = match kind {
                GuestKind::Unikernel => "libOS",
                GuestKind::Linux => "Linux",
            };
            let mut diagnostic = Diagnostic::error(NAME, format!("the policy does not allow the {name} guest"));
            diagnostic.notes.extend(image.guest.reasons.iter().map(|reason| format!("it was chosen because {reason}")));
            found.push(diagnostic);
        }
    }

    fn check_files(&self, image: &Image, found: &mut Vec<Diagnostic>) {
        let files = &image.files;
        if let Some(limit) = self.files.max_count.filter(|limit| files.count > *limit) {
            found.push(Diagnostic::error(NAME, format!("the root file system has {} files, and the policy allows {limit}", files.count)));
        }
        if !self.files.setuid {
            for path in &files.setuid {
                found.push(
                    Diagnostic::error(NAME, format!("`{path}` runs as its owner or group, and the policy forbids that"))
                        .help(format!("`RUN chmod a-s {path}`")),
                );
            }
        }
        if !self.files.capabilities {
            for file in &files.capabilities {
                let message = format!("`{}` has the capabilities {}, and the policy forbids that", file.path, file.names.join(", "));
                found.push(Diagnostic::error(NAME, message).help(format!("`RUN setcap -r {}`", file.path)));
            }
        }
    }
}

fn forbidden(kind: &str, name: &str) -> Diagnostic {
    Diagnostic::error(NAME, format!("the image has the {kind} `{name}`, and the policy forbids it"))
}

impl Names {
    fn forbids(&self, name: &str) -> bool {
        self.deny.iter().any(|n| n == name) || self.allow.as_ref().is_some_and(|allowed| !allowed.iter().any(|n| n == name))
    }
}
