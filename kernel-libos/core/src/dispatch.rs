//! From the registers of a system call to a typed handler and back.
//!
//! The per-application object holds `ukc_syscall_table`: [`TABLE_LEN`](libos_abi::syscall::TABLE_LEN) pointers, each to a function that `module!` made,
//! or to the ENOSYS answer below. Arguments are decoded by type at the boundary, so that no handler casts a raw register.

use libos_abi::{Errno, Result};

use crate::arch::UserFrame;
use crate::task::Task;
use crate::user::{UserPtr, UserSlice, UserStr};

/// A value that a system call argument register is decoded to.
pub trait FromArg: Sized {
    /// Decodes one register.
    ///
    /// # Errors
    /// The errno for values that the type does not have, usually `EINVAL`.
    fn from_arg(raw: u64) -> Result<Self>;
}

macro_rules! from_arg_integers {
    ($($t:ty)*) => { $(impl FromArg for $t {
        // The ABI passes a C `int` in the low half of a register and leaves the upper half undefined (x86-64 psABI, 3.2.3).
        fn from_arg(raw: u64) -> Result<Self> { Ok(raw as $t) }
    })* };
}
from_arg_integers!(i8 u8 i16 u16 i32 u32 i64 u64 isize usize);

impl<T> FromArg for UserPtr<T> {
    fn from_arg(raw: u64) -> Result<Self> {
        Ok(UserPtr::new(raw as usize))
    }
}

impl FromArg for UserStr {
    fn from_arg(raw: u64) -> Result<Self> {
        Ok(UserStr::new(raw as usize))
    }
}

impl FromArg for crate::task::reap::WaitOptions {
    // The calls take different sets; each checks its own.
    fn from_arg(raw: u64) -> Result<Self> {
        Self::from_bits(raw as u32).ok_or(Errno::EINVAL)
    }
}

/// The registers of the calling program, for the calls that read or replace them: fork, exec, rt_sigreturn, arch_prctl.
pub struct SyscallContext<'a> {
    /// All user registers; what the handler leaves here is what the program continues with.
    pub frame: &'a mut UserFrame,
}

/// A system call handler of any arity.
pub trait Handler<Args> {
    /// Decodes the arguments and runs the handler.
    ///
    /// # Errors
    /// What the handler answers.
    fn run(&self, task: &Task, frame: &mut UserFrame) -> Result<usize>;
}

/// Marks handlers that take the registers.
pub struct WithContext;

macro_rules! handlers {
    ($(($($arg:ident $register:ident),*))*) => { $(
        impl<F, $($arg: FromArg),*> Handler<($($arg,)*)> for F
        where
            F: Fn(&Task, $($arg),*) -> Result<usize>,
        {
            #[allow(unused_variables)]
            fn run(&self, task: &Task, frame: &mut UserFrame) -> Result<usize> {
                self(task, $($arg::from_arg(frame.$register)?),*)
            }
        }

        impl<F, $($arg: FromArg),*> Handler<(WithContext, $($arg,)*)> for F
        where
            F: Fn(&Task, &mut SyscallContext<'_>, $($arg),*) -> Result<usize>,
        {
            fn run(&self, task: &Task, frame: &mut UserFrame) -> Result<usize> {
                $(#[allow(non_snake_case)] let $arg = $arg::from_arg(frame.$register)?;)*
                self(task, &mut SyscallContext { frame }, $($arg),*)
            }
        }
    )* };
}
handlers! {
    ()
    (A rdi)
    (A rdi, B rsi)
    (A rdi, B rsi, C rdx)
    (A rdi, B rsi, C rdx, D r10)
    (A rdi, B rsi, C rdx, D r10, E r8)
    (A rdi, B rsi, C rdx, D r10, E r8, G r9)
}

/// Runs a handler for the current task and leaves its answer in `rax`. What `module!` exports calls this.
pub fn call<Args>(handler: &impl Handler<Args>, frame: &mut UserFrame) {
    let result = crate::task::with_current(|task| handler.run(task, frame));
    frame.rax = match result {
        Ok(value) => value as u64,
        Err(errno) => errno.to_ret() as u64,
    };
}

/// A (pointer, length) pair is two registers; handlers build it from both.
impl<T> UserSlice<T> {
    /// Returns the claim that `len` values of `T` lie at `ptr`.
    ///
    /// # Errors
    /// `EFAULT` when the range wraps around or leaves the user half.
    pub fn from_parts(ptr: UserPtr<T>, len: usize) -> Result<UserSlice<T>> {
        UserSlice::new(ptr.addr(), len).ok_or(Errno::EFAULT)
    }
}
