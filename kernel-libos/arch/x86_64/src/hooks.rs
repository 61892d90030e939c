//! The functions that `arch` calls and `core` defines (with `#[unsafe(no_mangle)]` and these exact types).
//!
//! On the host there is no kernel above: tables come from the process's heap, and nothing else is ever called.

#[cfg(ukc_kernel)]
mod kernel {
    use crate::addr::PhysAddr;
    use crate::boot::BootInfo;
    use crate::frame::UserFrame;
    use crate::irq::Irq;
    use crate::trap::Fault;

    unsafe extern "Rust" {
        /// The kernel proper: boot CPU, interrupts off, on a 16 KiB stack in .bss.
        pub safe fn ukc_main(boot: &'static BootInfo) -> !;
        /// A system call: number in `orig_rax`, arguments in rdi rsi rdx r10 r8 r9; the answer goes to `rax`. Interrupts are on.
        pub safe fn ukc_syscall(frame: &mut UserFrame);
        /// An exception in ring 3. Interrupts are on.
        pub safe fn ukc_user_fault(frame: &mut UserFrame, fault: Fault);
        /// A user-copy primitive faulted at a user address: make the page present and answer true, or false to let the copy fail. May block; the
        /// interrupt flag is what it was at the copy.
        pub safe fn ukc_kernel_fault(addr: usize, write: bool) -> bool;
        /// An interrupt, interrupts off.
        pub safe fn ukc_interrupt(irq: Irq);
        /// Called with interrupts on before every return to ring 3, again for as long as `work_pending` is set afterwards.
        pub safe fn ukc_before_user(frame: &mut UserFrame);
        /// Returns a zeroed page for a page table.
        pub safe fn ukc_alloc_table() -> Option<PhysAddr>;
        /// Takes back a page of `ukc_alloc_table`.
        pub safe fn ukc_free_table(table: PhysAddr);
    }
}
#[cfg(ukc_kernel)]
pub use kernel::*;

#[cfg(not(ukc_kernel))]
mod host {
    use alloc::alloc::{alloc_zeroed, dealloc};
    use core::alloc::Layout;

    use crate::addr::{PAGE_SIZE, PhysAddr};

    const PAGE: Layout = match Layout::from_size_align(PAGE_SIZE, PAGE_SIZE) {
        Ok(layout) => layout,
        Err(_) => unreachable!(),
    };

    /// Returns a zeroed page.
    pub fn ukc_alloc_table() -> Option<PhysAddr> {
        // SAFETY: the layout has a size.
        let page = unsafe { alloc_zeroed(PAGE) };
        (!page.is_null()).then_some(PhysAddr(page as u64))
    }

    /// Frees a page of `ukc_alloc_table`.
    pub fn ukc_free_table(table: PhysAddr) {
        // SAFETY: tables are freed once, by the page table that allocated them above with this layout.
        unsafe { dealloc(table.0 as *mut u8, PAGE) }
    }
}
#[cfg(not(ukc_kernel))]
pub use host::*;
