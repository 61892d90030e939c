//! `RUN --mount`.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use common::{case, entry, text};
use ukc_sandbox::Secret;

#[test]
fn binds() {
    let case = case().file("dir/a", "from context").file("hidden", "x").file(".dockerignore", "hidden\n");
    let built = case.built(
        "FROM base AS other\nRUN mkdir /out && echo built >/out/f && chown 5:6 /out/f\n\
         FROM base\nWORKDIR /w\n\
         RUN --mount=target=/ctx cat /ctx/dir/a; ls /ctx; touch /ctx/x || echo refused\n\
         RUN --mount=from=other,source=/out,target=in,rw cat in/f; stat -c %u:%g in/f; echo more >>in/f; echo new >in/g; cp -r in /kept\n\
         RUN --mount=from=other,source=/out/f,target=/file cat /file; echo >>/file || echo refused\n",
    );
    let log = case.log.borrow().clone();
    assert_eq!(log.matches("refused").count(), 2, "{log}");
    assert!(log.starts_with("from contextdir\n") && log.contains("built\n5:6\n"), "{log}");
    assert_eq!(text(&built, "/kept/f"), "built\nmore\n");
    assert_eq!(text(&built, "/kept/g"), "new\n");
    for gone in ["/w/in", "/ctx", "/file"] {
        assert_eq!(entry(&built, gone), None, "{gone}");
    }
    let error = case.error("FROM base\nRUN --mount=source=nothing,target=/x true\n");
    assert!(error.contains("error[missing-source]: `nothing` is not in the build context") && error.contains("Dockerfile:2"), "{error}");
    // What is mounted decides whether the step is done again.
    case.built("FROM base\nRUN --mount=target=/ctx cat /ctx/dir/a >/a\n");
    case.built("FROM base\nRUN --mount=target=/ctx cat /ctx/dir/a >/a\n");
    assert_eq!(*case.cached.borrow(), 1);
    std::fs::write(case.context().join("dir/a"), "new").unwrap();
    assert_eq!(text(&case.built("FROM base\nRUN --mount=target=/ctx cat /ctx/dir/a >/a\n"), "/a"), "new");
}

#[test]
fn caches_outlive_builds() {
    let case = case().file("seed/s", "seed");
    let built = case.built("FROM base\nRUN --mount=type=cache,target=/c echo 1 >>/c/log; stat -c %a:%u /c\n");
    assert_eq!(entry(&built, "/c"), None);
    case.built("FROM base\nRUN --mount=type=cache,target=/c,sharing=locked echo 2 >>/c/log; cat /c/log\n");
    assert_eq!(*case.log.borrow(), "1\n2\n");
    case.built("FROM base\nRUN --mount=type=cache,id=/c,target=/elsewhere,ro cat /elsewhere/log; touch /elsewhere/x || echo refused\n");
    assert!(case.log.borrow().starts_with("1\n2\n") && case.log.borrow().ends_with("refused\n"));
    case.built("FROM base\nRUN --mount=type=cache,target=/u,uid=1000,gid=50,mode=0700 stat -c %a:%u:%g /u\n");
    assert_eq!(*case.log.borrow(), "700:1000:50\n");
    case.built("FROM scratch AS seed\nCOPY seed /\nFROM base\nRUN --mount=type=cache,target=/s,from=seed cat /s/s; echo +>>/s/s\n");
    assert_eq!(*case.log.borrow(), "seed");
    case.built("FROM scratch AS seed\nCOPY seed /\nFROM base\nRUN --mount=type=cache,target=/s,from=seed cat /s/s; true\n");
    assert_eq!(*case.log.borrow(), "seed+\n");
    case.built("FROM base\nRUN --mount=type=cache,target=/p,sharing=private touch /p/x; ls /p\n");
    assert_eq!(*case.log.borrow(), "x\n");
}

#[test]
fn secrets_are_seen_by_their_step_alone() {
    let mut case = case().file("token", "hunter2");
    case.config.secrets.insert("t".into(), Secret::File(case.context().join("token")));
    let dockerfile = "FROM base\nRUN --mount=type=secret,id=t cat /run/secrets/t >/dev/null; stat -c %a:%u /run/secrets/t; echo x >>/run/secrets/t || echo refused\n\
         RUN --mount=type=secret,id=t,target=/s,mode=0440,uid=7 --mount=type=secret,id=t,env=TOK test ${#TOK} = 7 && stat -c %a:%u /s\n\
         RUN --mount=type=secret,id=absent ls /run/secrets || echo none\n";
    let built = case.built(dockerfile);
    let log = case.log.borrow().clone();
    assert!(log.starts_with("400:0\n") && log.contains("refused\n440:7\n") && log.ends_with("none\n"), "{log}");
    assert!(!built.tree.to_text().contains("run/secrets") && !format!("{:?}{:?}", built.history, built.config).contains("hunter2"));
    let found = std::process::Command::new("grep").args(["-rl", "hunter2"]).arg(case.store()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    case.config.secrets.insert("t".into(), Secret::Env("UKC_NO_SUCH_VARIABLE".into()));
    case.built(dockerfile);
    assert_eq!(*case.cached.borrow(), 3, "the value of a secret is not part of the key");
    let error = case.error("FROM base\nRUN --mount=type=secret,id=absent,required true\n");
    assert!(error.contains("requires the secret `absent`") && error.contains("--secret id=absent"), "{error}");
}

#[test]
fn tmpfs_and_nested_mounts() {
    let case = case();
    let out = case.output("--mount=type=tmpfs,target=/t/in,size=1m --mount=type=cache,target=/t head -c 2000000 /dev/zero >/t/in/x || echo full; touch /t/y; ls /t");
    assert!(out.contains("full\n") && out.ends_with("in\ny\n"), "{out}");
    let error = case.error("FROM base\nRUN --mount=type=tmpfs,target=/etc/passwd true\n");
    assert!(error.contains("error[mount-failed]: cannot mount at `/etc/passwd`"), "{error}");
    let error = case.error("FROM base\nRUN --mount=type=tmpfs,target=/ true\n");
    assert!(error.contains("nothing can be mounted at `/`"), "{error}");
}

#[test]
fn agents() {
    let mut case = case();
    let socket = case.dir.path().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut text = [0; 4];
            client.read_exact(&mut text).unwrap();
            client.write_all(b"pong").unwrap();
        }
    });
    case.config.agents.insert("default".into(), socket);
    let out = case.output("--mount=type=ssh,uid=1000 stat -c %a:%u $SSH_AUTH_SOCK; perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new($ENV{SSH_AUTH_SOCK}); print $s \"ping\"; $s->flush; read $s, my $t, 4; print $t'");
    assert_eq!(out, "600:1000\npong");
    let error = case.error("FROM base\nRUN --mount=type=ssh,id=other,required true\n");
    assert!(error.contains("requires the SSH agent `other`"), "{error}");
}

#[test]
fn certificates() {
    let mut case = case().file("ca.pem", "a certificate");
    case.config.ca_bundle = Some(case.context().join("ca.pem"));
    let built = case.built("FROM base\nENV PIP_CERT=/mine\nRUN cat $SSL_CERT_FILE; echo $PIP_CERT $GIT_SSL_CAINFO\n");
    assert_eq!(*case.log.borrow(), "a certificate/mine /run/ukc/ca-bundle.crt\n");
    assert!(built.config.env_var("SSL_CERT_FILE").is_none() && entry(&built, "/run/ukc").is_none());
    case.config.ca_bundle = None;
    case.built("FROM base\nENV PIP_CERT=/mine\nRUN cat $SSL_CERT_FILE; echo $PIP_CERT $GIT_SSL_CAINFO\n");
    assert_eq!(*case.cached.borrow(), 1);
}
