//! The memory system calls: mmap(2), mprotect(2), brk(2) and their relatives.
//!
//! Arguments → [`AddressSpace`](libos_core::mm::AddressSpace), which does the work. Every kernel has this module: nothing starts without brk or mmap.
//!
//! Differences from Linux: there are no huge pages (`MAP_HUGETLB` finds none free), no swap (`MADV_PAGEOUT` and the like are heard and change nothing),
//! no protection keys, and `MADV_FREE` frees at once. remap_file_pages(2) is not offered.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod advise;
mod lock;
mod map;
mod membarrier;
mod pkey;
mod remote;

libos_core::module! {
    name: mm,
    needs: [],
    always: true,
    syscalls: {
        mmap => map::sys_mmap: partial "MAP_HUGETLB finds no huge pages",
        munmap => map::sys_munmap,
        mprotect => map::sys_mprotect,
        mremap => map::sys_mremap,
        brk => map::sys_brk,
        madvise => advise::sys_madvise: partial "no swap, no huge pages, no page merging",
        mincore => advise::sys_mincore,
        msync => advise::sys_msync,
        mlock => lock::sys_mlock,
        mlock2 => lock::sys_mlock2,
        munlock => lock::sys_munlock,
        mlockall => lock::sys_mlockall,
        munlockall => lock::sys_munlockall,
        membarrier => membarrier::sys_membarrier,
        pkey_alloc => pkey::sys_pkey_alloc: partial "as on a processor without protection keys",
        pkey_free => pkey::sys_pkey_free: partial "as on a processor without protection keys",
        pkey_mprotect => pkey::sys_pkey_mprotect: partial "as on a processor without protection keys",
        process_vm_readv => remote::sys_process_vm_readv,
        process_vm_writev => remote::sys_process_vm_writev,
    },
}
