//! Guest tests: an ordinary program is run on Linux, then the same binary is compiled into an image and run in QEMU; output and exit status must agree.
//!
//! The programs are `fixtures/guest/*.c`, `*.go` and `*.sh`. A line in the comment at the top of a program says how it is tested:
//!
//! ```text
//! guest-test: link=static,dynamic args=one,two memory=64m cpus=1
//! ```
//!
//! | key | values | default |
//! |---|---|---|
//! | `link` | C: `static`, `static-pie`, `dynamic`, `musl`, `musl-dynamic`; scripts: `busybox`, `bash` | `static`; `busybox` |
//! | `args` | arguments, separated by commas | none |
//! | `memory`, `cpus`, `machine` | for `ukc run` | its defaults |
//! | `root` | `initrd`, `disk` | `initrd` |
//! | `libs` | libraries to link with, `pthread,m` | none |
//!
//! What a program prints must not depend on the machine: no addresses, times or process ids. Lines of the kernel (`ukc: ...`) do not count.
#![forbid(unsafe_code)]

pub mod compile;
pub mod plan;
pub mod run;
