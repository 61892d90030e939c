//! Clocks, sleeping, interval timers, POSIX timers, CPU times.
//!
//! | file | what it is for |
//! |---|---|
//! | `clock` | which clocks there are, reading and setting them |
//! | `sleep` | nanosleep(2), clock_nanosleep(2) |
//! | `alarm` | a timer that sends signals: what setitimer(2) and timer_create(2) are made of |
//! | `calls` | those calls |
//! | `usage` | times(2), getrusage(2) |
//!
//! Differences from Linux: timers on `CLOCK_REALTIME` do not move when the clock is set; adjusting the clock's speed (adjtimex(2)) is `EPERM`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod alarm;
mod calls;
mod clock;
mod sleep;
mod usage;

libos_core::module! {
    name: time,
    needs: [],
    syscalls: {
        clock_gettime => clock::sys_clock_gettime,
        clock_getres => clock::sys_clock_getres,
        clock_settime => clock::sys_clock_settime,
        gettimeofday => clock::sys_gettimeofday,
        settimeofday => clock::sys_settimeofday,
        time => clock::sys_time,
        adjtimex => clock::sys_adjtimex: partial "reading is supported, changes are EPERM",
        clock_adjtime => clock::sys_clock_adjtime: partial "reading is supported, changes are EPERM",
        nanosleep => sleep::sys_nanosleep,
        clock_nanosleep => sleep::sys_clock_nanosleep,
        alarm => calls::sys_alarm,
        setitimer => calls::sys_setitimer,
        getitimer => calls::sys_getitimer,
        timer_create => calls::sys_timer_create,
        timer_settime => calls::sys_timer_settime,
        timer_gettime => calls::sys_timer_gettime,
        timer_getoverrun => calls::sys_timer_getoverrun,
        timer_delete => calls::sys_timer_delete,
        times => usage::sys_times,
        getrusage => usage::sys_getrusage,
    },
}
