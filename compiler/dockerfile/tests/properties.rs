//! Properties of the parser on any input: no panic, spans inside the file and on character boundaries, nodes and pieces that tile the file, diagnostics that
//! can be rendered. Inputs are random bytes, and realistic fragments put together at random, which reach much further.

use proptest::prelude::*;
use ukc_diagnostics::{FileId, SourceMap, Span, render};
use ukc_dockerfile::*;

/// Pieces of Dockerfiles; each may follow each.
const FRAGMENTS: &[&str] = &[
    "FROM alpine\n",
    "FROM --platform=$BUILDPLATFORM a:${T:-1} AS b\n",
    "from x as Y\n",
    "FROM",
    "ARG A=1 B\n",
    "ENV a=b \"c d\"='e' f\\ g=h\n",
    "ENV old form here\n",
    "LABEL x=\"y \\\n z\"\n",
    "COPY --from=b --chown=1:2 --chmod=u+x ./a b/\n",
    "COPY <<A <<-\"B\" /x\n",
    "ADD x /y\n",
    "RUN <<EOF\n",
    "EOF\n",
    "\tB\n",
    "A\n",
    "RUN make \\\n",
    "RUN --mount=type=cache,target=/x,id=$A --network=none y\n",
    "RUN [\"a\", \"\\u00e9\"]\n",
    "CMD [1]\n",
    "ENTRYPOINT []\n",
    "ONBUILD ",
    "onbuild RUN <<E\n",
    "HEALTHCHECK --interval=1s CMD x\n",
    "SHELL [\"/bin/sh\"]\n",
    "USER a:b\n",
    "WORKDIR ${W#*/}\n",
    "EXPOSE 80/udp 1-2 $P\n",
    "VOLUME [\"/a\"] \n",
    "STOPSIGNAL 9\n",
    "MAINTAINER m\n",
    "# escape=`\n",
    "# syntax=x\n",
    "# check=skip=all;error=true\n",
    "# comment\n",
    "\n",
    "  \t\n",
    "\\\n",
    "\\",
    "`\n",
    "`",
    "\r\n",
    "\u{feff}",
    "\"",
    "'",
    "${",
    "}",
    "$",
    "$$",
    "<<",
    "<<-",
    "--",
    "--x",
    " ",
    "=",
    "[",
    "]",
    ",",
    "é",
    "\u{a0}",
    "😀",
    "FROM scratch AS a\n",
    "${a//x/y}",
    "${a?no}",
    "${a:+${b%%c}}",
    "3<<'X Y' ",
    "X Y\n",
    "\0",
    "RUNN x\n",
];

fn in_file(span: Span, bytes: &[u8]) {
    assert_eq!(span.file, FileId(0));
    assert!(span.start <= span.end && span.end as usize <= bytes.len(), "{span:?} in {} bytes", bytes.len());
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(text.is_char_boundary(span.start as usize) && text.is_char_boundary(span.end as usize), "{span:?} cuts a character");
    }
}

fn check(bytes: &[u8]) {
    let mut sources = SourceMap::default();
    let file = sources.add("Dockerfile", bytes);
    let parsed = parse(file, bytes);

    let mut at = 0;
    for node in &parsed.tree.nodes {
        in_file(node.span, bytes);
        assert_eq!(node.span.start, at, "nodes tile the file");
        for piece in &node.pieces {
            in_file(piece.span, bytes);
            assert_eq!(piece.span.start, at, "pieces tile their node");
            assert!(piece.span.end > at, "no piece is empty");
            at = piece.span.end;
        }
        if node.pieces.is_empty() {
            at = node.span.end;
        }
        assert_eq!(node.span.end, at);
    }
    assert_eq!(parsed.tree.print(bytes), bytes);

    for stage in &parsed.stages {
        for span in [Some(stage.span), Some(stage.base.span), stage.name.as_ref().map(|n| n.span), stage.platform.as_ref().map(|p| p.span)]
        {
            span.into_iter().for_each(|span| in_file(span, bytes));
        }
        stage.instructions.iter().for_each(|i| instruction(i, bytes));
    }
    parsed.global_args.iter().for_each(|i| instruction(i, bytes));
    for diagnostic in &parsed.diagnostics {
        diagnostic.labels.iter().for_each(|label| in_file(label.span, bytes));
        assert!(!diagnostic.labels.is_empty());
        assert!(render(&sources, diagnostic, false).contains(diagnostic.name));
    }

    let again = parse(file, bytes);
    assert_eq!(parsed.to_text(), again.to_text());
    assert_eq!(parsed.diagnostics, again.diagnostics);
}

fn instruction(instruction: &Instruction, bytes: &[u8]) {
    let words = |words: &[Word]| words.iter().for_each(|w| in_file(w.span, bytes));
    in_file(instruction.span, bytes);
    in_file(instruction.keyword.span, bytes);
    match &instruction.kind {
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => pairs.iter().for_each(|p| words(&[p.key.clone(), p.value.clone()])),
        InstructionKind::Copy(args) | InstructionKind::Add(args) => {
            words(std::slice::from_ref(&args.dest));
            words(&args.exclude);
            for source in &args.sources {
                match source {
                    Source::Path(path) => in_file(path.span, bytes),
                    Source::Heredoc(doc) => heredoc(doc, bytes),
                }
            }
        }
        InstructionKind::Run(args) => {
            words(&args.mounts);
            args.heredocs.iter().for_each(|doc| heredoc(doc, bytes));
            let _ = args.script();
            for word in &args.mounts {
                let _ = mount::parse(word, &mut |w| expand::word(w, '\\', &|_| Some("1".to_string())).map(|e| e.text));
            }
        }
        InstructionKind::Expose(list) | InstructionKind::Volume(list) | InstructionKind::Shell(list) => words(list),
        InstructionKind::Onbuild(onbuild) => {
            in_file(onbuild.trigger.span, bytes);
            self::instruction(&onbuild.instruction, bytes);
            // What was accepted here is accepted again when a child image reads it, with the escape character that triggers always have.
            let trigger = parse_trigger(FileId(0), &onbuild.trigger.value);
            assert!(trigger.instruction.is_some() || !trigger.diagnostics.is_empty());
        }
        _ => {}
    }
}

fn heredoc(doc: &Heredoc, bytes: &[u8]) {
    in_file(doc.name.span, bytes);
    in_file(doc.body.span, bytes);
    let _ = expand::heredoc(doc, &|name| Some(name.to_string()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }

    #[test]
    fn random_text(text in "[ -~\n\t$\\\\{}\"']{0,200}") {
        check(text.as_bytes());
    }

    #[test]
    fn recombined_fragments(fragments in proptest::collection::vec(proptest::sample::select(FRAGMENTS), 0..25), cut in 0usize..40, crlf in any::<bool>()) {
        let mut text = fragments.concat();
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        // A cut in the middle of a character makes input that is not UTF-8.
        let bytes = text.as_bytes();
        check(&bytes[..bytes.len() - cut.min(bytes.len()) % 7]);
    }

    #[test]
    fn expansion_never_panics(text in "[a-c$\\\\{}\"'` :?+#%/*-]{0,60}", escape in proptest::sample::select(&['\\', '`'][..])) {
        let mode = expand::Mode::new(escape);
        for mode in [mode, expand::Mode { raw_quotes: true, raw_escapes: true, keep_unset: true, ..mode }, expand::Mode { ignore_quotes: true, ..mode }] {
            match expand::expand(&text, mode, &|name| (name == "a").then(|| "b*c".to_string())) {
                Ok(expansion) => prop_assert!(expansion.words.iter().all(|w| !w.is_empty())),
                Err(error) => {
                    prop_assert!(error.range.end <= text.len());
                    prop_assert!(text.is_char_boundary(error.range.start) && text.is_char_boundary(error.range.end));
                }
            }
        }
    }

    /// Text without anything special expands to itself.
    #[test]
    fn plain_text_expands_to_itself(text in "[a-zA-Z0-9 ./:=_,@^~é-]{0,40}") {
        prop_assert_eq!(expand::expand(&text, expand::Mode::default(), &|_| None).unwrap().text, text);
    }

    #[test]
    fn values_never_panic(text in "\\PC{0,20}|[0-9ugoarwxXst+=,:/.-]{0,12}|[0-9.]{1,4}(ns|us|ms|s|m|h|d)?") {
        let _ = (duration::parse(&text), chmod::parse(&text).map(|m| m.apply(0o644, false)), chown::parse(&text));
        let _ = (signal::parse(&text), size::parse(&text), port::parse(&text));
    }
}
