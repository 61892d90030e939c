//! Bootable disks: kernel, root file system and boot loaders → a raw disk, and the forms of it that clouds take.
//!
//! ```text
//! sector 0       protective MBR with the BIOS loader's stage 1          ukc-gpt, ukc-runtime-boot
//! 1..33          partition table
//! partition 1    BIOS boot: stage 2
//! partition 2    EFI system partition: FAT12 with EFI/BOOT/BOOTX64.EFI  ukc-fat
//! partition 3    load table and kernel                                  ukc-load-table
//! partition 4    root: the ext4 image
//! last 33        the partition table again
//! ```
//!
//! Partitions begin on 4 KiB boundaries and stand close together: a disk is the root file system and about 100 KiB more, besides the kernel. GUIDs come from
//! what is on the disk, so equal images give equal disks. Holes of the root's file stay holes where the host's file system has them.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use rustix::fs::copy_file_range;
use sha2::{Digest as _, Sha256};
use ukc_gpt::{Disk, FIRST_USABLE_LBA, Guid, Partition, SECTOR, TAIL_SECTORS, TYPE_BIOS_BOOT, TYPE_ESP, TYPE_KERNEL, TYPE_ROOT_X86_64};
use ukc_load_table::{KernelFormat, LoadTable, TABLE_BYTES, xxh64};

use crate::ImageError;

/// Sectors of 4 KiB: where partitions begin.
const ALIGN: u64 = 8;

/// The boot loaders, from `ukc-runtime-boot`.
#[derive(Clone, Copy)]
pub struct Loaders<'a> {
    /// Boot code of sector 0 for a stage 2 at a sector.
    pub stage1: fn(u64) -> Vec<u8>,
    /// The BIOS loader, whole sectors.
    pub stage2: &'a [u8],
    /// The UEFI loader.
    pub efi: &'a [u8],
}

/// What goes on a disk.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The kernel's file: ELF, or a bzImage.
    pub kernel: &'a [u8],
    /// What the kernel is told; `{root}` in it becomes the GUID of the root partition.
    pub command_line: &'a str,
    /// The root file system's file.
    pub root: &'a Path,
    /// Whether the loader brings the root file system to memory, for machines with disks that the kernel cannot read.
    pub is_root_in_memory: bool,
    /// The boot loaders.
    pub loaders: Loaders<'a>,
    /// A digest of all of this but the loaders; the GUIDs come from it.
    pub identity: [u8; 32],
    /// The disk's size is a multiple of this many bytes, itself a multiple of 512.
    pub align_bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Size of the disk.
    pub len_bytes: u64,
    /// Its GUID.
    pub guid: Guid,
}

/// Returns a GUID for the `n`-th thing on a disk; 0 is the disk itself.
fn guid(identity: &[u8; 32], n: u8) -> Guid {
    let hash: [u8; 32] = Sha256::new().chain_update(identity).chain_update([n]).finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Guid::from_hash(bytes)
}

/// Returns what a kernel's file is.
fn format(kernel: &[u8]) -> Option<KernelFormat> {
    if kernel.starts_with(b"\x7fELF") {
        return Some(KernelFormat::Elf);
    }
    (kernel.get(0x202..0x206) == Some(b"HdrS")).then_some(KernelFormat::BzImage)
}

/// Writes a raw disk into an empty file.
///
/// # Errors
/// [`ImageError`].
pub fn write_raw(parts: &Parts<'_>, out: &File, out_path: &Path) -> Result<Written, ImageError> {
    let failed = |source| ImageError::Write { path: out_path.to_owned(), source };
    let unreadable = |source| ImageError::Read { path: parts.root.to_owned(), source };
    let unfit = |what: &dyn std::fmt::Display| failed(io::Error::new(io::ErrorKind::InvalidInput, what.to_string()));
    let format = format(parts.kernel).ok_or_else(|| unfit(&"the kernel is neither an ELF file nor a bzImage"))?;
    let root = File::open(parts.root).map_err(unreadable)?;
    let root_len = root.metadata().map_err(unreadable)?.len();

    let guid = |n| guid(&parts.identity, n);
    let disk_guid = guid(0);
    let volume_id = u32::from_le_bytes([disk_guid.0[0], disk_guid.0[1], disk_guid.0[2], disk_guid.0[3]]);
    let esp = ukc_fat::image(&[("EFI/BOOT/BOOTX64.EFI", parts.loaders.efi)], volume_id).map_err(|e| unfit(&e))?;
    let kernel_len = TABLE_BYTES as u64 + parts.kernel.len() as u64;
    let mut next = FIRST_USABLE_LBA;
    let mut partitions = Vec::new();
    let contents = [
        (TYPE_BIOS_BOOT, "BIOS boot", parts.loaders.stage2.len() as u64),
        (TYPE_ESP, "EFI system", esp.len() as u64),
        (TYPE_KERNEL, "kernel", kernel_len),
        (TYPE_ROOT_X86_64, "root", root_len),
    ];
    for (n, (kind, name, len)) in contents.into_iter().enumerate() {
        let start = next.next_multiple_of(ALIGN);
        next = start + len.div_ceil(SECTOR as u64).max(1);
        partitions.push(Partition { kind, guid: guid(n as u8 + 1), sectors: start..next, name: name.to_owned() });
    }
    let sectors = (next + TAIL_SECTORS).next_multiple_of((parts.align_bytes / SECTOR as u64).max(1));
    // From here on everything has its place.
    let at: Vec<u64> = partitions.iter().map(|p| p.sectors.start).collect();
    let command_line = parts.command_line.replace("{root}", &partitions[3].guid.to_string());
    let (initrd_lba, initrd_len_bytes) = if parts.is_root_in_memory { (at[3], root_len) } else { (0, 0) };
    let table = LoadTable {
        format,
        kernel_offset: TABLE_BYTES as u64,
        kernel_len_bytes: parts.kernel.len() as u64,
        kernel_hash: xxh64(parts.kernel),
        initrd_lba,
        initrd_len_bytes,
        disk_sectors: sectors,
        command_line: command_line.as_bytes(),
    };
    let table = table.encode().map_err(|e| unfit(&e))?;
    let disk = Disk { guid: disk_guid, sectors, partitions };
    let (head, tail) = disk.encode(&(parts.loaders.stage1)(at[0])).map_err(|e| unfit(&e))?;

    let len_bytes = sectors * SECTOR as u64;
    out.set_len(len_bytes).map_err(failed)?;
    let mut out = out;
    let mut put =
        |lba: u64, bytes: &[u8]| out.seek(SeekFrom::Start(lba * SECTOR as u64)).and_then(|_| out.write_all(bytes)).map_err(failed);
    put(0, &head)?;
    put(at[0], parts.loaders.stage2)?;
    put(at[1], &esp)?;
    put(at[2], &table)?;
    put(at[2] + (TABLE_BYTES / SECTOR) as u64, parts.kernel)?;
    put(sectors - TAIL_SECTORS, &tail)?;
    copy(&root, root_len, out, at[3] * SECTOR as u64).map_err(failed)?;
    Ok(Written { len_bytes, guid: disk_guid })
}

/// Copies a file into an empty one, holes included.
pub(crate) fn copy_file(from: &File, to: &File) -> io::Result<()> {
    let len = from.metadata()?.len();
    to.set_len(len)?;
    copy(from, len, to, 0)
}

/// Copies a file into another one at an offset, without its holes, inside the host's kernel where that can.
fn copy(from: &File, len: u64, to: &File, to_at: u64) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let start = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start.min(len),
            // The rest is a hole.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(_) => at,
        };
        let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(start)).unwrap_or(len).clamp(start, len);
        let end = if end == start { len } else { end };
        copy_bytes(from, start..end, to, to_at + start)?;
        at = end;
    }
    Ok(())
}

fn copy_bytes(from: &File, bytes: std::ops::Range<u64>, to: &File, to_at: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (bytes.start, to_at);
    while read_at < bytes.end {
        let left = usize::try_from(bytes.end - read_at).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), left) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the root file system became shorter meanwhile")),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Another file system, or one that cannot.
            Err(_) => {
                let (mut from, mut to) = (from, to);
                from.seek(SeekFrom::Start(read_at))?;
                to.seek(SeekFrom::Start(write_at))?;
                let left = bytes.end - read_at;
                if io::copy(&mut from.take(left), &mut to)? != left {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the root file system became shorter meanwhile"));
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Appends the footer that makes a raw disk a fixed VHD.
///
/// # Errors
/// [`ImageError::Write`].
pub fn append_vhd_footer(disk: &Written, out: &File, out_path: &Path) -> Result<(), ImageError> {
    let mut out = out;
    let footer = ukc_vhd::footer(disk.len_bytes, disk.guid.0);
    let done = out.seek(SeekFrom::Start(disk.len_bytes)).and_then(|_| out.write_all(&footer));
    done.map_err(|source| ImageError::Write { path: out_path.to_owned(), source })
}

/// Writes a raw disk as qcow2.
///
/// # Errors
/// [`ImageError::Write`]; it names the qcow2 file for trouble with either.
pub fn write_qcow2(raw: &File, len_bytes: u64, out: &File, out_path: &Path) -> Result<(), ImageError> {
    qcow2(raw, len_bytes, out).map_err(|source| ImageError::Write { path: out_path.to_owned(), source })
}

fn qcow2(raw: &File, len_bytes: u64, out: &File) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let clusters = len_bytes.div_ceil(ukc_qcow2::CLUSTER as u64);
    let mut buffer = vec![0; ukc_qcow2::CLUSTER];
    let cluster = |n: u64, buffer: &mut [u8]| -> io::Result<()> {
        let at = n * ukc_qcow2::CLUSTER as u64;
        let len = (len_bytes - at).min(buffer.len() as u64) as usize;
        buffer[len..].fill(0);
        raw.read_exact_at(&mut buffer[..len], at)
    };
    let mut is_used = Vec::with_capacity(clusters as usize);
    for n in 0..clusters {
        // A hole need not be read.
        let next_data = rustix::fs::seek(raw, rustix::fs::SeekFrom::Data(n * ukc_qcow2::CLUSTER as u64));
        let is_hole = match next_data {
            Ok(at) => at >= (n + 1) * ukc_qcow2::CLUSTER as u64,
            Err(e) => e == rustix::io::Errno::NXIO,
        };
        if is_hole {
            is_used.push(false);
            continue;
        }
        cluster(n, &mut buffer)?;
        is_used.push(buffer.chunks_exact(16).any(|c| c != [0; 16]));
    }
    let mut out = io::BufWriter::with_capacity(1 << 20, out);
    out.write_all(&ukc_qcow2::metadata(len_bytes, &is_used))?;
    for n in (0..clusters).filter(|n| is_used[*n as usize]) {
        cluster(n, &mut buffer)?;
        out.write_all(&buffer)?;
    }
    out.flush()
}
