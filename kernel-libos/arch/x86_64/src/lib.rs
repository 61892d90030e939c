//! x86-64: entry, traps, page tables, timers. (A host stand-in until the real crate lands; replaced as a whole.)
#![cfg_attr(not(test), no_std)]
#[derive(Clone)]
#[repr(C)]
pub struct UserFrame {
    pub rax: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub r10: u64,
    pub r8: u64,
    pub r9: u64,
}
pub mod addr {
    pub const USER_END: usize = 0x7fff_ffff_f000;
    #[derive(Clone, Copy)]
    pub struct PhysAddr(pub u64);
}
pub mod cpu {
    pub struct IrqGuard;
    impl IrqGuard {
        pub fn new() -> Self {
            IrqGuard
        }
    }
    impl Drop for IrqGuard {
        fn drop(&mut self) {}
    }
    pub fn relax() {}
}
pub mod user {
    pub struct Fault;
    pub fn copy_from_user(_d: &mut [u8], _s: usize) -> Result<(), Fault> {
        Err(Fault)
    }
    pub fn copy_to_user(_d: usize, _s: &[u8]) -> Result<(), Fault> {
        Err(Fault)
    }
    pub fn clear_user(_d: usize, _l: usize) -> Result<(), Fault> {
        Err(Fault)
    }
    pub fn copy_string(_d: &mut [u8], _s: usize) -> Result<usize, Fault> {
        Err(Fault)
    }
}
pub mod time {
    pub fn monotonic_ns() -> u64 {
        0
    }
    pub fn wall_clock_at_boot_ns() -> u64 {
        0
    }
}
