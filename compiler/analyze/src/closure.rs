//! The pipeline of the analysis: roots, closure, rules, composition.

use std::collections::{BTreeMap, BTreeSet};

use ukc_diagnostics::Diagnostic;
use ukc_rootfs::{ImageConfig, Kind, NodeId, Tree};

use crate::compose::{self, Member};
use crate::facts::{Facts, Program, Reason, Rule, shown};
use crate::files::{Files, Found};
use crate::ldso::{Dialect, Scope, Search, configured_directories};
use crate::root::{self, Chain, Executable, base_name};
use crate::rules::{self, EXTENSIONS};
use crate::{Context, Options, script, user};

/// Analyses what an image starts.
///
/// # Errors
/// Every reason found why the image cannot start: no command, a program that is missing or cannot run, a missing interpreter or library, an unknown
/// user.
pub fn analyze(tree: &Tree, config: &ImageConfig, options: &Options<'_>) -> Result<Facts, Vec<Diagnostic>> {
    let context = Context { tree, config, options };
    let mut errors = Vec::new();
    let user = match user::resolve(tree, &config.user) {
        Ok(user) => Some(user),
        Err(who) => {
            let file = if who.starts_with("user") { "/etc/passwd" } else { "/etc/group" };
            let d = Diagnostic::error("unknown-user", format!("the image has no {who}"))
                .note(format!("`USER {}` is looked up in the image's own `{file}`", config.user))
                .help("add it in this stage (`useradd`, `addgroup`), or give its number");
            errors.push(match options.user_span {
                Some(span) => d.at(span, "this asks for it"),
                None => d,
            });
            None
        }
    };
    let mut files = Files::new(tree);
    let mut closure = Closure::new(&context);
    let entry = closure.entry(&mut files).map_err(|e| errors.push(*e)).ok();
    let (Some(user), Some(entry)) = (user, entry) else { return Err(errors) };
    errors.extend(closure.run(&mut files, &entry));
    if errors.iter().any(Diagnostic::is_error) {
        return Err(errors);
    }

    let mut facts = Facts {
        program: Program {
            path: shown(&absolute(config, &entry.scripts.first().unwrap_or(&entry.program).asked)),
            argv: config.argv(),
            directory: root::working_directory(config).to_owned(),
            scripts: entry.scripts.iter().map(|s| shown(&s.path)).collect(),
            executable: shown(&entry.program.path),
        },
        user,
        objects: Vec::new(),
        syscalls: BTreeMap::new(),
        unknown: Vec::new(),
        dropped: Vec::new(),
        features: Default::default(),
        rules: closure.rules,
        warnings: errors,
    };
    compose::compose(&closure.members, options.cache, &mut facts);
    Ok(facts)
}

struct Closure<'a> {
    context: &'a Context<'a>,
    search: Search,
    members: Vec<Member>,
    seen: BTreeSet<NodeId>,
    rules: Vec<Rule>,
    /// The scope of the first dynamic program: the one that plugins of libraries are searched in.
    scopes: Vec<Scope>,
}

/// What a root's missing parts mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// The image cannot start.
    Entry,
    /// Something that may be started cannot.
    Named,
    /// A program that merely lies there.
    Bystander,
}

impl<'a> Closure<'a> {
    fn new(context: &'a Context<'a>) -> Closure<'a> {
        let env = |name: &str| context.config.env_var(name).map(str::to_owned);
        let search = Search::new(context.tree, &env, root::working_directory(context.config));
        Closure { context, search, members: vec![], seen: BTreeSet::new(), rules: vec![], scopes: vec![] }
    }

    /// Finds what the image starts.
    fn entry(&self, files: &mut Files<'_>) -> Result<Chain, Box<Diagnostic>> {
        let argv = self.context.config.argv();
        let Some(name) = argv.first().filter(|n| !n.is_empty()) else {
            let d = Diagnostic::error("no-command", "the image does not say what to start: it has neither `ENTRYPOINT` nor `CMD`")
                .help("add `CMD [\"/path/to/program\"]` to the last stage");
            return Err(Box::new(self.context.at_command(d)));
        };
        let start = root::lookup(self.context.tree, self.context.config, name.as_bytes())
            .map_err(|e| root::bad_lookup(self.context, name.as_bytes(), &e))?;
        root::follow(self.context, files, start)
    }

    /// Builds the closure; returns errors and warnings.
    fn run(&mut self, files: &mut Files<'_>, entry: &Chain) -> Vec<Diagnostic> {
        let mut out = Vec::new();
        let mut is_shell = false;
        self.chain(files, entry, Reason::Program, Strictness::Entry, &mut out, &mut is_shell);

        // Programs that arguments and scripts name. Scripts among them are read, too, until nothing new is named.
        let argv = self.context.config.argv();
        let mut texts: Vec<(Option<String>, Vec<u8>)> = argv.iter().skip(1).map(|a| (None, a.as_bytes().to_vec())).collect();
        let mut read: BTreeSet<NodeId> = BTreeSet::new();
        let push_scripts =
            |chain: &Chain, texts: &mut Vec<(Option<String>, Vec<u8>)>, files: &mut Files<'_>, read: &mut BTreeSet<NodeId>| {
                for s in chain.scripts.iter().filter(|s| read.insert(s.id)) {
                    if let Found::Other(_, head) = files.get(s.id) {
                        texts.push((Some(shown(&s.path)), head));
                    }
                }
            };
        push_scripts(entry, &mut texts, files, &mut read);
        let mut named = 0;
        while let Some((source, text)) = texts.pop() {
            for word in script::words(&text) {
                // A word of one letter or a flag is no program worth guessing at.
                if word.starts_with(b"-") || word == b"." || word == b".." {
                    continue;
                }
                let Ok(found) = root::lookup(self.context.tree, self.context.config, &word) else { continue };
                let Ok(chain) = root::follow(self.context, files, found) else { continue };
                push_scripts(&chain, &mut texts, files, &mut read);
                let reason = source.as_ref().map_or(Reason::Argument, |s| Reason::ScriptWord(s.clone()));
                let before = self.members.len();
                self.chain(files, &chain, reason, Strictness::Named, &mut out, &mut is_shell);
                named += usize::from(self.members.len() > before);
            }
        }
        if named > 0 {
            self.rule("named-programs", format!("arguments and scripts name {named} further programs"));
        }
        if is_shell && self.context.options.follows_shells {
            self.everything(files);
        }
        self.plugins(files);
        out
    }

    fn rule(&mut self, name: &str, effect: String) {
        self.rules.push(Rule { name: name.to_owned(), effect });
    }

    /// Adds a program with the scripts and interpreters around it.
    fn chain(
        &mut self,
        files: &mut Files<'_>,
        chain: &Chain,
        reason: Reason,
        strictness: Strictness,
        out: &mut Vec<Diagnostic>,
        is_shell: &mut bool,
    ) {
        let reason = match chain.scripts.last() {
            Some(script) if reason == Reason::Program => Reason::ScriptInterpreter(shown(&script.path)),
            _ => reason,
        };
        *is_shell |= script::is_shell(base_name(&chain.program.asked)) || script::is_shell(base_name(&chain.program.path));
        self.program(files, &chain.program, reason, strictness, out);
        for also in &chain.also {
            let script = chain.scripts.last().map(|s| shown(&s.path)).unwrap_or_default();
            *is_shell |= script::is_shell(base_name(&also.asked)) || script::is_shell(base_name(&also.path));
            match root::follow(self.context, files, also.clone()) {
                Ok(inner) => self.program(files, &inner.program, Reason::ScriptInterpreter(script), strictness, out),
                Err(e) if strictness == Strictness::Entry => out.push(*e),
                Err(_) => {}
            }
        }
    }

    /// Adds an ELF program and what it loads.
    fn program(&mut self, files: &mut Files<'_>, program: &Executable, reason: Reason, strictness: Strictness, out: &mut Vec<Diagnostic>) {
        let Some(file) = files.elf(program.id) else { return };
        if self.seen.contains(&program.id) {
            return;
        }
        if let Some(interpreter) = &file.interpreter
            && strictness != Strictness::Bystander
            && let Some(d) = self.check_interpreter(files, program, interpreter, strictness)
        {
            out.push(d);
        }
        let scope = self.search.load(files, &program.path, program.id, &file, reason);
        if strictness != Strictness::Bystander {
            out.extend(self.missing(files.tree, &scope, strictness));
        }
        self.take(&scope);
        if scope.objects.len() > 1 || scope.objects[0].file.is_dynamic {
            self.scopes.push(scope);
        }
    }

    fn take(&mut self, scope: &Scope) {
        for o in scope.objects.iter().chain(&scope.variants) {
            if self.seen.insert(o.id) {
                self.members.push(Member { path: shown(&o.path), reason: o.reason.clone(), file: o.file.clone() });
            }
        }
    }

    fn check_interpreter(
        &self,
        files: &mut Files<'_>,
        program: &Executable,
        interpreter: &[u8],
        strictness: Strictness,
    ) -> Option<Diagnostic> {
        let name = shown(&program.path);
        let loader = shown(interpreter);
        let cwd = root::working_directory(self.context.config).as_bytes();
        let label = "this program asks for it (`PT_INTERP`)";
        let problem = match files.tree.resolve_from(cwd, interpreter, true) {
            Err(_) => {
                let d = Diagnostic::error(
                    "missing-interpreter",
                    format!("`{name}` needs the dynamic loader `{loader}`, which the image does not contain"),
                );
                let help = if loader.contains("ld-musl") {
                    "install musl in this stage, start from an Alpine base, or link the program statically"
                } else {
                    "install the C library in this stage (glibc's is not in `scratch`, `alpine` or `busybox:musl`), or link the program statically"
                };
                d.help(help)
            }
            Ok(found) => match files.get(found.id) {
                Found::Elf(_) => return None,
                Found::Other(e, _) => {
                    Diagnostic::error("missing-interpreter", format!("the dynamic loader `{loader}` of `{name}` cannot run: {e}"))
                }
                _ => Diagnostic::error("missing-interpreter", format!("the dynamic loader `{loader}` of `{name}` is no readable file")),
            },
        };
        Some(soften(*self.context.at_node(program.id, label, problem), strictness))
    }

    /// Describes names that no directory has.
    fn missing(&self, tree: &Tree, scope: &Scope, strictness: Strictness) -> Vec<Diagnostic> {
        let mut out = Vec::new();
        let mut named = BTreeSet::new();
        for m in &scope.missing {
            if !named.insert(m.name.clone()) {
                continue;
            }
            let asker = &scope.objects[m.asker];
            let (who, library) = (shown(&asker.path), shown(&m.name));
            let mut d = Diagnostic::error("missing-library", format!("`{who}` needs `{library}`, which the image does not contain"));
            if m.asker != 0 {
                d = d.note(format!("`{}` loads `{who}`", shown(&scope.objects[0].path)));
            }
            d = match self.hint(tree, scope.dialect, &m.name) {
                Some(hint) => hint.into_iter().fold(d, Diagnostic::help),
                None => {
                    d.help(format!("install the library in this stage, or link `{}` statically", shown(base_name(&scope.objects[0].path))))
                }
            };
            out.push(soften(
                *self.context.at_node(
                    asker.id,
                    if m.asker == 0 { "this program asks for it (`DT_NEEDED`)" } else { "this library asks for it (`DT_NEEDED`)" },
                    d,
                ),
                strictness,
            ));
        }
        out
    }

    /// Looks for the library where the loader does not: a directory that ldconfig has not yet been told of, or anywhere else.
    fn hint(&self, tree: &Tree, dialect: Dialect, name: &[u8]) -> Option<Vec<String>> {
        if dialect == Dialect::Glibc {
            for dir in configured_directories(tree) {
                let path = [dir.as_slice(), b"/", name].concat();
                if tree.resolve(&path).is_ok() {
                    return Some(vec![format!(
                        "`{}` exists, but `/etc/ld.so.cache` does not list it: run `ldconfig` in this stage",
                        shown(&path)
                    )]);
                }
            }
        }
        let mut found = None;
        tree.walk(&mut |path, id| {
            if found.is_none() && base_name(path) == name && !matches!(tree.node(id).kind, Kind::Dir(_)) {
                found = Some(shown(path));
            }
        });
        found.map(|f| vec![format!("`{f}` exists, but the loader does not look there: set `LD_LIBRARY_PATH`, or copy it to `/usr/lib`")])
    }

    /// The rule for shells: whatever lies in PATH may be started.
    fn everything(&mut self, files: &mut Files<'_>) {
        let tree = self.context.tree;
        let before = self.members.len();
        let mut ignored = Vec::new();
        for dir in root::path_directories(self.context.config) {
            let Ok(found) = tree.resolve_from(root::working_directory(self.context.config).as_bytes(), dir.as_bytes(), true) else {
                continue;
            };
            for (name, _) in tree.entries(found.id).into_iter().flatten() {
                let path = [found.path.as_slice(), b"/", name].concat();
                let Ok(file) = tree.resolve(&path) else { continue };
                let node = tree.node(file.id);
                if matches!(node.kind, Kind::File(_)) && node.meta.mode & 0o111 != 0 {
                    let program = Executable { id: file.id, path: file.path, asked: path };
                    self.program(files, &program, Reason::PathDirectory, Strictness::Bystander, &mut ignored);
                }
            }
        }
        let programs = self.members.len() - before;
        let mut dirs: Vec<Vec<u8>> = configured_directories(tree);
        dirs.extend(
            ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"]
                .map(|d| d.as_bytes().to_vec()),
        );
        for dir in dirs {
            let Ok(found) = tree.resolve(&dir) else { continue };
            for (name, _) in tree.entries(found.id).into_iter().flatten() {
                let path = [found.path.as_slice(), b"/", name].concat();
                if rules::is_shared_object_name(name)
                    && let Ok(file) = tree.resolve(&path)
                {
                    self.library(files, &file.path, file.id, Reason::LibraryDirectory);
                }
            }
        }
        let libraries = self.members.len() - before - programs;
        self.rule(
            "shell",
            format!("the image starts a shell: {programs} objects of programs in PATH and {libraries} libraries count, too"),
        );
    }

    /// Adds one shared object that is known by path.
    fn library(&mut self, files: &mut Files<'_>, path: &[u8], id: NodeId, reason: Reason) -> bool {
        if self.seen.contains(&id) {
            return false;
        }
        let Some(file) = files.elf(id) else { return false };
        let scope = self.search.load(files, path, id, &file, reason);
        self.take(&scope);
        true
    }

    /// Applies the rules about plugins until nothing is added.
    fn plugins(&mut self, files: &mut Files<'_>) {
        let tree = self.context.tree;
        if self.members.iter().any(|m| m.file.soname.as_deref() == Some(b"libc.so.6")) && !self.scopes.is_empty() {
            let services = rules::nss_services(tree);
            let mut added = 0;
            for service in &services {
                added += usize::from(self.open(files, 0, format!("libnss_{service}.so.2").as_bytes(), "nss", "/etc/nsswitch.conf"));
            }
            if added > 0 {
                self.rule("nss", format!("{added} libraries for the services {}", services.join(", ")));
            }
        }
        let mut done = 0;
        let mut added: BTreeMap<&str, usize> = BTreeMap::new();
        while done < self.members.len() {
            let (path, file) = (self.members[done].path.clone(), self.members[done].file.clone());
            done += 1;
            for row in EXTENSIONS {
                let is_it = path.rsplit('/').next().is_some_and(|n| n.starts_with(row.prefix));
                // A program in a directory of PATH is started only perhaps, but then its extensions are loaded.
                if !is_it {
                    continue;
                }
                for dir in row.directories {
                    for (object, id) in rules::shared_objects_below(tree, dir) {
                        let reason = Reason::Plugin(row.name.to_owned(), path.clone());
                        *added.entry(row.name).or_default() += usize::from(self.library(files, &object, id, reason));
                    }
                }
            }
            if file.calls_dlopen {
                for name in file.soname_strings() {
                    let scope = self.scopes.iter().position(|s| s.objects.iter().any(|o| shown(&o.path) == path)).unwrap_or(0);
                    if !self.scopes.is_empty() && self.open(files, scope, &name, "dlopen-string", &path) {
                        *added.entry("dlopen-string").or_default() += 1;
                    }
                }
            }
        }
        for (rule, n) in added.into_iter().filter(|(_, n)| *n > 0) {
            self.rule(rule, format!("{n} libraries that may be loaded at run time"));
        }
    }

    /// Adds what `dlopen(name)` would load in a scope.
    fn open(&mut self, files: &mut Files<'_>, scope: usize, name: &[u8], rule: &str, by: &str) -> bool {
        let asker = self.scopes[scope].objects.iter().position(|o| shown(&o.path) == by).unwrap_or(0);
        let mut s = self.scopes[scope].clone();
        let before = self.members.len();
        self.search.open(files, &mut s, asker, name, Reason::Plugin(rule.to_owned(), by.to_owned()));
        self.take(&s);
        self.scopes[scope] = s;
        self.members.len() > before
    }
}

/// Returns a path from the root; it may lead through symbolic links.
fn absolute(config: &ImageConfig, path: &[u8]) -> Vec<u8> {
    let cwd = root::working_directory(config).as_bytes();
    let relative = path.strip_prefix(b"./").unwrap_or(path);
    match path.first() {
        Some(b'/') => path.to_vec(),
        _ => [cwd.strip_suffix(b"/").unwrap_or(cwd), b"/", relative].concat(),
    }
}

fn soften(d: Diagnostic, strictness: Strictness) -> Diagnostic {
    if strictness == Strictness::Entry { d } else { Diagnostic { severity: ukc_diagnostics::Severity::Warning, ..d } }
}
