//! The mounts of a step, its environment, and the places they need in the root.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ukc_build::run::{Access, MountFiles, RunError, RunMount, RunMountKind, RunStep, Sharing};
use ukc_rootfs::{Change, Tree};

use crate::agent::Relay;
use crate::runner::{Changes, Config, Ready, Secret, hex, materialise};
use crate::spec::{Hidden, Job, MountSpec, MountWhat, NodeSpec};
use crate::store::Temporary;
use crate::stubs::Stubs;

/// Where programs find the certificates of `--ca-bundle`.
const CA_BUNDLE: &str = "/run/ukc/ca-bundle.crt";
/// What tells programs about them: OpenSSL, curl, Python's requests and pip, node, git, cargo.
const CA_VARIABLES: [&str; 7] =
    ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO"];
/// Docker's PATH for images that set none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The mounted directory, in that of a cache.
const CACHE_DATA: &str = "data";
/// A secret is no place for large files (BuildKit's limit).
const MAX_SECRET_BYTES: u64 = 500 << 10;

/// Makes sure that a layer is on disk.
pub(crate) type Ensure<'e> = &'e dyn Fn(&str, &Changes<'_>) -> Result<(), RunError>;

/// What the mounts of a step come to.
pub(crate) struct Planned {
    pub mounts: Vec<MountSpec>,
    pub env: Vec<(String, String)>,
    pub stubs: Vec<Change>,
    pub hidden: Vec<Hidden>,
    /// To be done before the run.
    pub jobs: Vec<Job>,
    /// Locks and sockets, to be held during the run.
    pub kept: Vec<Kept>,
}

/// See [`Planned::kept`].
#[allow(dead_code)] // held, not read
pub(crate) enum Kept {
    Lock(File),
    Relay(Relay),
    Dir(tempfile::TempDir),
}

/// Collects [`Planned`].
pub(crate) struct Mounts<'a, 's> {
    ready: &'a Ready,
    step: &'a RunStep<'s>,
    config: &'a Config,
    dir: PathBuf,
    temporary: &'a Temporary,
    is_cancelled: &'a dyn Fn() -> bool,
    stubs: Stubs,
    planned: Planned,
}

impl<'a, 's> Mounts<'a, 's> {
    pub fn new(
        ready: &'a Ready,
        step: &'a RunStep<'s>,
        config: &'a Config,
        temporary: &'a Temporary,
        is_cancelled: &'a dyn Fn() -> bool,
    ) -> Mounts<'a, 's> {
        let planned = Planned { mounts: vec![], env: vec![], stubs: vec![], hidden: vec![], jobs: vec![], kept: vec![] };
        let dir = temporary.path().to_owned();
        Mounts { ready, step, config, dir, temporary, is_cancelled, stubs: Stubs::default(), planned }
    }

    pub fn finish(mut self) -> Planned {
        (self.planned.stubs, self.planned.hidden) = self.stubs.finish();
        self.planned
    }

    pub fn plan(&mut self, ensure: Ensure<'_>) -> Result<(), RunError> {
        let process = self.step.process;
        self.planned.env = [process.env.as_slice(), &process.hidden_env].concat();
        self.set_default("PATH", DEFAULT_PATH);
        self.set_default("HOME", &self.step.user.home);
        for dir in ["/proc", "/sys", "/dev"] {
            self.stubs.place(self.step.tree, dir.as_bytes(), true);
        }
        self.stubs.place(self.step.tree, process.cwd.as_bytes(), true);
        self.network_files();
        // Outer ones first, or they would hide the inner ones.
        let mut order: Vec<usize> = (0..self.step.mounts.len()).collect();
        order.sort_by_key(|&n| self.step.mounts[n].target.matches('/').count());
        for n in order {
            let mount = &self.step.mounts[n];
            self.mount(n, mount, ensure).map_err(|e| match e {
                Trouble::Mount(why, help) => RunError::Mount(n, why, help),
                Trouble::Run(e) => e,
            })?;
        }
        self.ca_bundle()
    }

    fn set_default(&mut self, name: &str, value: &str) {
        if !self.planned.env.iter().any(|(n, _)| n == name) {
            self.planned.env.push((name.into(), value.into()));
        }
    }

    fn set(&mut self, name: &str, value: String) {
        self.planned.env.retain(|(n, _)| n != name);
        self.planned.env.push((name.into(), value));
    }

    fn add(&mut self, target: &str, is_dir: bool, what: MountWhat, index: Option<usize>) -> Result<(), Trouble> {
        match self.stubs.place(self.step.tree, target.as_bytes(), is_dir) {
            Some(target) => {
                self.planned.mounts.push(MountSpec { target, what, index });
                Ok(())
            }
            None => Err(Trouble::Mount(format!("too many symbolic links on the way to `{target}`, or a part of it is a file"), None)),
        }
    }

    /// `/etc/resolv.conf`, `/etc/hosts` and `/etc/hostname`: made here, so that changes of them are lost.
    fn network_files(&mut self) {
        let name = &self.step.process.hostname;
        let mut hosts = format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for (name, address) in self.step.hosts {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
        let resolv = fs::read("/etc/resolv.conf").unwrap_or_default();
        let node = NodeSpec { mode: 0o644, uid: 0, gid: 0 };
        for (path, bytes) in
            [("/etc/resolv.conf", resolv), ("/etc/hosts", hosts.into_bytes()), ("/etc/hostname", format!("{name}\n").into_bytes())]
        {
            // An image whose links lead nowhere does not get the file.
            let Some(target) = self.stubs.place(self.step.tree, path.as_bytes(), false) else { continue };
            let is_hidden = [b"/proc/".as_slice(), b"/sys/", b"/dev/"].iter().any(|p| target.starts_with(p));
            let is_file = self.step.tree.resolve(&target).map_or(true, |f| self.step.tree.entries(f.id).is_none());
            if !is_hidden && is_file {
                let what = MountWhat::File { bytes, node, read_only: false };
                self.planned.mounts.push(MountSpec { target, what, index: None });
            }
        }
    }

    fn ca_bundle(&mut self) -> Result<(), RunError> {
        let Some(bundle) = &self.config.ca_bundle else { return Ok(()) };
        let unable = |why: String| RunError::Unable(why, vec!["give another file with `--ca-bundle`".into()]);
        let source = fs::canonicalize(bundle).map_err(|e| unable(format!("cannot read the certificates `{}`: {e}", bundle.display())))?;
        match self.add(CA_BUNDLE, false, MountWhat::Host { source, read_only: true }, None) {
            Ok(()) => {}
            Err(Trouble::Mount(why, _)) => return Err(unable(why)),
            Err(Trouble::Run(e)) => return Err(e),
        }
        CA_VARIABLES.iter().for_each(|name| self.set_default(name, CA_BUNDLE));
        Ok(())
    }

    fn mount(&mut self, n: usize, mount: &RunMount, ensure: Ensure<'_>) -> Result<(), Trouble> {
        let target = mount.target.as_str();
        match &mount.what {
            RunMountKind::Bind { files, read_only } => {
                let what = self.bind(n, files, *read_only, ensure)?;
                self.add(target, !files.is_file, what, Some(n))
            }
            RunMountKind::Cache { id, seed, sharing, read_only, access } => {
                let source = self.cache(id, seed.as_ref(), *sharing, access)?;
                self.add(target, true, MountWhat::Host { source, read_only: *read_only }, Some(n))
            }
            RunMountKind::Tmpfs { size_bytes } => self.add(target, true, MountWhat::Tmpfs { size_bytes: *size_bytes }, Some(n)),
            RunMountKind::Secret { id, is_file, env, required, access } => {
                let Some(bytes) = self.secret(id, *required)? else { return Ok(()) };
                if let Some(name) = env {
                    let value = String::from_utf8(bytes.clone()).ok().filter(|v| !v.contains('\0'));
                    let value =
                        value.ok_or_else(|| Trouble::Mount(format!("the secret `{id}` is not text, and a variable holds text"), None))?;
                    self.set(name, value);
                }
                if *is_file {
                    let what = MountWhat::File { bytes, node: node(access, 0o400), read_only: true };
                    self.add(target, false, what, Some(n))?;
                }
                Ok(())
            }
            RunMountKind::Ssh { id, required, access } => self.agent(n, id, *required, access, target),
        }
    }

    fn bind(&mut self, n: usize, files: &MountFiles, read_only: bool, ensure: Ensure<'_>) -> Result<MountWhat, Trouble> {
        let id = format!("m-{}", hex(&files.key.0));
        let part = |dir: PathBuf| if files.is_file { dir.join(MountFiles::FILE_NAME) } else { dir };
        if !read_only && (files.is_file || !self.ready.has_overlay) {
            // A copy to write to.
            let name = format!("bind{n}");
            let job = materialise(self.temporary, &name, &files.tree.changes_since(&Tree::new()))?;
            self.planned.jobs.push(job);
            return Ok(MountWhat::Host { source: part(self.dir.join(name)), read_only: false });
        }
        ensure(&id, &|| Ok(files.tree.changes_since(&Tree::new()))).map_err(Trouble::Run)?;
        let source = part(self.ready.store.layer(&id).join("fs"));
        if read_only {
            return Ok(MountWhat::Host { source, read_only: true });
        }
        let upper = materialise(self.temporary, &format!("upper{n}"), &root_only(&files.tree))?;
        self.planned.jobs.push(upper);
        let work = self.temporary.make(&format!("work{n}"))?;
        Ok(MountWhat::Overlay { lower: source, upper: self.dir.join(format!("upper{n}")), work })
    }

    fn cache(&mut self, id: &str, seed: Option<&MountFiles>, sharing: Sharing, access: &Access) -> Result<PathBuf, Trouble> {
        let base = blake3::hash(id.as_bytes()).to_hex()[..32].to_owned();
        let mut name = base.clone();
        let lock = match sharing {
            Sharing::Shared => None,
            Sharing::Locked => {
                let lock = self.ready.store.lock(&format!("cache-{name}"), self.is_cancelled)?;
                Some(lock.ok_or(Trouble::Run(RunError::Interrupted))?)
            }
            Sharing::Private => {
                let mut n = 0;
                loop {
                    name = format!("{base}-p{n}");
                    match self.ready.store.try_lock(&format!("cache-{name}"))? {
                        Some(lock) => break Some(lock),
                        None => n += 1,
                    }
                }
            }
        };
        self.planned.kept.extend(lock.map(Kept::Lock));
        let path = self.ready.store.cache(&name);
        if !path.is_dir() {
            let _making = self.ready.store.lock(&format!("cache-new-{name}"), self.is_cancelled)?;
            self.new_cache(&path, &name, seed, access)?;
        }
        Ok(path.join(CACHE_DATA))
    }

    fn new_cache(&mut self, path: &Path, name: &str, seed: Option<&MountFiles>, access: &Access) -> Result<(), Trouble> {
        if path.is_dir() {
            return Ok(());
        }
        // The directory may be somebody else's, and only its owner may move it to another parent (rename(2)): it moves inside one of ours.
        let outer = format!("cache-{name}");
        let made = self.temporary.make(&outer)?;
        let data = made.join(CACHE_DATA);
        let given = node(access, 0o755);
        let mut jobs = vec![match seed {
            Some(files) => materialise(self.temporary, &format!("{outer}/{CACHE_DATA}"), &files.tree.changes_since(&Tree::new()))?,
            None => Job::MakeDir { path: data.clone(), node: given },
        }];
        if seed.is_some() && *access != Access::default() {
            jobs.push(Job::Give { path: data, node: given });
        }
        match self.ready.launcher.run(jobs, &mut |_| (), self.is_cancelled) {
            crate::launch::Outcome::Done => Ok(fs::rename(&made, path)?),
            crate::launch::Outcome::Interrupted => Err(Trouble::Run(RunError::Interrupted)),
            other => Err(Trouble::Mount(format!("cannot make the cache: {other:?}"), None)),
        }
    }

    /// Returns the bytes of a secret; what is not there is an error only if it is required.
    fn secret(&self, id: &str, required: bool) -> Result<Option<Vec<u8>>, Trouble> {
        let bytes = match self.config.secrets.get(id) {
            Some(Secret::Env(name)) => std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec),
            Some(Secret::File(path)) => {
                let fail = |e: io::Error| Trouble::Mount(format!("cannot read the secret `{id}` from `{}`: {e}", path.display()), None);
                if fs::metadata(path).map_err(fail)?.len() > MAX_SECRET_BYTES {
                    return Err(Trouble::Mount(format!("the secret `{id}` is larger than 500 KiB"), None));
                }
                Some(fs::read(path).map_err(fail)?)
            }
            None => None,
        };
        match bytes {
            None if required => Err(Trouble::Mount(
                format!("the step requires the secret `{id}`, and it was not given"),
                Some(format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=NAME`")),
            )),
            bytes => Ok(bytes),
        }
    }

    fn agent(&mut self, n: usize, id: &str, required: bool, access: &Access, target: &str) -> Result<(), Trouble> {
        let Some(agent) = self.config.agents.get(id) else {
            if !required {
                return Ok(());
            }
            let why = format!("the step requires the SSH agent `{id}`, and it was not given");
            return Err(Trouble::Mount(why, Some(format!("give it with `--ssh {id}`, with an agent running"))));
        };
        // A socket's name holds 107 bytes (unix(7)), and the store may be deep.
        let socket_dir = tempfile::Builder::new().prefix("ukc-agent-").tempdir()?;
        let socket = socket_dir.path().join("socket");
        let relay = Relay::start(&socket, agent)?;
        self.planned.kept.extend([Kept::Relay(relay), Kept::Dir(socket_dir)]);
        self.planned.jobs.push(Job::Give { path: socket.clone(), node: node(access, 0o600) });
        self.add(target, false, MountWhat::Host { source: socket, read_only: false }, Some(n))?;
        self.set("SSH_AUTH_SOCK", target.to_owned());
        Ok(())
    }
}

/// Why a mount cannot be planned.
pub(crate) enum Trouble {
    Mount(String, Option<String>),
    Run(RunError),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Mount(format!("cannot prepare the mount: {error}"), None)
    }
}

fn node(access: &Access, mode: u32) -> NodeSpec {
    NodeSpec { mode: access.mode.unwrap_or(mode), uid: access.uid.unwrap_or(0), gid: access.gid.unwrap_or(0) }
}

/// The changes that give an upper directory the metadata of the lower one.
fn root_only(tree: &Tree) -> Vec<Change> {
    let meta = tree.node(Tree::ROOT).meta.clone();
    vec![Change { path: vec![], action: ukc_rootfs::Action::Put(meta, ukc_rootfs::Kind::Dir(Default::default())) }]
}
