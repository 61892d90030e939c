//! All segments.

use alloc::vec::Vec;

use libos_core::mm::PageSource;
use libos_core::mm::shared::SharedMemory;
use libos_core::sync::SpinLock;
use libos_core::task::Credentials;
use libos_core::{Errno, Result};

use crate::{IPC_PRIVATE, Memory};

/// Most segments (`/proc/sys/kernel/shmmni`).
pub(crate) const SEGMENTS_MAX: usize = 4096;

/// Identifiers are `index + ROUND * n`, so that a removed segment's is not soon another's (Linux, `IPCMNI`).
const ROUND: i32 = 32768;

/// A segment.
pub(crate) struct Segment {
    pub id: i32,
    /// `IPC_PRIVATE` for those without key and those removed.
    pub key: i32,
    pub size: usize,
    pub memory: Memory,
    pub uid: u32,
    pub gid: u32,
    pub creator_uid: u32,
    pub creator_gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// `IPC_RMID` came; it goes with its last attachment.
    pub is_removed: bool,
    pub is_locked: bool,
    /// Seconds since the epoch; 0 is never.
    pub attached_at: i64,
    pub detached_at: i64,
    pub changed_at: i64,
    pub creator_pid: i32,
    pub last_pid: i32,
}

impl Segment {
    /// Number of mappings of the segment.
    pub fn attachments(&self) -> usize {
        // One reference is the table's.
        alloc::sync::Arc::strong_count(&self.memory) - 1
    }

    /// Checks permission bits (read 4, write 2, execute 1).
    ///
    /// # Errors
    /// `EACCES`.
    pub fn check(&self, creds: &Credentials, wanted: u32) -> Result<()> {
        const CAP_IPC_OWNER: u32 = 15;
        let is_owner = creds.euid == self.uid || creds.euid == self.creator_uid;
        let is_group = [self.gid, self.creator_gid].iter().any(|gid| *gid == creds.egid || creds.groups.contains(gid));
        let granted = self.mode
            >> if is_owner {
                6
            } else if is_group {
                3
            } else {
                0
            };
        if wanted & !granted == 0 || creds.has_capability(CAP_IPC_OWNER) { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether somebody may change or remove the segment.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn check_owner(&self, creds: &Credentials) -> Result<()> {
        const CAP_SYS_ADMIN: u32 = 21;
        let is_owner = creds.euid == self.uid || creds.euid == self.creator_uid;
        if is_owner || creds.has_capability(CAP_SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }
}

/// All segments by index.
pub(crate) struct Table {
    slots: Vec<Option<Segment>>,
    round: i32,
}

/// The machine's segments.
pub(crate) static TABLE: SpinLock<Table> = SpinLock::new(Table { slots: Vec::new(), round: 0 });

/// Wall clock in seconds.
pub(crate) fn now() -> i64 {
    (libos_core::time::realtime_ns() / 1_000_000_000) as i64
}

impl Table {
    /// Drops segments that were removed and are not attached any more.
    pub fn purge(&mut self) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|s| s.is_removed && s.attachments() == 0) {
                // Its pages are freed here; nothing else hangs on them.
                *slot = None;
            }
        }
    }

    /// Returns the segment with a key.
    pub fn by_key(&mut self, key: i32) -> Option<&mut Segment> {
        self.slots.iter_mut().flatten().find(|s| s.key == key)
    }

    /// Returns the segment with an identifier.
    ///
    /// # Errors
    /// `EINVAL` for identifiers that never were, `EIDRM` for those that are no more.
    pub fn by_id(&mut self, id: i32) -> Result<&mut Segment> {
        let index = usize::try_from(id % ROUND).map_err(|_| Errno::EINVAL)?;
        let slot = self.slots.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EINVAL)?;
        if slot.id == id { Ok(slot) } else { Err(Errno::EIDRM) }
    }

    /// Returns the segment in a slot.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn by_index(&mut self, index: i32) -> Result<&mut Segment> {
        usize::try_from(index).ok().and_then(|i| self.slots.get_mut(i)).and_then(Option::as_mut).ok_or(Errno::EINVAL)
    }

    /// Returns the segment with these pages.
    pub fn by_memory(&mut self, memory: &dyn PageSource) -> Option<&mut Segment> {
        self.slots.iter_mut().flatten().find(|s| core::ptr::addr_eq(alloc::sync::Arc::as_ptr(&s.memory), memory))
    }

    /// Segments, and the highest index in use.
    pub fn list(&self) -> (impl Iterator<Item = &Segment>, usize) {
        (self.slots.iter().flatten(), self.slots.iter().rposition(Option::is_some).unwrap_or(0))
    }

    /// Makes a segment and returns its identifier.
    ///
    /// # Errors
    /// `ENOSPC`, `ENOMEM`.
    pub fn create(&mut self, creds: &Credentials, pid: i32, key: i32, size: usize, mode: u32) -> Result<i32> {
        let index = match self.slots.iter().position(Option::is_none) {
            Some(index) => index,
            None if self.slots.len() >= SEGMENTS_MAX => return Err(Errno::ENOSPC),
            None => {
                self.slots.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        let id = index as i32 + ROUND * self.round;
        // Identifiers stay positive numbers.
        self.round = (self.round + 1) % (i32::MAX / ROUND);
        let name = alloc::format!("/SYSV{key:08x} (deleted)");
        self.slots[index] = Some(Segment {
            id,
            key,
            size,
            memory: SharedMemory::named(size as u64, name.as_bytes()),
            uid: creds.euid,
            gid: creds.egid,
            creator_uid: creds.euid,
            creator_gid: creds.egid,
            mode,
            is_removed: false,
            is_locked: false,
            attached_at: 0,
            detached_at: 0,
            changed_at: now(),
            creator_pid: pid,
            last_pid: 0,
        });
        Ok(id)
    }

    /// Removes a segment: at once, or with its last attachment.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EPERM`.
    pub fn remove(&mut self, id: i32, creds: &Credentials) -> Result<()> {
        let segment = self.by_id(id)?;
        segment.check_owner(creds)?;
        segment.key = IPC_PRIVATE;
        segment.is_removed = true;
        self.purge();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn creds(uid: u32) -> Credentials {
        let mut creds = Credentials::initial(uid, uid, Vec::new());
        if uid != 0 {
            creds.effective = 0;
        }
        creds
    }

    #[test]
    fn a_removed_segment_lives_as_long_as_it_is_attached() {
        let mut table = Table { slots: Vec::new(), round: 0 };
        let id = table.create(&creds(1), 7, 5, 100, 0o600).unwrap();
        let attached = table.by_id(id).unwrap().memory.clone();
        assert_eq!(table.by_key(5).unwrap().attachments(), 1);
        assert_eq!(table.remove(id, &creds(2)), Err(Errno::EPERM));
        table.remove(id, &creds(1)).unwrap();
        assert!(table.by_key(5).is_none() && table.by_id(id).is_ok());
        drop(attached);
        table.purge();
        assert!(matches!(table.by_id(id), Err(Errno::EINVAL)));
        // The slot's next user has another identifier.
        let next = table.create(&creds(1), 7, 5, 100, 0o600).unwrap();
        assert_ne!(next, id);
        assert!(matches!(table.by_id(id), Err(Errno::EIDRM)));
    }

    #[test]
    fn permissions_are_those_of_owner_group_and_others() {
        let mut table = Table { slots: Vec::new(), round: 0 };
        let id = table.create(&creds(1), 7, 5, 100, 0o640).unwrap();
        let segment = table.by_id(id).unwrap();
        assert_eq!(segment.check(&creds(1), 0o6), Ok(()));
        let mut member = creds(2);
        member.groups.push(1);
        assert_eq!((segment.check(&member, 0o4), segment.check(&member, 0o2)), (Ok(()), Err(Errno::EACCES)));
        assert_eq!(segment.check(&creds(3), 0o4), Err(Errno::EACCES));
        let mut capable = creds(4);
        capable.effective = 1 << 15;
        assert_eq!(segment.check(&capable, 0o6), Ok(()));
    }
}
