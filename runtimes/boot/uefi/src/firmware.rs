//! UEFI's services as functions (UEFI 2.10: 7 "Services - Boot Services", 13.9 "Block I/O Protocol", 10 "Device Path Protocol").

use core::fmt;
use core::ptr::{self, NonNull};

use r_efi::efi;
use r_efi::protocols::{block_io, device_path, loaded_image};
use ukc_boot_load::{Machine, MemoryKind, Place, Problem, Ram, ZeroPage};

const SECTOR: usize = 512;
const PAGE: u64 = 4096;
/// Short reads go through a page of our own, because a device may want its buffers aligned; long ones go where they belong, in pieces of this size.
const PIECE: usize = 4 << 20;
const LOW_END: u64 = 1 << 30;
const MAPPED_END: u64 = 1 << 32;
/// The kernel's place when something of the firmware's is there: the bytes wait elsewhere until the firmware is gone.
#[derive(Debug, Clone, Copy)]
pub struct Move {
    /// Where they are.
    pub from: u64,
    /// Where they go.
    pub to: u64,
    /// How many.
    pub len_bytes: u64,
}

/// The machine as UEFI shows it.
pub struct Firmware {
    image: efi::Handle,
    table: *mut efi::SystemTable,
    disk: NonNull<block_io::Protocol>,
    bounce: u64,
    /// Filled in when the kernel's place is taken.
    pub pending: Option<Move>,
}

fn check(status: efi::Status, what: &'static str) -> Result<(), Problem> {
    if status.is_error() { Err(Problem::Machine(what)) } else { Ok(()) }
}

impl Firmware {
    /// Finds the disk that this program was loaded from.
    ///
    /// # Errors
    /// [`Problem::Machine`].
    pub fn new(image: efi::Handle, table: *mut efi::SystemTable) -> Result<Firmware, Problem> {
        if Firmware::new as *const () as u64 >= MAPPED_END {
            return Err(Problem::Machine("the firmware put the boot loader above 4 GiB"));
        }
        let mut firmware = Firmware { image, table, disk: NonNull::dangling(), bounce: 0, pending: None };
        firmware.bounce = firmware.allocate(efi::ALLOCATE_ANY_PAGES, PAGE, 0).ok_or(Problem::Memory { len_bytes: PAGE, at: 0 })?;
        firmware.disk = firmware.find_disk()?;
        if firmware.media().block_size != SECTOR as u32 {
            return Err(Problem::Machine("the sectors of this disk are not of 512 bytes"));
        }
        // SAFETY: as for every service below: the table is the firmware's and boot services are available.
        unsafe { ((*firmware.services()).set_watchdog_timer)(0, 0, 0, ptr::null_mut()) };
        Ok(firmware)
    }

    fn services(&self) -> *mut efi::BootServices {
        // SAFETY: the firmware passed the table to the entry, and it is valid until the kernel runs.
        unsafe { (*self.table).boot_services }
    }

    fn protocol<T>(&self, handle: efi::Handle, guid: efi::Guid) -> Option<NonNull<T>> {
        let mut guid = guid;
        let mut interface = ptr::null_mut();
        // SAFETY: a call as UEFI describes it; `T` is the type of the protocol with this GUID.
        let status = unsafe { ((*self.services()).handle_protocol)(handle, &raw mut guid, &raw mut interface) };
        NonNull::new(interface.cast()).filter(|_| !status.is_error())
    }

    /// The disk is the device of our file system without the last node of its path, which says which partition it is.
    fn find_disk(&self) -> Result<NonNull<block_io::Protocol>, Problem> {
        const NOT_FOUND: Problem = Problem::Machine("the firmware does not say which disk this is");
        let image = self.protocol::<loaded_image::Protocol>(self.image, loaded_image::PROTOCOL_GUID).ok_or(NOT_FOUND)?;
        // SAFETY: the firmware's structure.
        let device = unsafe { image.as_ref().device_handle };
        let path = self.protocol::<device_path::Protocol>(device, device_path::PROTOCOL_GUID).ok_or(NOT_FOUND)?;
        let copy = self.disk_path(path.as_ptr().cast()).ok_or(NOT_FOUND)?;
        let mut guid = block_io::PROTOCOL_GUID;
        let mut rest: *mut device_path::Protocol = copy.cast();
        let mut handle = ptr::null_mut();
        // SAFETY: a call as UEFI describes it; the path ends with an end node.
        let status = unsafe { ((*self.services()).locate_device_path)(&raw mut guid, &raw mut rest, &raw mut handle) };
        check(status, "the firmware has no driver for this disk")?;
        self.protocol(handle, block_io::PROTOCOL_GUID).ok_or(NOT_FOUND)
    }

    /// Copies a device path without its partition into the bounce page. A node: type, subtype, length u16 with these four bytes.
    fn disk_path(&self, path: *const u8) -> Option<*mut u8> {
        let copy = self.bounce as *mut u8;
        let (mut at, mut last) = (0usize, None);
        loop {
            // SAFETY: the firmware's path is a row of nodes up to an end node.
            let node = unsafe { path.add(at).cast::<[u8; 4]>().read() };
            if node[0] == device_path::TYPE_END {
                break;
            }
            let len = usize::from(u16::from_le_bytes([node[2], node[3]]));
            if len < 4 || at + len > PAGE as usize - 4 {
                return None;
            }
            // SAFETY: `len` bytes of a node, into a page of ours with room for them.
            unsafe { ptr::copy_nonoverlapping(path.add(at), copy.add(at), len) };
            last = Some(at);
            at += len;
        }
        // SAFETY: inside the page.
        unsafe { copy.add(last?).cast::<[u8; 4]>().write([device_path::TYPE_END, device_path::End::SUBTYPE_ENTIRE, 4, 0]) };
        Some(copy)
    }

    fn media(&self) -> block_io::Media {
        // SAFETY: the firmware's structure, which it keeps up to date.
        unsafe { *self.disk.as_ref().media }
    }

    /// Allocates whole pages.
    pub fn allocate(&self, how: efi::AllocateType, len_bytes: u64, addr: u64) -> Option<u64> {
        let mut addr = addr;
        // SAFETY: a call as UEFI describes it.
        let status =
            unsafe { ((*self.services()).allocate_pages)(how, efi::LOADER_DATA, len_bytes.div_ceil(PAGE) as usize, &raw mut addr) };
        (!status.is_error()).then_some(addr)
    }

    /// Returns where the ACPI tables are.
    pub fn rsdp(&self) -> Option<u64> {
        // SAFETY: the firmware's array.
        let tables = unsafe { core::slice::from_raw_parts((*self.table).configuration_table, (*self.table).number_of_table_entries) };
        let of = |guid: efi::Guid| tables.iter().find(|t| t.vendor_guid == guid).map(|t| t.vendor_table as u64);
        of(r_efi::system::ACPI_20_TABLE_GUID).or_else(|| of(r_efi::system::ACPI_10_TABLE_GUID))
    }

    /// Ends the firmware's reign and writes the memory map that is then true.
    ///
    /// # Errors
    /// [`Problem::Machine`]; the firmware is still there then.
    pub fn exit(&mut self, zero_page: &mut ZeroPage) -> Result<(), Problem> {
        const BYTES: u64 = 64 << 10;
        const FAILED: &str = "the firmware does not end its services";
        let map = self.allocate(efi::ALLOCATE_ANY_PAGES, BYTES, 0).ok_or(Problem::Memory { len_bytes: BYTES, at: 0 })?;
        // The firmware may change its memory while it prepares to leave; then the map is old and both calls are to be repeated.
        for attempt in 0.. {
            let (mut len, mut key, mut size, mut version) = (BYTES as usize, 0, 0, 0);
            // SAFETY: a call as UEFI describes it, with `len` bytes of ours.
            let status =
                unsafe { ((*self.services()).get_memory_map)(&raw mut len, map as *mut _, &raw mut key, &raw mut size, &raw mut version) };
            check(status, FAILED)?;
            let entries = || {
                // SAFETY: the firmware wrote `len` bytes in entries of `size`.
                (0..len / size).map(|i| unsafe { ((map as usize + i * size) as *const efi::MemoryDescriptor).read_unaligned() })
            };
            self.check_pending(entries())?;
            // SAFETY: a call as UEFI describes it.
            let status = unsafe { ((*self.services()).exit_boot_services)(self.image, key) };
            if status.is_error() && attempt < 4 {
                continue;
            }
            check(status, FAILED)?;
            for entry in entries() {
                zero_page.add_memory(entry.physical_start, entry.number_of_pages * PAGE, kind(entry.r#type));
            }
            break;
        }
        Ok(())
    }

    /// The kernel's place may only be memory that the firmware leaves behind and that is none of ours.
    fn check_pending(&self, map: impl Iterator<Item = efi::MemoryDescriptor>) -> Result<(), Problem> {
        let Some(pending) = self.pending else { return Ok(()) };
        let (start, end) = (pending.to, pending.to + pending.len_bytes);
        let is_left = |kind| matches!(kind, efi::BOOT_SERVICES_CODE | efi::BOOT_SERVICES_DATA | efi::CONVENTIONAL_MEMORY);
        let overlap =
            |e: &efi::MemoryDescriptor| (e.physical_start + e.number_of_pages * PAGE).min(end).saturating_sub(e.physical_start.max(start));
        let covered: u64 = map.filter(|e| is_left(e.r#type)).map(|e| overlap(&e)).sum();
        if covered == pending.len_bytes { Ok(()) } else { Err(Problem::Memory { len_bytes: pending.len_bytes, at: start }) }
    }
}

/// What the kernel may do with memory of a type (UEFI 2.10, table 7-10).
fn kind(memory: u32) -> MemoryKind {
    match memory {
        efi::LOADER_CODE | efi::LOADER_DATA | efi::BOOT_SERVICES_CODE | efi::BOOT_SERVICES_DATA | efi::CONVENTIONAL_MEMORY => {
            MemoryKind::Ram
        }
        efi::ACPI_RECLAIM_MEMORY => MemoryKind::Acpi,
        efi::ACPI_MEMORY_NVS => MemoryKind::AcpiNvs,
        efi::UNUSABLE_MEMORY => MemoryKind::Bad,
        _ => MemoryKind::Reserved,
    }
}

impl Machine for Firmware {
    fn disk_sectors(&self) -> u64 {
        self.media().last_block + 1
    }

    fn read(&mut self, lba: u64, dst: &mut [u8]) -> Result<(), Problem> {
        let disk = self.disk.as_ptr();
        let media = self.media().media_id;
        for (i, piece) in dst.chunks_mut(PIECE).enumerate() {
            let lba = lba + (i * PIECE / SECTOR) as u64;
            let is_short = piece.len() <= PAGE as usize;
            let buffer = if is_short { self.bounce as *mut u8 } else { piece.as_mut_ptr() };
            // SAFETY: a call as UEFI describes it; the buffer has room: a page, or the piece itself.
            let status = unsafe { ((*disk).read_blocks)(disk, media, lba, piece.len(), buffer.cast()) };
            if status.is_error() {
                return Err(Problem::Read { lba, code: status.as_usize() as u32 });
            }
            if is_short {
                // SAFETY: the bounce page is ours, and no reference to it exists.
                unsafe { ptr::copy_nonoverlapping(buffer, piece.as_mut_ptr(), piece.len()) };
            }
        }
        Ok(())
    }

    fn claim(&mut self, place: Place, len_bytes: u64) -> Result<Ram, Problem> {
        let problem = |at| Problem::Memory { len_bytes, at };
        let below = |end: u64, len: u64| self.allocate(efi::ALLOCATE_MAX_ADDRESS, len, end - 1);
        let (addr, bytes_at) = match place {
            Place::Low => below(LOW_END, len_bytes).map(|a| (a, a)).ok_or(problem(0))?,
            Place::Aligned(align) if align <= PAGE => below(MAPPED_END, len_bytes).map(|a| (a, a)).ok_or(problem(0))?,
            Place::Aligned(align) => {
                let addr = below(MAPPED_END, len_bytes + align).ok_or(problem(0))?.next_multiple_of(align);
                (addr, addr)
            }
            Place::At(addr) => {
                let start = addr & !(PAGE - 1);
                let len = addr + len_bytes - start;
                match self.allocate(efi::ALLOCATE_ADDRESS, len, start) {
                    Some(_) => (addr, addr),
                    None if self.pending.is_some() => return Err(problem(addr)),
                    None => {
                        let from = below(MAPPED_END, len_bytes).ok_or(problem(addr))?;
                        self.pending = Some(Move { from, to: addr, len_bytes });
                        (addr, from)
                    }
                }
            }
        };
        // SAFETY: (1) the firmware has just given this memory to us alone; (2) UEFI maps it one to one; (3) nobody else in the loader knows it.
        let bytes = unsafe { core::slice::from_raw_parts_mut(bytes_at as *mut u8, len_bytes as usize) };
        Ok(Ram { addr, bytes })
    }
}

/// The firmware's console, which is the screen and, on machines without one, a serial port.
pub struct Console(pub *mut efi::SystemTable);

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let mut units = [0u16; 4];
            let mut used = 0;
            if character == '\n' {
                units[used] = u16::from(b'\r');
                used += 1;
            }
            // Sentences are ASCII.
            units[used] = u16::try_from(u32::from(character)).unwrap_or(u16::from(b'?'));
            // SAFETY: only used while boot services are available; the string ends with 0.
            unsafe {
                let out = (*self.0).con_out;
                if !out.is_null() {
                    ((*out).output_string)(out, units.as_mut_ptr());
                }
            }
        }
        Ok(())
    }
}
