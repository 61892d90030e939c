//! The one declaration of a kernel module.
//!
//! `module!` turns a list of system calls into exported symbols that the compiler's per-application dispatch table refers to, and into a text note in
//! the section `.note.ukc.module` that `select` reads. A handler that no table names is dropped by the linker's garbage collection.
//!
//! The note, one record per declaration (NUL padding between records is allowed):
//!
//! ```text
//! UKCMOD1
//! name=pipe
//! needs=fd,wait,
//! always=false
//! init=ukc_init_pipe
//! syscall=pipe:ukc_sys_pipe:full:
//! syscall=pipe2:ukc_sys_pipe2:partial:O_DIRECT is refused
//! (empty line)
//! ```
//!
//! The macro expands to `export_name` attributes, which module crates may use although they forbid unsafe code, because the expansion belongs to this crate.

/// Turns the text of a note into the bytes of a static.
#[doc(hidden)]
pub const fn note_bytes<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = bytes[i];
        i += 1;
    }
    out
}

/// Declares a kernel module.
///
/// ```ignore
/// libos_core::module! {
///     name: pipe,
///     needs: [fd],
///     always: false,                 // optional: linked into every kernel
///     init: init,                    // optional: `fn init()`, run once at boot after the modules it needs
///     syscalls: {
///         pipe => sys_pipe,
///         pipe2 => sys_pipe2: partial "O_DIRECT is refused",   // or `stub "why"`
///     },
/// }
/// ```
///
/// A handler is `fn(&Task, A, B, ...) -> Result<usize, Errno>` with up to six arguments that implement [`FromArg`](crate::dispatch::FromArg), or
/// takes `&mut SyscallContext` as its second parameter when it needs the registers (fork, exec, sigreturn).
#[macro_export]
macro_rules! module {
    (
        name: $name:ident,
        needs: [$($need:ident),* $(,)?],
        $(always: $always:literal,)?
        $(init: $init:path,)?
        syscalls: { $($call:ident => $handler:path $(: $state:ident $reason:literal)?),* $(,)? } $(,)?
    ) => {
        $(
            #[cfg(ukc_kernel)]
            const _: () = {
                #[unsafe(export_name = concat!("ukc_sys_", stringify!($call)))]
                extern "C" fn __ukc_handler(frame: &mut $crate::arch::UserFrame) {
                    $crate::dispatch::call(&$handler, frame)
                }
            };
        )*
        $(
            #[cfg(ukc_kernel)]
            const _: () = {
                #[unsafe(export_name = concat!("ukc_init_", stringify!($name)))]
                extern "C" fn __ukc_init() {
                    // Items of a block shadow those outside it: this function must not have the name of what it calls.
                    let init: fn() = $init;
                    init()
                }
            };
        )?
        #[cfg(not(ukc_kernel))]
        const _: () = {
            // On the host the handlers are ordinary functions for unit tests; naming them here keeps them from being reported as dead.
            #[allow(dead_code)]
            fn named() {
                $(let _ = &$handler;)*
                $(let _: fn() = $init;)?
            }
            let _ = named as fn();
        };
        #[cfg(ukc_kernel)]
        const _: () = {
            const TEXT: &str = concat!(
                "UKCMOD1\nname=", stringify!($name),
                "\nneeds=", $(stringify!($need), ",",)*
                "\n", $("always=", stringify!($always), "\n",)?
                $("init=", $crate::__first!("ukc_init_", $init), stringify!($name), "\n",)?
                $("syscall=", stringify!($call), ":ukc_sys_", stringify!($call), ":", $crate::__state!($($state $reason)?), "\n",)*
                "\n"
            );
            #[used]
            #[unsafe(link_section = ".note.ukc.module")]
            static NOTE: [u8; TEXT.len()] = $crate::module::note_bytes(TEXT);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __first {
    ($first:literal, $rest:path) => {
        $first
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __state {
    () => {
        "full:"
    };
    ($state:ident $reason:literal) => {
        concat!(stringify!($state), ":", $reason)
    };
}
