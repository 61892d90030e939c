//! Variables, stages, and the configuration that instructions make.

mod common;

use common::{Case, case, debian_like, owner, paths, text};
use ukc_rootfs::ImageConfig;

fn label(case: &Case, dockerfile: &str) -> String {
    case.built(dockerfile).config.labels.get("v").cloned().unwrap_or_default()
}

/// Instructions separated by `;`, the last one sets the label `v` | build arguments | value of the label
#[test]
fn variables() {
    for line in [
        "FROM scratch;ARG A=1;LABEL v=$A||1",
        "FROM scratch;ARG A=1;LABEL v=$A|A=2|2",
        "FROM scratch;ARG A;LABEL v=$A|A=2|2",
        "FROM scratch;ARG A;LABEL v=[$A]||[]",
        "FROM scratch;LABEL v=[$A]|A=2|[]",
        "ARG A=g;FROM scratch;LABEL v=[$A]||[]",
        "ARG A=g;FROM scratch;ARG A;LABEL v=$A||g",
        "ARG A=g;FROM scratch;ARG A=s;LABEL v=$A||s",
        "ARG A=g;FROM scratch;ARG A;LABEL v=$A|A=b|b",
        "ARG A=g;FROM scratch;ARG A=s;LABEL v=$A|A=b|b",
        "ARG A=g;ARG B=$A.x;FROM scratch;ARG B;LABEL v=$B||g.x",
        "ARG A=g;ARG B=$A.x;FROM scratch;ARG B;LABEL v=$B|A=b|b.x",
        "FROM scratch;ENV A=e;LABEL v=$A||e",
        "FROM scratch;ARG A=1;ENV A=e;LABEL v=$A|A=b|e",
        "FROM scratch;ENV A=e;ARG A=1;LABEL v=$A||1",
        "FROM scratch;ENV A=e;ARG A;LABEL v=$A||e",
        "FROM scratch;ENV A=x;ENV A=y B=$A;LABEL v=$B||x",
        "FROM scratch;ARG A=1 B=$A;LABEL v=$B||1",
        "FROM scratch;ARG A=1;ARG B=${A}2;LABEL v=$B||12",
        "FROM scratch AS a;ARG X=1;ENV E=2;FROM a;LABEL v=$X$E||12",
        "FROM scratch AS a;ARG X=1;FROM scratch;LABEL v=[$X]||[]",
        "FROM scratch;ARG TARGETARCH;LABEL v=$TARGETARCH||amd64",
        "FROM scratch;ARG TARGETPLATFORM TARGETSTAGE;LABEL v=$TARGETPLATFORM,$TARGETSTAGE||linux/amd64,default",
        "FROM scratch AS fin;ARG TARGETSTAGE;LABEL v=$TARGETSTAGE||fin",
        "FROM scratch;LABEL v=[$TARGETARCH]||[]",
        "FROM scratch;ARG A;LABEL v=${A:-d}||d",
        "FROM scratch;ARG A;LABEL v=${A:+set}|A=1|set",
        "FROM scratch;LABEL v='$PATH'||$PATH",
        "FROM scratch;LABEL v=$PATH||/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "ARG BASE=scratch;FROM $BASE;LABEL v=1||1",
        "ARG N=one;FROM scratch AS one;ENV E=1;FROM scratch AS two;ENV E=2;FROM $N;LABEL v=$E||1",
        "ARG N=one;FROM scratch AS one;ENV E=1;FROM scratch AS two;ENV E=2;FROM $N;LABEL v=$E|N=two|2",
        "FROM scratch;ARG HTTP_PROXY;LABEL v=$HTTP_PROXY|HTTP_PROXY=p|p",
    ] {
        let fields: Vec<&str> = line.split('|').collect();
        let mut case = case();
        if let Some((name, value)) = fields[1].split_once('=') {
            case = case.arg(name, value);
        }
        assert_eq!(label(&case, &fields[0].replace(';', "\n")), fields[2], "{line}");
    }
}

#[test]
fn arguments_stay_out_of_the_configuration() {
    let built = case().arg("A", "secret").built("FROM scratch\nARG A\nENV E=$A-x\n");
    assert_eq!(built.config.env_var("A"), None);
    assert_eq!(built.config.env_var("E"), Some("secret-x"));
}

fn full_base() -> ImageConfig {
    let mut config = ImageConfig {
        user: "app".into(),
        working_dir: "/base".into(),
        entrypoint: Some(vec!["/entry".into()]),
        cmd: Some(vec!["basecmd".into()]),
        shell: Some(vec!["/bin/bash".into(), "-ec".into()]),
        stop_signal: Some("SIGINT".into()),
        architecture: "amd64".into(),
        os: "linux".into(),
        ..Default::default()
    };
    config.set_env("PATH", "/base/bin");
    config.set_env("B", "1");
    config.labels.insert("from".into(), "base".into());
    config.exposed_ports.insert("80/tcp".into());
    config.volumes.insert("/v".into());
    config.healthcheck = Some(ukc_rootfs::Healthcheck { test: vec!["CMD".into(), "true".into()], ..Default::default() });
    config
}

#[test]
fn the_bases_configuration_is_inherited() {
    let case = case().base("base", &debian_like(), &full_base());
    assert_eq!(case.built("FROM base\n").config, full_base());
    assert_eq!(case.built("FROM base AS a\nFROM a AS b\nFROM b\n").config, full_base());
    let config = case.built("FROM base\nENV B=2 C=$B\nLABEL more=x from=here\nEXPOSE 81/udp 90-92\nVOLUME /w x\n").config;
    assert_eq!(config.env, [("PATH", "/base/bin"), ("B", "2"), ("C", "1")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!((config.labels["from"].as_str(), config.labels["more"].as_str()), ("here", "x"));
    assert_eq!(config.exposed_ports.into_iter().collect::<Vec<_>>(), ["80/tcp", "81/udp", "90/tcp", "91/tcp", "92/tcp"]);
    assert_eq!(config.volumes.into_iter().collect::<Vec<_>>(), ["/v", "/w", "/x"]);
    assert_eq!(case.built("FROM base\nHEALTHCHECK NONE\n").config.healthcheck.unwrap().test, ["NONE"]);
}

/// Instructions after `FROM base` | entrypoint | cmd, `-` for none
#[test]
fn entrypoint_and_cmd() {
    let case = case().base("base", &debian_like(), &full_base());
    for line in [
        "USER 0|/entry|basecmd",
        "CMD [\"x\", \"y z\"]|/entry|x,y z",
        "CMD x y|/entry|/bin/bash,-ec,x y",
        "ENTRYPOINT [\"/e\"]|/e|-",
        "ENTRYPOINT e f|/bin/bash,-ec,e f|-",
        "CMD [\"x\"];ENTRYPOINT [\"/e\"]|/e|x",
        "ENTRYPOINT [\"/e\"];CMD [\"x\"]|/e|x",
        "ENTRYPOINT []||-",
        "CMD []|/entry|",
        "CMD [\"a\"];CMD [\"b\"]|/entry|b",
        "SHELL [\"/bin/zsh\", \"-c\"];CMD x|/entry|/bin/zsh,-c,x",
        "ENV V=1;CMD echo $V|/entry|/bin/bash,-ec,echo $V",
        "CMD [\"$V\"]|/entry|$V",
    ] {
        let fields: Vec<&str> = line.split('|').collect();
        let config = case.built(&format!("FROM base\n{}\n", fields[0].replace(';', "\n"))).config;
        let show = |argv: &Option<Vec<String>>| argv.as_ref().map_or("-".to_owned(), |a| a.join(","));
        assert_eq!((show(&config.entrypoint).as_str(), show(&config.cmd).as_str()), (fields[1], fields[2]), "{line}");
    }
    // A CMD of the parent stage counts as inherited.
    let config = case.built("FROM base AS a\nCMD [\"x\"]\nFROM a\nENTRYPOINT [\"/e\"]\n").config;
    assert_eq!(config.cmd, None);
    let built = case.built("FROM base\nCMD [\"x\"]\n");
    assert_eq!((built.spans.cmd.map(|s| s.start), built.spans.entrypoint), (Some(10), None));
}

#[test]
fn other_metadata() {
    let built = case().built(
        "FROM scratch\nMAINTAINER me <me@x>\nSTOPSIGNAL SIGQUIT\nUSER 5:6\nEXPOSE 8080\nHEALTHCHECK --interval=1m30s --retries=2 CMD curl x\nONBUILD COPY a /b\n",
    );
    let config = built.config;
    assert_eq!(
        (config.author.as_deref(), config.stop_signal.as_deref(), config.user.as_str()),
        (Some("me <me@x>"), Some("SIGQUIT"), "5:6")
    );
    let check = config.healthcheck.unwrap();
    assert_eq!((check.test.join(" "), check.interval.as_secs(), check.retries), ("CMD-SHELL curl x".into(), 90, 2));
    assert_eq!(config.on_build, ["COPY a /b"]);
    let mut case = case();
    case.options.labels.push(("a".into(), "line".into()));
    assert_eq!(case.built("FROM scratch\nLABEL a=file\n").config.labels["a"], "line");
}

#[test]
fn workdir() {
    let case = case().base("base", &debian_like(), &full_base());
    let built = case.built("FROM base\nENV D=sub\nWORKDIR x/$D\nWORKDIR ../y/.\nUSER www-data\nWORKDIR /p/q\n");
    assert_eq!(built.config.working_dir, "/p/q");
    assert_eq!(owner(&built, "/base/x/sub"), "0755 1000:1001", "made for the current USER");
    assert_eq!((owner(&built, "/base/x/y"), owner(&built, "/p")), ("0755 1000:1001".into(), "0755 33:33".into()));
    assert_eq!(owner(&built, "/bin"), "0755 0:0", "what exists keeps its owner");
}

#[test]
fn onbuild_triggers_of_the_base_run_once() {
    let config =
        ImageConfig { on_build: vec!["COPY f /from-trigger".into(), "ENV T=$X".into(), "WORKDIR /w".into()], ..Default::default() };
    let mut config = config;
    config.set_env("X", "x");
    let case = case().files("f").base("base", &debian_like(), &config);
    let built = case.built("FROM base\nENV AFTER=$T\n");
    assert_eq!(text(&built, "/from-trigger"), "f");
    assert_eq!((built.config.env_var("AFTER"), built.config.working_dir.as_str()), (Some("x"), "/w"));
    assert!(built.config.on_build.is_empty());
    // Triggers of a stage run in the stages that start from it.
    let built = case.built("FROM scratch AS a\nONBUILD COPY f /g\nFROM a AS b\nFROM b\n");
    assert_eq!(paths(&built), "/g");
}

#[test]
fn only_what_the_target_needs_is_looked_at() {
    let case = case().files("f");
    let dockerfile = "FROM nowhere AS unused\nRUN x\nFROM scratch AS a\nCOPY f /f\nFROM scratch AS b\nCOPY missing /\nFROM a AS fin\nCOPY --from=a /f /g\n";
    assert_eq!(paths(&case.built(dockerfile)), "/f /g");
    assert!(case.error("FROM scratch AS a\nCOPY missing /\nFROM scratch\nCOPY --from=a / /\n").contains("missing-source"));
    let case = case.target("A");
    assert_eq!(paths(&case.built(dockerfile)), "/f");
}

#[test]
fn a_named_context_replaces_a_stage_or_an_image() {
    let case = case().files("f").base("dep", &[("/dep", "given")], &full_base());
    let built = case.built("FROM nowhere AS dep\nRUN make\nFROM scratch\nCOPY --from=dep /dep /dep\n");
    assert_eq!(text(&built, "/dep"), "given");
    let built = case.built("FROM docker.io/library/dep:latest\n");
    assert_eq!((text(&built, "/dep"), built.config.user.as_str()), ("given".into(), "app"));
}

#[test]
fn long_chains_of_stages() {
    let mut dockerfile = String::from("FROM scratch AS s0\nENV N=0\n");
    for i in 1..3000 {
        dockerfile.push_str(&format!("FROM s{} AS s{i}\n", i - 1));
    }
    dockerfile.push_str("LABEL v=$N\n");
    assert_eq!(label(&case(), &dockerfile), "0");
}

#[test]
fn history_and_graph() {
    let case = case().files("f").base("base", &debian_like(), &full_base());
    let dockerfile = "FROM base AS first\nCOPY f /a\nFROM base\nARG A=1\nWORKDIR /w\nCOPY --from=first --chown=app --chmod=u+x /a b/\nCOPY <<x /x\nbody\nx\nADD f .\nCMD [\"x\"]\n";
    let built = case.built(dockerfile);
    let history: Vec<String> =
        built.history.iter().map(|h| format!("{}{}", if h.empty_layer { "0 " } else { "1 " }, h.created_by)).collect();
    assert_eq!(
        history,
        [
            "0 ARG A=1",
            "1 WORKDIR /w",
            "1 COPY --from=first --chown=app --chmod=u+x /a /w/b/ # ukc",
            "1 COPY x /x # ukc",
            "1 ADD f /w/ # ukc",
            "0 CMD [\"x\"]"
        ]
    );
    let graph = case.graph(dockerfile);
    assert_eq!(graph, case.graph(dockerfile));
    // Keys and digests vary with the base's bytes; the shape does not.
    let shape: Vec<String> = graph
        .lines()
        .map(|l| l.split("  # ").next().unwrap())
        .map(|l| l.split(' ').map(|w| if w.starts_with("sha256:") { "sha256:…" } else { w }).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        shape,
        [
            "%0 = image base sha256:…",
            "%1 = context",
            "%2 = copy %0 from %1 \"f\" to \"/a\"",
            "%3 = workdir %0 \"/w\" user=app",
            "%4 = copy %3 from %2 \"/a\" to \"/w/b/\" chown=app chmod=u+x",
            "%5 = copy %4 \"x\"=<5 bytes, b217c57740731dc0> to \"/x\"",
            "%6 = add %5 from %1 \"f\" to \"/w/\"",
            "result %6"
        ]
    );
}

#[test]
fn warnings() {
    let names = |case: Case, dockerfile: &str| {
        let built = case.built(dockerfile);
        built.diagnostics.iter().map(|d| format!("{}: {}", d.name, d.message)).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(
        names(case().arg("VERSOIN", "1"), "FROM scratch\nARG VERSION\n"),
        "unused-build-arg: no ARG declares the build argument `VERSOIN`"
    );
    assert_eq!(names(case().arg("https_proxy", "1").arg("TARGETARCH", "x"), "FROM scratch\n"), "");
    assert_eq!(names(case(), "FROM scratch\nLABEL a=$NOPE b=${NOPE:-x}\n"), "UndefinedVar: the variable `NOPE` is not set here");
    assert_eq!(names(case(), "FROM scratch\nARG NOPE\nLABEL a=$NOPE\n"), "");
    assert_eq!(names(case(), "# check=skip=UndefinedVar\nFROM scratch\nLABEL a=$NOPE\n"), "");
}
