//! User ids, group ids and capabilities of a thread (credentials(7), capabilities(7)).

use alloc::vec::Vec;

/// What Docker leaves to root in a container: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot,
/// mknod, audit_write, setfcap (moby, `oci/caps/defaults.go`).
pub const DOCKER_CAPABILITIES: u64 = 0xa804_25fb;

/// The highest capability number of Linux 6.1: `CAP_CHECKPOINT_RESTORE`.
pub const LAST_CAPABILITY: u32 = 40;

/// User and group ids and capabilities of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of credentials(7)")]
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
    /// `PR_SET_SECUREBITS`, with `SECBIT_KEEP_CAPS` of `PR_SET_KEEPCAPS`.
    pub securebits: u32,
}

impl Credentials {
    /// What a container's first process has: all ids as given; Docker's default capabilities for root, none for others.
    pub fn initial(uid: u32, gid: u32, groups: Vec<u32>) -> Credentials {
        let capabilities = if uid == 0 { DOCKER_CAPABILITIES } else { 0 };
        Credentials {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups,
            effective: capabilities,
            permitted: capabilities,
            inheritable: 0,
            bounding: DOCKER_CAPABILITIES,
            ambient: 0,
            no_new_privs: false,
            securebits: 0,
        }
    }

    /// Whether an effective capability is held.
    pub fn has_capability(&self, capability: u32) -> bool {
        self.effective >> capability & 1 == 1
    }

    /// Whether a group is the effective file-system group or a supplementary one.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}
