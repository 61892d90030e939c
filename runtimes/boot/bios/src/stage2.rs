//! Stage 2's way into long mode, and the way back for each call of the BIOS.
//!
//! The code is linked at 0x8000, first in the image. In 16-bit code, addresses are differences of labels, because the linker knows no 16-bit relocations.
//!
//! From long mode to real mode (AMD64 Architecture Programmer's Manual 2, 14.7 "Leaving Long Mode"): jump to a 16-bit segment, turn paging off, forget
//! long mode, turn protection off, jump to real-mode segment 0. The way up does the same in reverse, all in one write to CR0.

/// The processor's registers before and after a call of the BIOS.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Registers {
    /// `eax`.
    pub eax: u32,
    /// `ebx`.
    pub ebx: u32,
    /// `ecx`.
    pub ecx: u32,
    /// `edx`.
    pub edx: u32,
    /// `esi`, an offset in segment 0.
    pub esi: u32,
    /// `edi`, an offset in segment 0.
    pub edi: u32,
    /// Flags, after the call; bit 0 is carry.
    pub flags: u32,
}

impl Registers {
    /// Whether the call failed.
    pub fn is_carry(&self) -> bool {
        self.flags & 1 != 0
    }
}

unsafe extern "C" {
    /// Calls the BIOS: `int number` in real mode with segments 0.
    ///
    /// # Safety
    /// The BIOS writes where the registers say; that must be memory that nobody else uses.
    pub fn bios_interrupt(number: u32, registers: *mut Registers);
}

core::arch::global_asm!(
    r#"
    // Variables lie among the code, which the page tables allow: all of the first 4 GiB is writable and executable.
    .section .boot.text, "ax", @progbits
    .code16
    .globl bios_start
bios_start:
    cli
    cld
    movw $0x7c00, %sp
    movb %dl, (drive - bios_start + 0x8000)
    // The 21st address line may still be off, so that addresses wrap at 1 MiB as they did on the 8086: ask the BIOS, then the chipset's port.
    sti
    movw $0x2401, %ax
    int $0x15
    cli
    inb $0x92, %al
    testb $2, %al
    jnz 1f
    orb $2, %al
    andb $0xfe, %al
    outb %al, $0x92
1:
    // Long mode is bit 29 of edx of CPUID 80000001h.
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb no_long_mode
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jc 2f
no_long_mode:
    movw $(sentence - bios_start + 0x8000), %si
    jmp say
2:
    // Page tables at 0x60000: one level-4 entry, four level-3 entries, four directories of 2 MiB pages.
    movw $0x6000, %ax
    movw %ax, %es
    xorw %di, %di
    xorl %eax, %eax
    movw $(6 * 1024), %cx
    rep stosl
    movl $0x61003, %es:0
    movl $0x62003, %es:0x1000
    movl $0x63003, %es:0x1008
    movl $0x64003, %es:0x1010
    movl $0x65003, %es:0x1018
    movw $0x2000, %di
    movl $0x83, %eax
    movw $2048, %cx
3:  movl %eax, %es:(%di)
    addl $0x200000, %eax
    addw $8, %di
    loop 3b
    movl $(first64 - bios_start + 0x8000), (target - bios_start + 0x8000)

    // Up: physical address extension, tables, long mode enabled, then protection and paging at once.
to_long_mode:
    xorw %ax, %ax
    movw %ax, %ds
    movl %cr4, %eax
    orl $0x620, %eax
    movl %eax, %cr4
    movl $0x60000, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    lgdtl (gdt_pointer - bios_start + 0x8000)
    movl %cr0, %eax
    // No emulation of the floating-point unit, which compiled code uses: EM off, MP on.
    andl $0xfffffffb, %eax
    orl $0x80000003, %eax
    movl %eax, %cr0
    ljmpl $0x10, $(long_mode - bios_start + 0x8000)
    .code64
long_mode:
    movl $0x18, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl target(%rip), %eax
    jmpq *%rax

first64:
    movl $0x7fff0, %esp
    movzbl drive(%rip), %edi
    call bios_main
    ud2

    .globl bios_interrupt
bios_interrupt:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rsi
    movb %dil, number(%rip)
    leaq block(%rip), %rdi
    movl $7, %ecx
    rep movsl
    movq %rsp, stack(%rip)
    pushq $0x20
    pushq $(down - bios_start + 0x8000)
    lretq
    .code16
down:
    movw $0x28, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl $0xc0000080, %ecx
    rdmsr
    andl $0xfffffeff, %eax
    wrmsr
    movl %cr0, %eax
    andl $0xfffffffe, %eax
    movl %eax, %cr0
    ljmp $0, $(real - bios_start + 0x8000)
real:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movl (block - bios_start + 0x8000), %eax
    movl (block - bios_start + 0x8004), %ebx
    movl (block - bios_start + 0x8008), %ecx
    movl (block - bios_start + 0x800c), %edx
    movl (block - bios_start + 0x8010), %esi
    movl (block - bios_start + 0x8014), %edi
    sti
    .byte 0xcd
number:
    .byte 0
    cli
    cld
    // The BIOS may have changed any segment but the code's.
    movl %eax, %cs:(block - bios_start + 0x8000)
    movl %ebx, %cs:(block - bios_start + 0x8004)
    movl %ecx, %cs:(block - bios_start + 0x8008)
    movl %edx, %cs:(block - bios_start + 0x800c)
    movl %esi, %cs:(block - bios_start + 0x8010)
    movl %edi, %cs:(block - bios_start + 0x8014)
    pushfl
    popl %eax
    movl %eax, %cs:(block - bios_start + 0x8018)
    movl $(back64 - bios_start + 0x8000), %cs:(target - bios_start + 0x8000)
    jmp to_long_mode
    .code64
back64:
    movq stack(%rip), %rsp
    popq %rdi
    leaq block(%rip), %rsi
    movl $7, %ecx
    rep movsl
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .code16
say:
    xorw %dx, %dx
    movw %dx, %ds
4:  lodsb
    testb %al, %al
    jz 6f
    movb $0x0e, %ah
    movw $7, %bx
    int $0x10
    movb %al, %bl
    movw $0x3fd, %dx
    movw $0xffff, %cx
5:  inb %dx, %al
    testb $0x20, %al
    loopz 5b
    movb %bl, %al
    movw $0x3f8, %dx
    outb %al, %dx
    jmp 4b
6:  hlt
    jmp 6b
sentence:
    .asciz "ukc: cannot boot: this processor has no 64-bit mode\r\n"

    .balign 8
gdt:
    .quad 0, 0
    .quad 0x00af9b000000ffff // 0x10: 64-bit code
    .quad 0x00cf93000000ffff // 0x18: data
    .quad 0x00009b000000ffff // 0x20: 16-bit code
    .quad 0x000093000000ffff // 0x28: 16-bit data
gdt_pointer:
    .word 47
    .long gdt - bios_start + 0x8000
    .balign 8
stack:
    .quad 0
target:
    .long 0
block:
    .fill 7, 4, 0
drive:
    .byte 0
    .code64
    .text
"#,
    options(att_syntax)
);
