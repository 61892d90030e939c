//! Differences between two documents, as text, JSON and SARIF.

use serde_json::json;
use ukc_image_json::Image;
use ukc_policy::{Growth, Size};

use super::*;

fn image(change: impl FnOnce(&mut serde_json::Value)) -> Image {
    let mut json = json!({
        "format": "ukc-image", "version": 1,
        "program": {"path": "/app", "argv": ["/app"], "env": [], "cwd": "/", "stop_signal": "SIGTERM", "user": {"name": "", "uid": 0, "gid": 0, "groups": []}},
        "guest": {"kind": "unikernel", "reasons": []},
        "kernel": {"len_bytes": 100, "text_bytes": 0, "rodata_bytes": 0, "data_bytes": 0, "bss_bytes": 0},
        "modules": [{"name": "fs", "reasons": []}],
        "syscalls": [{"number": 0, "name": "read", "handling": "linked", "module": "fs"}, {"number": 101, "name": "ptrace", "handling": "absent"}],
        "files": {"count": 10, "len_bytes": 1000, "setuid": ["/bin/su"], "capabilities": []},
        "packages": [{"name": "libc6", "version": "1"}],
        "ports": ["80/tcp"], "volumes": [], "memory_floor_bytes": 0, "inputs": [], "artefacts": [],
    });
    change(&mut json);
    Image::parse(json.to_string().as_bytes()).unwrap()
}

fn grown() -> Image {
    image(|json| {
        json["syscalls"][1] = json!({"number": 101, "name": "ptrace", "handling": "linked", "module": "process"});
        json["modules"] = json!([{"name": "fs", "reasons": []}, {"name": "process", "reasons": []}]);
        json["files"] = json!({"count": 11, "len_bytes": 5000, "setuid": ["/bin/sudo"], "capabilities": [{"path": "/bin/my ping", "names": ["cap_net_raw"]}]});
        json["packages"] = json!([{"name": "libc6", "version": "2"}, {"name": "sudo", "version": "1.9"}]);
        json["ports"] = json!(["443/tcp"]);
    })
}

#[test]
fn equal_images_have_no_difference() {
    let same = compare(&image(|_| ()), &image(|_| ()), None);
    assert!(same.is_empty());
    assert_eq!(same.to_text(false), "no difference\n");
    let none = Growth { max_size: Some(Size(0)), syscalls: false, modules: false, setuid: false, ports: false, packages: false };
    assert_eq!(same.violations(&none), []);
}

#[test]
fn everything_that_came_and_went_is_told() {
    let text = compare(&image(|_| ()), &grown(), None).to_text(false);
    let expected = "image          1100 → 5100 bytes (+4000)\nsyscalls       +1 -0\n  + ptrace\nmodules        +1 -0\n  + process\nports          +1 -1\n  + 443/tcp\n  - 80/tcp\n\
        setuid         +1 -1\n  + /bin/sudo\n  - /bin/su\ncapabilities   +1 -0\n  + /bin/my ping cap_net_raw\npackages       +1 -0\n  + sudo\nversions       ~1\n  ~ libc6 1 → 2\n";
    assert_eq!(text, expected);
}

#[test]
fn long_parts_are_cut_unless_asked_for() {
    let many = image(|json| json["ports"] = (1..=50).map(|n| format!("{n}/udp")).collect());
    let comparison = compare(&image(|_| ()), &many, None);
    assert!(comparison.to_text(false).contains("  + and 30 more (--all prints them)\n"));
    assert_eq!(comparison.to_text(true).lines().count(), 52);
}

#[test]
fn a_policy_forbids_growth_and_only_that() {
    let (old, new) = (image(|_| ()), grown());
    let rules = |growth: Growth| compare(&old, &new, None).violations(&growth).into_iter().map(|v| v.rule).collect::<Vec<_>>();
    assert_eq!(rules(Growth::default()), [""; 0]);
    assert_eq!(rules(Growth { syscalls: false, ..Growth::default() }), ["syscalls"]);
    assert_eq!(rules(Growth { setuid: false, ..Growth::default() }), ["setuid", "setuid"]);
    assert_eq!(rules(Growth { max_size: Some(Size(3999)), ..Growth::default() }), ["max-size"]);
    assert_eq!(rules(Growth { max_size: Some(Size(4000)), ..Growth::default() }), [""; 0]);
    let none = Growth { max_size: Some(Size(0)), syscalls: false, modules: false, setuid: false, ports: false, packages: false };
    assert_eq!(compare(&new, &old, None).violations(&none).iter().map(|v| v.rule).collect::<Vec<_>>(), ["ports", "setuid"], "the way back");
}

#[test]
fn sarif_names_rules_and_places() {
    let growth = Growth { setuid: false, modules: false, ..Growth::default() };
    let violations = compare(&image(|_| ()), &grown(), None).violations(&growth);
    let log = Violation::to_sarif(&violations, "app:2", "1.0");
    let run = &log["runs"][0];
    let uris: Vec<&str> = run["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap())
        .collect();
    assert_eq!(uris, ["app%3A2", "bin/sudo", "bin/my%20ping"]);
    for result in run["results"].as_array().unwrap() {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
    }
}
