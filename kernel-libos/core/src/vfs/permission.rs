//! Who may do what to a file (path_resolution(7), "Permissions"; capabilities(7)).

use bitflags::bitflags;
use libos_abi::general as linux;
use libos_abi::{Errno, Result};

use super::inode::Attributes;
use crate::task::Credentials;

bitflags! {
    /// What somebody wants to do with a file; the numbers of access(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Want: u32 {
        const EXEC = 1;
        const WRITE = 2;
        const READ = 4;
    }
}

/// Checks the permission bits with the file-system ids, groups and capabilities of `creds`.
///
/// # Errors
/// `EACCES`.
pub fn check(creds: &Credentials, attributes: Attributes, want: Want) -> Result<()> {
    let shift = if creds.fsuid == attributes.uid {
        6
    } else if creds.in_group(attributes.gid) {
        3
    } else {
        0
    };
    if want.bits() & !(attributes.mode >> shift) == 0 {
        return Ok(());
    }
    // CAP_DAC_OVERRIDE does not make a file executable that nobody may execute.
    let may_exec = attributes.is_dir() || attributes.mode & 0o111 != 0;
    if creds.has_capability(linux::CAP_DAC_OVERRIDE) && (may_exec || !want.contains(Want::EXEC)) {
        return Ok(());
    }
    let reads_or_searches = want == Want::READ || (attributes.is_dir() && !want.contains(Want::WRITE));
    if reads_or_searches && creds.has_capability(linux::CAP_DAC_READ_SEARCH) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Checks that an entry of `dir` may be removed or renamed: the directory is writable and, when it is sticky, one of both belongs to the caller.
///
/// # Errors
/// `EACCES`, `EPERM` (sticky).
pub fn check_delete(creds: &Credentials, dir: Attributes, victim: Attributes) -> Result<()> {
    check(creds, dir, Want::WRITE | Want::EXEC)?;
    let is_sticky = dir.mode & linux::S_ISVTX != 0;
    if is_sticky && creds.fsuid != victim.uid && creds.fsuid != dir.uid && !creds.has_capability(linux::CAP_FOWNER) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Whether the caller owns the file or may act as the owner.
pub fn is_owner(creds: &Credentials, attributes: Attributes) -> bool {
    creds.fsuid == attributes.uid || creds.has_capability(linux::CAP_FOWNER)
}

/// The credentials that access(2) checks with: real ids, and capabilities as a program with them would have.
pub fn real_credentials(creds: &Credentials) -> Credentials {
    let mut real = creds.clone();
    real.fsuid = creds.uid;
    real.fsgid = creds.gid;
    real.effective = if creds.uid == 0 { creds.permitted } else { 0 };
    real
}
