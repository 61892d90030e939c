//! Pulling from a real registry, and from one behind a bad line. skopeo puts the images there.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Bench, files, noise, pull, reference, upload};
use golden_registry::{Access, Fault, Faults, Registry};
use ukc_fetch::Cancel;
use ukc_oci::registry::{Credential, CredentialFiles, Event};
use ukc_oci::{Digest, OciError, Platform};

fn error(result: Result<ukc_oci::Image, OciError>) -> String {
    let error = result.expect_err("an error");
    format!("{}: {error} ({})", error.name(), error.help().unwrap_or_default())
}

#[test]
fn by_tag_and_by_digest_and_then_without_the_registry() {
    let bench = Bench::new();
    let registry = Registry::start();
    let host = registry.host();
    upload(&bench.layout("a", "one", &[300_000, 10, 2000]), "one", &format!("{host}/team/app:one"));
    let client = bench.client(|_| {});
    let store = bench.store();
    let image = pull(&client, &format!("{host}/team/app:one"), &store).unwrap();
    let expected: Vec<_> = [300_000, 10, 2000].iter().enumerate().map(|(n, size)| (format!("/file{n}"), noise(n as u64, *size))).collect();
    assert_eq!(files(&image, &store), expected);
    assert_eq!(image.config.env_var("WHICH"), Some("one"));
    assert!(image.layers.iter().all(|l| l.tar.is_file()) && image.is_complete());
    let events = bench.events.lock().unwrap().clone();
    assert!(events.contains(&Event::Receiving {
        digest: image.layers[0].digest,
        done: image.layers[0].len_bytes,
        total: image.layers[0].len_bytes
    }));
    assert_eq!(fs::read_dir(store.root().join("partial")).unwrap().count(), 0);

    let by_digest = format!("{host}/team/app@{}", image.manifest_digest);
    let again = pull(&client, &by_digest, &store).unwrap();
    assert_eq!(again.config_digest, image.config_digest);
    registry.stop();
    assert_eq!(pull(&client, &format!("{host}/team/app:one"), &store).unwrap().manifest_digest, image.manifest_digest, "it is known");
    let fresh = bench.client(|s| s.always_resolve = true);
    assert_eq!(pull(&fresh, &format!("{host}/team/app:one"), &store).unwrap().manifest_digest, image.manifest_digest);
    let notices = bench.notices();
    assert!(notices.len() == 1 && notices[0].contains("as it was pulled before"), "{notices:?}");
    let offline = bench.client(|s| s.is_offline = true);
    let other = error(pull(&offline, &format!("{host}/team/app:two"), &store));
    assert!(other.starts_with("offline: the image") && other.contains("without `--offline`"), "{other}");
}

#[test]
fn a_tag_that_moved_is_seen_when_asked_for() {
    let bench = Bench::new();
    let registry = Registry::start();
    let name = format!("{}/app", registry.host());
    upload(&bench.layout("a", "one", &[10]), "one", &name);
    let (client, fresh, store) = (bench.client(|_| {}), bench.client(|s| s.always_resolve = true), bench.store());
    let first = pull(&client, &name, &store).unwrap().manifest_digest;
    assert_eq!(pull(&fresh, &name, &store).unwrap().manifest_digest, first);
    upload(&bench.layout("b", "two", &[20]), "two", &name);
    assert_eq!(pull(&client, &name, &store).unwrap().manifest_digest, first);
    let moved = pull(&fresh, &name, &store).unwrap();
    assert_ne!(moved.manifest_digest, first);
    assert_eq!(pull(&client, &name, &store).unwrap().manifest_digest, moved.manifest_digest);
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let bench = Bench::new();
    let registry = Registry::start();
    let host = registry.host();
    upload(&bench.layout("a", "one", &[10]), "one", &format!("{host}/app:one"));
    let (client, store) = (bench.client(|_| {}), bench.store());
    for (name, expected) in [
        (format!("{host}/app:two"), format!("image-not-found: {host} does not have the image {host}/app:two (manifest unknown)")),
        (format!("{host}/nope:two"), format!("image-not-found: {host} does not have the image {host}/nope:two")),
        (format!("{host}/app@{}", Digest::of(b"x")), format!("image-not-found: {host} does not have the image {host}/app@sha256:")),
    ] {
        let text = error(pull(&client, &name, &store));
        assert!(text.starts_with(&expected) && text.contains("check the name and the tag"), "{text}");
    }
    let platform = Platform::parse("linux/arm64").unwrap();
    let text = error(client.resolve(&reference(&format!("{host}/app:one")), &platform, &store));
    assert!(
        text.starts_with(&format!("no-such-platform: the repository `{host}/app` has no image for linux/arm64 (it has `linux/amd64`)")),
        "{text}"
    );
    registry.stop();
    let text = error(pull(&client, &format!("{host}/other"), &store));
    assert!(text.starts_with("registry-unreachable: cannot reach 127.0.0.1") && text.contains("nothing listens there"), "{text}");
    let text = error(pull(&client, "registry.invalid/app", &store));
    assert!(text.starts_with("registry-unreachable: cannot reach registry.invalid"), "{text}");
}

#[test]
fn passwords() {
    let bench = Bench::new();
    let registry = Registry::with(Access::Basic { user: "me", password: "se:cret" }, None);
    let name = format!("{}/private/app:1", registry.host());
    let from = bench.layout("a", "1", &[10]);
    let to = format!("docker://{name}");
    common::skopeo(&["copy", "-q", "--dest-tls-verify=false", "--dest-creds", "me:se:cret", &format!("oci:{}:1", from.display()), &to]);
    let store = bench.store();
    let files = CredentialFiles { own: Some(bench.path("auth.json")), others: vec![] };
    let client = || bench.client(|s| s.credentials = files.clone());
    let text = error(pull(&client(), &name, &store));
    assert!(text.starts_with("access-denied: ") && text.contains(&format!("log in with `docker login {}`", registry.host())), "{text}");
    let password = |password: &str| Credential::Password { user: "me".into(), password: password.into() };
    files.store(&registry.host(), &password("wrong")).unwrap();
    let text = error(pull(&client(), &name, &store));
    assert!(text.starts_with("access-denied: ") && text.contains("do not allow this"), "{text}");
    files.store(&registry.host(), &password("se:cret")).unwrap();
    assert_eq!(pull(&client(), &name, &store).unwrap().layers.len(), 1);
}

#[test]
fn tokens() {
    let bench = Bench::new();
    let registry = Registry::with(Access::Token { user: "me", password: "pw" }, None);
    let name = format!("{}/team/app:1", registry.host());
    let from = bench.layout("a", "1", &[10, 20, 30]);
    let to = format!("docker://{name}");
    common::skopeo(&["copy", "-q", "--dest-tls-verify=false", "--dest-creds", "me:pw", &format!("oci:{}:1", from.display()), &to]);
    let asked = registry.tokens().len();
    let image = pull(&bench.client(|_| {}), &name, &bench.store()).unwrap();
    assert_eq!(image.layers.len(), 3);
    let tokens = registry.tokens().split_off(asked);
    assert_eq!(tokens.len(), 1, "one token serves all requests: {tokens:?}");
    assert!(tokens[0].contains("scope=repository:team/app:pull&") && tokens[0].contains("service=test-registry"), "{tokens:?}");
}

#[test]
fn private_authorities() {
    let bench = Bench::new();
    let (given, other) = (bench.path("given"), bench.path("other"));
    let registry = Registry::with(Access::Open, Some(&given));
    drop(Registry::with(Access::Open, Some(&other)));
    let name = format!("{}/app:1", registry.host());
    upload(&bench.layout("a", "1", &[10]), "1", &name);
    assert!(pull(&bench.client(|_| {}), &name, &bench.store()).is_ok(), "127.* may do without a certificate that is trusted");
    let with = |authority: &std::path::Path| {
        let own = bench.path("certs.d").join(registry.host());
        fs::create_dir_all(&own).unwrap();
        fs::copy(authority.join("ca.crt"), own.join("ca.crt")).unwrap();
        let bench_of = Bench::new();
        pull(&bench.client(|s| s.certificate_dirs = vec![bench.path("certs.d")]), &name, &bench_of.store())
            .map_err(|e| format!("{}: {e} ({:?})", e.name(), e.help()))
    };
    assert_eq!(with(&given).unwrap().layers.len(), 1);
    let text = with(&other).err().unwrap();
    assert!(
        text.starts_with("registry-unreachable: ") && text.contains("no safe connection") && text.contains("/etc/docker/certs.d/"),
        "{text}"
    );
}

#[test]
fn a_bad_line_is_no_reason_to_fail() {
    let bench = Bench::new();
    let registry = Registry::start();
    upload(&bench.layout("a", "1", &[2_000_000, 500_000]), "1", &format!("{}/app:1", registry.host()));
    let line = Faults::before(&registry.host(), |method, path, before| match (method, before) {
        ("GET", 0) if path.contains("/manifests/") => Fault::Status(429, "Retry-After: 0\r\n"),
        ("GET", 1) if path.contains("/manifests/") => Fault::Status(503, ""),
        ("GET", 0) if path.contains("/blobs/") => Fault::HangUp,
        ("GET", n @ 1..=3) if path.contains("/blobs/") => Fault::CutAnswer(n * 100_000),
        ("GET", 4) if path.contains("/blobs/") => Fault::Status(500, ""),
        _ => Fault::None,
    });
    let store = bench.store();
    let image = pull(&bench.client(|s| s.retries.attempts = 6), &format!("{}/app:1", line.host()), &store).unwrap();
    assert_eq!(files(&image, &store)[0].1, noise(0, 2_000_000));
    let ranges: Vec<_> =
        line.seen().into_iter().filter(|s| s.path.contains(&image.layers[0].digest.to_string())).map(|s| s.range).collect();
    assert_eq!(
        ranges[..4],
        [None, None, Some("bytes=100000-".into()), Some("bytes=300000-".into())],
        "it went on where it was cut: {ranges:?}"
    );
}

#[test]
fn wrong_bytes_are_never_kept() {
    let bench = Bench::new();
    let registry = Registry::start();
    upload(&bench.layout("a", "1", &[50_000]), "1", &format!("{}/app:1", registry.host()));
    let store = bench.store();
    let always = Faults::before(&registry.host(), |_, path, _| if path.contains("/blobs/") { Fault::Flip(200) } else { Fault::None });
    let text = error(pull(&bench.client(|_| {}), &format!("{}/app:1", always.host()), &store));
    assert!(text.starts_with("wrong-digest: in the repository") && text.contains("nothing of it was kept"), "{text}");
    let bad_layer = Faults::before(&registry.host(), |_, path, before| match path.contains("/blobs/") && before > 0 {
        true => Fault::Flip(30_000),
        false => Fault::None,
    });
    // The second time that the same blob is asked for it is damaged, and the first time nobody asked: it comes whole.
    let image = pull(&bench.client(|_| {}), &format!("{}/app:1", bad_layer.host()), &store).unwrap();
    assert_eq!(files(&image, &store)[0].1, noise(0, 50_000));
    assert_eq!(fs::read_dir(store.root().join("partial")).unwrap().count(), 0);
    let flipped = Faults::before(&registry.host(), |_, path, _| if path.contains("/manifests/") { Fault::Flip(50) } else { Fault::None });
    let text = error(pull(&bench.client(|s| s.always_resolve = true), &format!("{}/app:1", flipped.host()), &store));
    assert!(text.starts_with("wrong-digest: in the repository"), "{text}");
}

#[test]
fn once_damaged_is_fetched_again() {
    let bench = Bench::new();
    let registry = Registry::start();
    upload(&bench.layout("a", "1", &[50_000]), "1", &format!("{}/app:1", registry.host()));
    let store = bench.store();
    let line = Faults::before(&registry.host(), |_, path, before| match path.contains("/blobs/") && before == 0 {
        true => Fault::Flip(20_000),
        false => Fault::None,
    });
    let image = pull(&bench.client(|_| {}), &format!("{}/app:1", line.host()), &store).unwrap();
    assert_eq!(files(&image, &store)[0].1, noise(0, 50_000));
}

#[test]
fn mirrors_come_first_and_the_registry_last() {
    let bench = Bench::new();
    let (registry, mirror) = (Registry::start(), Registry::start());
    let layout = bench.layout("a", "1", &[10]);
    upload(&layout, "1", &format!("{}/app:1", registry.host()));
    upload(&layout, "1", &format!("{}/proxy/app:1", mirror.host()));
    let origin = Faults::before(&registry.host(), |_, _, _| Fault::None);
    let broken = Faults::before(&mirror.host(), |_, _, _| Fault::Status(502, ""));
    let good =
        Faults::before(
            &mirror.host(),
            |_, path, _| if path.contains("/blobs/") && path.contains("nothing") { Fault::HangUp } else { Fault::None },
        );
    let mirrors = |list: &[String]| [(origin.host(), list.to_vec())].into();
    let name = format!("{}/app:1", origin.host());

    let store = bench.store();
    let client = bench.client(|s| s.mirrors = mirrors(&[format!("http://{}", broken.host()), format!("http://{}/proxy", good.host())]));
    pull(&client, &name, &store).unwrap();
    assert_eq!((origin.seen().len(), broken.count("GET", "") > 0, good.count("GET", "/blobs/")), (0, true, 2));
    assert!(bench.notices().iter().all(|n| n.contains("is of no use")) && !bench.notices().is_empty());

    let other = Bench::new();
    let client = other.client(|s| s.mirrors = mirrors(&[format!("http://{}", good.host())]));
    pull(&client, &name, &other.store()).unwrap();
    assert!(origin.count("GET", "/blobs/") == 2, "the mirror does not have `app` without the prefix");
    assert_eq!(other.notices(), Vec::<String>::new());
}

#[test]
fn an_interrupted_pull_goes_on_where_it_was() {
    let bench = Bench::new();
    let registry = Registry::start();
    upload(&bench.layout("a", "1", &[3_000_000]), "1", &format!("{}/app:1", registry.host()));
    let store = bench.store();
    let line =
        Faults::before(&registry.host(), |_, path, _| if path.contains("/blobs/") { Fault::CutAnswer(1_000_000) } else { Fault::None });
    let name = format!("{}/app:1", line.host());
    let start = Instant::now();
    // The line is cut once, and then the user gives up.
    let events = bench.events.clone();
    let came = move || events.lock().unwrap().iter().any(|e| matches!(e, Event::Receiving { done, .. } if *done >= 1_000_000));
    let client = bench.client(|s| {
        s.cancel = Cancel::new(came);
        s.retries.first = Duration::from_secs(30);
    });
    let text = error(pull(&client, &name, &store));
    assert!(text.starts_with("interrupted: ") && start.elapsed() < Duration::from_secs(20), "{text}");
    assert_eq!(fs::read_dir(store.root().join("partial")).unwrap().count(), 1);
    bench.events.lock().unwrap().clear();
    let image = pull(&bench.client(|_| {}), &name, &store).unwrap();
    assert_eq!(files(&image, &store)[0].1, noise(0, 3_000_000));
    let ranges: Vec<_> =
        line.seen().into_iter().filter(|s| s.path.contains(&image.layers[0].digest.to_string())).map(|s| s.range).collect();
    assert!(ranges[1].as_deref() == Some("bytes=1000000-"), "{ranges:?}");
}

#[test]
fn two_at_once_share_the_work() {
    let bench = Bench::new();
    let registry = Registry::start();
    upload(&bench.layout("a", "1", &[1_000_000]), "1", &format!("{}/app:1", registry.host()));
    let line = Faults::before(&registry.host(), |_, path, _| match path.contains("/blobs/") {
        true => Fault::Delay(Duration::from_millis(200)),
        false => Fault::None,
    });
    let name = format!("{}/app:1", line.host());
    let digests: Vec<Digest> = std::thread::scope(|scope| {
        let work = || pull(&bench.client(|_| {}), &name, &bench.store()).unwrap().layers[0].digest;
        let all: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(line.count("GET", &digests[0].to_string()), 1);
}
