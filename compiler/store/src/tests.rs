//! Tests of the store with images that are documents alone.

use super::*;

fn document(tag: u64) -> String {
    let json = format!(
        r#"{{"format": "ukc-image", "version": 1,
        "program": {{"path": "/a", "argv": ["a"], "env": [], "cwd": "/", "stop_signal": "SIGTERM",
            "user": {{"name": "", "uid": 0, "gid": 0, "groups": []}}}},
        "guest": {{"kind": "unikernel", "reasons": []}},
        "kernel": {{"len_bytes": {tag}, "text_bytes": 0, "rodata_bytes": 0, "data_bytes": 0, "bss_bytes": 0}},
        "modules": [], "syscalls": [], "files": {{"count": 0, "len_bytes": 0}}, "ports": [], "volumes": [],
        "memory_floor_bytes": 0, "inputs": [], "artefacts": []}}"#
    );
    Image::parse(json.as_bytes()).unwrap().to_json()
}

fn put(store: &ImageStore, tag: u64, names: &[&str]) -> String {
    let staging = store.begin().unwrap();
    fs::create_dir(staging.path()).unwrap();
    fs::write(staging.path().join(FILE_NAME), document(tag)).unwrap();
    let names: Vec<Name> = names.iter().map(|n| Name::parse(n).unwrap()).collect();
    store.commit(staging, &names).unwrap()
}

fn left_over(store: &ImageStore) -> usize {
    fs::read_dir(store.root.join("tmp")).unwrap().count()
}

#[test]
fn images_are_found_by_name_and_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("deep")).unwrap();
    let one = put(&store, 1, &["app", "app:1"]);
    assert_eq!(put(&store, 1, &[]), one, "equal images are one");
    let two = put(&store, 2, &["app"]);
    assert_ne!(one, two);
    assert_eq!(store.find("app").unwrap().id, two);
    assert_eq!(store.find("app:1").unwrap().id, one);
    for text in [&one[..12], &one, &format!("sha256:{one}")] {
        assert_eq!(store.find(text).unwrap().id, one, "{text}");
    }
    let names: Vec<_> = store.list().unwrap().into_iter().map(|s| s.names.iter().map(ToString::to_string).collect::<Vec<_>>()).collect();
    assert_eq!(names, [["app:1"], ["app:latest"]]);
    assert_eq!(store.find("nope").unwrap_err().to_string(), "there is no image `nope`; there are app:1, app:latest");
    assert_eq!(left_over(&store), 0);
}

#[test]
fn the_last_name_takes_the_image_along() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let id = put(&store, 1, &["a", "b"]);
    assert!(matches!(store.remove(&id[..8], false), Err(StoreError::HasNames { .. })));
    assert_eq!(store.remove("a", false).unwrap().id, None);
    assert_eq!(store.remove("b", false).unwrap().id, Some(id.clone()));
    assert!(matches!(store.find(&id), Err(StoreError::Unknown { .. })));
    let nameless = put(&store, 2, &[]);
    put(&store, 3, &["c"]);
    assert_eq!(store.prune().unwrap(), [nameless]);
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(left_over(&store), 0);
}

#[test]
fn what_killed_builds_left_goes_and_running_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let age = |path: &Path| File::open(path).unwrap().set_modified(std::time::SystemTime::now() - 2 * ABANDONED_AFTER).unwrap();
    let killed = store.root.join("tmp/killed");
    fs::create_dir(&killed).unwrap();
    age(&killed);
    let running = store.begin().unwrap();
    age(running.dir.path());
    ImageStore::open(dir.path()).unwrap();
    assert!(!killed.exists());
    assert!(running.dir.path().exists());
}

#[test]
fn many_builds_of_one_name() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = dir.path();
            scope.spawn(move || {
                let store = ImageStore::open(path).unwrap();
                let id = put(&store, n % 3, &["app"]);
                store.find(&id).unwrap();
                store.find("app").unwrap();
            });
        }
    });
    let store = ImageStore::open(dir.path()).unwrap();
    assert_eq!(store.list().unwrap().len(), 3);
    assert_eq!(left_over(&store), 0);
}
