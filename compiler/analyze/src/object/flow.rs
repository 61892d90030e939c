//! Data flow through one function: which values reach each `syscall` and each call.
//!
//! A function is decoded from its entry along direct jumps. What stays undecoded is either the target of an indirect jump (a switch), and then follows
//! it, or a piece that something outside enters (an exception's landing pad, a second entry), and then is a root of its own with fresh parameters.
//! Block states are joined until nothing changes ([`Value`]'s chains are finite, and a block that changes too often is widened to "unknown").

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};
use rustc_hash::{FxHashMap, FxHashSet};

use super::image::{Image, Known, Region, Slot};
use super::machine::{RAX, State};
use super::value::Value;

/// Something that data flow saw.
pub enum Event<'a> {
    /// A `syscall` instruction and the number in `rax`.
    Syscall {
        /// Its address.
        at: u64,
        /// The number.
        number: Value,
        /// The instructions before it, for patterns.
        before: &'a [Instruction],
    },
    /// `int 0x80` or `sysenter`.
    Legacy {
        /// Its address.
        at: u64,
    },
    /// A call, or a jump that leaves the function.
    Call {
        /// Its address.
        at: u64,
        /// Where it may go.
        target: Value,
        /// Registers and stack at that point.
        state: &'a State,
        /// 8 when the return address is not yet on the stack, 0 for a jump.
        pushed: u64,
        /// Whether the target is a register or memory.
        is_indirect: bool,
    },
}

/// What a caller of [`run`] looks for; code without it is not analysed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Kernel entries. Most occurrences of their bytes turn out to be part of other instructions.
    Entries,
    /// Calls and jumps out of the function.
    Calls,
}

/// How often a block's state may change before what still changes is widened to "unknown".
const WIDEN_AFTER: u32 = 16;
/// The most instructions decoded in one function; what lies beyond is analysed as a piece of its own.
const MAX_INSTRUCTIONS: usize = 400_000;
/// The most pieces that are given fresh parameters; the rest starts with unknown values.
const MAX_ROOTS: usize = 256;

/// Pseudo address of a block that all switches of a function jump to and that goes on to all their targets, so that the work is their sum, not product.
const SWITCH: u64 = u64::MAX;

struct Body {
    insns: BTreeMap<u64, Instruction>,
    leaders: BTreeSet<u64>,
    has_switch: bool,
}

fn is_padding(ins: &Instruction) -> bool {
    matches!(ins.mnemonic(), Mnemonic::Nop | Mnemonic::Int3 | Mnemonic::INVALID)
        || ins.mnemonic() == Mnemonic::Xchg
            && ins.op_count() == 2
            && ins.op_kind(1) == OpKind::Register
            && ins.op0_register() == Register::AX
            && ins.op1_register() == Register::AX
}

/// Names of imported or named functions that do not return. Others are found by looking at them.
const NORETURN: [&str; 10] = [
    "abort",
    "exit",
    "_exit",
    "__stack_chk_fail",
    "__assert_fail",
    "__libc_fatal",
    "__fortify_fail",
    "__chk_fail",
    "__libc_start_call_main",
    "_Exit",
];

impl Body {
    fn new() -> Body {
        Body { insns: BTreeMap::new(), leaders: BTreeSet::new(), has_switch: false }
    }

    /// Decodes everything that direct jumps reach from `root` inside `region`.
    fn discover(&mut self, image: &Image<'_>, region: Region, root: u64) {
        let mut todo = vec![root];
        self.leaders.insert(root);
        while let Some(start) = todo.pop() {
            let Some(code) = image.code_from(start) else { continue };
            let len = code.len().min((region.end - start) as usize);
            let mut decoder = Decoder::with_ip(64, &code[..len], start, DecoderOptions::NONE);
            let mut ins = Instruction::default();
            while decoder.can_decode() && self.insns.len() < MAX_INSTRUCTIONS {
                decoder.decode_out(&mut ins);
                if ins.is_invalid() || self.insns.contains_key(&ins.ip()) {
                    // Falling into decoded code makes a block boundary.
                    self.leaders.insert(ins.ip());
                    break;
                }
                self.insns.insert(ins.ip(), ins);
                if matches!(ins.mnemonic(), Mnemonic::Syscall | Mnemonic::Sysenter) {
                    continue;
                }
                let flow = ins.flow_control();
                if matches!(flow, FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch | FlowControl::XbeginXabortXend)
                    && ins.op0_kind() == OpKind::NearBranch64
                {
                    let target = ins.near_branch_target();
                    if target >= region.start && target < region.end {
                        self.leaders.insert(target);
                        if !self.insns.contains_key(&target) {
                            todo.push(target);
                        }
                    }
                    self.leaders.insert(ins.next_ip());
                }
                match flow {
                    FlowControl::IndirectBranch => {
                        // `jmp [rip + slot]` is a tail call or a PLT stub, not a switch.
                        self.has_switch |= !ins.is_ip_rel_memory_operand();
                        break;
                    }
                    FlowControl::UnconditionalBranch | FlowControl::Return | FlowControl::Exception => break,
                    FlowControl::Call if !returns(image, &ins) => break,
                    // `int3` and `int 29h` stop, `int 80h` returns.
                    FlowControl::Interrupt if ins.mnemonic() == Mnemonic::Int3 => break,
                    // Privileged: it ends the program.
                    _ if ins.mnemonic() == Mnemonic::Hlt => break,
                    _ => {}
                }
            }
        }
    }

    /// Returns the first address from `from` on that is neither decoded nor padding.
    fn next_hole(&self, image: &Image<'_>, region: Region, from: u64) -> Option<u64> {
        let mut at = from;
        loop {
            if at >= region.end {
                return None;
            }
            if let Some((&ip, ins)) = self.insns.range(..=at).next_back()
                && at < ip + ins.len() as u64
            {
                at = ip + ins.len() as u64;
                continue;
            }
            let code = image.code_from(at)?;
            let mut decoder = Decoder::with_ip(64, &code[..code.len().min((region.end - at) as usize)], at, DecoderOptions::NONE);
            let ins = decoder.decode();
            // Zero bytes between functions are padding, too; as code they would be `add [rax], al`.
            if is_padding(&ins) || code.starts_with(&[0, 0]) {
                at += ins.len().max(1) as u64;
                continue;
            }
            return Some(at);
        }
    }
}

/// Returns the register that an instruction compares with a constant, and that constant.
fn compared(ins: &Instruction) -> Option<(Register, u64)> {
    if ins.op_count() != 2 || ins.op0_kind() != OpKind::Register || ins.op0_register().size() < 4 {
        return None;
    }
    match ins.mnemonic() {
        Mnemonic::Test if ins.op1_kind() == OpKind::Register && ins.op0_register() == ins.op1_register() => Some((ins.op0_register(), 0)),
        Mnemonic::Cmp if !matches!(ins.op1_kind(), OpKind::Register | OpKind::Memory) => Some((ins.op0_register(), ins.immediate(1))),
        _ => None,
    }
}

/// How the names of Go's functions that do not return begin. They end in loops over the goroutine's deferred calls, which nothing shows to be endless.
const GO_PANICS: [&str; 6] =
    ["runtime.gopanic", "runtime.goPanic", "runtime.panic", "runtime.throw", "runtime.fatal", "runtime.unreachableMethod"];

/// How many instructions of a callee are looked at, and how deep, to see whether it returns.
const RETURNS_BUDGET: usize = 4000;

/// Whether a call can come back. Falling through a call that cannot would join nonsense into the code behind it.
fn returns(image: &Image<'_>, ins: &Instruction) -> bool {
    ins.op0_kind() != OpKind::NearBranch64 || function_returns(image, ins.near_branch_target(), 6)
}

fn function_returns(image: &Image<'_>, at: u64, depth: u32) -> bool {
    if let Some(&known) = image.returns.borrow().get(&at) {
        return known;
    }
    // Also the answer for a recursive call while it is being worked out.
    image.returns.borrow_mut().insert(at, true);
    let ends = |n: &str| NORETURN.contains(&n) || GO_PANICS.iter().any(|p| n.starts_with(p)) && !n.starts_with("runtime.panicCheck");
    let result = image.name_at(at).is_none_or(|n| !ends(&n)) && finds_return(image, at, depth).unwrap_or(true);
    image.returns.borrow_mut().insert(at, result);
    result
}

/// Walks the function at `start` along direct jumps until something that returns is found; `None` when it is too long to tell.
fn finds_return(image: &Image<'_>, start: u64, depth: u32) -> Option<bool> {
    let region = image.function_at(start).or_else(|| image.gap_at(start))?;
    let (mut todo, mut seen, mut budget) = (vec![start], BTreeSet::new(), RETURNS_BUDGET);
    while let Some(at) = todo.pop() {
        let code = image.code_from(at)?;
        let mut decoder = Decoder::with_ip(64, &code[..code.len().min((region.end - at) as usize)], at, DecoderOptions::NONE);
        let mut ins = Instruction::default();
        loop {
            if !decoder.can_decode() {
                // Runs into what follows.
                return Some(true);
            }
            decoder.decode_out(&mut ins);
            budget = budget.checked_sub(1)?;
            if !seen.insert(ins.ip()) {
                break;
            }
            if matches!(ins.mnemonic(), Mnemonic::Syscall | Mnemonic::Sysenter) {
                continue;
            }
            let target = (ins.op_count() > 0 && ins.op0_kind() == OpKind::NearBranch64).then(|| ins.near_branch_target());
            match ins.flow_control() {
                FlowControl::Return => return Some(true),
                FlowControl::IndirectBranch => {
                    let import = ins.is_ip_rel_memory_operand().then(|| image.slots.get(&ins.ip_rel_memory_address())).flatten();
                    let Some(Slot::Import(n)) = import else { return Some(true) };
                    let name = image.dynsym.get(*n as usize).map_or(&b""[..], |s| s.name);
                    return Some(!NORETURN.iter().any(|n| n.as_bytes() == name));
                }
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                    match target {
                        Some(t) if (region.start..region.end).contains(&t) => todo.push(t),
                        Some(t) if depth > 0 && !function_returns(image, t, depth - 1) => {}
                        _ => return Some(true),
                    }
                    if ins.flow_control() == FlowControl::UnconditionalBranch {
                        break;
                    }
                }
                FlowControl::Call => {
                    if let Some(t) = target
                        && depth > 0
                        && !function_returns(image, t, depth - 1)
                    {
                        break;
                    }
                }
                FlowControl::Exception => break,
                FlowControl::Interrupt if ins.mnemonic() == Mnemonic::Int3 => break,
                // `hlt` is privileged: it ends the program.
                _ if ins.mnemonic() == Mnemonic::Hlt => break,
                _ => {}
            }
        }
    }
    Some(false)
}

/// Runs the analysis over `region` and hands every event of every root to `visit`, with the address of the root that the event's parameters refer to.
pub fn run(image: &Image<'_>, region: Region, wants: Wants, visit: &mut dyn FnMut(u64, Event<'_>)) {
    let mut first = Body::new();
    first.discover(image, region, region.start);
    // Undecoded pieces: the targets of switches when there are any, else entries of their own.
    let mut roots = vec![region.start];
    let mut switch_targets = Vec::new();
    let mut all = Body { insns: first.insns.clone(), leaders: BTreeSet::new(), has_switch: false };
    let mut hole = region.start;
    while let Some(at) = all.next_hole(image, region, hole) {
        let before = all.insns.len();
        all.discover(image, region, at);
        if first.has_switch {
            switch_targets.push(at)
        } else {
            roots.push(at)
        }
        // An invalid instruction decodes to nothing: step over it.
        hole = if all.insns.len() == before { at + 1 } else { at };
        if all.insns.len() >= MAX_INSTRUCTIONS {
            break;
        }
    }
    let interesting = |b: &Body| b.insns.values().any(|i| is_event(i, region, wants));
    if !interesting(&all) {
        return;
    }
    for (n, &root) in roots.iter().enumerate() {
        let mut body = Body::new();
        body.discover(image, region, root);
        if n == 0 {
            for &target in &switch_targets {
                body.discover(image, region, target);
            }
        }
        if interesting(&body) {
            let entry = if n < MAX_ROOTS { State::entry() } else { State::unknown() };
            solve(image, region, &body, root, entry, if n == 0 { &switch_targets } else { &[] }, visit);
        }
    }
}

fn is_event(ins: &Instruction, region: Region, wants: Wants) -> bool {
    match ins.mnemonic() {
        Mnemonic::Syscall | Mnemonic::Sysenter => true,
        Mnemonic::Int => ins.immediate8() == 0x80,
        Mnemonic::Call => wants == Wants::Calls,
        _ => wants == Wants::Calls && leaves(ins, region),
    }
}

/// Whether this is a jump out of the region.
fn leaves(ins: &Instruction, region: Region) -> bool {
    match ins.flow_control() {
        FlowControl::IndirectBranch => true,
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
            ins.op0_kind() == OpKind::NearBranch64 && !(region.start..region.end).contains(&ins.near_branch_target())
        }
        _ => false,
    }
}

/// Blocks whose state changed, each once.
struct Queue {
    blocks: VecDeque<u64>,
    waiting: FxHashSet<u64>,
}

impl Queue {
    fn push(&mut self, at: u64) {
        if self.waiting.insert(at) {
            self.blocks.push_back(at);
        }
    }

    fn pop(&mut self) -> Option<u64> {
        let at = self.blocks.pop_front()?;
        self.waiting.remove(&at);
        Some(at)
    }
}

fn solve(
    image: &Image<'_>,
    region: Region,
    body: &Body,
    root: u64,
    entry: State,
    switch_targets: &[u64],
    visit: &mut dyn FnMut(u64, Event<'_>),
) {
    let mut info = InstructionInfoFactory::new();
    let insns: Vec<Instruction> = body.insns.values().copied().collect();
    let index: FxHashMap<u64, usize> = insns.iter().enumerate().map(|(i, ins)| (ins.ip(), i)).collect();
    let mut states: FxHashMap<u64, (State, u32)> = FxHashMap::default();
    let mut queue = Queue { blocks: VecDeque::from([root]), waiting: FxHashSet::from_iter([root]) };
    states.insert(root, (entry, 0));

    let flow_into = |states: &mut FxHashMap<u64, (State, u32)>, queue: &mut Queue, at: u64, state: &State| {
        if at != SWITCH && !index.contains_key(&at) {
            return;
        }
        match states.get_mut(&at) {
            None => {
                states.insert(at, (state.clone(), 0));
                queue.push(at);
            }
            Some((old, changes)) => {
                if old.join(state, *changes >= WIDEN_AFTER) {
                    *changes += 1;
                    queue.push(at);
                }
            }
        }
    };

    while let Some(at) = queue.pop() {
        let mut state = states[&at].0.clone();
        if at == SWITCH {
            for &target in switch_targets {
                flow_into(&mut states, &mut queue, target, &state);
            }
            continue;
        }
        let mut i = index[&at];
        loop {
            let ins = &insns[i];
            let next = ins.next_ip();
            let flow =
                if matches!(ins.mnemonic(), Mnemonic::Syscall | Mnemonic::Sysenter) { FlowControl::Next } else { ins.flow_control() };
            let direct = (ins.op_count() > 0 && ins.op0_kind() == OpKind::NearBranch64).then(|| ins.near_branch_target());
            state.step(image, ins, &mut info);
            match flow {
                FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend => {
                    // Where a comparison with a constant decides the jump, the equal side knows the register.
                    let equal = i.checked_sub(1).map(|p| &insns[p]).filter(|p| p.next_ip() == ins.ip()).and_then(compared);
                    let mut taken = state.clone();
                    match (equal, ins.mnemonic()) {
                        (Some((register, value)), Mnemonic::Je) => taken.assume(register, value),
                        (Some((register, value)), Mnemonic::Jne) => state.assume(register, value),
                        _ => {}
                    }
                    if let Some(target) = direct.filter(|t| (region.start..region.end).contains(t)) {
                        flow_into(&mut states, &mut queue, target, &taken);
                    }
                }
                FlowControl::UnconditionalBranch => {
                    if let Some(target) = direct.filter(|t| (region.start..region.end).contains(t)) {
                        flow_into(&mut states, &mut queue, target, &state);
                    }
                    break;
                }
                FlowControl::IndirectBranch => {
                    flow_into(&mut states, &mut queue, SWITCH, &state);
                    break;
                }
                FlowControl::Return | FlowControl::Exception => break,
                FlowControl::Call if !returns(image, ins) => break,
                FlowControl::Interrupt if ins.mnemonic() == Mnemonic::Int3 => break,
                _ if ins.mnemonic() == Mnemonic::Hlt => break,
                _ => {}
            }
            if body.leaders.contains(&next) {
                flow_into(&mut states, &mut queue, next, &state);
                break;
            }
            match insns.get(i + 1) {
                Some(following) if following.ip() == next => i += 1,
                _ => break,
            }
        }
    }

    // From here on states are final. One more pass hands out the events.
    let mut reached: Vec<u64> = states.keys().copied().collect();
    reached.retain(|&at| at != SWITCH);
    reached.sort_unstable();
    for at in reached {
        let mut state = states[&at].0.clone();
        let mut i = index[&at];
        loop {
            let ins = &insns[i];
            report(image, region, root, &insns[..=i], &state, visit);
            state.step(image, ins, &mut info);
            let next = ins.next_ip();
            let stops = !matches!(ins.mnemonic(), Mnemonic::Syscall | Mnemonic::Sysenter)
                && (matches!(
                    ins.flow_control(),
                    FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return | FlowControl::Exception
                ) || matches!(ins.mnemonic(), Mnemonic::Int3 | Mnemonic::Hlt)
                    || ins.flow_control() == FlowControl::Call && !returns(image, ins));
            // A piece of a gap may have been cut where the code just goes on. After a call it more likely ends: what does not return
            // is often followed by the next function.
            if !stops
                && next == region.end
                && region.known == Known::Gap
                && !ends_with_call(&insns[..=i])
                && image.code_from(next).is_some()
            {
                visit(root, Event::Call { at: ins.ip(), target: Value::constant(next), state: &state, pushed: 0, is_indirect: false });
            }
            if stops || body.leaders.contains(&next) {
                break;
            }
            match insns.get(i + 1) {
                Some(following) if following.ip() == next => i += 1,
                _ => break,
            }
        }
    }
}

/// Whether the last instruction that is no padding is a call.
fn ends_with_call(insns: &[Instruction]) -> bool {
    insns.iter().rev().find(|i| !is_padding(i)).is_some_and(|i| i.mnemonic() == Mnemonic::Call)
}

fn report(image: &Image<'_>, region: Region, root: u64, upto: &[Instruction], state: &State, visit: &mut dyn FnMut(u64, Event<'_>)) {
    let (ins, before) = upto.split_last().expect("the instruction itself");
    let at = ins.ip();
    match ins.mnemonic() {
        Mnemonic::Syscall => visit(root, Event::Syscall { at, number: *state.reg(RAX), before }),
        Mnemonic::Sysenter => visit(root, Event::Legacy { at }),
        Mnemonic::Int if ins.immediate8() == 0x80 => visit(root, Event::Legacy { at }),
        Mnemonic::Call => {
            let is_indirect = ins.op0_kind() != OpKind::NearBranch64;
            visit(root, Event::Call { at, target: state.target(image, ins), state, pushed: 8, is_indirect });
        }
        _ if leaves(ins, region) => {
            let is_indirect = ins.op0_kind() != OpKind::NearBranch64;
            visit(root, Event::Call { at, target: state.target(image, ins), state, pushed: 0, is_indirect });
        }
        _ => {}
    }
}
