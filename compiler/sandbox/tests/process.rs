//! What a process sees and may do.

mod common;

use common::{case, entry, text};

#[test]
fn a_command_runs_in_the_image() {
    let case = case();
    let built = case.built("FROM base\nWORKDIR /srv\nENV A=1\nARG B=2\nRUN echo \"$A$B $HOME $PWD $$\" >out; echo hello; echo oops >&2\n");
    assert_eq!(text(&built, "/srv/out"), "12 /root /srv 1\n");
    assert_eq!(*case.log.borrow(), "hello\noops\n");
    assert_eq!(built.config.env_var("B"), None);
    assert!(built.history.iter().any(|h| h.created_by.starts_with("RUN |1 B=2 /bin/sh -c echo")), "{:?}", built.history);
}

#[test]
fn users_groups_and_homes() {
    let case = case();
    let dockerfile = "FROM base\nRUN echo staff2:x:77:app >>/etc/group && mkdir -m 777 /w\nUSER app\nRUN id -u >/w/u; id -G >>/w/u; echo $HOME >>/w/u; echo log >/dev/stderr\nUSER 55:66\nRUN id -u >/w/n; id -G >>/w/n; grep CapEff /proc/self/status\n";
    let built = case.built(dockerfile);
    assert_eq!(text(&built, "/w/u"), "1000\n1000 77\n/nonexistent\n");
    assert_eq!(text(&built, "/w/n"), "55\n66\n");
    assert_eq!(entry(&built, "/w/u").unwrap().split(' ').nth(1), Some("1000:1000"));
    assert!(case.log.borrow().contains("log\n") && case.log.borrow().contains("0000000000000000"), "{}", case.log.borrow());
    let text = case.error("FROM base\nUSER ghost\nRUN true\n");
    assert!(text.contains("error[unknown-user]") && text.contains("Dockerfile:2"), "{text}");
}

#[test]
fn docker_s_surroundings() {
    let case = case();
    let out = case
        .output("grep -E 'Cap(Eff|Prm|Bnd|Inh|Amb)|NoNewPrivs' /proc/self/status; umask; hostname; cat /proc/self/stat | cut -d' ' -f6");
    let caps = "a80425fb";
    assert_eq!(out.matches(caps).count(), 3, "{out}");
    assert_eq!(out.matches("0000000000000000").count(), 2, "{out}");
    assert!(out.contains("NoNewPrivs:\t0") && out.contains("0022\n") && out.contains("buildkitsandbox\n"), "{out}");
    let out = case.output("readlink /proc/self/fd/0; ls /dev; ls -l /dev/null | cut -c1-10; echo x >/dev/null; head -c 4 /dev/urandom | wc -c; cat /etc/hosts /etc/hostname; ls /proc | grep -c '^[0-9]'; touch /sys/x /proc/sys/x; cat /proc/kcore | wc -c; ls /proc/scsi /sys/firmware; ls /dev/pts");
    for part in [
        "/dev/null\n",
        "fd\nfull\nmqueue\nnull\npipes\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n",
        "crw-rw-rw-\n",
        "\n4\n",
        "localhost",
        "buildkitsandbox",
    ] {
        assert!(out.contains(part), "{part:?} in {out}");
    }
    assert_eq!(out.matches("cannot touch").count(), 2, "{out}");
}

#[test]
fn no_device_can_be_opened() {
    if !common::is_root() {
        eprintln!("SKIPPED: only root makes device nodes");
        return;
    }
    let case = case();
    let built = case.built("FROM base\nRUN mknod /d c 1 5 && mknod /b b 8 0 && mkfifo /f; head -c1 /d || true\n");
    assert_eq!(entry(&built, "/d").as_deref(), Some("c0644 0:0 1:5"));
    assert_eq!(entry(&built, "/b").as_deref(), Some("b0644 0:0 8:0"));
    assert_eq!(entry(&built, "/f").as_deref(), Some("p0644 0:0"));
    assert!(case.log.borrow().contains("Permission denied"), "{}", case.log.borrow());
}

#[test]
fn forms_of_commands() {
    let case = case();
    let built = case.built(
        "FROM base\nRUN [\"touch\", \"/a $HOME\"]\nSHELL [\"/bin/bash\", \"-ec\"]\nRUN echo ${BASH_VERSION:+bash} >/shell\nRUN <<EOF\necho one\necho two >/two\nEOF\nRUN <<EOF\n#!/usr/bin/env -S bash -e\necho $0 ${BASH_VERSION:+bash} >/three\nEOF\nRUN cat <<A >/four; cat <<B >>/four\n1\nA\n2\nB\n",
    );
    assert!(built.tree.resolve(b"/a $HOME").is_ok());
    assert_eq!(text(&built, "/shell"), "bash\n");
    assert_eq!(text(&built, "/two"), "two\n");
    assert_eq!(text(&built, "/three"), "/dev/pipes/EOF bash\n");
    assert_eq!(text(&built, "/four"), "1\n2\n");
    assert!(built.tree.resolve(b"/dev/pipes").is_err());
}

#[test]
fn failures_have_a_status_and_a_place() {
    let case = case();
    for (run, parts) in [
        ("exit 7", vec!["error[run-failed]", "process \"/bin/sh -c exit 7\" did not complete successfully: exit code: 7", "Dockerfile:2"]),
        ("sh -c 'kill -9 $$'; exit $?", vec!["exit code: 137", "signal 9"]),
        ("nonexistent-program", vec!["exit code: 127"]),
        ("[\"nonexistent\"]", vec!["error[missing-program]", "exit code 127", "no program `nonexistent` in PATH"]),
        ("[\"/etc/passwd\"]", vec!["exit code 126", "not executable"]),
        ("[\"/x\"]", vec!["error[missing-program]", "there is no `/x` in this image"]),
    ] {
        let text = case.error(&format!("FROM base\nRUN {run}\n"));
        parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} in {text}"));
    }
    let text = case.error("FROM base\nRUN printf '#!/no/such\\n' >/s && chmod +x /s\nRUN [\"/s\"]\n");
    assert!(text.contains("interpreter `/no/such` is not") && text.contains("Dockerfile:3"), "{text}");
    let text = case.error("FROM base\nRUN printf 'echo\\n' >/s && chmod +x /s\nRUN [\"/s\"]\n");
    assert!(text.contains("neither an ELF file nor a script"), "{text}");
    let text = case.error("FROM scratch\nRUN true\n");
    assert!(text.contains("there is no `/bin/sh` in this image") && text.contains("`FROM scratch` has no files at all"), "{text}");
    // What failed is not remembered, what came before it is.
    assert_eq!(*case.cached.borrow(), 0);
}

#[test]
fn processes_left_behind_are_killed() {
    let case = case();
    let start = std::time::Instant::now();
    let built = case.built("FROM base\nRUN (sleep 31.5; touch /late) & echo $! >/pid\n");
    assert!(start.elapsed().as_secs() < 20);
    assert!(built.tree.resolve(b"/late").is_err());
    let running = std::process::Command::new("pgrep").args(["-f", "sleep 31.5"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&running.stdout), "");
}

#[test]
fn networks() {
    let case = case();
    let out = case.built("FROM base\nRUN --network=none cat /proc/net/dev; ip addr show lo\n");
    drop(out);
    let log = case.log.borrow().clone();
    assert!(log.contains("lo:") && log.matches(':').count() >= 1 && !log.contains("eth"), "{log}");
    assert!(log.contains("UP"), "{log}");
    let text = case.error("FROM base\nRUN --network=host true\n");
    assert!(text.contains("error[not-allowed]") && text.contains("--allow network.host"), "{text}");
    let text = case.error("FROM base\nRUN --security=insecure true\n");
    assert!(text.contains("--allow security.insecure"), "{text}");
    let mut case = common::case();
    case.options.run.allow_host_network = true;
    case.options.run.allow_insecure = true;
    case.built("FROM base\nRUN --network=host --security=insecure grep CapEff /proc/self/status && mkdir /m && mount -t tmpfs x /m\n");
    assert!(!case.log.borrow().contains("a80425fb"));
}

#[test]
fn proxies_reach_the_process_and_nothing_else() {
    let case = case().arg("HTTP_PROXY", "http://proxy:1");
    let built = case.built("FROM base\nRUN echo $HTTP_PROXY\n");
    assert_eq!(*case.log.borrow(), "http://proxy:1\n");
    assert!(!format!("{:?} {:?}", built.history, built.config).contains("proxy:1"));
    let mut case = case;
    case.options.build_args[0].1 = "http://proxy:2".into();
    case.built("FROM base\nRUN echo $HTTP_PROXY\n");
    assert_eq!(*case.cached.borrow(), 1);
}
