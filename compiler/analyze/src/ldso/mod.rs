//! Which file a dynamic loader takes for a name: the rules of glibc's ld.so (ld.so(8); glibc `elf/dl-load.c`) and of musl's (`ldso/dynlink.c`).
//!
//! ```text
//! glibc: DT_RPATH of the asking object and of those that loaded it (unless the asking object has DT_RUNPATH)
//!        LD_LIBRARY_PATH    DT_RUNPATH of the asking object    /etc/ld.so.cache    default directories
//! musl:  LD_LIBRARY_PATH    DT_RUNPATH or DT_RPATH of the asking object and of those that loaded it
//!        /etc/ld-musl-x86_64.path, or /lib:/usr/local/lib:/usr/lib
//! ```
//!
//! A name with a slash is a path. A name that an object already loaded has (as its soname or as the name it was asked for) is that object.
//! `/etc/ld.so.conf` is not read by ld.so at all: ldconfig reads it to write the cache; here it only serves the help of a diagnostic.

mod cache;
mod conf;
mod search;

pub use conf::configured_directories;
pub use search::{Dialect, Scope, Search};
