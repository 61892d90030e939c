//! The effect of one instruction on registers and stack, as far as system call numbers and call targets need it.
//!
//! Modelled exactly: moves, loads, stores to the stack, and the arithmetic compilers use to make or choose small constants. Everything else makes the
//! registers it writes unknown. Two assumptions are made that compiled code keeps: a callee does not change its caller's stack slots, and a store through
//! an unknown pointer does not hit a spilled number.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::collections::BTreeMap;

use super::image::{IMPORT, Image, STACK, Slot};
use super::value::{FIRST_STACK_PARAM, Param, Value, Why};

/// Registers and stack at one point of a function.
#[derive(Clone, PartialEq)]
pub struct State {
    regs: [Value; 16],
    /// Values of 8-byte slots by address, see [`STACK`].
    stack: BTreeMap<u64, Value>,
}

/// Index of a general register in psABI order of encoding: rax 0, rcx 1, rdx 2, rbx 3, rsp 4, rbp 5, rsi 6, rdi 7, r8 to r15.
pub const RAX: usize = 0;
/// See [`RAX`].
pub const RSP: usize = 4;
/// See [`RAX`].
pub const RDI: Param = 7;
/// Caller-saved registers (psABI, 3.2.1): a call makes them unknown.
const CLOBBERED_BY_CALL: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];

fn index(reg: Register) -> Option<usize> {
    let full = reg.full_register();
    full.is_gpr64().then(|| full.number())
}

fn mask(size: usize) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 }
}

fn sign_extend(value: u64, size: usize) -> u64 {
    if size >= 8 { value } else { ((value << (64 - 8 * size)) as i64 >> (64 - 8 * size)) as u64 }
}

impl State {
    /// The state at a function's entry: every register is its parameter.
    pub fn entry() -> State {
        let mut regs = [Value::top(Why::Computed); 16];
        for (i, r) in regs.iter_mut().enumerate() {
            *r = Value::param(i as Param);
        }
        regs[RSP] = Value::constant(STACK);
        State { regs, stack: BTreeMap::new() }
    }

    /// The state about which nothing is known.
    pub fn unknown() -> State {
        State { regs: [Value::top(Why::Many); 16], stack: BTreeMap::new() }
    }

    /// Joins `other` into this; returns whether anything changed. With `widen`, what would change becomes unknown at once.
    pub fn join(&mut self, other: &State, widen: bool) -> bool {
        let mut changed = false;
        for (mine, theirs) in self.regs.iter_mut().zip(&other.regs) {
            let joined = mine.join(theirs);
            if joined != *mine {
                changed = true;
                *mine = if widen { Value::top(Why::Many) } else { joined };
            }
        }
        if self.stack == other.stack {
            return changed;
        }
        let keys: Vec<u64> = self.stack.keys().chain(other.stack.keys()).copied().collect();
        for key in keys {
            let (mine, theirs) = (self.slot(key), other.slot(key));
            let mut joined = mine.join(&theirs);
            if joined != mine {
                changed = true;
                if widen {
                    joined = Value::top(Why::Many);
                }
            }
            if joined.unknown().is_some() && Self::untouched(key).unknown().is_some() {
                self.stack.remove(&key);
            } else {
                self.stack.insert(key, joined);
            }
        }
        changed
    }

    /// A register's value.
    pub fn reg(&self, index: usize) -> &Value {
        &self.regs[index]
    }

    /// The value that the callee of a call made now will see as its parameter. `pushed` is 8 when the return address is not yet on the stack.
    pub fn argument(&self, param: Param, pushed: u64) -> Value {
        if param < FIRST_STACK_PARAM {
            return self.regs[usize::from(param)];
        }
        match self.regs[RSP].single() {
            Some(rsp) => self.slot(rsp.wrapping_sub(pushed).wrapping_add(8 * u64::from(param - FIRST_STACK_PARAM + 1))),
            None => Value::top(Why::Memory),
        }
    }

    /// What a slot holds that this function has not written: an argument, or nothing known.
    fn untouched(at: u64) -> Value {
        match at.checked_sub(STACK + 8) {
            Some(d) if d % 8 == 0 && d / 8 < 40 => Value::param(FIRST_STACK_PARAM + (d / 8) as Param),
            _ => Value::top(Why::Memory),
        }
    }

    fn slot(&self, at: u64) -> Value {
        self.stack.get(&at).copied().unwrap_or_else(|| Self::untouched(at))
    }

    fn is_stack(at: u64) -> bool {
        at.wrapping_sub(STACK).wrapping_add(1 << 40) < 1 << 41
    }

    fn address(&self, ins: &Instruction) -> Value {
        if ins.is_ip_rel_memory_operand() {
            return Value::constant(ins.ip_rel_memory_address());
        }
        if ins.segment_prefix() == Register::FS || ins.segment_prefix() == Register::GS {
            return Value::top(Why::Memory);
        }
        let mut sum = Value::constant(ins.memory_displacement64());
        if let Some(base) = index(ins.memory_base()) {
            sum = sum.zip(&self.regs[base], u64::wrapping_add);
        }
        if let Some(i) = index(ins.memory_index()) {
            let scale = u64::from(ins.memory_index_scale());
            sum = sum.zip(&self.regs[i].map(false, |c| c.wrapping_mul(scale)), u64::wrapping_add);
        }
        sum
    }

    fn load(&self, image: &Image<'_>, ins: &Instruction, size: usize) -> Value {
        let Some(at) = self.address(ins).single() else { return Value::top(Why::Memory) };
        if Self::is_stack(at) {
            return self.slot(at).map(size >= 2, |c| c & mask(size));
        }
        if let Some(slot) = image.slots.get(&at) {
            return match slot {
                Slot::Import(n) if size == 8 => Value::constant(IMPORT + u64::from(*n)),
                Slot::Address(a) if size == 8 => Value::constant(*a),
                _ => Value::top(Why::Memory),
            };
        }
        // Memory that is never written holds what the file holds. Go keeps a few numbers in variables that nothing writes on x86-64
        // (`syscall.fcntl64Syscall`, which only 32-bit architectures set), so its initial values are taken, too.
        let constant = image.elf.segment_at(at).is_some_and(|s| !s.is_writable() || image.is_go);
        match image.elf.bytes_at(at, size as u64) {
            Some(bytes) if constant => Value::constant(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))),
            _ => Value::top(Why::Memory),
        }
    }

    fn store(&mut self, at: u64, size: usize, value: Value) {
        if !Self::is_stack(at) {
            return;
        }
        // Forget every slot the store overlaps.
        let overlapped: Vec<u64> = self.stack.range(at.saturating_sub(7)..at.saturating_add(size.max(1) as u64)).map(|(&k, _)| k).collect();
        for key in overlapped {
            self.stack.insert(key, Value::top(Why::Memory));
        }
        let value = if size >= 4 { value.map(true, |c| c & mask(size)) } else { Value::top(Why::Memory) };
        self.stack.insert(at, value);
    }

    fn set(&mut self, reg: Register, value: Value) {
        let Some(i) = index(reg) else { return };
        self.regs[i] = match reg.size() {
            8 => value,
            4 => value.map(true, |c| c & mask(4)),
            size => {
                let shift = if matches!(reg, Register::AH | Register::BH | Register::CH | Register::DH) { 8 } else { 0 };
                let m = mask(size) << shift;
                self.regs[i].zip(&value, |old, new| old & !m | new << shift & m)
            }
        };
    }

    fn operand_size(ins: &Instruction, n: u32) -> usize {
        match ins.op_kind(n) {
            OpKind::Register => ins.op_register(n).size(),
            OpKind::Memory => ins.memory_size().size(),
            _ => 8,
        }
    }

    fn read(&self, image: &Image<'_>, ins: &Instruction, n: u32) -> Value {
        match ins.op_kind(n) {
            OpKind::Register => {
                let reg = ins.op_register(n);
                let Some(i) = index(reg) else { return Value::top(Why::Computed) };
                let shift = if matches!(reg, Register::AH | Register::BH | Register::CH | Register::DH) { 8 } else { 0 };
                self.regs[i].map(reg.size() >= 2, |c| c >> shift & mask(reg.size()))
            }
            OpKind::Memory => self.load(image, ins, Self::operand_size(ins, n)),
            OpKind::NearBranch64 => Value::constant(ins.near_branch_target()),
            _ => Value::constant(ins.immediate(n)),
        }
    }

    fn write(&mut self, ins: &Instruction, n: u32, value: Value) {
        match ins.op_kind(n) {
            OpKind::Register => self.set(ins.op_register(n), value),
            OpKind::Memory => {
                if let Some(at) = self.address(ins).single() {
                    self.store(at, Self::operand_size(ins, n), value);
                }
            }
            _ => {}
        }
    }

    /// Returns where a call or jump goes: constants are addresses of this object or [`IMPORT`] pseudo addresses.
    pub fn target(&self, image: &Image<'_>, ins: &Instruction) -> Value {
        self.read(image, ins, 0)
    }

    fn push(&mut self, value: Value) {
        self.regs[RSP] = self.regs[RSP].map(false, |c| c.wrapping_sub(8));
        if let Some(rsp) = self.regs[RSP].single() {
            self.store(rsp, 8, value);
        }
    }

    fn pop(&mut self) -> Value {
        let value = self.regs[RSP].single().map_or(Value::top(Why::Memory), |rsp| self.slot(rsp));
        self.regs[RSP] = self.regs[RSP].map(false, |c| c.wrapping_add(8));
        value
    }

    /// Narrows a register that the way taken shows to hold `value`.
    pub fn assume(&mut self, register: Register, value: u64) {
        self.set(register, Value::constant(value));
    }

    /// Applies one instruction.
    pub fn step(&mut self, image: &Image<'_>, ins: &Instruction, info: &mut InstructionInfoFactory) {
        use Mnemonic as M;
        let size = Self::operand_size(ins, 0);
        let same = ins.op_count() == 2
            && ins.op_kind(0) == OpKind::Register
            && ins.op_kind(1) == OpKind::Register
            && ins.op_register(0) == ins.op_register(1);
        let is_gpr = ins.op_count() > 0 && (ins.op_kind(0) != OpKind::Register || index(ins.op_register(0)).is_some());
        let binary = |s: &State, f: fn(u64, u64) -> u64| s.read(image, ins, 0).zip(&s.read(image, ins, 1), f);
        match ins.mnemonic() {
            // Before anything that goes by flow control: `syscall` is a call to iced, but it clobbers only these (SDM; the kernel's entry code).
            M::Syscall => {
                for r in [0, 1, 11] {
                    self.regs[r] = Value::top(Why::Result);
                }
            }
            M::Call => {
                let kept = match ins.op0_kind() {
                    OpKind::NearBranch64 => image.untouched_by(ins.near_branch_target()),
                    _ => 0,
                };
                for r in CLOBBERED_BY_CALL {
                    if kept >> r & 1 == 0 {
                        self.regs[r] = Value::top(Why::Result);
                    }
                }
            }
            M::Mov if is_gpr => {
                let v = self.read(image, ins, 1);
                self.write(ins, 0, v);
            }
            M::Movzx => {
                let v = self.read(image, ins, 1);
                self.write(ins, 0, v);
            }
            M::Movsx | M::Movsxd => {
                let from = Self::operand_size(ins, 1);
                let v = self.read(image, ins, 1).map(from >= 2, |c| sign_extend(c, from));
                self.write(ins, 0, v);
            }
            M::Cdqe => self.regs[RAX] = self.regs[RAX].map(true, |c| sign_extend(c & mask(4), 4)),
            M::Lea => {
                let v = self.address(ins);
                self.write(ins, 0, v);
            }
            M::Xor | M::Sub if same && is_gpr => self.write(ins, 0, Value::constant(0)),
            M::Sbb if same => self.write(ins, 0, Value::of([0, u64::MAX])),
            M::Xor if is_gpr => {
                let v = binary(self, |a, b| a ^ b);
                self.write(ins, 0, v);
            }
            M::Or if is_gpr => {
                // `or rax, -1` makes a constant of anything.
                let b = self.read(image, ins, 1).single().map(|c| c & mask(size));
                let v = if b == Some(mask(size)) { Value::constant(mask(size)) } else { binary(self, |a, b| a | b) };
                self.write(ins, 0, v);
            }
            M::And if is_gpr => {
                // A small mask bounds even an unknown value.
                let (a, b) = (self.read(image, ins, 0), self.read(image, ins, 1));
                let v = match b.single().map(|c| c & mask(size)) {
                    Some(m) if !a.is_constant() && m.count_ones() <= 3 => Value::of((0..8u64).map(|bits| spread(bits, m))),
                    _ => a.zip(&b, |a, b| a & b),
                };
                self.write(ins, 0, v);
            }
            M::Add => {
                let v = binary(self, u64::wrapping_add);
                self.write(ins, 0, v);
            }
            M::Sub => {
                let v = binary(self, u64::wrapping_sub);
                self.write(ins, 0, v);
            }
            M::Adc => {
                let v = binary(self, u64::wrapping_add);
                let v = v.join(&v.map(false, |c| c.wrapping_add(1)));
                self.write(ins, 0, v);
            }
            M::Sbb => {
                let v = binary(self, u64::wrapping_sub);
                let v = v.join(&v.map(false, |c| c.wrapping_sub(1)));
                self.write(ins, 0, v);
            }
            M::Inc | M::Dec | M::Neg | M::Not => {
                let f: fn(u64) -> u64 = match ins.mnemonic() {
                    M::Inc => |c| c.wrapping_add(1),
                    M::Dec => |c| c.wrapping_sub(1),
                    M::Neg => u64::wrapping_neg,
                    _ => |c| !c,
                };
                let v = self.read(image, ins, 0).map(false, f);
                self.write(ins, 0, v);
            }
            M::Shl | M::Shr => {
                let count = self.read(image, ins, 1).single().map(|c| (c & if size == 8 { 63 } else { 31 }) as u32);
                let left = ins.mnemonic() == M::Shl;
                let v = match count {
                    Some(n) => self.read(image, ins, 0).map(false, move |c| if left { c << n } else { c >> n }),
                    None => Value::top(Why::Computed),
                };
                self.write(ins, 0, v);
            }
            M::Xchg => {
                let (a, b) = (self.read(image, ins, 0), self.read(image, ins, 1));
                self.write(ins, 0, b);
                self.write(ins, 1, a);
            }
            M::Push => {
                let v = self.read(image, ins, 0);
                self.push(v);
            }
            M::Pop => {
                let v = self.pop();
                self.write(ins, 0, v);
            }
            M::Leave => {
                self.regs[RSP] = self.regs[5];
                self.regs[5] = self.pop();
            }
            m if is_conditional_move(m) => {
                let v = self.read(image, ins, 0).join(&self.read(image, ins, 1));
                self.write(ins, 0, v);
            }
            m if is_set(m) => self.write(ins, 0, Value::of([0, 1])),
            _ => self.forget_written(ins, info),
        }
    }

    /// Makes everything unknown that an instruction which is not modelled writes.
    fn forget_written(&mut self, ins: &Instruction, info: &mut InstructionInfoFactory) {
        let used = info.info(ins);
        let mut stores = Vec::new();
        for r in used.used_registers() {
            let writes = matches!(r.access(), OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite);
            if let Some(i) = index(r.register()).filter(|_| writes) {
                // A write to part of a register leaves it unknown as a whole.
                self.regs[i] = Value::top(Why::Computed);
            }
        }
        for m in used.used_memory() {
            let writes = matches!(m.access(), OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite);
            if writes && index(m.base()) == Some(RSP) && m.index() == Register::None {
                stores.push((m.displacement(), m.memory_size().size()));
            }
        }
        for (displacement, size) in stores {
            if let Some(rsp) = self.regs[RSP].single() {
                let at = rsp.wrapping_add(displacement);
                self.store(at, size, Value::top(Why::Computed));
                // Vector stores cover several slots.
                for extra in (8..size as u64).step_by(8) {
                    self.store(at + extra, 8, Value::top(Why::Computed));
                }
            }
        }
    }
}

/// Places the low bits of `bits` at the set bits of `mask`.
fn spread(bits: u64, mask: u64) -> u64 {
    (0..64).filter(|b| mask >> b & 1 != 0).enumerate().map(|(i, b)| (bits >> i & 1) << b).sum()
}

fn is_conditional_move(m: Mnemonic) -> bool {
    use Mnemonic::*;
    let all = [Cmova, Cmovae, Cmovb, Cmovbe, Cmove, Cmovg, Cmovge, Cmovl, Cmovle, Cmovne, Cmovno, Cmovnp, Cmovns, Cmovo, Cmovp, Cmovs];
    all.contains(&m)
}

fn is_set(m: Mnemonic) -> bool {
    use Mnemonic::*;
    [Seta, Setae, Setb, Setbe, Sete, Setg, Setge, Setl, Setle, Setne, Setno, Setnp, Setns, Seto, Setp, Sets].contains(&m)
}
