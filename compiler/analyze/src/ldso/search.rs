//! The search itself, for one program at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use ukc_elf::Elf;
use ukc_rootfs::{Kind, NodeId, Tree};

use super::cache;
use crate::facts::{Reason, shown};
use crate::files::{ElfFile, Files};

/// Whose rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// glibc's ld-linux-x86-64.so.2.
    Glibc,
    /// musl's ld-musl-x86_64.so.1.
    Musl,
}

/// An object in a program's address space.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its node.
    pub id: NodeId,
    /// Path without symbolic links.
    pub path: Vec<u8>,
    /// The path it was found under, whose directory is `$ORIGIN` of a library.
    found_as: Vec<u8>,
    /// Facts.
    pub file: Arc<ElfFile>,
    /// Index of the object that asked first.
    parent: Option<usize>,
    /// Names it answers to.
    names: Vec<Vec<u8>>,
    /// Why it is there.
    pub reason: Reason,
}

/// A name that no file was found for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Index in [`Scope::objects`] of the object that asked.
    pub asker: usize,
    /// The name.
    pub name: Vec<u8>,
}

/// What a program loads, in load order.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Whose rules.
    pub dialect: Dialect,
    /// The program, then the rest breadth-first.
    pub objects: Vec<Loaded>,
    /// Variants of libraries that newer processors get.
    pub variants: Vec<Loaded>,
    /// Names without a file.
    pub missing: Vec<Missing>,
}

/// What stays the same for all programs of an image.
pub struct Search {
    cache: Vec<(Vec<u8>, Vec<u8>)>,
    library_path: Vec<u8>,
    preload: Vec<Vec<u8>>,
    working_dir: Vec<u8>,
    musl_path: Vec<u8>,
}

/// Subdirectories for processor levels (glibc 2.33, `elf/dl-hwcaps_subdirs.c`) and what older glibc has (`haswell`).
const HWCAPS: [&str; 4] = ["glibc-hwcaps/x86-64-v4", "glibc-hwcaps/x86-64-v3", "glibc-hwcaps/x86-64-v2", "haswell"];
/// Default directories of the usual builds of glibc: Debian's multiarch ones and the FHS's; used when the loader does not tell its own.
const GLIBC_DEFAULTS: [&str; 6] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
/// musl's default path.
const MUSL_DEFAULT: &[u8] = b"/lib:/usr/local/lib:/usr/lib";

fn read_file(tree: &Tree, path: &[u8]) -> Option<Vec<u8>> {
    match &tree.node(tree.resolve(path).ok()?.id).kind {
        Kind::File(content) => content.read_all().ok(),
        _ => None,
    }
}

impl Search {
    /// Reads the image's configuration of the loaders.
    pub fn new(tree: &Tree, env: &dyn Fn(&str) -> Option<String>, working_dir: &str) -> Search {
        let mut preload: Vec<Vec<u8>> = Vec::new();
        let mut names = |text: &[u8]| {
            preload.extend(text.split(|b| b.is_ascii_whitespace() || *b == b':').filter(|n| !n.is_empty()).map(<[u8]>::to_vec));
        };
        names(env("LD_PRELOAD").unwrap_or_default().as_bytes());
        names(&read_file(tree, b"/etc/ld.so.preload").unwrap_or_default());
        Search {
            cache: read_file(tree, b"/etc/ld.so.cache").map(|d| cache::entries(&d)).unwrap_or_default(),
            library_path: env("LD_LIBRARY_PATH").unwrap_or_default().into_bytes(),
            preload,
            working_dir: working_dir.as_bytes().to_vec(),
            musl_path: read_file(tree, b"/etc/ld-musl-x86_64.path").unwrap_or_else(|| MUSL_DEFAULT.to_vec()),
        }
    }

    /// Loads `program` as its loader would.
    pub fn load(&self, files: &mut Files<'_>, path: &[u8], id: NodeId, program: &Arc<ElfFile>, reason: Reason) -> Scope {
        let interpreter = program.interpreter.clone();
        let is_musl = interpreter.as_deref().is_some_and(|i| base_name(i).starts_with(b"ld-musl"))
            || program.interpreter.is_none() && program.needed.iter().any(|n| n.starts_with(b"libc.musl"));
        let dialect = if is_musl { Dialect::Musl } else { Dialect::Glibc };
        let main = Loaded {
            id,
            path: path.to_vec(),
            found_as: path.to_vec(),
            file: program.clone(),
            parent: None,
            names: program.soname.iter().cloned().collect(),
            reason,
        };
        let mut scope = Scope { dialect, objects: vec![main], variants: Vec::new(), missing: Vec::new() };
        let mut defaults: Vec<Vec<u8>> = GLIBC_DEFAULTS.iter().map(|d| d.as_bytes().to_vec()).collect();
        if let Some(interpreter) = interpreter
            && let Ok(found) = files.tree.resolve_from(&self.working_dir, &interpreter, true)
            && let Some(file) = files.elf(found.id)
        {
            if let Some(own) = built_in_directories(&file) {
                defaults = own;
            }
            let mut names: Vec<Vec<u8>> = file.soname.iter().cloned().collect();
            names.push(base_name(&interpreter).to_vec());
            let reason = Reason::Loader(shown(path));
            scope.objects.push(Loaded { id: found.id, path: found.path, found_as: interpreter, file, parent: Some(0), names, reason });
        }
        if program.is_dynamic {
            for name in &self.preload {
                // A preload that is not found is only a warning of ld.so.
                if let Some(index) = self.want(files, &mut scope, &defaults, 0, name) {
                    scope.objects[index].reason = Reason::Preload;
                }
            }
        }
        self.close(files, &mut scope, &defaults);
        scope
    }

    /// Adds an object as `dlopen(name)` called by `objects[asker]` would, with all it needs; returns whether something new was loaded without anything missing.
    pub fn open(&self, files: &mut Files<'_>, scope: &mut Scope, asker: usize, name: &[u8], reason: Reason) -> bool {
        let defaults: Vec<Vec<u8>> = scope
            .objects
            .iter()
            .find(|o| matches!(o.reason, Reason::Loader(_)))
            .and_then(|o| built_in_directories(&o.file))
            .unwrap_or_else(|| GLIBC_DEFAULTS.iter().map(|d| d.as_bytes().to_vec()).collect());
        let (before, missing) = (scope.objects.len(), scope.missing.len());
        if self.want(files, scope, &defaults, asker, name).is_none() || scope.objects.len() == before {
            scope.missing.truncate(missing);
            return false;
        }
        scope.objects[before].reason = reason;
        self.close_from(files, scope, &defaults, before);
        let complete = scope.missing.len() == missing;
        // What a plugin misses makes its dlopen fail at run time, which programs expect.
        scope.missing.truncate(missing);
        complete
    }

    fn close(&self, files: &mut Files<'_>, scope: &mut Scope, defaults: &[Vec<u8>]) {
        self.close_from(files, scope, defaults, 0);
    }

    /// Breadth-first over what the objects from `first` on need.
    fn close_from(&self, files: &mut Files<'_>, scope: &mut Scope, defaults: &[Vec<u8>], first: usize) {
        let mut queue: VecDeque<usize> = (first..scope.objects.len()).collect();
        let mut next = scope.objects.len();
        while let Some(asker) = queue.pop_front() {
            for name in scope.objects[asker].file.needed.clone() {
                if self.want(files, scope, defaults, asker, &name).is_none() {
                    scope.missing.push(Missing { asker, name });
                }
            }
            queue.extend(next..scope.objects.len());
            next = scope.objects.len();
        }
        // Variants need something, too; what they need is nearly always there already.
        for n in 0..scope.variants.len() {
            let needed = scope.variants[n].file.needed.clone();
            for name in needed {
                self.want(files, scope, defaults, 0, &name);
            }
        }
    }

    /// Returns the index of the object for `name`, loading it when it is not there.
    fn want(&self, files: &mut Files<'_>, scope: &mut Scope, defaults: &[Vec<u8>], asker: usize, name: &[u8]) -> Option<usize> {
        if let Some(i) = scope.objects.iter().position(|o| o.names.iter().any(|n| n == name)) {
            return Some(i);
        }
        if scope.dialect == Dialect::Musl && is_musl_itself(name) {
            return scope.objects.iter().position(|o| matches!(o.reason, Reason::Loader(_))).or(Some(asker));
        }
        let candidates = self.candidates(scope, defaults, asker, name);
        let needed_by = Reason::Needed(shown(&scope.objects[asker].path));
        for (path, is_variant) in candidates {
            let Ok(found) = files.tree.resolve_from(&self.working_dir, &path, true) else { continue };
            // ld.so passes over files of another class or architecture when it searches.
            let Some(file) = files.elf(found.id) else { continue };
            if let Some(i) = scope.objects.iter().position(|o| o.id == found.id) {
                if !is_variant {
                    scope.objects[i].names.push(name.to_vec());
                    return Some(i);
                }
                continue;
            }
            let mut names: Vec<Vec<u8>> = file.soname.iter().cloned().collect();
            names.push(name.to_vec());
            let loaded =
                Loaded { id: found.id, path: found.path, found_as: path, file, parent: Some(asker), names, reason: needed_by.clone() };
            if is_variant {
                if !scope.variants.iter().any(|v| v.id == loaded.id) {
                    scope.variants.push(Loaded { reason: Reason::Hwcaps(shown(name)), ..loaded });
                }
                continue;
            }
            scope.objects.push(loaded);
            return Some(scope.objects.len() - 1);
        }
        None
    }

    /// Returns the paths to try in order, each with whether only some processors would take it.
    fn candidates(&self, scope: &Scope, defaults: &[Vec<u8>], asker: usize, name: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let asking = &scope.objects[asker];
        if name.contains(&b'/') {
            return expand(name, &asking.found_as).into_iter().map(|p| (p, false)).collect();
        }
        let mut dirs: Vec<Vec<u8>> = Vec::new();
        let mut ancestors = vec![asker];
        while let Some(parent) = scope.objects[ancestors[ancestors.len() - 1]].parent
            && ancestors.len() < 1000
        {
            ancestors.push(parent);
        }
        let split = |path: &[u8], origin: &[u8]| -> Vec<Vec<u8>> {
            path.split(|&b| b == b':' || b == b';').flat_map(|d| expand(if d.is_empty() { b"." } else { d }, origin)).collect()
        };
        let mut out = Vec::new();
        match scope.dialect {
            Dialect::Glibc => {
                if asking.file.runpath.is_none() {
                    for &a in &ancestors {
                        let o = &scope.objects[a];
                        dirs.extend(o.file.rpath.iter().flat_map(|p| split(p, &o.found_as)));
                    }
                }
                if !self.library_path.is_empty() {
                    dirs.extend(split(&self.library_path, &scope.objects[0].path));
                }
                dirs.extend(asking.file.runpath.iter().flat_map(|p| split(p, &asking.found_as)));
                push_directories(&mut out, &dirs, name);
                if !asking.file.ignores_default_directories {
                    let cached: Vec<&Vec<u8>> = self.cache.iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect();
                    let is_variant = |p: &[u8]| HWCAPS.iter().any(|h| p.windows(h.len()).any(|w| w == h.as_bytes()));
                    out.extend(cached.iter().filter(|p| is_variant(p)).map(|p| (p.to_vec(), true)));
                    out.extend(cached.iter().filter(|p| !is_variant(p)).map(|p| (p.to_vec(), false)));
                    push_directories(&mut out, defaults, name);
                }
            }
            Dialect::Musl => {
                dirs.extend(if self.library_path.is_empty() { vec![] } else { split(&self.library_path, b"/") });
                for &a in &ancestors {
                    let o = &scope.objects[a];
                    dirs.extend(o.file.runpath.iter().chain(&o.file.rpath).flat_map(|p| split(p, &o.found_as)));
                }
                dirs.extend(self.musl_path.split(|b| *b == b':' || *b == b'\n').filter(|d| !d.is_empty()).map(<[u8]>::to_vec));
                out.extend(dirs.iter().map(|d| ([d.as_slice(), b"/", name].concat(), false)));
            }
        }
        out
    }
}

fn push_directories(out: &mut Vec<(Vec<u8>, bool)>, dirs: &[Vec<u8>], name: &[u8]) {
    for dir in dirs {
        out.extend(HWCAPS.iter().map(|h| ([dir.as_slice(), b"/", h.as_bytes(), b"/", name].concat(), true)));
        out.push(([dir.as_slice(), b"/", name].concat(), false));
    }
}

/// Replaces `$ORIGIN`, `$LIB` and `$PLATFORM` (ld.so(8), "Dynamic string tokens"). `$LIB` depends on how glibc was built, so both values are tried.
fn expand(path: &[u8], object: &[u8]) -> Vec<Vec<u8>> {
    let origin = &object[..object.iter().rposition(|&b| b == b'/').unwrap_or(0)];
    let mut out: Vec<Vec<u8>> = Vec::new();
    for lib in ["lib/x86_64-linux-gnu", "lib64"] {
        let mut text = path.to_vec();
        for (token, value) in [("ORIGIN", origin), ("LIB", lib.as_bytes()), ("PLATFORM", b"x86_64")] {
            text = replace(&text, format!("${{{token}}}").as_bytes(), value);
            text = replace(&text, format!("${token}").as_bytes(), value);
        }
        if !out.contains(&text) {
            out.push(text);
        }
    }
    out
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|w| w == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

/// musl answers these names itself (`load_library`: "c.pthread.rt.m.dl.util.xnet." behind `lib`).
fn is_musl_itself(name: &[u8]) -> bool {
    ["libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet."].iter().any(|r| name.starts_with(r.as_bytes()))
}

/// Returns the default directories compiled into a loader: glibc stores them as one run of strings that start and end with a slash
/// (`elf/dl-load.c`, `system_dirs`).
fn built_in_directories(loader: &ElfFile) -> Option<Vec<Vec<u8>>> {
    let elf = Elf::parse(&loader.bytes).ok()?;
    for segment in elf.segments().iter().filter(|s| s.is_load() && !s.is_executable() && !s.is_writable()) {
        let bytes = elf.segment_bytes(segment);
        let is_default = |w: &[u8]| w == b"/usr/lib/\0" || w == b"/usr/lib64" || w == b"/usr/lib/x";
        let Some(at) = bytes.windows(10).position(is_default) else { continue };
        // Go back over strings that also start and end with a slash.
        let mut start = at;
        while start >= 2 && bytes[start - 1] == 0 && bytes[start - 2] == b'/' {
            let previous = bytes[..start - 1].iter().rposition(|&b| b == 0).map_or(0, |p| p + 1);
            if bytes[previous] != b'/' {
                break;
            }
            start = previous;
        }
        let dirs: Vec<Vec<u8>> = bytes[start..]
            .split(|&b| b == 0)
            .take_while(|s| s.len() > 1 && s.starts_with(b"/") && s.ends_with(b"/"))
            .map(|s| s[..s.len() - 1].to_vec())
            .collect();
        if dirs.len() >= 2 {
            return Some(dirs);
        }
    }
    None
}
