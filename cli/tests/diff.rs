//! `ukc diff` from outside: two images that differ in files, and policies that forbid growth.

mod common;

use common::{Place, exits};

const DOCKERFILE: &str = "FROM scratch\nCOPY app /app\nCOPY data /data\nENTRYPOINT [\"/app\"]\n";

#[test]
fn two_images_are_compared_down_to_their_files() {
    let place = Place::with_program(&exits(0));
    for (name, text) in [("kept", "same"), ("edited", "1"), ("gone", ""), ("locked", "")] {
        std::fs::create_dir_all(place.path("context/data")).unwrap();
        place.file(&format!("context/data/{name}"), text);
    }
    place.file("context/Dockerfile", DOCKERFILE);
    place.ukc(&["build", "-q", "-t", "app:1", "context"]).status(0);
    assert_eq!(place.ukc(&["diff", "app:1", "app:1"]).status(0).out, "no difference\n");

    place.file("context/data/edited", "2");
    place.file("context/data/new", "");
    std::fs::remove_file(place.path("context/data/gone")).unwrap();
    place.file("context/Dockerfile", &(DOCKERFILE.to_owned() + "COPY --chmod=4755 app /data/locked\nEXPOSE 80\n"));
    place.ukc(&["build", "-q", "-o", "out", "context"]).status(0);
    let text = place.ukc(&["diff", "app:1", "out"]).status(0).out;
    for line in
        ["  + /data/new", "  - /data/gone", "  ~ /data/edited (content)", "  ~ /data/locked (content, mode 644 → 4755)", "  + 80/tcp"]
    {
        assert!(text.lines().any(|l| l == line), "`{line}` is not in\n{text}");
    }
    assert!(!text.contains("kept"), "{text}");

    place.file("ukc.toml", "[policy]\ngrowth = { setuid = false, ports = false }\n");
    let did = place.ukc(&["diff", "--format", "json", "app:1", "out"]).status(1);
    assert!(did.err.contains("`/data/locked` runs as its owner") && did.err.contains("the port 80/tcp is new"), "{}", did.err);
    let json: serde_json::Value = serde_json::from_str(&did.out).unwrap();
    assert_eq!(json["violations"].as_array().unwrap().len(), 2);
    assert_eq!(json["comparison"]["files"]["added"], serde_json::json!(["/data/new"]));
    place.ukc(&["diff", "out", "app:1"]).status(0);
}

#[test]
fn what_is_no_image_is_said() {
    let place = Place::with_program(&exits(0));
    place.ukc(&["diff", "one", "two"]).status(1).says("there is no image `one`").no_output();
    place.ukc(&["build", "-q", "-o", "out", "context"]).status(0);
    std::fs::write(place.path("out/rootfs.ext4"), vec![0; 8192]).unwrap();
    place.ukc(&["diff", "out", "out"]).status(1).says("the root file system cannot be read").says("--no-files").no_output();
    assert_eq!(place.ukc(&["diff", "--no-files", "out", "out"]).status(0).out, "no difference\n");
}
