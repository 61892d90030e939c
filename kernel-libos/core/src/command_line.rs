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
//! | `-- WORDS` | program and arguments, as other guests take them; a word in single or double quotes may have spaces |
//!
//! urunc hands guests one of two other dialects, which are understood as well:
//!
//! ```text
//! Unikraft env.vars=[ K=V ... ] netdev.ip=ADDRESS/PREFIX:GATEWAY:DNS vfs.fstab=[ ... ] -- PROGRAM ARGS
//! panic=-1 console=ttyS0 root=/dev/vda rw ip=ADDRESS::GATEWAY:MASK:HOST:DEVICE:off K=V ... init=PROGRAM -- ARGS
//! ```
//!
//! In the second, `init=` (or `rdinit=`) names the program, what follows `--` are its arguments only, and `NAME=VALUE` words that are no kernel parameters
//! are variables, as on Linux. The addresses are read by the network module.
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

/// The words of a command line, of which parts may be in quotes; without the quotes.
fn quoted_words(line: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    for &byte in line.split(|b| *b == 0).next().unwrap_or_default() {
        // Our own words have no quotes: there, `%` says everything.
        let is_own = word.as_ref().is_some_and(|w| w.starts_with(b"ukc."));
        match (byte, quote) {
            (b'\'' | b'"', None) if !is_own => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (_, Some(open)) if byte == open => quote = None,
            (_, None) if byte.is_ascii_whitespace() => out.extend(word.take()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    out.extend(word);
    out
}

/// Parameters of the kernel that monitors and urunc pass, which are no variables.
const PARAMETERS: [&[u8]; 16] = [
    b"panic",
    b"console",
    b"root",
    b"rootfstype",
    b"rootflags",
    b"ip",
    b"init",
    b"rdinit",
    b"reboot",
    b"loglevel",
    b"pci",
    b"nomodules",
    b"random",
    b"tsc",
    b"earlyprintk",
    b"mitigations",
];

/// Whether a word of Linux' dialect is a variable for the program (Documentation/admin-guide/kernel-parameters: unknown ones without a dot are).
fn is_variable(word: &[u8]) -> bool {
    let Some(at) = word.iter().position(|&b| b == b'=') else { return false };
    let name = &word[..at];
    !name.is_empty() && !name.contains(&b'.') && !PARAMETERS.contains(&name)
}

fn number(text: &[u8]) -> Option<u32> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

impl Overrides {
    /// Reads a command line.
    pub fn parse(line: &[u8]) -> Overrides {
        let mut over = Overrides::default();
        let mut words = quoted_words(line).into_iter();
        let mut init = None;
        let mut variables = Vec::new();
        while let Some(word) = words.next() {
            if word == b"--" {
                over.arguments = words.by_ref().collect();
                over.program = over.arguments.first().cloned();
                break;
            }
            if word == b"env.vars=[" {
                over.environment.extend(words.by_ref().take_while(|w| w != b"]").filter(|w| w.contains(&b'=')));
                continue;
            }
            let Some(word) = word.strip_prefix(b"ukc.") else {
                match word.strip_prefix(b"init=").or_else(|| word.strip_prefix(b"rdinit=")) {
                    Some(program) if !program.is_empty() => init = Some(program.to_vec()),
                    _ if is_variable(&word) => variables.push(word),
                    _ => {}
                }
                continue;
            };
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
        if let Some(init) = init {
            over.arguments.insert(0, init.clone());
            over.program = Some(init);
            over.environment.append(&mut variables);
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
    fn the_two_dialects_of_urunc() {
        let unikraft = b"Unikraft env.vars=[ A=2 \"B=x y\" ] netdev.ip=10.0.0.2/24:10.0.0.1:8.8.8.8 vfs.fstab=[ \"initrd0:/:extract:::\" ] -- /bin/app -c 'two words'";
        assert_eq!(with_record(unikraft), (list(&["/bin/app", "-c", "two words"]), list(&["PATH=/bin", "A=2", "B=x y"])));
        let linux = b"panic=-1 console=ttyS0 root=/dev/vda rw ip=10.0.0.2::10.0.0.1:255.255.255.0:urunc:eth0:off A=3 N='x y' init=/bin/app -- -c '100%25 sure'";
        assert_eq!(with_record(linux), (list(&["/bin/app", "-c", "100%25 sure"]), list(&["PATH=/bin", "A=3", "N=x y"])));
        assert_eq!(Overrides::parse(linux).program.as_deref(), Some(&b"/bin/app"[..]));
        // Without init= nobody says that these are variables.
        assert_eq!(with_record(b"A=3 quiet").1, list(&["PATH=/bin", "A=1"]));
        assert_eq!(with_record(b"ukc.arg=it's ukc.arg=a'b").0, list(&["it's", "a'b"]));
        assert_eq!(quoted_words(b"a '' \"b c\"d 'open"), list(&["a", "", "b cd", "open"]));
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
