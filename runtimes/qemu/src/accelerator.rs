//! KVM or emulation: which one can run a guest here.
//!
//! `/dev/kvm` alone proves nothing. On some hosts it can be opened but belongs to a nested, software-only KVM that emulates ring 0 about a thousand times
//! slower than hardware, so that guests seem to hang. It is taken only when the processor shows `vmx` or `svm`.

use std::fs::{self, OpenOptions};

/// How QEMU executes guest code.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's translator, and why not KVM.
    Tcg {
        /// One clause for the user, `/dev/kvm does not exist`.
        reason: String,
    },
}

impl Accelerator {
    /// Looks at this machine.
    pub fn detect() -> Accelerator {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let device = OpenOptions::new().read(true).write(true).open("/dev/kvm").map(drop);
        Accelerator::choose(&cpuinfo, device)
    }

    /// The decision itself: the text of /proc/cpuinfo, and whether `/dev/kvm` could be opened.
    pub fn choose(cpuinfo: &str, device: std::io::Result<()>) -> Accelerator {
        let has_extensions = cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .flat_map(|line| line.split_ascii_whitespace())
            .any(|flag| flag == "vmx" || flag == "svm");
        let reason = match device {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => "/dev/kvm does not exist".to_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                "/dev/kvm may not be opened by this user (join the group `kvm`)".to_owned()
            }
            Err(e) => format!("/dev/kvm cannot be opened: {e}"),
            Ok(()) if !has_extensions => "/dev/kvm exists, but the processor shows neither vmx nor svm".to_owned(),
            Ok(()) => return Accelerator::Kvm,
        };
        Accelerator::Tcg { reason }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn kvm_needs_the_device_and_the_processor() {
        let with = "processor : 0\nflags\t\t: fpu vmx sse2\n";
        let without = "processor : 0\nflags\t\t: fpu sse2\n";
        assert_eq!(Accelerator::choose(with, Ok(())), Accelerator::Kvm);
        let reason = |cpuinfo, device| match Accelerator::choose(cpuinfo, device) {
            Accelerator::Tcg { reason } => reason,
            Accelerator::Kvm => panic!("KVM"),
        };
        assert!(reason(without, Ok(())).contains("neither vmx nor svm"));
        assert!(reason(with, Err(Error::from(ErrorKind::NotFound))).contains("does not exist"));
        assert!(reason(with, Err(Error::from(ErrorKind::PermissionDenied))).contains("group `kvm`"));
    }
}
