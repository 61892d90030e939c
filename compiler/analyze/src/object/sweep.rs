//! Code that no table covers: programs without `.eh_frame` and symbols, hand-written assembly, and data between functions.
//!
//! In an object whose code is mostly covered, a gap is suspect: perlasm keeps constant tables in `.text`, which decode to anything. There only what
//! something names (a call, a jump, a pointer, a label) is decoded, along its jumps. In other objects a gap is all there is: it is decoded
//! from its first byte on, and split where a call or a pointer in data goes to the start of an instruction.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use rustc_hash::FxHashSet;

use super::image::{Image, Known, Region};
use super::scan;

/// Returns the pieces of `gap` to analyse as functions, ascending.
pub fn pieces(image: &Image<'_>, gap: Region) -> Vec<Region> {
    let mut starts = if image.is_covered { named(image, gap) } else { called(image, gap) };
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([gap.end]).collect::<Vec<_>>();
    starts.iter().zip(ends).filter(|(s, e)| *s < e).map(|(&start, end)| Region { start, end, known: Known::Gap }).collect()
}

/// Addresses in the gap that code, data or a label names.
fn named(image: &Image<'_>, gap: Region) -> Vec<u64> {
    let inside: FxHashSet<u64> = (gap.start..gap.end).collect();
    let mut out: Vec<u64> = scan::references(image, &inside)
        .into_iter()
        .filter(|&(at, _)| {
            // Only calls and jumps: a `lea` names data here. The opcode stands before the displacement.
            let opcode = |n: u64| image.code_from(at - n).map_or(0, |b| b[0]);
            matches!(opcode(1), 0xe8 | 0xe9) || opcode(2) == 0x0f && opcode(1) & 0xf0 == 0x80
        })
        .map(|(_, target)| target)
        .collect();
    out.extend(image.data_words(&inside).into_iter().map(|(_, target)| target));
    out.extend(image.labels.iter().filter(|l| inside.contains(l)));
    if inside.contains(&image.elf.entry()) {
        out.push(image.elf.entry());
    }
    out
}

/// Targets of calls anywhere in the gap's own code and of pointers in data that are instruction starts of a linear sweep.
fn called(image: &Image<'_>, gap: Region) -> Vec<u64> {
    let Some(code) = image.code_from(gap.start) else { return Vec::new() };
    let len = code.len().min((gap.end - gap.start) as usize);
    let mut decoder = Decoder::with_ip(64, &code[..len], gap.start, DecoderOptions::NONE);
    let mut ins = Instruction::default();
    let (mut starts, mut targets) = (FxHashSet::default(), FxHashSet::default());
    let mut may_start = true;
    let mut jumps = FxHashSet::default();
    let mut after_end = FxHashSet::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut ins);
        starts.insert(ins.ip());
        if may_start {
            after_end.insert(ins.ip());
        }
        may_start = matches!(
            ins.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return | FlowControl::Exception
        ) || matches!(ins.mnemonic(), Mnemonic::Nop | Mnemonic::Int3);
        if ins.flow_control() == FlowControl::UnconditionalBranch && ins.op0_kind() == OpKind::NearBranch64 {
            jumps.insert(ins.near_branch_target());
        }
        if ins.flow_control() == FlowControl::Call && ins.op_count() > 0 && ins.op0_kind() == OpKind::NearBranch64 {
            targets.insert(ins.near_branch_target());
        }
    }
    let mut out: Vec<u64> = targets.intersection(&starts).copied().collect();
    out.extend(image.data_words(&starts).into_iter().map(|(_, target)| target));
    // A tail call's target: aligned, and behind the end of other code. When it is a loop's head, the cut is harmless: going on is an event, too.
    out.extend(jumps.into_iter().filter(|t| t % 16 == 0 && after_end.contains(t)));
    out.extend(image.labels.iter().filter(|l| starts.contains(l)));
    out.push(gap.start);
    out
}
