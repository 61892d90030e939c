//! Files of a case that git cannot hold: tiny programs, links, odd names, base images.
//!
//! A file `make` in a case has one per line; words are separated by spaces, paths are relative to the case's work folder (`context/` is the build context), and
//! `\xNN` stands for a byte.
//!
//! | line | makes |
//! |---|---|
//! | `elf PATH [KEY=VALUE...]` | an ELF program or library: `calls=1,60` numbers it calls, `interp=`, `needed=a,b`, `soname=`, `runpath=`, `machine=N`, `exec=yes`, `class=32`, `cut=N` bytes kept |
//! | `text PATH WORDS...` | a file with these words and a newline; `\n` is a newline |
//! | `link PATH TARGET`, `hard PATH EXISTING` | a symbolic link, another name |
//! | `fifo PATH`, `socket PATH`, `dir PATH` | these |
//! | `tar PATH DIR` | an archive of the folder DIR of the case's context, made by tar(1) |
//! | `mode OCTAL PATH` | permissions |
//! | `layout NAME DIR [KEY=VALUE...]` | an OCI layout of the folder DIR as the image NAME: `env=A=1`, `cmd=a,b`, `entrypoint=`, `user=`, `onbuild=` (`_` for spaces) |
//! | `damage NAME` | changes a byte in the layer of that layout |

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ukc_elf::fixture::Fixture;
use ukc_oci::write_layout;
use ukc_rootfs::{Content, ImageConfig, Kind, Meta, Node, NodeId, Tree};

/// Executes the lines below `dir`; returns the named contexts of its layouts.
///
/// # Errors
/// The first line that cannot be understood or executed.
pub fn run(text: &str, dir: &Path) -> Result<Vec<String>, String> {
    let mut contexts = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').filter(|w| !w.is_empty()).collect();
        one(&words, dir, &mut contexts).map_err(|e| format!("make: `{line}`: {e}"))?;
    }
    Ok(contexts)
}

fn one(words: &[&str], dir: &Path, contexts: &mut Vec<String>) -> Result<(), String> {
    let io = |e: std::io::Error| e.to_string();
    let new = |word: &str| {
        let path = dir.join(unescape(word));
        path.parent().map_or(Ok(()), fs::create_dir_all).map(|()| path).map_err(io)
    };
    match words {
        ["elf", path, keys @ ..] => {
            let path = new(path)?;
            fs::write(&path, elf(keys)?).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755))).map_err(io)
        }
        ["text", path, text @ ..] => fs::write(new(path)?, text.join(" ").replace("\\n", "\n") + "\n").map_err(io),
        ["link", path, target] => symlink(unescape(target), new(path)?).map_err(io),
        ["hard", path, existing] => fs::hard_link(dir.join(unescape(existing)), new(path)?).map_err(io),
        ["dir", path] => fs::create_dir_all(new(path)?).map_err(io),
        ["fifo", path] => match Command::new("mkfifo").arg(new(path)?).status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err("mkfifo failed".to_owned()),
        },
        ["socket", path] => std::os::unix::net::UnixListener::bind(new(path)?).map(drop).map_err(io),
        ["tar", path, from] => {
            let mut tar = Command::new("tar");
            tar.args(["--sort=name", "--owner=7:7", "--group=8:8", "--mtime=@5", "-cf"]).arg(new(path)?);
            match tar.arg("-C").arg(dir.join("context").join(from)).arg(".").status() {
                Ok(status) if status.success() => Ok(()),
                _ => Err("tar failed".to_owned()),
            }
        }
        ["mode", mode, path] => {
            let mode = u32::from_str_radix(mode, 8).map_err(|e| e.to_string())?;
            fs::set_permissions(dir.join(unescape(path)), fs::Permissions::from_mode(mode)).map_err(io)
        }
        ["layout", name, from, keys @ ..] => {
            let layout = layout_dir(dir, name);
            write_layout(&tree(&dir.join(from))?, &config(keys)?, &layout, "latest").map_err(|e| e.to_string())?;
            contexts.push(format!("{name}=oci-layout://{}", layout.display()));
            Ok(())
        }
        ["damage", name] => damage(&layout_dir(dir, name)),
        _ => Err("nobody knows this line".to_owned()),
    }
}

fn layout_dir(dir: &Path, name: &str) -> PathBuf {
    dir.join("layouts").join(name.replace([':', '/'], "_"))
}

fn unescape(word: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = word;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let digits = rest.get(at + 2..at + 4).unwrap_or_default();
        bytes.extend(u8::from_str_radix(digits, 16).ok());
        rest = rest.get(at + 4..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    std::ffi::OsString::from_vec(bytes).into()
}

fn pairs<'a>(keys: &[&'a str]) -> Result<Vec<(&'a str, &'a str)>, String> {
    keys.iter().map(|k| k.split_once('=').ok_or_else(|| format!("`{k}` is not KEY=VALUE"))).collect()
}

fn list(value: &str) -> Vec<String> {
    value.split(',').filter(|v| !v.is_empty()).map(str::to_owned).collect()
}

fn elf(keys: &[&str]) -> Result<Vec<u8>, String> {
    let mut fixture = Fixture::default();
    let mut calls: Vec<u32> = vec![60];
    let (mut class, mut cut) = (2, usize::MAX);
    let number = |value: &str| value.parse::<u32>().map_err(|e| format!("`{value}`: {e}"));
    for (key, value) in pairs(keys)? {
        match key {
            "calls" => calls = value.split(',').map(number).collect::<Result<_, _>>()?,
            "interp" => fixture.interpreter = Some(value.to_owned()),
            "needed" => fixture.needed = list(value),
            "soname" => fixture.soname = Some(value.to_owned()),
            "runpath" => fixture.runpath = Some(value.to_owned()),
            "machine" => fixture.machine = number(value)? as u16,
            "exec" => fixture.is_exec = value == "yes",
            // EI_CLASS (gABI, "ELF Identification"): 1 is 32 bits.
            "class" => class = if value == "32" { 1 } else { 2 },
            "cut" => cut = number(value)? as usize,
            _ => return Err(format!("nobody knows `{key}`")),
        }
    }
    for call in &calls {
        // mov eax, CALL; syscall
        fixture.code.push(0xb8);
        fixture.code.extend_from_slice(&call.to_le_bytes());
        fixture.code.extend_from_slice(&[0x0f, 0x05]);
    }
    // Not reached: jmp to itself.
    fixture.code.extend_from_slice(&[0xeb, 0xfe]);
    fixture.functions.push(("start".to_owned(), 0, fixture.code.len() as u64));
    let mut bytes = fixture.build();
    bytes[4] = class;
    bytes.truncate(cut);
    Ok(bytes)
}

fn config(keys: &[&str]) -> Result<ImageConfig, String> {
    let mut config = ImageConfig { architecture: "amd64".to_owned(), os: "linux".to_owned(), ..ImageConfig::default() };
    for (key, value) in pairs(keys)? {
        match key {
            "env" => {
                let (name, value) = value.split_once('=').ok_or("env=NAME=VALUE")?;
                config.set_env(name, value);
            }
            "cmd" => config.cmd = Some(list(value)),
            "entrypoint" => config.entrypoint = Some(list(value)),
            "user" => config.user = value.to_owned(),
            "onbuild" => config.on_build.push(value.replace('_', " ")),
            _ => return Err(format!("nobody knows `{key}`")),
        }
    }
    Ok(config)
}

/// Reads a folder as a tree of root's, dated at the epoch, so that layouts are the same everywhere.
fn tree(dir: &Path) -> Result<Tree, String> {
    let mut tree = Tree::new();
    fill(&mut tree, Tree::ROOT, dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(tree)
}

fn fill(tree: &mut Tree, parent: NodeId, dir: &Path) -> std::io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, meta) = (entry.path(), entry.metadata()?);
        let kind = if meta.is_dir() {
            Kind::Dir(Default::default())
        } else if meta.is_symlink() {
            Kind::Symlink(fs::read_link(&path)?.into_os_string().into_vec())
        } else {
            Kind::File(Content::from_bytes(fs::read(&path)?))
        };
        let mode = (meta.permissions().mode() & 0o7777) as u16;
        let id = tree.add(Node { meta: Meta::new(mode), kind, origin: None });
        tree.link(parent, &entry.file_name().into_vec(), id);
        if meta.is_dir() {
            fill(tree, id, &path)?;
        }
    }
    Ok(())
}

/// Changes a byte in the middle of the layout's gzip blob.
fn damage(layout: &Path) -> Result<(), String> {
    let blobs = layout.join("blobs/sha256");
    for entry in fs::read_dir(&blobs).map_err(|e| e.to_string())?.flatten() {
        let mut bytes = fs::read(entry.path()).map_err(|e| e.to_string())?;
        // RFC 1952, 2.3.1: the first two bytes.
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            return fs::write(entry.path(), bytes).map_err(|e| e.to_string());
        }
    }
    Err("the layout has no gzip layer".to_owned())
}
