//! What a runner is asked, and what becomes of its answers.

mod common;

use common::{case, debian_like, paths};
use ukc_build::run::{LayerFiles, NoRunner, Ran, RunError, RunMountKind, RunStep, Runner};
use ukc_build::{Built, execute_with, lower};
use ukc_diagnostics::{SourceMap, render};
use ukc_rootfs::{Action, Change, Content, ImageConfig, Kind, Meta};

/// Notes what it is asked, and writes a file named after how often it was.
#[derive(Default)]
struct Notes {
    asked: Vec<String>,
    keys: Vec<String>,
    fail: Option<RunError>,
}

impl Runner for Notes {
    fn run(&mut self, step: &RunStep<'_>) -> Result<Ran, RunError> {
        let process = step.process;
        let layers: Vec<&str> = step
            .layers
            .iter()
            .map(|layer| match &layer.files {
                LayerFiles::Whole(_) => "whole",
                LayerFiles::Changes(_) => "changes",
                LayerFiles::Ran(_) => "ran",
            })
            .collect();
        let mounts: Vec<String> = step
            .mounts
            .iter()
            .map(|m| match &m.what {
                RunMountKind::Bind { files, .. } => format!("{} {:?}", m.target, files.tree.entries(ukc_rootfs::Tree::ROOT).unwrap().len()),
                other => format!("{} {other:?}", m.target),
            })
            .collect();
        self.asked.push(format!(
            "{:?} {:?} {} {}:{} {layers:?} {mounts:?}",
            process.argv, process.env, process.cwd, step.user.uid, step.user.gid
        ));
        self.keys.push(step.key.to_string());
        if let Some(error) = self.fail.clone() {
            return Err(error);
        }
        let n = self.asked.len();
        let file = Kind::File(Content::from_bytes(format!("{n}").into_bytes()));
        Ok(Ran {
            id: format!("r{n}"),
            changes: vec![Change { path: format!("ran{n}").into(), action: Action::Put(Meta::new(0o644), file) }],
        })
    }
}

fn run(case: &common::Case, dockerfile: &str, runner: &mut dyn Runner) -> Result<Built, String> {
    let mut sources = SourceMap::default();
    let file = sources.add("Dockerfile", dockerfile.as_bytes());
    let parsed = ukc_dockerfile::parse(file, dockerfile.as_bytes());
    let store = case.store();
    lower(&parsed, &mut sources, &case.options, &store)
        .and_then(|lowered| execute_with(lowered, &mut sources, &case.options, &store, &mut |_| true, runner))
        .map_err(|problems| problems.iter().map(|d| render(&sources, d, false)).collect())
}

fn debian() -> common::Case {
    case().base("base", &debian_like(), &ImageConfig { working_dir: "/".into(), ..Default::default() })
}

#[test]
fn what_is_asked() {
    let case = debian().files("a d/b").arg("GIVEN", "g").arg("HTTP_PROXY", "p");
    let mut notes = Notes::default();
    let built = run(
        &case,
        "ARG GLOBAL=1\nFROM base AS x\nRUN one\nFROM base\nARG GIVEN\nENV E=e\nWORKDIR /w\nUSER app\nCOPY a .\nRUN --mount=target=in,source=d --mount=from=x,target=/x [\"/bin/sh\", \"$E\"]\nRUN two\n",
        &mut notes,
    )
    .unwrap();
    assert_eq!(
        notes.asked,
        [
            r#"["/bin/sh", "-c", "one"] [] / 0:0 ["whole"] []"#,
            r#"["/bin/sh", "$E"] [("GIVEN", "g"), ("E", "e")] /w 1000:1001 ["whole", "changes", "changes"] ["/w/in 1", "/x 3"]"#,
            r#"["/bin/sh", "-c", "two"] [("GIVEN", "g"), ("E", "e")] /w 1000:1001 ["whole", "changes", "changes", "ran"] []"#,
        ]
    );
    assert!(paths(&built).contains("/ran2 /ran3") && !paths(&built).contains("/ran1"));
    let created: Vec<&str> = built.history.iter().map(|h| h.created_by.as_str()).filter(|c| c.starts_with("RUN")).collect();
    assert_eq!(created, ["RUN |1 GIVEN=g /bin/sh $E # ukc", "RUN |1 GIVEN=g /bin/sh -c two # ukc"]);
    let id = built.tree.resolve(b"/ran3").unwrap().id;
    let origin = built.tree.node(id).origin.unwrap();
    assert_eq!(built.origins[origin.0 as usize].start as usize, "ARG GLOBAL=1\nFROM base AS x\nRUN one\nFROM base\nARG GIVEN\nENV E=e\nWORKDIR /w\nUSER app\nCOPY a .\nRUN --mount=target=in,source=d --mount=from=x,target=/x [\"/bin/sh\", \"$E\"]\n".len());
}

#[test]
fn keys_stand_for_what_decides_the_result() {
    let key = |case: &common::Case, dockerfile: &str| {
        let mut notes = Notes::default();
        run(case, dockerfile, &mut notes).unwrap();
        notes.keys.pop().unwrap()
    };
    let case = debian().files("a b");
    let first = key(&case, "FROM base\nCOPY a /\nRUN x\n");
    assert_eq!(key(&case, "FROM base AS other\nLABEL a=b\nCOPY a /\nRUN x\n"), first);
    assert_ne!(key(&case, "FROM base\nCOPY b /\nRUN x\n"), first);
    let case = case.file("b", "changed");
    assert_eq!(key(&case, "FROM base\nCOPY a /\nRUN x\n"), first);
    let case = case.file("a", "changed");
    assert_ne!(key(&case, "FROM base\nCOPY a /\nRUN x\n"), first);
}

#[test]
fn failures() {
    let case = debian();
    let mut notes = Notes { fail: Some(RunError::Exited(2)), ..Notes::default() };
    let text = run(&case, "FROM base\nRUN a\nRUN b\n", &mut notes).unwrap_err();
    assert!(text.contains("error[run-failed]: process \"/bin/sh -c a\" did not complete successfully: exit code: 2"), "{text}");
    assert_eq!(notes.asked.len(), 1, "what builds on a failed step is not run");
    let mut notes = Notes::default();
    let text = run(&case, "FROM base\nCOPY missing /\nRUN a\n", &mut notes).unwrap_err();
    assert!(text.contains("missing-source") && notes.asked.is_empty(), "{text}");
    let text = run(&case, "FROM base\nRUN a\n", &mut NoRunner).unwrap_err();
    assert!(text.contains("error[cannot-run]: RUN cannot be executed here"), "{text}");
    let mut notes = Notes { fail: Some(RunError::Interrupted), ..Notes::default() };
    let text = run(&case, "FROM base\nRUN a\n", &mut notes).unwrap_err();
    assert!(text.contains("error[interrupted]"), "{text}");
    // A base image's triggers run too.
    let base = ImageConfig { on_build: vec!["RUN trigger".into()], ..Default::default() };
    let case = self::case().base("base", &debian_like(), &base);
    let mut notes = Notes::default();
    run(&case, "FROM base\n", &mut notes).unwrap();
    assert!(notes.asked[0].contains("trigger"));
}
