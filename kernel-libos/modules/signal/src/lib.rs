//! Signals: kill(2) and its relatives, sigaction(2), sigprocmask(2), sigaltstack(2), sigreturn(2), waiting for signals.
//!
//! The machinery is `libos_core::task::signal`; these are its entries. restart_syscall(2) is in core, because no program names it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod action;
mod send;
mod wait;

libos_core::module! {
    name: signal,
    needs: [],
    syscalls: {
        rt_sigaction => action::sys_rt_sigaction,
        rt_sigprocmask => action::sys_rt_sigprocmask,
        rt_sigpending => action::sys_rt_sigpending,
        rt_sigreturn => action::sys_rt_sigreturn,
        sigaltstack => action::sys_sigaltstack,
        rt_sigsuspend => wait::sys_rt_sigsuspend,
        rt_sigtimedwait => wait::sys_rt_sigtimedwait,
        pause => wait::sys_pause,
        kill => send::sys_kill,
        tkill => send::sys_tkill,
        tgkill => send::sys_tgkill,
        rt_sigqueueinfo => send::sys_rt_sigqueueinfo,
        rt_tgsigqueueinfo => send::sys_rt_tgsigqueueinfo,
    },
}
