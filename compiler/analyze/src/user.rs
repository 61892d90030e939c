//! `USER` to numbers: what Docker's engine does with the image's own `/etc/passwd` and `/etc/group` (moby/sys/user, `GetExecUser`).

use std::collections::BTreeSet;

use ukc_rootfs::{Kind, Tree};

use crate::facts::User;

struct Passwd {
    name: Vec<u8>,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: Vec<u8>,
    gid: u32,
    members: Vec<Vec<u8>>,
}

fn fields(tree: &Tree, path: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let bytes = match tree.resolve(path).map(|f| &tree.node(f.id).kind) {
        Ok(Kind::File(content)) => content.read_all().unwrap_or_default(),
        _ => Vec::new(),
    };
    bytes
        .split(|&b| b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|l| !l.is_empty() && !l.starts_with(b"#"))
        .map(|l| l.split(|&b| b == b':').map(<[u8]>::to_vec).collect())
        .collect()
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse::<u32>().ok().filter(|&n| n <= i32::MAX as u32)
}

/// Resolves `USER` as written: `name`, `uid`, `name:group`, `uid:gid`; empty is root.
///
/// A group that is given replaces the primary group and leaves no supplementary groups but those that passwd's name is a member of.
///
/// # Errors
/// The user or group, when it is a name that the image's files do not have.
pub fn resolve(tree: &Tree, user: &str) -> Result<User, String> {
    let passwd: Vec<Passwd> = fields(tree, b"/etc/passwd")
        .into_iter()
        .filter_map(|f| {
            Some(Passwd {
                name: f.first()?.clone(),
                uid: number(f.get(2)?)?,
                gid: number(f.get(3)?)?,
                home: f.get(5).map(|h| String::from_utf8_lossy(h).into_owned()).unwrap_or_default(),
            })
        })
        .collect();
    let groups: Vec<Group> = fields(tree, b"/etc/group")
        .into_iter()
        .filter_map(|f| {
            let members = f.get(3).map(|m| m.split(|&b| b == b',').filter(|m| !m.is_empty()).map(<[u8]>::to_vec).collect());
            Some(Group { name: f.first()?.clone(), gid: number(f.get(2)?)?, members: members.unwrap_or_default() })
        })
        .collect();

    let (user_part, group_part) = user.split_once(':').map_or((user, None), |(u, g)| (u, Some(g).filter(|g| !g.is_empty())));
    let wanted = if user_part.is_empty() { "0" } else { user_part };
    // A name wins over a number, so that a user called "1000" is found.
    let entry =
        passwd.iter().find(|p| p.name == wanted.as_bytes()).or_else(|| passwd.iter().find(|p| number(wanted.as_bytes()) == Some(p.uid)));
    let mut out = match (entry, number(wanted.as_bytes())) {
        (Some(p), _) => User { uid: p.uid, gid: p.gid, groups: vec![], home: p.home.clone() },
        (None, Some(uid)) => User { uid, gid: 0, groups: vec![], home: String::new() },
        (None, None) => return Err(format!("user `{wanted}`")),
    };
    match group_part {
        Some(group) => {
            let found = groups.iter().find(|g| g.name == group.as_bytes()).map(|g| g.gid).or_else(|| number(group.as_bytes()));
            out.gid = found.ok_or_else(|| format!("group `{group}`"))?;
        }
        None => {
            if let Some(p) = entry {
                let ids: BTreeSet<u32> = groups.iter().filter(|g| g.members.contains(&p.name)).map(|g| g.gid).collect();
                out.groups = ids.into_iter().collect();
            }
        }
    }
    if out.home.is_empty() {
        out.home = "/".to_owned();
    }
    Ok(out)
}
