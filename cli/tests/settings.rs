//! Settings from files and the environment, and policies, from outside.

mod common;

use common::{Place, did, exits};

const DOCKERFILE: &str = "FROM scratch AS one\nCOPY app /one\nENTRYPOINT [\"/one\"]\nFROM one AS two\nARG WORD=default\nLABEL word=$WORD\n";

fn place() -> Place {
    let place = Place::with_program(&exits(0));
    place.file("context/Dockerfile", DOCKERFILE);
    place
}

/// Returns the text of the built tree and its configuration.
fn built(place: &Place, more: &[&str], variables: &[(&str, &str)]) -> common::Did {
    let mut args = vec!["build", "--emit", "rootfs", "-q"];
    args.extend(more);
    args.push("context");
    did(place.command(&args).envs(variables.iter().copied()))
}

#[test]
fn the_stronger_place_has_the_say() {
    let place = place();
    std::fs::create_dir_all(place.path("config/ukc")).unwrap();
    assert!(built(&place, &[], &[]).status(0).out.contains("default"));
    place.file("config/ukc/config.toml", "[build]\nbuild-arg = { WORD = \"user\" }\n");
    assert!(built(&place, &[], &[]).status(0).out.contains("user"));
    place.file("context/ukc.toml", "[build]\nbuild-arg = [\"WORD=project\"]\n");
    assert!(built(&place, &[], &[]).status(0).out.contains("project"));
    let variable = [("UKC_BUILD_BUILD_ARG", "WORD=environment")];
    assert!(built(&place, &[], &variable).status(0).out.contains("environment"));
    let out = built(&place, &["--build-arg", "WORD=flag"], &variable).status(0).out;
    assert!(out.contains("flag") && !out.contains("environment"), "{out}");
}

#[test]
fn settings_that_are_none_are_shown_in_their_place() {
    let place = place();
    for (text, expected) in [
        ("[build]\ntarge = \"one\"\n", "did you mean `target`?"),
        ("[build]\ntarget = [\"one\", \"two\"]\n", "`--target` takes one value"),
        ("[build]\nprogress = \"loud\"\n", "invalid value 'loud'"),
        ("[policy]\nmax-size = 1\n", "unknown field `max-size`"),
    ] {
        place.file("context/ukc.toml", text);
        built(&place, &[], &[]).status(2).says(expected).says("context/ukc.toml:2").no_output();
    }
    place.file("context/ukc.toml", "[run]\ncpus = 2\n");
    built(&place, &[], &[("UKC_BUILD_PROGRESS", "loud")]).status(2).says("it comes from the variable UKC_BUILD_PROGRESS");
}

#[test]
fn settings_of_builds_hold_when_run_builds() {
    let place = place();
    place.file("context/ukc.toml", "[build]\ntarget = \"nowhere\"\n[run]\nmemory = \"64m\"\n");
    place.ukc(&["run", "-q", "context"]).status(125).says("nowhere");
    place.file("context/ukc.toml", "[run]\nmemory = \"64m\"\n");
    assert!(place.ukc(&["run", "-q", "--dry-run", "context"]).status(0).out.contains("-m 64M"));
    assert!(place.ukc(&["run", "-q", "--dry-run", "-m", "80m", "context"]).status(0).out.contains("-m 80M"));
}

#[test]
fn a_policy_fails_the_build_and_keeps_what_was_there() {
    let place = place();
    place.ukc(&["build", "-q", "-o", "out", "context"]).status(0);
    let before = common::bytes(&place.path("out/image.json"));
    place.file("context/ukc.toml", "[policy]\nmax-image-size = \"1k\"\nsyscalls = { deny = [\"exit_group\"] }\n");
    let did = place.ukc(&["build", "-q", "-o", "out", "--label", "a=b", "context"]).status(1);
    did.says("error[policy]: the image has").says("the policy allows 1 KiB").says("system call `exit_group`");
    assert_eq!(common::bytes(&place.path("out/image.json")), before);
}
