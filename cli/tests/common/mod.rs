//! A folder with a store, caches and a build context of its own, and `ukc` run in it.
#![allow(dead_code)] // each test file uses its part

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ukc_elf::fixture::Fixture;

/// Where a test works.
pub struct Place {
    dir: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Did {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Did {
    /// Fails the test unless the status is this.
    #[track_caller]
    pub fn status(self, expected: i32) -> Did {
        assert_eq!(self.status, expected, "{self:#?}");
        self
    }

    /// Fails the test unless standard error says this.
    #[track_caller]
    pub fn says(self, text: &str) -> Did {
        assert!(self.err.contains(text), "`{text}` is not in {self:#?}");
        self
    }

    /// Fails the test unless nothing went to standard output.
    #[track_caller]
    pub fn no_output(self) -> Did {
        assert_eq!(self.out, "", "{self:#?}");
        self
    }
}

/// A program that ends with this status: mov edi, STATUS; mov eax, 231 (exit_group); syscall.
pub fn exits(status: u8) -> Vec<u8> {
    program(&[0xbf, status, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05])
}

/// A program that waits for a signal: mov eax, 34 (pause); syscall; jmp back.
pub fn pauses() -> Vec<u8> {
    program(&[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7])
}

pub fn program(code: &[u8]) -> Vec<u8> {
    Fixture { is_exec: true, code: code.to_vec(), functions: vec![("start".into(), 0, code.len() as u64)], ..Fixture::default() }.build()
}

impl Place {
    /// An empty place with a context folder.
    pub fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("context")).unwrap();
        place
    }

    /// A place whose context builds an image with this program.
    pub fn with_program(bytes: &[u8]) -> Place {
        let place = Place::new();
        place.file("context/Dockerfile", "FROM scratch\nCOPY app /app\nENTRYPOINT [\"/app\"]\n");
        fs::write(place.path("context/app"), bytes).unwrap();
        fs::set_permissions(place.path("context/app"), fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Returns `ukc` with arguments, at home here.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ukc"));
        self.at_home(&mut command);
        command.args(args);
        command
    }

    /// Lets a command run here and keep its things here.
    pub fn at_home(&self, command: &mut Command) {
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CONFIG_HOME", self.path("config"));
        for name in ["BUILDKIT_PROGRESS", "SOURCE_DATE_EPOCH", "NO_COLOR"] {
            command.env_remove(name);
        }
    }

    /// Runs `ukc`.
    pub fn ukc(&self, args: &[&str]) -> Did {
        did(&mut self.command(args))
    }

    /// How many things are left in the store's folder for unfinished ones.
    pub fn unfinished(&self) -> usize {
        fs::read_dir(self.path("data/ukc/tmp")).map_or(0, Iterator::count)
    }
}

/// Runs a command.
pub fn did(command: &mut Command) -> Did {
    use std::os::unix::process::ExitStatusExt;
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    Did { status, out: text(&output.stdout), err: text(&output.stderr) }
}

/// Returns the bytes of a file.
pub fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
