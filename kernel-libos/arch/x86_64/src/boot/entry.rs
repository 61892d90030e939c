//! Entry points and boot page tables.
//!
//! The tables cover the first GiB with 2 MiB pages three times over one page directory: as identity (until the jump to high addresses), as start of the
//! direct map, and as the image's mapping. `start` replaces what is too generous.

use core::arch::global_asm;
use core::cell::UnsafeCell;

/// A page of table entries.
#[repr(C, align(4096))]
pub(crate) struct Page(UnsafeCell<[u64; 512]>);

// SAFETY: changed by the boot CPU alone, or under the lock of `mmio`.
unsafe impl Sync for Page {}

impl Page {
    pub(crate) const fn new() -> Page {
        Page(UnsafeCell::new([0; 512]))
    }

    /// # Safety
    /// The address is a table in RAM that the direct map shows.
    pub(crate) unsafe fn at(phys: u64) -> &'static Page {
        // SAFETY: the caller's promise.
        unsafe { &*crate::addr::phys_to_virt(crate::addr::PhysAddr(phys)).cast::<Page>() }
    }

    pub(crate) fn get(&self, index: usize) -> u64 {
        assert!(index < 512);
        // SAFETY: in bounds; volatile, because the processor reads and writes it too.
        unsafe { self.0.get().cast::<u64>().add(index).read_volatile() }
    }

    pub(crate) fn set(&self, index: usize, entry: u64) {
        assert!(index < 512);
        // SAFETY: as above.
        unsafe { self.0.get().cast::<u64>().add(index).write_volatile(entry) }
    }
}

pub(crate) static BOOT_PML4: Page = Page::new();
pub(crate) static BOOT_PDPT_LOW: Page = Page::new();
pub(crate) static BOOT_PDPT_HIGH: Page = Page::new();
pub(crate) static BOOT_PD: Page = Page::new();

const STACK_BYTES: usize = 16 * 1024;

#[repr(C, align(16384))]
struct Stack(UnsafeCell<[u8; STACK_BYTES]>);
// SAFETY: only the boot CPU runs on it.
unsafe impl Sync for Stack {}
static BOOT_STACK: Stack = Stack(UnsafeCell::new([0; STACK_BYTES]));

/// Added to a symbol it gives the physical address, truncated to 32 bits: -KERNEL_BASE.
const TO_PHYS: u64 = 0x8000_0000;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_start32 + {to_phys}

    // Fills the boot tables, whose memory is zero. The same source serves 32-bit and 64-bit code.
    .macro BUILD_TABLES
    mov edi, offset {pml4} + {to_phys}
    mov eax, offset {pdpt_low} + {to_phys} + 3
    mov dword ptr [edi], eax
    mov dword ptr [edi + 256 * 8], eax
    mov dword ptr [edi + 256 * 8 + 4], 0x80000000
    mov eax, offset {pdpt_high} + {to_phys} + 3
    mov dword ptr [edi + 511 * 8], eax
    mov edi, offset {pdpt_low} + {to_phys}
    mov eax, offset {pd} + {to_phys} + 3
    mov dword ptr [edi], eax
    mov edi, offset {pdpt_high} + {to_phys}
    mov dword ptr [edi + 510 * 8], eax
    mov edi, offset {pd} + {to_phys}
    // Present, writable, large, global.
    mov eax, 0x183
    mov ecx, 512
77: mov dword ptr [edi], eax
    add edi, 8
    add eax, 0x200000
    dec ecx
    jnz 77b
    .endm

    // PAE, OSFXSR, OSXMMEXCPT on; EFER.SCE, LME, NXE on. Clobbers eax, ecx, edx.
    .macro ENABLE_FEATURES reg
    mov \reg, cr4
    or eax, (1 << 5) | (1 << 9) | (1 << 10)
    mov cr4, \reg
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x901
    wrmsr
    .endm

    .section .boot.text, "ax", @progbits
    .code32
    .globl pvh_start32
pvh_start32:
    cld
    mov esp, offset {stack} + {to_phys} + {stack_bytes}
    mov ebp, ebx
    BUILD_TABLES
    mov eax, offset {pml4} + {to_phys}
    mov cr3, eax
    ENABLE_FEATURES eax
    // Paging, write protection, numeric errors, monitor coprocessor on; emulation, task switched, cache disable, not write-through off.
    mov eax, cr0
    and eax, 0x9fffffff - 12
    or eax, 0x80010022
    mov cr0, eax
    lgdt [boot_gdt_pointer + {to_phys}]
    xor edi, edi
    push 8
    mov eax, offset common64 + {to_phys}
    push eax
    retf

    .code64
    .globl linux64_start
linux64_start:
    cli
    cld
    mov esp, offset {stack} + {to_phys} + {stack_bytes}
    mov rbp, rsi
    BUILD_TABLES
    ENABLE_FEATURES rax
    mov eax, offset {pml4} + {to_phys}
    mov cr3, rax
    mov rax, cr0
    and eax, 0x9fffffff - 12
    or eax, 0x80010022
    mov cr0, rax
    lgdt [boot_gdt_pointer + {to_phys}]
    mov edi, 1
    push 8
    mov eax, offset common64 + {to_phys}
    push rax
    retfq

    // edi = protocol, rbp = its information; identity addresses.
common64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, offset {stack} + {stack_bytes}
    mov rsi, rbp
    xor ebp, ebp
    mov rax, offset {start}
    call rax
    ud2

    // Replaced by the CPU's own table; the selectors are the same.
    .section .rodata.boot_gdt, "a", @progbits
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdt_pointer:
    .short 23
    .long boot_gdt + {to_phys}
    .long 0
    .text
"#,
    to_phys = const TO_PHYS,
    pml4 = sym BOOT_PML4,
    pdpt_low = sym BOOT_PDPT_LOW,
    pdpt_high = sym BOOT_PDPT_HIGH,
    pd = sym BOOT_PD,
    stack = sym BOOT_STACK,
    stack_bytes = const STACK_BYTES,
    start = sym super::start::start,
);
