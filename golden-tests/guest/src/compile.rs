//! Source → a folder that is both what Linux runs from and the build context of the image: the binary, the libraries it loads, a Dockerfile.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::plan::{Link, Test};

/// What a test runs.
#[derive(Debug)]
pub struct Prepared {
    /// The command on Linux; its first word is a path.
    pub command: Vec<String>,
    /// The build context, with a Dockerfile.
    pub context: PathBuf,
}

/// Applets that scripts may use.
const APPLETS: &str = "sh ls cat echo printf test [ expr seq sort uniq wc head tail tr cut grep sed awk sleep kill rm mkdir rmdir mv cp ln touch date \
                       true false basename dirname env id uname tee xargs find dd mktemp stat chmod chown ps yes od md5sum hostname mount df readlink";

/// Makes everything that a test needs below `dir`.
///
/// # Errors
/// A compiler that is missing or refuses the program, with its messages.
pub fn prepare(test: &Test, dir: &Path) -> Result<Prepared, String> {
    let context = dir.join("context");
    fs::create_dir_all(context.join("root")).map_err(|e| e.to_string())?;
    let (command, files) = match test.link {
        Link::Busybox | Link::Bash => script(test, &context)?,
        _ => binary(test, &context)?,
    };
    for file in files {
        copy_into(&context.join("root"), &file)?;
    }
    let words: Vec<String> = command.guest.iter().map(|w| format!("{w:?}")).collect();
    // Directories that programs expect, also of an image made from nothing.
    fs::create_dir_all(context.join("root/tmp")).map_err(|e| e.to_string())?;
    let text = format!(
        "# {}\nFROM scratch\nCOPY root /\nCOPY --chmod=1777 root/tmp /tmp\nWORKDIR /work\nENTRYPOINT [{}]\n",
        test.name,
        words.join(", ")
    );
    fs::write(context.join("Dockerfile"), text).map_err(|e| e.to_string())?;
    Ok(Prepared { command: command.host, context })
}

struct Commands {
    host: Vec<String>,
    guest: Vec<String>,
}

fn binary(test: &Test, context: &Path) -> Result<(Commands, Vec<PathBuf>), String> {
    let out = context.join("root/test");
    let mut compiler = match test.link {
        Link::Musl | Link::MuslDynamic => Command::new("musl-gcc"),
        Link::Go => Command::new("go"),
        _ => Command::new("gcc"),
    };
    let flags: &[&str] = match test.link {
        Link::Static | Link::Musl => &["-static", "-no-pie"],
        Link::StaticPie => &["-static-pie", "-fPIE"],
        Link::Go => &["build", "-trimpath"],
        _ => &[],
    };
    compiler.args(flags);
    if test.link == Link::Go {
        // A binary with cgo would need the C library.
        compiler.env("CGO_ENABLED", "0").env("GO111MODULE", "off").env("GOFLAGS", "");
    } else {
        compiler.args(["-O2", "-g", "-Wall", "-Wno-unused-result", "-pthread"]);
    }
    compiler.arg("-o").arg(&out).arg(&test.source);
    compiler.args(test.libs.iter().map(|l| format!("-l{l}")));
    checked(&mut compiler)?;
    let mut files = if matches!(test.link, Link::Dynamic | Link::MuslDynamic) { libraries(&out)? } else { vec![] };
    if test.link == Link::Dynamic {
        // glibc opens it when a thread is cancelled, and no program names it.
        let unwinder = checked(Command::new("gcc").arg("-print-file-name=libgcc_s.so.1"))?;
        let unwinder = fs::canonicalize(unwinder.trim()).map_err(|e| format!("libgcc_s.so.1: {e}"))?;
        files.push(unwinder);
    }
    let host = [vec![out.display().to_string()], test.args.clone()].concat();
    let guest = [vec!["/test".to_owned()], test.args.clone()].concat();
    Ok((Commands { host, guest }, files))
}

fn script(test: &Test, context: &Path) -> Result<(Commands, Vec<PathBuf>), String> {
    let busybox = which("busybox")?;
    let root = context.join("root");
    fs::create_dir_all(root.join("bin")).map_err(|e| e.to_string())?;
    fs::copy(&busybox, root.join("bin/busybox")).map_err(|e| format!("{}: {e}", busybox.display()))?;
    for applet in APPLETS.split_ascii_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).map_err(|e| format!("{applet}: {e}"))?;
    }
    let host_script = root.join("test.sh");
    fs::copy(&test.source, &host_script).map_err(|e| format!("{}: {e}", test.source.display()))?;
    let host_script = host_script.display().to_string();
    let (host, guest, files) = if test.link == Link::Bash {
        let bash = fs::canonicalize(which("bash")?).map_err(|e| e.to_string())?;
        let mut files = libraries(&bash)?;
        fs::copy(&bash, root.join("bin/bash")).map_err(|e| e.to_string())?;
        files.sort();
        (vec![root.join("bin/bash").display().to_string(), host_script], vec!["/bin/bash", "/test.sh"], files)
    } else {
        let host = vec![root.join("bin/busybox").display().to_string(), "sh".to_owned(), host_script];
        (host, vec!["/bin/busybox", "sh", "/test.sh"], vec![])
    };
    let guest = guest.into_iter().map(str::to_owned).chain(test.args.clone()).collect();
    Ok((Commands { host: [host, test.args.clone()].concat(), guest }, files))
}

/// Returns the libraries and the loader of a dynamic program, by their paths on this machine, as its loader finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, String> {
    // `ldd` of a musl program is musl's loader itself.
    let interpreter = interpreter(program)?;
    let mut list = Command::new(&interpreter);
    let is_musl = interpreter.to_string_lossy().contains("musl");
    if !is_musl {
        list.arg("--list");
        list.arg(program);
    }
    let mut files = vec![interpreter.clone()];
    if !is_musl {
        let text = checked(&mut list)?;
        for word in text.split_ascii_whitespace().filter(|w| w.starts_with('/')) {
            if !files.contains(&PathBuf::from(word)) {
                files.push(word.into());
            }
        }
    }
    Ok(files)
}

/// Returns the text of the program header PT_INTERP, by the simplest means: it is the first path of a loader in the file.
fn interpreter(program: &Path) -> Result<PathBuf, String> {
    let bytes = fs::read(program).map_err(|e| format!("{}: {e}", program.display()))?;
    let head = &bytes[..bytes.len().min(4096)];
    let start = head.windows(4).position(|w| w == b"/lib").ok_or("the program names no loader")?;
    let end = head[start..].iter().position(|b| *b == 0).ok_or("the loader's name does not end")?;
    Ok(PathBuf::from(String::from_utf8_lossy(&head[start..start + end]).into_owned()))
}

/// Copies a file of this machine to the same path below `root`, following links.
fn copy_into(root: &Path, file: &Path) -> Result<(), String> {
    let to = root.join(file.strip_prefix("/").unwrap_or(file));
    let parent = to.parent().unwrap_or(root);
    fs::create_dir_all(parent).and_then(|()| fs::copy(file, &to)).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(())
}

fn which(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|d| d.join(program)).find(|p| p.is_file()).ok_or_else(|| format!("`{program}` is not installed"))
}

fn checked(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("cannot run `{name}`: {e}"))?;
    if !output.status.success() {
        return Err(format!("`{name}` failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the `ukc` of this checkout, built now in the profile that this test was built in.
///
/// # Errors
/// Why it could not be built.
pub fn ukc(workspace: &Path) -> Result<PathBuf, String> {
    if let Some(given) = std::env::var_os("UKC") {
        return Ok(given.into());
    }
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let profile = me.ancestors().nth(2).ok_or("the test's executable lies in no target folder")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "ukc", "--locked"]).current_dir(workspace);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    match cargo.status() {
        Ok(status) if status.success() => Ok(profile.join("ukc")),
        Ok(_) => Err("building ukc failed".to_owned()),
        Err(e) => Err(format!("cannot run cargo: {e}")),
    }
}
