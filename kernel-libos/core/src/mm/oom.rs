//! Who is killed when memory ends.
//!
//! All caches have given back what they could before anybody comes here ([`super::frame`]). The process with the most resident memory is sent SIGKILL, as
//! Linux' OOM killer does, and said so on the console; the program that found no memory tries again when the other is gone.

use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::task::signal::{SigInfo, deliver, send, set};
use crate::task::{Process, sched, table, with_current};

/// The process killed last, and how often somebody has waited for it to go since.
static VICTIM: AtomicI32 = AtomicI32::new(0);
static PATIENCE: AtomicU32 = AtomicU32::new(0);

/// After so many tries the victim is taken to be stuck, and whoever asks is killed instead.
const TRIES_MAX: u32 = 10_000;

/// Sends SIGKILL to the largest process, and lets others run. Returns false when the largest is the caller's own: it ends before it returns to ring 3.
pub(crate) fn make_room() -> bool {
    // Pages of files that are mapped can be read again. A handful of them is no help: that is the text of what runs, and it would be read again at once.
    const WORTH_IT: usize = 16;
    if crate::vfs::reclaim::reclaim_mapped(4 * WORTH_IT) >= WORTH_IT {
        return true;
    }
    let largest = table::processes().into_iter().max_by_key(|process| resident(process));
    let me = with_current(|task| task.pid());
    let victim = largest.as_ref().map_or(me, |process| process.pid);
    let is_new = VICTIM.swap(victim, Ordering::Relaxed) != victim;
    if is_new {
        PATIENCE.store(0, Ordering::Relaxed);
    }
    if is_new {
        let name = largest.as_ref().and_then(|process| process.main_thread()).map(|task| task.name_bytes()).unwrap_or_default();
        let victim = victim as u64;
        crate::arch::report!("ukc: out of memory: killed process ", victim, " (", &name[..], "); give the machine more with --memory");
    }
    if victim == me || PATIENCE.fetch_add(1, Ordering::Relaxed) > TRIES_MAX {
        deliver::force_signal(set::SIGKILL);
        return false;
    }
    if let Some(process) = largest
        && is_new
    {
        // It exists, and the kernel may kill everybody.
        let _ = send::send_to_process(&process, SigInfo::kernel(set::SIGKILL));
    }
    sched::yield_now();
    true
}

/// Pages of a process; 0 when it has ended.
fn resident(process: &Process) -> usize {
    if process.is_zombie() {
        return 0;
    }
    process.threads().first().and_then(|task| task.mm_opt()).map_or(0, |mm| mm.usage().resident)
}
