//! prctl(2), arch_prctl(2), personality(2).

use core::sync::atomic::Ordering;

use libos_core::abi::general as linux;
use libos_core::abi::prctl as pr;
use libos_core::arch::addr::USER_END;
use libos_core::task::creds::{Credentials, LAST_CAPABILITY};
use libos_core::task::{cpu, signal::set};
use libos_core::user::{UserPtr, UserStr};
use libos_core::{Errno, Result, Task};

/// `SECBIT_KEEP_CAPS`.
const KEEP_CAPS: u32 = 1 << 4;
/// `SECBIT_KEEP_CAPS_LOCKED`.
const KEEP_CAPS_LOCKED: u32 = 1 << 5;
/// `SECBIT_NO_CAP_AMBIENT_RAISE`.
const NO_AMBIENT_RAISE: u32 = 1 << 6;

fn changed(task: &Task, f: impl FnOnce(&mut Credentials)) -> Result<usize> {
    let mut creds = (*task.creds()).clone();
    f(&mut creds);
    task.set_creds(creds);
    Ok(0)
}

/// Every argument that an operation does not use must be 0, for the newer ones.
fn unused(arguments: &[usize]) -> Result<()> {
    if arguments.iter().all(|a| *a == 0) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn flag(value: usize) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Errno::EINVAL),
    }
}

pub fn sys_prctl(task: &Task, operation: u32, a: usize, b: usize, c: usize, d: usize) -> Result<usize> {
    let process = &task.process;
    let creds = || task.creds();
    match operation {
        pr::PR_SET_NAME => {
            // Cut, not refused, when it is too long.
            let mut name = [0; 15];
            let mut len = 0;
            while len < name.len() {
                name[len] = UserPtr::<u8>::new(a).index(len).read()?;
                if name[len] == 0 {
                    break;
                }
                len += 1;
            }
            task.set_name(&name[..len]);
            Ok(0)
        }
        pr::PR_GET_NAME => {
            let name = *task.name.lock();
            UserPtr::<[u8; 16]>::new(a).write(name)?;
            Ok(0)
        }
        pr::PR_SET_PDEATHSIG => {
            if a > set::MAX as usize {
                return Err(Errno::EINVAL);
            }
            task.parent_death_signal.store(a as u32, Ordering::Relaxed);
            Ok(0)
        }
        pr::PR_GET_PDEATHSIG => {
            UserPtr::<i32>::new(a).write(task.parent_death_signal.load(Ordering::Relaxed) as i32)?;
            Ok(0)
        }
        pr::PR_GET_DUMPABLE => Ok(process.dumpable.load(Ordering::Relaxed) as usize),
        pr::PR_SET_DUMPABLE => {
            process.dumpable.store(u32::from(flag(a)?), Ordering::Relaxed);
            Ok(0)
        }
        pr::PR_SET_CHILD_SUBREAPER => {
            process.is_subreaper.store(a != 0, Ordering::Relaxed);
            Ok(0)
        }
        pr::PR_GET_CHILD_SUBREAPER => {
            UserPtr::<i32>::new(a).write(process.is_subreaper.load(Ordering::Relaxed) as i32)?;
            Ok(0)
        }
        pr::PR_SET_NO_NEW_PRIVS => {
            unused(&[b, c, d])?;
            if a != 1 {
                return Err(Errno::EINVAL);
            }
            changed(task, |creds| creds.no_new_privs = true)
        }
        pr::PR_GET_NO_NEW_PRIVS => {
            unused(&[a, b, c, d])?;
            Ok(usize::from(creds().no_new_privs))
        }
        // No filter is ever installed.
        pr::PR_GET_SECCOMP => Ok(0),
        pr::PR_CAPBSET_READ => {
            if a > LAST_CAPABILITY as usize {
                return Err(Errno::EINVAL);
            }
            Ok((creds().bounding >> a & 1) as usize)
        }
        pr::PR_CAPBSET_DROP => {
            task.require(linux::CAP_SETPCAP)?;
            if a > LAST_CAPABILITY as usize {
                return Err(Errno::EINVAL);
            }
            changed(task, |creds| creds.bounding &= !(1 << a))
        }
        pr::PR_GET_KEEPCAPS => Ok(usize::from(creds().securebits & KEEP_CAPS != 0)),
        pr::PR_SET_KEEPCAPS => {
            let keep = flag(a)?;
            if creds().securebits & KEEP_CAPS_LOCKED != 0 {
                return Err(Errno::EPERM);
            }
            changed(task, |creds| creds.securebits = creds.securebits & !KEEP_CAPS | if keep { KEEP_CAPS } else { 0 })
        }
        pr::PR_GET_SECUREBITS => Ok(creds().securebits as usize),
        pr::PR_SET_SECUREBITS => set_securebits(task, a as u32),
        pr::PR_CAP_AMBIENT => ambient(task, a as u32, b),
        // Timers fire on time: 50 microseconds are what Linux reports by default.
        pr::PR_GET_TIMERSLACK => Ok(50_000),
        pr::PR_SET_TIMERSLACK => Ok(0),
        pr::PR_GET_TIMING | pr::PR_SET_TIMING if a == 0 => Ok(0),
        pr::PR_SET_THP_DISABLE => unused(&[b, c, d]).map(|()| 0),
        pr::PR_GET_THP_DISABLE => unused(&[a, b, c, d]).map(|()| 0),
        // Names of mappings are for people who read /proc/PID/maps.
        pr::PR_SET_VMA => Ok(0),
        pr::PR_GET_TSC => {
            UserPtr::<i32>::new(a).write(pr::PR_TSC_ENABLE as i32)?;
            Ok(0)
        }
        pr::PR_SET_TSC if a == pr::PR_TSC_ENABLE as usize => Ok(0),
        pr::PR_MCE_KILL | pr::PR_MCE_KILL_GET => Ok(if operation == pr::PR_MCE_KILL_GET { pr::PR_MCE_KILL_DEFAULT as usize } else { 0 }),
        pr::PR_SET_PTRACER => Ok(0),
        pr::PR_GET_TID_ADDRESS => {
            UserPtr::<usize>::new(a).write(task.clear_child_tid.load(Ordering::Relaxed))?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn set_securebits(task: &Task, new: u32) -> Result<usize> {
    let old = task.creds().securebits;
    // Odd bits lock the bit below; a locked bit stays, and so does the lock.
    let locked = old & 0xaa;
    if new & !0xff != 0 || (new ^ old) & (locked >> 1) != 0 || locked & !new != 0 {
        return Err(Errno::EPERM);
    }
    task.require(linux::CAP_SETPCAP)?;
    changed(task, |creds| creds.securebits = new)
}

fn ambient(task: &Task, operation: u32, capability: usize) -> Result<usize> {
    let creds = task.creds();
    if operation == pr::PR_CAP_AMBIENT_CLEAR_ALL {
        return if capability == 0 { changed(task, |creds| creds.ambient = 0) } else { Err(Errno::EINVAL) };
    }
    if capability > LAST_CAPABILITY as usize {
        return Err(Errno::EINVAL);
    }
    let bit = 1 << capability;
    match operation {
        pr::PR_CAP_AMBIENT_IS_SET => Ok(usize::from(creds.ambient & bit != 0)),
        pr::PR_CAP_AMBIENT_LOWER => changed(task, |creds| creds.ambient &= !bit),
        pr::PR_CAP_AMBIENT_RAISE => {
            if creds.permitted & creds.inheritable & bit == 0 || creds.securebits & NO_AMBIENT_RAISE != 0 {
                return Err(Errno::EPERM);
            }
            changed(task, |creds| creds.ambient |= bit)
        }
        _ => Err(Errno::EINVAL),
    }
}

pub fn sys_arch_prctl(task: &Task, operation: u32, addr: usize) -> Result<usize> {
    const SET_GS: u32 = 0x1001;
    const SET_FS: u32 = 0x1002;
    const GET_FS: u32 = 0x1003;
    const GET_GS: u32 = 0x1004;
    const GET_CPUID: u32 = 0x1011;
    const SET_CPUID: u32 = 0x1012;
    match operation {
        SET_FS | SET_GS if addr >= USER_END => return Err(Errno::EPERM),
        SET_FS => cpu::set_fs_base(task, addr),
        SET_GS => cpu::set_gs_base(task, addr),
        GET_FS => UserPtr::new(addr).write(cpu::bases(task).0)?,
        GET_GS => UserPtr::new(addr).write(cpu::bases(task).1)?,
        // Programs may use CPUID.
        GET_CPUID => return Ok(1),
        SET_CPUID => return Err(Errno::ENODEV),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

pub fn sys_personality(task: &Task, new: u32) -> Result<usize> {
    let personality = &task.process.personality;
    let old = personality.load(Ordering::Relaxed);
    // 0xffffffff only asks.
    if new != u32::MAX {
        personality.store(new, Ordering::Relaxed);
    }
    Ok(old as usize)
}

pub fn sys_rseq(_task: &Task, _area: UserStr, _len: u32, _flags: u32, _signature: u32) -> Result<usize> {
    Err(Errno::ENOSYS)
}
