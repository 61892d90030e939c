//! From a file to a runnable address space: what execve(2) does before the old program is gone.
//!
//! [`load`] builds a *new* address space and returns it with the first register values; nothing of the running program changes before all of it
//! succeeded. So unlike on Linux, a program that cannot be loaded is an error of execve(2) in all cases, never a signal.
//!
//! | file | what it is for |
//! |---|---|
//! | `elf` | headers of ELF files, checked |
//! | `script` | `#!` lines |
//! | `layout` | where things go, with address-space randomisation |
//! | `stack` | arguments, environment, auxiliary vector |
//! | `vdso` | the kernel's code that programs call for the time |
//!
//! Differences from Linux: the file of a running program may be written to (`ETXTBSY` is never answered); file capabilities (xattr
//! `security.capability`) are ignored; no other binary formats (`binfmt_misc`).

pub mod elf;
mod layout;
pub mod script;
pub mod stack;
pub mod vdso;

use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_abi::general as linux;
use libos_abi::{Errno, Result, auxvec};

use crate::file::{OpenFile, OpenFlags};
use crate::mm::address_space::ProgramInfo;
use crate::mm::{AddressSpace, Limits, MapRequest, PAGE_SIZE, PageSource, Placement, Protection, VmaFlags};
use crate::task::{Credentials, Task};
use crate::vfs::open::check_place;
use crate::vfs::permission::Want;
use crate::vfs::{PathRef, lookup};

use elf::{HEADER_BYTES, Header, Program};
use layout::Layout;
pub use stack::Strings;

/// A program that is ready to run.
pub struct Loaded {
    /// Its memory.
    pub mm: Arc<AddressSpace>,
    /// Address of the first instruction: the dynamic linker's, if there is one.
    pub entry: usize,
    /// Initial stack pointer.
    pub stack_pointer: usize,
    /// Name of the task from now on (`PR_GET_NAME`), NUL-padded.
    pub name: [u8; 16],
    /// Credentials from now on.
    pub creds: Credentials,
    /// Whether the program runs with more rights than its caller (`AT_SECURE`).
    pub is_secure: bool,
}

/// Bytes of stack that are mapped below the arguments at first; the rest grows (Linux, `setup_arg_pages`).
const INITIAL_STACK_BYTES: usize = 128 << 10;

/// Loads the program at `place`, named `path` by the caller.
///
/// # Errors
/// As execve(2): `EACCES`, `ENOEXEC`, `E2BIG`, `ELIBBAD`, `ELOOP`, `ENOENT` for a missing interpreter, `EINVAL`, `EIO`, `ENOMEM`.
pub fn load(task: &Task, place: PathRef, path: &[u8], args: Strings, env: Strings) -> Result<Loaded> {
    let limits = Limits::of(task);
    args.check_total(&env, limits.stack_bytes)?;
    let (file, args) = resolve_scripts(task, place, path, args)?;
    args.check_total(&env, limits.stack_bytes)?;
    let source = file.ops.page_source(&file).map_err(|_| Errno::EACCES)?;
    let (header, program) = read_program(&*source)?.ok_or(Errno::ENOEXEC)?;
    let interpreter = match &program.interpreter {
        Some(range) => Some(open_interpreter(task, &*source, range.start, (range.end - range.start) as usize)?),
        None => None,
    };
    if program.segments.is_empty() {
        return Err(Errno::EINVAL);
    }
    let creds = credentials_after(&task.creds(), &file)?;
    let is_secure = creds.euid != creds.uid || creds.egid != creds.gid;

    let mm = AddressSpace::new()?;
    let layout = Layout::random(limits.stack_bytes);
    let bias =
        if header.is_position_independent { (layout.program_base & !(program.align - 1)).wrapping_sub(program.span().start) } else { 0 };
    // The real place is known only after the program is mapped: until then, mappings go below the stack.
    mm.set_layout(layout.mmap_top, 0);
    map_segments(&mm, &file, &source, &program, bias, &limits)?;
    let program_end = program.span().end.wrapping_add(bias);
    mm.set_layout(layout.mmap_top, (program_end + layout.brk_offset) & !(PAGE_SIZE - 1));
    let (entry, interpreter_base) = match &interpreter {
        Some((file, source, header, program)) => {
            let base = if header.is_position_independent {
                let span = program.span();
                mm.find_free(span.len() + program.align - PAGE_SIZE)?.next_multiple_of(program.align).wrapping_sub(span.start)
            } else {
                0
            };
            map_segments(&mm, file, source, program, base, &limits)?;
            (header.entry.wrapping_add(base), base)
        }
        None => (header.entry.wrapping_add(bias), 0),
    };
    if entry >= crate::arch::addr::USER_END {
        return Err(Errno::ENOEXEC);
    }

    let vdso_base = vdso::map(&mm, layout.vdso_base);
    let random = layout.random_bytes;
    let mut auxv: Vec<(usize, usize)> = Vec::new();
    auxv.try_reserve(24).map_err(|_| Errno::ENOMEM)?;
    let mut aux = |kind: u32, value: usize| auxv.push((kind as usize, value));
    if let Some(base) = vdso_base {
        aux(auxvec::AT_SYSINFO_EHDR, base);
    }
    let headers_addr = if program.headers_addr == 0 { 0 } else { program.headers_addr.wrapping_add(bias) };
    aux(auxvec::AT_MINSIGSTKSZ, MIN_SIGNAL_STACK);
    aux(auxvec::AT_HWCAP, layout::hwcap() as usize);
    aux(auxvec::AT_PAGESZ, PAGE_SIZE);
    // Ticks per second of times(2).
    aux(auxvec::AT_CLKTCK, 100);
    aux(auxvec::AT_PHDR, headers_addr);
    aux(auxvec::AT_PHENT, elf::PROGRAM_HEADER_BYTES);
    aux(auxvec::AT_PHNUM, header.count);
    aux(auxvec::AT_BASE, interpreter_base);
    aux(auxvec::AT_FLAGS, 0);
    aux(auxvec::AT_ENTRY, header.entry.wrapping_add(bias));
    aux(auxvec::AT_UID, creds.uid as usize);
    aux(auxvec::AT_EUID, creds.euid as usize);
    aux(auxvec::AT_GID, creds.gid as usize);
    aux(auxvec::AT_EGID, creds.egid as usize);
    aux(auxvec::AT_SECURE, is_secure as usize);
    aux(auxvec::AT_HWCAP2, 0);
    let image = stack::build(layout.stack_top, &args, &env, path, &random, auxv)?;
    map_stack(&mm, layout.stack_top, image.bytes.len(), program.executable_stack)?;
    mm.write_bytes(image.start, &image.bytes)?;
    mm.set_program(ProgramInfo { args: image.args, env: image.env, auxv: image.auxv, exe: Some(file) });
    Ok(Loaded { mm, entry, stack_pointer: image.start, name: short_name(path), creds, is_secure })
}

/// Bytes a signal frame takes with the largest register state we save, rounded up (`AT_MINSIGSTKSZ`; getauxval(3)).
const MIN_SIGNAL_STACK: usize = 3632;

/// The last component of a path, as `comm` shows it.
fn short_name(path: &[u8]) -> [u8; 16] {
    let base = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let len = base.len().min(15);
    let mut name = [0; 16];
    name[..len].copy_from_slice(&base[..len]);
    name
}

/// Follows `#!` lines to the program that will run, and rewrites the arguments on the way.
fn resolve_scripts(task: &Task, place: PathRef, path: &[u8], mut args: Strings) -> Result<(Arc<OpenFile>, Strings)> {
    let mut file = open_program(task, place)?;
    let mut path = path.to_vec();
    for depth in 0.. {
        let source = file.ops.page_source(&file).map_err(|_| Errno::EACCES)?;
        let mut peek = [0; script::PEEK_BYTES];
        let len = read_at(&*source, 0, &mut peek)?;
        if !peek[..len].starts_with(b"#!") {
            break;
        }
        if depth == script::DEPTH_MAX {
            return Err(Errno::ELOOP);
        }
        let script = script::parse(&peek[..len]).ok_or(Errno::ENOEXEC)?;
        let mut new = Strings::default();
        new.push(&script.interpreter)?;
        if let Some(argument) = &script.argument {
            new.push(argument)?;
        }
        new.push(&path)?;
        for rest in args.iter().skip(1) {
            new.push(rest)?;
        }
        args = new;
        file = open_program(task, lookup(task, &script.interpreter)?)?;
        path = script.interpreter;
    }
    Ok((file, args))
}

/// Opens a file for execution: it must be a regular file with execute permission; read permission is not needed.
fn open_program(task: &Task, place: PathRef) -> Result<Arc<OpenFile>> {
    let attributes = place.inode().attributes()?;
    if !attributes.is_regular() {
        return Err(Errno::EACCES);
    }
    check_place(&task.creds(), &place, attributes, Want::EXEC)?;
    let ops = place.inode().clone().open(OpenFlags::empty())?;
    Ok(OpenFile::new(ops, OpenFlags::empty(), Some(place)))
}

/// Reads bytes of a file; fewer than asked for at its end.
fn read_at(source: &dyn PageSource, offset: u64, dst: &mut [u8]) -> Result<usize> {
    let len = source.len_bytes().saturating_sub(offset).min(dst.len() as u64) as usize;
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let in_page = (at % PAGE_SIZE as u64) as usize;
        let piece = (PAGE_SIZE - in_page).min(len - done);
        source.page(at / PAGE_SIZE as u64, false)?.read(in_page, &mut dst[done..done + piece]);
        done += piece;
    }
    Ok(len)
}

/// Reads the headers of a program; `None` when it is no ELF program for this machine or its program headers cannot be read.
fn read_program(source: &dyn PageSource) -> Result<Option<(Header, Program)>> {
    let mut start = [0; HEADER_BYTES];
    let len = read_at(source, 0, &mut start)?;
    let Some(header) = Header::parse(&start[..len]) else { return Ok(None) };
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(header.program_headers_bytes()).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(header.program_headers_bytes(), 0);
    if read_at(source, header.program_headers, &mut bytes)? < bytes.len() {
        return Ok(None);
    }
    let program = Program::parse(&header, &bytes)?;
    Ok(Some((header, program)))
}

type Interpreter = (Arc<OpenFile>, Arc<dyn PageSource>, Header, Program);

/// Opens the dynamic linker that a program names.
fn open_interpreter(task: &Task, program: &dyn PageSource, offset: u64, len: usize) -> Result<Interpreter> {
    let mut path = Vec::new();
    path.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    path.resize(len, 0);
    if read_at(program, offset, &mut path)? < len {
        return Err(Errno::EIO);
    }
    // Linux wants the NUL at the end of the segment (`load_elf_binary`).
    if path.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    let path = path.split(|b| *b == 0).next().unwrap_or_default();
    let file = open_program(task, lookup(task, path)?)?;
    let source = file.ops.page_source(&file).map_err(|_| Errno::EACCES)?;
    if source.len_bytes() < HEADER_BYTES as u64 {
        return Err(Errno::EIO);
    }
    match read_program(&*source) {
        Ok(Some((header, program))) if !program.segments.is_empty() => Ok((file, source, header, program)),
        Ok(Some(_)) => Err(Errno::EINVAL),
        Ok(None) | Err(Errno::EINVAL | Errno::ENOEXEC) => Err(Errno::ELIBBAD),
        Err(errno) => Err(errno),
    }
}

/// Maps the segments of a program, moved by `bias`.
fn map_segments(
    mm: &AddressSpace,
    file: &Arc<OpenFile>,
    source: &Arc<dyn PageSource>,
    program: &Program,
    bias: usize,
    limits: &Limits,
) -> Result<()> {
    let flags = VmaFlags::MAY_WRITE | VmaFlags::MAY_EXEC;
    for segment in &program.segments {
        let start = segment.memory.start.wrapping_add(bias);
        let (in_page, end) = (start % PAGE_SIZE, start + segment.memory.len());
        let file_end = start + segment.file_bytes;
        let mut zeros_from = start - in_page;
        if segment.file_bytes > 0 {
            zeros_from = file_end.next_multiple_of(PAGE_SIZE);
            mm.map(MapRequest {
                placement: Placement::Fixed(start - in_page),
                len_bytes: zeros_from - (start - in_page),
                protection: segment.protection,
                flags,
                source: Some((source.clone(), segment.offset - in_page as u64)),
                file: Some(file.clone()),
                limits: *limits,
                populate: false,
            })?;
            // The rest of the last page is bss, when there is bss; what the file has there must go. Read-only segments keep it, as on Linux.
            if end > file_end && file_end < zeros_from && segment.protection.contains(Protection::WRITE) {
                let len = zeros_from - file_end;
                mm.clear_bytes(file_end, len).map_err(|errno| if errno == Errno::EFAULT { Errno::ENOEXEC } else { errno })?;
            }
        }
        let zeros_end = end.next_multiple_of(PAGE_SIZE);
        if zeros_end > zeros_from {
            mm.map(MapRequest {
                placement: Placement::Fixed(zeros_from),
                limits: *limits,
                ..MapRequest::anonymous(zeros_end - zeros_from, segment.protection)
            })?;
        }
    }
    Ok(())
}

fn map_stack(mm: &AddressSpace, top: usize, used: usize, is_executable: bool) -> Result<()> {
    let mut protection = Protection::READ | Protection::WRITE;
    protection.set(Protection::EXEC, is_executable);
    let end = top.next_multiple_of(PAGE_SIZE);
    let start = (top - used - INITIAL_STACK_BYTES) & !(PAGE_SIZE - 1);
    mm.map(MapRequest {
        placement: Placement::FixedNoReplace(start),
        flags: VmaFlags::MAY_WRITE | VmaFlags::MAY_EXEC | VmaFlags::GROWS_DOWN | VmaFlags::STACK,
        ..MapRequest::anonymous(end - start, protection)
    })?;
    Ok(())
}

/// Credentials after execve(2): set-user-ID and set-group-ID bits, capabilities of root (capabilities(7), "Transformation of capabilities during execve").
fn credentials_after(old: &Credentials, file: &OpenFile) -> Result<Credentials> {
    let mut new = old.clone();
    if let Some(place) = &file.path {
        let attributes = place.inode().attributes()?;
        let may_change = !old.no_new_privs && !place.mount.flags().contains(crate::vfs::mount::MountFlags::NOSUID);
        if may_change && attributes.mode & linux::S_ISUID != 0 {
            new.euid = attributes.uid;
        }
        // Without group execute permission the bit means mandatory locking (inode(7)).
        if may_change && attributes.mode & (linux::S_ISGID | linux::S_IXGRP) == linux::S_ISGID | linux::S_IXGRP {
            new.egid = attributes.gid;
        }
    }
    let gained = new.euid != old.euid || new.egid != old.egid;
    (new.suid, new.fsuid) = (new.euid, new.euid);
    (new.sgid, new.fsgid) = (new.egid, new.egid);
    if gained {
        new.ambient = 0;
    }
    if new.euid == 0 || new.uid == 0 {
        new.permitted = old.inheritable | old.bounding;
        new.effective = if new.euid == 0 { new.permitted } else { new.ambient };
    } else {
        new.permitted = new.ambient;
        new.effective = new.ambient;
    }
    Ok(new)
}
