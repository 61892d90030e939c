//! Kernel-mode contexts: what makes a task continue where it left the CPU.

use crate::frame::UserFrame;

/// A suspended kernel-mode context: its stack pointer, below which lie the callee-saved registers and the address to return to.
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    rsp: usize,
}

impl Default for Context {
    fn default() -> Context {
        Context::empty()
    }
}

impl Context {
    /// Returns a context to save into; it must not be switched to before that.
    pub const fn empty() -> Context {
        Context { rsp: 0 }
    }

    /// Returns a context that calls `entry(arg)` on the stack that ends at `stack_top`, interrupts as they are at the switch (off).
    ///
    /// # Safety
    /// At least 512 bytes below `stack_top` (16-byte aligned) are writable and nobody else's until the context has ended. The topmost
    /// [`UserFrame`] is left alone, for the registers of the program.
    pub unsafe fn new(stack_top: usize, entry: extern "C" fn(usize) -> !, arg: usize) -> Context {
        let frame = stack_top - size_of::<UserFrame>();
        // r15, r14, r13, r12 (the argument), rbp, rbx (the entry), then the address to return to. After that rsp is the frame, 16-byte aligned.
        let words: [usize; 7] = [0, 0, 0, arg, 0, entry as *const () as usize, entry_address()];
        let rsp = frame - size_of_val(&words);
        // SAFETY: the words lie in the range the caller promised.
        unsafe { (rsp as *mut [usize; 7]).write(words) };
        Context { rsp }
    }
}

/// Suspends this context into `from` and resumes `to`. Returns when somebody switches back.
///
/// # Safety
/// Interrupts are off; `to` was filled by [`Context::new`] or by this function and is resumed once; its stack exists.
pub unsafe fn switch(from: *mut Context, to: *const Context) {
    #[cfg(ukc_kernel)]
    // SAFETY: the caller's promise.
    unsafe {
        ukc_arch_switch(from, to)
    };
    #[cfg(not(ukc_kernel))]
    {
        let _ = (from, to);
        unreachable!("there are no contexts on the host");
    }
}

/// Sets where entries from ring 3 save the registers of the task that runs next: the top (16-byte aligned) of its kernel stack.
pub fn set_kernel_stack(top: usize) {
    debug_assert!(top.is_multiple_of(16));
    crate::cpu::this_cpu().kernel_stack.store(top, core::sync::atomic::Ordering::Relaxed);
}

/// Continues in ring 3 with these registers, after [`ukc_before_user`](crate::hooks) as always. The frame is copied to the top of the kernel stack set
/// by [`set_kernel_stack`], unless it lies there already.
pub fn enter_user(frame: &UserFrame) -> ! {
    #[cfg(ukc_kernel)]
    // SAFETY: the topmost frame of the kernel stack is reserved for this (`Context::new` starts below it), and nothing above this call is returned to.
    unsafe {
        ukc_arch_enter_user(frame)
    };
    #[cfg(not(ukc_kernel))]
    {
        let _ = frame;
        unreachable!("there is no ring 3 on the host");
    }
}

fn entry_address() -> usize {
    #[cfg(ukc_kernel)]
    {
        ukc_arch_context_entry as *const () as usize
    }
    #[cfg(not(ukc_kernel))]
    0
}

#[cfg(ukc_kernel)]
unsafe extern "C" {
    fn ukc_arch_switch(from: *mut Context, to: *const Context);
    fn ukc_arch_context_entry();
    fn ukc_arch_enter_user(frame: *const UserFrame) -> !;
}

#[cfg(ukc_kernel)]
core::arch::global_asm!(
    r#"
    .section .text.ukc_arch_switch, "ax", @progbits
    .globl ukc_arch_switch
ukc_arch_switch:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rdi], rsp
    mov rsp, [rsi]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    .section .text.ukc_arch_context_entry, "ax", @progbits
    .globl ukc_arch_context_entry
ukc_arch_context_entry:
    mov rdi, r12
    xor ebp, ebp
    call rbx
    ud2

    // The source may overlap the destination only from below (it lies on this stack), so the copy goes from the end to the start.
    .section .text.ukc_arch_enter_user, "ax", @progbits
    .globl ukc_arch_enter_user
ukc_arch_enter_user:
    cli
    mov rax, gs:[{kernel_stack}]
    lea rsi, [rdi + {frame} - 8]
    lea rdi, [rax - 8]
    mov ecx, {frame} / 8
    std
    rep movsq
    cld
    lea rsp, [rax - {frame}]
    jmp ukc_arch_return_to_user
"#,
    kernel_stack = const crate::cpu::PERCPU_KERNEL_STACK,
    frame = const crate::frame::FRAME_BYTES,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::user_frame_at;

    extern "C" fn entry(_: usize) -> ! {
        panic!("never called")
    }

    #[test]
    fn a_new_context_starts_below_the_frame_with_an_aligned_stack() {
        let mut stack = vec![0u128; 64];
        let top = stack.as_mut_ptr_range().end as usize;
        // SAFETY: the stack has 1024 bytes.
        let context = unsafe { Context::new(top, entry, 7) };
        // Six registers are popped, `ret` pops the seventh word, and the trampoline's `call` needs a stack aligned to 16 bytes.
        assert_eq!(context.rsp + 7 * 8, user_frame_at(top) as usize);
        assert_eq!((context.rsp + 7 * 8) % 16, 0);
    }
}
