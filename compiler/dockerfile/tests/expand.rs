//! Variable expansion, by tables. Environment: `A=aval`, `E=` (set, empty), `P=/usr/local/lib/libfoo.so.1`, `W=one two  three`, `S=a*b?c\d`, `é=accent`;
//! everything else is unset. In inputs and results `␣` is a space (so that outer ones show), `⇥` a tab.

use ukc_diagnostics::{FileId, Span};
use ukc_dockerfile::expand::{self, Mode};
use ukc_dockerfile::{Word, ast::Heredoc};

fn env(name: &str) -> Option<String> {
    let value = match name {
        "A" => "aval",
        "E" => "",
        "P" => "/usr/local/lib/libfoo.so.1",
        "W" => "one two  three",
        "S" => r"a*b?c\d",
        "é" => "accent",
        _ => return None,
    };
    Some(value.to_string())
}

fn check(table: &str, mode: Mode) {
    let mut failures = String::new();
    for line in table.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (input, expected) = line.split_once(" | ").unwrap_or_else(|| (line.trim_end_matches(" |"), ""));
        let unescape = |s: &str| s.replace('␣', " ").replace('⇥', "\t");
        let got = match expand::expand(&unescape(input), mode, &env) {
            Ok(expansion) => expansion.text,
            Err(error) => format!("error: {}", error.message),
        };
        if got != unescape(expected) {
            failures += &format!("{input}\n  expected: {expected}\n  got:      {got}\n");
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn words_to_text() {
    check(
        r#"
        hello | hello
        he'll'o | hello
        he"ll"o | hello
        hello\ world | hello world
        hell\o | hello
        hello\\ | hello\
        \\hello | \hello
        "hello\t" | hello\t
        "he\"l\"o" | he"l"o
        'he\"l' | he\"l
        'he'"'"'llo' | he'llo
        hello\ | hello
        "hello\" | error: the closing double quote is missing
        'hello | error: the closing single quote is missing
        "a'b | error: the closing double quote is missing
        '' |
        "" |
        a␣␣b | a␣␣b
        ␣a␣ | ␣a␣
        $A | aval
        ${A} | aval
        x$A.y | xaval.y
        x$Ay | x
        x${A}y | xavaly
        $A$A | avalaval
        "$A" | aval
        '$A' | $A
        "'$A'" | 'aval'
        \$A | $A
        "\$A" | $A
        \\$A | \aval
        '\$A' | \$A
        $ | $
        $. | $.
        a$ | a$
        $$ |
        $UNSET |
        ${UNSET} |
        $é | accent
        $1 |
        $12x | x
        ${1}x | x
        $@ |
        ${@} |
        ${?} |
        $/x | $/x
        "$" | $
        ${} | error: bad substitution `${}`
        ${{A}} | error: bad substitution `${{`
        ${:-x} | error: bad substitution `${:`
        ${ | error: the closing `}` is missing
        ${A | error: the closing `}` is missing
        ${A: | error: the closing `}` is missing
        ${A:} | error: unsupported operator `:}` in `${A:}`
        ${A,,} | error: unsupported operator `,` in `${A,`
        ${A^} | error: unsupported operator `^` in `${A^`
        ${A:0:1} | error: unsupported operator `:0` in `${A:0`
        ${A=x} | error: unsupported operator `=` in `${A=`
        ${!A} | error: unsupported operator `A` in `${!A`
        "#,
        Mode::default(),
    );
}

#[test]
fn defaults_and_alternatives() {
    check(
        r#"
        ${A-x} | aval
        ${A:-x} | aval
        ${E-x} |
        ${E:-x} | x
        ${U-x} | x
        ${U:-x} | x
        ${U-} |
        ${U:-} |
        ${A+x} | x
        ${A:+x} | x
        ${E+x} | x
        ${E:+x} |
        ${U+x} |
        ${U:+x} |
        ${U:-$A} | aval
        ${U:-${A}} | aval
        ${U:-${V:-deep}} | deep
        ${U:-'$A'} | $A
        ${U:-"$A b"} | aval b
        ${U:-"}"} | }
        ${U:-\}} | }
        ${U:-a b} | a b
        ${U:--} | -
        ${A:+${A}.x} | aval.x
        x${U:+y}z | xz
        "${U:-x y}" | x y
        ${U:-x | error: the `}` of `${U:-x` is missing
        ${U:-${V} | error: the `}` of `${U:-${V}` is missing
        "#,
        Mode::default(),
    );
}

#[test]
fn required() {
    check(
        r#"
        ${A?} | aval
        ${A:?msg} | aval
        ${E?msg} |
        ${E:?msg} | error: `E` is empty: msg
        ${E:?} | error: `E` must not be empty
        ${U?} | error: `U` must not be unset
        ${U:?} | error: `U` must not be unset
        ${U?set $A please} | error: `U` is unset: set aval please
        ${V:-${U?inner}} | error: `U` is unset: inner
        "#,
        Mode::default(),
    );
}

#[test]
fn patterns() {
    check(
        r#"
        ${P#*/} | usr/local/lib/libfoo.so.1
        ${P##*/} | libfoo.so.1
        ${P%/*} | /usr/local/lib
        ${P%%/*} |
        ${P%.*} | /usr/local/lib/libfoo.so
        ${P%%.*} | /usr/local/lib/libfoo
        ${P#/usr} | /local/lib/libfoo.so.1
        ${P#usr} | /usr/local/lib/libfoo.so.1
        ${P%1} | /usr/local/lib/libfoo.so.
        ${P%?} | /usr/local/lib/libfoo.so.
        ${P#?} | usr/local/lib/libfoo.so.1
        ${P#} | /usr/local/lib/libfoo.so.1
        ${P##} | /usr/local/lib/libfoo.so.1
        ${S#a\*} | b?c\d
        ${S#*\?} | c\d
        ${S%\\d} | a*b?c
        ${S%\?*} | a*b
        ${A#\a} | error: invalid escape `\a` in the pattern `\a`
        ${A#$A} |
        ${A%val} | a
        ${A#"a"} | val
        ${U#x} |
        ${E#*} |
        ${A#[a]} | aval
        ${A%.} | aval
        ${A/v/w} | awal
        ${A/a/} | val
        ${A//a/} | vl
        ${A//a/x} | xvxl
        ${A/x/y} | aval
        ${A//?/z} | zzzz
        ${A/*/z} | z
        ${A/v*/z} | az
        ${A/v/$E} | aal
        ${A/v/[$A]} | a[aval]al
        ${P//\//-} | -usr-local-lib-libfoo.so.1
        ${P/\/usr\/local/~} | ~/lib/libfoo.so.1
        ${A/v/\}} | a\}al
        ${S//\*/x} | axb?c\d
        ${A/v} | error: the `/` of `${A/v}` is missing
        ${A/v/w | error: the `}` of `${A/v/w` is missing
        ${A//} | error: the `/` of `${A//}` is missing
        ${U/a/b} |
        ${A:/v/w} | error: unsupported operator `:/` in `${A:/`
        "#,
        Mode::default(),
    );
}

#[test]
fn other_escape_character() {
    check(
        r#"
        C:\dir | C:\dir
        a`$A | a$A
        "`"x" | "x
        "a`b" | a`b
        `` | `
        $A\ | aval\
        "#,
        Mode::new('`'),
    );
}

#[test]
fn heredoc_bodies() {
    // Quotes are ordinary characters; `\` still escapes.
    check(
        r#"
        it's $A "quoted" | it's aval "quoted"
        \$A '$A' | $A 'aval'
        a\\b | a\b
        "#,
        Mode { ignore_quotes: true, ..Mode::default() },
    );
    let span = Span { file: FileId(0), start: 0, end: 5 };
    let doc = |expand| Heredoc {
        name: Word { value: "E".to_string(), span },
        fd: 0,
        strip_tabs: true,
        expand,
        body: Word { value: "\t\t$A\n\tx \t$A\n".to_string(), span },
    };
    assert_eq!(expand::heredoc(&doc(true), &env).unwrap().text, "aval\nx \taval\n");
    assert_eq!(expand::heredoc(&doc(false), &env).unwrap().text, "$A\nx \t$A\n");
}

#[test]
fn splitting_comes_after_expansion() {
    let words = |text: &str| expand::expand(text, Mode::default(), &env).unwrap().words;
    assert_eq!(words("$W"), ["one", "two", "three"]);
    assert_eq!(words("\"$W\""), ["one two  three"]);
    assert_eq!(words("x$W"), ["xone", "two", "three"]);
    assert_eq!(words("a\\ b c"), ["a b", "c"]);
    assert_eq!(words("  a   b  "), ["a", "b"]);
    assert_eq!(words("$U $E ''"), [""; 0]);
    assert_eq!(words("80 ${U:-443 8080}"), ["80", "443", "8080"]);
}

#[test]
fn names_are_reported() {
    let expansion = expand::expand("$A ${U:-$V} ${X:+a} '$Q' \\$R ${E} ${Z#p}", Mode::default(), &env).unwrap();
    assert_eq!(expansion.used.iter().collect::<Vec<_>>(), ["A", "E"]);
    assert_eq!(expansion.unset.iter().collect::<Vec<_>>(), ["V", "Z"]);
    assert_eq!(expansion.unset_allowed.iter().collect::<Vec<_>>(), ["U", "X"]);
}

#[test]
fn errors_point_into_the_word() {
    let word = Word { value: "abc${U?}".to_string(), span: Span { file: FileId(7), start: 100, end: 108 } };
    let problem = expand::word(&word, '\\', &env).unwrap_err();
    assert_eq!(problem.name, "required-variable");
    assert_eq!(problem.labels[0].span, Span { file: FileId(7), start: 103, end: 108 });
    // Where text and source differ (a continuation inside the word), the whole word is meant.
    let word = Word { span: Span { end: 120, ..word.span }, ..word };
    assert_eq!(expand::word(&word, '\\', &env).unwrap_err().labels[0].span, word.span);
}

#[test]
fn unset_names_can_stay() {
    let mode = Mode { keep_unset: true, ..Mode::default() };
    check("$U | $U\n ${U} | ${U}\n ${U:-x} | ${U:-x}\n ${U/a/b} | ${U/a/b}\n $A | aval\n ${U#p} | ${U#p}", mode);
}

#[test]
fn deep_nesting_is_refused() {
    let deep = "${U:-".repeat(10_000);
    assert!(expand::expand(&deep, Mode::default(), &env).is_err());
    let fine = format!("{}x{}", "${U:-".repeat(50), "}".repeat(50));
    assert_eq!(expand::expand(&fine, Mode::default(), &env).unwrap().text, "x");
}
