//! Executes RUN: a process in a root of its own, isolated as Docker isolates it, without a daemon and without privilege where the system allows that.
//!
//! ```text
//! ukc build ──order──▶ ukc __run ──clone into a pid namespace──▶ ukc __run init ──exec──▶ /bin/sh -c ...
//!  Sandbox              namespaces, watches, finds changes        mounts, pivot_root, user, capabilities
//! ```
//!
//! [`Sandbox`] is the [`ukc_build::run::Runner`] of builds. The root is an overlay: the layers that the step builds on, on disk once each, and an empty
//! directory for what the process changes, which becomes the next layer. Where overlays do not work (in many containers) the root is a copy.
//! A program that uses this crate calls [`dispatch`] before anything else, since it is started again as its own helper.
//!
//! The process sees: pid, mount, IPC and host name spaces of its own; the network of the machine (`--network=none`: loopback alone); fresh `/proc` (partly masked), `/sys`
//! (read-only) and `/dev`; Docker's default capabilities; an empty standard input; umask 022. Nothing of the host can be named from inside, and what is
//! mounted for it (`/etc/resolv.conf`, secrets, caches) is not in the result. A user who is not root gets a user namespace with the ids of `/etc/subuid`.
//!
//! What is absent: cgroup limits, seccomp filters and AppArmor profiles; the process shares the machine's network interfaces, as in BuildKit's
//! rootless mode. Facts come from namespaces(7), user_namespaces(7), pid_namespaces(7), capabilities(7), the kernel's overlayfs.rst, and Docker's
//! defaults (moby, `oci/`).
#![forbid(unsafe_code)]

mod agent;
mod helper;
mod idmap;
mod launch;
mod mounts;
mod record;
mod runner;
mod spec;
mod store;
mod stubs;

pub use helper::dispatch;
pub use runner::{Config, RunEvent, Sandbox, Secret};
