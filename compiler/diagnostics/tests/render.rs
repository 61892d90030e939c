//! The rendered text of diagnostics, pinned: excerpts, several labels, several files, odd bytes, odd spans.

use ukc_diagnostics::{Diagnostic, FileId, SourceMap, Span, render};

fn span(start: u32, end: u32) -> Span {
    Span { file: FileId(0), start, end }
}

fn shown(bytes: &[u8], diagnostic: &Diagnostic) -> String {
    let mut sources = SourceMap::default();
    sources.add("Dockerfile", bytes);
    render(&sources, diagnostic, false)
}

/// Compares after removing the line that a raw string begins with.
#[track_caller]
fn same(got: &str, expected: &str) {
    assert_eq!(got, expected.strip_prefix('\n').unwrap(), "\n{got}");
}

#[test]
fn excerpt_notes_and_help() {
    let diagnostic = Diagnostic::error("missing-library", "`/app/server` needs `libssl.so.3`, which the image does not contain")
        .at(span(46, 57), "this program asks for it (`DT_NEEDED`)")
        .note("searched /lib and /usr/lib")
        .help("install the library in this stage")
        .help("or link `server` statically");
    let file = b"FROM x\nRUN y\nCOPY --from=build /out/server    /app/server\n";
    same(
        &shown(file, &diagnostic),
        "
error[missing-library]: `/app/server` needs `libssl.so.3`, which the image does not contain
 --> Dockerfile:3:34
  |
3 | COPY --from=build /out/server    /app/server
  |                                  ^^^^^^^^^^^ this program asks for it (`DT_NEEDED`)
  |
  = note: searched /lib and /usr/lib
help: install the library in this stage
help: or link `server` statically
",
    );
}

#[test]
fn without_labels() {
    let diagnostic = Diagnostic::warning("no-place", "something is odd").note("because of this").help("do that");
    same(
        &shown(b"", &diagnostic),
        "
warning[no-place]: something is odd
 = note: because of this
help: do that
",
    );
    same(&shown(b"", &Diagnostic::error("bare", "it failed")), "\nerror[bare]: it failed\n");
}

#[test]
fn crlf_and_byte_order_mark_do_not_shift_columns() {
    let file = b"\xef\xbb\xbfFROM a\r\nRUN b\r\nCMD c\r\n";
    let first = shown(file, &Diagnostic::error("e", "first").at(span(8, 9), "here"));
    same(&first, "\nerror[e]: first\n --> Dockerfile:1:6\n  |\n1 | FROM a\n  |      ^ here\n");
    let second = shown(file, &Diagnostic::error("e", "second").at(span(15, 16), "here"));
    same(&second, "\nerror[e]: second\n --> Dockerfile:2:5\n  |\n2 | RUN b\n  |     ^ here\n");
}

#[test]
fn bytes_that_are_not_utf8_are_one_character_each() {
    let file = b"\xff\xfe\xe4 word \xf0\x9f\x98\x80 x";
    same(
        &shown(file, &Diagnostic::error("e", "m").at(span(4, 8), "")),
        "\nerror[e]: m\n --> Dockerfile:1:5\n  |\n1 | ��� word 😀 x\n  |     ^^^^\n",
    );
    // A span that cuts characters shows them whole.
    same(
        &shown(file, &Diagnostic::error("e", "m").at(span(10, 11), "")),
        "\nerror[e]: m\n --> Dockerfile:1:10\n  |\n1 | ��� word 😀 x\n  |          ^^\n",
    );
}

#[test]
fn spans_at_and_beyond_the_end() {
    for (start, end) in [(7, 7), (8, 9), (100, 200), (7, 3)] {
        let text = shown(b"FROM a\n", &Diagnostic::error("e", "m").at(span(start, end), "end"));
        assert!(text.starts_with("error[e]: m\n --> Dockerfile:"), "{text}");
    }
    let empty = shown(b"", &Diagnostic::error("e", "m").at(span(0, 0), ""));
    assert!(empty.starts_with("error[e]: m\n --> Dockerfile:1:1\n"), "{empty}");
}

#[test]
fn a_long_span_is_shown_by_its_first_line() {
    let file = b"RUN <<EOF\n1\n2\n3\n4\n5\nEOF\n";
    same(
        &shown(file, &Diagnostic::error("e", "m").at(span(0, 24), "all of it")),
        "\nerror[e]: m\n --> Dockerfile:1:1\n  |\n1 | RUN <<EOF\n  | ^^^^^^^^^ all of it\n",
    );
}

#[test]
fn two_files() {
    let mut sources = SourceMap::default();
    let first = sources.add("Dockerfile", "FROM a\n");
    let second = sources.add("base.conf", "x\ny = 1\n");
    let diagnostic = Diagnostic::error("e", "they disagree")
        .at(Span { file: second, start: 2, end: 3 }, "this")
        .at(Span { file: first, start: 5, end: 6 }, "and this");
    same(
        &render(&sources, &diagnostic, false),
        "
error[e]: they disagree
 --> base.conf:2:1
  |
2 | y = 1
  | ^ this
  |
 ::: Dockerfile:1:6
  |
1 | FROM a
  |      - and this
",
    );
}

#[test]
fn color_is_optional() {
    let mut sources = SourceMap::default();
    sources.add("Dockerfile", "FROM a\n");
    let diagnostic = Diagnostic::error("e", "m").at(span(5, 6), "");
    assert!(render(&sources, &diagnostic, true).contains("\u{1b}["));
    assert!(!render(&sources, &diagnostic, false).contains('\u{1b}'));
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let diagnostic = Diagnostic::error("e", "unknown `\u{1b}[31m`").at(span(0, 5), "\u{1b}[0m").note("\u{9b}1m").help("\u{7f}\r");
    let text = shown(b"\x1b[31m\x07\n", &diagnostic);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}
