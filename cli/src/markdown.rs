//! An image's document as Markdown, for the summary of a pipeline's run.

use std::fmt::{self, Write as _};

use ukc_driver::image_json::{GuestKind, Handling, Image};

use crate::units;

/// Returns the summary. `name` is what the reader knows the image by.
pub fn summary(name: &str, image: &Image) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut out, name, image);
    out
}

fn write(out: &mut String, name: &str, image: &Image) -> fmt::Result {
    let guest = match image.guest.kind {
        GuestKind::Unikernel => "libOS",
        GuestKind::Linux => "Linux",
    };
    let root = image.artefacts.iter().find(|a| a.name.as_str() == "rootfs.ext4").map_or(image.files.len_bytes, |a| a.len_bytes);
    writeln!(out, "### {}\n\n| | |\n|---|---|", cell(name))?;
    let ports: Vec<String> = image.ports.iter().map(ToString::to_string).collect();
    let absent: Vec<&str> = image.syscalls.iter().filter(|c| c.handling == Handling::Absent).map(|c| c.name.as_str()).collect();
    let rows = [
        ("Program", format!("`{}`", image.program.argv.join(" "))),
        ("Guest", guest.to_owned()),
        ("Kernel", units::size(image.kernel.len_bytes)),
        ("Root file system", format!("{}, {} files", units::size(root), image.files.count)),
        ("Memory", format!("at least {}", units::size(image.memory_floor_bytes))),
        ("Kernel modules", image.modules.len().to_string()),
        ("System calls", format!("{} answered, {} not", image.syscalls.len() - absent.len(), absent.len())),
        ("Packages", image.packages.len().to_string()),
        ("Runs with other rights", format!("{} programs", image.files.setuid.len() + image.files.capabilities.len())),
        ("Ports", ports.join(", ")),
        ("Volumes", image.volumes.join(", ")),
    ];
    for (head, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "| {head} | {} |", cell(value))?;
    }
    details(out, "Why this guest", &image.guest.reasons)?;
    let modules: Vec<String> = image.modules.iter().map(|m| format!("{}: {}", m.name, m.reasons.join("; "))).collect();
    details(out, "Kernel modules", &modules)?;
    let inputs: Vec<String> = image.inputs.iter().map(|i| format!("{} `{}`", i.name, i.digest)).collect();
    details(out, "Inputs", &inputs)
}

/// A list that is folded until somebody opens it.
fn details(out: &mut String, head: &str, items: &[String]) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n<details><summary>{head}</summary>\n")?;
    items.iter().try_for_each(|item| writeln!(out, "- {}", cell(item)))?;
    writeln!(out, "\n</details>")
}

/// Keeps a text in its cell, and markup in it from meaning something.
fn cell(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_leaves_its_cell() {
        assert_eq!(super::cell("a|b\n<script>&"), "a\\|b &lt;script>&amp;");
    }
}
