//! Dockerfiles on a base of Debian packages, executed for real.
#![allow(dead_code)] // each test file uses its part

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ukc_build::run::CacheUse;
use ukc_build::{Built, NamedContext, Options, execute_with, lower};
use ukc_diagnostics::{Diagnostic, SourceMap, render};
use ukc_dockerfile::parse;
use ukc_oci::Store;
use ukc_rootfs::Kind;
use ukc_sandbox::{Config, RunEvent, Sandbox};

pub struct Case {
    pub dir: tempfile::TempDir,
    pub options: Options,
    pub config: Config,
    pub log: RefCell<String>,
    pub cached: RefCell<u32>,
    pub stop_after: Option<&'static str>,
}

/// Returns the layout of the base, made once.
pub fn base() -> &'static Path {
    static BASE: OnceLock<tempfile::TempDir> = OnceLock::new();
    BASE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/make-debian-base");
        let out = dir.path().join("base");
        let made = Command::new(script)
            .arg(&out)
            .args(["--include=coreutils,login,passwd,grep,libcap2-bin,attr,perl-base", "--user=app:1000"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        dir
    })
    .path()
}

/// Whether the tests are run by root; others have 65536 ids and make no device nodes.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn case() -> Case {
    let dir = tempfile::tempdir().unwrap();
    let context = dir.path().join("context");
    fs::create_dir(&context).unwrap();
    let mut options = Options::new(context);
    options.named_contexts.push(NamedContext::parse(&format!("base=oci-layout://{}", base().join("base").display())).unwrap());
    let helper = std::env::var_os("UKC_TEST_HELPER").unwrap_or(env!("CARGO_BIN_EXE_ukc-run-helper").into());
    let config = Config { helper: Some(helper.into()), ..Config::default() };
    Case { dir, options, config, log: RefCell::default(), cached: RefCell::default(), stop_after: None }
}

impl Case {
    pub fn file(self, path: &str, text: &str) -> Case {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub fn arg(mut self, name: &str, value: &str) -> Case {
        self.options.build_args.push((name.into(), value.into()));
        self
    }

    pub fn without_overlay(mut self) -> Case {
        self.config.never_overlay = true;
        self
    }

    pub fn no_cache(mut self) -> Case {
        self.options.run.cache = CacheUse::Nothing;
        self
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Builds; the output goes to [`Case::log`]. Diagnostics are rendered, with the case's directory as `DIR`.
    pub fn run(&self, dockerfile: &str) -> Result<Built, String> {
        self.log.borrow_mut().clear();
        *self.cached.borrow_mut() = 0;
        let mut sources = SourceMap::default();
        let file = sources.add("Dockerfile", dockerfile.as_bytes());
        let parsed = parse(file, dockerfile.as_bytes());
        let store = Store::open(self.store()).unwrap();
        let on_event = |event: RunEvent<'_>| match event {
            RunEvent::Cached => *self.cached.borrow_mut() += 1,
            RunEvent::Output(bytes) => self.log.borrow_mut().push_str(&String::from_utf8_lossy(bytes)),
        };
        let is_cancelled = || self.stop_after.is_some_and(|text| self.log.borrow().contains(text));
        let mut sandbox = Sandbox::new(&self.store(), self.config.clone(), on_event, is_cancelled);
        let built = lower(&parsed, &mut sources, &self.options, &store)
            .and_then(|lowered| execute_with(lowered, &mut sources, &self.options, &store, &mut |_| true, &mut sandbox));
        built.map_err(|problems: Vec<Diagnostic>| {
            let text: Vec<String> = problems.iter().map(|d| render(&sources, d, false)).collect();
            text.join("\n").replace(&self.dir.path().display().to_string(), "DIR")
        })
    }

    pub fn built(&self, dockerfile: &str) -> Built {
        self.run(dockerfile).unwrap_or_else(|e| panic!("{dockerfile}\n{e}\n{}", self.log.borrow()))
    }

    pub fn error(&self, dockerfile: &str) -> String {
        match self.run(dockerfile) {
            Ok(_) => panic!("{dockerfile}\nbuilds\n{}", self.log.borrow()),
            Err(text) => text,
        }
    }

    /// Runs `script` in the base and returns what it prints.
    pub fn output(&self, script: &str) -> String {
        self.built(&format!("FROM base\nRUN {script}\n"));
        self.log.borrow().clone()
    }
}

/// Returns `type mode uid:gid ...` of a path, or nothing.
pub fn entry(built: &Built, path: &str) -> Option<String> {
    let parent = path.rsplit_once('/').unwrap().0;
    let name = path.rsplit_once('/').unwrap().1;
    let dir = built.tree.resolve(format!("{parent}/").as_bytes()).ok()?;
    let id = *built.tree.entries(dir.id)?.get(name.as_bytes())?;
    let node = built.tree.node(id);
    let meta = &node.meta;
    let owner = format!("{:04o} {}:{}", meta.mode, meta.uid, meta.gid);
    Some(match &node.kind {
        Kind::Dir(_) => format!("d{owner}"),
        Kind::File(content) => format!("-{owner} {}", String::from_utf8_lossy(&content.read_all().unwrap())),
        Kind::Symlink(target) => format!("l{owner} {}", String::from_utf8_lossy(target)),
        Kind::CharDevice(a, b) => format!("c{owner} {a}:{b}"),
        Kind::BlockDevice(a, b) => format!("b{owner} {a}:{b}"),
        Kind::Fifo => format!("p{owner}"),
    })
}

pub fn text(built: &Built, path: &str) -> String {
    let found = built.tree.resolve(path.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e:?}"));
    let Kind::File(content) = &built.tree.node(found.id).kind else { panic!("{path} is no file") };
    String::from_utf8(content.read_all().unwrap()).unwrap()
}

/// Returns the paths that are in one tree alone, or differ.
pub fn difference(a: &Built, b: &Built) -> String {
    let (a, b) = (a.tree.to_text(), b.tree.to_text());
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (a, b) = (lines(&a), lines(&b));
    let gone = a.difference(&b).map(|l| format!("-{l}"));
    gone.chain(b.difference(&a).map(|l| format!("+{l}"))).collect::<Vec<_>>().join("\n")
}
