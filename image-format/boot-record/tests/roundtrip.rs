//! What is written is read back; what is malformed is refused, and nothing panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use ukc_boot_record::{BootRecord, BootRecordBuilder, Error, Flags, Mount, MountFlags, MountSource, Network, Port, Protocol, tag};

fn full() -> BootRecordBuilder {
    BootRecordBuilder::new()
        .program(b"/usr/sbin/nginx")
        .arg(b"nginx")
        .arg(b"")
        .arg(b"-g daemon off;")
        .env(b"PATH=/usr/bin:/bin")
        .env(b"EMPTY=")
        .cwd(b"/srv")
        .uid(101)
        .gid(102)
        .group(4)
        .group(103)
        .hostname(b"web")
        .stop_signal(3)
        .mount(&Mount::ROOT)
        .mount(&Mount { source: MountSource::Disk(1), target: b"/data", fstype: b"ext4", options: b"noatime", flags: MountFlags::OPTIONAL })
        .mount(&Mount { source: MountSource::Named(b"shared"), target: b"/mnt", fstype: b"9p", options: b"", flags: MountFlags::default() })
        .network(Network::Static {
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15)),
            prefix_len: 24,
            gateway: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2))),
        })
        .dns(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3)))
        .dns(IpAddr::V6(Ipv6Addr::LOCALHOST))
        .flags(Flags::TRACE)
        .port(Port { port: 8080, protocol: Protocol::Tcp })
        .port(Port { port: 53, protocol: Protocol::Udp })
}

#[test]
fn everything_is_read_back() {
    let bytes = full().build().unwrap();
    let r = BootRecord::parse(&bytes).unwrap();
    assert_eq!(r.program, b"/usr/sbin/nginx");
    assert_eq!(r.args().collect::<Vec<_>>(), [&b"nginx"[..], b"", b"-g daemon off;"]);
    assert_eq!(r.env().collect::<Vec<_>>(), [&b"PATH=/usr/bin:/bin"[..], b"EMPTY="]);
    assert_eq!((r.cwd, r.uid, r.gid, r.hostname, r.stop_signal), (&b"/srv"[..], 101, 102, &b"web"[..], 3));
    assert_eq!(r.groups().collect::<Vec<_>>(), [4, 103]);
    let mounts: Vec<_> = r.mounts().collect();
    assert_eq!(mounts[0], Mount::ROOT);
    assert_eq!((mounts[1].source, mounts[1].target, mounts[1].options), (MountSource::Disk(1), &b"/data"[..], &b"noatime"[..]));
    assert_eq!((mounts[2].source, mounts[2].fstype), (MountSource::Named(b"shared"), &b"9p"[..]));
    assert!(matches!(r.network, Network::Static { prefix_len: 24, gateway: Some(IpAddr::V4(_)), .. }));
    assert_eq!(r.dns().collect::<Vec<_>>(), [IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3)), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    assert!(r.flags.contains(Flags::TRACE) && !r.flags.contains(Flags::DEBUG));
    assert_eq!(r.ports().map(|p| p.port).collect::<Vec<_>>(), [8080, 53]);
    assert_eq!(bytes, full().build().unwrap(), "equal calls, equal bytes");
}

#[test]
fn an_empty_record_has_the_defaults() {
    let bytes = BootRecordBuilder::new().build().unwrap();
    assert_eq!(bytes, *b"UKCBOOT\0\x01\0\0\0\x10\0\0\0");
    let r = BootRecord::parse(&bytes).unwrap();
    assert_eq!((r.program, r.cwd, r.stop_signal, r.network), (&b""[..], &b"/"[..], 15, Network::Dhcp));
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let b = BootRecordBuilder::new;
    let value = |tag| Err(Error::Value { tag, offset: 16 });
    assert_eq!(b().program(b"/a\0b").build(), value(tag::PROGRAM));
    assert_eq!(b().cwd(b"srv").build(), value(tag::CWD));
    assert_eq!(b().env(b"=x").build(), value(tag::ENV));
    assert_eq!(b().env(b"x").build(), value(tag::ENV));
    assert_eq!(b().stop_signal(65).build(), value(tag::STOP_SIGNAL));
    assert_eq!(b().hostname(&[b'h'; 65]).build(), value(tag::HOSTNAME));
    assert_eq!(b().uid(1).uid(1).build(), Err(Error::Duplicate { tag: tag::UID }));
    let mixed = Network::Static { address: Ipv4Addr::LOCALHOST.into(), prefix_len: 8, gateway: Some(Ipv6Addr::LOCALHOST.into()) };
    assert_eq!(b().network(mixed).build(), value(tag::NETWORK));
    let long = Network::Static { address: Ipv4Addr::LOCALHOST.into(), prefix_len: 33, gateway: None };
    assert_eq!(b().network(long).build(), value(tag::NETWORK));
}

#[test]
fn headers_are_checked() {
    let good = full().build().unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        BootRecord::parse(&bytes).map(|_| ())
    };
    assert_eq!(with(0, b'x'), Err(Error::Magic));
    assert_eq!(with(8, 2), Err(Error::Version(2)));
    assert_eq!(with(15, 1), Err(Error::Truncated));
    assert_eq!(with(18, 1), Err(Error::Entry { offset: 16 }), "reserved bytes are zero");
    for len in 0..good.len() {
        assert_eq!(BootRecord::parse(&good[..len]).map(|_| ()), Err(Error::Truncated));
    }
    let mut longer = good.clone();
    longer.extend_from_slice(b"linker padding");
    assert_eq!(BootRecord::parse(&longer).unwrap().program, b"/usr/sbin/nginx");
}

#[test]
fn unknown_tags_are_skipped() {
    let mut bytes = BootRecordBuilder::new().uid(7).build().unwrap();
    bytes.extend_from_slice(&[0xff, 0x7f, 0, 0, 3, 0, 0, 0, 1, 2, 3, 0]);
    bytes[12] = bytes.len() as u8;
    assert_eq!(BootRecord::parse(&bytes).unwrap().uid, 7);
    *bytes.last_mut().unwrap() = 1;
    assert_eq!(BootRecord::parse(&bytes), Err(Error::Entry { offset: 28 }), "padding is zero");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_input_panics(mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
        let mut bytes = full().build().unwrap();
        for (at, byte) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = cut.index(bytes.len() + 1);
        for input in [&bytes[..], &bytes[..cut]] {
            if let Ok(r) = BootRecord::parse(input) {
                let total = r.args().count() + r.env().count() + r.groups().count() + r.mounts().count() + r.dns().count() + r.ports().count();
                prop_assert!(total < input.len());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_after_a_header_do_not_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"UKCBOOT\0\x01\0\0\0".to_vec();
        bytes.extend_from_slice(&(16 + tail.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&tail);
        let _ = BootRecord::parse(&bytes);
    }

    #[test]
    fn arguments_survive(args in prop::collection::vec(prop::collection::vec(1u8.., 0..20), 0..20)) {
        let builder = args.iter().fold(BootRecordBuilder::new(), |b, a| b.arg(a));
        let bytes = builder.build().unwrap();
        prop_assert_eq!(BootRecord::parse(&bytes).unwrap().args().collect::<Vec<_>>(), args);
    }
}
