//! Locks.
//!
//! - [`SpinLock`]: for short sections that never block. It turns interrupts off while held, so interrupt handlers may take it too.
//! - [`Mutex`]: a sleeping lock, for sections that may wait for a disk or fault on user memory.
//!
//! The kernel is not preemptible: a task keeps its CPU until it blocks or returns to user mode. Blocking while a spin lock is held is a bug, and
//! [`crate::task::sched`] panics on it (`PerCpu` counts the spin locks held).

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch::cpu::{self, IrqGuard};
use crate::task::wait::WaitQueue;

/// Mutual exclusion by spinning, with interrupts off.
pub struct SpinLock<T: ?Sized> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives out one reference at a time, so sharing it needs only that the value may be used from any CPU.
unsafe impl<T: ?Sized + Send> Sync for SpinLock<T> {}
// SAFETY: as for `Sync`.
unsafe impl<T: ?Sized + Send> Send for SpinLock<T> {}

/// Access to a locked value; unlocks and restores the interrupt flag on drop.
pub struct SpinGuard<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
    // Dropped after the lock is released (fields drop after `drop`), so an interrupt cannot come in between and spin on it.
    _irq: IrqGuard,
}

impl<T> SpinLock<T> {
    /// Returns an unlocked lock.
    pub const fn new(value: T) -> SpinLock<T> {
        SpinLock { locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Returns the value of a lock that nobody else has.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: Default> Default for SpinLock<T> {
    fn default() -> Self {
        SpinLock::new(T::default())
    }
}

impl<T: ?Sized> SpinLock<T> {
    /// Waits for the lock and takes it.
    pub fn lock(&self) -> SpinGuard<'_, T> {
        let irq = IrqGuard::new();
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            cpu::relax();
        }
        crate::task::spin_lock_taken();
        SpinGuard { lock: self, _irq: irq }
    }

    /// Takes the lock when it is free.
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let irq = IrqGuard::new();
        self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        crate::task::spin_lock_taken();
        Some(SpinGuard { lock: self, _irq: irq })
    }
}

impl<T: ?Sized> Deref for SpinGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists only while the lock is held, and `&mut self` makes this reference unique.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for SpinGuard<'_, T> {
    fn drop(&mut self) {
        crate::task::spin_lock_released();
        self.lock.locked.store(false, Ordering::Release);
    }
}

/// Mutual exclusion by sleeping. Not for interrupt handlers.
pub struct Mutex<T: ?Sized> {
    locked: AtomicBool,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: as for `SpinLock`.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
// SAFETY: as for `SpinLock`.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}

/// Access to a value locked by a [`Mutex`].
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    /// Returns an unlocked lock.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { locked: AtomicBool::new(false), waiters: WaitQueue::new(), value: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Sleeps until the lock is free and takes it; signals do not interrupt it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        if self.try_acquire() {
            return MutexGuard { lock: self };
        }
        self.waiters.wait_uninterruptible(|| self.try_acquire().then_some(()));
        MutexGuard { lock: self }
    }

    /// Takes the lock when it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.try_acquire().then_some(MutexGuard { lock: self })
    }

    fn try_acquire(&self) -> bool {
        self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`, and `&mut self` makes the reference unique.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.locked.store(false, Ordering::Release);
        self.lock.waiters.wake_one();
    }
}
