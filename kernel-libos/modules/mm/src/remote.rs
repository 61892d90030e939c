//! process_vm_readv(2) and process_vm_writev(2).

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::mm::AddressSpace;
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result, Task};

/// `IOV_MAX`.
const PIECES_MAX: usize = 1024;

/// A `struct iovec`: address and length.
type Piece = [usize; 2];

pub(crate) fn sys_process_vm_readv(
    task: &Task,
    pid: i32,
    local: UserPtr<Piece>,
    local_count: usize,
    remote: UserPtr<Piece>,
    remote_count: usize,
    flags: usize,
) -> Result<usize> {
    transfer(task, pid, (local, local_count), (remote, remote_count), flags, |mm, theirs, ours, buffer| {
        mm.read_bytes(theirs, buffer)?;
        UserSlice::from_parts(UserPtr::new(ours), buffer.len())?.write_from(buffer)
    })
}

pub(crate) fn sys_process_vm_writev(
    task: &Task,
    pid: i32,
    local: UserPtr<Piece>,
    local_count: usize,
    remote: UserPtr<Piece>,
    remote_count: usize,
    flags: usize,
) -> Result<usize> {
    transfer(task, pid, (local, local_count), (remote, remote_count), flags, |mm, theirs, ours, buffer| {
        UserSlice::from_parts(UserPtr::new(ours), buffer.len())?.read_to(buffer)?;
        mm.write_bytes(theirs, buffer)
    })
}

fn pieces(from: UserPtr<Piece>, count: usize) -> Result<Vec<Piece>> {
    if count > PIECES_MAX {
        return Err(Errno::EINVAL);
    }
    let pieces = UserSlice::from_parts(from, count)?.read_vec()?;
    // The sum of all lengths fits a signed number (readv(2), EINVAL).
    let total = pieces.iter().try_fold(0usize, |sum, piece| sum.checked_add(piece[1]));
    total.filter(|t| isize::try_from(*t).is_ok()).map(|_| pieces).ok_or(Errno::EINVAL)
}

fn transfer(
    task: &Task,
    pid: i32,
    local: (UserPtr<Piece>, usize),
    remote: (UserPtr<Piece>, usize),
    flags: usize,
    mut copy: impl FnMut(&AddressSpace, usize, usize, &mut [u8]) -> Result<()>,
) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let (local, remote) = (pieces(local.0, local.1)?, pieces(remote.0, remote.1)?);
    let mm = target(task, pid)?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(4096).map_err(|_| Errno::ENOMEM)?;
    buffer.resize(4096, 0u8);
    let (mut ours, mut theirs) = (Cursor::new(&local), Cursor::new(&remote));
    let mut done = 0;
    while let (Some((our_addr, our_len)), Some((their_addr, their_len))) = (ours.piece(), theirs.piece()) {
        // To the end of the remote page at most, so that a partial copy ends where the memory does.
        let len = our_len.min(their_len).min(4096 - their_addr % 4096);
        if let Err(errno) = copy(&mm, their_addr, our_addr, &mut buffer[..len]) {
            return if done > 0 { Ok(done) } else { Err(errno) };
        }
        ours.advance(len);
        theirs.advance(len);
        done += len;
    }
    Ok(done)
}

/// The address space of a process that the caller may look into: its own user's, or any with `CAP_SYS_PTRACE`.
fn target(task: &Task, pid: i32) -> Result<Arc<AddressSpace>> {
    const CAP_SYS_PTRACE: u32 = 19;
    let other = libos_core::task::table::task(pid)?;
    let (mine, theirs) = (task.creds(), other.creds());
    let is_same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|id| *id == mine.uid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|id| *id == mine.gid);
    if !is_same && !mine.has_capability(CAP_SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    Ok(other.mm())
}

/// A place in a list of pieces.
struct Cursor<'a> {
    pieces: &'a [Piece],
    done: usize,
}

impl<'a> Cursor<'a> {
    fn new(pieces: &'a [Piece]) -> Cursor<'a> {
        Cursor { pieces, done: 0 }
    }

    /// Address and length of what comes next.
    fn piece(&mut self) -> Option<(usize, usize)> {
        while let Some(first) = self.pieces.first() {
            if self.done < first[1] {
                return Some((first[0].wrapping_add(self.done), first[1] - self.done));
            }
            self.pieces = &self.pieces[1..];
            self.done = 0;
        }
        None
    }

    fn advance(&mut self, len: usize) {
        self.done += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_skips_empty_pieces() {
        let pieces = [[0x1000, 0], [0x2000, 5], [0x3000, 0], [0x4000, 1]];
        let mut cursor = Cursor::new(&pieces);
        assert_eq!(cursor.piece(), Some((0x2000, 5)));
        cursor.advance(2);
        assert_eq!(cursor.piece(), Some((0x2002, 3)));
        cursor.advance(3);
        assert_eq!(cursor.piece(), Some((0x4000, 1)));
        cursor.advance(1);
        assert_eq!(cursor.piece(), None);
    }
}
