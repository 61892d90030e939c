//! The kernel command line: what it changes of the boot record.
//!
//! Words are separated by spaces; `%` and two hexadecimal digits stand for a byte, so that a word can hold anything.
//!
//! | word | meaning |
//! |---|---|
//! | `ukc.program=PATH` | the program to start; its arguments are then those given here, `PATH` alone if none are |
//! | `ukc.arg=TEXT` | one argument, `argv[0]` first; together they replace those of the record |
//! | `ukc.env=NAME=VALUE` | sets a variable; `ukc.env=NAME` removes it |
//! | `ukc.cwd=PATH`, `ukc.uid=N`, `ukc.gid=N` | working directory, user and group |
//! | `ukc.mount=DISK:PATH:OPTIONS` | mounts a disk, by serial number or index; options are `ro` and `nocopy`, separated by commas |
//! | `ukc.tty` | the console is a terminal: somebody sits at the other end |
//! | `ukc.trace` | print system calls, as the record's flag does |
//! | `-- WORDS` | program and arguments, as other guests take them |
//!
//! Words that mean nothing here are left to others: monitors add some (`console=`, `virtio_mmio.device=`), and so may modules (`ip=`).

use alloc::vec::Vec;

use ukc_boot_record::BootRecord;

/// What the command line changes.
#[derive(Debug, Default)]
pub struct Overrides {
    /// Program.
    pub program: Option<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
    /// `NAME=VALUE` sets, `NAME` removes.
    environment: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: Option<Vec<u8>>,
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
    /// Whether system calls are to be printed.
    pub trace: bool,
    /// Whether the console is a terminal.
    pub tty: bool,
    /// Disks to mount: `DISK:PATH:OPTIONS`.
    pub mounts: Vec<Vec<u8>>,
}

/// The words of a command line.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| b.is_ascii_whitespace() || *b == 0).filter(|w| !w.is_empty())
}

/// A word with its `%` sequences replaced; one that is no sequence stands for itself.
pub fn decode(word: &[u8]) -> Vec<u8> {
    let digit = |b: Option<&u8>| b.and_then(|&b| char::from(b).to_digit(16)).map(|d| d as u8);
    let mut out = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        match (word[at], digit(word.get(at + 1)), digit(word.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn number(text: &[u8]) -> Option<u32> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

impl Overrides {
    /// Reads a command line.
    pub fn parse(line: &[u8]) -> Overrides {
        let mut over = Overrides::default();
        let mut words = words(line);
        while let Some(word) = words.next() {
            if word == b"--" {
                over.arguments = words.by_ref().map(decode).collect();
                over.program = over.arguments.first().cloned();
                break;
            }
            let Some(word) = word.strip_prefix(b"ukc.") else { continue };
            let (name, value) = match word.iter().position(|&b| b == b'=') {
                Some(at) => (&word[..at], decode(&word[at + 1..])),
                None => (word, Vec::new()),
            };
            match name {
                b"program" => over.program = Some(value),
                b"arg" => over.arguments.push(value),
                b"env" if !value.is_empty() => over.environment.push(value),
                b"cwd" => over.cwd = Some(value),
                b"uid" => over.uid = number(&value),
                b"gid" => over.gid = number(&value),
                b"trace" => over.trace = true,
                b"tty" => over.tty = true,
                b"mount" => over.mounts.push(value),
                _ => {}
            }
        }
        over
    }

    /// The arguments of the first process.
    pub fn args<'a>(&'a self, record: &BootRecord<'a>) -> impl Iterator<Item = &'a [u8]> {
        // With another program, the record's arguments are not meant for it.
        let from_record = self.arguments.is_empty() && self.program.is_none();
        let own = self.arguments.iter().map(Vec::as_slice);
        let name = self.program.as_deref().filter(|_| self.arguments.is_empty());
        record.args().filter(move |_| from_record).chain(own).chain(name)
    }

    /// The environment of the first process.
    pub fn env<'a>(&'a self, record: &BootRecord<'a>) -> impl Iterator<Item = &'a [u8]> {
        let name = |entry: &'a [u8]| entry.split(|&b| b == b'=').next().unwrap_or_default();
        let is_changed = move |entry: &[u8]| {
            let wanted = entry.split(|&b| b == b'=').next().unwrap_or_default();
            self.environment.iter().any(|e| name(e) == wanted)
        };
        let own = self.environment.iter().map(Vec::as_slice).filter(|e| e.contains(&b'='));
        record.env().filter(move |e| !is_changed(e)).chain(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ukc_boot_record::BootRecordBuilder;

    fn with_record(line: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let builder = BootRecordBuilder::new().program(b"/app").arg(b"app").arg(b"-x").env(b"PATH=/bin").env(b"A=1");
        let bytes = builder.build().expect("valid");
        let record = BootRecord::parse(&bytes).expect("valid");
        let over = Overrides::parse(line);
        (over.args(&record).map(<[u8]>::to_vec).collect(), over.env(&record).map(<[u8]>::to_vec).collect())
    }

    fn list(items: &[&str]) -> Vec<Vec<u8>> {
        items.iter().map(|i| i.as_bytes().to_vec()).collect()
    }

    #[test]
    fn an_empty_line_changes_nothing() {
        assert_eq!(with_record(b"console=ttyS0 quiet"), (list(&["app", "-x"]), list(&["PATH=/bin", "A=1"])));
    }

    #[test]
    fn arguments_and_variables_are_replaced() {
        let line = b"ukc.arg=app ukc.arg=two%20words ukc.env=A=2 ukc.env=B=%25 ukc.env=PATH";
        assert_eq!(with_record(line), (list(&["app", "two words"]), list(&["A=2", "B=%"])));
    }

    #[test]
    fn another_program_gets_its_own_arguments() {
        assert_eq!(with_record(b"ukc.program=/bin/sh").0, list(&["/bin/sh"]));
        assert_eq!(with_record(b"panic=-1 -- /bin/ls -l").0, list(&["/bin/ls", "-l"]));
        assert_eq!(Overrides::parse(b"-- /bin/ls -l").program.as_deref(), Some(&b"/bin/ls"[..]));
    }

    #[test]
    fn what_is_no_sequence_stands_for_itself() {
        for (word, expected) in [("a%41b", "aAb"), ("100%", "100%"), ("%4", "%4"), ("%zz%20", "%zz ")] {
            assert_eq!(decode(word.as_bytes()), expected.as_bytes(), "{word}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_ignored() {
        let over = Overrides::parse(b"ukc.uid=1000 ukc.gid=x ukc.trace ukc.cwd=/srv");
        assert_eq!((over.uid, over.gid, over.trace, over.cwd.as_deref()), (Some(1000), None, true, Some(&b"/srv"[..])));
    }
}
