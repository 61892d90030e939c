//! The first line of a script: `#! interpreter [one argument]` (execve(2), "Interpreter scripts").

use alloc::vec::Vec;

/// How many bytes of a file tell what it is (Linux' `BINPRM_BUF_SIZE`).
pub const PEEK_BYTES: usize = 256;

/// How many interpreters may in turn be scripts (Linux, `exec_binprm`: more give `ELOOP`).
pub const DEPTH_MAX: usize = 5;

/// What the line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    /// Path of the interpreter.
    pub interpreter: Vec<u8>,
    /// Everything behind it, as one argument.
    pub argument: Option<Vec<u8>>,
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Reads the start of a file, at most [`PEEK_BYTES`] of it. `None` when it is no script that Linux would run: no `#!`, no interpreter, or an
/// interpreter's path that may go on behind what was read.
pub fn parse(start: &[u8]) -> Option<Script> {
    let start = &start[..start.len().min(PEEK_BYTES)];
    let rest = start.strip_prefix(b"#!")?;
    let (line, is_complete) = match rest.iter().position(|b| *b == b'\n') {
        Some(end) => (&rest[..end], true),
        // A file that ends here ends its line as well.
        None => (rest, start.len() < PEEK_BYTES),
    };
    let from = line.iter().position(|b| !is_blank(*b))?;
    let to = line.iter().rposition(|b| !is_blank(*b))? + 1;
    let line = &line[from..to];
    let name_len = line.iter().position(|b| is_blank(*b) || *b == 0);
    if name_len.is_none() && !is_complete {
        return None;
    }
    let (name, rest) = line.split_at(name_len.unwrap_or(line.len()));
    if name.is_empty() {
        return None;
    }
    // Without a line end within reach the argument is cut, not refused: so it has always been.
    let argument = rest.iter().position(|b| !is_blank(*b)).map(|i| &rest[i..]);
    let argument = argument.map(|a| a.split(|b| *b == 0).next().unwrap_or_default()).filter(|a| !a.is_empty());
    Some(Script { interpreter: name.to_vec(), argument: argument.map(<[u8]>::to_vec) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `line | interpreter | argument`; `-` is none.
    const TABLE: &str = r"
        #!/bin/sh\n                      | /bin/sh        | -
        #!/bin/sh                        | /bin/sh        | -
        #! /bin/sh -e\n                  | /bin/sh        | -e
        #!\t /usr/bin/env  python3 -u \n | /usr/bin/env   | python3 -u
        #!/bin/sh\t-e\t\n                | /bin/sh        | -e
        #!/a\necho\n                     | /a             | -
        #!\n                             | -              | -
        #!   \n                          | -              | -
        # /bin/sh\n                      | -              | -
        #!/bin/sh\r\n                    | /bin/sh\r      | -
        #!x\0y\n                         | x              | -
    ";

    fn unescape(text: &str) -> Vec<u8> {
        text.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").replace("\\0", "\0").into_bytes()
    }

    #[test]
    fn table() {
        for row in TABLE.lines().filter(|r| r.contains('|')) {
            let mut cells = row.split('|').map(str::trim);
            let (line, name, argument) = (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
            let script = parse(&unescape(line));
            if name == "-" {
                assert_eq!(script, None, "{row}");
                continue;
            }
            let script = script.unwrap_or_else(|| panic!("{row}"));
            assert_eq!(script.interpreter, unescape(name), "{row}");
            assert_eq!(script.argument, (argument != "-").then(|| unescape(argument)), "{row}");
        }
    }

    #[test]
    fn a_line_longer_than_what_is_read() {
        // The path itself may be cut: refused. The argument may be cut: it is.
        let long = [b"#!/".as_slice(), &[b'a'; 300]].concat();
        assert_eq!(parse(&long), None);
        let long = [b"#!/bin/x ".as_slice(), &[b'a'; 300]].concat();
        let script = parse(&long).unwrap();
        assert_eq!((script.interpreter.as_slice(), script.argument.unwrap().len()), (b"/bin/x".as_slice(), 256 - 9));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let with_prefix = [b"#!".as_slice(), &bytes].concat();
            for input in [&bytes, &with_prefix] {
                if let Some(script) = parse(input) {
                    prop_assert!(!script.interpreter.is_empty() && !script.interpreter.contains(&b'\n'));
                }
            }
        }
    }
}
