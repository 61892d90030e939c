//! Physical and virtual addresses, and where things lie in the kernel half.
//!
//! ```text
//! 0x0000000000000000 ..= 0x00007fffffffefff   the program (USER_END is exclusive; the last page stays empty, as on Linux)
//! 0xffff800000000000 ..                       direct map: physical address + DIRECT_MAP, all RAM, never executable
//! 0xffffffff80000000 + physical               the kernel image, text R-X, constants R, data RW
//! 0xffffffffc0000000 ..                       device memory, mapped piece by piece (see `mmio`)
//! ```

use core::fmt;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// First byte behind the program's half. The page below the canonical boundary is left out, because `sysret` to 0x800000000000 would fault in ring 0
/// (Intel SDM 4-689, SYSRET).
pub const USER_END: usize = 0x7fff_ffff_f000;

/// Virtual address of physical address 0 in the direct map.
pub const DIRECT_MAP: usize = 0xffff_8000_0000_0000;

/// Virtual address of physical address 0 in the mapping of the kernel image.
pub const KERNEL_BASE: usize = 0xffff_ffff_8000_0000;

/// A physical address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct PhysAddr(pub u64);

/// A virtual address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct VirtAddr(pub usize);

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl PhysAddr {
    /// The address `bytes` further.
    pub const fn offset(self, bytes: u64) -> PhysAddr {
        PhysAddr(self.0 + bytes)
    }
}

impl VirtAddr {
    /// Whether the address lies in the program's half.
    pub const fn is_user(self) -> bool {
        self.0 < USER_END
    }
}

/// Returns where the direct map shows a physical address of RAM. On the host, where page tables are ordinary memory, it is the address itself.
pub const fn phys_to_virt(addr: PhysAddr) -> *mut u8 {
    if cfg!(ukc_kernel) { (DIRECT_MAP + addr.0 as usize) as *mut u8 } else { addr.0 as *mut u8 }
}

/// Returns the physical address behind a pointer into the direct map or the kernel image.
pub fn virt_to_phys(pointer: *const u8) -> PhysAddr {
    let addr = pointer as usize;
    if !cfg!(ukc_kernel) {
        PhysAddr(addr as u64)
    } else if addr >= KERNEL_BASE {
        PhysAddr((addr - KERNEL_BASE) as u64)
    } else {
        PhysAddr((addr - DIRECT_MAP) as u64)
    }
}

pub use crate::mmio::map_mmio;
