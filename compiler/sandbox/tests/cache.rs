//! What is done again and what is not; interruptions; several builds at once.

mod common;

use common::{case, text};

#[test]
fn equal_steps_are_done_once() {
    let case = case().file("a", "1").file("unused", "1");
    let dockerfile = "FROM base\nCOPY a /a\nRUN cat /a; date +%N >/time\nRUN echo second\n";
    let first = case.built(dockerfile);
    assert_eq!(*case.log.borrow(), "1second\n");
    let again = case.built(dockerfile);
    assert_eq!((case.log.borrow().as_str(), *case.cached.borrow()), ("", 2));
    assert_eq!(text(&first, "/time"), text(&again, "/time"));
    // Neither other files nor times matter.
    std::fs::write(case.context().join("unused"), "2").unwrap();
    std::fs::write(case.context().join("a"), "1").unwrap();
    case.built(dockerfile);
    assert_eq!(*case.cached.borrow(), 2);
    std::fs::write(case.context().join("a"), "2").unwrap();
    case.built(dockerfile);
    assert_eq!((case.log.borrow().as_str(), *case.cached.borrow()), ("2second\n", 0));
    for (other, cached) in [
        ("FROM base\nCOPY a /a\nENV X=1\nRUN cat /a; date +%N >/time\n", 0),
        ("FROM base\nCOPY a /a\nLABEL x=1\nEXPOSE 1\nRUN cat /a; date +%N >/time\n", 1),
        ("FROM base\nCOPY a /a\nUSER 5\nRUN cat /a; true\n", 0),
        ("FROM base\nCOPY a /a\nARG Z=1\nRUN cat /a; date +%N >/time\n", 0),
        ("FROM base\nCOPY a /a\nRUN --network=none cat /a; date +%N >/time\n", 0),
        ("FROM base\nCOPY --chmod=600 a /a\nRUN cat /a; date +%N >/time\n", 0),
    ] {
        case.built(other);
        assert_eq!(*case.cached.borrow(), cached, "{other}");
    }
    let case = case.no_cache();
    let renewed = case.built(dockerfile);
    assert_eq!(*case.cached.borrow(), 0);
    let mut case = case;
    case.options.run.cache = ukc_build::run::CacheUse::All;
    assert_eq!(text(&case.built(dockerfile), "/time"), text(&renewed, "/time"));
    assert_eq!(*case.cached.borrow(), 2);
}

#[test]
fn failed_steps_leave_nothing() {
    let case = case();
    for _ in 0..2 {
        let text = case.error("FROM base\nRUN echo kept\nRUN echo try; mkdir -m 0 /x; exit 3\n");
        assert!(text.contains("exit code: 3"), "{text}");
        assert!(case.log.borrow().ends_with("try\n"));
    }
    assert_eq!(*case.cached.borrow(), 1);
    assert_eq!(temporaries(&case.store()), Vec::<String>::new());
}

fn temporaries(store: &std::path::Path) -> Vec<String> {
    let layers = std::fs::read_dir(store.join("runs")).unwrap().flatten().flat_map(|d| std::fs::read_dir(d.path().join("layers")).unwrap());
    layers.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.starts_with(".tmp")).collect()
}

/// Returns the overlays of this mount namespace; other tests mount other things.
fn mounts() -> String {
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines().filter(|line| line.contains(" overlay ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn interrupted_steps_end_at_once_and_leave_nothing() {
    let before = mounts();
    let mut case = case();
    case.stop_after = Some("started");
    for step in [
        "echo started; sleep 32.5",
        "trap 'echo trapped; exit 0' TERM; echo started; sleep 32.5 & wait",
        "trap '' TERM; echo started; sleep 32.5",
    ] {
        let start = std::time::Instant::now();
        let text = case.error(&format!("FROM base\nRUN {step}\n"));
        assert!(text.contains("interrupted"), "{text}");
        assert!(start.elapsed().as_secs() < 10, "{step}");
        assert_eq!(case.log.borrow().contains("trapped"), step.contains("trapped"), "{step}");
    }
    assert_eq!(temporaries(&case.store()), Vec::<String>::new());
    assert_eq!(mounts(), before);
    let running = std::process::Command::new("pgrep").args(["-f", "sleep 32.5"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&running.stdout), "");
    case.stop_after = None;
    case.built("FROM base\nRUN echo started\n");
}

#[test]
fn two_builds_of_one_file_at_once() {
    let case = case();
    let dockerfile = "FROM base\nRUN sleep 0.3; date +%N >/time; echo ran\n";
    let store = case.store();
    let texts: Vec<(String, String)> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut other = common::case();
                    // One store for all.
                    std::fs::create_dir_all(&store).unwrap();
                    std::os::unix::fs::symlink(&store, other.store()).unwrap();
                    other.options.context = other.context();
                    let built = other.built(dockerfile);
                    (text(&built, "/time"), other.log.borrow().clone())
                })
            })
            .collect();
        builds.into_iter().map(|b| b.join().unwrap()).collect()
    });
    assert!(texts.iter().all(|(time, _)| *time == texts[0].0), "{texts:?}");
    assert_eq!(texts.iter().filter(|(_, log)| log == "ran\n").count(), 1, "{texts:?}");
}

#[test]
fn a_killed_build_leaves_no_process_and_a_whole_store() {
    // The helper's parent is a shell that is killed: what the helper started must go with it.
    let case = case();
    case.built("FROM base\nRUN true\n");
    let before = mounts();
    let exe = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(exe)
        .args(["--exact", "sleeping_build", "--ignored", "--nocapture"])
        .env("UKC_TEST_STORE", case.store())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let is_running = || !std::process::Command::new("pgrep").args(["-f", "sleep 33.5"]).output().unwrap().stdout.is_empty();
    let wait_for = |wanted: bool| {
        for _ in 0..400 {
            if is_running() == wanted {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the step is {}running", if wanted { "not " } else { "still " });
    };
    wait_for(true);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(false);
    assert_eq!(mounts(), before);
    assert_eq!(temporaries(&case.store()).len(), 1);
    case.built("FROM base\nRUN true\n");
    assert_eq!(*case.cached.borrow(), 1);
}

#[test]
#[ignore = "started by a_killed_build_leaves_no_process_and_a_whole_store"]
fn sleeping_build() {
    let Some(store) = std::env::var_os("UKC_TEST_STORE") else { return };
    let case = case();
    std::os::unix::fs::symlink(store, case.store()).unwrap();
    case.built("FROM base\nRUN sh -c 'sleep 33.5'; true\n");
}

#[test]
fn a_full_disk_is_a_sentence_and_the_store_stays_whole() {
    if !common::is_root() {
        eprintln!("SKIPPED: only root makes a small disk");
        return;
    }
    let case = case();
    let store = case.store();
    std::fs::create_dir(&store).unwrap();
    let mount = |args: &[&str]| assert!(std::process::Command::new("mount").args(args).arg(&store).status().unwrap().success());
    mount(&["-t", "tmpfs", "-o", "size=120m", "small"]);
    let unmount = Unmount(store.clone());
    case.built("FROM base\nRUN true\n");
    let text = case.error("FROM base\nRUN head -c 400000000 /dev/zero >/big\n");
    assert!(text.contains("exit code: 1") && case.log.borrow().contains("No space left"), "{text}\n{}", case.log.borrow());
    let text = case.error("FROM base\nCOPY --from=base / /twice\nCOPY --from=base / /thrice\nCOPY --from=base / /more\nRUN true\n");
    assert!(text.contains("No space left") && text.contains("help: free some space there"), "{text}");
    assert_eq!(temporaries(&store), Vec::<String>::new());
    case.built("FROM base\nRUN true\n");
    assert_eq!(*case.cached.borrow(), 1);
    mount(&["-o", "remount,ro"]);
    let text = case.error("FROM base\nRUN echo other\n");
    assert!(text.contains("Read-only file system") && text.contains("help: the store has to be"), "{text}");
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
