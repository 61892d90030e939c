//! shmctl(2).

use libos_core::user::UserPtr;
use libos_core::{Errno, Result, Task};

use crate::READ;
use crate::table::{SEGMENTS_MAX, Segment, TABLE, now};

const IPC_RMID: u32 = 0;
const IPC_SET: u32 = 1;
const IPC_STAT: u32 = 2;
const IPC_INFO: u32 = 3;
const SHM_LOCK: u32 = 11;
const SHM_UNLOCK: u32 = 12;
const SHM_STAT: u32 = 13;
const SHM_INFO: u32 = 14;
const SHM_STAT_ANY: u32 = 15;

/// Bits that shmctl shows in the mode: `SHM_DEST` and `SHM_LOCKED`.
const MODE_REMOVED: u32 = 0o1000;
const MODE_LOCKED: u32 = 0o2000;

/// `struct shmid64_ds` of asm-generic/shmbuf.h as eight-byte words; two 32-bit fields share one, the first in the low half.
type Status = [u64; 14];

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn status(segment: &Segment) -> Status {
    let mut mode = segment.mode;
    if segment.is_removed {
        mode |= MODE_REMOVED;
    }
    if segment.is_locked {
        mode |= MODE_LOCKED;
    }
    [
        pair(segment.key as u32, segment.uid),
        pair(segment.gid, segment.creator_uid),
        pair(segment.creator_gid, mode),
        // Sequence number: the round of the identifier.
        (segment.id / 32768) as u64,
        0,
        0,
        segment.size as u64,
        segment.attached_at as u64,
        segment.detached_at as u64,
        segment.changed_at as u64,
        pair(segment.creator_pid as u32, segment.last_pid as u32),
        segment.attachments() as u64,
        0,
        0,
    ]
}

pub(crate) fn sys_shmctl(task: &Task, id: i32, raw_command: u32, buffer: UserPtr<Status>) -> Result<usize> {
    // Older libcs set this bit to say that they know the 64-bit structures (`IPC_64`).
    let command = raw_command & !0x100;
    let creds = task.creds();
    if id < 0 && !matches!(command, IPC_INFO | SHM_INFO) {
        return Err(Errno::EINVAL);
    }
    match command {
        IPC_RMID => TABLE.lock().remove(id, &creds).map(|()| 0),
        IPC_SET => {
            let new = buffer.read()?;
            let mut table = TABLE.lock();
            let segment = table.by_id(id)?;
            segment.check_owner(&creds)?;
            segment.uid = (new[0] >> 32) as u32;
            segment.gid = new[1] as u32;
            segment.mode = (new[2] >> 32) as u32 & 0o777;
            segment.changed_at = now();
            Ok(0)
        }
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => {
            let (status, answer) = {
                let mut table = TABLE.lock();
                table.purge();
                let segment = if command == IPC_STAT { table.by_id(id)? } else { table.by_index(id)? };
                if command != SHM_STAT_ANY {
                    segment.check(&creds, READ)?;
                }
                (status(segment), if command == IPC_STAT { 0 } else { segment.id as usize })
            };
            buffer.write(status)?;
            Ok(answer)
        }
        SHM_LOCK | SHM_UNLOCK => {
            let mut table = TABLE.lock();
            let segment = table.by_id(id)?;
            segment.check_owner(&creds)?;
            // Nothing is ever swapped out; the flag is all there is to it.
            segment.is_locked = command == SHM_LOCK;
            Ok(0)
        }
        IPC_INFO => {
            let highest = TABLE.lock().list().1;
            // struct shminfo64: largest and smallest segment, segments, segments of a process, pages of all; four reserved words.
            let info: [u64; 9] = [isize::MAX as u64, 1, SEGMENTS_MAX as u64, SEGMENTS_MAX as u64, isize::MAX as u64 / 4096, 0, 0, 0, 0];
            buffer.cast().write(info)?;
            Ok(highest)
        }
        SHM_INFO => {
            let (info, highest) = {
                let table = TABLE.lock();
                let (segments, highest) = table.list();
                let (count, pages) = segments.fold((0u64, 0u64), |(n, pages), s| (n + 1, pages + (s.size as u64).div_ceil(4096)));
                // struct shm_info: segments, pages in all, resident, swapped, two statistics.
                let info: [u64; 6] = [count, pages, pages, 0, 0, 0];
                (info, highest)
            };
            buffer.cast().write(info)?;
            Ok(highest)
        }
        _ => Err(Errno::EINVAL),
    }
}
