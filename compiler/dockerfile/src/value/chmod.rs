//! `--chmod`: octal (`0755`) or symbolic (`u=rwX,go=rX`), chmod(1).

/// How the permission bits of a file change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// These twelve bits, whatever the file had.
    Octal(u32),
    /// One change after the other.
    Symbolic(Vec<Change>),
}

/// `g+w`: one operator of a symbolic mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The bits of the classes named: 0o4700 for `u`, 0o2070 for `g`, 0o1007 for `o`, all for `a` or nothing.
    who: u32,
    op: Op,
    bits: Bits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bits {
    /// Permission bits in all classes; `execute_if_any` is the `X`.
    Given { bits: u32, execute_if_any: bool },
    /// The bits of the class at this shift (6, 3, 0 for `u`, `g`, `o`).
    Copied(u32),
}

impl Chmod {
    /// Returns the permission bits (the lower twelve of `st_mode`) of a file that had `mode`. There is no umask: a change without a class is for all, so
    /// that the result does not depend on who builds. Octal modes of directories are as for files.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Chmod::Octal(bits) => *bits,
            Chmod::Symbolic(changes) => changes.iter().fold(mode & 0o7777, |mode, change| change.apply(mode, is_dir)),
        }
    }
}

impl Change {
    fn apply(self, mode: u32, is_dir: bool) -> u32 {
        let bits = match self.bits {
            Bits::Given { bits, execute_if_any } if execute_if_any && (is_dir || mode & 0o111 != 0) => bits | 0o111,
            Bits::Given { bits, .. } => bits,
            Bits::Copied(shift) => {
                let class = mode >> shift & 0o7;
                class << 6 | class << 3 | class
            }
        } & self.who;
        match self.op {
            Op::Add => mode | bits,
            Op::Remove => mode & !bits,
            Op::Set => mode & !self.who | bits,
        }
    }
}

/// Parses a mode.
///
/// # Errors
/// A sentence, lower case.
pub fn parse(text: &str) -> Result<Chmod, String> {
    if text.is_empty() {
        return Err("the mode is empty; write it as `755` or `u=rwx,go=rx`".to_string());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o7777 => Ok(Chmod::Octal(bits)),
            Ok(_) => Err(format!("the mode `{text}` is above 7777")),
            Err(_) => Err(format!("the mode `{text}` is not octal: its digits are 0 to 7")),
        };
    }
    let mut changes = Vec::new();
    for clause in text.split(',') {
        symbolic(text, clause, &mut changes)?;
    }
    Ok(Chmod::Symbolic(changes))
}

/// `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`
fn symbolic(text: &str, clause: &str, changes: &mut Vec<Change>) -> Result<(), String> {
    let mut chars = clause.chars().peekable();
    let mut who = 0;
    while let Some(class) = chars.next_if(|c| matches!(c, 'u' | 'g' | 'o' | 'a')) {
        who |= match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            _ => 0o7777,
        };
    }
    if who == 0 {
        who = 0o7777;
    }
    if chars.peek().is_none() {
        return Err(format!("`{clause}` in the mode `{text}` has no `+`, `-` or `=`"));
    }
    while let Some(op) = chars.next() {
        let op = match op {
            '+' => Op::Add,
            '-' => Op::Remove,
            '=' => Op::Set,
            other => return Err(format!("`{other}` in the mode `{text}` is not one of `+`, `-`, `=`, or a permission of `rwxXst`")),
        };
        let bits = match chars.next_if(|c| matches!(c, 'u' | 'g' | 'o')) {
            Some('u') => Bits::Copied(6),
            Some('g') => Bits::Copied(3),
            Some(_) => Bits::Copied(0),
            None => {
                let (mut bits, mut execute_if_any) = (0, false);
                while let Some(permission) = chars.next_if(|c| matches!(c, 'r' | 'w' | 'x' | 'X' | 's' | 't')) {
                    match permission {
                        'r' => bits |= 0o444,
                        'w' => bits |= 0o222,
                        'x' => bits |= 0o111,
                        's' => bits |= 0o6000,
                        't' => bits |= 0o1000,
                        _ => execute_if_any = true,
                    }
                }
                Bits::Given { bits, execute_if_any }
            }
        };
        changes.push(Change { who, op, bits });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn table() {
        // mode of the file, d for a directory, what is asked | result
        let table = "
            644 755 | 755
            4755 u+w | 4755
            644 u=rwX,go=rX | 644
            744 u=rwX,go=rX | 755
            d644 u=rwX,go=rX | 755
            644 +x | 755
            600 g=u | 660
            664 o-r | 660
            755 a= | 0
            755 u+s,+t | 5755
            755 ug+s | 6755
            777 go-w+t | 1755
            644 u+x-w | 544
            0 0644 | 644";
        for line in table.lines().skip(1) {
            let (input, expected) = line.trim().split_once(" | ").unwrap();
            let (mode, asked) = input.split_once(' ').unwrap();
            let is_dir = mode.starts_with('d');
            let mode = u32::from_str_radix(mode.trim_start_matches('d'), 8).unwrap();
            assert_eq!(format!("{:o}", parse(asked).unwrap().apply(mode, is_dir)), expected, "{line}");
        }
        for wrong in ["", "888", "77777", "u", "rwx", "u=rq", "u+x,", "u~x", "0o755", "-", "x"] {
            let parsed = parse(wrong);
            assert!(parsed.is_err() || wrong == "-", "{wrong}: {parsed:?}");
        }
    }
}
