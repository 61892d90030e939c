//! What credentials become when ids change. Pure: old credentials and a wish in, new credentials or an error out.

use libos_core::abi::general as linux;
use libos_core::task::Credentials;
use libos_core::{Errno, Result};

/// "Leave it as it is", -1 in C.
pub const KEEP: u32 = u32::MAX;

/// `SECBIT_KEEP_CAPS`.
const KEEP_CAPS: u32 = 1 << 4;
/// `SECBIT_NO_SETUID_FIXUP`.
const NO_FIXUP: u32 = 1 << 2;

/// Capabilities that go with the file-system user id: chown, dac_override, dac_read_search, fowner, fsetid, linux_immutable, mknod, mac_override.
const FS_CAPABILITIES: u64 = 0b1_1111 | 1 << linux::CAP_LINUX_IMMUTABLE | 1 << linux::CAP_MKNOD | 1 << linux::CAP_MAC_OVERRIDE;

fn is_privileged(creds: &Credentials, capability: u32) -> bool {
    creds.has_capability(capability)
}

/// Adjusts capabilities after user ids changed (capabilities(7), "Effect of user ID changes on capabilities").
fn fix_capabilities(old: &Credentials, new: &mut Credentials) {
    if old.securebits & NO_FIXUP != 0 {
        return;
    }
    let had_root = [old.uid, old.euid, old.suid].contains(&0);
    let has_root = [new.uid, new.euid, new.suid].contains(&0);
    if had_root && !has_root {
        if old.securebits & KEEP_CAPS == 0 {
            new.permitted = 0;
            new.effective = 0;
        }
        new.ambient = 0;
    }
    if old.euid == 0 && new.euid != 0 {
        new.effective = 0;
    } else if old.euid != 0 && new.euid == 0 {
        new.effective = new.permitted;
    }
}

/// setuid(2).
pub fn set_uid(old: &Credentials, uid: u32) -> Result<Credentials> {
    let mut new = old.clone();
    if is_privileged(old, linux::CAP_SETUID) {
        (new.uid, new.suid) = (uid, uid);
    } else if uid != old.uid && uid != old.suid {
        return Err(Errno::EPERM);
    }
    (new.euid, new.fsuid) = (uid, uid);
    fix_capabilities(old, &mut new);
    Ok(new)
}

/// setresuid(2).
pub fn set_resuid(old: &Credentials, uid: u32, euid: u32, suid: u32) -> Result<Credentials> {
    let is_allowed = |id: u32| id == KEEP || [old.uid, old.euid, old.suid].contains(&id);
    if !is_privileged(old, linux::CAP_SETUID) && ![uid, euid, suid].into_iter().all(is_allowed) {
        return Err(Errno::EPERM);
    }
    let mut new = old.clone();
    let choose = |wish: u32, now: u32| if wish == KEEP { now } else { wish };
    (new.uid, new.euid, new.suid) = (choose(uid, old.uid), choose(euid, old.euid), choose(suid, old.suid));
    new.fsuid = new.euid;
    fix_capabilities(old, &mut new);
    Ok(new)
}

/// setreuid(2).
pub fn set_reuid(old: &Credentials, uid: u32, euid: u32) -> Result<Credentials> {
    let may_uid = uid == KEEP || [old.uid, old.euid].contains(&uid);
    let may_euid = euid == KEEP || [old.uid, old.euid, old.suid].contains(&euid);
    if !(is_privileged(old, linux::CAP_SETUID) || may_uid && may_euid) {
        return Err(Errno::EPERM);
    }
    let mut new = old.clone();
    new.uid = if uid == KEEP { old.uid } else { uid };
    new.euid = if euid == KEEP { old.euid } else { euid };
    // The saved id follows when the real one is set, or the effective one to something new (setreuid(2)).
    if uid != KEEP || euid != KEEP && euid != old.uid {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    fix_capabilities(old, &mut new);
    Ok(new)
}

/// setfsuid(2): returns nothing when it is not allowed, as the call cannot fail.
pub fn set_fsuid(old: &Credentials, fsuid: u32) -> Option<Credentials> {
    if fsuid == KEEP || !is_privileged(old, linux::CAP_SETUID) && ![old.uid, old.euid, old.suid, old.fsuid].contains(&fsuid) {
        return None;
    }
    let mut new = old.clone();
    new.fsuid = fsuid;
    if old.securebits & NO_FIXUP == 0 {
        if old.fsuid == 0 && fsuid != 0 {
            new.effective &= !FS_CAPABILITIES;
        } else if old.fsuid != 0 && fsuid == 0 {
            new.effective |= new.permitted & FS_CAPABILITIES;
        }
    }
    Some(new)
}

/// setgid(2).
pub fn set_gid(old: &Credentials, gid: u32) -> Result<Credentials> {
    let mut new = old.clone();
    if is_privileged(old, linux::CAP_SETGID) {
        (new.gid, new.sgid) = (gid, gid);
    } else if gid != old.gid && gid != old.sgid {
        return Err(Errno::EPERM);
    }
    (new.egid, new.fsgid) = (gid, gid);
    Ok(new)
}

/// setresgid(2).
pub fn set_resgid(old: &Credentials, gid: u32, egid: u32, sgid: u32) -> Result<Credentials> {
    let is_allowed = |id: u32| id == KEEP || [old.gid, old.egid, old.sgid].contains(&id);
    if !is_privileged(old, linux::CAP_SETGID) && ![gid, egid, sgid].into_iter().all(is_allowed) {
        return Err(Errno::EPERM);
    }
    let mut new = old.clone();
    let choose = |wish: u32, now: u32| if wish == KEEP { now } else { wish };
    (new.gid, new.egid, new.sgid) = (choose(gid, old.gid), choose(egid, old.egid), choose(sgid, old.sgid));
    new.fsgid = new.egid;
    Ok(new)
}

/// setregid(2).
pub fn set_regid(old: &Credentials, gid: u32, egid: u32) -> Result<Credentials> {
    let may_gid = gid == KEEP || [old.gid, old.egid].contains(&gid);
    let may_egid = egid == KEEP || [old.gid, old.egid, old.sgid].contains(&egid);
    if !(is_privileged(old, linux::CAP_SETGID) || may_gid && may_egid) {
        return Err(Errno::EPERM);
    }
    let mut new = old.clone();
    new.gid = if gid == KEEP { old.gid } else { gid };
    new.egid = if egid == KEEP { old.egid } else { egid };
    if gid != KEEP || egid != KEEP && egid != old.gid {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    Ok(new)
}

/// setfsgid(2).
pub fn set_fsgid(old: &Credentials, fsgid: u32) -> Option<Credentials> {
    if fsgid == KEEP || !is_privileged(old, linux::CAP_SETGID) && ![old.gid, old.egid, old.sgid, old.fsgid].contains(&fsgid) {
        return None;
    }
    Some(Credentials { fsgid, ..old.clone() })
}

/// The three sets of capset(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// capset(2).
pub fn set_capabilities(old: &Credentials, wish: CapabilitySets) -> Result<Credentials> {
    let is_subset = |a: u64, b: u64| a & !b == 0;
    let inheritable_limit = if old.has_capability(linux::CAP_SETPCAP) { u64::MAX } else { old.inheritable | old.permitted };
    if !is_subset(wish.inheritable, inheritable_limit)
        || !is_subset(wish.inheritable, old.inheritable | old.bounding)
        || !is_subset(wish.permitted, old.permitted)
        || !is_subset(wish.effective, wish.permitted)
    {
        return Err(Errno::EPERM);
    }
    let ambient = old.ambient & wish.permitted & wish.inheritable;
    Ok(Credentials { effective: wish.effective, permitted: wish.permitted, inheritable: wish.inheritable, ambient, ..old.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use libos_core::task::creds::DOCKER_CAPABILITIES;

    fn root() -> Credentials {
        Credentials::initial(0, 0, Vec::new())
    }

    fn ids(c: &Credentials) -> [u32; 4] {
        [c.uid, c.euid, c.suid, c.fsuid]
    }

    #[test]
    fn root_that_becomes_a_user_loses_everything() {
        let user = set_uid(&root(), 1000).expect("root may");
        assert_eq!(ids(&user), [1000; 4]);
        assert_eq!((user.permitted, user.effective), (0, 0));
        assert_eq!(set_uid(&user, 0), Err(Errno::EPERM));
        assert_eq!(set_resuid(&user, KEEP, 0, KEEP), Err(Errno::EPERM));
    }

    #[test]
    fn a_saved_root_can_come_back() {
        let away = set_resuid(&root(), KEEP, 1000, KEEP).expect("root may");
        assert_eq!(ids(&away), [0, 1000, 0, 1000]);
        assert_eq!((away.permitted, away.effective), (DOCKER_CAPABILITIES, 0));
        let back = set_uid(&away, 0).expect("the saved id is root");
        assert_eq!((back.euid, back.effective), (0, DOCKER_CAPABILITIES));
    }

    #[test]
    fn keeping_capabilities_keeps_the_permitted_ones() {
        let mut creds = root();
        creds.securebits = KEEP_CAPS;
        let user = set_uid(&creds, 1000).expect("root may");
        assert_eq!((user.permitted, user.effective), (DOCKER_CAPABILITIES, 0));
    }

    #[test]
    fn setreuid_moves_the_saved_id() {
        let new = set_reuid(&root(), KEEP, 1000).expect("root may");
        assert_eq!(ids(&new), [0, 1000, 1000, 1000]);
        // The real id is still root, so the effective one may return to it.
        assert_eq!(ids(&set_reuid(&new, KEEP, 0).expect("real id")), [0, 0, 1000, 0]);
    }

    #[test]
    fn the_file_system_id_carries_its_capabilities() {
        let user = set_fsuid(&root(), 1000).expect("root may");
        assert!(!user.has_capability(linux::CAP_CHOWN) && user.has_capability(linux::CAP_KILL));
        assert!(set_fsuid(&user, 0).expect("real id").has_capability(linux::CAP_CHOWN));
        assert_eq!(set_fsuid(&user, KEEP), None);
    }

    #[test]
    fn groups_follow_the_same_rules_without_capabilities() {
        let new = set_resgid(&root(), 1, 2, 3).expect("root may");
        assert_eq!([new.gid, new.egid, new.sgid, new.fsgid], [1, 2, 3, 2]);
        assert_eq!(new.effective, DOCKER_CAPABILITIES);
        let user = set_uid(&new, 1000).expect("root may");
        assert_eq!(set_gid(&user, 3).map(|c| c.egid), Ok(3));
        assert_eq!(set_gid(&user, 4), Err(Errno::EPERM));
    }

    #[test]
    fn capabilities_can_only_be_given_up() {
        let sets = CapabilitySets { effective: 1, permitted: 1, inheritable: 0 };
        let less = set_capabilities(&root(), sets).expect("a subset");
        assert_eq!(set_capabilities(&less, CapabilitySets { permitted: 3, ..sets }), Err(Errno::EPERM));
        assert_eq!(set_capabilities(&less, CapabilitySets { permitted: 0, ..sets }), Err(Errno::EPERM));
    }
}
