//! Mounts: overlays, the kernel's file systems, and binds to places inside a root.
//!
//! A place inside a root is opened with openat2(2) and `RESOLVE_IN_ROOT`, as if the process had already changed its root: a symbolic link to `/etc/passwd`
//! means the root's, never the host's. The mount then goes to what was opened, not to a path that is walked again.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, makedev, mknodat, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_bind_recursive, mount_change, mount_remount, move_mount, unmount,
};

/// Device nodes: name, major and minor number (Linux, admin-guide/devices.txt). Docker's list.
const DEVICES: [(&str, u32, u32); 6] = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];
/// What Docker hides (moby, `oci/defaults.go`).
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// What Docker makes read-only (same file).
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Docker's default for `/dev/shm`.
const SHM: &str = "mode=1777,size=65536k";

/// Cuts the mounts of this namespace off from those of the one before.
pub(super) fn make_private() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

pub(super) fn detach(path: &Path) -> io::Result<()> {
    Ok(unmount(path, UnmountFlags::DETACH)?)
}

/// Mounts an overlay; `lower` are paths relative to `dir`, the lowest first. The upper directory holds whole files and needs nothing else to be
/// understood (`index`, `metacopy` and `redirect_dir` off), and nothing is flushed to disk on its behalf: a run that is cut short is thrown away.
pub(super) fn overlay(dir: &Path, lower: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path, has_devices: bool) -> io::Result<()> {
    // Short names: an option of fsconfig(2) holds 256 bytes, all options of mount(2) together a page.
    std::env::set_current_dir(dir)?;
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mut is_listed = true;
    for layer in lower.iter().rev() {
        // Linux 6.5.
        if fsconfig_set_string(&fs, "lowerdir+", layer.as_os_str()).is_err() {
            is_listed = false;
            break;
        }
    }
    let flags = if has_devices { MountFlags::empty() } else { MountFlags::NODEV };
    if !is_listed {
        return old_overlay(lower, upper, target, flags);
    }
    if let Some((upper, work)) = upper {
        fsconfig_set_string(&fs, "upperdir", short(dir, upper))?;
        fsconfig_set_string(&fs, "workdir", short(dir, work))?;
        fsconfig_set_flag(&fs, "volatile")?;
    }
    for option in ["index", "metacopy", "redirect_dir"] {
        fsconfig_set_string(&fs, option, "off")?;
    }
    if is_in_user_namespace() {
        fsconfig_set_flag(&fs, "userxattr")?;
    }
    fsconfig_create(&fs)?;
    let attributes = if has_devices { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV };
    let mounted = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(move_mount(&mounted, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn old_overlay(lower: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path, flags: MountFlags) -> io::Result<()> {
    let names: Vec<&[u8]> = lower.iter().rev().map(|l| l.as_os_str().as_bytes()).collect();
    let mut options = [b"lowerdir=".as_slice(), &names.join(&b':')].concat();
    if let Some((upper, work)) = upper {
        for (name, path) in [(",upperdir=", upper), (",workdir=", work)] {
            options.extend(name.bytes());
            options.extend(path.as_os_str().as_bytes());
        }
    }
    options.extend(b",index=off,metacopy=off");
    if is_in_user_namespace() {
        options.extend(b",userxattr");
    }
    let options = std::ffi::CString::new(options)?;
    Ok(mount("overlay", target, "overlay", flags, options.as_c_str())?)
}

fn short<'p>(dir: &Path, path: &'p Path) -> &'p OsStr {
    path.strip_prefix(dir).unwrap_or(path).as_os_str()
}

/// Whether uid 0 here is somebody else outside (user_namespaces(7), `/proc/PID/uid_map`).
fn is_in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

/// A root directory that is not yet the process's own.
pub(super) struct Root {
    dir: OwnedFd,
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root { dir: rustix::fs::openat(CWD, path, flags, Mode::empty())? })
    }

    /// Opens what a path means inside the root, and returns a path to just that.
    pub fn place(&self, path: &[u8]) -> io::Result<Place> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // EAGAIN: something was renamed meanwhile, and the kernel cannot tell whether `..` led out (openat2(2)).
        loop {
            match openat2(&self.dir, OsStr::from_bytes(path), flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                result => return Ok(Place { fd: result? }),
            }
        }
    }

    /// Makes a place that is not there: one inside an outer mount. (All others were made before.)
    pub fn ensure(&self, path: &[u8], is_dir: bool) -> io::Result<()> {
        let parts: Vec<&[u8]> = ukc_rootfs::path::components(path).collect();
        let mut at = vec![];
        for (n, part) in parts.iter().enumerate() {
            let parent = at.clone();
            at.push(b'/');
            at.extend_from_slice(part);
            if !self.place(&at).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                continue;
            }
            let dir = self.place(if parent.is_empty() { b"/" } else { &parent })?;
            let name = OsStr::from_bytes(part);
            if is_dir || n + 1 < parts.len() {
                rustix::fs::mkdirat(&dir.fd, name, Mode::from_raw_mode(0o755))?;
            } else {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&dir.fd, name, flags, Mode::from_raw_mode(0o644))?;
            }
        }
        Ok(())
    }

    fn mount_new(&self, fs: &str, path: &str, flags: MountFlags, options: &str) -> io::Result<()> {
        let options = std::ffi::CString::new(options)?;
        Ok(mount(fs, self.place(path.as_bytes())?.path(), fs, flags, options.as_c_str())?)
    }

    /// Binds a file or directory of the host.
    pub fn bind(&self, source: &Path, target: &[u8], read_only: bool) -> io::Result<()> {
        mount_bind_recursive(source, self.place(target)?.path())?;
        if read_only { self.make_read_only(target) } else { Ok(()) }
    }

    /// Makes the mount at a path read-only; what its source forbids besides stays forbidden.
    fn make_read_only(&self, target: &[u8]) -> io::Result<()> {
        let place = self.place(target)?;
        make_read_only(&place.path())
    }

    /// Mounts a directory in memory.
    pub fn tmpfs(&self, target: &[u8], size_bytes: Option<u64>) -> io::Result<()> {
        let size = size_bytes.map(|n| format!(",size={n}")).unwrap_or_default();
        let options = std::ffi::CString::new(format!("mode=1777{size}"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        Ok(mount("tmpfs", self.place(target)?.path(), "tmpfs", flags, options.as_c_str())?)
    }

    /// Mounts `/proc`, `/sys` and `/dev`. `private` is a directory in memory that the root does not show.
    pub fn system(&self, private: &Path, scripts: &[(String, Vec<u8>)], is_insecure: bool) -> io::Result<()> {
        let quiet = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
        let context = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| io::Error::new(e.kind(), format!("cannot mount {what}: {e}"))
        };
        self.mount_new("proc", "/proc", quiet, "").map_err(context("/proc"))?;
        let mut sys_flags = quiet;
        if !is_insecure {
            sys_flags |= MountFlags::RDONLY;
        }
        if self.mount_new("sysfs", "/sys", sys_flags, "").is_err() {
            // Only the owner of a network namespace can mount a new one.
            self.bind(Path::new("/sys"), b"/sys", !is_insecure).map_err(context("/sys"))?;
        }
        self.dev(private, scripts, quiet).map_err(context("/dev"))
    }

    fn dev(&self, private: &Path, scripts: &[(String, Vec<u8>)], quiet: MountFlags) -> io::Result<()> {
        // Nodes are bound from a file system of their own, so that `/dev` itself takes no devices: a program with CAP_MKNOD can then make any node and
        // open none. (Docker leaves that to the device cgroup.)
        let nodes = private.join("dev");
        fs::create_dir(&nodes)?;
        mount("tmpfs", nodes.as_path(), "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=755")?;
        self.mount_new("tmpfs", "/dev", MountFlags::NOSUID | MountFlags::NODEV, "mode=755,size=65536k")?;
        let dev = self.place(b"/dev")?.path();
        for (name, major, minor) in DEVICES {
            let node = nodes.join(name);
            fs::write(dev.join(name), "")?;
            let made = mknodat(CWD, &node, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor));
            let source = if made.is_ok() && !is_in_user_namespace() { node } else { Path::new("/dev").join(name) };
            mount_bind_recursive(&source, dev.join(name))?;
        }
        for (name, target) in LINKS {
            symlink(target, dev.join(name))?;
        }
        for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777), ("pipes", 0o755)] {
            fs::create_dir(dev.join(name))?;
            fs::set_permissions(dev.join(name), fs::Permissions::from_mode(mode))?;
        }
        for (name, text) in scripts {
            let path = dev.join("pipes").join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let pts = MountFlags::NOSUID | MountFlags::NOEXEC;
        // Group 5 is `tty`; it may have no mapping in a user namespace.
        self.mount_new("devpts", "/dev/pts", pts, "newinstance,ptmxmode=0666,mode=0620,gid=5")
            .or_else(|_| self.mount_new("devpts", "/dev/pts", pts, "newinstance,ptmxmode=0666,mode=0620"))?;
        self.mount_new("tmpfs", "/dev/shm", quiet, SHM)?;
        // A kernel may lack it.
        let _ = self.mount_new("mqueue", "/dev/mqueue", quiet, "");
        Ok(())
    }
}

/// Something opened inside a root.
pub(super) struct Place {
    fd: OwnedFd,
}

impl Place {
    /// Returns a path that means what was opened, as long as this lives.
    pub fn path(&self) -> PathBuf {
        // The descriptor stays open until the process becomes another program: there are few of them, and a path must not outlive its meaning.
        let fd = self.fd.try_clone().map_or(self.fd.as_raw_fd(), std::os::fd::IntoRawFd::into_raw_fd);
        format!("/proc/self/fd/{fd}").into()
    }
}

fn make_read_only(path: &Path) -> io::Result<()> {
    let now = rustix::fs::statvfs(path)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (has, flag) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if now.contains(has) {
            flags |= flag;
        }
    }
    Ok(mount_remount(path, flags, "")?)
}

/// Hides and protects parts of `/proc` and `/sys`. The root is the process's own by now.
pub(super) fn mask() -> io::Result<()> {
    for path in MASKED {
        let Ok(meta) = fs::symlink_metadata(path) else { continue };
        if meta.is_dir() {
            mount("tmpfs", path, "tmpfs", MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV, c"size=0k")?;
        } else {
            mount_bind_recursive("/dev/null", path)?;
        }
    }
    for path in READ_ONLY.iter().filter(|p| Path::new(p).exists()) {
        mount_bind_recursive(*path, *path)?;
        make_read_only(Path::new(path))?;
    }
    Ok(())
}

/// Makes `root` the root of this mount namespace and forgets the old one (pivot_root(2), NOTES: `pivot_root(".", ".")`).
pub(super) fn pivot(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}
