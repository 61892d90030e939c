//! The [`Runner`] that builds are given: looks for an earlier result, puts the root together, runs the helper, and keeps what was changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ukc_build::run::{LayerFiles, Ran, RootLayer, RunError, RunStep, Runner};
use ukc_rootfs::{Action, Change, Kind, Tree, User};

use crate::idmap::{IdMap, NoIds};
use crate::launch::{Launcher, Outcome, this_program};
use crate::mounts::{Mounts, Planned};
use crate::record;
use crate::spec::{Job, RootSpec, RunSpec, ScanRoot};
use crate::store::{RunStore, Temporary};

/// An overlay has at most 500 layers (Linux, `OVL_MAX_STACK`), and the options of an old kernel hold about a hundred of our names.
const MAX_LAYERS: usize = 90;

/// Returns the changes that a layer holds, when it turns out that they have to be written.
pub(crate) type Changes<'c> = dyn Fn() -> io::Result<Vec<Change>> + 'c;

/// What the command line says about the surroundings of RUN.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `--ca-bundle`: certificates that the programs shall trust besides those of the image.
    pub ca_bundle: Option<PathBuf>,
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: sockets of agents, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// The program that calls [`crate::dispatch`] when it starts; this process's own by default.
    pub helper: Option<PathBuf>,
    /// Whether to do without overlay mounts also where they work.
    pub never_overlay: bool,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// In an environment variable of this process.
    Env(String),
    /// In a file.
    File(PathBuf),
}

/// What is to be shown while a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEvent<'a> {
    /// The step has been done before.
    Cached,
    /// The process printed something.
    Output(&'a [u8]),
}

/// Executes RUN in namespaces.
pub struct Sandbox<'a> {
    store: PathBuf,
    config: Config,
    on_event: Box<dyn FnMut(RunEvent<'_>) + 'a>,
    is_cancelled: Box<dyn Fn() -> bool + 'a>,
    ready: Option<Ready>,
}

/// What is found out when the first step comes.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub launcher: Launcher,
    pub store: RunStore,
    pub has_overlay: bool,
}

impl<'a> Sandbox<'a> {
    /// Returns a runner that keeps its layers below the directory `store`. `on_event` gets the output as it comes; as soon as `is_cancelled` answers `true`,
    /// what runs is ended.
    pub fn new(store: &Path, config: Config, on_event: impl FnMut(RunEvent<'_>) + 'a, is_cancelled: impl Fn() -> bool + 'a) -> Sandbox<'a> {
        Sandbox { store: store.to_owned(), config, on_event: Box::new(on_event), is_cancelled: Box::new(is_cancelled), ready: None }
    }

    fn ready(&mut self) -> Result<Ready, RunError> {
        if let Some(ready) = &self.ready {
            return Ok(ready.clone());
        }
        let ids = IdMap::of_this_process().map_err(|NoIds { why, help }| RunError::Unable(why, help))?;
        let store = RunStore::open(&self.store, &ids.as_ref().map_or("root".into(), IdMap::name)).map_err(|e| self.store_trouble(&e))?;
        let launcher = Launcher { program: self.config.helper.clone().unwrap_or_else(this_program), ids };
        for path in store.abandoned() {
            launcher.run(vec![Job::Remove { path }], &mut |_| (), &|| false);
        }
        let mut ready = Ready { launcher, store, has_overlay: false };
        if !self.config.never_overlay {
            let dir = ready.store.temporary().map_err(|e| self.store_trouble(&e))?;
            let probe = dir.make("probe").map_err(|e| self.store_trouble(&e))?;
            let outcome = ready.launcher.run(vec![Job::Probe { dir: probe.clone() }], &mut |_| (), &|| false);
            ready.launcher.run(vec![Job::Remove { path: probe }], &mut |_| (), &|| false);
            match outcome {
                Outcome::Done => ready.has_overlay = true,
                // Without namespaces there is no run at all: that is what to tell.
                Outcome::Failed(why, _, help) if !help.is_empty() => return Err(RunError::Unable(why, help)),
                _ => {}
            }
        }
        self.ready = Some(ready.clone());
        Ok(ready)
    }

    fn store_trouble(&self, error: &io::Error) -> RunError {
        store_trouble(&self.store, error)
    }

    /// Makes sure that the layer `id` with these changes is on disk.
    fn ensure(&self, ready: &Ready, id: &str, changes: &Changes<'_>) -> Result<(), RunError> {
        if ready.store.has(id) {
            return Ok(());
        }
        let trouble = |e: io::Error| self.store_trouble(&e);
        let Some(_lock) = ready.store.lock(id, &*self.is_cancelled).map_err(trouble)? else { return Err(RunError::Interrupted) };
        if ready.store.has(id) {
            return Ok(());
        }
        let mut dir = ready.store.temporary().map_err(trouble)?;
        let job = materialise(&dir, "fs", &changes().map_err(trouble)?).map_err(trouble)?;
        self.helper(ready, vec![job], dir.path(), &["fs"])?;
        fs::remove_file(dir.path().join("fs.in")).map_err(trouble)?;
        if !ready.store.keep(&mut dir, id).map_err(trouble)? {
            cleanup(ready, dir.path(), &["fs"]);
        }
        Ok(())
    }

    /// Does jobs that are no run; when they fail, these entries of `dir` are removed again.
    fn helper(&self, ready: &Ready, jobs: Vec<Job>, dir: &Path, entries: &[&str]) -> Result<(), RunError> {
        let outcome = ready.launcher.run(jobs, &mut |_| (), &*self.is_cancelled);
        let error = match outcome {
            Outcome::Done => return Ok(()),
            other => self.error(other),
        };
        cleanup(ready, dir, entries);
        Err(error)
    }

    fn error(&self, outcome: Outcome) -> RunError {
        match outcome {
            Outcome::Exited(status) => RunError::Exited(status),
            Outcome::NotStarted(status, why) => RunError::NotStarted(status, why),
            Outcome::Mount(index, why) => RunError::Mount(index, why, None),
            Outcome::Interrupted => RunError::Interrupted,
            Outcome::Failed(why, errno, help) => RunError::Unable(why, [help, help_for(errno)].concat()),
            Outcome::Done => RunError::Unable("the run has no result".into(), vec![]),
        }
    }

    /// Returns the name of a root layer on disk, making it if need be; names are relative to the layers' directory.
    fn lower(&self, ready: &Ready, layer: &RootLayer) -> Result<PathBuf, RunError> {
        let (id, changes): (String, Box<Changes<'_>>) = match &layer.files {
            LayerFiles::Whole(tree) => (format!("d-{}", hex(&layer.key.0)), Box::new(|| Ok(tree.changes_since(&Tree::new())))),
            LayerFiles::Changes(changes) => (format!("d-{}", hex(&layer.key.0)), Box::new(|| Ok(changes.clone()))),
            LayerFiles::Ran(id) if ready.store.layer(id).join("fs").is_dir() => return Ok(Path::new(id).join("fs")),
            LayerFiles::Ran(id) => {
                // It was made without an overlay.
                let dir = ready.store.layer(id);
                (format!("f-{id}"), Box::new(move || record::read(&dir.join("record"), &dir)))
            }
        };
        self.ensure(ready, &id, &*changes)?;
        Ok(Path::new(&id).join("fs"))
    }

    fn lowers(&self, ready: &Ready, step: &RunStep<'_>) -> Result<Vec<PathBuf>, RunError> {
        if step.layers.len() <= MAX_LAYERS {
            return step.layers.iter().map(|layer| self.lower(ready, layer)).collect();
        }
        let mut hash = blake3::Hasher::new();
        for layer in step.layers {
            hash.update(&layer.key.0);
        }
        let id = format!("d-{}", hash.finalize().to_hex());
        self.ensure(ready, &id, &|| Ok(step.tree.changes_since(&Tree::new())))?;
        Ok(vec![Path::new(&id).join("fs")])
    }

    fn run_new(&mut self, ready: &Ready, step: &RunStep<'_>, key: &str) -> Result<Ran, RunError> {
        let store = self.store.clone();
        let trouble = |e: io::Error| store_trouble(&store, &e);
        let lower = if ready.has_overlay { self.lowers(ready, step)? } else { vec![] };
        let mut dir = ready.store.temporary().map_err(trouble)?;
        let planned = {
            let mut mounts = Mounts::new(ready, step, &self.config, &dir, &*self.is_cancelled);
            mounts.plan(&|id, changes| self.ensure(ready, id, changes)).map(|()| mounts.finish())
        };
        let result = planned.and_then(|planned| self.run_in(ready, step, &dir, planned, lower));
        if result.is_err() {
            let entries: Vec<String> = fs::read_dir(dir.path())
                .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
                .unwrap_or_default();
            let entries: Vec<&str> = entries.iter().map(String::as_str).filter(|name| *name != "lock").collect();
            cleanup(ready, dir.path(), &entries);
        }
        result?;
        let id =
            format!("r-{}", dir.path().file_name().map_or(String::new(), |n| n.to_string_lossy().trim_start_matches(".tmp-").to_owned()));
        let id = format!("{id}-{}", &blake3::hash(format!("{key} {:?}", std::time::SystemTime::now()).as_bytes()).to_hex()[..16]);
        ready.store.keep(&mut dir, &id).map_err(trouble)?;
        ready.store.set_step(key, &id).map_err(trouble)?;
        self.read(ready, id)
    }

    /// Reads what the layer `id` changed.
    fn read(&self, ready: &Ready, id: String) -> Result<Ran, RunError> {
        let dir = ready.store.layer(&id);
        let changes = record::read(&dir.join("record"), &dir).map_err(|e| self.store_trouble(&e))?;
        Ok(Ran { id, changes })
    }

    fn run_in(
        &mut self,
        ready: &Ready,
        step: &RunStep<'_>,
        dir: &Temporary,
        planned: Planned,
        mut lower: Vec<PathBuf>,
    ) -> Result<(), RunError> {
        let store = self.store.clone();
        let trouble = |e: io::Error| store_trouble(&store, &e);
        let path = dir.path().to_owned();
        let own_dir = dir.make("own").map_err(trouble)?;
        let scratch = dir.make("scratch").map_err(trouble)?;
        let mut jobs = vec![];
        let root_meta = Change { path: vec![], action: Action::Put(step.tree.node(Tree::ROOT).meta.clone(), Kind::Dir(BTreeMap::new())) };
        let (root, scan) = if ready.has_overlay {
            jobs.push(materialise(dir, "fs", &[root_meta]).map_err(trouble)?);
            jobs.push(materialise(dir, "stubs", &planned.stubs).map_err(trouble)?);
            let work = dir.make("work").map_err(trouble)?;
            let short = path.file_name().map(PathBuf::from).unwrap_or_default();
            lower.push(short.join("stubs"));
            let upper = path.join("fs");
            (RootSpec::Overlay { layers: ready.store.layers(), lower, upper: upper.clone(), work }, ScanRoot::Upper(upper))
        } else {
            let all = [step.tree.changes_since(&Tree::new()), vec![root_meta], planned.stubs].concat();
            jobs.push(materialise(dir, "root", &all).map_err(trouble)?);
            let files = dir.make("files").map_err(trouble)?;
            (RootSpec::Plain(path.join("root")), ScanRoot::Copy(path.join("root"), files))
        };
        jobs.extend(planned.jobs);
        let process = step.process;
        jobs.push(Job::Run(Box::new(RunSpec {
            root,
            scratch,
            mounts: planned.mounts,
            argv: process.argv.clone(),
            env: planned.env,
            cwd: process.cwd.clone(),
            uid: step.user.uid,
            gid: step.user.gid,
            groups: groups(&step.user),
            hostname: process.hostname.clone(),
            is_offline: step.network == ukc_build::run::Network::None,
            is_insecure: step.security == ukc_build::run::Security::Insecure,
            scripts: process.script.iter().map(|s| (s.name.clone(), s.text.clone().into_bytes())).collect(),
            is_rootless: ready.launcher.ids.is_some(),
        })));
        jobs.push(Job::Scan { root: scan, record: path.join("record"), own_dir, hidden: planned.hidden });
        for entry in fs::read_dir(&path).map_err(trouble)?.flatten() {
            let name = entry.file_name();
            if !["fs", "own", "files", "record", "lock"].iter().any(|kept| name == *kept) {
                jobs.push(Job::Remove { path: entry.path() });
            }
        }
        let on_event = &mut self.on_event;
        let outcome = ready.launcher.run(jobs, &mut |bytes| on_event(RunEvent::Output(bytes)), &*self.is_cancelled);
        drop(planned.kept);
        match outcome {
            Outcome::Done => Ok(()),
            other => Err(self.error(other)),
        }
    }
}

impl Runner for Sandbox<'_> {
    fn run(&mut self, step: &RunStep<'_>) -> Result<Ran, RunError> {
        let ready = self.ready()?;
        let key = hex(&step.key.0);
        let lock = ready.store.lock(&key, &*self.is_cancelled).map_err(|e| self.store_trouble(&e))?;
        let Some(_lock) = lock else { return Err(RunError::Interrupted) };
        if step.may_use_cache
            && let Some(id) = ready.store.step(&key)
            && let Ok(ran) = self.read(&ready, id)
        {
            (self.on_event)(RunEvent::Cached);
            return Ok(ran);
        }
        self.run_new(&ready, step, &key)
    }
}

/// Prepares the writing of some changes into a new directory `name` of `dir`.
pub(crate) fn materialise(dir: &Temporary, name: &str, changes: &[Change]) -> io::Result<Job> {
    let (record, to) = (dir.path().join(format!("{name}.in")), dir.make(name)?);
    record::write(&record, dir.path(), changes)?;
    Ok(Job::Materialise { record, dir: to })
}

/// Removes entries of a directory that may belong to anybody.
fn cleanup(ready: &Ready, dir: &Path, entries: &[&str]) {
    let jobs = entries.iter().map(|name| Job::Remove { path: dir.join(name) }).collect();
    // Neither an interruption nor trouble stops this; what is left is removed by a later build.
    ready.launcher.run(jobs, &mut |_| (), &|| false);
}

fn store_trouble(store: &Path, error: &io::Error) -> RunError {
    // Errors of temporary files are wrapped, and only their kind is left.
    let errno = error.raw_os_error().or(match error.kind() {
        io::ErrorKind::StorageFull => Some(rustix::io::Errno::NOSPC.raw_os_error()),
        io::ErrorKind::QuotaExceeded => Some(rustix::io::Errno::DQUOT.raw_os_error()),
        io::ErrorKind::ReadOnlyFilesystem => Some(rustix::io::Errno::ROFS.raw_os_error()),
        _ => None,
    });
    RunError::Unable(format!("trouble with the store `{}`: {error}", store.display()), help_for(errno))
}

fn help_for(errno: Option<i32>) -> Vec<String> {
    match errno.map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
            vec![
                "free some space there; the folder `runs` of the store holds layers of earlier steps and may be removed when no build runs"
                    .into(),
            ]
        }
        Some(rustix::io::Errno::ROFS) => vec!["the store has to be on a file system that can be written to".into()],
        Some(rustix::io::Errno::PERM) => {
            vec!["in a container: start it privileged, or with CAP_SYS_ADMIN and without a seccomp profile".into()]
        }
        _ => vec![],
    }
}

/// Returns the supplementary groups: the user's own group is one of them, or a file that is closed to it could be read by others' leave (containerd,
/// `ensureAdditionalGids`; CVE-2022-2995).
fn groups(user: &User) -> Vec<u32> {
    let further = user.groups.iter().copied().filter(|gid| *gid != user.gid);
    std::iter::once(user.gid).chain(further).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
