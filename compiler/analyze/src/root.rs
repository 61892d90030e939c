//! From the image's configuration to the ELF file that runs: PATH lookup and `#!` chains, as execvp(3) and execve(2) do them inside the image.

use ukc_diagnostics::Diagnostic;
use ukc_elf::ElfError;
use ukc_rootfs::{ImageConfig, Kind, NodeId, ResolveError, Tree};

use crate::Context;
use crate::facts::shown;
use crate::files::{Files, Found};
use crate::script;

/// PATH when the image sets none (Docker's engine).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How many `#!` lines Linux follows (fs/exec.c, `exec_binprm`: more than 5 are ELOOP).
const MAX_SCRIPTS: usize = 5;

/// A file that execution starts with or ends at.
#[derive(Debug, Clone)]
pub struct Executable {
    /// Its node.
    pub id: NodeId,
    /// Path without symbolic links.
    pub path: Vec<u8>,
    /// The path it was asked for by: its last component is what a multi-call program goes by.
    pub asked: Vec<u8>,
}

/// A program with the scripts that lead to it.
#[derive(Debug, Clone)]
pub struct Chain {
    /// What was asked for, first.
    pub scripts: Vec<Executable>,
    /// The ELF file.
    pub program: Executable,
    /// What `env` in a `#!` line starts.
    pub also: Vec<Executable>,
}

/// Why a name leads to no program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupError {
    /// It does not exist.
    NotFound(ResolveError),
    /// In no directory of PATH.
    NotInPath,
    /// A directory.
    Directory(NodeId, Vec<u8>),
    /// A device, pipe or socket.
    NotRegular(NodeId, Vec<u8>),
    /// No execute permission.
    NotExecutable(NodeId, Vec<u8>),
}

/// The directories of PATH.
pub fn path_directories(config: &ImageConfig) -> Vec<String> {
    let path = config.env_var("PATH").unwrap_or(DEFAULT_PATH);
    path.split(':').map(|d| if d.is_empty() { "." } else { d }.to_owned()).collect()
}

/// Returns the working directory.
pub fn working_directory(config: &ImageConfig) -> &str {
    if config.working_dir.is_empty() { "/" } else { &config.working_dir }
}

/// Looks a program up as execvp(3) does: a name with a slash is a path from the working directory, another is searched in PATH.
///
/// # Errors
/// What is there instead. A file in PATH that is not executable is reported when no later directory has a better one.
pub fn lookup(tree: &Tree, config: &ImageConfig, name: &[u8]) -> Result<Executable, LookupError> {
    let cwd = working_directory(config).as_bytes();
    if name.contains(&b'/') {
        return at_path(tree, cwd, name);
    }
    let mut denied = None;
    for dir in path_directories(config) {
        let path = [dir.as_bytes(), b"/", name].concat();
        match at_path(tree, cwd, &path) {
            Ok(found) => return Ok(found),
            Err(e @ LookupError::NotExecutable(..)) if denied.is_none() => denied = Some(e),
            Err(_) => {}
        }
    }
    Err(denied.unwrap_or(LookupError::NotInPath))
}

fn at_path(tree: &Tree, cwd: &[u8], path: &[u8]) -> Result<Executable, LookupError> {
    let found = tree.resolve_from(cwd, path, true).map_err(LookupError::NotFound)?;
    let node = tree.node(found.id);
    match node.kind {
        Kind::Dir(_) => Err(LookupError::Directory(found.id, found.path)),
        Kind::File(_) if node.meta.mode & 0o111 == 0 => Err(LookupError::NotExecutable(found.id, found.path)),
        Kind::File(_) => Ok(Executable { id: found.id, path: found.path, asked: path.to_vec() }),
        _ => Err(LookupError::NotRegular(found.id, found.path)),
    }
}

/// Follows `#!` lines from `start` to an ELF file.
///
/// # Errors
/// The diagnostic to show, at the instruction that brought the file in which it is about.
pub fn follow(context: &Context<'_>, files: &mut Files<'_>, start: Executable) -> Result<Chain, Box<Diagnostic>> {
    let tree = context.tree;
    let mut chain = Chain { scripts: vec![], program: start, also: vec![] };
    loop {
        let here = chain.program.clone();
        let name = shown(&here.path);
        let (error, head) = match files.get(here.id) {
            Found::Elf(_) => return Ok(chain),
            Found::NotRegular => {
                return Err(context.at_node(here.id, "", Diagnostic::error("program-not-regular", format!("`{name}` is no regular file"))));
            }
            Found::Unreadable(why) => {
                return Err(context.at_node(
                    here.id,
                    "",
                    Diagnostic::error("unreadable-program", format!("`{name}` cannot be read: {why}")),
                ));
            }
            Found::Other(error, head) => (error, head),
        };
        if error != ElfError::NotElf {
            return Err(bad_elf(context, here.id, &name, &error));
        }
        let Some(line) = script::shebang(&head) else {
            let (text, help) = if head.is_empty() {
                ("is empty".to_owned(), "the build step that should have written it left an empty file")
            } else {
                (
                    "is neither an ELF program nor a script with a `#!` line".to_owned(),
                    "if it is a script, make `#!/bin/sh` (or its interpreter) its first line",
                )
            };
            let d = Diagnostic::error("not-a-program", format!("`{name}` {text}, so Linux cannot execute it"));
            return Err(context.at_node(here.id, "this is what the image starts", d.help(help)));
        };
        chain.scripts.push(here.clone());
        if chain.scripts.len() > MAX_SCRIPTS {
            let d = Diagnostic::error(
                "script-loop",
                format!("`{name}` leads through more than {MAX_SCRIPTS} scripts, which Linux refuses (`ELOOP`)"),
            );
            return Err(context.at_node(here.id, "", d));
        }
        let cwd = working_directory(context.config).as_bytes();
        let interpreter = shown(&line.interpreter);
        let found = at_path(tree, cwd, &line.interpreter).map_err(|e| {
            let what = match &e {
                LookupError::NotExecutable(..) => "is not executable",
                LookupError::Directory(..) => "is a directory",
                _ => "the image does not contain",
            };
            let text = if what.starts_with("is") {
                format!("`{name}` is run by `{interpreter}`, which {what}")
            } else {
                format!("`{name}` is run by `{}`, which {what}", interpreter.escape_debug())
            };
            let mut d = Diagnostic::error("missing-script-interpreter", text);
            d = if interpreter.ends_with('\r') {
                d.note("the `#!` line ends with a carriage return, which is part of the name")
                    .help("save the script with Unix line endings")
            } else {
                d.help(format!("install it in this stage, or change the first line of `{name}`"))
            };
            context.at_node(here.id, "this script asks for it (`#!`)", d)
        })?;
        if base_name(&line.interpreter) == b"env" {
            // Linux passes everything behind the interpreter as one argument, then the script.
            let args: Vec<Vec<u8>> = line.argument.iter().cloned().collect();
            match script::env_command(&args) {
                Some(command) => match lookup(tree, context.config, &command) {
                    Ok(program) => chain.also.push(program),
                    Err(_) => {
                        let command = shown(&command);
                        let d = Diagnostic::error(
                            "missing-script-interpreter",
                            format!("`{name}` is run by `{command}` (through `env`), which is in no directory of PATH"),
                        );
                        let d = if command.contains(' ') {
                            d.help("`env` gets everything behind it as one argument; use `env -S` to pass options")
                        } else {
                            d.help(format!("install `{command}` in this stage"))
                        };
                        return Err(context.at_node(here.id, "this script asks for it (`#!`)", d));
                    }
                },
                None => {
                    let d =
                        Diagnostic::error("missing-script-interpreter", format!("the `#!` line of `{name}` runs `env` without a program"));
                    return Err(context.at_node(here.id, "", d));
                }
            }
        }
        chain.program = found;
    }
}

/// Describes a file that is ELF but cannot run here.
pub fn bad_elf(context: &Context<'_>, id: NodeId, name: &str, error: &ElfError) -> Box<Diagnostic> {
    let (kind, help) = match error {
        ElfError::Not64Bit(_) => ("program-32-bit", "ukc runs 64-bit programs: build it for x86_64, or install the amd64 package"),
        ElfError::ForeignArch(_) | ElfError::BigEndian(_) => {
            ("foreign-architecture", "take the linux/amd64 variant of the base image, or build the program for x86_64")
        }
        ElfError::Truncated { .. } => ("program-truncated", "the file was cut short on its way into the image: build or download it again"),
        _ => ("not-a-program", "the image must start a linked program or a script"),
    };
    let d = Diagnostic::error(kind, format!("`{name}` cannot run: {error}")).help(help);
    context.at_node(id, "this brought the file in", d)
}

/// Describes a name that leads to no program.
pub fn bad_lookup(context: &Context<'_>, name: &[u8], error: &LookupError) -> Box<Diagnostic> {
    let text = shown(name);
    let found = |id: NodeId, path: &[u8], kind, what: &str, help: String| {
        let d = Diagnostic::error(kind, format!("`{}` {what}, so it cannot be started", shown(path))).help(help);
        context.at_node(id, "this brought it in", context.at_command(d))
    };
    match error {
        LookupError::NotInPath => {
            let path = context.config.env_var("PATH").unwrap_or(DEFAULT_PATH);
            let d =
                Diagnostic::error("program-not-found", format!("`{text}` is in no directory of PATH")).note(format!("PATH is `{path}`"));
            let d = match elsewhere(context.tree, name) {
                Some(other) => d.help(format!("the image has `{}`: name it with its path", shown(&other))),
                None if text.contains(' ') => d.help("the exec form takes one string per argument: `[\"program\", \"argument\"]`"),
                None => d.help("install the program in the last stage, or correct the name"),
            };
            Box::new(context.at_command(d))
        }
        LookupError::NotFound(why) => {
            let reason = match why {
                ResolveError::NotFound => "does not exist in the image",
                ResolveError::NotADirectory => "leads through something that is no directory",
                ResolveError::Loop => "leads through a loop of symbolic links",
            };
            let d = Diagnostic::error("program-not-found", format!("`{text}` {reason}"));
            let d = match elsewhere(context.tree, name) {
                Some(other) => d.help(format!("the image has `{}`", shown(&other))),
                None => d.help("check the destination of the `COPY` that should bring it in"),
            };
            Box::new(context.at_command(d))
        }
        LookupError::Directory(id, path) => found(*id, path, "program-is-directory", "is a directory", "name a file in it".to_owned()),
        LookupError::NotRegular(id, path) => found(*id, path, "program-not-regular", "is no regular file", "name a program".to_owned()),
        LookupError::NotExecutable(id, path) => {
            let mode = context.tree.node(*id).meta.mode;
            let what = format!("is not executable (mode {mode:04o})");
            found(*id, path, "program-not-executable", &what, "make it executable before the build, or use `COPY --chmod=755`".to_owned())
        }
    }
}

/// Returns the path of an executable file of the same name somewhere else in the image.
fn elsewhere(tree: &Tree, name: &[u8]) -> Option<Vec<u8>> {
    let wanted = base_name(name);
    let mut out = None;
    tree.walk(&mut |path, id| {
        let node = tree.node(id);
        if out.is_none() && base_name(path) == wanted && matches!(node.kind, Kind::File(_)) && node.meta.mode & 0o111 != 0 {
            out = Some(path.to_vec());
        }
    });
    out
}

/// Returns the last component of a path.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}
