//! `--chown` and USER: `user`, `user:group`, `uid`, `uid:gid`.

/// A user or group: a name to look up in the image's `/etc/passwd` or `/etc/group`, or the number itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameOrId {
    /// Not all digits.
    Name(String),
    /// All digits.
    Id(u32),
}

/// A user and possibly a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Before the colon.
    pub user: NameOrId,
    /// After it. Without it `--chown` uses the number of the user, or its primary group if it is a name.
    pub group: Option<NameOrId>,
}

/// Parses an owner.
///
/// # Errors
/// A sentence, lower case: an empty part, a number above 4294967294 (the highest means "no change" to chown(2)).
pub fn parse(text: &str) -> Result<Owner, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(part(text, group, "group")?)),
        None => (text, None),
    };
    Ok(Owner { user: part(text, user, "user")?, group })
}

fn part(text: &str, name: &str, what: &str) -> Result<NameOrId, String> {
    if name.is_empty() {
        return Err(format!("the {what} of `{text}` is empty; the form is `user`, `user:group`, `uid` or `uid:gid`"));
    }
    if name.contains(':') {
        return Err(format!("`{text}` has more than one colon; the form is `user:group`"));
    }
    if !name.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(NameOrId::Name(name.to_string()));
    }
    match name.parse::<u32>() {
        Ok(id) if id < u32::MAX => Ok(NameOrId::Id(id)),
        _ => Err(format!("the {what} number {name} is above 4294967294")),
    }
}

#[cfg(test)]
mod tests {
    use super::{NameOrId, Owner, parse};

    #[test]
    fn names_and_numbers() {
        let name = |s: &str| NameOrId::Name(s.to_string());
        assert_eq!(parse("app"), Ok(Owner { user: name("app"), group: None }));
        assert_eq!(parse("app:staff"), Ok(Owner { user: name("app"), group: Some(name("staff")) }));
        assert_eq!(parse("1000:0"), Ok(Owner { user: NameOrId::Id(1000), group: Some(NameOrId::Id(0)) }));
        assert_eq!(parse("1a"), Ok(Owner { user: name("1a"), group: None }));
        for wrong in ["", ":", "a:", ":b", "a:b:c", "4294967295", "99999999999"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
