//! A small independent reader of our images, and the tools of e2fsprogs as judges.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ukc_ext4_layout::{
    BLOCK_SIZE, GROUP_DESC_SIZE, GroupDesc, INODE_SIZE, Inode, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock, checksum, dir, extent, xattr,
};
use ukc_image::ext4::{Options, write};
use ukc_rootfs::{Kind, Meta, Node, NodeId, Tree};

/// Returns the image of a tree in memory.
pub fn image(tree: &Tree, options: &Options) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = write(tree, options, &mut bytes).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(written.len_bytes, bytes.len() as u64);
    bytes
}

/// Adds a node below a directory.
pub fn add(tree: &mut Tree, dir: NodeId, name: &str, mode: u16, kind: Kind) -> NodeId {
    let id = tree.add(Node { meta: Meta::new(mode), kind, origin: None });
    tree.link(dir, name.as_bytes(), id);
    id
}

pub fn file(bytes: impl Into<Vec<u8>>) -> Kind {
    Kind::File(ukc_rootfs::Content::from_bytes(bytes.into()))
}

pub fn dir() -> Kind {
    Kind::Dir(BTreeMap::new())
}

/// Reads an image by the layout crate alone.
pub struct Reader<'a> {
    image: &'a [u8],
    seed: u32,
    inodes_per_group: u32,
}

impl<'a> Reader<'a> {
    pub fn new(image: &'a [u8]) -> Reader<'a> {
        let sb = Superblock::new(&image[SUPERBLOCK_OFFSET..SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE]).unwrap();
        assert!(checksum::is_superblock_intact(sb.bytes()));
        assert_eq!(sb.blocks_count() * BLOCK_SIZE as u64, image.len() as u64);
        Reader { image, seed: sb.seed(), inodes_per_group: sb.inodes_per_group() }
    }

    pub fn block(&self, number: u64) -> &'a [u8] {
        &self.image[number as usize * BLOCK_SIZE..][..BLOCK_SIZE]
    }

    pub fn inode(&self, number: u32) -> Inode<&'a [u8]> {
        let (group, index) = ((number - 1) / self.inodes_per_group, (number - 1) % self.inodes_per_group);
        let desc = GroupDesc::new(&self.image[BLOCK_SIZE + group as usize * GROUP_DESC_SIZE..][..GROUP_DESC_SIZE]).unwrap();
        assert_eq!(desc.checksum(), checksum::group(self.seed, group, &desc));
        let at = desc.inode_table() as usize * BLOCK_SIZE + index as usize * INODE_SIZE;
        let inode = Inode::new(&self.image[at..at + INODE_SIZE]).unwrap();
        let crc = checksum::inode(checksum::inode_seed(self.seed, number, 0), &inode);
        assert_eq!((inode.checksum_lo(), inode.checksum_hi()), (crc as u16, (crc >> 16) as u16));
        inode
    }

    /// Returns the contents of a regular file, directory, or symbolic link.
    pub fn contents(&self, inode: &Inode<&'a [u8]>) -> Vec<u8> {
        if inode.flags() & ukc_ext4_layout::inode_flags::EXTENTS == 0 {
            return inode.block()[..inode.size() as usize].to_vec();
        }
        let mut out = Vec::new();
        self.collect(extent::node(inode.block()).unwrap(), &mut out);
        assert!(out[inode.size() as usize..].iter().all(|&b| b == 0), "the rest of the last block is zero");
        out.truncate(inode.size() as usize);
        out
    }

    fn collect(&self, node: extent::Node<'_>, out: &mut Vec<u8>) {
        if node.depth > 0 {
            node.indexes().for_each(|i| self.collect(extent::node(self.block(i.block)).unwrap(), out));
            return;
        }
        for e in node.extents() {
            assert_eq!(e.logical as usize * BLOCK_SIZE, out.len());
            (0..u64::from(e.len)).for_each(|i| out.extend_from_slice(self.block(e.physical + i)));
        }
    }

    /// Returns names and inode numbers of a directory.
    pub fn entries(&self, inode: &Inode<&'a [u8]>) -> Vec<(Vec<u8>, u32)> {
        let bytes = self.contents(inode);
        bytes.chunks(BLOCK_SIZE).flat_map(dir::entries).map(|e| e.unwrap()).map(|e| (e.name.to_vec(), e.inode)).collect()
    }

    /// Returns all attributes with full names, values as stored.
    pub fn xattrs(&self, inode: &Inode<&'a [u8]>) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let block = if inode.xattr_block() == 0 { &[][..] } else { self.block(inode.xattr_block()) };
        let all = xattr::inode_entries(inode.xattr_bytes()).chain(xattr::block_entries(block));
        all.map(|e| e.unwrap()).map(|e| ([xattr::prefix(e.prefix).unwrap(), e.name].concat(), e.value.to_vec())).collect()
    }

    /// Returns the inode number of a path.
    pub fn find(&self, path: &str) -> u32 {
        path.split('/').filter(|c| !c.is_empty()).fold(ukc_ext4_layout::ROOT_INODE, |number, name| {
            let found = self.entries(&self.inode(number)).into_iter().find(|(n, _)| n == name.as_bytes());
            found.unwrap_or_else(|| panic!("no {name} of {path}")).1
        })
    }
}

/// Runs a tool of e2fsprogs; `None`, loudly, when it is not installed.
pub fn tool(name: &str, arguments: &[&str]) -> Option<(i32, String)> {
    let candidates = [name.to_owned(), format!("/usr/sbin/{name}"), format!("/sbin/{name}")];
    for program in candidates {
        if let Ok(output) = Command::new(&program).args(arguments).env("LC_ALL", "C").env("TZ", "UTC").output() {
            let text = [output.stdout, output.stderr].concat();
            return Some((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()));
        }
    }
    eprintln!("\n*** SKIPPED: `{name}` is not installed (apt-get install e2fsprogs); the image was not checked by it ***\n");
    None
}

/// Fails unless e2fsck finds nothing to say beyond its pass titles and the summary.
pub fn e2fsck(path: &Path) {
    let Some((status, text)) = tool("e2fsck", &["-fn", path.to_str().unwrap()]) else { return };
    let is_expected = |line: &str| {
        line.is_empty()
            || line.starts_with("e2fsck ")
            || line.starts_with("Pass ")
            || (line.contains(" files (") && line.ends_with(" blocks"))
    };
    let remarks: Vec<_> = text.lines().filter(|l| !is_expected(l)).collect();
    assert!(status == 0 && remarks.is_empty(), "e2fsck says (status {status}):\n{text}");
}

/// Writes an image to a file, has e2fsck check it, and returns the file.
pub fn checked(image: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), image).unwrap();
    e2fsck(file.path());
    file
}

/// Runs a debugfs command on an image.
pub fn debugfs(path: &Path, command: &str) -> Option<String> {
    tool("debugfs", &["-R", command, path.to_str().unwrap()]).map(|(_, text)| text)
}
