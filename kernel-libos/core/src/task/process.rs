//! Processes (thread groups), their credentials and limits.

use alloc::vec::Vec;

/// Resources of getrlimit(2), numbered as `RLIMIT_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "getrlimit(2) describes each")]
pub enum Resource {
    Cpu = 0,
    FileSize = 1,
    Data = 2,
    Stack = 3,
    Core = 4,
    Rss = 5,
    NProc = 6,
    NoFile = 7,
    MemLock = 8,
    As = 9,
    Locks = 10,
    SigPending = 11,
    MsgQueue = 12,
    Nice = 13,
    RtPrio = 14,
    RtTime = 15,
}

/// User and group ids and capabilities of a thread (credentials(7), capabilities(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective, saved and file-system user id.
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    /// Real, effective, saved and file-system group id.
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capability sets, bit `n` is capability `n`.
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
}

impl Credentials {
    /// Whether an effective capability is held.
    pub fn has_capability(&self, capability: u32) -> bool {
        self.effective >> capability & 1 == 1
    }

    /// Whether a group is the effective file-system group or a supplementary one.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}

/// A thread group.
pub struct Process {
    /// Process id.
    pub pid: super::Tid,
}

impl Process {
    /// Soft limit of a resource.
    pub fn limit(&self, resource: Resource) -> u64 {
        let _ = resource;
        unimplemented!()
    }
}
