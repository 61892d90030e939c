//! Resource limits (getrlimit(2)).

/// Resources, numbered as `RLIMIT_*`.
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

impl Resource {
    /// All of them, by number.
    pub const ALL: [Resource; 16] = [
        Resource::Cpu,
        Resource::FileSize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Rss,
        Resource::NProc,
        Resource::NoFile,
        Resource::MemLock,
        Resource::As,
        Resource::Locks,
        Resource::SigPending,
        Resource::MsgQueue,
        Resource::Nice,
        Resource::RtPrio,
        Resource::RtTime,
    ];
}

/// No limit (`RLIM_INFINITY`).
pub const INFINITY: u64 = u64::MAX;

/// Soft and hard limit of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What the kernel enforces.
    pub soft: u64,
    /// Up to where the soft limit may be raised.
    pub hard: u64,
}

/// The limits of a process.
#[derive(Debug, Clone)]
pub struct Limits([Limit; 16]);

impl Limits {
    /// What the first process has: the values of a container under Docker 25, with process counts that fit the memory (`max_threads`).
    pub fn initial(max_threads: u64) -> Limits {
        let all = |value| Limit { soft: value, hard: value };
        let mut limits = [all(INFINITY); 16];
        limits[Resource::Stack as usize].soft = 8 << 20;
        limits[Resource::Core as usize].soft = 0;
        limits[Resource::NProc as usize] = all(max_threads / 2);
        // Servers size tables by the soft limit, so a million here would cost them memory; those that want more raise it themselves.
        limits[Resource::NoFile as usize] = Limit { soft: 1024, hard: 524_288 };
        limits[Resource::MemLock as usize] = all(8 << 20);
        limits[Resource::SigPending as usize] = all(max_threads / 2);
        limits[Resource::MsgQueue as usize] = all(819_200);
        limits[Resource::Nice as usize] = all(0);
        limits[Resource::RtPrio as usize] = all(0);
        Limits(limits)
    }

    /// Both limits of a resource.
    pub fn get(&self, resource: Resource) -> Limit {
        self.0[resource as usize]
    }

    /// Changes both limits of a resource; the caller has checked them.
    pub fn set(&mut self, resource: Resource, limit: Limit) {
        self.0[resource as usize] = limit;
    }
}
