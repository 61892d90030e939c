//! Port and memory-mapped I/O. On the host ports read as all ones, as absent devices do.

macro_rules! port {
    ($t:ty, $read:ident, $write:ident, $reg:tt, $in:literal, $out:literal) => {
        /// Reads a port.
        pub fn $read(port: u16) -> $t {
            if !cfg!(ukc_kernel) {
                return <$t>::MAX;
            }
            let value: $t;
            // SAFETY: reading a port touches no memory; what a device does upon it is the driver's concern.
            unsafe { core::arch::asm!($in, in("dx") port, out($reg) value, options(nostack, preserves_flags)) };
            value
        }

        /// Writes a port.
        ///
        /// Not `unsafe`: devices that write memory do so at addresses that drivers hand out through unsafe code of their own.
        pub fn $write(port: u16, value: $t) {
            if cfg!(ukc_kernel) {
                // SAFETY: as above.
                unsafe { core::arch::asm!($out, in("dx") port, in($reg) value, options(nostack, preserves_flags)) };
            }
        }
    };
}

port!(u8, inb, outb, "al", "in al, dx", "out dx, al");
port!(u16, inw, outw, "ax", "in ax, dx", "out dx, ax");
port!(u32, inl, outl, "eax", "in eax, dx", "out dx, eax");

/// Reads a device register.
///
/// # Safety
/// `register` must be mapped and aligned.
pub unsafe fn mmio_read<T: Copy>(register: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { register.read_volatile() }
}

/// Writes a device register.
///
/// # Safety
/// `register` must be mapped and aligned, and the write must not make the device harm memory.
pub unsafe fn mmio_write<T: Copy>(register: *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { register.write_volatile(value) }
}
