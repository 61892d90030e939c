//! Extended attributes: in the inode as far as they fit, then in one block of the inode's own.

use alloc::vec::Vec;

use libos_core::{Errno, Result};
use ukc_ext4_layout::xattr::{self, BLOCK_HEADER, ENTRY_HEADER, INODE_HEADER, MAGIC, entry_hash, entry_len};
use ukc_ext4_layout::{Inode as RawInode, checksum};

use crate::inode::Inode;
use crate::meta::{self, Meta};
use crate::state::{State, now};
use crate::store::BLOCK;

/// An attribute: number of its prefix, rest of its name, value as stored.
type Attribute = (u8, Vec<u8>, Vec<u8>);

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}

/// Writes entries from `at` on and their values from the end of `area` down; value offsets count from `base`. False when they do not fit.
fn lay_out(area: &mut [u8], at: usize, base: usize, attributes: &[&Attribute], has_hash: bool) -> bool {
    let needed: usize = attributes.iter().map(|(_, name, value)| entry_len(name.len()) + value.len().next_multiple_of(4)).sum();
    if at + needed + 4 > area.len() {
        return false;
    }
    let (mut entry, mut value_at) = (at, area.len());
    for (prefix, name, value) in attributes {
        value_at -= value.len().next_multiple_of(4);
        put(area, value_at, value);
        let offset = if value.is_empty() { 0 } else { value_at - base };
        area[entry] = name.len() as u8;
        area[entry + 1] = *prefix;
        put(area, entry + 2, &(offset as u16).to_le_bytes());
        put(area, entry + 8, &(value.len() as u32).to_le_bytes());
        put(area, entry + 12, &if has_hash { entry_hash(name, value) } else { 0 }.to_le_bytes());
        put(area, entry + ENTRY_HEADER, name);
        entry += entry_len(name.len());
    }
    true
}

impl State {
    fn attributes(&mut self, number: u32, meta: &Meta) -> Result<Vec<Attribute>> {
        let (block, at) = self.groups.inode_place(number)?;
        let len = self.groups.shape.inode_bytes;
        let raw = self.store.read(block)?[at..at + len].to_vec();
        let raw = RawInode::new(&raw[..]).ok_or(Errno::EUCLEAN)?;
        let mut out = Vec::new();
        for entry in xattr::inode_entries(raw.xattr_bytes()) {
            let entry = entry.map_err(|_| Errno::EUCLEAN)?;
            out.push((entry.prefix, entry.name.to_vec(), entry.value.to_vec()));
        }
        if meta.xattr_block != 0 {
            let bytes = self.store.read(meta.xattr_block)?;
            for entry in xattr::block_entries(bytes) {
                let entry = entry.map_err(|_| Errno::EUCLEAN)?;
                out.push((entry.prefix, entry.name.to_vec(), entry.value.to_vec()));
            }
        }
        Ok(out)
    }

    /// Lets go of an inode's block of attributes; others may have the same one.
    ///
    /// # Errors
    /// `EUCLEAN`, `EIO`.
    pub fn release_xattr_block(&mut self, meta: &mut Meta) -> Result<()> {
        let block = core::mem::take(&mut meta.xattr_block);
        if block == 0 {
            return Ok(());
        }
        if block >= self.groups.shape.blocks {
            return Err(Errno::EUCLEAN);
        }
        let count = u32::from_le_bytes(*self.store.read(block)?[4..].first_chunk().ok_or(Errno::EIO)?);
        if count <= 1 {
            return self.free_block(block);
        }
        let bytes = self.store.write(block)?;
        put(bytes, 4, &(count - 1).to_le_bytes());
        self.seal_xattr_block(block)
    }

    fn seal_xattr_block(&mut self, block: u64) -> Result<()> {
        if self.groups.shape.has_checksums {
            let seed = self.groups.shape.seed;
            let bytes = self.store.write(block)?;
            let sum = checksum::xattr_block(seed, block, &bytes[..]);
            put(bytes, 0x10, &sum.to_le_bytes());
        }
        Ok(())
    }

    fn put_attributes(&mut self, number: u32, meta: &mut Meta, mut all: Vec<Attribute>) -> Result<()> {
        // The order that a block must have: prefix, length of the name, name.
        all.sort_by(|a, b| (a.0, a.1.len(), &a.1).cmp(&(b.0, b.1.len(), &b.1)));
        let (table_block, at) = self.groups.inode_place(number)?;
        let len = self.groups.shape.inode_bytes;
        let extra = {
            let raw = RawInode::new(&self.store.read(table_block)?[at..at + len]).ok_or(Errno::EUCLEAN)?;
            128 + usize::from(raw.extra_isize()).min(len - 128)
        };
        let mut area = alloc::vec![0; len - extra];
        let (mut inside, mut outside): (Vec<&Attribute>, Vec<&Attribute>) = (Vec::new(), Vec::new());
        for attribute in &all {
            inside.push(attribute);
            if !lay_out(&mut area, INODE_HEADER, INODE_HEADER, &inside, false) {
                inside.pop();
                outside.push(attribute);
            }
        }
        area.fill(0);
        if !inside.is_empty() {
            put(&mut area, 0, &MAGIC.to_le_bytes());
            lay_out(&mut area, INODE_HEADER, INODE_HEADER, &inside, false);
        }
        let mut block = alloc::vec![0; BLOCK];
        if !lay_out(&mut block, BLOCK_HEADER, 0, &outside, true) {
            return Err(Errno::ENOSPC);
        }
        let target = if outside.is_empty() { 0 } else { self.take_block(self.groups.goal_of_inode(number))? };
        self.release_xattr_block(meta)?;
        if target != 0 {
            put(&mut block, 0, &MAGIC.to_le_bytes());
            put(&mut block, 4, &1u32.to_le_bytes());
            put(&mut block, 8, &1u32.to_le_bytes());
            let hash = xattr::block_hash(outside.iter().map(|(_, name, value)| entry_hash(name, value)));
            put(&mut block, 0xc, &hash.to_le_bytes());
            self.store.fresh(target)?.copy_from_slice(&block);
            self.seal_xattr_block(target)?;
        }
        meta.xattr_block = target;
        put(&mut self.store.write(table_block)?[at..at + len], extra, &area);
        let shape = &self.groups.shape;
        let mut raw = RawInode::new(&mut self.store.write(table_block)?[at..at + len]).ok_or(Errno::EUCLEAN)?;
        meta::set_checksum(shape, meta::seed(shape, number, meta.generation), &mut raw);
        Ok(())
    }
}

impl Inode {
    /// getxattr(2).
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`, `EUCLEAN`, `EIO`.
    pub fn get_attribute(&self, name: &[u8]) -> Result<Vec<u8>> {
        let (prefix, rest) = xattr::split_name(name).ok_or(Errno::EOPNOTSUPP)?;
        let mut state = self.fs.state.lock();
        let all = state.attributes(self.number, &self.meta.lock())?;
        let (.., value) = all.into_iter().find(|(p, n, _)| (*p, &n[..]) == (prefix, rest)).ok_or(Errno::ENODATA)?;
        if !xattr::is_acl(prefix) {
            return Ok(value);
        }
        let mut acl = Vec::new();
        xattr::acl_to_linux(&value, |bytes| acl.extend_from_slice(bytes)).ok_or(Errno::EUCLEAN)?;
        Ok(acl)
    }

    /// listxattr(2).
    ///
    /// # Errors
    /// `EUCLEAN`, `EIO`.
    pub fn attribute_names(&self) -> Result<Vec<u8>> {
        let mut state = self.fs.state.lock();
        let all = state.attributes(self.number, &self.meta.lock())?;
        let mut names = Vec::new();
        for (prefix, name, _) in all {
            if let Some(prefix) = xattr::prefix(prefix) {
                names.extend_from_slice(prefix);
                names.extend_from_slice(&name);
                names.push(0);
            }
        }
        Ok(names)
    }

    /// setxattr(2) and removexattr(2).
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`, `EOPNOTSUPP`, `EINVAL`, `ENOSPC`, `EIO`.
    pub fn set_attribute(&self, name: &[u8], value: Option<&[u8]>, must_exist: Option<bool>) -> Result<()> {
        let (prefix, rest) = xattr::split_name(name).ok_or(Errno::EOPNOTSUPP)?;
        let mut state = self.fs.begin()?;
        let mut meta = self.meta.lock();
        let mut all = state.attributes(self.number, &meta)?;
        let before = all.len();
        all.retain(|(p, n, _)| (*p, &n[..]) != (prefix, rest));
        let exists = all.len() < before;
        match (must_exist, value) {
            (Some(true), _) | (_, None) if !exists => return Err(Errno::ENODATA),
            (Some(false), _) if exists => return Err(Errno::EEXIST),
            _ => {}
        }
        if let Some(value) = value {
            let mut stored = Vec::new();
            if xattr::is_acl(prefix) {
                xattr::acl_from_linux(value, |bytes| stored.extend_from_slice(bytes)).ok_or(Errno::EINVAL)?;
            } else {
                stored.extend_from_slice(value);
            }
            all.push((prefix, rest.to_vec(), stored));
        }
        state.put_attributes(self.number, &mut meta, all)?;
        meta.ctime = now();
        state.touch(&self.to_arc()?, &mut meta)
    }
}
