//! What comes along with a signal: `siginfo_t` (sigaction(2)).
//!
//! The kernel keeps the 48 bytes that carry anything (`struct kernel_siginfo`) and fills up with zeros to 128 when a program gets to see it:
//!
//! ```text
//! 0        4        8        12       16                24               32               40               48
//! | signo  | errno  | code   | 0      | a               | b              | c              | d              |
//!                                      kill:   pid, uid |
//!                                      queue:  pid, uid | sigval
//!                                      timer:  id, over | sigval
//!                                      child:  pid, uid | status, 0      | utime          | stime
//!                                      fault:  address  |
//!                                      poll:   band     | fd
//! ```

use libos_abi::general as linux;

/// Who or what a signal comes from, and its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SigInfo {
    /// Signal number.
    pub signo: i32,
    /// `si_errno`; nearly always 0.
    pub errno: i32,
    /// `si_code`: above 0 is the kernel's word, at most 0 a program's.
    pub code: i32,
    /// Padding before the union.
    pub zero: i32,
    /// The union, see the picture above.
    pub fields: [u64; 4],
}

/// `siginfo_t` as programs see it.
pub type UserSigInfo = [u64; 16];

/// Joins two 32-bit halves, the first one at the lower address.
const fn pair(low: i32, high: u32) -> u64 {
    low as u32 as u64 | (high as u64) << 32
}

impl SigInfo {
    /// From the kernel itself, without details (`SI_KERNEL`).
    pub fn kernel(signo: u32) -> SigInfo {
        SigInfo { signo: signo as i32, code: linux::SI_KERNEL as i32, ..SigInfo::default() }
    }

    /// From kill(2), with `SI_USER`, or tgkill(2), with `SI_TKILL`.
    pub fn user(signo: u32, code: i32, pid: i32, uid: u32) -> SigInfo {
        SigInfo { signo: signo as i32, code, fields: [pair(pid, uid), 0, 0, 0], ..SigInfo::default() }
    }

    /// From a fault: `si_code` and the address.
    pub fn fault(signo: u32, code: i32, addr: usize) -> SigInfo {
        SigInfo { signo: signo as i32, code, fields: [addr as u64, 0, 0, 0], ..SigInfo::default() }
    }

    /// About a child: SIGCHLD. Times are in clock ticks of 10 ms.
    pub fn child(code: u32, pid: i32, uid: u32, status: i32, utime: u64, stime: u64) -> SigInfo {
        let fields = [pair(pid, uid), pair(status, 0), utime, stime];
        SigInfo { signo: linux::SIGCHLD as i32, code: code as i32, fields, ..SigInfo::default() }
    }

    /// From a timer of timer_create(2).
    pub fn timer(signo: u32, id: i32, overrun: i32, value: u64) -> SigInfo {
        SigInfo { signo: signo as i32, code: linux::SI_TIMER, fields: [pair(id, overrun as u32), value, 0, 0], ..SigInfo::default() }
    }

    /// Whether a program sent it.
    pub fn is_from_user(&self) -> bool {
        self.code <= 0
    }

    /// Sender or child.
    pub fn pid(&self) -> i32 {
        self.fields[0] as i32
    }

    /// The timer, for `SI_TIMER`.
    pub fn timer_id(&self) -> i32 {
        self.fields[0] as i32
    }

    /// Real user id of the sender or child.
    pub fn uid(&self) -> u32 {
        (self.fields[0] >> 32) as u32
    }

    /// As a program sees it.
    pub fn to_user(&self) -> UserSigInfo {
        let mut out = [0; 16];
        out[0] = pair(self.signo, self.errno as u32);
        out[1] = pair(self.code, 0);
        out[2..6].copy_from_slice(&self.fields);
        out
    }

    /// As a program wrote it (rt_sigqueueinfo(2)); the kernel decides the signal number.
    pub fn from_user(signo: u32, raw: &UserSigInfo) -> SigInfo {
        SigInfo {
            signo: signo as i32,
            errno: (raw[0] >> 32) as i32,
            code: raw[1] as i32,
            zero: 0,
            fields: [raw[2], raw[3], raw[4], raw[5]],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_the_layout() {
        let raw = SigInfo::child(linux::CLD_EXITED, 7, 1000, 3, 5, 6).to_user();
        assert_eq!(raw[0], 17);
        assert_eq!(raw[1], 1);
        assert_eq!(raw[2], 7 | 1000 << 32);
        assert_eq!(raw[3..6], [3, 5, 6]);
        assert_eq!(SigInfo::from_user(17, &raw), SigInfo::child(linux::CLD_EXITED, 7, 1000, 3, 5, 6));
        assert!(SigInfo::user(10, linux::SI_TKILL, 1, 0).is_from_user());
        assert!(!SigInfo::kernel(10).is_from_user());
    }

    #[test]
    fn negative_numbers_stay_in_their_half() {
        let raw = SigInfo { signo: 10, errno: -1, code: -6, ..SigInfo::default() }.to_user();
        assert_eq!(SigInfo::from_user(10, &raw).errno, -1);
        assert_eq!(SigInfo::from_user(10, &raw).code, -6);
    }
}
