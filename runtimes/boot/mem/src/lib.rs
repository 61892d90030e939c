//! memcpy and friends, which the compiler calls and the host toolchain does not define, and what core expects of a program without unwinding.
//!
//! Words where possible: one instruction that repeats takes a step per repetition where it is emulated. On the host this crate is empty.
#![cfg_attr(ukc_loader, no_std)]

#[cfg(ukc_loader)]
core::arch::global_asm!(
    r#"
    .section .text.memcpy, "ax", @progbits
    .globl memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
    rep movsb
    ret

    .section .text.memmove, "ax", @progbits
    .globl memmove
memmove:
    mov rax, rdi
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    jae memcpy
    lea rsi, [rsi + rdx - 1]
    lea rdi, [rdi + rdx - 1]
    mov rcx, rdx
    std
    rep movsb
    cld
    ret

    .section .text.memset, "ax", @progbits
    .globl memset
memset:
    mov r9, rdi
    movzx eax, sil
    mov r8, 0x0101010101010101
    imul rax, r8
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov ecx, edx
    and ecx, 7
    rep stosb
    mov rax, r9
    ret

    .section .text.memcmp, "ax", @progbits
    .globl memcmp
    .globl bcmp
memcmp:
bcmp:
    xor eax, eax
    test rdx, rdx
    jz 2f
1:  movzx eax, byte ptr [rdi]
    movzx ecx, byte ptr [rsi]
    sub eax, ecx
    jne 2f
    inc rdi
    inc rsi
    dec rdx
    jnz 1b
2:  ret

    .section .text.eh_personality, "ax", @progbits
    .globl rust_eh_personality
    .globl _Unwind_Resume
rust_eh_personality:
_Unwind_Resume:
    ud2
    .text
"#
);
