//! uname(2), sysinfo(2), getrandom(2), getcpu(2), and calls that only the owner of a whole machine may make.

use libos_core::abi::general as linux;
use libos_core::sync::SpinLock;
use libos_core::task::table;
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result, Task, mm, random, start, time};

/// Bytes of each string of `struct utsname`, with its NUL.
const FIELD: usize = 65;

/// The host name once sethostname(2) has changed it.
static HOST_NAME: SpinLock<Option<[u8; FIELD]>> = SpinLock::new(None);

/// `struct utsname`: system, host, release, version, machine, domain. The release is that of the kernel whose behaviour we follow; programs compare it.
pub fn sys_uname(_task: &Task, out: UserPtr<[[u8; FIELD]; 6]>) -> Result<usize> {
    let field = |text: &[u8]| {
        let mut field = [0; FIELD];
        let len = text.len().min(FIELD - 1);
        field[..len].copy_from_slice(&text[..len]);
        field
    };
    let changed = *HOST_NAME.lock();
    let host = changed.unwrap_or_else(|| field(start::boot_record().map_or(b"localhost", |r| r.hostname)));
    out.write([field(b"Linux"), host, field(b"6.1.0-ukc"), field(b"#1 SMP ukc"), field(b"x86_64"), field(b"(none)")])?;
    Ok(0)
}

pub fn sys_sethostname(task: &Task, name: UserPtr<u8>, len: usize) -> Result<usize> {
    task.require(linux::CAP_SYS_ADMIN)?;
    if len >= FIELD {
        return Err(Errno::EINVAL);
    }
    let mut field = [0; FIELD];
    UserSlice::from_parts(name, len)?.read_to(&mut field[..len])?;
    *HOST_NAME.lock() = Some(field);
    Ok(0)
}

/// `struct sysinfo` in words: uptime, loads[3], totalram, freeram, sharedram, bufferram, totalswap, freeswap, procs, totalhigh, freehigh, mem_unit.
pub fn sys_sysinfo(_task: &Task, out: UserPtr<[u64; 14]>) -> Result<usize> {
    let (free, total) = mm::frame::count();
    let mut words = [0; 14];
    words[0] = time::monotonic_ns() / time::SECOND_NS;
    words[4] = (total * mm::PAGE_SIZE) as u64;
    words[5] = (free * mm::PAGE_SIZE) as u64;
    words[10] = table::tasks().len() as u64 & 0xffff;
    words[13] = 1;
    out.write(words)?;
    Ok(0)
}

pub fn sys_getrandom(_task: &Task, out: UserPtr<u8>, len: usize, flags: u32) -> Result<usize> {
    const INSECURE: u32 = 4;
    let known = linux::GRND_NONBLOCK | linux::GRND_RANDOM | INSECURE;
    if flags & !known != 0 || flags & (linux::GRND_RANDOM | INSECURE) == linux::GRND_RANDOM | INSECURE {
        return Err(Errno::EINVAL);
    }
    // read(2) moves at most this much (2 GiB minus a page), and so does this.
    let len = len.min(0x7fff_f000);
    let mut chunk = [0; 256];
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(chunk.len());
        random::fill(&mut chunk[..piece]);
        let target = UserSlice::<u8>::new(out.addr().wrapping_add(done), piece).ok_or(Errno::EFAULT);
        if let Err(errno) = target.and_then(|t| t.write_from(&chunk[..piece])) {
            return if done > 0 { Ok(done) } else { Err(errno) };
        }
        done += piece;
        // A long read ends when a signal is to be delivered, as read(2) would.
        if libos_core::task::with_current(|t| t.signals.has_deliverable(t)) && done >= 256 {
            break;
        }
    }
    Ok(done)
}

pub fn sys_getcpu(_task: &Task, cpu: UserPtr<u32>, node: UserPtr<u32>) -> Result<usize> {
    cpu.write_if_not_null(libos_core::arch::cpu::cpu_id())?;
    node.write_if_not_null(0)?;
    Ok(0)
}

pub fn sys_syslog(_task: &Task, _kind: i32, _out: UserPtr<u8>, _len: i32) -> Result<usize> {
    Err(Errno::EPERM)
}

pub fn sys_reboot(task: &Task, magic1: u32, magic2: u32, command: u32) -> Result<usize> {
    task.require(linux::CAP_SYS_BOOT)?;
    // LINUX_REBOOT_MAGIC1, and the birthdays that MAGIC2 may be.
    if magic1 != 0xfee1_dead || ![0x2812_1969, 0x0512_1996, 0x1604_1998, 0x2011_2000].contains(&magic2) {
        return Err(Errno::EINVAL);
    }
    const RESTART: u32 = 0x0123_4567;
    const HALT: u32 = 0xcdef_0123;
    const POWER_OFF: u32 = 0x4321_fedc;
    const CAD_OFF: u32 = 0;
    const CAD_ON: u32 = 0x89ab_cdef;
    match command {
        CAD_OFF | CAD_ON => Ok(0),
        RESTART | HALT | POWER_OFF => start::power_off(0),
        _ => Err(Errno::EINVAL),
    }
}
