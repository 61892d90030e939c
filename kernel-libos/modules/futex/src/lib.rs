//! Futexes: sleeping until a word of memory changes (futex(2)), and what a thread owes when it ends holding one (get_robust_list(2)).
//!
//! | file | what it is for |
//! |---|---|
//! | `table` | who waits for which word |
//! | `ops` | waiting, waking, moving waiters |
//! | `pi` | locks whose word names the owner |
//! | `robust` | the end of a thread |
//!
//! A word is found by its page source and offset when its mapping is shared, so that processes meet; by address space and address otherwise.
//!
//! The value is read after the waiter is in the table, never under a lock (reading may page the word in): a waker that changes the word first and then wakes
//! finds the waiter or is seen by it.
//!
//! Differences from Linux: priority inheritance (`FUTEX_LOCK_PI`) hands the lock over in order but lends no priority; `FUTEX_WAIT_REQUEUE_PI` and
//! `FUTEX_CMP_REQUEUE_PI` are `ENOSYS` (glibc no longer uses them).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod ops;
mod pi;
mod robust;
mod table;

libos_core::module! {
    name: futex,
    needs: [],
    init: init,
    syscalls: {
        futex => ops::sys_futex: partial "FUTEX_WAIT_REQUEUE_PI and FUTEX_CMP_REQUEUE_PI are ENOSYS",
        set_robust_list => robust::sys_set_robust_list,
        get_robust_list => robust::sys_get_robust_list,
    },
}

fn init() {
    libos_core::task::exit::set_memory_hook(robust::thread_ends);
}
