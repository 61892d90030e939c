//! `-o type=oci|docker|tar|local`, `--metadata-file` and `--iidfile` from outside.

mod common;

use std::fs;
use std::process::Command;

use common::{Place, exits};

/// A place whose Dockerfile starts nothing: containers need no program, unikernels do.
fn place() -> Place {
    let place = Place::with_program(&exits(0));
    place.file("context/Dockerfile", "FROM scratch\nCOPY --chown=5:6 app /bin/app\nENV A=b\nCOPY app /second\n");
    place
}

fn listed(archive: &std::path::Path) -> String {
    String::from_utf8(Command::new("tar").arg("-tvf").arg(archive).output().unwrap().stdout).unwrap()
}

#[test]
fn images_are_written_as_skopeo_reads_them() {
    let place = place();
    place
        .ukc(&["build", "-q", "-o", "type=oci,dest=oci.tar", "-t", "app:1", "--metadata-file", "meta.json", "--iidfile", "id", "context"])
        .status(0);
    place.ukc(&["build", "-q", "-o", "type=docker,dest=docker.tar", "-t", "app:1", "context"]).status(0);
    place.ukc(&["build", "-q", "-o", "type=oci,dest=layout,tar=false", "-t", "app:1", "context"]).status(0);
    for name in ["oci-archive:oci.tar", "docker-archive:docker.tar", "oci:layout"] {
        let mut command = Command::new("skopeo");
        place.at_home(&mut command);
        let output = command.args(["inspect", "--config", name]).output().unwrap();
        let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{name}: {e}: {output:?}"));
        assert!(config["config"]["Env"].as_array().unwrap().iter().any(|v| v == "A=b"), "{name}: {config}");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2, "{name}");
    }
    let metadata: serde_json::Value = serde_json::from_slice(&common::bytes(&place.path("meta.json"))).unwrap();
    assert_eq!(metadata["image.name"], "docker.io/library/app:1");
    assert_eq!(metadata["containerimage.config.digest"], fs::read_to_string(place.path("id")).unwrap().as_str());
}

#[test]
fn files_are_written_with_their_owners_and_times() {
    let place = place();
    let out = place.ukc(&["build", "-q", "-o", "type=tar,dest=files.tar", "context"]).status(0).out;
    assert_eq!(out, "");
    let text = listed(&place.path("files.tar"));
    assert!(text.lines().any(|l| l.contains("5/6") && l.ends_with("bin/app")), "{text}");
    place.ukc(&["build", "-q", "-o", "type=local,dest=files", "context"]).status(0);
    assert_eq!(common::bytes(&place.path("files/second")), common::bytes(&place.path("context/app")));
}

#[test]
fn equal_inputs_give_equal_archives() {
    let place = place();
    for name in ["one", "two"] {
        let output = format!("type=oci,dest={name}.tar");
        let mut command = place.command(&["build", "-q", "--no-cache", "-o", &output, "context"]);
        common::did(command.env("SOURCE_DATE_EPOCH", "1700000000")).status(0);
    }
    assert_eq!(common::bytes(&place.path("one.tar")), common::bytes(&place.path("two.tar")));
}

#[test]
fn what_cannot_be_written_is_said_and_nothing_is_lost() {
    let place = place();
    place.file("out.tar", "precious");
    place.file("context/Dockerfile", "FROM scratch\nCOPY gone /\n");
    place.ukc(&["build", "-q", "-o", "type=oci,dest=out.tar", "context"]).status(1);
    assert_eq!(common::bytes(&place.path("out.tar")), b"precious");
    let place = self::place();
    place.ukc(&["build", "-q", "-o", "type=registry", "context"]).status(2).says("needs a name").no_output();
    place.ukc(&["build", "-q", "-o", "type=oci,dest=o.tar,compression=lzw", "context"]).status(1).says("`compression=lzw`").no_output();
    assert!(!place.path("o.tar").exists());
}
