//! What an entry is: the tag numbers. Never reuse one; add at the end, and describe the contents in `image-format/README.md`.
//!
//! *Text* is any bytes but NUL (the kernel hands them to programs as C strings). *Once* means that a second entry is an error.

/// Path of the program to execute: text, once. Absent when the command line must name one.
pub const PROGRAM: u16 = 1;
/// One argument, `argv[0]` first: text.
pub const ARG: u16 = 2;
/// One environment variable, `NAME=value`: text with at least one `=` that is not its first byte.
pub const ENV: u16 = 3;
/// Working directory, absolute: text, once; absent is `/`.
pub const CWD: u16 = 4;
/// User id: u32, once; absent is 0.
pub const UID: u16 = 5;
/// Group id: u32, once; absent is 0.
pub const GID: u16 = 6;
/// One supplementary group id: u32.
pub const GROUP: u16 = 7;
/// Host name: text of at most 64 bytes (`HOST_NAME_MAX`, gethostname(2)), once; absent is `localhost`.
pub const HOSTNAME: u16 = 8;
/// Number of the signal that asks the program to stop: u32 in 1..=64, once; absent is 15, SIGTERM.
pub const STOP_SIGNAL: u16 = 9;
/// One mount, in the order of mounting: see [`crate::Mount`].
pub const MOUNT: u16 = 10;
/// Network configuration: see [`crate::Network`], once; absent is DHCP.
pub const NETWORK: u16 = 11;
/// One name server: 4 or 16 bytes in network order.
pub const DNS: u16 = 12;
/// [`crate::Flags`]: u32, once; absent is 0.
pub const FLAGS: u16 = 13;
/// One exposed port: u16 port, u8 IP protocol number (6 TCP, 17 UDP, 132 SCTP), one zero byte.
pub const PORT: u16 = 14;
