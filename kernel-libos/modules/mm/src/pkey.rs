//! pkey_alloc(2), pkey_free(2), pkey_mprotect(2), as Linux answers on a processor without protection keys.

use libos_core::{Errno, Result, Task};

/// `PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE`.
const RIGHTS: usize = 3;

pub(crate) fn sys_pkey_alloc(_task: &Task, flags: usize, rights: usize) -> Result<usize> {
    if flags != 0 || rights & !RIGHTS != 0 {
        return Err(Errno::EINVAL);
    }
    // All keys that exist, none, are in use.
    Err(Errno::ENOSPC)
}

pub(crate) fn sys_pkey_free(_task: &Task, _pkey: i32) -> Result<usize> {
    Err(Errno::EINVAL)
}

pub(crate) fn sys_pkey_mprotect(task: &Task, addr: usize, len: usize, prot: u32, pkey: i32) -> Result<usize> {
    // -1 is mprotect(2).
    if pkey == -1 { crate::map::sys_mprotect(task, addr, len, prot) } else { Err(Errno::EINVAL) }
}
