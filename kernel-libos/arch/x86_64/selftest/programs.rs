//! Ring-3 programs of the test kernel, position independent. They end with syscall 60: 0 is good.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .rodata.programs, "a", @progbits

    // Gives every register but rsp, rax, rcx and r11 a value that depends on \seed.
    .macro FILL seed
    mov rbx, \seed + 1
    mov rdx, \seed + 2
    mov rsi, \seed + 3
    mov rdi, 600
    mov rbp, \seed + 5
    mov r8, \seed + 6
    mov r9, \seed + 7
    mov r10, \seed + 8
    mov r12, \seed + 9
    mov r13, \seed + 10
    mov r14, \seed + 11
    mov r15, \seed + 12
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    mov rax, \seed + 100 + \n
    movq xmm\n, rax
    punpcklqdq xmm\n, xmm\n
    .endr
    .endm

    // Jumps to \bad unless everything is as FILL left it.
    .macro CHECK seed, bad
    cmp rbx, \seed + 1
    jne \bad
    cmp rdx, \seed + 2
    jne \bad
    cmp rsi, \seed + 3
    jne \bad
    cmp rdi, 600
    jne \bad
    cmp rbp, \seed + 5
    jne \bad
    cmp r8, \seed + 6
    jne \bad
    cmp r9, \seed + 7
    jne \bad
    cmp r10, \seed + 8
    jne \bad
    cmp r12, \seed + 9
    jne \bad
    cmp r13, \seed + 10
    jne \bad
    cmp r14, \seed + 11
    jne \bad
    cmp r15, \seed + 12
    jne \bad
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movq rax, xmm\n
    cmp rax, \seed + 100 + \n
    jne \bad
    punpckhqdq xmm\n, xmm\n
    movq rax, xmm\n
    cmp rax, \seed + 100 + \n
    jne \bad
    .endr
    .endm

    .macro EXIT code
    mov edi, \code
    mov eax, 60
    syscall
    ud2
    .endm

    // Registers survive a system call that waits for 600 interrupts in the kernel, and 600 interrupts in ring 3.
    .globl program_registers
    .globl program_registers_end
program_registers:
    FILL 0x1000
    mov eax, 35
    syscall
10: lea r11, [rip + 10b]
    cmp rcx, r11
    jne 90f
    cmp rax, 0x1234
    jne 91f
    CHECK 0x1000, 92f
    FILL 0x2000
    mov rcx, [0x500000]
    add rcx, 600
11: cmp [0x500000], rcx
    jb 11b
    CHECK 0x2000, 93f
    // The flags survive, too: carry and direction.
    stc
    std
    mov eax, 999
    syscall
    jnc 94f
    pushfq
    cld
    pop rcx
    test ecx, 0x400
    jz 94f
    cmp rax, -38
    jne 95f
    EXIT 0
90: EXIT 90
91: EXIT 91
92: EXIT 92
93: EXIT 93
94: EXIT 94
95: EXIT 95
program_registers_end:

    // The kernel changes rcx and r11 at syscall 15.
    .globl program_iret
    .globl program_iret_end
program_iret:
    mov eax, 15
    syscall
    cmp rax, 79
    jne 90f
    cmp rcx, 77
    jne 91f
    cmp r11, 78
    jne 92f
    // Single step: the trap comes after the instruction behind popf.
    EXIT 0
90: EXIT 90
91: EXIT 91
92: EXIT 92
program_iret_end:

    // Pages appear when touched, and stay.
    .globl program_lazy
    .globl program_lazy_end
program_lazy:
    movq xmm3, rsp
    mov ecx, 16
    mov rdi, 0x600000
1:  mov [rdi], rdi
    add rdi, 4096
    dec ecx
    jnz 1b
    mov ecx, 16
    mov rdi, 0x600000
2:  cmp [rdi], rdi
    jne 90f
    add rdi, 4096
    dec ecx
    jnz 2b
    movq rax, xmm3
    cmp rax, rsp
    jne 91f
    EXIT 0
90: EXIT 90
91: EXIT 91
program_lazy_end:

    // Two of these take turns; each must keep its x87, MXCSR and, with rdi nonzero, ymm and FS. rsi is the seed.
    .globl program_fpu
    .globl program_fpu_end
program_fpu:
    mov r12, rdi
    mov r13, rsi
    mov r14d, 50
    push r13
    fild qword ptr [rsp]
    push 0x1f80
    test r13d, 1
    jz 1f
    mov dword ptr [rsp], 0x3f80
1:  ldmxcsr [rsp]
    pop rax
    test r12, r12
    jz 2f
    vmovq xmm5, r13
    vpermilpd ymm5, ymm5, 0
    vinsertf128 ymm5, ymm5, xmm5, 1
2:  mov eax, 24
    syscall
    mov ecx, 2000
3:  dec ecx
    jnz 3b
    test r12, r12
    jz 4f
    vextractf128 xmm6, ymm5, 1
    vmovq rax, xmm6
    cmp rax, r13
    jne 90f
    vmovq rax, xmm5
    cmp rax, r13
    jne 91f
4:  dec r14d
    jnz 2b
    fistp qword ptr [rsp]
    cmp [rsp], r13
    jne 92f
    stmxcsr [rsp]
    mov eax, [rsp]
    and eax, 0x2000
    shr eax, 13
    mov ecx, r13d
    and ecx, 1
    cmp eax, ecx
    jne 93f
    EXIT 0
90: EXIT 90
91: EXIT 91
92: EXIT 92
93: EXIT 93
program_fpu_end:

    // One fault each, chosen by rdi.
    .globl program_faults
    .globl program_faults_end
program_faults:
    cmp edi, 0
    je 10f
    cmp edi, 1
    je 11f
    cmp edi, 2
    je 12f
    cmp edi, 3
    je 13f
    cmp edi, 4
    je 14f
    cmp edi, 5
    je 15f
    cmp edi, 6
    je 16f
    cmp edi, 7
    je 17f
    cmp edi, 8
    je 18f
    cmp edi, 9
    je 19f
    cmp edi, 10
    je 20f
    cmp edi, 11
    je 21f
    cmp edi, 12
    je 22f
    EXIT 99
10: xor eax, eax
    mov [rax], eax
11: ud2
12: xor ecx, ecx
    xor edx, edx
    mov eax, 1
    div ecx
13: hlt
14: int3
15: mov rax, 0xffffffff80200000
    mov rax, [rax]
16: jmp rsp
17: mov rax, 0x800000000000
    jmp rax
18: push 0x1f00
    ldmxcsr [rsp]
    xorps xmm0, xmm0
    divss xmm0, xmm0
    ud2
19: push 0
    fldcw [rsp]
    fldz
    fldz
    fdivp st(1), st
    fwait
    ud2
20: int 0x80
21: mov dword ptr [rip + 21b], 0
22: pushfq
    or dword ptr [rsp], 0x100
    popfq
    nop
    nop
    ud2
program_faults_end:
    .text
"#
);

macro_rules! programs {
    ($($name:ident $end:ident $function:ident)*) => { $(
        pub fn $function() -> &'static [u8] {
            unsafe extern "C" {
                static $name: u8;
                static $end: u8;
            }
            // SAFETY: both labels bound one piece of read-only data.
            unsafe { core::slice::from_raw_parts(&raw const $name, &raw const $end as usize - &raw const $name as usize) }
        }
    )* };
}
programs! {
    program_registers program_registers_end registers
    program_iret program_iret_end iret
    program_lazy program_lazy_end lazy
    program_fpu program_fpu_end fpu
    program_faults program_faults_end faults
}
