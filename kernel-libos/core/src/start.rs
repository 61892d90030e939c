//! From the boot record to the first process, and from its end to the end of the machine.
//!
//! The boot context becomes the idle task; a thread of the kernel does everything that may sleep (drivers, mounts, exec) and then becomes process 1. What
//! cannot be started is one clear line on the console, and a status that shells know: 127 for not found, 126 for not executable.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use libos_abi::{Errno, Result};
use ukc_boot_record::BootRecord;

use crate::arch::{BootInfo, UserFrame};
use crate::command_line::Overrides;
use crate::exec::{self, Strings};
use crate::file::OpenFlags;
use crate::sync::SpinLock;
use crate::task::creds::Credentials;
use crate::task::{Resource, Task, boot, cpu, sched, with_current};
use crate::vfs::{self, permission::Want};

/// What modules do when the machine ends, before file systems write what is dirty.
static AT_SHUTDOWN: SpinLock<Vec<fn()>> = SpinLock::new(Vec::new());

/// Arranges for a function to be called before the machine is turned off.
pub fn at_shutdown(f: fn()) {
    AT_SHUTDOWN.lock().push(f);
}

/// What modules do once the root file system is there, with the rights of root and before the program is started.
static AFTER_MOUNT: SpinLock<Vec<fn(&Task)>> = SpinLock::new(Vec::new());

/// Arranges for a function to be called when the root file system is mounted; for init functions.
pub fn after_mount(f: fn(&Task)) {
    AFTER_MOUNT.lock().push(f);
}

/// What the monitor told.
static BOOT_INFO: SpinLock<Option<&'static BootInfo>> = SpinLock::new(None);

/// The kernel command line (/proc/cmdline).
pub fn command_line() -> &'static [u8] {
    BOOT_INFO.lock().map_or(b"", |info| info.cmdline)
}

/// The boot record that is linked into the kernel; `None` when it is malformed.
pub fn boot_record() -> Option<BootRecord<'static>> {
    BootRecord::parse(linked::boot_record()).ok()
}

#[cfg(ukc_kernel)]
mod linked {
    unsafe extern "C" {
        static ukc_boot_record: u8;
        static ukc_boot_record_len: u64;
        /// Functions up to a null pointer.
        static ukc_module_inits: Option<extern "C" fn()>;
    }

    pub fn boot_record() -> &'static [u8] {
        // SAFETY: the compiler writes both symbols; the length is that of the bytes, and nobody changes them.
        unsafe { core::slice::from_raw_parts(&raw const ukc_boot_record, ukc_boot_record_len as usize) }
    }

    pub fn run_module_inits() {
        // SAFETY: the table is written by the compiler and ends with a null pointer.
        let mut next = &raw const ukc_module_inits;
        // SAFETY: as above; `next` does not pass the null pointer.
        while let Some(init) = unsafe { *next } {
            init();
            // SAFETY: as above.
            next = unsafe { next.add(1) };
        }
    }
}

#[cfg(not(ukc_kernel))]
mod linked {
    pub fn boot_record() -> &'static [u8] {
        &[]
    }

    pub fn run_module_inits() {}
}

#[cfg(ukc_kernel)]
#[unsafe(no_mangle)]
fn ukc_main(info: &'static BootInfo) -> ! {
    main(info)
}

/// What the boot CPU does after `arch` has set it up, for the rest of its life.
pub fn main(info: &'static BootInfo) -> ! {
    *BOOT_INFO.lock() = Some(info);
    let usable = info.memory.iter().filter(|r| r.usable);
    let bytes: u64 = usable.clone().map(|r| r.len).sum();
    let initrd = info.initrd.map(|(at, len)| (at.0, at.0 + len as u64));
    crate::mm::frame::init(usable.map(|r| (r.start, r.start + r.len)), &[], initrd);
    let started = boot::make_idle_task(bytes).and_then(|()| boot::spawn_first_process(first_process));
    if let Err(errno) = started {
        crate::arch::report!("ukc: cannot start: ", describe(errno), " (the machine has ", bytes / 1024, " KiB of free memory)");
        power_off(126);
    }
    crate::arch::cpu::interrupts_enable();
    sched::idle()
}

/// What the thread does that becomes process 1.
fn first_process() {
    let mut frame = UserFrame::new_user(0, 0);
    match prepare(&mut frame) {
        // Nothing that owns anything is left on this stack.
        Ok(()) => {
            HAS_STARTED.store(true, Ordering::Relaxed);
            cpu::enter_user(&frame)
        }
        Err(Failure { program, what, errno }) => {
            let status = if errno == Errno::ENOENT { 127 } else { 126 };
            crate::arch::report!("ukc: cannot ", what, " ", &program[..], ": ", describe(errno), " (errno ", u64::from(errno.0), ")");
            power_off(status)
        }
    }
}

static HAS_STARTED: AtomicBool = AtomicBool::new(false);

/// Whether the first program is still to be started: what happens now nobody can date more exactly than "at boot".
pub fn is_booting() -> bool {
    cfg!(ukc_kernel) && !HAS_STARTED.load(Ordering::Relaxed)
}

/// Why the first process could not be started.
struct Failure {
    program: Vec<u8>,
    what: &'static str,
    errno: Errno,
}

/// Does everything up to the first instruction of the program.
fn prepare(frame: &mut UserFrame) -> Result<(), Failure> {
    let failure = |what: &'static str, program: &[u8]| {
        let program = program.to_vec();
        move |errno: Errno| Failure { program, what, errno }
    };
    let record = BootRecord::parse(linked::boot_record()).map_err(|_| failure("read", b"the boot record")(Errno::EINVAL))?;
    let over = Overrides::parse(command_line());
    linked::run_module_inits();
    crate::control::start();

    let initrd = BOOT_INFO.lock().and_then(|info| info.initrd).map(|(at, len)| (at, len as u64));
    let fs = vfs::boot::mount_all(record.mounts(), initrd).map_err(failure("mount", b"the root file system"))?;
    for mount in &over.mounts {
        vfs::boot::mount_named(&fs, mount).map_err(failure("mount", mount))?;
    }
    let program = over.program.as_deref().unwrap_or(record.program);
    let cwd = over.cwd.as_deref().unwrap_or(record.cwd);
    with_current(|task| {
        task.set_fs(fs);
        let functions = core::mem::take(&mut *AFTER_MOUNT.lock());
        functions.into_iter().for_each(|f| f(task));
        enter_directory(task, cwd).map_err(failure("enter", cwd))?;
        open_console(task).map_err(failure("open", b"/dev/console"))?;
        let groups: Vec<u32> = record.groups().collect();
        task.set_creds(Credentials::initial(over.uid.unwrap_or(record.uid), over.gid.unwrap_or(record.gid), groups));
        if program.is_empty() {
            return Err(failure("start", b"the program: neither image nor command line name one")(Errno::ENOENT));
        }
        let mut args = Strings::default();
        let mut env = Strings::default();
        let filled = fill(&mut args, over.args(&record)).and_then(|()| fill(&mut env, over.env(&record)));
        filled.map_err(failure("start", program))?;
        let path = over.env(&record).find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or_default();
        let found = find_program(task, program, path).map_err(failure("start", program))?;
        exec_program(task, &found, args, env, frame).map_err(failure("start", program))
    })
}

fn fill<'a>(strings: &mut Strings, from: impl Iterator<Item = &'a [u8]>) -> Result<()> {
    for string in from {
        strings.push(string)?;
    }
    Ok(())
}

/// The file that a program's name means: itself when it has a slash, else the first executable file of that name in `PATH` (execvp(3)). The compiler
/// has done this for the image's own program; the command line may name another.
fn find_program(task: &Task, program: &[u8], path: &[u8]) -> Result<Vec<u8>> {
    if program.contains(&b'/') {
        return Ok(program.to_vec());
    }
    let mut error = Errno::ENOENT;
    for dir in path.split(|&b| b == b':') {
        let mut file = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
        file.push(b'/');
        file.extend_from_slice(program);
        let Ok(place) = vfs::lookup(task, &file) else { continue };
        let attributes = place.inode().attributes()?;
        match vfs::permission::check(&task.creds(), attributes, Want::EXEC) {
            Ok(()) if attributes.is_regular() => return Ok(file),
            _ => error = Errno::EACCES,
        }
    }
    Err(error)
}

fn exec_program(task: &Task, program: &[u8], args: Strings, env: Strings, frame: &mut UserFrame) -> Result<()> {
    let place = vfs::lookup(task, program)?;
    let loaded = exec::load(task, place, program, args, env)?;
    crate::task::exec::replace(task, loaded, frame);
    Ok(())
}

/// chdir(2); a working directory that the image does not contain is made, as container runtimes do.
fn enter_directory(task: &Task, path: &[u8]) -> Result<()> {
    let place = match vfs::lookup(task, path) {
        Err(Errno::ENOENT) => vfs::boot::make_dirs(&task.fs().root(), path)?,
        found => found?,
    };
    if !place.inode().attributes()?.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let fs = task.fs();
    let old = core::mem::replace(&mut *fs.cwd.lock(), place);
    drop(old);
    Ok(())
}

/// Descriptors 0, 1 and 2 are the console: /dev/console when the image's kernel has it, else one that only writes.
fn open_console(task: &Task) -> Result<()> {
    let file = match vfs::open(task, b"/dev/console", OpenFlags::RDWR) {
        Ok(file) => file,
        Err(_) => crate::console::open(),
    };
    for _ in 0..3 {
        task.files().insert(file.clone(), false, 0, task.limit(Resource::NoFile))?;
    }
    Ok(())
}

/// A few words for the errors that starting a program meets.
fn describe(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => "no such file, or its interpreter is missing",
        Errno::EACCES => "not an executable file",
        Errno::ENOEXEC => "not a program for this machine",
        Errno::ELIBBAD => "its interpreter is not a program for this machine",
        Errno::ENOMEM => "not enough memory; give the machine more with --memory",
        Errno::ENOTDIR => "not a directory",
        Errno::ENXIO => "there is neither an initrd nor a disk",
        Errno::E2BIG => "arguments and environment are too long",
        Errno::ELOOP => "too many links or interpreters",
        Errno::EIO | Errno::EUCLEAN => "the file system is damaged",
        Errno::EINVAL => "malformed",
        _ => "see errno(3)",
    }
}

/// The first process has ended: so does the machine.
pub(crate) fn first_process_ended(status: i32) -> ! {
    let signo = status & 0x7f;
    if signo != 0 {
        with_current(|task| {
            crate::arch::report!("ukc: ", &task.name_bytes()[..], " was killed by signal ", signo as u64, signal_name(signo));
        });
        power_off(128 + signo as u8)
    }
    power_off((status >> 8) as u8)
}

fn signal_name(signo: i32) -> &'static str {
    match signo {
        4 => " (illegal instruction)",
        6 => " (aborted)",
        7 => " (bus error)",
        8 => " (arithmetic exception)",
        9 => " (killed)",
        11 => " (segmentation fault)",
        15 => " (terminated)",
        _ => "",
    }
}

/// Writes what is dirty and turns the machine off (reboot(2) too).
pub fn power_off(status: u8) -> ! {
    let functions = core::mem::take(&mut *AT_SHUTDOWN.lock());
    for f in functions {
        f();
    }
    for mount in vfs::mount::mounts() {
        if mount.fs.sync().is_err() {
            crate::arch::report!("ukc: could not write all of ", &mount.source[..]);
        }
    }
    crate::control::report_exit(status);
    crate::arch::power::exit(status)
}
