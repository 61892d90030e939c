//! The writer: a tree as a deterministic PAX archive: entries in byte order, no user names, times as in the tree.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use ukc_rootfs::{Action, Change, Content, Kind, Meta, NodeId, Tree};

use super::BLOCK;

/// Writes `tree` to `out`. A node with several names is written at the first; the others are hard links to it.
///
/// # Errors
/// Those of writing, and of reading the files' contents; `UnexpectedEof` when a file has become shorter than the tree says.
pub fn write_tree(tree: &Tree, out: &mut dyn Write) -> io::Result<()> {
    let mut first_names: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
    let mut names = Vec::new();
    tree.walk(&mut |path, id| names.push((path[1..].to_vec(), id)));
    // The root itself stands in no usual layer, except that its metadata may matter.
    names[0].0 = b".".to_vec();
    for (name, id) in names {
        let node = tree.node(id);
        if !matches!(node.kind, Kind::Dir(_)) {
            if let Some(first) = first_names.get(&id) {
                header(out, &name, &node.meta, b'1', 0, first, None)?;
                continue;
            }
            first_names.insert(id, name.clone());
        }
        write_entry(out, name, &node.meta, &node.kind)?;
    }
    out.write_all(&END)
}

/// Writes what changes say as a layer: whiteouts are files `.wh.NAME` (OCI image-spec, layer.md, "Whiteouts"). No time lies after `newest`.
///
/// # Errors
/// As [`write_tree`].
pub fn write_changes(changes: &[Change], newest: Option<i64>, out: &mut dyn Write) -> io::Result<()> {
    let plain = Meta::new(0o644);
    for change in changes {
        let name = if change.path.is_empty() { b".".to_vec() } else { change.path.clone() };
        match &change.action {
            Action::Put(meta, kind) => {
                let mut meta = meta.clone();
                if let Some(newest) = newest {
                    meta.mtime = meta.mtime.min((newest, 0));
                }
                write_entry(out, name, &meta, kind)?;
            }
            Action::HardLink(to) => header(out, &name, &plain, b'1', 0, to, None)?,
            Action::Whiteout => {
                let at = name.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
                header(out, &[&name[..at], b".wh.", &name[at..]].concat(), &plain, b'0', 0, &[], None)?;
            }
            Action::Opaque => header(out, &[name.as_slice(), b"/.wh..wh..opq"].concat(), &plain, b'0', 0, &[], None)?,
        }
    }
    out.write_all(&END)
}

/// Writes an archive of plain files and directories (names with a `/` at the end) of root's, dated at the epoch: those of images and of `docker save`.
///
/// # Errors
/// As [`write_tree`].
pub fn write_files(files: &[(String, Content)], out: &mut dyn Write) -> io::Result<()> {
    for (name, content) in files {
        match name.strip_suffix('/') {
            Some(dir) => write_entry(out, dir.as_bytes().to_vec(), &Meta::new(0o755), &Kind::Dir(BTreeMap::new()))?,
            None => write_entry(out, name.as_bytes().to_vec(), &Meta::new(0o644), &Kind::File(content.clone()))?,
        }
    }
    out.write_all(&END)
}

/// Two blocks of zeros end an archive.
const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

fn write_entry(out: &mut dyn Write, mut name: Vec<u8>, meta: &Meta, kind: &Kind) -> io::Result<()> {
    let none = [];
    let (type_byte, link, device, content) = match kind {
        Kind::Dir(_) => {
            name.push(b'/');
            (b'5', &none[..], None, None)
        }
        Kind::Symlink(target) => (b'2', target.as_slice(), None, None),
        Kind::CharDevice(major, minor) => (b'3', &none[..], Some((*major, *minor)), None),
        Kind::BlockDevice(major, minor) => (b'4', &none[..], Some((*major, *minor)), None),
        Kind::Fifo => (b'6', &none[..], None, None),
        Kind::File(content) => (b'0', &none[..], None, Some(content)),
    };
    let size = content.map_or(0, |c| c.len_bytes());
    header(out, &name, meta, type_byte, size, link, device)?;
    if let Some(content) = content {
        if io::copy(&mut content.open()?, out)? != size {
            let name = name.escape_ascii();
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("`{name}` became shorter while it was being read")));
        }
        pad(out, size)?;
    }
    Ok(())
}

fn pad(out: &mut dyn Write, size: u64) -> io::Result<()> {
    out.write_all(&[0; BLOCK as usize][..(size.next_multiple_of(BLOCK) - size) as usize])
}

fn header(
    out: &mut dyn Write,
    name: &[u8],
    meta: &Meta,
    type_byte: u8,
    size: u64,
    link: &[u8],
    device: Option<(u32, u32)>,
) -> io::Result<()> {
    let mut block = [0; BLOCK as usize];
    let mut pax: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    text(&mut block[..100], name, &mut pax, "path");
    text(&mut block[157..257], link, &mut pax, "linkpath");
    octal(&mut block[100..108], u64::from(meta.mode));
    number(&mut block[108..116], u64::from(meta.uid), &mut pax, "uid");
    number(&mut block[116..124], u64::from(meta.gid), &mut pax, "gid");
    number(&mut block[124..136], size, &mut pax, "size");
    let (seconds, nanos) = meta.mtime;
    match u64::try_from(seconds) {
        Ok(seconds) if nanos == 0 => number(&mut block[136..148], seconds, &mut pax, "mtime"),
        _ => {
            octal(&mut block[136..148], 0);
            pax.insert(b"mtime".to_vec(), time(seconds, nanos).into_bytes());
        }
    }
    if let Some((major, minor)) = device {
        octal(&mut block[329..337], u64::from(major));
        octal(&mut block[337..345], u64::from(minor));
    }
    for (name, value) in &meta.xattrs {
        pax.insert([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone());
    }
    if !pax.is_empty() {
        let mut lines = Vec::new();
        for (key, value) in &pax {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while rest + len.to_string().len() != len {
                len = rest + len.to_string().len();
            }
            lines.extend_from_slice(format!("{len} ").as_bytes());
            lines.extend_from_slice(key);
            lines.push(b'=');
            lines.extend_from_slice(value);
            lines.push(b'\n');
        }
        let mut extended = [0; BLOCK as usize];
        extended[..10].copy_from_slice(b"PaxHeaders");
        for (range, value) in [(100..108, 0o644), (108..116, 0), (116..124, 0), (136..148, 0)] {
            octal(&mut extended[range], value);
        }
        octal(&mut extended[124..136], lines.len() as u64);
        finish(&mut extended, b'x');
        out.write_all(&extended)?;
        out.write_all(&lines)?;
        pad(out, lines.len() as u64)?;
    }
    finish(&mut block, type_byte);
    out.write_all(&block)
}

fn finish(block: &mut [u8; 512], type_byte: u8) {
    block[156] = type_byte;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    octal(&mut block[148..155], sum);
}

fn octal(field: &mut [u8], value: u64) {
    let mut digits = String::new();
    let _ = write!(digits, "{value:0width$o}", width = field.len() - 1);
    field[..digits.len()].copy_from_slice(digits.as_bytes());
}

/// Octal where it fits with its final NUL, else PAX.
fn number(field: &mut [u8], value: u64, pax: &mut BTreeMap<Vec<u8>, Vec<u8>>, key: &str) {
    if value < 1 << (3 * (field.len() - 1)) {
        octal(field, value);
    } else {
        octal(field, 0);
        pax.insert(key.into(), value.to_string().into_bytes());
    }
}

fn text(field: &mut [u8], value: &[u8], pax: &mut BTreeMap<Vec<u8>, Vec<u8>>, key: &str) {
    let fits = value.len().min(field.len());
    field[..fits].copy_from_slice(&value[..fits]);
    // PAX says UTF-8; readers take names outside ASCII from here unchanged, and from the field in their own encoding.
    if value.len() > field.len() || !value.is_ascii() {
        pax.insert(key.into(), value.to_vec());
    }
}

fn time(seconds: i64, nanos: u32) -> String {
    let (sign, seconds, nanos) = match (seconds < 0, nanos) {
        (false, _) => ("", seconds.unsigned_abs(), nanos),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, _) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
