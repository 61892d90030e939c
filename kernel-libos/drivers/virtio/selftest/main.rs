//! A kernel that tests the virtio drivers: `selftest/run` boots it on several machines. On the host the file is empty.
//!
//! The tests are a module whose init function comes last: by then the drivers have started, and nothing but the idle task runs beside it.
#![cfg_attr(ukc_kernel, no_std)]

#[cfg(ukc_kernel)]
extern crate alloc;

// Linked for their init functions.
#[cfg(ukc_kernel)]
use {libos_virtio_blk as _, libos_virtio_net as _, libos_virtio_rng as _};

#[cfg(ukc_kernel)]
libos_core::module! {
    name: selftest,
    needs: [virtio_blk, virtio_net, virtio_rng],
    init: run,
    syscalls: {},
}

#[cfg(ukc_kernel)]
fn run() {
    tests::all();
    libos_core::arch::kprintln!("all passed");
    libos_core::arch::power::exit(42)
}

#[cfg(ukc_kernel)]
mod tests {
    use alloc::sync::Arc;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicUsize, Ordering};

    use libos_core::Errno;
    use libos_core::arch::kprintln;
    use libos_core::device::{BlockDevice, DEVICES, NetDevice, TxChecksum};
    use libos_core::mm::{Frame, PAGE_SIZE};
    use libos_core::task::wait::WaitQueue;
    use libos_core::time::monotonic_ns;

    const DISK_BYTES: usize = 4 * 1024 * 1024 + 512;

    pub fn all() {
        kprintln!("{}", core::str::from_utf8(libos_core::start::command_line()).unwrap_or("?"));
        let (disk, card, entropy) = {
            let devices = DEVICES.lock();
            assert_eq!((devices.block.len(), devices.net.len(), devices.entropy.len()), (1, 1, 1), "devices found");
            (devices.block[0].clone(), devices.net[0].clone(), devices.entropy[0].clone())
        };
        let test = |name: &str, f: &dyn Fn()| {
            let start = monotonic_ns();
            f();
            kprintln!("ok {name} ({} us)", (monotonic_ns() - start) / 1000);
        };
        test("entropy", &|| {
            let (mut one, mut two) = ([0u8; 100], [0u8; 100]);
            assert_eq!((entropy.read(&mut one), entropy.read(&mut two)), (100, 100));
            assert!(one != two && one[50..] != [0; 50] && one[..36] != one[64..]);
        });
        test("disk_geometry", &|| {
            assert_eq!((disk.len_bytes(), disk.sector_bytes(), disk.is_read_only()), (DISK_BYTES as u64, 512, false));
        });
        test("disk_reads", &|| disk_reads(&*disk));
        test("disk_frames", &|| disk_frames(&*disk));
        test("disk_writes", &|| disk_writes(&*disk));
        test("disk_limits", &|| disk_limits(&*disk));
        test("disk_many_reads", &|| {
            let frame = [Frame::alloc().unwrap()];
            for i in 0..500 {
                disk.read_frames(i % 1000 * 4096, &frame).unwrap();
            }
        });
        test("network_geometry", &|| {
            assert_eq!(card.mtu(), 1500);
            assert_eq!(card.mac()[..3], [0x52, 0x54, 0x00]);
        });
        test("network_arp", &|| network(&*card, 1));
        test("network_many_packets", &|| network(&*card, 5000));
        test("network_checksum_offload", &|| dhcp(&*card));
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn disk_reads(disk: &dyn BlockDevice) {
        for (offset, len) in
            [(0, 512), (512, 512), (4096, 4096), (1024, 10_240), (DISK_BYTES - 512, 512), (DISK_BYTES - 8192 - 512, 8704), (0, 300 * 1024)]
        {
            let mut bytes = vec![0; len];
            disk.read(offset as u64, &mut bytes).unwrap();
            for at in (0..len).step_by(8) {
                assert_eq!(word(&bytes, at), (offset + at) as u64, "{offset} {len} {at}");
            }
        }
    }

    fn disk_frames(disk: &dyn BlockDevice) {
        for (offset, pages) in [(0, 1), (512, 1), (8192, 33), (0, 1024)] {
            let frames: Vec<Frame> = (0..pages).map(|_| Frame::alloc().unwrap()).collect();
            disk.read_frames(offset, &frames).unwrap();
            for (i, frame) in frames.iter().enumerate() {
                let mut bytes = [0; PAGE_SIZE];
                frame.read(0, &mut bytes);
                for at in (0..PAGE_SIZE).step_by(8) {
                    assert_eq!(word(&bytes, at), offset + (i * PAGE_SIZE + at) as u64);
                }
            }
        }
    }

    fn disk_writes(disk: &dyn BlockDevice) {
        let inverted =
            |from: usize, len: usize| -> Vec<u8> { (from..from + len).step_by(8).flat_map(|i| (!(i as u64)).to_le_bytes()).collect() };
        disk.write(100 * 512, &inverted(100 * 512, 512)).unwrap();
        disk.write(101 * 512, &inverted(101 * 512, 31 * 512)).unwrap();
        disk.write(DISK_BYTES as u64 - 512, &inverted(DISK_BYTES - 512, 512)).unwrap();
        disk.flush().unwrap();
        disk.flush().unwrap();
        let mut bytes = vec![0; 34 * 512];
        disk.read(99 * 512, &mut bytes).unwrap();
        for at in (0..bytes.len()).step_by(8) {
            let offset = 99 * 512 + at as u64;
            let wanted = if (512..33 * 512).contains(&at) { !offset } else { offset };
            assert_eq!(word(&bytes, at), wanted);
        }
    }

    fn disk_limits(disk: &dyn BlockDevice) {
        let end = DISK_BYTES as u64;
        assert_eq!(disk.read(end, &mut [0; 512]), Err(Errno::ENXIO));
        assert_eq!(disk.read(end - 512, &mut [0; 1024]), Err(Errno::ENXIO));
        assert_eq!(disk.write(u64::MAX - 511, &[0; 512]), Err(Errno::ENXIO));
        assert_eq!(disk.read(1, &mut [0; 512]), Err(Errno::EINVAL));
        assert_eq!(disk.read_frames(end - 512, &[Frame::alloc().unwrap()]), Err(Errno::ENXIO));
        assert_eq!(disk.read(end, &mut []), Ok(()));
    }

    static READY: WaitQueue = WaitQueue::new();

    /// Sends `count` questions for the gateway's hardware address and counts the answers, sleeping between them.
    fn network(card: &dyn NetDevice, count: usize) {
        static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);
        card.set_handler(Arc::new(|| {
            INTERRUPTS.fetch_add(1, Ordering::Relaxed);
            READY.wake_all();
        }));
        let mac = card.mac();
        let mut question = [0u8; 60];
        question[..6].fill(0xff);
        question[6..12].copy_from_slice(&mac);
        question[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        question[22..28].copy_from_slice(&mac);
        question[28..32].copy_from_slice(&[10, 0, 2, 15]);
        question[38..42].copy_from_slice(&[10, 0, 2, 2]);
        let (mut sent, mut answers) = (0, 0);
        let deadline = monotonic_ns() + 20_000_000_000;
        while answers < count {
            // At most 32 unanswered: the monitor's own queue is short.
            while sent < count && sent - answers < 32 {
                if !card.transmit(question.len(), &mut |bytes| {
                    bytes.copy_from_slice(&question);
                    TxChecksum::Done
                }) {
                    break;
                }
                sent += 1;
            }
            card.flush();
            let mut receive = || {
                let mut any = false;
                while card.receive(&mut |packet, _| {
                    if packet[12..14] == [8, 6] && packet[20..22] == [0, 2] && packet[28..32] == [10, 0, 2, 2] {
                        answers += 1;
                    }
                }) {
                    any = true;
                }
                any.then_some(())
            };
            let waited = READY.wait_until(Some(deadline), &mut receive).unwrap();
            assert!(waited.is_some(), "{sent} sent, {answers} answered, {} interrupts", INTERRUPTS.load(Ordering::Relaxed));
        }
        kprintln!("{answers} answers, {} interrupts", INTERRUPTS.load(Ordering::Relaxed));
    }

    /// Asks for an address with a UDP packet whose checksum the device completes: a wrong one would not be answered.
    fn dhcp(card: &dyn NetDevice) {
        if !card.can_checksum() {
            kprintln!("no offload");
            return;
        }
        let mac = card.mac();
        let mut packet = [0u8; 14 + 20 + 8 + 244];
        packet[..6].fill(0xff);
        packet[6..12].copy_from_slice(&mac);
        packet[12..14].copy_from_slice(&[8, 0]);
        let total = packet.len() as u16 - 14;
        packet[14..34].copy_from_slice(&[
            0x45,
            0,
            (total >> 8) as u8,
            total as u8,
            0,
            0,
            0,
            0,
            64,
            17,
            0,
            0,
            0,
            0,
            0,
            0,
            255,
            255,
            255,
            255,
        ]);
        let sum = checksum(&packet[14..34], 0);
        packet[24..26].copy_from_slice(&(!sum).to_be_bytes());
        let udp = total - 20;
        packet[34..42].copy_from_slice(&[0, 68, 0, 67, (udp >> 8) as u8, udp as u8, 0, 0]);
        // The sum of the pseudo header, to be completed.
        let pseudo = checksum(&[0, 0, 0, 0, 255, 255, 255, 255, 0, 17, (udp >> 8) as u8, udp as u8], 0);
        packet[40..42].copy_from_slice(&pseudo.to_be_bytes());
        packet[42..46].copy_from_slice(&[1, 1, 6, 0]);
        packet[46..50].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
        packet[70..76].copy_from_slice(&mac);
        packet[278..286].copy_from_slice(&[99, 130, 83, 99, 53, 1, 1, 255]);
        assert!(card.transmit(packet.len(), &mut |bytes| {
            bytes.copy_from_slice(&packet);
            TxChecksum::Device { start: 34, offset: 6 }
        }));
        card.flush();
        let deadline = monotonic_ns() + 10_000_000_000;
        let mut offered = false;
        while !offered {
            let mut receive = || {
                let mut any = false;
                while card.receive(&mut |reply, _| {
                    offered |= reply.len() > 240 && reply[23] == 17 && reply[46..50] == [0x12, 0x34, 0x56, 0x78];
                }) {
                    any = true;
                }
                any.then_some(())
            };
            assert!(READY.wait_until(Some(deadline), &mut receive).unwrap().is_some(), "no answer");
        }
    }

    /// Ones' complement sum.
    fn checksum(bytes: &[u8], start: u32) -> u16 {
        let mut sum = bytes.chunks(2).fold(start, |sum, b| sum + u32::from(b[0]) * 256 + u32::from(b.get(1).copied().unwrap_or(0)));
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}
