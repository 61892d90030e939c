//! Builds by a user who is not root. Run by root, the test starts itself again as a user with ids in /etc/subuid; without one it says so.

mod common;

use std::process::Command;

use common::{case, entry, text};

#[test]
fn a_user_with_further_ids_builds() {
    if !common::is_root() {
        return builds();
    }
    let subuid = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let has_ids = subuid.lines().any(|l| l.split(':').next() == fields.first().copied());
        (has_ids && fields.get(2) != Some(&"0")).then(|| (fields[2].to_owned(), fields[3].to_owned()))
    });
    let has_newuidmap = Command::new("newuidmap").output().is_ok();
    let Some((uid, gid)) = user.filter(|_| has_newuidmap) else {
        eprintln!("SKIPPED: no user has ids in /etc/subuid, or newuidmap is missing");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(home.path(), Some(uid.parse().unwrap()), Some(gid.parse().unwrap())).unwrap();
    // The user may not be able to reach where this program lies.
    let copy = |from: &std::path::Path, name: &str| {
        let to = home.path().join(name);
        std::fs::copy(from, &to).unwrap();
        to
    };
    let test = copy(&std::env::current_exe().unwrap(), "test");
    let helper = copy(std::path::Path::new(env!("CARGO_BIN_EXE_ukc-run-helper")), "helper");
    let output = Command::new("setpriv")
        .args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()])
        .arg(test)
        .args(["--exact", "a_user_with_further_ids_builds", "--nocapture"])
        .env("HOME", home.path())
        .env_remove("XDG_CACHE_HOME")
        .env("UKC_TEST_HELPER", helper)
        .current_dir("/")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

fn builds() {
    for never_overlay in [false, true] {
        let mut case = case();
        case.config.never_overlay = never_overlay;
        let built = case.built(
            "FROM base\nRUN mkdir -m 700 /p && echo secret >/p/f && chmod 600 /p/f && chown -R 33:44 /p && echo x >/root/x && id -u\nUSER 33:44\nRUN cat /p/f; rm /p/f; echo new >/p/g; grep CapEff /proc/self/status\n",
        );
        assert!(case.log.borrow().starts_with("0\nsecret\n") && case.log.borrow().contains("0000000000000000"), "{}", case.log.borrow());
        assert_eq!(entry(&built, "/p").as_deref(), Some("d0700 33:44"));
        // What the user of the store cannot read where it lies can be read all the same.
        assert_eq!(text(&built, "/p/g"), "new\n");
        assert_eq!(entry(&built, "/p/f"), None);
        case.built("FROM base\nRUN --mount=type=cache,target=/c,uid=33 touch /c/x; stat -c %u /c; true\nRUN true\n");
        let error = case.error("FROM base\nRUN chown 4000000000 /etc/passwd\n");
        assert!(error.contains("exit code: 1"), "{error}");
    }
}
