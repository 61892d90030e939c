//! From an object's kernel entries to numbers: local data flow first, then upwards through wrappers.

use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use ukc_elf::{Elf, ElfError};

use super::flow::{self, Event, Wants};
use super::image::{IMPORT, Image, Known, Region};
use super::machine::RDI;
use super::value::{Param, Value, Why};
use super::{Site, Summary, Unknown, Wrapper, graph, patterns, scan, sweep};

/// Numbers from here on are no system calls (the table of x86-64 ends below 512; x32's bit is answered with ENOSYS).
const END_OF_NUMBERS: u64 = 512;
/// How many levels of wrappers are followed.
const MAX_DEPTH: u32 = 12;
/// Up to this much code, all indirect calls of an object count as callers of a wrapper whose address lies in a table.
const SMALL_OBJECT: u64 = 512 << 10;

/// A wrapper whose callers are wanted: a function (or [`IMPORT`] pseudo address) and the parameter that holds the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Wanted {
    function: u64,
    param: Param,
}

/// What each wanted wrapper would get at one call.
type Arguments = Vec<(Wanted, Value)>;

struct Resolver<'a, 'd> {
    image: &'a Image<'d>,
    out: Summary,
    /// Pieces of gaps, by the gap's start.
    gaps: FxHashMap<u64, Vec<Region>>,
    numbers: FxHashMap<(u64, Option<String>), BTreeSet<u32>>,
    unknown: FxHashMap<u64, String>,
    dropped: FxHashMap<u64, String>,
    wanted: Vec<(Wanted, u64)>,
}

/// Summarises an object. `wrappers` names imported functions whose first parameter (or the given one) is a system call number.
///
/// # Errors
/// When the file is not an ELF file of this architecture.
pub fn summarize(bytes: &[u8], wrappers: &[(String, u8)]) -> Result<Summary, ElfError> {
    let elf = Elf::parse(bytes)?;
    let dynamic = elf.dynamic()?;
    let image = Image::new(&elf, dynamic.as_ref());
    let code_bytes = image.code.iter().map(|(_, b)| b.len() as u64).sum();
    let mut r = Resolver {
        image: &image,
        out: Summary { code_bytes, ..Summary::default() },
        gaps: FxHashMap::default(),
        numbers: FxHashMap::default(),
        unknown: FxHashMap::default(),
        dropped: FxHashMap::default(),
        wanted: Vec::new(),
    };
    if wrappers.is_empty() {
        r.out.graph = graph::build(&image, dynamic.as_ref());
    }
    r.direct_sites();
    let mut imported: Vec<(Wanted, u64)> = Vec::new();
    for (i, s) in image.dynsym.iter().enumerate().filter(|(_, s)| !s.is_defined && !s.name.is_empty()) {
        let param = if s.name == b"syscall" { Some(RDI) } else { None };
        let param = param.or_else(|| wrappers.iter().find(|(n, _)| n.as_bytes() == s.name).map(|w| w.1));
        imported.extend(param.map(|param| (Wanted { function: IMPORT + i as u64, param }, u64::MAX)));
    }
    r.wanted.extend(imported);
    r.climb();
    Ok(r.finish())
}

impl Resolver<'_, '_> {
    /// Returns the regions to analyse for an address: the function that holds it, or the pieces of the gap that hold or precede it.
    fn region_at(&mut self, at: u64) -> Option<Region> {
        if let Some(f) = self.image.function_at(at) {
            return Some(f);
        }
        let gap = self.image.gap_at(at)?;
        if let Some(f) = gap.start.checked_sub(1).and_then(|a| self.image.function_at(a)).filter(|f| self.image.runs_out(*f)) {
            return Some(Region { end: gap.end, ..f });
        }
        let pieces = self.gaps.entry(gap.start).or_insert_with(|| sweep::pieces(self.image, gap));
        let i = pieces.partition_point(|p| p.start <= at).checked_sub(1)?;
        Some(pieces[i])
    }

    fn offset(&self, at: u64) -> u64 {
        self.image.elf.offset_of(at).unwrap_or(at)
    }

    fn found(&mut self, at: u64, via: Option<&str>, value: &Value) {
        let numbers = value.consts().iter().map(|c| c & 0xffff_ffff).filter(|&c| c < END_OF_NUMBERS).map(|c| c as u32);
        self.numbers.entry((at, via.map(str::to_owned))).or_default().extend(numbers);
    }

    /// Finds the number at every kernel entry of the object's own code.
    fn direct_sites(&mut self) {
        let candidates = scan::kernel_entries(self.image);
        let mut regions: Vec<Region> = Vec::new();
        let mut outside = Vec::new();
        for &at in &candidates {
            match self.region_at(at) {
                Some(r) => {
                    if regions.last() != Some(&r) && !regions.contains(&r) {
                        regions.push(r);
                    }
                }
                None => outside.push(at),
            }
        }
        let mut seen = FxHashSet::default();
        for region in regions {
            let mut events: Vec<(u64, u64, Value, Option<patterns::Pattern>)> = Vec::new();
            let mut legacy = Vec::new();
            let image = self.image;
            flow::run(image, region, Wants::Entries, &mut |root, event| match event {
                Event::Syscall { at, number, before } => {
                    let pattern = number.unknown().and_then(|_| patterns::recognise(image, at, before));
                    events.push((root, at, number, pattern));
                }
                Event::Legacy { at } => legacy.push(at),
                Event::Call { .. } => {}
            });
            for (root, at, number, pattern) in events {
                seen.insert(at);
                self.found(at, None, &number);
                for param in number.params() {
                    self.wanted.push((Wanted { function: root, param }, at));
                }
                match (number.unknown(), pattern) {
                    (Some(_), Some(p)) => {
                        let set = self.numbers.entry((at, Some(p.name.to_owned()))).or_default();
                        set.extend(p.numbers);
                    }
                    (Some(why), None) => {
                        self.unknown.insert(at, describe(why).to_owned());
                    }
                    (None, _) => {}
                }
            }
            for at in legacy {
                seen.insert(at);
                // A legacy entry in a gap of covered code is data more often than not, but nothing is lost by naming it.
                let note = self.note(at, "a system call in the 32-bit numbering");
                self.out.legacy.push(note);
            }
        }
        for at in candidates.into_iter().filter(|at| !seen.contains(at)) {
            // Inside a known function the bytes are part of another instruction. In a gap they may be data: worth a line.
            if self.image.function_at(at).is_none() && self.image.code_from(at).is_some_and(|c| c.starts_with(&[0x0f, 0x05])) {
                self.dropped.insert(at, "outside every function, and nothing leads there".to_owned());
            }
        }
        let _ = outside;
    }

    fn note(&self, at: u64, reason: &str) -> Unknown {
        Unknown { offset: self.offset(at), function: self.image.name_at(at), reason: reason.to_owned() }
    }

    /// Follows wrappers to their callers until nothing is wanted any more.
    fn climb(&mut self) {
        let mut done: FxHashSet<Wanted> = FxHashSet::default();
        let mut todo = std::mem::take(&mut self.wanted);
        for depth in 0.. {
            todo.retain(|(w, _)| done.insert(*w));
            if todo.is_empty() {
                break;
            }
            if depth == MAX_DEPTH {
                for (w, origin) in todo {
                    let at = if origin == u64::MAX { w.function } else { origin };
                    self.unknown.insert(at, "more wrappers around wrappers than the analysis follows".to_owned());
                }
                break;
            }
            todo = self.level(&todo);
        }
    }

    /// Finds all callers of the wanted functions; returns what is wanted next.
    fn level(&mut self, wanted: &[(Wanted, u64)]) -> Vec<(Wanted, u64)> {
        let image = self.image;
        // Everything that names a wanted function: its address, GOT slots that hold it, stubs that jump through those, pointers to it in data.
        let functions: FxHashSet<u64> = wanted.iter().map(|(w, _)| w.function).collect();
        let mut names: FxHashMap<u64, u64> = functions.iter().filter(|f| **f < IMPORT).map(|&f| (f, f)).collect();
        let words = image.data_words(&functions);
        let slots: FxHashSet<u64> = words.iter().map(|w| w.0).collect();
        let by_slot: FxHashMap<u64, u64> = words.iter().copied().collect();
        names.extend(&by_slot);
        let stubs = scan::stubs(image, &slots);
        let mut aliases: FxHashMap<u64, u64> = FxHashMap::default();
        for (stub, slot) in &stubs {
            names.insert(*stub, by_slot[slot]);
            aliases.insert(*stub, by_slot[slot]);
        }
        let references = scan::references(image, &names.keys().copied().collect());
        let mut used: FxHashSet<u64> = FxHashSet::default();
        let mut regions: BTreeSet<(u64, u64)> = BTreeSet::new();
        let mut gap_regions: BTreeSet<(u64, u64)> = BTreeSet::new();
        for &(at, name) in &references {
            if let Some(r) = self.region_at(at)
                && !stubs.iter().any(|(s, _)| at > *s && at - *s <= 7)
            {
                used.insert(name);
                if r.known == Known::Gap { &mut gap_regions } else { &mut regions }.insert((r.start, r.end));
            }
        }
        // A piece of a gap may run into the next one.
        for &function in functions.iter().filter(|f| **f < IMPORT && self.image.function_at(**f).is_none()) {
            if let Some(r) = self.region_at(function.wrapping_sub(1)).filter(|r| r.known == Known::Gap && r.end == function) {
                gap_regions.insert((r.start, r.end));
            }
        }
        let resolve = |target: u64| if functions.contains(&target) { Some(target) } else { aliases.get(&target).copied() };

        let mut next = Vec::new();
        let mut called: FxHashSet<u64> = FxHashSet::default();
        let mut indirect: Vec<(u64, u64, Arguments)> = Vec::new();
        let mut direct: Vec<(u64, u64, Wanted, Value)> = Vec::new();
        let all = regions.iter().map(|r| (r, Known::Range)).chain(gap_regions.iter().map(|r| (r, Known::Gap)));
        for (&(start, end), known) in all {
            let region = Region { start, end, known };
            flow::run(image, region, Wants::Calls, &mut |root, event| {
                let Event::Call { at, target, state, pushed, is_indirect } = event else { return };
                // A PLT stub is no caller: those who call the stub are.
                if aliases.contains_key(&at) {
                    return;
                }
                let hits: Vec<u64> = target.consts().iter().filter_map(|&t| resolve(t)).collect();
                for &function in &hits {
                    called.insert(start);
                    for (w, _) in wanted.iter().filter(|(w, _)| w.function == function) {
                        direct.push((root, at, *w, state.argument(w.param, pushed)));
                    }
                }
                if is_indirect && hits.is_empty() && !target.is_constant() {
                    let values = wanted.iter().map(|(w, _)| (*w, state.argument(w.param, pushed))).collect();
                    indirect.push((start, at, values));
                }
            });
        }
        for (root, at, w, value) in direct {
            self.caller(root, at, &w, &value, &mut next);
        }
        // Functions that only take an address: their indirect calls are the callers.
        let takers: FxHashSet<u64> = regions.iter().chain(&gap_regions).map(|r| r.0).filter(|r| !called.contains(r)).collect();
        for (start, at, values) in indirect.iter().filter(|(start, ..)| takers.contains(start)) {
            for (w, value) in values {
                // Only wrappers that this function names.
                if references.iter().any(|&(r, n)| names[&n] == w.function && self.image.function_at(r).is_some_and(|f| f.start == *start))
                {
                    self.found(*at, self.wrapper_name(w).as_deref(), value);
                }
            }
        }
        self.tables(wanted, &words, &used, &aliases);
        // A function that nothing names is not called, unless other objects can name it.
        for (w, origin) in wanted {
            let is_named = names.iter().any(|(n, f)| *f == w.function && (used.contains(n) || slots.contains(n)));
            let exported = self.export(w);
            if !is_named && !exported && w.function < IMPORT && w.function != image.elf.entry() {
                self.dropped.insert(*origin, "the number is a parameter of a function that nothing calls".to_owned());
            }
        }
        next
    }

    /// Takes the value of a wrapper's parameter at one caller.
    fn caller(&mut self, root: u64, at: u64, w: &Wanted, value: &Value, next: &mut Vec<(Wanted, u64)>) {
        self.found(at, self.wrapper_name(w).as_deref(), value);
        for param in value.params() {
            next.push((Wanted { function: root, param }, at));
        }
        if let Some(why) = value.unknown() {
            if let Some(p) = patterns::recognise(self.image, at, &[]) {
                self.numbers.entry((at, Some(p.name.to_owned()))).or_default().extend(p.numbers);
                return;
            }
            let name = self.wrapper_name(w).map_or(String::new(), |n| format!("passed to `{n}`: "));
            self.unknown.insert(at, format!("{name}{}", describe(why)));
        }
    }

    fn wrapper_name(&self, w: &Wanted) -> Option<String> {
        match self.image.import_name(w.function) {
            Some(name) => Some(String::from_utf8_lossy(name).into_owned()),
            None => self.image.name_at(w.function).or_else(|| Some(format!("sub_{:x}", w.function))),
        }
    }

    /// Wrappers whose address lies in a data table (libcap's `struct syscaller_s`): in a small object every indirect call with a constant there may be the
    /// call; in a large one nothing can be said. A GOT slot that code uses by name is no table.
    fn tables(&mut self, wanted: &[(Wanted, u64)], words: &[(u64, u64)], used: &FxHashSet<u64>, aliases: &FxHashMap<u64, u64>) {
        let image = self.image;
        let in_table: FxHashSet<u64> = words
            .iter()
            .filter(|(slot, f)| !used.contains(slot) && !aliases.values().any(|a| a == f && *f >= IMPORT))
            .map(|(_, f)| *f)
            .collect();
        let wanted: Vec<&(Wanted, u64)> = wanted.iter().filter(|(w, _)| in_table.contains(&w.function)).collect();
        if wanted.is_empty() {
            return;
        }
        if self.out.code_bytes > SMALL_OBJECT {
            for (w, origin) in wanted {
                let at = if *origin == u64::MAX { image.elf.entry() } else { *origin };
                let name = self.wrapper_name(w).unwrap_or_default();
                self.unknown.insert(at, format!("the address of the wrapper `{name}` is in a table"));
            }
            return;
        }
        let functions = image.functions.clone();
        for region in functions {
            let mut calls = Vec::new();
            flow::run(image, region, Wants::Calls, &mut |_, event| {
                if let Event::Call { at, target, state, pushed, is_indirect: true } = event
                    && !target.is_constant()
                {
                    calls.extend(wanted.iter().map(|(w, _)| (at, *w, state.argument(w.param, pushed))));
                }
            });
            for (at, w, value) in calls {
                self.found(at, self.wrapper_name(&w).as_deref(), &value);
            }
        }
    }

    /// Records a wrapper that other objects can call; returns whether it is one.
    fn export(&mut self, w: &Wanted) -> bool {
        let names: Vec<String> = self
            .image
            .dynsym
            .iter()
            .filter(|s| s.is_defined && s.is_global && s.value == w.function && !s.name.is_empty())
            .map(|s| String::from_utf8_lossy(s.name).into_owned())
            .collect();
        if names.is_empty() {
            return false;
        }
        self.out.wrappers.push(Wrapper { names, param: w.param });
        true
    }

    fn finish(mut self) -> Summary {
        let numbers = std::mem::take(&mut self.numbers);
        // A way that only dead code takes says nothing against the ways that were found.
        self.dropped.retain(|at, _| !numbers.iter().any(|((a, _), n)| a == at && !n.is_empty()));
        let mut sites: Vec<Site> = numbers
            .into_iter()
            .filter(|(_, numbers)| !numbers.is_empty())
            .map(|((at, via), numbers)| Site {
                offset: self.offset(at),
                function: self.image.name_at(at),
                via,
                numbers: numbers.into_iter().collect(),
            })
            .collect();
        sites.sort();
        let notes = |map: FxHashMap<u64, String>, this: &Self| {
            let mut out: Vec<Unknown> = map.into_iter().map(|(at, reason)| this.note(at, &reason)).collect();
            out.sort();
            out
        };
        let (unknown, dropped) = (std::mem::take(&mut self.unknown), std::mem::take(&mut self.dropped));
        self.out.unknown = notes(unknown, &self);
        self.out.dropped = notes(dropped, &self);
        self.out.sites = sites;
        self.out.legacy.sort();
        self.out.wrappers.sort();
        self.out.wrappers.dedup();
        self.out
    }
}

fn describe(why: Why) -> &'static str {
    match why {
        Why::Memory => "the number comes from memory",
        Why::Result => "the number comes from another call",
        Why::Many => "the number is one of too many",
        Why::Computed => "the number is computed",
    }
}
