//! Policies and the images that they refuse.

use ukc_image_json::Image;

use super::*;

fn image() -> Image {
    let digest = format!("sha256:{}", "0".repeat(64));
    let json = serde_json::json!({
        "format": "ukc-image", "version": 1,
        "program": {"path": "/app", "argv": ["/app"], "env": [], "cwd": "/", "stop_signal": "SIGTERM", "user": {"name": "", "uid": 0, "gid": 0, "groups": []}},
        "guest": {"kind": "linux", "reasons": ["it loads kernel modules"]},
        "kernel": {"len_bytes": 3 << 20, "text_bytes": 0, "rodata_bytes": 0, "data_bytes": 0, "bss_bytes": 0},
        "modules": [{"name": "trace", "reasons": ["--trace was given"]}, {"name": "fs", "reasons": []}],
        "syscalls": [{"number": 101, "name": "ptrace", "handling": "linked", "module": "fs"}, {"number": 153, "name": "vhangup", "handling": "absent"}],
        "files": {"count": 10, "len_bytes": 6 << 20, "setuid": ["/bin/su"], "capabilities": [{"path": "/bin/ping", "names": ["cap_net_raw"]}]},
        "packages": [{"name": "telnetd", "version": "0.17"}],
        "ports": [], "volumes": [], "memory_floor_bytes": 0, "inputs": [],
        "artefacts": [{"kind": "rootfs", "name": "rootfs.ext4", "len_bytes": 10, "digest": digest}],
    });
    Image::parse(json.to_string().as_bytes()).unwrap()
}

fn messages(policy: &str) -> Vec<String> {
    let policy: Policy = toml::from_str(policy).unwrap();
    policy.check(&image()).into_iter().map(|d| d.message).collect()
}

#[test]
fn an_empty_policy_allows_everything() {
    assert_eq!(messages(""), [""; 0]);
    assert_eq!(
        messages("max-image-size = \"9m\"\nguests = [\"linux\"]\nsyscalls = { deny = [\"vhangup\"] }\n"),
        [""; 0],
        "what is absent is not there"
    );
}

#[test]
fn everything_forbidden_is_reported() {
    for (policy, expected) in [
        ("max-image-size = \"8m\"", "the image has 9 MiB, and the policy allows 8 MiB"),
        ("max-kernel-size = 1000", "the kernel has 3 MiB, and the policy allows 1000 bytes"),
        ("guests = [\"libos\"]", "the policy does not allow the Linux guest"),
        ("modules = { deny = [\"trace\"] }", "the image has the kernel module `trace`, and the policy forbids it"),
        ("modules = { allow = [\"fs\"] }", "the image has the kernel module `trace`, and the policy forbids it"),
        ("syscalls = { deny = [\"ptrace\"] }", "the image has the system call `ptrace`, and the policy forbids it"),
        ("packages = { deny = [\"telnetd\"] }", "the image has the package `telnetd 0.17`, and the policy forbids it"),
        ("files = { setuid = false }", "`/bin/su` runs as its owner or group, and the policy forbids that"),
        ("files = { capabilities = false }", "`/bin/ping` has the capabilities cap_net_raw, and the policy forbids that"),
        ("files = { max-count = 9 }", "the root file system has 10 files, and the policy allows 9"),
    ] {
        assert_eq!(messages(policy), [expected], "{policy}");
    }
    assert_eq!(messages("max-image-size = 1\nmax-kernel-size = 1\nguests = []\nmodules = { allow = [] }\n").len(), 5);
}

#[test]
fn reasons_are_told() {
    let policy: Policy = toml::from_str("guests = [\"libos\"]\nmodules = { deny = [\"trace\"] }").unwrap();
    let notes: Vec<String> = policy.check(&image()).into_iter().flat_map(|d| d.notes).collect();
    assert_eq!(notes, ["it was chosen because it loads kernel modules", "it is in the image because --trace was given"]);
}

#[test]
fn sizes() {
    for (text, expected) in [
        ("0", Some(0)),
        ("1k", Some(1 << 10)),
        ("64M", Some(64 << 20)),
        ("2GiB", Some(2 << 30)),
        ("1tb", Some(1 << 40)),
        ("", None),
        ("m", None),
        ("-1", None),
        ("1.5m", None),
        ("99999999t", None),
    ] {
        assert_eq!(Size::parse(text), expected.map(Size), "{text}");
    }
    for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1 << 20, "1 MiB"), (3 << 19, "1.50 MiB"), (5 << 30, "5 GiB")] {
        assert_eq!(Size(bytes).to_string(), text);
    }
}
