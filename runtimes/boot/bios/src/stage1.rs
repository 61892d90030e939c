//! Stage 1: what a BIOS loads from sector 0 to 0x7c00 and jumps to, with the drive's number in `dl`.
//!
//! It is cut out of the object file, not linked, so it must not need relocation: addresses are differences of labels. The last bytes are filled in when a
//! disk is written:
//!
//! ```text
//! 420  sum of the 32-bit words of stage 2 (u32)
//! 424  the request for int 13h, function 42h (EDD): 16, 0, sectors (u16), address 0800:0000, first sector (u64)
//! ```

core::arch::global_asm!(
    r#"
    .section .stage1, "ax", @progbits
    .code16
stage1:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    sti
    cld
    // Some BIOSes jump to 07c0:0000.
    ljmp $0, $(1f - stage1 + 0x7c00)
1:
    // Can this BIOS address sectors by number (EDD)?
    movb $0x41, %ah
    movw $0x55aa, %bx
    int $0x13
    movw $(no_edd - stage1 + 0x7c00), %si
    jc fail
    cmpw $0xaa55, %bx
    jne fail

    movw $(request - stage1 + 0x7c00), %si
    movb $0x42, %ah
    int $0x13
    movw $(no_read - stage1 + 0x7c00), %si
    jc fail

    // 128 words per sector.
    movw (request - stage1 + 0x7c00 + 2), %cx
    shlw $7, %cx
    movw $0x800, %ax
    movw %ax, %es
    xorl %eax, %eax
    xorw %di, %di
2:  addl %es:(%di), %eax
    addw $4, %di
    loop 2b
    movw %cx, %es
    cmpl (checksum - stage1 + 0x7c00), %eax
    movw $(damaged - stage1 + 0x7c00), %si
    jne fail
    ljmp $0, $0x8000

fail:
    // The sentence goes to the screen and to the first serial port (115200 baud, 8 bits, no parity).
    movw $0x3fb, %dx
    movb $0x80, %al
    outb %al, %dx
    movw $0x3f8, %dx
    movb $1, %al
    outb %al, %dx
    incw %dx
    movb $0, %al
    outb %al, %dx
    movw $0x3fb, %dx
    movb $3, %al
    outb %al, %dx
3:  lodsb
    testb %al, %al
    jz 5f
    movb $0x0e, %ah
    movw $7, %bx
    int $0x10
    movw $0x3fd, %dx
    movb %al, %bl
    // A port that never gets ready does not exist.
    movw $0xffff, %cx
4:  inb %dx, %al
    testb $0x20, %al
    loopz 4b
    movb %bl, %al
    movw $0x3f8, %dx
    outb %al, %dx
    jmp 3b
5:  cli
    hlt
    jmp 5b

no_edd:
    .asciz "ukc: cannot boot: this BIOS cannot read sectors by number\r\n"
no_read:
    .asciz "ukc: cannot boot: the BIOS cannot read the boot loader from the disk\r\n"
damaged:
    .asciz "ukc: cannot boot: the boot loader on this disk is damaged\r\n"

    .org 420
checksum:
    .long 0
request:
    .byte 16, 0
    .word 0
    .word 0, 0x800
    .quad 0
    .code64
    .text
"#,
    options(att_syntax)
);
