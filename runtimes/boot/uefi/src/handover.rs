//! The last steps, after the firmware's services ended: nothing of the firmware is used any more, and the kernel may take all of its memory.
//!
//! One block of our own memory holds what must survive:
//!
//! ```text
//! 0x0000 level-4 table | 0x1000 level-3 table | 0x2000..0x6000 four directories: the first 4 GiB one to one, in 2 MiB pages
//! 0x6000 descriptor table, arguments of the last code | 0x8000 end of the stack
//! ```

use r_efi::efi;
use ukc_boot_load::{Loaded, Problem};

use crate::firmware::{Firmware, Move};

const BLOCK_BYTES: u64 = 0x8000;
const GDT_AT: u64 = 0x6000;
const ARGUMENTS_AT: u64 = 0x6100;

/// What the last code needs; its offsets are in the code.
#[repr(C)]
struct Arguments {
    /// 0
    table: u64,
    /// 8: limit and address of the descriptor table, as `lgdt` wants them.
    gdt_limit: [u16; 4],
    gdt: u64,
    /// 24
    from: u64,
    /// 32
    to: u64,
    /// 40
    words: u64,
    /// 48
    entry: u64,
    /// 56
    zero_page: u64,
    /// 64
    stack: u64,
}

unsafe extern "C" {
    fn uefi_handover(arguments: *const Arguments) -> !;
}

core::arch::global_asm!(
    r#"
    .section .text.uefi_handover, "ax", @progbits
    .globl uefi_handover
uefi_handover:
    cli
    cld
    mov rbx, rdi
    mov rax, [rbx]
    mov cr3, rax
    mov rsp, [rbx + 64]
    lgdt [rbx + 14]
    mov rsi, [rbx + 24]
    mov rdi, [rbx + 32]
    mov rcx, [rbx + 40]
    rep movsq
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov rsi, [rbx + 56]
    push 0x10
    push qword ptr [rbx + 48]
    retfq
    .text
"#
);

/// Everything is in place but the firmware still there.
pub struct Prepared {
    arguments: *const Arguments,
}

impl Prepared {
    /// Builds tables and arguments.
    ///
    /// # Errors
    /// [`Problem::Memory`].
    pub fn new(firmware: &mut Firmware, kernel: &Loaded) -> Result<Prepared, Problem> {
        let block = firmware
            .allocate(efi::ALLOCATE_MAX_ADDRESS, BLOCK_BYTES, u64::from(u32::MAX))
            .ok_or(Problem::Memory { len_bytes: BLOCK_BYTES, at: 0 })?;
        // SAFETY: (1) the firmware has just given these bytes to us alone, mapped one to one; (2) every offset below lies in the block and is aligned.
        unsafe {
            core::ptr::write_bytes(block as *mut u8, 0, BLOCK_BYTES as usize);
            let put = |offset: u64, value: u64| ((block + offset) as *mut u64).write(value);
            put(0, block + 0x1003);
            for gib in 0..4 {
                put(0x1000 + gib * 8, block + 0x2003 + gib * 0x1000);
            }
            for page in 0..2048 {
                // Present, writable, large.
                put(0x2000 + page * 8, page << 21 | 0x83);
            }
            // As Linux wants them: code at 0x10, data at 0x18.
            put(GDT_AT + 0x10, 0x00af_9b00_0000_ffff);
            put(GDT_AT + 0x18, 0x00cf_9300_0000_ffff);
            let Move { from, to, len_bytes } = firmware.pending.unwrap_or(Move { from: block, to: block, len_bytes: 0 });
            let arguments = (block + ARGUMENTS_AT) as *mut Arguments;
            arguments.write(Arguments {
                table: block,
                gdt_limit: [0, 0, 0, 0x1f],
                gdt: block + GDT_AT,
                from,
                to,
                words: len_bytes.div_ceil(8),
                entry: kernel.entry,
                zero_page: kernel.zero_page.addr(),
                stack: block + BLOCK_BYTES,
            });
            Ok(Prepared { arguments })
        }
    }

    /// Enters the kernel; the firmware's services have ended.
    pub fn enter(self) -> ! {
        // SAFETY: (1) the new tables map this code (below 4 GiB, checked at the start), the block and the kernel one to one; (2) what a pending move
        // overwrites was checked to be memory that the firmware has left; (3) the kernel's entry expects exactly this state.
        unsafe { uefi_handover(self.arguments) }
    }
}
