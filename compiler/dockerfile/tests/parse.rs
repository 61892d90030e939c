//! Single facts about parsing that the fixtures do not show.

use ukc_diagnostics::{FileId, Severity};
use ukc_dockerfile::*;

fn parsed(text: &str) -> Parsed {
    parse(FileId(0), text.as_bytes())
}

fn names(parsed: &Parsed) -> Vec<&'static str> {
    parsed.diagnostics.iter().map(|d| d.name).collect()
}

fn runs(parsed: &Parsed) -> Vec<Script> {
    let all = parsed.stages.iter().flat_map(|s| &s.instructions);
    all.filter_map(|i| if let InstructionKind::Run(run) = &i.kind { Some(run.script()) } else { None }).collect()
}

#[test]
fn spans_and_sources() {
    let text = "FROM a AS b\nRUN x \\\n # c\n  y\nCOPY <<E /z\nbody\nE\n";
    let parsed = parsed(text);
    let at = |span: ukc_diagnostics::Span| &text[span.start as usize..span.end as usize];
    let stage = &parsed.stages[0];
    assert_eq!(at(stage.from.span), "FROM a AS b");
    assert_eq!(at(stage.name.as_ref().unwrap().span), "b");
    assert_eq!(at(stage.span), text.trim_end());
    assert_eq!(at(stage.instructions[0].span), "RUN x \\\n # c\n  y");
    assert_eq!(stage.instructions[0].source, "RUN x   y");
    assert_eq!(at(stage.instructions[1].span), "COPY <<E /z\nbody\nE");
    let InstructionKind::Copy(args) = &stage.instructions[1].kind else { panic!() };
    let Source::Heredoc(doc) = &args.sources[0] else { panic!() };
    assert_eq!((at(doc.name.span), at(doc.body.span)), ("<<E", "body\n"));
}

#[test]
fn heredoc_scripts() {
    let script = |text: &str| runs(&parsed(&format!("FROM a\n{text}"))).remove(0);
    let shell = |text: &str| Script::Shell(text.to_string());
    assert_eq!(script("RUN <<E\na\nb\nE\n"), shell("a\nb\n"));
    assert_eq!(script("RUN <<-E\n\ta\n\t\tb\n\tE\n"), shell("a\nb\n"));
    assert_eq!(script("RUN <<E\n#!/bin/x\ny\nE\n"), Script::File { name: "E".to_string(), text: "#!/bin/x\ny\n".to_string() });
    assert_eq!(script("RUN cat <<E >x\na\nE\n"), shell("cat <<E >x\na\nE"));
    assert_eq!(script("RUN cat <<-'E' <<F\n\ta\n\tE\nb\nF\n"), shell("cat <<-'E' <<F\n\ta\nE\nb\nF"));
    assert_eq!(script("RUN [\"a\", \"b\"]\n"), Script::Exec(vec!["a".to_string(), "b".to_string()]));
}

#[test]
fn stages_are_found_by_name_and_index() {
    let parsed = parsed("FROM x AS One\nFROM y\nFROM z AS one\n");
    assert_eq!(parsed.stage("ONE"), Some(2));
    assert_eq!(parsed.stage("1"), Some(1));
    assert_eq!(parsed.stage("3"), None);
    assert_eq!(parsed.stage("two"), None);
}

#[test]
fn broken_from_still_opens_a_stage() {
    let parsed = parsed("FROM\nRUN a\nFROM x y z w\nRUN b\n");
    assert_eq!(names(&parsed), ["missing-argument", "invalid-from"]);
    assert_eq!(parsed.stages.len(), 2);
    assert_eq!(parsed.stages[1].instructions.len(), 1);
}

#[test]
fn instructions_with_errors_are_left_out() {
    let parsed = parsed("FROM a\nRUN a\nCOPY b\nRUN c\n");
    assert_eq!(parsed.stages[0].instructions.iter().map(Instruction::name).collect::<Vec<_>>(), ["RUN", "RUN"]);
    assert!(!parsed.is_ok());
    assert!(parsed.tree.nodes.len() == 4);
}

#[test]
fn checks_can_be_skipped_or_made_errors() {
    let file = |check: &str| parsed(&format!("{check}FROM a AS B\n"));
    assert_eq!(names(&file("")), ["StageNameCasing"]);
    assert_eq!(file("").diagnostics[0].severity, Severity::Warning);
    assert!(names(&file("# check=skip=all\n")).is_empty());
    assert!(names(&file("# check=skip=stagenamecasing\n")).is_empty());
    assert_eq!(names(&file("# check=skip=FromAsCasing\n")), ["StageNameCasing"]);
    assert_eq!(file("# check=error=true\n").diagnostics[0].severity, Severity::Error);
    // Only directives configure; a later comment does not.
    assert_eq!(names(&file("\n# check=skip=all\n")), ["StageNameCasing"]);
}

#[test]
fn later_stages_use_the_same_configuration() {
    let parsed = parsed("# check=skip=UndefinedVar\nFROM a\nUSER $usr\n");
    let InstructionKind::User(word) = &parsed.stages[0].instructions[0].kind else { panic!() };
    let finding = lint::undefined_var(word, "usr", ["user", "path"]);
    assert_eq!(finding.help, ["did you mean `$user`?"]);
    assert_eq!((finding.labels[0].span.start, finding.labels[0].span.end), (38, 42));
    assert_eq!(parsed.directives.check.admit(finding.clone()), None);
    assert_eq!(Check::default().admit(finding.clone()), Some(finding));
}

#[test]
fn triggers() {
    let read = |text: &str| parse_trigger(FileId(0), text);
    let copy = read("COPY --chown=1 . /src");
    assert!(copy.diagnostics.is_empty());
    assert!(matches!(copy.instruction.unwrap().kind, InstructionKind::Copy(_)));
    let run = read("RUN <<EOF\nfirst\nEOF").instruction.unwrap();
    let InstructionKind::Run(run) = run.kind else { panic!() };
    assert_eq!(run.script(), Script::Shell("first\n".to_string()));
    // A directive has no meaning in a trigger.
    assert!(read("# escape=`\nRUN a `").instruction.is_some());
    for bad in ["", "FROM x", "ONBUILD RUN x", "MAINTAINER x", "RUN a\nRUN b", "NOPE", "COPY a"] {
        let trigger = read(bad);
        assert!(trigger.instruction.is_none() && !trigger.diagnostics.is_empty(), "{bad}");
    }
}

#[test]
fn trigger_text_survives_the_round_trip() {
    let parsed = parsed("FROM a\nONBUILD run --network=none cat <<-A <<B\n\tx\n\tA\ny\nB\n");
    let InstructionKind::Onbuild(onbuild) = &parsed.stages[0].instructions[0].kind else { panic!() };
    assert_eq!(onbuild.trigger.value, "run --network=none cat <<-A <<B\n\tx\nA\ny\nB");
    let again = parse_trigger(FileId(1), &onbuild.trigger.value).instruction.unwrap();
    let (InstructionKind::Run(before), InstructionKind::Run(after)) = (&onbuild.instruction.kind, &again.kind) else { panic!() };
    assert_eq!(before.script(), after.script());
}

#[test]
fn mounts_are_typed_after_expansion() {
    let parsed = parsed("FROM a\nRUN --mount=type=cache,target=/c/$A,uid=$U,sharing=locked --mount=type=secret,target=/x/token x\n");
    let InstructionKind::Run(run) = &parsed.stages[0].instructions[0].kind else { panic!() };
    let lookup = |name: &str| Some(if name == "A" { "one" } else { "7" }.to_string());
    let mut expand = |w: &Word| expand::word(w, '\\', &lookup).map(|e| e.text);
    let cache = mount::parse(&run.mounts[0], &mut expand).unwrap();
    assert_eq!(cache.target.as_deref(), Some("/c/one"));
    let access = mount::Access { uid: Some(7), ..mount::Access::default() };
    let expected =
        mount::MountKind::Cache { id: None, from: None, source: None, sharing: mount::Sharing::Locked, read_only: false, access };
    assert_eq!(cache.kind, expected);
    let secret = mount::parse(&run.mounts[1], &mut expand).unwrap();
    assert!(matches!(secret.kind, mount::MountKind::Secret { ref id, env: None, required: false, .. } if id == "token"));
    // What only expansion shows is reported then.
    let problems = mount::parse(&run.mounts[0], &mut |_| Ok("nonsense".to_string())).unwrap_err();
    assert!(problems.iter().all(|p| p.name == "invalid-mount") && !problems.is_empty());
}

#[test]
fn pieces_name_what_they_are() {
    use tree::{NodeKind, PieceKind};
    let text = "\u{feff}# escape=\\\n\n# c\n  RUN --network=none \\\n # why\n\n  a <<E \nb\nE\n";
    let tree = parsed(text).tree;
    assert_eq!(
        tree.nodes.iter().map(|n| n.kind).collect::<Vec<_>>(),
        [NodeKind::Bom, NodeKind::Directive, NodeKind::Blank, NodeKind::Comment, NodeKind::Instruction]
    );
    let pieces: Vec<(PieceKind, &str)> =
        tree.nodes[4].pieces.iter().map(|p| (p.kind, &text[p.span.start as usize..p.span.end as usize])).collect();
    assert_eq!(
        pieces,
        [
            (PieceKind::Space, "  "),
            (PieceKind::Keyword, "RUN"),
            (PieceKind::Space, " "),
            (PieceKind::Flag, "--network=none"),
            (PieceKind::Space, " "),
            (PieceKind::Continuation, "\\\n"),
            (PieceKind::Comment, " # why\n"),
            (PieceKind::Blank, "\n"),
            (PieceKind::Space, "  "),
            (PieceKind::Text, "a <<E"),
            (PieceKind::Space, " "),
            (PieceKind::Newline, "\n"),
            (PieceKind::HeredocBody, "b\n"),
            (PieceKind::HeredocEnd, "E\n"),
        ]
    );
}

#[test]
fn comments_above_are_kept() {
    let parsed = parsed("# lost\n\n# kept\n#  twice \nFROM a\n# one\n#\n# two\nARG x\nRUN y \\\n# inside\n z\nRUN w\n");
    let stage = &parsed.stages[0];
    assert_eq!(stage.from.comments, ["kept", "twice"]);
    assert_eq!(stage.instructions[0].comments, ["two"]);
    assert!(stage.instructions[2].comments.is_empty());
}

#[test]
fn long_inputs_take_linear_time() {
    // Quadratic behaviour would take minutes here.
    let text = format!("FROM a\nRUN {}x\n{}", "a \\\n".repeat(100_000), "ENV a=b\n".repeat(20_000));
    let parsed = parsed(&text);
    assert!(parsed.is_ok());
    assert_eq!(parsed.stages[0].instructions.len(), 20_001);
}
