//! Who `USER` and `--chown` mean: names looked up in the tree's own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! The rules are those of runc's `user` package, which Docker and BuildKit use: a name wins over a number of the same spelling, an unknown number is
//! fine, an unknown name is an error, a user without a passwd entry has group 0 and the home directory `/`.

use crate::{Kind, Tree};

/// Larger databases are not read: nobody has one, and a tree may come from anywhere.
const MAX_DATABASE_BYTES: u64 = 16 << 20;

/// A resolved `USER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Numeric user.
    pub uid: u32,
    /// Numeric primary group.
    pub gid: u32,
    /// Supplementary groups from `/etc/group`, sorted; empty when the group was given explicitly.
    pub groups: Vec<u32>,
    /// Home directory of the passwd entry, `/` without one.
    pub home: String,
    /// Login name of the passwd entry; empty without one.
    pub name: String,
}

/// Why a user or group could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserError {
    /// The name stands in no line of `/etc/passwd`; `missing_file` when there is no such file at all.
    UnknownUser { name: String, missing_file: bool, known: Vec<String> },
    /// The name stands in no line of `/etc/group`.
    UnknownGroup { name: String, missing_file: bool, known: Vec<String> },
    /// A number that does not fit an id (0 to 2^32 - 2).
    BadId(String),
}

impl std::fmt::Display for UserError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UserError::UnknownUser { name, missing_file: false, .. } => write!(f, "no user `{name}` in /etc/passwd"),
            UserError::UnknownUser { name, .. } => write!(f, "no user `{name}`: there is no /etc/passwd"),
            UserError::UnknownGroup { name, missing_file: false, .. } => write!(f, "no group `{name}` in /etc/group"),
            UserError::UnknownGroup { name, .. } => write!(f, "no group `{name}`: there is no /etc/group"),
            UserError::BadId(id) => write!(f, "`{id}` is out of range for a numeric id"),
        }
    }
}

impl std::error::Error for UserError {}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct GroupEntry {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Parses an id as Docker does: digits only. `None` is "not a number".
fn number(text: &str) -> Option<Result<u32, UserError>> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // (uid_t) -1 means "no change" to chown(2) and can own nothing.
    Some(text.parse().ok().filter(|&id| id != u32::MAX).ok_or_else(|| UserError::BadId(text.to_owned())))
}

impl Tree {
    fn database(&self, path: &[u8]) -> Option<String> {
        let id = self.resolve(path).ok()?.id;
        let Kind::File(content) = &self.node(id).kind else { return None };
        if content.len_bytes() > MAX_DATABASE_BYTES {
            return None;
        }
        Some(String::from_utf8_lossy(&content.read_all().ok()?).into_owned())
    }

    fn passwd(&self) -> Option<Vec<PasswdEntry>> {
        let text = self.database(b"/etc/passwd")?;
        Some(
            text.lines()
                .filter_map(|line| {
                    let f: Vec<&str> = line.trim().split(':').collect();
                    let (uid, gid) = (f.get(2)?.parse().ok()?, f.get(3)?.parse().ok()?);
                    Some(PasswdEntry { name: f[0].to_owned(), uid, gid, home: f.get(5).unwrap_or(&"").to_string() })
                })
                .collect(),
        )
    }

    fn group(&self) -> Option<Vec<GroupEntry>> {
        let text = self.database(b"/etc/group")?;
        Some(
            text.lines()
                .filter_map(|line| {
                    let f: Vec<&str> = line.trim().split(':').collect();
                    let gid = f.get(2)?.parse().ok()?;
                    let members = f.get(3).unwrap_or(&"").split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
                    Some(GroupEntry { name: f[0].to_owned(), gid, members })
                })
                .collect(),
        )
    }

    /// Resolves `USER`'s argument: `name`, `uid`, `name:group`, `uid:gid` and so on; empty is root.
    ///
    /// # Errors
    /// [`UserError`] for a name that the tree does not know and a number out of range.
    pub fn lookup_user(&self, spec: &str) -> Result<User, UserError> {
        let (user, group) = match spec.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (spec, None),
        };
        let passwd = self.passwd();
        let entries = passwd.as_deref().unwrap_or(&[]);
        let number_of_user = if user.is_empty() { Some(Ok(0)) } else { number(user) };
        let entry = entries.iter().find(|e| e.name == user).or_else(|| {
            let uid = number_of_user.as_ref()?.as_ref().ok()?;
            entries.iter().find(|e| e.uid == *uid)
        });
        let (uid, mut gid, home, name) = match (entry, number_of_user) {
            (Some(e), _) => (e.uid, e.gid, e.home.clone(), e.name.clone()),
            (None, Some(uid)) => (uid?, 0, String::new(), String::new()),
            (None, None) => {
                let known = entries.iter().map(|e| e.name.clone()).collect();
                return Err(UserError::UnknownUser { name: user.to_owned(), missing_file: passwd.is_none(), known });
            }
        };
        let mut groups = Vec::new();
        match group {
            Some(group) if !group.is_empty() => gid = self.lookup_group(group)?,
            _ if !name.is_empty() => {
                let all = self.group().unwrap_or_default();
                groups = all.iter().filter(|g| g.members.contains(&name)).map(|g| g.gid).collect();
                groups.sort_unstable();
                groups.dedup();
            }
            _ => {}
        }
        Ok(User { uid, gid, groups, home: if home.is_empty() { "/".into() } else { home }, name })
    }

    /// Resolves a group name or number.
    ///
    /// # Errors
    /// As [`Tree::lookup_user`].
    pub fn lookup_group(&self, group: &str) -> Result<u32, UserError> {
        let database = self.group();
        let entries = database.as_deref().unwrap_or(&[]);
        if let Some(entry) = entries.iter().find(|e| e.name == group) {
            return Ok(entry.gid);
        }
        number(group).unwrap_or_else(|| {
            let known = entries.iter().map(|e| e.name.clone()).collect();
            Err(UserError::UnknownGroup { name: group.to_owned(), missing_file: database.is_none(), known })
        })
    }

    /// Resolves the argument of `--chown`: `user`, `user:group`, by name or number. Without a group, a number stands for both and a name brings the
    /// group of its passwd entry (Dockerfile reference, "COPY --chown").
    ///
    /// # Errors
    /// As [`Tree::lookup_user`].
    pub fn lookup_owner(&self, spec: &str) -> Result<(u32, u32), UserError> {
        match spec.split_once(':') {
            Some((user, group)) if !group.is_empty() => Ok((self.lookup_user(user)?.uid, self.lookup_group(group)?)),
            _ => {
                let user = spec.strip_suffix(':').unwrap_or(spec);
                match number(user) {
                    Some(id) => id.map(|id| (id, id)),
                    None => self.lookup_user(user).map(|u| (u.uid, u.gid)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, Meta};

    fn tree() -> Tree {
        let mut tree = Tree::new();
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/var/www:/bin/false\n# junk\n1000:x:7:8::/odd:\nbig:x:4000000000:5::/big:\n";
        let group = "root:x:0:\nstaff:x:50:www,root\nvideo:x:44:www\nwww:x:34:\n";
        tree.write_file(b"/etc/passwd", Content::from_bytes(passwd.as_bytes()), Meta::new(0o644)).unwrap();
        tree.write_file(b"/etc/group", Content::from_bytes(group.as_bytes()), Meta::new(0o644)).unwrap();
        tree
    }

    #[test]
    fn users_by_name_and_number() {
        let t = tree();
        let get = |spec: &str| t.lookup_user(spec).map(|u| (u.uid, u.gid, u.groups, u.home));
        assert_eq!(get(""), Ok((0, 0, vec![50], "/root".into())));
        assert_eq!(get("www"), Ok((33, 34, vec![44, 50], "/var/www".into())));
        assert_eq!(get("33"), Ok((33, 34, vec![44, 50], "/var/www".into())));
        assert_eq!(get("www:staff"), Ok((33, 50, vec![], "/var/www".into())));
        assert_eq!(get("www:99"), Ok((33, 99, vec![], "/var/www".into())));
        assert_eq!(get("4242"), Ok((4242, 0, vec![], "/".into())));
        assert_eq!(get("1000"), Ok((7, 8, vec![], "/odd".into())), "a name that looks like a number is a name first");
        assert_eq!(get("big"), Ok((4_000_000_000, 5, vec![], "/big".into())));
        assert!(matches!(get("nobody"), Err(UserError::UnknownUser { missing_file: false, .. })));
        assert!(matches!(get("www:nogroup"), Err(UserError::UnknownGroup { .. })));
        assert_eq!(get("99999999999"), Err(UserError::BadId("99999999999".into())));
        assert!(matches!(Tree::new().lookup_user("www"), Err(UserError::UnknownUser { missing_file: true, .. })));
        assert_eq!(Tree::new().lookup_user("5:6").map(|u| (u.uid, u.gid)), Ok((5, 6)));
    }

    #[test]
    fn owners() {
        let t = tree();
        for (spec, expected) in
            [("www", (33, 34)), ("33", (33, 33)), ("www:staff", (33, 50)), ("55:66", (55, 66)), ("55:video", (55, 44)), ("www:", (33, 34))]
        {
            assert_eq!(t.lookup_owner(spec), Ok(expected), "{spec}");
        }
        assert!(t.lookup_owner("nobody").is_err());
        assert!(t.lookup_owner("55:nogroup").is_err());
    }
}
