//! How calls look.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use libos_core::abi::Errno;
use libos_core::enosys::name_of;
use libos_core::user::{UserPtr, UserSlice, UserStr};

/// Arguments by letter: `d` number, `x` hexadecimal, `o` octal mode, `s` string, `f` directory descriptor, `w` bytes that the call reads (their number is the
/// next argument), `r` bytes that it fills (their number is the result), `k` signal, `p` two descriptors that it fills. Calls that are not here show six
/// hexadecimal numbers.
const CALLS: &str = "
read drd|write dwd|open sxo|close d|stat sx|fstat dx|lstat sx|poll xdd|lseek ddd|mmap xxxxdx|mprotect xxx|munmap xx|brk x|rt_sigaction kxxd
rt_sigprocmask dxxd|rt_sigreturn|ioctl dxx|pread64 drdd|pwrite64 dwdd|readv dxd|writev dxd|access so|pipe p|pipe2 px|select dxxxx|sched_yield|mremap xxxxx
madvise xxd|dup d|dup2 dd|dup3 ddx|pause|nanosleep xx|getitimer dx|alarm d|setitimer dxx|getpid|sendfile ddxd|socket ddd|connect dxd|accept dxx|accept4 dxxx
sendto dwdxxd|recvfrom drdxxx|sendmsg dxx|recvmsg dxx|shutdown dd|bind dxd|listen dd|getsockname dxx|getpeername dxx|socketpair dddp|setsockopt dddxd
getsockopt dddxx|clone xxxxx|fork|vfork|execve sxx|exit d|wait4 dxxx|waitid ddxxx|kill dk|uname x|fcntl ddx|flock dd|fsync d|fdatasync d|truncate sd|ftruncate dd
getdents64 dxd|getcwd xd|chdir s|fchdir d|rename ss|mkdir so|rmdir s|creat so|link ss|unlink s|symlink ss|readlink srd|chmod so|fchmod do|chown sdd
fchown ddd|umask o|gettimeofday xx|getrlimit dx|getrusage dx|sysinfo x|times x|getuid|getgid|setuid d|setgid d|geteuid|getegid|setpgid dd|getppid|getpgrp
setsid|setreuid dd|setregid dd|getgroups dx|setgroups dx|setresuid ddd|getresuid xxx|setresgid ddd|getresgid xxx|getpgid d|getsid d|rt_sigpending xd
rt_sigtimedwait xxxd|rt_sigqueueinfo dkx|rt_sigsuspend xd|sigaltstack xx|statfs sx|fstatfs dx|getpriority dd|setpriority ddd|prctl dxxxx|arch_prctl xx
setrlimit dx|sync|mount sssxx|umount2 sx|gettid|tkill dk|time x|futex xddxxx|sched_getaffinity ddx|sched_setaffinity ddx|epoll_create d|set_tid_address x
timer_create dxx|timer_settime dxxx|timer_gettime dx|timer_delete d|clock_settime dx|clock_gettime dx|clock_getres dx|clock_nanosleep dxxx|exit_group d
epoll_wait dxdd|epoll_ctl dddx|tgkill ddk|openat fsxo|mkdirat fso|fchownat fsddx|newfstatat fsxx|unlinkat fsx|renameat fsfs|renameat2 fsfsx|linkat fsfsx
symlinkat sfs|readlinkat fsrd|fchmodat fso|faccessat fso|faccessat2 fsox|pselect6 dxxxxx|ppoll xdxxd|set_robust_list xd|utimensat fsxx|epoll_pwait dxddxd
signalfd dxd|timerfd_create dx|eventfd d|fallocate dddd|timerfd_settime dxxx|timerfd_gettime dx|signalfd4 dxdx|eventfd2 dx|epoll_create1 x|preadv dxdd
pwritev dxdd|prlimit64 ddxx|sendmmsg dxdx|recvmmsg dxdxx|getcpu xxx|getrandom xdx|memfd_create sx|execveat fsxxx|statx fsxxx|rseq xdxx|clone3 xd|close_range ddx
openat2 fsxd|pidfd_open dx|pidfd_send_signal dkxx|membarrier ddd";

/// Letters of the arguments of a call.
fn letters(name: &str) -> Option<&'static str> {
    CALLS.split(['|', '\n']).find_map(|entry| {
        let (known, letters) = entry.split_once(' ').unwrap_or((entry, ""));
        (known == name).then_some(letters)
    })
}

/// Bytes of a string or buffer that are shown.
const SHOWN: usize = 32;

/// Writes bytes between quotes as C would spell them.
fn quote(out: &mut String, bytes: &[u8], is_cut: bool) {
    out.push('"');
    for &byte in bytes {
        match byte {
            b'"' => out.push_str("\\\""),
            _ => {
                let _ = write!(out, "{}", byte.escape_ascii());
            }
        }
    }
    out.push_str(if is_cut { "\"..." } else { "\"" });
}

fn buffer(out: &mut String, addr: u64, len: usize) {
    let mut bytes = [0; SHOWN];
    let shown = len.min(SHOWN);
    match UserSlice::<u8>::new(addr as usize, shown).map(|s| s.read_to(&mut bytes[..shown])) {
        Some(Ok(())) => quote(out, &bytes[..shown], len > shown),
        _ => {
            let _ = write!(out, "{addr:#x}");
        }
    }
}

fn argument(out: &mut String, letter: u8, args: &[u64], result: Option<i64>) {
    let value = args[0];
    let signed = value as i32;
    // Writing to a string cannot fail.
    let _ = match letter {
        b'd' => write!(out, "{}", if value == u64::from(value as u32) { i64::from(signed) } else { value as i64 }),
        b'o' => write!(out, "0{:o}", value as u32),
        b'k' => write!(out, "{}", signal_name(value as u32)),
        b'f' if signed == libos_core::abi::general::AT_FDCWD => write!(out, "AT_FDCWD"),
        b'f' => write!(out, "{signed}"),
        b's' => match UserStr::new(value as usize).read(4096, Errno::ENAMETOOLONG) {
            Ok(text) => {
                quote(out, &text, false);
                Ok(())
            }
            Err(_) if value == 0 => write!(out, "NULL"),
            Err(_) => write!(out, "{value:#x}"),
        },
        b'w' => {
            buffer(out, value, args.get(1).map_or(0, |&len| len as usize));
            Ok(())
        }
        b'r' => match result {
            Some(len) if len >= 0 => {
                buffer(out, value, len as usize);
                Ok(())
            }
            _ => write!(out, "{value:#x}"),
        },
        b'p' => match (result, UserPtr::<[i32; 2]>::new(value as usize).read()) {
            (Some(0), Ok([a, b])) => write!(out, "[{a}, {b}]"),
            _ => write!(out, "{value:#x}"),
        },
        _ if value == 0 => write!(out, "0"),
        _ => write!(out, "{value:#x}"),
    };
}

/// The call with its arguments; buffers that it fills are shown when the result is known.
pub fn call(number: u64, args: &[u64; 6], result: Option<i64>) -> String {
    let name = name_of(number as usize);
    let letters = name.and_then(letters);
    let mut out = match name {
        Some(name) => format!("{name}("),
        None => format!("syscall_{number}("),
    };
    for (i, letter) in letters.unwrap_or("xxxxxx").bytes().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        argument(&mut out, letter, &args[i..], result);
    }
    out.push(')');
    out
}

/// The answer: a number, an address for calls that give one, or the name of the error.
pub fn result(number: u64, result: i64) -> String {
    if !(-4095..0).contains(&result) {
        let is_address = matches!(name_of(number as usize), Some("mmap" | "mremap" | "brk" | "shmat"));
        return if is_address { format!("{result:#x}") } else { format!("{result}") };
    }
    let errno = Errno(result.unsigned_abs() as u16);
    match result {
        // include/linux/errno.h: what signal delivery turns into a restart or EINTR.
        -516..=-512 => String::from("? (interrupted)"),
        _ => format!("-1 {errno:?}"),
    }
}

/// Name of a signal.
pub fn signal_name(signo: u32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
        "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match signo.checked_sub(1).and_then(|at| NAMES.get(at as usize)) {
        Some(name) => format!("SIG{name}"),
        None if (32..=64).contains(&signo) => format!("SIGRT_{}", signo - 32),
        None => format!("{signo}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libos_core::abi::general as linux;

    #[test]
    fn every_described_call_exists_and_has_at_most_six_arguments() {
        for entry in CALLS.split(['|', '\n']).filter(|e| !e.is_empty()) {
            let (name, letters) = entry.split_once(' ').unwrap_or((entry, ""));
            assert!(libos_core::abi::syscall::NAMES.iter().any(|(_, known)| *known == name), "{name}");
            assert!(letters.len() <= 6 && letters.bytes().all(|b| b"dxosfwrkp".contains(&b)), "{entry}");
        }
    }

    #[test]
    fn calls_look_as_strace_prints_them() {
        let args = [3, 0x1000, 7, 0, 0, 0];
        assert_eq!(call(u64::from(linux::__NR_lseek), &[3, 100, 0, 0, 0, 0], None), "lseek(3, 100, 0)");
        assert_eq!(call(u64::from(linux::__NR_kill), &[u64::from(u32::MAX), 9, 0, 0, 0, 0], None), "kill(-1, SIGKILL)");
        assert_eq!(call(u64::from(linux::__NR_getpid), &args, None), "getpid()");
        assert_eq!(call(400, &[1, 2, 0, 0, 0, 0], None), "syscall_400(0x1, 0x2, 0, 0, 0, 0)");
        assert_eq!(
            call(u64::from(linux::__NR_openat), &[-100i64 as u64, 0, 0x80000, 0, 0, 0], None),
            "openat(AT_FDCWD, NULL, 0x80000, 00)"
        );
    }

    #[test]
    fn answers_are_numbers_addresses_or_errors() {
        assert_eq!(result(u64::from(linux::__NR_read), 5), "5");
        assert_eq!(result(u64::from(linux::__NR_mmap), 0x7000), "0x7000");
        assert_eq!(result(u64::from(linux::__NR_read), -2), "-1 ENOENT");
        assert_eq!(result(u64::from(linux::__NR_read), -512), "? (interrupted)");
    }

    #[test]
    fn bytes_are_quoted_as_c_would() {
        let mut out = String::new();
        quote(&mut out, b"a\"\n\x01\\", true);
        assert_eq!(out, r#""a\"\n\x01\\"..."#);
    }
}
