//! Which code of the closure can run: the graphs of the objects, joined by the names that they import and export.
//!
//! The search starts at the program's and the loader's entry and at what each object's data names. An import leads to every object that exports the name:
//! which of several versions or interposers the loader takes does not matter then. Code that looks names up at run time (`dlsym`) reaches the exports
//! whose names stand as texts in its object's data; the loader does so itself.
//!
//! What a rule added to the closure is loaded by somebody at run time: it and what only it needs count from the moment that a function is reached which
//! loads such objects ([`triggers`]), and then with all that they export.

use std::collections::HashMap;

use rayon::prelude::*;
use rustc_hash::FxHashSet;
use ukc_elf::Elf;

use crate::compose::{Member, imports};
use crate::facts::Reason;
use crate::object::{Graph, Summary};

/// Functions that turn a text into a function's address.
const LOOKUPS: [&str; 4] = ["dlsym", "dlvsym", "__libc_dlsym", "g_module_symbol"];

/// Functions that load the services of nsswitch.conf (nss(5)): all that ask for users, groups, hosts, networks, services and the like.
const NAME_SERVICE: [&str; 37] = [
    "getaddrinfo",
    "getaliasbyname",
    "getaliasbyname_r",
    "getaliasent",
    "getaliasent_r",
    "getgrent",
    "getgrent_r",
    "getgrgid",
    "getgrgid_r",
    "getgrnam",
    "getgrnam_r",
    "getgrouplist",
    "gethostbyaddr",
    "gethostbyaddr_r",
    "gethostbyname",
    "gethostbyname2",
    "gethostbyname2_r",
    "gethostbyname_r",
    "gethostent_r",
    "getnameinfo",
    "getnetbyaddr_r",
    "getnetbyname_r",
    "getnetent_r",
    "getnetgrent_r",
    "getprotobyname_r",
    "getprotobynumber_r",
    "getprotoent_r",
    "getpwent_r",
    "getpwnam_r",
    "getpwuid_r",
    "getrpcbyname_r",
    "getrpcbynumber_r",
    "getservbyname_r",
    "getservbyport_r",
    "getspnam_r",
    "initgroups",
    "innetgr",
];

/// Functions of the C library that load the compiler's library for unwinding (pthread_cancel(3), backtrace(3)).
const UNWINDING: [&str; 4] = ["pthread_cancel", "pthread_exit", "backtrace", "thrd_exit"];

/// Functions that load an object by its name.
const LOADING: [&str; 5] = ["dlopen", "dlmopen", "__libc_dlopen_mode", "g_module_open", "lt_dlopen"];

/// Returns the functions one of which must be reached before a rule's object is loaded; none when it always counts.
fn triggers(member: &Member, asker_is_libc: impl Fn(&str) -> bool) -> Option<&'static [&'static str]> {
    let Reason::Plugin(rule, asker) = &member.reason else { return None };
    let name = member.path.rsplit('/').next().unwrap_or_default();
    match rule.as_str() {
        "nss" => Some(&NAME_SERVICE),
        // The C library loads by a way of its own, which no name shows.
        _ if asker_is_libc(asker) && name.starts_with("libgcc_s") => Some(&UNWINDING),
        _ if asker_is_libc(asker) && name.starts_with("libidn") => Some(&NAME_SERVICE),
        _ if asker_is_libc(asker) => None,
        _ => Some(&LOADING),
    }
}

/// What of each object is reached; none where everything counts.
pub struct Reached {
    nodes: Vec<Option<Vec<bool>>>,
    is_loaded: Vec<bool>,
}

impl Reached {
    /// Whether the code at an offset of an object's file can run.
    pub fn is_reached(&self, summaries: &[Summary], object: usize, offset: u64) -> bool {
        if !self.is_loaded[object] {
            return false;
        }
        match (&self.nodes[object], &summaries[object].graph) {
            (Some(nodes), Some(graph)) => graph.node_at(offset).is_none_or(|node| nodes[node as usize]),
            _ => true,
        }
    }
}

/// Searches the closure.
pub fn search(members: &[Member], summaries: &[Summary]) -> Reached {
    let graphs: Vec<Option<&Graph>> = summaries.iter().map(|s| s.graph.as_ref()).collect();
    let mut exporters: HashMap<&str, Vec<(usize, u32)>> = HashMap::new();
    for (i, graph) in graphs.iter().enumerate() {
        for (name, node) in graph.iter().flat_map(|g| &g.exports) {
            exporters.entry(name).or_default().push((i, *node));
        }
    }
    // Texts of objects that may look names up, as far as they are names that are exported.
    let looked_up: Vec<Vec<&str>> = (0..members.len())
        .into_par_iter()
        .map(|i| {
            let imports_lookup = graphs[i].is_none_or(|g| g.names.iter().any(|n| LOOKUPS.contains(&n.as_str())));
            if imports_lookup || is_loader(&members[i]) { texts(&members[i].file.bytes, &exporters) } else { Vec::new() }
        })
        .collect();

    let mut state = State {
        reached: graphs.iter().map(|g| g.map(|g| vec![false; g.edges.len()])).collect(),
        names: FxHashSet::default(),
        todo: Vec::new(),
        exporters: &exporters,
    };
    let mut has_looked_up = vec![false; members.len()];
    let asker_is_libc = |path: &str| members.iter().any(|m| m.path == path && m.file.is_libc());
    let mut is_loaded = vec![false; members.len()];
    let waiting: Vec<Option<&[&str]>> = members.iter().map(|member| triggers(member, asker_is_libc)).collect();
    let mut to_load: Vec<usize> =
        (0..members.len()).filter(|i| waiting[*i].is_none() && !matches!(members[*i].reason, Reason::Needed(_))).collect();
    loop {
        while let Some(i) = to_load.pop() {
            if std::mem::replace(&mut is_loaded[i], true) {
                continue;
            }
            to_load.extend(needed(members, i).filter(|n| !is_loaded[*n]));
            match graphs[i] {
                Some(graph) => state.load(i, graph, &members[i]),
                // All of its code counts, so all that it can name does.
                None => imports(&members[i].file.bytes).iter().for_each(|name| state.import(&String::from_utf8_lossy(name))),
            }
            if is_loader(&members[i]) || graphs[i].is_none() {
                has_looked_up[i] = true;
                looked_up[i].iter().for_each(|name| state.import(name));
            }
        }
        while let Some((i, node)) = state.todo.pop() {
            let Some(graph) = graphs[i] else { continue };
            for &to in &graph.edges[node as usize] {
                state.reach(i, to);
            }
            for &name in &graph.imports[node as usize] {
                let name = graph.names[name as usize].as_str();
                state.import(name);
                if !has_looked_up[i] && LOOKUPS.contains(&name) {
                    has_looked_up[i] = true;
                    looked_up[i].iter().for_each(|name| state.import(name));
                }
            }
        }
        let is_triggered = |names: &[&str]| names.iter().any(|name| state.is_reached(name));
        to_load.extend((0..members.len()).filter(|i| !is_loaded[*i] && waiting[*i].is_some_and(is_triggered)));
        if to_load.is_empty() {
            break;
        }
    }
    Reached { nodes: state.reached, is_loaded }
}

/// Returns the members that an object names as needed, by soname or file name.
fn needed(members: &[Member], of: usize) -> impl Iterator<Item = usize> {
    let wanted = &members[of].file.needed;
    members.iter().enumerate().filter_map(move |(i, member)| {
        let file_name = member.path.rsplit('/').next().unwrap_or_default().as_bytes();
        let has = |name: &[u8]| member.file.soname.as_deref() == Some(name) || file_name == name || name == member.path.as_bytes();
        wanted.iter().any(|name| has(name)).then_some(i)
    })
}

struct State<'a> {
    reached: Vec<Option<Vec<bool>>>,
    /// Names that were imported.
    names: FxHashSet<String>,
    todo: Vec<(usize, u32)>,
    exporters: &'a HashMap<&'a str, Vec<(usize, u32)>>,
}

impl State<'_> {
    fn reach(&mut self, object: usize, node: u32) {
        if let Some(nodes) = &mut self.reached[object]
            && !std::mem::replace(&mut nodes[node as usize], true)
        {
            self.todo.push((object, node));
        }
    }

    fn import(&mut self, name: &str) {
        if self.names.contains(name) {
            return;
        }
        self.names.insert(name.to_owned());
        let exporters = self.exporters;
        for &(object, node) in exporters.get(name).into_iter().flatten() {
            self.reach(object, node);
        }
    }

    /// Whether a function of this name is reached, by name or from inside its object.
    fn is_reached(&self, name: &str) -> bool {
        let is_reached = |(object, node): &(usize, u32)| self.reached[*object].as_ref().is_none_or(|nodes| nodes[*node as usize]);
        self.names.contains(name) || self.exporters.get(name).is_some_and(|all| all.iter().any(is_reached))
    }

    /// Reaches what an object's being loaded reaches.
    fn load(&mut self, i: usize, graph: &Graph, member: &Member) {
        graph.roots.iter().for_each(|root| self.reach(i, *root));
        graph.root_imports.iter().for_each(|name| self.import(&graph.names[*name as usize]));
        // Whatever may be executed starts at its entry; static-pie programs look like libraries otherwise.
        let is_library = matches!(member.reason, Reason::Needed(_) | Reason::Preload | Reason::Hwcaps(_) | Reason::Plugin(..));
        if member.file.is_program || !is_library {
            graph.entry.into_iter().for_each(|entry| self.reach(i, entry));
        }
        if matches!(member.reason, Reason::Plugin(..) | Reason::LibraryDirectory) {
            graph.exports.iter().for_each(|(_, node)| self.reach(i, *node));
        }
    }
}

fn is_loader(member: &Member) -> bool {
    matches!(member.reason, Reason::Loader(_))
}

/// Returns the exported names that stand as texts in the object, outside its own table of names.
fn texts<'e>(bytes: &[u8], exporters: &HashMap<&'e str, Vec<(usize, u32)>>) -> Vec<&'e str> {
    let Ok(elf) = Elf::parse(bytes) else { return Vec::new() };
    let own = elf.dynamic().ok().flatten().map_or((0, 0), |d| d.strtab);
    let own = elf.offset_of(own.0).map_or(0..0, |at| at..at + own.1);
    let mut found: Vec<&str> = Vec::new();
    let mut start = 0;
    for end in bytes.iter().enumerate().filter(|(_, b)| **b == 0).map(|(at, _)| at) {
        let text = &bytes[start..end];
        let is_own = own.contains(&(start as u64));
        start = end + 1;
        if is_own || text.len() < 2 || text.len() > 255 {
            continue;
        }
        if let Some((name, _)) = std::str::from_utf8(text).ok().and_then(|text| exporters.get_key_value(text)) {
            found.push(name);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
