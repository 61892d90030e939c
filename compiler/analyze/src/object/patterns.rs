//! Sites whose number is in memory, recognised by their shape. Each entry says which program text makes it and which numbers it can be.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::image::Image;

/// A recognised shape.
pub struct Pattern {
    /// Name in evidence.
    pub name: &'static str,
    /// The numbers.
    pub numbers: &'static [u32],
}

/// setuid, setgid, setreuid, setregid, setgroups, setresuid, setresgid: the calls that change the credentials of all threads (nptl(7)).
const SETXID: [u32; 7] = [105, 106, 113, 114, 116, 117, 119];

/// Libraries whose sources say which numbers their memory can hold: soname, name of the pattern, numbers.
const LIBRARIES: &[(&str, &str, &[u32])] = &[
    // libpsx repeats on every thread the call that its caller passed to psx_syscall, where the number is resolved (libcap, psx/psx.c).
    ("libpsx.so.2", "psx-all-threads", &[]),
    // libseccomp looks the number of seccomp(2) up in its own table, since it may be built for an older kernel (src/system.c).
    ("libseccomp.so.2", "seccomp-by-name", &[317]),
];

/// Returns the pattern that the code before a site with a number from memory has.
pub fn recognise(image: &Image<'_>, at: u64, before: &[Instruction]) -> Option<Pattern> {
    if image.is_go {
        // runtime.runPerThreadSyscall repeats, on every thread, the call that syscall.AllThreadsSyscall made on its own (with a number that is
        // resolved there), so it adds none.
        let name = image.name_at(at).unwrap_or_default();
        if name == "runtime.runPerThreadSyscall" {
            return Some(Pattern { name: "go-all-threads", numbers: &[] });
        }
    }
    if let Some((_, name, numbers)) = LIBRARIES.iter().find(|(soname, ..)| image.soname == Some(soname.as_bytes())) {
        return Some(Pattern { name, numbers });
    }
    // The `syscall` functions of perl and ruby pass on a number that a script gives. Scripts are looked at as scripts (see `script`); that every
    // interpreter could make every call would be true and useless.
    if let Some(name) = image.name_at(at).filter(|n| n == "Perl_pp_syscall" || n == "rb_f_syscall") {
        return Some(Pattern { name: if name.starts_with('P') { "perl-syscall" } else { "ruby-syscall" }, numbers: &[] });
    }
    is_setxid(before).then_some(Pattern { name: "setxid", numbers: &SETXID })
}

/// glibc `struct xid_command { int syscall_no; long id[3]; ... }` (nptl/descr.h) and musl `struct ctx { int id, eid, sid; int nr, ret; }`
/// (src/unistd/setxid.c): number and arguments come out of one structure.
fn is_setxid(before: &[Instruction]) -> bool {
    let window = &before[before.len().saturating_sub(16)..];
    let load_of = |register: Register| {
        window
            .iter()
            .rev()
            .find(|i| i.op_count() == 2 && i.op0_kind() == OpKind::Register && i.op0_register().full_register() == register)
            .filter(|i| {
                matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Movsxd) && i.op1_kind() == OpKind::Memory && !i.is_ip_rel_memory_operand()
            })
    };
    // Follow copies from the register in which the number was loaded.
    let mut register = Register::RAX;
    for _ in 0..3 {
        let copy = window
            .iter()
            .rev()
            .find(|i| i.op_count() == 2 && i.op0_kind() == OpKind::Register && i.op0_register().full_register() == register);
        match copy {
            Some(i) if i.op1_kind() == OpKind::Register && matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Movsxd | Mnemonic::Cdqe) => {
                register = i.op1_register().full_register();
            }
            _ => break,
        }
    }
    let Some(number) = load_of(register) else { return false };
    let (base, displacement) = (number.memory_base(), number.memory_displacement64());
    let ids = match displacement {
        0 => [8, 16, 24],
        12 => [0, 4, 8],
        _ => return false,
    };
    // The structure's address may be in two registers.
    let copies: Vec<Register> = window
        .iter()
        .filter(|i| i.mnemonic() == Mnemonic::Mov && i.op1_kind() == OpKind::Register && i.op0_kind() == OpKind::Register)
        .filter(|i| i.op0_register() == base || i.op1_register() == base)
        .map(|i| if i.op0_register() == base { i.op1_register() } else { i.op0_register() })
        .collect();
    let from_same = |d: u64| {
        window.iter().any(|i| {
            matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Movsxd)
                && i.op_count() == 2
                && i.op1_kind() == OpKind::Memory
                && (i.memory_base() == base || copies.contains(&i.memory_base()))
                && i.memory_displacement64() == d
        })
    };
    ids.iter().filter(|&&d| from_same(d)).count() >= 2
}
