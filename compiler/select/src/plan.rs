//! The plan and how it is made.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use ukc_analyze::{Facts, Place};

use crate::catalogue::{Catalogue, CatalogueError, State};

/// What the program runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guest {
    /// The Linux-compatible library OS.
    LibOs,
}

/// What the user asks for beyond what analysis finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Modules to link whatever the facts say, each with the flag that asked (`--trace`).
    pub features: Vec<(String, String)>,
    /// Calls to link whatever the facts say, each with the flag that asked.
    pub calls: Vec<(u32, String)>,
}

/// Why a module is linked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleReason {
    /// Its declaration says so.
    Always,
    /// It handles these calls of the set.
    Calls(Vec<String>),
    /// These modules need it.
    NeededBy(Vec<String>),
    /// A feature asks for it.
    Feature(String),
}

/// A module of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedModule {
    /// Name.
    pub name: String,
    /// Every reason.
    pub reasons: Vec<ModuleReason>,
}

/// A chosen handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Number.
    pub nr: u32,
    /// Name.
    pub name: String,
    /// Module that handles it.
    pub module: String,
    /// Link symbol.
    pub symbol: String,
    /// How much it does.
    pub state: State,
    /// What is left out; empty for a full handler.
    pub note: String,
    /// Where the program makes the call: `path+0x1234 in function`; or why else it is linked.
    pub evidence: String,
    /// How many places make it.
    pub sites: usize,
}

/// A call of the set that no module handles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Number.
    pub nr: u32,
    /// Name.
    pub name: String,
    /// Where the program makes it.
    pub evidence: String,
    /// Whether an object that is neither a C library nor a loader makes it.
    pub by_application: bool,
}

/// What to link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What the program runs on.
    pub guest: Guest,
    /// Why every handler is linked, when it is.
    pub widened: Option<String>,
    /// Modules, what is needed before what needs it.
    pub modules: Vec<PlannedModule>,
    /// Handlers by number.
    pub handlers: Vec<Chosen>,
    /// Calls that answer ENOSYS, by number.
    pub missing: Vec<Missing>,
    /// Symbols of init functions, in calling order.
    pub inits: Vec<String>,
}

/// Features that follow from facts: a call of the list asks for the modules, as far as the catalogue has them.
const FEATURES: &[(&str, &[&str], &[&str])] = &[
    // Sockets alone are no network: the device and the protocols belong to them.
    ("network", &["socket"], &["inet", "virtio_net", "virtio-net"]),
    // A C library opens a few of these files itself and does without them, so that `openat` says nothing. What does more than print is given them.
    ("the files of /dev, /proc and /sys", DOES_MORE_THAN_PRINT, &["devfs", "tty", "procfs", "sysfs"]),
];
/// Calls that no C library makes for a program that only computes and prints.
const DOES_MORE_THAN_PRINT: &[&str] = &[
    "open",
    "openat2",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "execve",
    "wait4",
    "socket",
    "pipe",
    "pipe2",
    "dup",
    "dup2",
    "dup3",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "epoll_create",
    "epoll_create1",
    "epoll_pwait",
    "eventfd2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "link",
    "symlink",
    "chdir",
    "fchdir",
    "chmod",
    "fchmod",
    "umask",
    "ftruncate",
    "pwrite64",
    "readlinkat",
    "faccessat",
    "faccessat2",
    "statfs",
    "statx",
    "getuid",
    "geteuid",
    "nanosleep",
    "clock_nanosleep",
    "kill",
    "memfd_create",
];
/// Modules that every image's devices need, as far as the catalogue has them.
const DEVICES: &[&str] = &["virtio_blk", "virtio-blk"];

/// Chooses modules and handlers.
///
/// # Errors
/// A mistake in the catalogue; not the user's.
pub fn select(facts: &Facts, catalogue: &Catalogue, options: &Options) -> Result<Plan, CatalogueError> {
    let mut handlers = BTreeMap::new();
    let mut missing = Vec::new();
    let mut reasons: BTreeMap<String, BTreeSet<ModuleReason>> = BTreeMap::new();
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut choose = |nr: u32, evidence: String, sites: usize| -> bool {
        let Some((module, h)) = catalogue.handler(nr) else { return false };
        handlers.entry(nr).or_insert_with(|| {
            calls.entry(module.name.clone()).or_default().push(h.name.clone());
            Chosen {
                nr,
                name: h.name.clone(),
                module: module.name.clone(),
                symbol: h.symbol.clone(),
                state: h.state,
                note: h.reason.clone(),
                evidence,
                sites,
            }
        });
        true
    };
    for (&nr, call) in &facts.syscalls {
        let place = telling(facts, &call.sites);
        let evidence = place.map(|p| facts.place(p)).unwrap_or_default();
        if !choose(nr, evidence.clone(), call.sites.len()) {
            missing.push(Missing { nr, name: call.name.clone(), evidence, by_application: place.is_some_and(|p| !is_c_library(facts, p)) });
        }
    }
    for (nr, flag) in &options.calls {
        if !choose(*nr, flag.clone(), 0) {
            let name = libos_abi::syscall::name(*nr as usize).map_or_else(|| format!("syscall_{nr}"), str::to_owned);
            missing.push(Missing { nr: *nr, name, evidence: flag.clone(), by_application: true });
        }
    }
    let widened = facts.unknown.first().map(|p| format!("{}: every handler is linked", facts.place(p)));
    if widened.is_some() {
        for h in catalogue.modules().flat_map(|m| &m.handlers) {
            choose(h.nr, "a call whose number the analysis does not know".to_owned(), 0);
        }
    }
    missing.sort_by_key(|m| m.nr);
    missing.dedup_by_key(|m| m.nr);

    for (module, names) in calls {
        reasons.entry(module).or_default().insert(ModuleReason::Calls(names));
    }
    for m in catalogue.modules().filter(|m| m.always) {
        reasons.entry(m.name.clone()).or_default().insert(ModuleReason::Always);
    }
    let mut feature = |module: &str, why: &str| {
        if let Some(m) = catalogue.module(module) {
            reasons.entry(m.name.clone()).or_default().insert(ModuleReason::Feature(why.to_owned()));
        }
    };
    for module in DEVICES {
        feature(module, "the root file system is a disk");
    }
    for (name, of, modules) in FEATURES {
        let asks = |h: &Chosen| of.contains(&h.name.as_str());
        if handlers.values().any(asks) {
            modules.iter().for_each(|m| feature(m, name));
        }
    }
    for (module, flag) in &options.features {
        feature(module, flag);
    }

    let chosen: Vec<&str> = reasons.keys().map(String::as_str).collect();
    let order = catalogue.in_order(&chosen)?;
    let modules: Vec<PlannedModule> = order
        .iter()
        .map(|m| {
            let mut own: Vec<ModuleReason> = reasons.get(&m.name).into_iter().flatten().cloned().collect();
            let by: Vec<String> = order
                .iter()
                .filter(|o| o.needs.iter().any(|n| catalogue.module(n).is_some_and(|need| need.name == m.name)))
                .map(|o| o.name.clone())
                .collect();
            if !by.is_empty() {
                own.push(ModuleReason::NeededBy(by));
            }
            PlannedModule { name: m.name.clone(), reasons: own }
        })
        .collect();
    let inits = order.iter().filter_map(|m| m.init.clone()).collect();
    Ok(Plan { guest: Guest::LibOs, widened, modules, handlers: handlers.into_values().collect(), missing, inits })
}

/// Returns the place to show for a call: one in the application rather than one in a C library, which has them all.
fn telling<'a>(facts: &Facts, sites: &'a [Place]) -> Option<&'a Place> {
    sites.iter().find(|p| !is_c_library(facts, p)).or(sites.first())
}

fn is_c_library(facts: &Facts, place: &Place) -> bool {
    let path = facts.objects.get(place.object).map_or("", |o| o.path.as_str());
    let name = path.rsplit('/').next().unwrap_or(path);
    ["libc.so", "libc-", "ld-linux", "ld-musl", "libc.musl", "libpthread"].iter().any(|p| name.starts_with(p))
}
