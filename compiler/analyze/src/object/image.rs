//! An object as the analysis sees it: its code, its functions, and what its memory holds after relocation.

use std::cell::RefCell;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess};
use rustc_hash::{FxHashMap, FxHashSet};
use ukc_elf::{Dynamic, Elf, ElfType, Symbol, SymbolKind, r_x86_64};

/// Pseudo address of the n-th imported function: non-canonical, so that no program's constant equals it.
pub const IMPORT: u64 = 0x7e00_0000_0000_0000;
/// Pseudo value of `rsp` at function entry.
pub const STACK: u64 = 0x7f00_0000_0000_0000;

/// What a pointer-sized word holds after relocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The address of an imported symbol: [`IMPORT`] + this.
    Import(u32),
    /// An address in this object.
    Address(u64),
    /// What an IFUNC resolver returns.
    Resolved,
}

/// How a function's range became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// `.eh_frame`, a symbol with a size, or Go's function table.
    Range,
    /// Code that no table covers; see `sweep`.
    Gap,
}

/// A half-open range of code that is analysed as one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// How it became known.
    pub known: Known,
}

/// The view of one object.
pub struct Image<'d> {
    /// The file.
    pub elf: &'d Elf<'d>,
    /// `DT_SONAME`.
    pub soname: Option<&'d [u8]>,
    /// Executable segments: address and bytes, ascending.
    pub code: Vec<(u64, &'d [u8])>,
    /// Functions with a known range, ascending, not overlapping.
    pub functions: Vec<Region>,
    /// Words that relocation changes.
    pub slots: FxHashMap<u64, Slot>,
    /// Names of imported symbols, by the number in [`Slot::Import`] (index in `.dynsym`).
    pub dynsym: Vec<Symbol<'d>>,
    /// Functions by address, for names: start, size, name.
    names: Vec<(u64, u64, &'d [u8])>,
    /// Symbols without a size that may start a function.
    pub labels: Vec<u64>,
    /// Whether this is a Go program.
    pub is_go: bool,
    /// What small functions leave alone, see [`Image::untouched_by`].
    untouched: RefCell<FxHashMap<u64, u16>>,
    /// Which functions return, as far as asked for; see `flow`.
    pub returns: RefCell<FxHashMap<u64, bool>>,
    /// Whether tables cover most of the code, so that what they leave out is suspect.
    pub is_covered: bool,
}

impl<'d> Image<'d> {
    /// Builds the view.
    pub fn new(elf: &'d Elf<'d>, dynamic: Option<&Dynamic<'d>>) -> Image<'d> {
        let mut code: Vec<_> =
            elf.segments().iter().filter(|s| s.is_load() && s.is_executable()).map(|s| (s.vaddr, elf.segment_bytes(s))).collect();
        // Some linkers put read-only data into the executable segment, too. Where section headers tell code from data, only code is looked at.
        let sections: Vec<_> = elf
            .sections()
            .iter()
            .filter(|s| s.flags & 6 == 6 && elf.segment_at(s.vaddr).is_some_and(|g| g.is_executable()))
            .filter_map(|s| Some((s.vaddr, elf.section_bytes(s)?)))
            .collect();
        if !sections.is_empty() {
            code = sections;
        }
        code.sort_by_key(|c| c.0);
        let dynsym = dynamic.map(|d| elf.dynamic_symbols(d)).unwrap_or_default();
        let symtab = elf.symbols();
        let go = elf.go_functions();

        let mut slots = FxHashMap::default();
        elf.relocations(dynamic, &mut |r| {
            let slot = match r.kind {
                r_x86_64::RELATIVE => Slot::Address(r.addend as u64),
                r_x86_64::IRELATIVE => Slot::Resolved,
                r_x86_64::R64 | r_x86_64::GLOB_DAT | r_x86_64::JUMP_SLOT => match dynsym.get(r.symbol as usize) {
                    // A symbol of our own may be interposed, but then its definition is summarised where it is.
                    Some(s) if s.is_defined && s.kind != SymbolKind::IndirectFunction => {
                        Slot::Address(s.value.wrapping_add(r.addend as u64))
                    }
                    Some(s) if s.is_defined => Slot::Resolved,
                    Some(_) => Slot::Import(r.symbol),
                    None => return,
                },
                _ => return,
            };
            slots.insert(r.vaddr, slot);
        });

        let mut names: Vec<(u64, u64, &[u8])> = go.iter().map(|f| (f.start, f.end - f.start, f.name)).collect();
        let mut labels = Vec::new();
        let mut sized = Vec::new();
        for s in symtab.iter().chain(&dynsym).filter(|s| s.is_defined) {
            let is_function = matches!(s.kind, SymbolKind::Function | SymbolKind::IndirectFunction);
            if is_function && !s.name.is_empty() {
                names.push((s.value, s.size, s.name));
            }
            if is_function && s.size > 0 {
                sized.push((s.value, s.size));
            } else if s.kind != SymbolKind::Data {
                labels.push(s.value);
            }
        }
        // Among several names of one address the longest function and then the name with the fewest underscores in front is the telling one.
        names.sort_by_key(|&(start, size, name)| (start, std::cmp::Reverse(size), name.iter().take_while(|&&b| b == b'_').count(), name));
        names.dedup_by_key(|n| n.0);
        labels.sort_unstable();
        labels.dedup();

        let mut ranges: Vec<(u64, u64, bool)> =
            elf.fdes().iter().map(|f| (f.start + u64::from(f.is_signal_frame), f.start.saturating_add(f.len), true)).collect();
        ranges.extend(go.iter().map(|f| (f.start, f.end, true)));
        ranges.extend(sized.iter().map(|&(start, size)| (start, start.saturating_add(size), false)));
        let mut image = Image {
            elf,
            soname: dynamic.and_then(|d| d.soname),
            code,
            functions: Vec::new(),
            slots,
            dynsym,
            names,
            labels,
            is_go: !go.is_empty() || elf.section(b".note.go.buildid").is_some(),
            untouched: RefCell::default(),
            returns: RefCell::default(),
            is_covered: false,
        };
        image.functions = image.tidy(ranges);
        let covered: u64 = image.functions.iter().map(|f| f.end - f.start).sum();
        let total: u64 = image.code.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        // Padding between functions and the PLT are never covered.
        image.is_covered = covered * 10 >= total * 8;
        image
    }

    /// Sorts ranges, gives each byte to one of them, and drops what is not code. Tables win over symbols.
    fn tidy(&self, mut ranges: Vec<(u64, u64, bool)>) -> Vec<Region> {
        ranges.retain(|&(start, end, _)| {
            start < end && self.code.iter().any(|(at, bytes)| start >= *at && end <= at.saturating_add(bytes.len() as u64))
        });
        ranges.sort_by_key(|&(start, end, table)| (start, !table, std::cmp::Reverse(end)));
        let mut out: Vec<Region> = Vec::with_capacity(ranges.len());
        let mut last_is_table = false;
        for (start, end, table) in ranges {
            if let Some(last) = out.last_mut() {
                if start == last.start {
                    continue;
                }
                if start < last.end {
                    // A symbol inside an FDE is an alias or a label; an FDE inside a symbol splits it.
                    if !table || last_is_table && end <= last.end {
                        continue;
                    }
                    last.end = start;
                }
            }
            out.push(Region { start, end, known: Known::Range });
            last_is_table = table;
        }
        out
    }

    /// Returns the bytes from `vaddr` to the end of its executable segment.
    pub fn code_from(&self, vaddr: u64) -> Option<&'d [u8]> {
        let (at, bytes) = self.code.iter().find(|(at, bytes)| vaddr.checked_sub(*at).is_some_and(|d| d < bytes.len() as u64))?;
        bytes.get((vaddr - at) as usize..)
    }

    /// Returns the function with a known range that holds `vaddr`.
    pub fn function_at(&self, vaddr: u64) -> Option<Region> {
        let i = self.functions.partition_point(|f| f.start <= vaddr).checked_sub(1)?;
        Some(self.functions[i]).filter(|f| vaddr < f.end)
    }

    /// Returns the range without a known function around `vaddr`.
    pub fn gap_at(&self, vaddr: u64) -> Option<Region> {
        let (at, bytes) = self.code.iter().find(|(at, bytes)| vaddr.checked_sub(*at).is_some_and(|d| d < bytes.len() as u64))?;
        let i = self.functions.partition_point(|f| f.start <= vaddr);
        let start = i.checked_sub(1).map_or(*at, |i| self.functions[i].end.max(*at));
        let end = self.functions.get(i).map_or(u64::MAX, |f| f.start).min(at + bytes.len() as u64);
        (start <= vaddr && vaddr < end).then_some(Region { start, end, known: Known::Gap })
    }

    /// Returns the registers (bit n: register n in order of encoding) that the function at `vaddr` does not write, 0 when that is not easily seen.
    ///
    /// GCC's `-fipa-ra` keeps values in caller-saved registers across calls to functions of the same file that leave them alone (glibc: `r9` across
    /// `__lll_lock_wait_private`), so the psABI's list alone would lose numbers. Only leaf functions of a few instructions are looked at.
    pub fn untouched_by(&self, vaddr: u64) -> u16 {
        if let Some(&known) = self.untouched.borrow().get(&vaddr) {
            return known;
        }
        let result = self.leaf_untouched(vaddr).unwrap_or(0);
        self.untouched.borrow_mut().insert(vaddr, result);
        result
    }

    fn leaf_untouched(&self, vaddr: u64) -> Option<u16> {
        const MAX_LEAF: usize = 64;
        let f = self.function_at(vaddr).filter(|f| f.start == vaddr)?;
        let code = self.code_from(vaddr)?;
        let mut decoder = Decoder::with_ip(64, &code[..(f.end - f.start) as usize], vaddr, DecoderOptions::NONE);
        let (mut info, mut written) = (InstructionInfoFactory::new(), 0u16);
        let mut ins = Instruction::default();
        for _ in 0..MAX_LEAF {
            if !decoder.can_decode() {
                return Some(!written);
            }
            decoder.decode_out(&mut ins);
            let leaves = match ins.flow_control() {
                FlowControl::Call => ins.mnemonic() != Mnemonic::Syscall,
                FlowControl::IndirectBranch | FlowControl::IndirectCall => true,
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => !(f.start..f.end).contains(&ins.near_branch_target()),
                _ => ins.is_invalid(),
            };
            if leaves {
                return None;
            }
            for r in info.info(&ins).used_registers() {
                let full = r.register().full_register();
                if full.is_gpr64() && !matches!(r.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None) {
                    written |= 1 << full.number();
                }
            }
        }
        None
    }

    /// Whether control runs out of the end of a function into what follows: glibc interrupts the FDE of `clone` around the `syscall` instruction.
    pub fn runs_out(&self, f: Region) -> bool {
        let Some(code) = self.code_from(f.start) else { return false };
        let mut decoder = Decoder::with_ip(64, &code[..(f.end - f.start) as usize], f.start, DecoderOptions::NONE);
        let mut last = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut last);
        }
        let stops = matches!(
            last.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return | FlowControl::Exception
        );
        !stops && !last.is_invalid() && !matches!(last.mnemonic(), Mnemonic::Nop | Mnemonic::Int3 | Mnemonic::Call)
    }

    /// Returns the name of the function that holds `vaddr`, when a symbol or Go's table tells.
    pub fn name_at(&self, vaddr: u64) -> Option<String> {
        let i = self.names.partition_point(|n| n.0 <= vaddr).checked_sub(1)?;
        let (start, size, name) = self.names[i];
        let inside = vaddr - start < size || vaddr == start || size == 0 && self.function_at(vaddr).is_some_and(|f| f.start <= start);
        inside.then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// Returns the name of the imported symbol that a pseudo address stands for.
    pub fn import_name(&self, pseudo: u64) -> Option<&'d [u8]> {
        let n = pseudo.checked_sub(IMPORT)?;
        self.dynsym.get(usize::try_from(n).ok()?).map(|s| s.name)
    }

    /// Whether the object has fixed addresses, which its code and data hold without relocations.
    pub fn has_fixed_addresses(&self) -> bool {
        self.elf.kind() == ElfType::Exec
    }

    /// Returns the addresses of data words that hold one of `targets`.
    pub fn data_words(&self, targets: &FxHashSet<u64>) -> Vec<(u64, u64)> {
        let mut out: Vec<(u64, u64)> = self
            .slots
            .iter()
            .filter_map(|(&at, slot)| match slot {
                Slot::Address(a) if targets.contains(a) => Some((at, *a)),
                Slot::Import(n) if targets.contains(&(IMPORT + u64::from(*n))) => Some((at, IMPORT + u64::from(*n))),
                _ => None,
            })
            .collect();
        if self.has_fixed_addresses() {
            for s in self.elf.segments().iter().filter(|s| s.is_load() && !s.is_executable()) {
                let skip = s.vaddr.next_multiple_of(8) - s.vaddr;
                let bytes = self.elf.segment_bytes(s).get(skip as usize..).unwrap_or(&[]);
                for (i, word) in bytes.chunks_exact(8).enumerate() {
                    let value = u64::from_le_bytes(word.try_into().expect("a chunk of eight"));
                    if targets.contains(&value) {
                        out.push((s.vaddr + skip + 8 * i as u64, value));
                    }
                }
            }
        }
        out.sort_unstable();
        out.dedup();
        out
    }
}
