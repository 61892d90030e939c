//! The first process of the new pid namespace: makes the root, gives up what a RUN must not have, and becomes the command.
//!
//! Its standard output is where answers go; the command gets standard error twice.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Gid, Mode, Uid, chown, fchown};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::mount::{Root, make_private, mask, overlay, pivot};
use super::{FAILED, Trouble, answer, answer_to, read_message, unshare};
use crate::spec::{Answer, MountSpec, MountWhat, RootSpec, RunSpec};

/// Docker's default capabilities (moby, `oci/caps/defaults.go`): together 0xa80425fb.
const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Becomes the command; returns only with trouble.
pub(super) fn run() -> Result<(), Trouble> {
    let io = |what: &'static str| move |e: io::Error| Trouble::io(what, &e);
    // The helper kills this process when its parent is gone; should the helper be killed itself, the kernel does.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| Trouble::io("prctl", &e.into()))?;
    let spec: RunSpec = read_message()?;
    rustix::process::umask(Mode::empty());
    let _ = rustix::process::setsid();
    rustix::system::sethostname(spec.hostname.as_bytes()).map_err(|e| Trouble::io("cannot set the host name", &e.into()))?;
    unshare(UnshareFlags::NEWNS).map_err(io("cannot make a mount namespace"))?;
    make_private().map_err(io("cannot make the mounts private"))?;
    let root = make_root(&spec)?;
    let private = spec.scratch.join("private");
    fs::create_dir_all(&private).and_then(|()| tmpfs(&private)).map_err(io("cannot mount a directory in memory"))?;
    let inside = Root::open(&root).map_err(io("cannot open the root"))?;
    inside.system(&private, &spec.scripts, spec.is_insecure).map_err(|e| Trouble::io("cannot prepare the root", &e))?;
    for (n, mount) in spec.mounts.iter().enumerate() {
        if let Err(e) = mount_one(&inside, mount, &private, n) {
            let shown = mount.target.escape_ascii();
            let why = format!("cannot mount at `{shown}`: {e}");
            if let Some(index) = mount.index {
                answer(&Answer::Mount { index, why });
                std::process::exit(i32::from(FAILED));
            }
            return Err(Trouble { why, errno: e.raw_os_error() });
        }
    }
    drop(inside);
    pivot(&root).map_err(io("cannot change the root"))?;
    if !spec.is_insecure {
        mask().map_err(io("cannot hide what is the machine's"))?;
    }
    become_user(&spec).map_err(io("cannot change the user"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Starting a program redirects the standard output even if it then fails.
    let answers = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(|e| Trouble::io("dup", &e.into()))?;
    let (status, why) = start(&spec);
    answer_to(&mut fs::File::from(answers), &Answer::NotStarted { status, why });
    std::process::exit(i32::from(FAILED));
}

fn tmpfs(path: &Path) -> io::Result<()> {
    Ok(mount("tmpfs", path, "tmpfs", MountFlags::NOSUID, c"mode=700")?)
}

fn make_root(spec: &RunSpec) -> Result<PathBuf, Trouble> {
    let root = spec.scratch.join("root");
    let fail = |e: io::Error| Trouble::io("cannot mount the root", &e);
    fs::create_dir_all(&root).map_err(fail)?;
    match &spec.root {
        RootSpec::Overlay { layers, lower, upper, work } => {
            overlay(layers, lower, Some((upper, work)), &root, spec.is_insecure).map_err(fail)?;
        }
        RootSpec::Plain(dir) => {
            rustix::mount::mount_bind(dir, &root).map_err(|e| fail(e.into()))?;
            if !spec.is_insecure {
                let flags = MountFlags::BIND | MountFlags::NODEV;
                // In a user namespace devices do not work anyway, and flags of the mount below may be locked.
                rustix::mount::mount_remount(&root, flags, "").or_else(|e| if spec.is_rootless { Ok(()) } else { Err(fail(e.into())) })?;
            }
        }
    }
    Ok(root)
}

fn mount_one(root: &Root, spec: &MountSpec, private: &Path, n: usize) -> io::Result<()> {
    let is_dir = match &spec.what {
        MountWhat::Host { source, .. } => fs::metadata(source)?.is_dir(),
        MountWhat::Overlay { .. } | MountWhat::Tmpfs { .. } => true,
        MountWhat::File { .. } => false,
    };
    root.ensure(&spec.target, is_dir)?;
    match &spec.what {
        MountWhat::Host { source, read_only } => root.bind(source, &spec.target, *read_only),
        MountWhat::Overlay { lower, upper, work } => {
            let at = private.join(format!("overlay{n}"));
            fs::create_dir(&at)?;
            let dir = lower.parent().unwrap_or(lower);
            overlay(dir, std::slice::from_ref(lower), Some((upper, work)), &at, false)?;
            root.bind(&at, &spec.target, false)
        }
        MountWhat::Tmpfs { size_bytes } => root.tmpfs(&spec.target, *size_bytes),
        MountWhat::File { bytes, node, read_only } => {
            let path = private.join(format!("file{n}"));
            fs::write(&path, bytes)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(node.mode))?;
            chown(&path, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))?;
            root.bind(&path, &spec.target, *read_only)
        }
    }
}

/// Gives up capabilities, then root (capabilities(7), "Effect of user ID changes on capabilities").
fn become_user(spec: &RunSpec) -> io::Result<()> {
    if !spec.is_insecure {
        for bit in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            if DEFAULT_CAPABILITIES.contains(capability) {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // The kernel knows no more.
                Err(rustix::io::Errno::INVAL) => break,
                Err(e) => return Err(e.into()),
            }
        }
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    // The command may open its output anew (`> /dev/stderr`), and pipes have owners too.
    let _ = fchown(rustix::stdio::stderr(), Some(Uid::from_raw(spec.uid)), Some(Gid::from_raw(spec.gid)));
    let groups: Vec<Gid> = spec.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    if uid.is_root() && !spec.is_insecure {
        let sets = CapabilitySets { effective: DEFAULT_CAPABILITIES, permitted: DEFAULT_CAPABILITIES, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets)?;
    }
    // Changing the user clears it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Becomes the command; returns a status and the reason when that fails.
fn start(spec: &RunSpec) -> (i32, String) {
    if let Err(e) = std::env::set_current_dir(&spec.cwd) {
        return (126, format!("cannot enter the directory `{}`: {e}", spec.cwd));
    }
    let path = spec.env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value.as_str());
    let program = match find(&spec.argv[0], path) {
        Ok(program) => program,
        Err(trouble) => return trouble,
    };
    // execvp(3) would hand a file without a known format to the shell; a container runtime says what is wrong.
    if let Some(trouble) = check_format(&program) {
        return trouble;
    }
    let Ok(out) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3) else { return (126, "too many open files".into()) };
    let mut command = Command::new(&program);
    command.arg0(&spec.argv[0]).args(&spec.argv[1..]);
    command.env_clear().envs(spec.env.iter().map(|(n, v)| (n, v)));
    let error = command.stdin(Stdio::null()).stdout(Stdio::from(out)).exec();
    let status = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    (status, error.to_string())
}

/// Finds a program as execvp(3) does.
fn find(name: &str, path: &str) -> Result<PathBuf, (i32, String)> {
    let is_program = |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        return match fs::metadata(name) {
            Ok(meta) if meta.is_dir() => Err((126, format!("`{name}` is a directory"))),
            Ok(_) if !is_program(Path::new(name)) => Err((126, format!("`{name}` is not executable"))),
            Ok(_) => Ok(name.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err((127, format!("there is no `{name}`"))),
            Err(e) => Err((126, format!("`{name}`: {e}"))),
        };
    }
    let candidates = path.split(':').map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(OsStr::new(name)));
    candidates.into_iter().find(|c| is_program(c)).ok_or_else(|| (127, format!("there is no program `{name}` in PATH ({path})")))
}

fn check_format(program: &Path) -> Option<(i32, String)> {
    let mut start = [0; 4];
    // One that may be executed and not read is the kernel's to judge.
    let len = fs::File::open(program).and_then(|mut f| f.read(&mut start)).ok()?;
    let is_known = start[..len].starts_with(b"#!") || start == *b"\x7fELF";
    (!is_known).then(|| (126, format!("`{}` is neither an ELF file nor a script with a `#!` line", program.display())))
}
