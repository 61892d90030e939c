//! inotify(7): a descriptor from which changes of files and directories are read.
//!
//! A watch is a device and inode number and a mask; `vfs::notify` tells what happens to which number, and every instance with a watch for it gets an event.
//!
//! Differences from Linux: `IN_DELETE_SELF` comes when the last name goes, also while somebody has the file open; `IN_EXCL_UNLINK` has no effect; changes
//! through mappings are not told, as on Linux.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;

use libos_core::abi::{general as linux, ioctl};
use libos_core::file::{FileOps, OpenFile, OpenFlags, RawFd};
use libos_core::io::IoDst;
use libos_core::poll::{PollEvents, PollTable};
use libos_core::sync::SpinLock;
use libos_core::task::wait::WaitQueue;
use libos_core::user::{UserPtr, UserStr};
use libos_core::vfs::permission::{self, Want};
use libos_core::vfs::{self, Inode, notify};
use libos_core::{Errno, Result, Task};

libos_core::module! {
    name: inotify,
    needs: [fd],
    init: init,
    syscalls: {
        inotify_init => sys_inotify_init,
        inotify_init1 => sys_inotify_init1,
        inotify_add_watch => sys_inotify_add_watch,
        inotify_rm_watch => sys_inotify_rm_watch,
    },
}

/// Events that wait at most (`/proc/sys/fs/inotify/max_queued_events`); then one says that some are missing.
const QUEUE_MAX: usize = 16384;

/// Watches of one instance at most (`max_user_watches` of small machines).
const WATCHES_MAX: usize = 8192;

/// Bytes of `struct inotify_event` before the name.
const HEADER: usize = 16;

static INSTANCES: SpinLock<Vec<Weak<Instance>>> = SpinLock::new(Vec::new());

fn init() {
    notify::set_hook(spread);
}

struct Watch {
    descriptor: i32,
    key: (u64, u64),
    mask: u32,
    /// Keeps the number from being given to another file.
    _inode: Arc<dyn Inode>,
}

#[derive(Clone, PartialEq, Eq)]
struct Event {
    descriptor: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Event {
    /// The name is padded so that the next event is aligned, with one NUL at least.
    fn to_bytes(&self) -> Vec<u8> {
        let name_len = if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEADER) };
        let mut bytes = Vec::with_capacity(HEADER + name_len);
        bytes.extend_from_slice(&self.descriptor.to_ne_bytes());
        for word in [self.mask, self.cookie, name_len as u32] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(&self.name);
        bytes.resize(HEADER + name_len, 0);
        bytes
    }
}

#[derive(Default)]
struct State {
    watches: Vec<Watch>,
    last: i32,
    events: VecDeque<Event>,
}

struct Instance {
    state: SpinLock<State>,
    arrived: Arc<WaitQueue>,
}

/// Hands an event to everybody who watches its object. Watches that end are dropped outside the lock.
fn spread(key: (u64, u64), mask: u32, cookie: u32, name: &[u8]) {
    let instances: Vec<Arc<Instance>> = INSTANCES.lock().iter().filter_map(Weak::upgrade).collect();
    for instance in instances {
        let ended = instance.state.lock().take(key, mask, cookie, name);
        if let Some((is_told, ended)) = ended {
            notify::count_watches(0, ended.len());
            drop(ended);
            if is_told {
                instance.arrived.wake_all();
            }
        }
    }
}

impl State {
    /// Queues what the watches of an object want; returns whether there was anything, and the watches that end with it.
    fn take(&mut self, key: (u64, u64), mask: u32, cookie: u32, name: &[u8]) -> Option<(bool, Vec<Watch>)> {
        let watch = self.watches.iter().find(|w| w.key == key)?;
        let descriptor = watch.descriptor;
        let event = mask & linux::IN_ALL_EVENTS;
        let is_wanted = watch.mask & event != 0;
        let is_gone = event & linux::IN_DELETE_SELF != 0;
        let ends = is_gone || is_wanted && watch.mask & linux::IN_ONESHOT != 0;
        if is_wanted {
            // Events of the object itself do not say that it is a directory (Linux, `inotify_handle_inode_event`).
            let is_of_self = event & (linux::IN_DELETE_SELF | linux::IN_MOVE_SELF) != 0;
            let mask = if is_of_self { event } else { mask };
            self.push(Event { descriptor, mask, cookie, name: name.to_vec() });
        }
        let mut ended = Vec::new();
        if ends {
            self.push(Event { descriptor, mask: linux::IN_IGNORED, cookie: 0, name: Vec::new() });
            let at = self.watches.iter().position(|w| w.descriptor == descriptor)?;
            ended.push(self.watches.remove(at));
        }
        Some((is_wanted || ends, ended))
    }

    fn push(&mut self, event: Event) {
        // The same thing twice in a row is told once.
        if self.events.back() == Some(&event) {
            return;
        }
        match self.events.len() {
            0..QUEUE_MAX => self.events.push_back(event),
            QUEUE_MAX => self.events.push_back(Event { descriptor: -1, mask: linux::IN_Q_OVERFLOW, cookie: 0, name: Vec::new() }),
            _ => {}
        }
    }
}

fn sys_inotify_init(task: &Task) -> Result<usize> {
    sys_inotify_init1(task, 0)
}

fn sys_inotify_init1(task: &Task, flags: u32) -> Result<usize> {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL);
    }
    let instance = Arc::new(Instance { state: SpinLock::new(State::default()), arrived: Arc::new(WaitQueue::new()) });
    let mut instances = INSTANCES.lock();
    instances.retain(|i| i.strong_count() > 0);
    instances.push(Arc::downgrade(&instance));
    drop(instances);
    task.install(OpenFile::new(instance, flags & OpenFlags::NONBLOCK, None), flags.contains(OpenFlags::CLOEXEC))
}

fn with_instance<R>(task: &Task, fd: RawFd, f: impl FnOnce(&Instance) -> Result<R>) -> Result<R> {
    let file = task.files().get(fd)?;
    f(file.ops.as_any().downcast_ref::<Instance>().ok_or(Errno::EINVAL)?)
}

fn sys_inotify_add_watch(task: &Task, fd: RawFd, path: UserStr, mask: u32) -> Result<usize> {
    let both = linux::IN_MASK_ADD | linux::IN_MASK_CREATE;
    if mask & linux::IN_ALL_EVENTS == 0 || mask & both == both {
        return Err(Errno::EINVAL);
    }
    with_instance(task, fd, |_| Ok(()))?;
    let path = path.read_path()?;
    let place = vfs::lookup_at(task, linux::AT_FDCWD, &path, mask & linux::IN_DONT_FOLLOW == 0)?;
    let inode = place.inode().clone();
    let attributes = inode.attributes()?;
    if mask & linux::IN_ONLYDIR != 0 && !attributes.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    permission::check(&task.creds(), attributes, Want::READ)?;
    let stat = inode.stat()?;
    let key = (stat.dev, stat.ino);
    with_instance(task, fd, |instance| {
        let mut state = instance.state.lock();
        let wanted = mask & (linux::IN_ALL_EVENTS | linux::IN_ONESHOT);
        if let Some(watch) = state.watches.iter_mut().find(|w| w.key == key) {
            if mask & linux::IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            watch.mask = if mask & linux::IN_MASK_ADD != 0 { watch.mask | wanted } else { wanted };
            return Ok(watch.descriptor as usize);
        }
        if state.watches.len() >= WATCHES_MAX {
            return Err(Errno::ENOSPC);
        }
        state.watches.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        state.last += 1;
        let descriptor = state.last;
        state.watches.push(Watch { descriptor, key, mask: wanted, _inode: inode });
        drop(state);
        notify::count_watches(1, 0);
        Ok(descriptor as usize)
    })
}

fn sys_inotify_rm_watch(task: &Task, fd: RawFd, descriptor: i32) -> Result<usize> {
    with_instance(task, fd, |instance| {
        let mut state = instance.state.lock();
        let at = state.watches.iter().position(|w| w.descriptor == descriptor).ok_or(Errno::EINVAL)?;
        let watch = state.watches.remove(at);
        state.push(Event { descriptor, mask: linux::IN_IGNORED, cookie: 0, name: Vec::new() });
        drop(state);
        drop(watch);
        notify::count_watches(0, 1);
        instance.arrived.wake_all();
        Ok(0)
    })
}

impl FileOps for Instance {
    fn read_at(&self, file: &OpenFile, dst: &mut IoDst<'_>, _offset: u64) -> Result<usize> {
        let is_ready = || (!self.state.lock().events.is_empty()).then_some(());
        if file.is_nonblocking() {
            is_ready().ok_or(Errno::EAGAIN)?;
        } else {
            self.arrived.wait(is_ready)?;
        }
        let mut bytes = Vec::new();
        {
            let mut state = self.state.lock();
            while let Some(event) = state.events.front() {
                let event = event.to_bytes();
                if bytes.len() + event.len() > dst.remaining() {
                    break;
                }
                bytes.extend_from_slice(&event);
                state.events.pop_front();
            }
        }
        if bytes.is_empty() {
            // The next event does not fit (inotify(7)), or somebody else was faster.
            return Err(Errno::EINVAL);
        }
        dst.push(&bytes)
    }

    fn poll(&self, _file: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.add(&self.arrived);
        if self.state.lock().events.is_empty() { PollEvents::empty() } else { PollEvents::READABLE }
    }

    fn ioctl(&self, _file: &OpenFile, request: u32, arg: usize) -> Result<usize> {
        if request != ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let waiting: usize = self.state.lock().events.iter().map(|e| e.to_bytes().len()).sum();
        UserPtr::<i32>::new(arg).write(waiting as i32).map(|()| 0)
    }

    fn release(&self, _file: &OpenFile) {
        let watches = core::mem::take(&mut self.state.lock().watches);
        notify::count_watches(0, watches.len());
    }

    fn anonymous_name(&self) -> Option<String> {
        Some(String::from("anon_inode:inotify"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
