//! Scripts: the `#!` line (execve(2), "Interpreter scripts"), `env`, and the words that may name programs.

/// The longest first line that Linux looks at (`BINPRM_BUF_SIZE`).
const MAX_LINE: usize = 256;

/// A `#!` line: the interpreter and its one optional argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shebang {
    /// Path of the interpreter.
    pub interpreter: Vec<u8>,
    /// Everything behind the first white space, without white space at its ends.
    pub argument: Option<Vec<u8>>,
}

/// Returns the `#!` line of a file, if it starts with one that names something.
pub fn shebang(head: &[u8]) -> Option<Shebang> {
    let line = head.strip_prefix(b"#!")?;
    let line = &line[..line.len().min(MAX_LINE - 2)];
    let line = line.split(|&b| b == b'\n' || b == 0).next().unwrap_or(line);
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = line.iter().position(|b| !blank(b))?;
    let line = &line[start..];
    let end = line.iter().position(blank).unwrap_or(line.len());
    let mut argument = &line[end..];
    while let [b' ' | b'\t', rest @ ..] = argument {
        argument = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = argument {
        argument = rest;
    }
    Some(Shebang { interpreter: line[..end].to_vec(), argument: (!argument.is_empty()).then(|| argument.to_vec()) })
}

/// Returns the program that `env` starts for these arguments: options and assignments are passed over, `-S` splits its argument (env(1)).
pub fn env_command(args: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut args: Vec<Vec<u8>> = args.to_vec();
    while !args.is_empty() {
        let arg = args.remove(0);
        if let Some(rest) = arg.strip_prefix(b"-S").or(arg.strip_prefix(b"--split-string=")).or(arg.strip_prefix(b"-vS")) {
            let text = if rest.is_empty() && !args.is_empty() { args.remove(0) } else { rest.to_vec() };
            let words: Vec<Vec<u8>> = text.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).map(<[u8]>::to_vec).collect();
            args.splice(0..0, words);
        } else if matches!(arg.as_slice(), b"-u" | b"-C" | b"--unset" | b"--chdir") {
            if !args.is_empty() {
                args.remove(0);
            }
        } else if arg.starts_with(b"-") || arg.contains(&b'=') {
        } else {
            return Some(arg);
        }
    }
    None
}

/// Returns every word of a script that could be the name or path of a program, once each, in order. The text is not parsed: quotes, operators and
/// substitutions only separate words, so a name can be missed only when it is put together at run time.
pub fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let separates = |b: &u8| !(b.is_ascii_alphanumeric() || b"/._+-@".contains(b) || *b >= 0x80);
    let mut seen = std::collections::BTreeSet::new();
    text.split(separates).filter(|w| !w.is_empty() && w.len() < 4096).filter(|w| seen.insert(w.to_vec())).map(<[u8]>::to_vec).collect()
}

/// Whether a program of this name is a shell, which starts whatever its script says.
pub fn is_shell(name: &[u8]) -> bool {
    [&b"sh"[..], b"bash", b"dash", b"ash", b"zsh", b"ksh", b"mksh", b"fish", b"busybox", b"toybox", b"rbash"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        for (head, interpreter, argument) in [
            ("#!/bin/sh\nexit", "/bin/sh", None),
            ("#! /usr/bin/env  python3 -u \n", "/usr/bin/env", Some("python3 -u")),
            ("#!/bin/bash -e", "/bin/bash", Some("-e")),
            ("#!/bin/sh\r\n", "/bin/sh\r", None),
        ] {
            let found = shebang(head.as_bytes()).unwrap();
            assert_eq!(
                (found.interpreter.as_slice(), found.argument.as_deref()),
                (interpreter.as_bytes(), argument.map(str::as_bytes)),
                "{head:?}"
            );
        }
        assert_eq!(shebang(b"#!  \n"), None);
        assert_eq!(shebang(b"echo"), None);
    }

    #[test]
    fn what_env_starts() {
        for (args, expected) in
            [("python3", Some("python3")), ("-i PATH=/bin sh", Some("sh")), ("-u HOME node", Some("node")), ("A=b", None)]
        {
            let args: Vec<Vec<u8>> = args.split(' ').map(|a| a.as_bytes().to_vec()).collect();
            assert_eq!(env_command(&args).as_deref(), expected.map(str::as_bytes), "{args:?}");
        }
        assert_eq!(env_command(&[b"-S perl -w".to_vec()]).as_deref(), Some(&b"perl"[..]));
    }

    #[test]
    fn words_of_a_script() {
        let found = words(b"exec \"$@\"; /usr/sbin/nginx -g 'daemon off;' | $(which gosu) x");
        let expected: Vec<Vec<u8>> =
            ["exec", "@", "/usr/sbin/nginx", "-g", "daemon", "off", "which", "gosu", "x"].iter().map(|w| w.as_bytes().to_vec()).collect();
        assert_eq!(found, expected);
    }
}
