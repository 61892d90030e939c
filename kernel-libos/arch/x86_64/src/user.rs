//! Copies between kernel and program that survive bad addresses.
//!
//! Every instruction that touches user memory is listed in a table with the place to continue at when it faults. A fault first goes to `core`
//! ([`ukc_kernel_fault`](crate::hooks)), which pages memory in as the program's own access would; only when that fails does the copy end early. With SMAP
//! the kernel may touch user memory only between `stac` and `clac`; both are no-ops in the image and patched in at boot when the processor has them.
//!
//! On the host there is no user memory: everything but empty ranges fails.

use crate::addr::USER_END;

/// A user address that the program could not have accessed this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Bytes that were copied before.
    pub done: usize,
}

fn check(addr: usize, len: usize) -> Result<(), Fault> {
    match addr.checked_add(len) {
        Some(end) if end <= USER_END => Ok(()),
        _ => Err(Fault { done: 0 }),
    }
}

fn result(len: usize, left: usize) -> Result<(), Fault> {
    if left == 0 { Ok(()) } else { Err(Fault { done: len - left }) }
}

/// Copies from the program.
///
/// # Errors
/// [`Fault`] with the number of bytes copied; a range that leaves the user half copies nothing.
pub fn copy_from_user(dst: &mut [u8], src: usize) -> Result<(), Fault> {
    check(src, dst.len())?;
    // SAFETY: the destination is ours, the source was checked.
    result(dst.len(), unsafe { raw::copy(dst.as_mut_ptr(), src as *const u8, dst.len()) })
}

/// Copies from the program to a raw destination (a page of RAM that others may see too).
///
/// # Safety
/// `len` bytes at `dst` must be writable kernel memory.
///
/// # Errors
/// As [`copy_from_user`].
pub unsafe fn copy_from_user_raw(dst: *mut u8, src: usize, len: usize) -> Result<(), Fault> {
    check(src, len)?;
    // SAFETY: the caller's promise, and the source was checked.
    result(len, unsafe { raw::copy(dst, src as *const u8, len) })
}

/// Copies to the program.
///
/// # Errors
/// As [`copy_from_user`].
pub fn copy_to_user(dst: usize, src: &[u8]) -> Result<(), Fault> {
    check(dst, src.len())?;
    // SAFETY: the destination is in the user half, where nothing of the kernel lies.
    result(src.len(), unsafe { raw::copy(dst as *mut u8, src.as_ptr(), src.len()) })
}

/// Copies to the program from a raw source.
///
/// # Safety
/// `len` bytes at `src` must be readable kernel memory.
///
/// # Errors
/// As [`copy_from_user`].
pub unsafe fn copy_to_user_raw(dst: usize, src: *const u8, len: usize) -> Result<(), Fault> {
    check(dst, len)?;
    // SAFETY: the caller's promise, and the destination was checked.
    result(len, unsafe { raw::copy(dst as *mut u8, src, len) })
}

/// Zeroes the program's memory.
///
/// # Errors
/// As [`copy_from_user`].
pub fn clear_user(dst: usize, len: usize) -> Result<(), Fault> {
    check(dst, len)?;
    // SAFETY: the range was checked.
    result(len, unsafe { raw::clear(dst as *mut u8, len) })
}

/// Copies the bytes of a string up to its NUL (not copied) or up to `dst.len()`, and returns their number: less than `dst.len()` means that the NUL was
/// found.
///
/// # Errors
/// [`Fault`] when the program cannot read a byte before the NUL.
pub fn copy_string(dst: &mut [u8], src: usize) -> Result<usize, Fault> {
    if src >= USER_END {
        return Err(Fault { done: 0 });
    }
    let limit = dst.len().min(USER_END - src);
    // SAFETY: the destination is ours; the source stays in the user half.
    let (copied, fault) = unsafe { raw::string(dst.as_mut_ptr(), src as *const u8, limit) };
    // A string that runs into the end of the user half has no NUL.
    if fault || (copied == limit && limit < dst.len()) { Err(Fault { done: copied }) } else { Ok(copied) }
}

/// Loads a word (aligned to 4 bytes for it to be atomic).
///
/// # Errors
/// [`Fault`].
pub fn load_u32(addr: usize) -> Result<u32, Fault> {
    check(addr, 4)?;
    // SAFETY: the address was checked.
    let (value, fault) = unsafe { raw::load(addr as *const u32) };
    if fault { Err(Fault { done: 0 }) } else { Ok(value as u32) }
}

/// Stores a word.
///
/// # Errors
/// [`Fault`].
pub fn store_u32(addr: usize, value: u32) -> Result<(), Fault> {
    check(addr, 4)?;
    // SAFETY: the address was checked.
    let (_, fault) = unsafe { raw::store(addr as *mut u32, value) };
    if fault { Err(Fault { done: 0 }) } else { Ok(()) }
}

/// Atomically replaces `old` by `new` and returns what was there: `old` when it was replaced. The page must be writable in any case.
///
/// # Errors
/// [`Fault`].
pub fn cmpxchg_u32(addr: usize, old: u32, new: u32) -> Result<u32, Fault> {
    check(addr, 4)?;
    // SAFETY: the address was checked.
    let (value, fault) = unsafe { raw::cmpxchg(addr as *mut u32, old, new) };
    if fault { Err(Fault { done: 0 }) } else { Ok(value as u32) }
}

#[cfg(ukc_kernel)]
pub(crate) use raw::{enable_smap, fixup};

#[cfg(not(ukc_kernel))]
mod raw {
    pub(super) unsafe fn copy(_dst: *mut u8, _src: *const u8, len: usize) -> usize {
        len
    }
    pub(super) unsafe fn clear(_dst: *mut u8, len: usize) -> usize {
        len
    }
    pub(super) unsafe fn string(_dst: *mut u8, _src: *const u8, _limit: usize) -> (usize, bool) {
        (0, true)
    }
    pub(super) unsafe fn load(_addr: *const u32) -> (u64, bool) {
        (0, true)
    }
    pub(super) unsafe fn store(_addr: *mut u32, _value: u32) -> (u64, bool) {
        (0, true)
    }
    pub(super) unsafe fn cmpxchg(_addr: *mut u32, _old: u32, _new: u32) -> (u64, bool) {
        (0, true)
    }
}

#[cfg(ukc_kernel)]
mod raw {
    /// rax and rdx.
    #[repr(C)]
    struct Pair(u64, u64);

    unsafe extern "C" {
        fn ukc_arch_user_copy(dst: *mut u8, src: *const u8, len: usize) -> usize;
        fn ukc_arch_user_clear(dst: *mut u8, len: usize) -> usize;
        fn ukc_arch_user_string(dst: *mut u8, src: *const u8, limit: usize) -> Pair;
        fn ukc_arch_user_load(addr: *const u32) -> Pair;
        fn ukc_arch_user_store(addr: *mut u32, value: u32) -> Pair;
        fn ukc_arch_user_cmpxchg(addr: *mut u32, old: u32, new: u32) -> Pair;
        static ukc_arch_user_start: u8;
        static ukc_arch_user_end: u8;
        static ukc_arch_user_fixups: u8;
        static ukc_arch_user_fixups_end: u8;
        static ukc_arch_user_stac: u8;
        static ukc_arch_user_stac_end: u8;
        static ukc_arch_clac_trap: u8;
    }

    pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { ukc_arch_user_copy(dst, src, len) }
    }
    pub(super) unsafe fn clear(dst: *mut u8, len: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { ukc_arch_user_clear(dst, len) }
    }
    pub(super) unsafe fn string(dst: *mut u8, src: *const u8, limit: usize) -> (usize, bool) {
        // SAFETY: the caller's promise.
        let Pair(copied, fault) = unsafe { ukc_arch_user_string(dst, src, limit) };
        (copied as usize, fault != 0)
    }
    pub(super) unsafe fn load(addr: *const u32) -> (u64, bool) {
        // SAFETY: the caller's promise.
        let Pair(value, fault) = unsafe { ukc_arch_user_load(addr) };
        (value, fault != 0)
    }
    pub(super) unsafe fn store(addr: *mut u32, value: u32) -> (u64, bool) {
        // SAFETY: the caller's promise.
        let Pair(value, fault) = unsafe { ukc_arch_user_store(addr, value) };
        (value, fault != 0)
    }
    pub(super) unsafe fn cmpxchg(addr: *mut u32, old: u32, new: u32) -> (u64, bool) {
        // SAFETY: the caller's promise.
        let Pair(value, fault) = unsafe { ukc_arch_user_cmpxchg(addr, old, new) };
        (value, fault != 0)
    }

    fn table<T>(start: *const u8, end: *const u8) -> &'static [T] {
        // SAFETY: both are ends of one table of `T` in read-only data.
        unsafe { core::slice::from_raw_parts(start.cast(), (end as usize - start as usize) / size_of::<T>()) }
    }

    /// Where to continue when the user access at `rip` cannot succeed; `None` when no primitive is at `rip`.
    pub(crate) fn fixup(rip: usize) -> Option<usize> {
        if rip < (&raw const ukc_arch_user_start) as usize || rip >= (&raw const ukc_arch_user_end) as usize {
            return None;
        }
        let fixups: &[[usize; 2]] = table(&raw const ukc_arch_user_fixups, &raw const ukc_arch_user_fixups_end);
        fixups.iter().find(|entry| entry[0] == rip).map(|entry| entry[1])
    }

    /// Writes `stac` and `clac` over their places.
    ///
    /// # Safety
    /// While kernel text is writable, before SMAP is turned on.
    pub(crate) unsafe fn enable_smap() {
        let sites: &[usize] = table(&raw const ukc_arch_user_stac, &raw const ukc_arch_user_stac_end);
        let patch = |site: usize, last: u8| {
            // SAFETY: three bytes of no-op, which this CPU is not executing.
            unsafe { (site as *mut [u8; 3]).write_volatile([0x0f, 0x01, last]) }
        };
        for pair in sites.chunks_exact(2) {
            patch(pair[0], 0xcb);
            patch(pair[1], 0xca);
        }
        patch((&raw const ukc_arch_clac_trap) as usize, 0xca);
    }

    core::arch::global_asm!(
        r#"
    .section .rodata.ukc_arch_user_fixups, "a", @progbits
    .balign 8
ukc_arch_user_fixups:
    .section .rodata.ukc_arch_user_stac, "a", @progbits
    .balign 8
ukc_arch_user_stac:

    // \at may fault; continue at \fix then.
    .macro FIXUP at, fix
    .pushsection .rodata.ukc_arch_user_fixups, "a", @progbits
    .quad \at, \fix
    .popsection
    .endm

    // Marks a pair of no-ops that become stac and clac.
    .macro STAC_SITES open, close
    .pushsection .rodata.ukc_arch_user_stac, "a", @progbits
    .quad \open, \close
    .popsection
    .endm

    .section .text.ukc_arch_user, "ax", @progbits
    .balign 16
ukc_arch_user_start:

    // copy(rdi dst, rsi src, rdx len) -> bytes left. Short copies by words, long ones by `rep movsq` (`rep movsb` is slow where it is emulated).
    .globl ukc_arch_user_copy
ukc_arch_user_copy:
.Lcopy_stac:
    .byte 0x0f, 0x1f, 0x00
    mov rcx, rdx
    shr rcx, 3
    jz .Lcopy_short
    cmp rcx, 16
    ja .Lcopy_rep
.Lcopy_load:
    mov rax, [rsi]
.Lcopy_store:
    mov [rdi], rax
    add rsi, 8
    add rdi, 8
    dec rcx
    jnz .Lcopy_load
    jmp .Lcopy_tail
.Lcopy_rep:
    rep movsq
.Lcopy_tail:
    and edx, 7
    jz .Lcopy_done
    // At least one word came before, so the last word may overlap it.
.Lcopy_tail_load:
    mov rax, [rsi + rdx - 8]
.Lcopy_tail_store:
    mov [rdi + rdx - 8], rax
.Lcopy_done:
    xor ecx, ecx
.Lcopy_end:
    mov rax, rcx
.Lcopy_clac:
    .byte 0x0f, 0x1f, 0x00
    ret
.Lcopy_short:
    mov rcx, rdx
    test rcx, rcx
    jz .Lcopy_done
.Lcopy_byte_load:
    mov al, [rsi]
.Lcopy_byte_store:
    mov [rdi], al
    inc rsi
    inc rdi
    dec rcx
    jnz .Lcopy_byte_load
    jmp .Lcopy_done
    // A word faulted: copy what is left byte by byte, up to the very byte.
.Lcopy_words_failed:
    and edx, 7
    lea rcx, [rcx * 8 + rdx]
    jmp .Lcopy_byte_load
.Lcopy_tail_failed:
    mov rcx, rdx
    jmp .Lcopy_byte_load
    STAC_SITES .Lcopy_stac, .Lcopy_clac
    FIXUP .Lcopy_load, .Lcopy_words_failed
    FIXUP .Lcopy_store, .Lcopy_words_failed
    FIXUP .Lcopy_rep, .Lcopy_words_failed
    FIXUP .Lcopy_tail_load, .Lcopy_tail_failed
    FIXUP .Lcopy_tail_store, .Lcopy_tail_failed
    FIXUP .Lcopy_byte_load, .Lcopy_end
    FIXUP .Lcopy_byte_store, .Lcopy_end

    // clear(rdi dst, rsi len) -> bytes left
    .globl ukc_arch_user_clear
ukc_arch_user_clear:
.Lclear_stac:
    .byte 0x0f, 0x1f, 0x00
    xor eax, eax
    cmp rsi, 64
    jb .Lclear_words
    xorps xmm0, xmm0
.Lclear_16_0:
    movups [rdi], xmm0
.Lclear_16_1:
    movups [rdi + 16], xmm0
.Lclear_16_2:
    movups [rdi + 32], xmm0
.Lclear_16_3:
    movups [rdi + 48], xmm0
    add rdi, 64
    sub rsi, 64
    cmp rsi, 64
    jae .Lclear_16_0
    // rsi bytes are left; a fault in the loop above continues here, too, and goes on in words and bytes up to the very byte.
.Lclear_words:
    mov rcx, rsi
    shr rcx, 3
.Lclear_rep:
    rep stosq
    mov ecx, esi
    and ecx, 7
.Lclear_bytes:
    rep stosb
.Lclear_end:
    mov rax, rcx
.Lclear_clac:
    .byte 0x0f, 0x1f, 0x00
    ret
.Lclear_words_failed:
    and esi, 7
    lea rcx, [rcx * 8 + rsi]
    jmp .Lclear_bytes
    STAC_SITES .Lclear_stac, .Lclear_clac
    FIXUP .Lclear_16_0, .Lclear_words
    FIXUP .Lclear_16_1, .Lclear_words
    FIXUP .Lclear_16_2, .Lclear_words
    FIXUP .Lclear_16_3, .Lclear_words
    FIXUP .Lclear_rep, .Lclear_words_failed
    FIXUP .Lclear_bytes, .Lclear_end

    // string(rdi dst, rsi src, rdx limit) -> (rax copied, rdx fault)
    .globl ukc_arch_user_string
ukc_arch_user_string:
.Lstring_stac:
    .byte 0x0f, 0x1f, 0x00
    mov r11, rdi
    mov r8, 0x0101010101010101
    mov r9, 0x8080808080808080
.Lstring_words:
    cmp rdx, 8
    jb .Lstring_bytes
.Lstring_load:
    mov rax, [rsi]
    // Nonzero exactly when a byte of rax is zero.
    mov rcx, rax
    sub rcx, r8
    mov r10, rax
    not r10
    and rcx, r10
    test rcx, r9
    jnz .Lstring_bytes
    mov [rdi], rax
    add rsi, 8
    add rdi, 8
    sub rdx, 8
    jmp .Lstring_words
.Lstring_bytes:
    test rdx, rdx
    jz .Lstring_done
.Lstring_byte:
    mov al, [rsi]
    test al, al
    jz .Lstring_done
    mov [rdi], al
    inc rsi
    inc rdi
    dec rdx
    jnz .Lstring_byte
.Lstring_done:
    xor edx, edx
.Lstring_end:
    mov rax, rdi
    sub rax, r11
.Lstring_clac:
    .byte 0x0f, 0x1f, 0x00
    ret
.Lstring_failed:
    mov edx, 1
    jmp .Lstring_end
    STAC_SITES .Lstring_stac, .Lstring_clac
    FIXUP .Lstring_load, .Lstring_byte
    FIXUP .Lstring_byte, .Lstring_failed

    // load(rdi) -> (rax value, rdx fault)
    .globl ukc_arch_user_load
ukc_arch_user_load:
.Lload_stac:
    .byte 0x0f, 0x1f, 0x00
    xor edx, edx
.Lload:
    mov eax, [rdi]
.Lload_clac:
    .byte 0x0f, 0x1f, 0x00
    ret
.Lload_failed:
    mov edx, 1
    jmp .Lload_clac
    STAC_SITES .Lload_stac, .Lload_clac
    FIXUP .Lload, .Lload_failed

    // store(rdi, esi) -> (-, rdx fault)
    .globl ukc_arch_user_store
ukc_arch_user_store:
.Lstore_stac:
    .byte 0x0f, 0x1f, 0x00
    xor edx, edx
.Lstore:
    mov [rdi], esi
.Lstore_clac:
    .byte 0x0f, 0x1f, 0x00
    ret
.Lstore_failed:
    mov edx, 1
    jmp .Lstore_clac
    STAC_SITES .Lstore_stac, .Lstore_clac
    FIXUP .Lstore, .Lstore_failed

    // cmpxchg(rdi, esi old, edx new) -> (rax found, rdx fault)
    .globl ukc_arch_user_cmpxchg
ukc_arch_user_cmpxchg:
.Lcmpxchg_stac:
    .byte 0x0f, 0x1f, 0x00
    mov eax, esi
    mov ecx, edx
    xor edx, edx
.Lcmpxchg:
    lock cmpxchg [rdi], ecx
.Lcmpxchg_clac:
    .byte 0x0f, 0x1f, 0x00
    ret
.Lcmpxchg_failed:
    mov edx, 1
    jmp .Lcmpxchg_clac
    STAC_SITES .Lcmpxchg_stac, .Lcmpxchg_clac
    FIXUP .Lcmpxchg, .Lcmpxchg_failed
ukc_arch_user_end:

    .section .rodata.ukc_arch_user_fixups, "a", @progbits
ukc_arch_user_fixups_end:
    .section .rodata.ukc_arch_user_stac, "a", @progbits
ukc_arch_user_stac_end:
    .globl ukc_arch_user_start, ukc_arch_user_end, ukc_arch_user_fixups, ukc_arch_user_fixups_end, ukc_arch_user_stac, ukc_arch_user_stac_end
    .text
"#
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_outside_the_user_half_fail() {
        let mut bytes = [0; 8];
        assert_eq!(copy_from_user(&mut bytes, USER_END - 4), Err(Fault { done: 0 }));
        assert_eq!(copy_from_user(&mut bytes, usize::MAX - 3), Err(Fault { done: 0 }));
        assert_eq!(copy_from_user(&mut [], USER_END), Ok(()));
        assert_eq!(copy_to_user(0xffff_8000_0000_0000, &bytes), Err(Fault { done: 0 }));
        assert_eq!(copy_string(&mut bytes, USER_END), Err(Fault { done: 0 }));
    }
}
