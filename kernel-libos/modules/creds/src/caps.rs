//! capget(2) and capset(2).
//!
//! The header is a version and a thread id; the data are effective, permitted and inheritable as 32-bit words: once for version 1, twice (low halves, then
//! high halves) for versions 2 and 3.

use libos_core::task::creds::LAST_CAPABILITY;
use libos_core::task::{Credentials, table};
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use crate::change::{self, CapabilitySets};

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;
const ALL: u64 = (1 << (LAST_CAPABILITY + 1)) - 1;

/// Reads the header; returns how many times three words follow, and the thread id.
fn read_header(header: UserPtr<[u32; 2]>) -> Result<(usize, i32)> {
    let [version, pid] = header.read()?;
    let count = match version {
        VERSION_1 => 1,
        VERSION_2 | VERSION_3 => 2,
        _ => {
            // The kernel says which version it prefers.
            header.write([VERSION_3, pid])?;
            return Err(Errno::EINVAL);
        }
    };
    if (pid as i32) < 0 { Err(Errno::EINVAL) } else { Ok((count, pid as i32)) }
}

pub fn sys_capget(task: &Task, header: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) -> Result<usize> {
    let (count, tid) = match read_header(header) {
        // Asking with a null pointer only finds out the version.
        Err(Errno::EINVAL) if data.is_null() => return Ok(0),
        other => other?,
    };
    if data.is_null() {
        return Ok(0);
    }
    let creds = if tid == 0 { task.creds() } else { table::task(tid)?.creds() };
    let words = |shift: u32| [creds.effective, creds.permitted, creds.inheritable].map(|set| ((set & ALL) >> shift) as u32);
    for i in 0..count {
        data.index(i).write(words(32 * i as u32))?;
    }
    Ok(0)
}

pub fn sys_capset(task: &Task, header: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) -> Result<usize> {
    let (count, tid) = read_header(header)?;
    // Others' capabilities cannot be changed (capset(2)).
    if tid != 0 && tid != task.tid() {
        return Err(Errno::EPERM);
    }
    let mut sets = [0u64; 3];
    for i in 0..count {
        for (set, word) in sets.iter_mut().zip(data.index(i).read()?) {
            *set |= u64::from(word) << (32 * i);
        }
    }
    let [effective, permitted, inheritable] = sets.map(|set| set & ALL);
    let new: Credentials = change::set_capabilities(&task.creds(), CapabilitySets { effective, permitted, inheritable })?;
    task.set_creds(new);
    Ok(0)
}
