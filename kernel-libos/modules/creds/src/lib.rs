//! User ids, group ids, capabilities: credentials(7), capabilities(7).
//!
//! Each thread has its own; C libraries change those of all threads of a process together. What changes of the ids do to capabilities is in `change`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod caps;
mod change;
mod ids;

libos_core::module! {
    name: creds,
    needs: [],
    syscalls: {
        getuid => ids::sys_getuid,
        geteuid => ids::sys_geteuid,
        getgid => ids::sys_getgid,
        getegid => ids::sys_getegid,
        getresuid => ids::sys_getresuid,
        getresgid => ids::sys_getresgid,
        getgroups => ids::sys_getgroups,
        setuid => ids::sys_setuid,
        setgid => ids::sys_setgid,
        setreuid => ids::sys_setreuid,
        setregid => ids::sys_setregid,
        setresuid => ids::sys_setresuid,
        setresgid => ids::sys_setresgid,
        setfsuid => ids::sys_setfsuid,
        setfsgid => ids::sys_setfsgid,
        setgroups => ids::sys_setgroups,
        capget => caps::sys_capget,
        capset => caps::sys_capset,
    },
}
