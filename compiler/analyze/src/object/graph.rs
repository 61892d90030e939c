//! Which code of an object leads to which: the part of a summary that tells reached places from others.
//!
//! A *node* is a function with a known range, or the code between two of them that no table covers. Its *edges* are everything its instructions name: a
//! call or jump, an address that is taken (`lea`, a number in objects with fixed addresses), a slot of the GOT, by which it calls its own object's
//! functions or imports others by name. What data names is a *root*: tables of functions, virtual tables and the like are not followed one by one,
//! since on stripped files nothing says which code reads which table. The C library and its loader are the exception: their tables are each named by the
//! code that uses them, so data is split at every address that is named, and the pieces are nodes as well. Functions that nothing names at all are roots,
//! too: a switch may lead to them.
//!
//! Where tables cover little of the code (hand-written assembly, stripped static programs), and in Go programs, whose linker leaves out what is not
//! reached anyway, there is no graph and everything counts.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use ukc_elf::{Dynamic, SymbolKind, r_x86_64};

use super::image::Image;
use super::scan;

/// The graph of an object. Nodes are numbered by address, names by [`Graph::names`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// File offset of each node's first byte, ascending; a node ends where the next begins.
    pub starts: Vec<u64>,
    /// Nodes that each node leads to. Behind the nodes of code stand those of data.
    pub edges: Vec<Vec<u32>>,
    /// Names that each node imports.
    pub imports: Vec<Vec<u32>>,
    /// Nodes that are reached as soon as the object is loaded.
    pub roots: Vec<u32>,
    /// Names that its data imports, likewise.
    pub root_imports: Vec<u32>,
    /// The node that a program or the dynamic loader starts at.
    pub entry: Option<u32>,
    /// Imported names.
    pub names: Vec<String>,
    /// Exported functions, and data where it is split, with their nodes, by name.
    pub exports: Vec<(String, u32)>,
}

/// What a slot of the GOT leads to: whatever has the name, and the object's own definition if it has one, which another object may replace.
#[derive(Clone, Copy)]
struct Got {
    name: u32,
    own: Option<u32>,
}

struct Builder<'a, 'd> {
    image: &'a Image<'d>,
    /// First address of each node.
    starts: Vec<u64>,
    /// One past the last.
    ends: Vec<u64>,
    out: Graph,
    names: FxHashMap<&'d [u8], u32>,
    /// Words of the GOT.
    slots: FxHashMap<u64, Got>,
    /// PLT stubs and their slots.
    stubs: FxHashMap<u64, u64>,
    /// Nodes that something names.
    named: Vec<bool>,
    /// Where data is split, ascending; empty when it is not.
    pieces: Vec<u64>,
}

/// Objects whose data is split, by soname.
const SPLIT: [&[u8]; 2] = [b"libc.so.6", b"ld-linux-x86-64.so.2"];

/// Tables that the loader walks, by section: what they name is a root however data is split.
const WALKED: [&[u8]; 3] = [b".preinit_array", b".init_array", b".fini_array"];

/// In a small object the PLT and what every object begins and ends with are much of the code, and in no table.
const SMALL: u64 = 512;

fn bytes_without_a_table(image: &Image<'_>) -> u64 {
    let covered: u64 = image.functions.iter().map(|f| f.end - f.start).sum();
    let total: u64 = image.code.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    total.saturating_sub(covered)
}

/// Returns the graph, or none where everything counts.
pub fn build(image: &Image<'_>, dynamic: Option<&Dynamic<'_>>) -> Option<Graph> {
    if image.is_go || !(image.is_covered || bytes_without_a_table(image) <= SMALL) {
        return None;
    }
    let mut b = Builder {
        image,
        starts: vec![],
        ends: vec![],
        out: Graph::default(),
        names: FxHashMap::default(),
        slots: FxHashMap::default(),
        stubs: FxHashMap::default(),
        named: vec![],
        pieces: vec![],
    };
    b.nodes();
    let count = b.starts.len();
    if image.soname.is_some_and(|name| SPLIT.contains(&name)) && image.elf.section(WALKED[1]).is_some() {
        b.split(dynamic);
    }
    let all = count + b.pieces.len();
    b.out.edges = vec![vec![]; all];
    b.out.imports = vec![vec![]; all];
    b.named = vec![false; all];
    b.data(dynamic);
    for node in 0..count {
        b.code(node);
    }
    b.finish(dynamic)
}

impl<'d> Builder<'_, 'd> {
    /// Functions, and the gaps between them.
    fn nodes(&mut self) {
        let mut ranges: Vec<(u64, u64)> = self.image.functions.iter().map(|f| (f.start, f.end)).collect();
        for (at, bytes) in &self.image.code {
            let end = at + bytes.len() as u64;
            let mut from = *at;
            for f in self.image.functions.iter().filter(|f| f.start >= *at && f.start < end) {
                if from < f.start {
                    ranges.push((from, f.start));
                }
                from = from.max(f.end);
            }
            if from < end {
                ranges.push((from, end));
            }
        }
        ranges.sort_unstable();
        (self.starts, self.ends) = ranges.into_iter().unzip();
    }

    fn node_at(&self, vaddr: u64) -> Option<u32> {
        let i = self.starts.partition_point(|s| *s <= vaddr).checked_sub(1)?;
        (vaddr < self.ends[i]).then_some(i as u32)
    }

    fn name(&mut self, name: &'d [u8]) -> u32 {
        let names = &mut self.out.names;
        *self.names.entry(name).or_insert_with(|| {
            names.push(String::from_utf8_lossy(name).into_owned());
            names.len() as u32 - 1
        })
    }

    /// Splits data at every address that code or a pointer in data names.
    fn split(&mut self, dynamic: Option<&Dynamic<'d>>) {
        let mut found = Vec::new();
        self.image.elf.relocations(dynamic, &mut |r| {
            if r.kind == r_x86_64::RELATIVE {
                found.push(r.addend as u64);
            }
        });
        let mut ins = Instruction::default();
        for (at, bytes) in &self.image.code {
            let mut decoder = Decoder::with_ip(64, bytes, *at, DecoderOptions::NONE);
            while decoder.can_decode() {
                decoder.decode_out(&mut ins);
                if ins.is_ip_rel_memory_operand() {
                    found.push(ins.ip_rel_memory_address());
                }
            }
        }
        found.extend(self.image.dynsym.iter().filter(|s| s.is_defined).map(|s| s.value));
        found.retain(|address| self.node_at(*address).is_none());
        found.sort_unstable();
        found.dedup();
        self.pieces = found;
    }

    /// Returns the node of the piece of data that holds an address; none when data is not split there.
    fn piece_at(&self, vaddr: u64) -> Option<u32> {
        let i = self.pieces.partition_point(|p| *p <= vaddr).checked_sub(1)?;
        Some((self.starts.len() + i) as u32)
    }

    /// Whether the loader itself walks the table that holds the word.
    fn is_walked(&self, vaddr: u64) -> bool {
        let holds = |name: &&[u8]| self.image.elf.section(name).is_some_and(|s| (s.vaddr..s.vaddr + s.size).contains(&vaddr));
        WALKED.iter().any(holds)
    }

    /// Notes that a word of data holds the address of code or of other data.
    fn pointer(&mut self, word: u64, target: u64) {
        let to = self.node_at(target).or_else(|| self.piece_at(target));
        match self.piece_at(word).filter(|_| !self.is_walked(word)) {
            Some(from) => to.into_iter().for_each(|to| self.edge(from as usize, to)),
            None => self.root(target),
        }
    }

    fn root(&mut self, vaddr: u64) {
        if let Some(node) = self.node_at(vaddr) {
            self.named[node as usize] = true;
            self.out.roots.push(node);
        }
    }

    /// What relocation puts into data: words of the GOT wait for code that uses them, all others are roots.
    fn data(&mut self, dynamic: Option<&Dynamic<'d>>) {
        let image = self.image;
        let mut found = Vec::new();
        image.elf.relocations(dynamic, &mut |r| found.push(r));
        for r in found {
            let symbol = image.dynsym.get(r.symbol as usize).copied();
            match r.kind {
                r_x86_64::RELATIVE => self.pointer(r.vaddr, r.addend as u64),
                r_x86_64::IRELATIVE => self.root(r.addend as u64),
                r_x86_64::GLOB_DAT | r_x86_64::JUMP_SLOT => {
                    let Some(symbol) = symbol.filter(|s| !s.name.is_empty()) else { continue };
                    let own = self.node_at(symbol.value).filter(|_| symbol.is_defined);
                    let got = Got { name: self.name(symbol.name), own };
                    self.slots.insert(r.vaddr, got);
                }
                r_x86_64::R64 => {
                    let Some(symbol) = symbol.filter(|s| !s.name.is_empty()) else { continue };
                    if symbol.is_defined {
                        self.pointer(r.vaddr, symbol.value.wrapping_add(r.addend as u64));
                    }
                    let name = self.name(symbol.name);
                    match self.piece_at(r.vaddr) {
                        Some(piece) => self.out.imports[piece as usize].push(name),
                        None => self.out.root_imports.push(name),
                    }
                }
                // A program's own copy of a library's data, which points to what the library's does.
                r_x86_64::COPY => {
                    if let Some(symbol) = symbol.filter(|s| !s.name.is_empty()) {
                        let name = self.name(symbol.name);
                        self.out.root_imports.push(name);
                    }
                }
                _ => {}
            }
        }
        if image.has_fixed_addresses() {
            let starts: FxHashSet<u64> = self.starts.iter().copied().collect();
            for (_, target) in image.data_words(&starts) {
                self.root(target);
            }
        }
        let slots: FxHashSet<u64> = self.slots.keys().copied().collect();
        self.stubs = scan::stubs(image, &slots).into_iter().collect();
    }

    /// Adds what the instructions of a node name.
    fn code(&mut self, node: usize) {
        let (start, end) = (self.starts[node], self.ends[node]);
        let Some(bytes) = self.image.code_from(start) else { return };
        let bytes = &bytes[..bytes.len().min((end - start) as usize)];
        let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
        let mut ins = Instruction::default();
        let is_fixed = self.image.has_fixed_addresses();
        let mut runs_on = false;
        // Stubs of a PLT stand in one node; each is resolved where it is called.
        while decoder.can_decode() {
            decoder.decode_out(&mut ins);
            if ins.is_invalid() {
                continue;
            }
            if self.stubs.contains_key(&ins.ip()) {
                skip_stub(&mut decoder, &mut ins);
                runs_on = false;
                continue;
            }
            for operand in 0..ins.op_count() {
                match ins.op_kind(operand) {
                    OpKind::NearBranch64 => self.reference(node, ins.near_branch_target()),
                    OpKind::Memory if ins.is_ip_rel_memory_operand() => self.reference(node, ins.ip_rel_memory_address()),
                    OpKind::Memory if is_fixed && ins.memory_displacement64() != 0 => self.reference(node, ins.memory_displacement64()),
                    OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64 if is_fixed => {
                        self.reference(node, ins.immediate(operand));
                    }
                    _ => {}
                }
            }
            runs_on = match ins.flow_control() {
                FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return | FlowControl::Exception => false,
                // A call at the end of a function does not return.
                FlowControl::Call | FlowControl::IndirectCall => ins.mnemonic() == Mnemonic::Syscall,
                _ => !matches!(ins.mnemonic(), Mnemonic::Nop | Mnemonic::Int3) && (runs_on || !matches!(ins.mnemonic(), Mnemonic::Xchg)),
            };
        }
        if runs_on && self.starts.get(node + 1) == Some(&end) {
            self.edge(node, node as u32 + 1);
        }
    }

    fn edge(&mut self, from: usize, to: u32) {
        if from as u32 != to {
            self.named[to as usize] = true;
            self.out.edges[from].push(to);
        }
    }

    fn reference(&mut self, node: usize, target: u64) {
        let slot = self.stubs.get(&target).copied().unwrap_or(target);
        if let Some(got) = self.slots.get(&slot).copied() {
            got.own.into_iter().for_each(|to| self.edge(node, to));
            self.out.imports[node].push(got.name);
        } else if let Some(to) = self.node_at(target).or_else(|| self.piece_at(target)) {
            self.edge(node, to);
        }
    }

    fn finish(mut self, dynamic: Option<&Dynamic<'_>>) -> Option<Graph> {
        let image = self.image;
        for address in dynamic.iter().flat_map(|d| [d.init, d.fini]).filter(|a| *a != 0) {
            self.root(address);
        }
        for symbol in &image.dynsym {
            let is_function = matches!(symbol.kind, SymbolKind::Function | SymbolKind::IndirectFunction);
            if symbol.is_defined
                && !symbol.name.is_empty()
                && let Some(node) = match self.node_at(symbol.value) {
                    Some(node) => Some(node).filter(|_| is_function || symbol.kind != SymbolKind::Data),
                    // Data of the object that others use by name.
                    None => self.piece_at(symbol.value),
                }
            {
                self.named[node as usize] = true;
                self.out.exports.push((String::from_utf8_lossy(symbol.name).into_owned(), node));
            }
        }
        self.out.entry = self.node_at(image.elf.entry()).filter(|_| image.elf.entry() != 0);
        if let Some(entry) = self.out.entry {
            self.named[entry as usize] = true;
        }
        // Padding and stubs are named by nothing, too, and lead nowhere.
        let orphans = (0..self.starts.len()).filter(|n| !self.named[*n]).map(|n| n as u32);
        self.out.roots.extend(orphans);
        for list in self.out.edges.iter_mut().chain(&mut self.out.imports).chain([&mut self.out.roots, &mut self.out.root_imports]) {
            list.sort_unstable();
            list.dedup();
        }
        // A node in no segment of the file cannot hold code.
        self.out.starts = self.starts.iter().map(|s| image.elf.offset_of(*s)).collect::<Option<Vec<u64>>>()?;
        self.out.starts.is_sorted().then_some(self.out)
    }
}

/// Goes past the jump that ends a stub.
fn skip_stub(decoder: &mut Decoder<'_>, ins: &mut Instruction) {
    while ins.flow_control() != FlowControl::IndirectBranch && decoder.can_decode() {
        decoder.decode_out(ins);
    }
}

impl Graph {
    /// Returns the node that holds a file offset.
    pub fn node_at(&self, offset: u64) -> Option<u32> {
        self.starts.partition_point(|s| *s <= offset).checked_sub(1).map(|i| i as u32)
    }
}
