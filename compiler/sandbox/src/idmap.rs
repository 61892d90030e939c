//! Which user and group ids a user who is not root may use: `/etc/subuid` and `/etc/subgid` (subuid(5)), handed out by newuidmap(1).
//!
//! ```text
//! NAME:FIRST:COUNT        alice:100000:65536
//! ```
//!
//! Inside, 0 is the user and 1 and up are the ranges in order.

use std::fs;
use std::io;
use std::process::Command;

/// The ids of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMap {
    uid: u32,
    gid: u32,
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
}

/// Why a user cannot execute RUN, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoIds {
    pub why: String,
    pub help: Vec<String>,
}

impl IdMap {
    /// Reads the machine's configuration for the user of this process; `None` is root, who needs none.
    pub fn of_this_process() -> Result<Option<IdMap>, NoIds> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid == 0 {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = name_of(uid, &passwd);
        let user = name.clone().unwrap_or_else(|| uid.to_string());
        let read = |path: &str| ranges(&fs::read_to_string(path).unwrap_or_default(), uid, name.as_deref());
        let (uids, gids) = (read("/etc/subuid"), read("/etc/subgid"));
        if uids.is_empty() || gids.is_empty() {
            return Err(NoIds {
                why: format!("the user `{user}` has no further user ids, and RUN needs some: the files of an image have many owners"),
                help: vec![
                    format!("as root, once: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`"),
                    "or build as root".into(),
                ],
            });
        }
        for (name, file) in [("newuidmap", "subuid"), ("newgidmap", "subgid")] {
            if Command::new(name).arg("--help").output().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                return Err(NoIds {
                    why: format!("the program `{name}` is missing, and RUN needs it to use the ids of /etc/{file}"),
                    help: vec!["install it: `apt-get install uidmap` (Debian, Ubuntu), `dnf install shadow-utils` (Fedora)".into()],
                });
            }
        }
        Ok(Some(IdMap { uid, gid, uids, gids }))
    }

    /// Returns a name for what this map makes of ids: files written with one map mean nothing with another.
    pub fn name(&self) -> String {
        let hash = blake3::hash(format!("{self:?}").as_bytes());
        format!("user-{}-{}", self.uid, &hash.to_hex()[..8])
    }

    /// Writes the maps of a process that has just made a user namespace.
    pub fn write(&self, pid: i32) -> Result<(), NoIds> {
        for (program, own, ranges) in [("newuidmap", self.uid, &self.uids), ("newgidmap", self.gid, &self.gids)] {
            let mut command = Command::new(program);
            command.arg(pid.to_string());
            let mut inside = 0;
            for (first, count) in std::iter::once(&(own, 1)).chain(ranges) {
                command.args([inside.to_string(), first.to_string(), count.to_string()]);
                inside += count;
            }
            let output = command.output().map_err(|e| NoIds { why: format!("cannot start `{program}`: {e}"), help: vec![] })?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(NoIds {
                    why: format!("`{program}` failed: {}", said.trim()),
                    help: vec![format!(
                        "check that `{program}` is set-user-ID root or has its file capability, and /etc/subuid and /etc/subgid"
                    )],
                });
            }
        }
        Ok(())
    }
}

/// Why a user namespace could not be made, and what to do about it.
pub(crate) fn no_namespace(why: &str) -> NoIds {
    let sysctl = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).map(|text| text.trim().to_owned()).unwrap_or_default();
    let mut help = vec![];
    if sysctl("kernel/unprivileged_userns_clone") == "0" {
        help.push("as root, once: `sysctl kernel.unprivileged_userns_clone=1`".into());
    }
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
        help.push(
            "as root, once: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or an AppArmor profile for ukc with `userns,`".into(),
        );
    }
    if sysctl("user/max_user_namespaces") == "0" {
        help.push("as root, once: `sysctl user.max_user_namespaces=10000`".into());
    }
    if help.is_empty() {
        help.push("in a container: start it with `--security-opt seccomp=unconfined`, or privileged; else build as root".into());
    }
    NoIds { why: why.to_owned(), help }
}

fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn ranges(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let owner = fields.next()?;
            let (first, count) = (fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
            (Some(owner) == name || owner.parse() == Ok(uid)).then_some((first, count))
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_name_and_number() {
        let text = "alice:100000:65536\nbob:1:2\n1000:300000:10\nbroken\nalice:x:1\nalice:9:0\n";
        assert_eq!(ranges(text, 1000, Some("alice")), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(ranges(text, 7, None), []);
        let passwd = "root:x:0:0::/:\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("alice"));
        assert_eq!(name_of(1, passwd), None);
    }
}
