//! Entry and exit code.
//!
//! A trap arrives on IST1 (or IST2, see `segments`). The stub pushes its vector; the common code picks the stack to work on, copies what the CPU pushed
//! into a [`UserFrame`](crate::UserFrame) there, and leaves the IST stack, so that the next trap can use it:
//!
//! - from ring 3: the top of the task's kernel stack, after `swapgs`;
//! - from ring 0: 128 bytes (the red zone) below the interrupted stack pointer.
//!
//! ```text
//! IST1: rcx rax vector error rip cs rflags rsp ss        frame: xmm0..15 pad r15..rdi orig_rax rip cs rflags rsp ss
//! ```
//!
//! `syscall` builds the same frame directly. Both ways out restore xmm0 to xmm15 and all registers; `sysret` is taken when it would restore the same as
//! `iretq` (rcx = rip, r11 = rflags, no single step, rip below the canonical boundary).

use core::arch::global_asm;

/// Bytes from one stub to the next.
pub(super) const STUB_BYTES: usize = 16;

unsafe extern "C" {
    static ukc_arch_trap_stubs: [u8; STUB_BYTES * super::VECTORS];
    fn ukc_arch_syscall_entry();
}

pub(super) fn stubs() -> usize {
    (&raw const ukc_arch_trap_stubs) as usize
}

pub(super) fn syscall_address() -> u64 {
    ukc_arch_syscall_entry as *const () as u64
}

global_asm!(
    r#"
    .macro SAVE_XMM
    movaps [rsp], xmm0
    movaps [rsp + 16], xmm1
    movaps [rsp + 32], xmm2
    movaps [rsp + 48], xmm3
    movaps [rsp + 64], xmm4
    movaps [rsp + 80], xmm5
    movaps [rsp + 96], xmm6
    movaps [rsp + 112], xmm7
    movaps [rsp + 128], xmm8
    movaps [rsp + 144], xmm9
    movaps [rsp + 160], xmm10
    movaps [rsp + 176], xmm11
    movaps [rsp + 192], xmm12
    movaps [rsp + 208], xmm13
    movaps [rsp + 224], xmm14
    movaps [rsp + 240], xmm15
    .endm

    // Restores everything below orig_rax except rcx, r11, rax's neighbours that the two ways out need; leaves rsp at orig_rax.
    .macro RESTORE_REGISTERS
    movaps xmm0, [rsp]
    movaps xmm1, [rsp + 16]
    movaps xmm2, [rsp + 32]
    movaps xmm3, [rsp + 48]
    movaps xmm4, [rsp + 64]
    movaps xmm5, [rsp + 80]
    movaps xmm6, [rsp + 96]
    movaps xmm7, [rsp + 112]
    movaps xmm8, [rsp + 128]
    movaps xmm9, [rsp + 144]
    movaps xmm10, [rsp + 160]
    movaps xmm11, [rsp + 176]
    movaps xmm12, [rsp + 192]
    movaps xmm13, [rsp + 208]
    movaps xmm14, [rsp + 224]
    movaps xmm15, [rsp + 240]
    add rsp, 264
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rax
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    .endm

    .section .text.ukc_arch_trap, "ax", @progbits
    .balign 16
    .globl ukc_arch_trap_stubs
ukc_arch_trap_stubs:
    .set vector, 0
    .rept {vectors}
    .balign 16
    // The CPU pushes an error code for #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX (Intel SDM vol. 3, table 6-1; AMD vol. 2, 8.2).
    .if (vector != 8) && (vector != 10) && (vector != 11) && (vector != 12) && (vector != 13) && (vector != 14) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)
    push 0
    .endif
    push vector
    .if (vector == 2) || (vector == 8) || (vector == 18)
    jmp trap_fatal
    .else
    jmp trap_common
    .endif
    .set vector, vector + 1
    .endr

    .balign 16
trap_common:
    push rax
    push rcx
    cld
    test byte ptr [rsp + 40], 3
    jz 1f
    swapgs
    mov rax, gs:[{kernel_stack}]
    jmp 2f
1:  mov rax, [rsp + 56]
    sub rax, 128
    and rax, -16
2:
    .globl ukc_arch_clac_trap
ukc_arch_clac_trap:
    .byte 0x0f, 0x1f, 0x00
    sub rax, {frame}
    mov rcx, [rsp + 64]
    mov [rax + 424], rcx
    mov rcx, [rsp + 56]
    mov [rax + 416], rcx
    mov rcx, [rsp + 48]
    mov [rax + 408], rcx
    mov rcx, [rsp + 40]
    mov [rax + 400], rcx
    mov rcx, [rsp + 32]
    mov [rax + 392], rcx
    mov qword ptr [rax + 384], -1
    mov [rax + 376], rdi
    mov [rax + 368], rsi
    mov [rax + 360], rdx
    mov rcx, [rsp]
    mov [rax + 352], rcx
    mov rcx, [rsp + 8]
    mov [rax + 344], rcx
    mov rsi, [rsp + 16]
    mov rdx, [rsp + 24]
    mov rsp, rax
    mov [rsp + 336], r8
    mov [rsp + 328], r9
    mov [rsp + 320], r10
    mov [rsp + 312], r11
    mov [rsp + 304], rbx
    mov [rsp + 296], rbp
    mov [rsp + 288], r12
    mov [rsp + 280], r13
    mov [rsp + 272], r14
    mov [rsp + 264], r15
    SAVE_XMM
    mov rdi, rsp
    mov rcx, cr2
    xor ebp, ebp
    call {trap}
    test byte ptr [rsp + 400], 3
    jnz ukc_arch_return_to_user
    RESTORE_REGISTERS
    add rsp, 8
    iretq

    // Registers for the report, on IST2; there is no way back.
trap_fatal:
    push rax
    push rcx
    mov rdi, [rsp + 16]
    lea rsi, [rsp + 32]
    mov rdx, rbp
    and rsp, -16
    cld
    call {fatal}
    ud2

    .balign 16
    .globl ukc_arch_syscall_entry
ukc_arch_syscall_entry:
    swapgs
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{kernel_stack}]
    push {user_ss}
    push qword ptr gs:[{user_rsp}]
    push r11
    push {user_cs}
    push rcx
    push rax
    push rdi
    push rsi
    push rdx
    push rcx
    push -38
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    sub rsp, 264
    SAVE_XMM
    mov rdi, rsp
    xor ebp, ebp
    sti
    call {syscall}

    // rsp is the frame. The exit work runs first and leaves interrupts off.
    .globl ukc_arch_return_to_user
ukc_arch_return_to_user:
    mov rdi, rsp
    call {exit}
    test al, al
    jz 3f
    RESTORE_REGISTERS
    mov rsp, [rsp + 32]
    swapgs
    sysretq
3:
    RESTORE_REGISTERS
    add rsp, 8
    swapgs
    iretq
"#,
    vectors = const super::VECTORS,
    kernel_stack = const crate::cpu::PERCPU_KERNEL_STACK,
    user_rsp = const crate::cpu::PERCPU_USER_RSP,
    frame = const crate::frame::FRAME_BYTES,
    user_ss = const crate::frame::USER_SS,
    user_cs = const crate::frame::USER_CS,
    trap = sym super::dispatch::trap,
    fatal = sym super::dispatch::fatal,
    syscall = sym crate::hooks::ukc_syscall,
    exit = sym super::dispatch::exit_to_user,
);
