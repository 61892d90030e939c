//! `-o`: what a build writes, and where.
//!
//! ```text
//! -o out                                   a directory with the image (the same as type=dir,dest=out)
//! -o app.tar                               an OCI archive, by the name
//! -o type=oci,dest=app.tar,compression=zstd
//! -o type=tar,dest=-                       to standard output
//! ```
//!
//! The long form is docker's: fields with commas between them, in which a field with commas of its own stands in quotes (RFC 4180, as Go's `encoding/csv`
//! reads it). To add an output: a variant of [`OutputKind`] and a line in [`KINDS`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ukc_diagnostics::suggest;
use ukc_image::machine::Form;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputKind {
    /// An image directory: kernel, root file system, `image.json`.
    Dir,
    /// A bootable raw disk.
    Disk,
    /// The same for QEMU, without what is zero.
    Qcow2,
    /// The same as a fixed VHD.
    Vhd,
    /// The kernel's file.
    Kernel,
    /// The root file system as an initrd.
    Initrd,
    /// A directory for Firecracker.
    Firecracker,
    /// A directory for Cloud Hypervisor.
    CloudHypervisor,
    /// A directory for Xen.
    Xen,
    /// A container image as an OCI layout: a tar archive, or a directory with `tar=false`.
    Oci,
    /// A container image as `docker load` takes it.
    Docker,
    /// The root file tree as a tar archive.
    Tar,
    /// The root file tree as files of this machine.
    Local,
    /// A container image in a registry.
    Registry,
}

/// What may be said about a kind of output.
struct KindFacts {
    kind: OutputKind,
    name: &'static str,
    dest: DestRule,
    /// Fields besides `type` and `dest`.
    fields: &'static [&'static str],
}

/// Where an output can go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DestRule {
    /// A path; it has to be given.
    Path,
    /// A path, or standard output, which is also the default.
    PathOrStdout,
    /// Nowhere on this machine.
    None,
}

const IMAGE_FIELDS: &[&str] = &["name", "compression", "compression-level", "oci-mediatypes", "unikernel", "tar"];

/// `root=memory`: the boot loader brings the root file system to memory.
const DISK_FIELDS: &[&str] = &["root"];

const KINDS: &[KindFacts] = &[
    KindFacts { kind: OutputKind::Dir, name: "dir", dest: DestRule::Path, fields: &[] },
    KindFacts { kind: OutputKind::Disk, name: "disk", dest: DestRule::Path, fields: DISK_FIELDS },
    KindFacts { kind: OutputKind::Qcow2, name: "qcow2", dest: DestRule::Path, fields: DISK_FIELDS },
    KindFacts { kind: OutputKind::Vhd, name: "vhd", dest: DestRule::Path, fields: DISK_FIELDS },
    KindFacts { kind: OutputKind::Kernel, name: "kernel", dest: DestRule::Path, fields: &[] },
    KindFacts { kind: OutputKind::Initrd, name: "initrd", dest: DestRule::Path, fields: &[] },
    KindFacts { kind: OutputKind::Firecracker, name: "fc", dest: DestRule::Path, fields: &[] },
    KindFacts { kind: OutputKind::CloudHypervisor, name: "ch", dest: DestRule::Path, fields: &[] },
    KindFacts { kind: OutputKind::Xen, name: "xen", dest: DestRule::Path, fields: &[] },
    KindFacts { kind: OutputKind::Oci, name: "oci", dest: DestRule::PathOrStdout, fields: IMAGE_FIELDS },
    KindFacts { kind: OutputKind::Docker, name: "docker", dest: DestRule::PathOrStdout, fields: &["name"] },
    KindFacts { kind: OutputKind::Tar, name: "tar", dest: DestRule::PathOrStdout, fields: &[] },
    KindFacts { kind: OutputKind::Local, name: "local", dest: DestRule::Path, fields: &[] },
    KindFacts { kind: OutputKind::Registry, name: "registry", dest: DestRule::None, fields: IMAGE_FIELDS },
];

impl OutputKind {
    fn facts(self) -> &'static KindFacts {
        KINDS.iter().find(|k| k.kind == self).expect("every kind has a line in the table")
    }

    /// Returns the name that `type=` takes.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Whether this is a form of the unikernel, which needs all stages, or of the container's file tree, which needs no kernel.
    pub fn needs_kernel(self) -> bool {
        !matches!(self, OutputKind::Oci | OutputKind::Docker | OutputKind::Tar | OutputKind::Local | OutputKind::Registry)
    }
}

impl fmt::Display for OutputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    /// A file or directory of this machine.
    Path(PathBuf),
    /// Standard output.
    Stdout,
    /// Neither: a registry.
    None,
}

/// One `-o`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What.
    pub kind: OutputKind,
    /// Where.
    pub dest: Dest,
    /// The other fields, by name; each is one that the kind knows.
    pub fields: BTreeMap<String, String>,
}

impl Output {
    /// Returns an image directory.
    pub fn dir(path: impl Into<PathBuf>) -> Output {
        Output { kind: OutputKind::Dir, dest: Dest::Path(path.into()), fields: BTreeMap::new() }
    }

    /// Returns the path it goes to, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.dest {
            Dest::Path(path) => Some(path),
            Dest::Stdout | Dest::None => None,
        }
    }

    /// Returns a field that was given.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// Returns a field that is `true` or `false` (Go's `strconv.ParseBool`); nothing behind the name means `true`.
    ///
    /// # Errors
    /// A sentence for another value.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        match self.field(name) {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(format!("`{name}={other}`: it is `true` or `false`")),
        }
    }

    /// Whether the boot loader of a disk brings the root file system to memory.
    ///
    /// # Errors
    /// A sentence for another value of `root=` than `disk` and `memory`.
    pub fn is_root_in_memory(&self) -> Result<bool, String> {
        match self.field("root") {
            None | Some("disk") => Ok(false),
            Some("memory") => Ok(true),
            Some(other) => Err(format!("`root={other}`: it is `disk` or `memory`")),
        }
    }

    /// Returns the form of the image that a monitor or cloud takes; `None` for the other kinds.
    pub fn machine_form(&self) -> Option<Form> {
        match self.kind {
            OutputKind::Disk => Some(Form::Disk),
            OutputKind::Qcow2 => Some(Form::Qcow2),
            OutputKind::Vhd => Some(Form::Vhd),
            OutputKind::Kernel => Some(Form::Kernel),
            OutputKind::Initrd => Some(Form::Initrd),
            OutputKind::Firecracker => Some(Form::Firecracker),
            OutputKind::CloudHypervisor => Some(Form::CloudHypervisor),
            OutputKind::Xen => Some(Form::Xen),
            OutputKind::Dir | OutputKind::Oci | OutputKind::Docker | OutputKind::Tar | OutputKind::Local | OutputKind::Registry => None,
        }
    }

    /// Whether it is made of the unikernel: by its kind, or because `unikernel=true` asks for the image that `ukc push` sends.
    ///
    /// # Errors
    /// As [`Output::flag`].
    pub fn needs_kernel(&self) -> Result<bool, String> {
        Ok(self.kind.needs_kernel() || self.flag("unikernel")?.unwrap_or(false))
    }
}

impl FromStr for Output {
    type Err = String;

    /// Parses the value of `-o`.
    fn from_str(text: &str) -> Result<Output, String> {
        if text.is_empty() {
            return Err("an output is a directory or `type=TYPE,dest=PATH`".to_owned());
        }
        // docker: what has no `type=` and no comma is a path (buildx, util/buildflags/export.go).
        let words = fields(text)?;
        if words.len() == 1 && !words[0].starts_with("type=") {
            return short(&words[0]);
        }
        let mut kind = None;
        let mut dest = None;
        let mut rest = BTreeMap::new();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            let name = name.trim().to_lowercase();
            match name.as_str() {
                "type" => kind = Some(parse_kind(value)?),
                "dest" | "output" => dest = Some(value.to_owned()),
                _ => drop(rest.insert(name, value.to_owned())),
            }
        }
        let kind = kind.ok_or_else(|| format!("`{text}` has no `type=`; {}", known_types()))?;
        let facts = kind.facts();
        for name in rest.keys() {
            if !facts.fields.contains(&name.as_str()) {
                let message = format!("`type={kind}` has no field `{name}`");
                return Err(match suggest::closest(name, facts.fields.iter().copied().chain(["dest"])) {
                    Some(close) => format!("{message}; did you mean `{close}`?"),
                    None if facts.fields.is_empty() => format!("{message}; it has only `dest`"),
                    None => format!("{message}; it has {}", facts.fields.join(", ")),
                });
            }
        }
        let dest = match (facts.dest, dest.as_deref()) {
            (DestRule::None, None) => Dest::None,
            (DestRule::None, Some(_)) => return Err(format!("`type={kind}` writes no file; name the image with `-t` or `name=`")),
            (DestRule::PathOrStdout, None | Some("" | "-")) => Dest::Stdout,
            (DestRule::Path, None | Some("")) => return Err(format!("`type={kind}` needs `dest=PATH`")),
            (DestRule::Path, Some("-")) => return Err(format!("`type={kind}` cannot go to standard output; give `dest=PATH`")),
            (_, Some(path)) => Dest::Path(path.into()),
        };
        Ok(Output { kind, dest, fields: rest })
    }
}

/// A path alone: a directory, unless its name says what else it is.
fn short(text: &str) -> Result<Output, String> {
    let with = |kind, dest| Ok(Output { kind, dest, fields: BTreeMap::new() });
    match text {
        // docker's: the files of the result as a tar archive.
        "-" => with(OutputKind::Tar, Dest::Stdout),
        _ if text.ends_with(".qcow2") => with(OutputKind::Qcow2, Dest::Path(text.into())),
        _ if text.ends_with(".vhd") => with(OutputKind::Vhd, Dest::Path(text.into())),
        _ if text.ends_with(".raw") => with(OutputKind::Disk, Dest::Path(text.into())),
        _ if text.ends_with(".tar") => with(OutputKind::Oci, Dest::Path(text.into())),
        _ => Ok(Output::dir(text)),
    }
}

fn parse_kind(text: &str) -> Result<OutputKind, String> {
    KINDS.iter().find(|k| k.name == text).map(|k| k.kind).ok_or_else(|| {
        let message = format!("there is no output `type={text}`");
        match suggest::closest(text, KINDS.iter().map(|k| k.name)) {
            Some(close) => format!("{message}; did you mean `{close}`?"),
            None => format!("{message}; {}", known_types()),
        }
    })
}

fn known_types() -> String {
    format!("there are {}", KINDS.iter().map(|k| k.name).collect::<Vec<_>>().join(", "))
}

/// Splits a line of comma-separated values: a field may stand in double quotes, in which a quote is doubled (RFC 4180, section 2).
pub fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut out = vec![];
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let end = rest.find('"').ok_or_else(|| format!("`{text}` has a quote that does not end"))?;
                field.push_str(&rest[..end]);
                rest = &rest[end + 1..];
                match rest.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        rest = more;
                    }
                    None => break,
                }
            }
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(format!("`{text}` has something behind a quoted field"));
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        out.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match text.parse::<Output>() {
            Err(e) => e,
            Ok(output) => {
                let dest = match output.dest {
                    Dest::Path(path) => path.display().to_string(),
                    Dest::Stdout => "<stdout>".to_owned(),
                    Dest::None => "<none>".to_owned(),
                };
                let fields: Vec<String> = output.fields.iter().map(|(n, v)| format!(" {n}={v}")).collect();
                format!("{} {dest}{}", output.kind, fields.concat())
            }
        }
    }

    #[test]
    fn table() {
        for line in [
            "out | dir out",
            "./a=b | dir ./a=b",
            "- | tar <stdout>",
            "app.tar | oci app.tar",
            "type=dir,dest=out | dir out",
            "type=local,dest=out/x | local out/x",
            "type=oci,dest=a.tar,compression=zstd | oci a.tar compression=zstd",
            "dest=a.tar,type=docker | docker a.tar",
            "type=tar | tar <stdout>",
            "type=docker,dest=- | docker <stdout>",
            "type=registry | registry <none>",
            "type=disk,dest=d.raw,root=memory | disk d.raw root=memory",
            "a.qcow2 | qcow2 a.qcow2",
            "a.vhd | vhd a.vhd",
            "a.raw | disk a.raw",
            "type=xen,dest=x | xen x",
            "type=oci,\"dest=a,b.tar\",name=x | oci a,b.tar name=x",
            "type=oci,\"dest=a\"\"b\" | oci a\"b",
            "type=local | `type=local` needs `dest=PATH`",
            "type=dir,dest=- | `type=dir` cannot go to standard output; give `dest=PATH`",
            "type=registry,dest=x | `type=registry` writes no file; name the image with `-t` or `name=`",
            "type=oic,dest=x | there is no output `type=oic`; did you mean `oci`?",
            "type=zip | there is no output `type=zip`; there are dir, oci, docker, tar, local, registry",
            "type=oci,compresion=gzip | `type=oci` has no field `compresion`; did you mean `compression`?",
            "type=tar,dest=x,name=y | `type=tar` has no field `name`; it has only `dest`",
            "dest=x,name=y | `dest=x,name=y` has no `type=`; there are dir, oci, docker, tar, local, registry",
            "type=oci,\"dest=x | `type=oci,\"dest=x` has a quote that does not end",
        ] {
            let (text, expected) = line.split_once(" | ").unwrap();
            let found = show(text);
            // The list of types grows.
            let stable = |s: &str| s.split("; there are ").next().unwrap_or_default().to_owned();
            assert_eq!(stable(&found), stable(expected), "{text}");
        }
        assert!(show("").contains("type=TYPE"));
    }

    #[test]
    fn flags() {
        let flag = |text: &str| format!("type=oci,dest=x,{text}").parse::<Output>().unwrap().flag("tar");
        assert_eq!(
            (flag("tar"), flag("tar=false"), flag("tar=1"), flag("name=x")),
            (Ok(Some(true)), Ok(Some(false)), Ok(Some(true)), Ok(None))
        );
        assert!(flag("tar=maybe").unwrap_err().contains("tar=maybe"));
        let unikernel: Output = "type=registry,unikernel=true".parse().unwrap();
        assert_eq!((unikernel.needs_kernel(), "type=registry".parse::<Output>().unwrap().needs_kernel()), (Ok(true), Ok(false)));
    }

    #[test]
    fn every_kind_has_its_name() {
        for facts in KINDS {
            assert_eq!(parse_kind(facts.kind.name()), Ok(facts.kind));
        }
    }
}
