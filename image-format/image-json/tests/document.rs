//! The document survives, matches its schema, and what is wrong with one is named.

use proptest::prelude::*;
use serde_json::Value;
use ukc_image_json::{
    Artefact, ArtefactKind, Digest, FORMAT, Files, Guest, GuestKind, Handling, Image, Input, InputKind, Kernel, Module, Port, Program,
    Protocol, SCHEMA, Syscall, User, VERSION,
};

fn sample() -> Image {
    let digest = Digest::from_sha256(&[0xab; 32]);
    Image {
        format: FORMAT.to_owned(),
        version: VERSION,
        program: Program {
            path: "/bin/server".to_owned(),
            argv: vec!["server".to_owned(), "--port=8080".to_owned()],
            command_at: 1,
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/srv".to_owned(),
            user: User { name: "www".to_owned(), uid: 33, gid: 33, groups: vec![4] },
            stop_signal: "SIGTERM".to_owned(),
        },
        guest: Guest { kind: GuestKind::Unikernel, reasons: vec!["every system call has a handler".to_owned()] },
        kernel: Kernel { len_bytes: 90_000, text_bytes: 60_000, rodata_bytes: 20_000, data_bytes: 1000, bss_bytes: 5000 },
        modules: vec![Module { name: "fd".to_owned(), reasons: vec!["read".to_owned()] }],
        syscalls: vec![
            Syscall { number: 0, name: "read".to_owned(), handling: Handling::Linked, module: Some("fd".to_owned()) },
            Syscall { number: 321, name: "bpf".to_owned(), handling: Handling::Absent, module: None },
        ],
        files: Files { count: 3, len_bytes: 1234, ..Files::default() },
        ports: vec![Port { port: 8080, protocol: Protocol::Tcp }],
        volumes: vec!["/data".to_owned()],
        packages: Vec::new(),
        memory_floor_bytes: 4 << 20,
        inputs: vec![Input { kind: InputKind::Dockerfile, name: "Dockerfile".to_owned(), digest: digest.clone() }],
        artefacts: vec![Artefact {
            kind: ArtefactKind::Kernel,
            name: "kernel.elf".to_owned().try_into().unwrap(),
            len_bytes: 90_000,
            digest,
        }],
    }
}

#[test]
fn it_survives() {
    let image = sample();
    let text = image.to_json();
    assert_eq!(Image::parse(text.as_bytes()), Ok(image.clone()));
    assert_eq!(Image::parse(text.as_bytes()).unwrap().to_json(), text);
    assert!(text.starts_with("{\n  \"format\": \"ukc-image\",\n  \"version\": 1,\n") && text.ends_with("}\n"));
    assert!(text.contains("\"8080/tcp\""));
}

/// Replaces what a JSON pointer names and returns the reader's message.
fn broken(pointer: &str, value: &str) -> String {
    let mut document: Value = serde_json::from_str(&sample().to_json()).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    if value.is_empty() {
        parent.as_object_mut().unwrap().remove(key);
    } else {
        let slot = if let Ok(index) = key.parse::<usize>() { &mut parent[index] } else { &mut parent[key] };
        *slot = serde_json::from_str(value).unwrap();
    }
    Image::parse(document.to_string().as_bytes()).unwrap_err().to_string()
}

#[test]
fn the_first_wrong_field_is_named() {
    let table = [
        ("/modules/0/name", "3", "image.json: `modules[0].name`: invalid type: integer `3`, expected a string"),
        ("/modules/0/reasons", "", "image.json: `modules[0]`: missing field `reasons`"),
        ("/program/user/uid", "-1", "image.json: `program.user.uid`: invalid value: integer `-1`, expected u32"),
        ("/guest/kind", "\"windows\"", "image.json: `guest.kind`: unknown variant `windows`, expected `unikernel` or `linux`"),
        ("/ports/0", "\"0/tcp\"", "image.json: `ports[0]`: `0/tcp` is not a port of the form `8080/tcp`"),
        ("/artefacts/0/name", "\"../evil\"", "image.json: `artefacts[0].name`: `../evil` is not a plain file name"),
        (
            "/artefacts/0/digest",
            "\"md5:x\"",
            "image.json: `artefacts[0].digest`: `md5:x` is not `sha256:` and 64 lower-case hexadecimal digits",
        ),
        ("/program/cwd", "\"srv\"", "image.json: `program.cwd`: not an absolute path"),
        ("/program/env/0", "\"=x\"", "image.json: `program.env[0]`: not of the form `NAME=value`"),
        ("/files", "", "image.json: missing field `files`"),
        ("/version", "2", "image.json has version 2; this ukc reads version 1: rebuild the image, or use the ukc that made it"),
        ("/format", "\"other\"", "not an image.json: `format` is `other` instead of `ukc-image`"),
    ];
    for (pointer, value, expected) in table {
        let message = broken(pointer, value);
        assert!(message.starts_with(expected), "{pointer}: {message}");
    }
    assert!(Image::parse(b"").unwrap_err().to_string().starts_with("not an image.json: "));
}

#[test]
fn unknown_fields_are_ignored() {
    let text = sample().to_json().replacen('{', "{\"future\": [1, 2],", 1);
    assert_eq!(Image::parse(text.as_bytes()), Ok(sample()));
}

/// Checks a value against the part of JSON Schema that ours uses, and that no field is undescribed.
fn check(schema: &Value, root: &Value, value: &Value, path: &str) {
    if let Some(reference) = schema.get("$ref") {
        return check(root.pointer(reference.as_str().unwrap().trim_start_matches('#')).unwrap(), root, value, path);
    }
    if let Some(constant) = schema.get("const") {
        assert_eq!(value, constant, "{path}");
    } else if let Some(list) = schema.get("enum") {
        assert!(list.as_array().unwrap().contains(value), "{path}: {value}");
    } else {
        match schema["type"].as_str().unwrap() {
            "object" => {
                let object = value.as_object().unwrap_or_else(|| panic!("{path} is no object"));
                for required in schema["required"].as_array().unwrap() {
                    assert!(object.contains_key(required.as_str().unwrap()), "{path} lacks {required}");
                }
                for (key, value) in object {
                    let described = schema["properties"].get(key).unwrap_or_else(|| panic!("the schema does not describe {path}/{key}"));
                    check(described, root, value, &format!("{path}/{key}"));
                }
            }
            "array" => value.as_array().unwrap().iter().for_each(|v| check(&schema["items"], root, v, &format!("{path}[]"))),
            "string" => assert!(value.is_string(), "{path}"),
            "integer" => assert!(value.is_u64(), "{path}"),
            other => panic!("{path}: type {other}"),
        }
    }
}

#[test]
fn it_matches_its_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let document: Value = serde_json::from_str(&sample().to_json()).unwrap();
    check(&schema, &schema, &document, "");
    // What the schema requires the reader requires, and the other way round.
    // `packages` came later: documents of before it lack it.
    for key in document.as_object().unwrap().keys().filter(|key| *key != "packages") {
        let is_required = schema["required"].as_array().unwrap().iter().any(|r| r == key);
        assert!(is_required, "{key}");
        broken(&format!("/{key}"), "");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_input_panics(mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut bytes = sample().to_json().into_bytes();
        for (at, byte) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = Image::parse(&bytes);
    }
}
