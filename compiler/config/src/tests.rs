//! Reading settings from files, the environment and both together.

use std::fs;

use ukc_diagnostics::render;

use super::*;

fn read(files: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        paths.push(path);
    }
    paths.push(dir.path().join("missing.toml"));
    let mut sources = SourceMap::default();
    Config::read(&paths, &mut sources).map_err(|found| found.iter().map(|d| render(&sources, d, false)).collect())
}

fn values(config: &Config, command: &str, flag: &str) -> Vec<String> {
    config.of(command).find(|(f, _)| *f == flag).map(|(_, s)| s.values.clone()).unwrap_or_default()
}

#[test]
fn values_become_the_texts_of_flags() {
    let text = "[build]\ntarget = \"prod\"\nno-cache = true\nbuild-arg = { A = \"1 2\", B = 3 }\n[run]\ncpus = 2\npublish = [\"80:80\", \"81:81\"]\n";
    let config = read(&[("ukc.toml", text)]).unwrap();
    assert_eq!(values(&config, "build", "target"), ["prod"]);
    assert_eq!(values(&config, "build", "no-cache"), ["true"]);
    assert_eq!(values(&config, "build", "build-arg"), ["A=1 2", "B=3"]);
    assert_eq!(values(&config, "run", "cpus"), ["2"]);
    assert_eq!(values(&config, "run", "publish"), ["80:80", "81:81"]);
}

#[test]
fn the_strongest_file_has_the_setting_and_every_policy_holds() {
    let config = read(&[
        ("project/ukc.toml", "[build]\ntarget = \"a\"\n[policy]\nmax-image-size = \"1m\"\n[registries.one]\ninsecure = true\n"),
        ("user/config.toml", "[build]\ntarget = \"b\"\nlabel = [\"x\"]\n[policy]\nguests = [\"libos\"]\n[registries.one]\nca = \"ca.pem\"\n[registries.two]\nca = \"ca.pem\"\n"),
    ])
    .unwrap();
    assert_eq!(values(&config, "build", "target"), ["a"]);
    assert_eq!(values(&config, "build", "label"), ["x"]);
    assert_eq!(config.policies.len(), 2);
    assert!(config.registries["one"].insecure && config.registries["one"].ca.is_none());
    assert!(config.registries["two"].ca.as_ref().unwrap().ends_with("user/ca.pem"));
}

#[test]
fn what_is_wrong_is_shown_in_its_place() {
    for (text, expected) in [
        ("[build\n", "configuration"),
        ("[bild]\n", "unknown field `bild`"),
        ("[policy]\nmax-image = \"1m\"\n", "unknown field `max-image`"),
        ("[policy]\nmax-image-size = \"much\"\n", "is no size"),
        ("[policy]\nguests = [\"osv\"]\n", "unknown variant `osv`"),
        ("[registries.x]\nmirror = []\n", "unknown field `mirror`"),
        ("[build]\ntarget = [[1]]\n", "a setting is a text"),
        ("[build]\ntarget = \"a\"\ntarget = \"b\"\n", "duplicate key"),
    ] {
        let shown = read(&[("ukc.toml", text)]).unwrap_err();
        assert!(shown.contains(expected) && shown.contains("ukc.toml:"), "{text}: {shown}");
    }
    let not_text = read(&[("ukc.toml", "a")]).unwrap_err();
    assert!(not_text.contains("ukc.toml:1"), "{not_text}");
}

#[test]
fn no_bytes_make_it_panic() {
    // Every prefix, and every byte replaced, of a file that uses everything.
    let text = b"[build]\nt = [\"\xc3\xa4\", 1.5]\n[policy]\nsyscalls = { deny = [\"a\"] }\n[registries.\"a:1\"]\nmirrors = [\"b\"]\n";
    let mut sources = SourceMap::default();
    let id = sources.add("f", text.to_vec());
    for end in 0..text.len() {
        let _ = file::parse(id, &text[..end], Path::new(""));
        for byte in [0, b'"', b'[', b'=', b'\n', 0xff] {
            let mut changed = text.to_vec();
            changed[end] = byte;
            if let Err(diagnostic) = file::parse(id, &changed, Path::new("")) {
                assert!(diagnostic.labels.iter().all(|l| l.span.start <= l.span.end && l.span.end as usize <= changed.len() + 1));
            }
        }
    }
}
