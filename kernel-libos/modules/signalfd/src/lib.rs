//! signalfd(2): pending signals as something to read.
//!
//! Differences from Linux: a description that was passed to another process reports the signals of the reader, as on Linux, but wakes pollers for those of
//! the process that polls first.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};

use libos_core::abi::general as linux;
use libos_core::file::{FileOps, OpenFile, OpenFlags, RawFd};
use libos_core::io::IoDst;
use libos_core::poll::{PollEvents, PollTable};
use libos_core::task::signal::{self, SigInfo, SigSet, set};
use libos_core::task::with_current;
use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

libos_core::module! {
    name: signalfd,
    needs: [],
    syscalls: {
        signalfd => sys_signalfd,
        signalfd4 => sys_signalfd4,
    },
}

struct SignalFd {
    mask: AtomicU64,
}

impl SignalFd {
    fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::Relaxed))
    }
}

/// `struct signalfd_siginfo`, 128 bytes (signalfd(2)).
fn to_record(info: &SigInfo) -> [u8; 128] {
    let mut out = [0; 128];
    let mut put = |at: usize, value: u64, len: usize| out[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    let [a, b, c, d] = info.fields;
    put(0, info.signo as u32 as u64, 4);
    put(4, info.errno as u32 as u64, 4);
    put(8, info.code as u32 as u64, 4);
    let signo = info.signo as u32;
    let is_kernels = info.code > 0;
    if info.code == linux::SI_TIMER {
        // ssi_tid, ssi_overrun, ssi_int, ssi_ptr.
        put(24, a & 0xffff_ffff, 4);
        put(32, a >> 32, 4);
        put(44, b & 0xffff_ffff, 4);
        put(48, b, 8);
    } else if is_kernels && signo == set::SIGCHLD {
        // ssi_pid, ssi_uid, ssi_status, ssi_utime, ssi_stime.
        put(12, a & 0xffff_ffff, 4);
        put(16, a >> 32, 4);
        put(40, b & 0xffff_ffff, 4);
        put(56, c, 8);
        put(64, d, 8);
    } else if is_kernels && SigSet::SYNCHRONOUS.contains(signo) && info.code != linux::SI_KERNEL as i32 {
        // ssi_addr.
        put(72, a, 8);
    } else if is_kernels && signo == set::SIGIO {
        // ssi_band, ssi_fd.
        put(28, a & 0xffff_ffff, 4);
        put(20, b & 0xffff_ffff, 4);
    } else {
        // ssi_pid, ssi_uid, ssi_int, ssi_ptr.
        put(12, a & 0xffff_ffff, 4);
        put(16, a >> 32, 4);
        put(44, b & 0xffff_ffff, 4);
        put(48, b, 8);
    }
    out
}

impl FileOps for SignalFd {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        if dst.remaining() < 128 {
            return Err(Errno::EINVAL);
        }
        let mut total = 0;
        while dst.remaining() >= 128 {
            let taken = with_current(|task| signal::take_pending(task, self.mask()));
            let info = match taken {
                Some(info) => info,
                None if total > 0 => break,
                None if file.is_nonblocking() => return Err(Errno::EAGAIN),
                None => {
                    let arrivals = with_current(|task| task.signals.arrivals.clone());
                    arrivals.wait(|| with_current(|task| signal::take_pending(task, self.mask())))?
                }
            };
            total += dst.push(&to_record(&info))?;
        }
        Ok(total)
    }

    fn poll(&self, _file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        with_current(|task| {
            table.add(&task.signals.arrivals);
            let mask = self.mask();
            let is_ready = !signal::all_pending(task).intersection(mask).is_empty();
            if is_ready { PollEvents::READABLE } else { PollEvents::empty() }
        })
    }

    fn anonymous_name(&self) -> Option<String> {
        Some(String::from("anon_inode:[signalfd]"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn sys_signalfd(task: &Task, fd: RawFd, mask: UserPtr<u64>, size: usize) -> Result<usize> {
    sys_signalfd4(task, fd, mask, size, 0)
}

fn sys_signalfd4(task: &Task, fd: RawFd, mask: UserPtr<u64>, size: usize, flags: u32) -> Result<usize> {
    // SFD_CLOEXEC and SFD_NONBLOCK are O_CLOEXEC and O_NONBLOCK.
    if flags & !(linux::O_CLOEXEC | linux::O_NONBLOCK) != 0 || size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(mask.read()?).minus(SigSet::UNBLOCKABLE);
    if fd == -1 {
        let flags = OpenFlags::from_bits_truncate(flags);
        let ops = Arc::new(SignalFd { mask: AtomicU64::new(mask.0) });
        let file = OpenFile::new(ops, OpenFlags::RDWR | flags & OpenFlags::NONBLOCK, None);
        return task.install(file, flags.contains(OpenFlags::CLOEXEC));
    }
    let file = task.files().get(fd)?;
    let signal_fd = file.ops.as_any().downcast_ref::<SignalFd>().ok_or(Errno::EINVAL)?;
    signal_fd.mask.store(mask.0, Ordering::Relaxed);
    task.signals.arrivals.wake_all();
    Ok(fd as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(record: &[u8; 128], at: usize) -> u32 {
        u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"))
    }

    #[test]
    fn records_have_the_fields_of_their_kind() {
        let child = to_record(&SigInfo::child(linux::CLD_EXITED, 7, 1000, 3, 5, 6));
        assert_eq!((word(&child, 0), word(&child, 12), word(&child, 16), word(&child, 40), word(&child, 56)), (17, 7, 1000, 3, 5));
        let queued = to_record(&SigInfo { signo: 40, code: linux::SI_QUEUE, fields: [7, 99, 0, 0], ..SigInfo::default() });
        assert_eq!((word(&queued, 0), word(&queued, 8) as i32, word(&queued, 12), word(&queued, 44)), (40, -1, 7, 99));
        let timer = to_record(&SigInfo::timer(40, 2, 3, 0x1234));
        assert_eq!((word(&timer, 24), word(&timer, 32), word(&timer, 44)), (2, 3, 0x1234));
        let fault = to_record(&SigInfo::fault(set::SIGSEGV, 1, 0xabc));
        assert_eq!(word(&fault, 72), 0xabc);
    }
}
