//! What buildah makes of a case.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use ukc_oci::{Image, LayoutRef, Platform, Store};

use crate::base::Bases;
use crate::case::Prepared;
use crate::text;

/// buildah, with an image store of its own.
#[derive(Debug)]
pub struct Buildah {
    dir: PathBuf,
    /// Bases that it has.
    known: BTreeSet<String>,
}

impl Buildah {
    /// Returns a buildah that keeps its images below `dir`.
    pub fn new(dir: &Path) -> Buildah {
        Buildah { dir: dir.to_owned(), known: BTreeSet::new() }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.dir.join("root")).arg("--runroot").arg(self.dir.join("run")).args(words);
        command
    }

    fn output(command: &mut Command) -> Result<String, String> {
        let done = command.output().map_err(|e| format!("buildah: {e}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stdout) + &text(&done.stderr)) }
    }

    /// Builds a case; the lines of its result, or what buildah said when it failed.
    ///
    /// # Errors
    /// Trouble with buildah itself.
    pub fn build(
        &mut self,
        case: &Prepared,
        bases: &Bases,
        names: &[String],
        store: &Store,
    ) -> Result<Result<Vec<String>, String>, String> {
        for name in names {
            if self.known.insert(name.clone()) {
                // It makes a name of the path, and names are in lower case.
                let Some(layout) = bases.get(name).map(|b| &b.layout) else { continue };
                let dir = layout.file_name().unwrap_or_default().to_string_lossy();
                let mut pull = self.command(&["pull", "-q", &format!("oci:{dir}:latest")]);
                let id = Self::output(pull.current_dir(layout.parent().unwrap_or(layout)))?;
                Self::output(&mut self.command(&["tag", id.trim(), &format!("docker.io/library/{name}")]))?;
            }
        }
        let image = format!("localhost/corpus-{}", case.name);
        let mut command = self.command(&["bud", "--isolation", "chroot", "--network", "host", "--layers", "--format", "docker"]);
        command.args(["--pull-never", "-t", &image, "-f"]).arg(&case.oracle_dockerfile);
        if let Some(target) = &case.target {
            command.args(["--target", target]);
        }
        for (flag, pairs) in [("--build-arg", &case.build_args), ("--label", &case.labels)] {
            for (name, value) in pairs {
                command.arg(flag).arg(format!("{name}={value}"));
            }
        }
        for context in &case.contexts {
            command.args(["--build-context", context]);
        }
        for (id, path) in &case.secrets {
            command.arg("--secret").arg(format!("id={id},src={}", path.display()));
        }
        if let Err(why) = Self::output(command.arg(&case.context)) {
            return Ok(Err(why));
        }
        let inspected = Self::output(&mut self.command(&["inspect", "--type", "image", &image]))?;
        let document: Value = serde_json::from_str(&inspected).map_err(|e| e.to_string())?;
        let mut lines = text::docker_config(&document["Docker"]["config"]);
        let layout = self.dir.join("answer").join(&case.name);
        let _ = std::fs::remove_dir_all(&layout);
        std::fs::create_dir_all(&layout).map_err(|e| e.to_string())?;
        Self::output(&mut self.command(&["push", "-q", "-D", "--format", "oci", &image, &format!("oci:{}:latest", layout.display())]))?;
        let reference = LayoutRef { dir: layout.clone(), tag: None, digest: None };
        let pushed = Image::from_layout(&reference, &Platform::linux_amd64(), store).map_err(|e| e.to_string())?;
        let tree = pushed.tree(None, store).map_err(|e| e.to_string())?;
        // With chroot isolation it leaves what it mounted these files on in the layer.
        let is_stub = |line: &String| ["hostname", "hosts", "resolv.conf"].iter().any(|f| *line == format!("-0755 0:0 /etc/{f} \"\""));
        lines.extend(text::tree(&tree, case.base_tree(bases))?.into_iter().filter(|line| !is_stub(line)));
        let _ = std::fs::remove_dir_all(&layout);
        Ok(Ok(lines))
    }
}
