//! What a process changes, and what the tree then says; each with an overlay and without.

mod common;

use common::{Case, case, difference, entry, text};

fn both(check: impl Fn(Case)) {
    check(case());
    check(case().without_overlay());
}

#[test]
fn every_kind_of_change() {
    both(|case| {
        let built = case.built(
            "FROM base\n\
             RUN mkdir -p /a/b /d && echo 1 >/a/one && echo 2 >/a/b/two && ln /a/one /a/same && ln -s one /a/link && echo x >/d/x && echo y >/d/y && ln -s a /dirlink\n\
             RUN rm /a/b/two && rm -r /d && mkdir /d && echo new >/d/z && echo more >>/a/one && rm /dirlink && mkdir /dirlink && echo q >/dirlink/q && mv /a/b /c\n\
             RUN cat /a/one; ls /d /dirlink; test ! -e /a/b && test -d /c && test ! -e /c/two && test ! -L /dirlink\n",
        );
        // The next step sees the same.
        assert_eq!(*case.log.borrow(), "1\nmore\n/d:\nz\n\n/dirlink:\nq\n");
        assert_eq!(text(&built, "/a/one"), "1\nmore\n");
        assert_eq!(entry(&built, "/a/link").as_deref(), Some("l0777 0:0 one"));
        assert_eq!(entry(&built, "/c").as_deref(), Some("d0755 0:0"));
        for gone in ["/a/b", "/c/two", "/d/x", "/d/y", "/a/q"] {
            assert_eq!(entry(&built, gone), None, "{gone}");
        }
        assert_eq!(text(&built, "/d/z"), "new\n");
        assert_eq!(text(&built, "/dirlink/q"), "q\n");
        assert_eq!(entry(&built, "/dirlink").as_deref(), Some("d0755 0:0"));
    });
}

#[test]
fn metadata_survives_there_and_back() {
    both(|case| {
        let dockerfile = "FROM base\n\
             RUN touch -d @1234567890.123456789 /t && touch -h -d @5 /s 2>/dev/null; ln -s t /s; install -m 4755 -o 33 -g 44 /usr/bin/true /suid; mkdir -m 1777 /sticky; \
                 setfattr -n user.a -v b /t; cp /usr/bin/true /cap && setcap cap_net_raw+ep /cap; echo h >/h1; ln /h1 /h2; mkdir -m 000 /shut; chown 60000:60001 /shut; mkfifo /fifo; touch \"$(printf '/\\377')\"\n\
             RUN stat -c '%y %a %u:%g %h %n' /t /suid /sticky /h1 /shut /fifo; getfattr -d --absolute-names /t; getcap /cap; echo changed >>/h2; cat /h1\n";
        let built = case.built(dockerfile);
        let log = case.log.borrow();
        for part in [
            "2009-02-13 23:31:30.123456789 +0000 644 0:0 1 /t\n",
            " 4755 33:44 1 /suid\n",
            " 1777 0:0 2 /sticky\n",
            " 2 /h1\n",
            " 0 60000:60001 2 /shut\n",
            "user.a=\"b\"",
            "/cap cap_net_raw=ep",
        ] {
            assert!(log.contains(part), "{part:?} in {log}");
        }
        let node = |path: &[u8]| built.tree.node(built.tree.resolve_nofollow(path).unwrap().id).meta.clone();
        assert_eq!(node(b"/t").mtime, (1_234_567_890, 123_456_789));
        assert_eq!(node(b"/t").xattrs[b"user.a".as_slice()], b"b");
        assert_eq!(node(b"/cap").xattrs[b"security.capability".as_slice()].len(), 20);
        assert_eq!((node(b"/suid").mode, node(b"/suid").uid, node(b"/suid").gid), (0o4755, 33, 44));
        assert!(built.tree.resolve(b"/\xff").is_ok());
    });
}

#[test]
fn hard_links_of_one_step_are_one_file() {
    both(|case| {
        let built = case.built("FROM base\nRUN mkdir /x && echo 1 >/x/a && ln /x/a /b\nRUN true\n");
        let id = |path: &[u8]| built.tree.resolve(path).unwrap().id;
        assert_eq!(id(b"/x/a"), id(b"/b"));
    });
}

#[test]
fn nothing_of_the_surroundings_stays() {
    both(|case| {
        let base = case.built("FROM base\nRUN true\n");
        let run = case.built("FROM base\nRUN echo 6.6.6.6 evil >>/etc/hosts; echo x >>/etc/resolv.conf; echo x >/dev/x; echo x >/dev/shm/x; ls /proc >/dev/null; rm -f /etc/hosts; true\n");
        assert_eq!(difference(&base, &run), "");
        let run = case.built("FROM base\nRUN --mount=type=tmpfs,target=/new/deep/dir --mount=type=cache,target=/var/c --mount=type=bind,source=.,target=/mnt/ctx touch /new/deep/dir/f /var/c/f\n");
        assert_eq!(difference(&base, &run), "");
        // A directory that something else is put into is part of the result.
        let run = case.built("FROM base\nRUN --mount=type=tmpfs,target=/new/deep/dir touch /new/f\n");
        assert_eq!(entry(&run, "/new").as_deref(), Some("d0755 0:0"));
        assert_eq!(entry(&run, "/new/deep"), None);
        for path in ["/etc/resolv.conf", "/etc/hostname", "/run/ukc"] {
            assert_eq!(entry(&run, path), None, "{path}");
        }
    });
}

#[test]
fn hostile_roots_reach_nothing_outside() {
    both(|case| {
        let secret = case.dir.path().join("host-file");
        std::fs::write(&secret, "host").unwrap();
        let host = secret.display();
        let links = case.context().join("links");
        std::fs::create_dir(&links).unwrap();
        for (name, target) in
            [("resolv.conf", host.to_string()), ("hosts", format!("/../../../..{host}")), ("hostname", "/proc/1/root/x".into())]
        {
            std::os::unix::fs::symlink(target, links.join(name)).unwrap();
        }
        let dockerfile = format!(
            "FROM base\nCOPY links /etc/\nRUN rm -rf /mnt && ln -s / /mnt; mkdir -p /evil && ln -s {dir} /evil/out\n\
             RUN --mount=type=tmpfs,target=/evil/out/x --mount=type=bind,source=.,target=/mnt/ctx echo changed >/etc/resolv.conf; echo changed >/etc/hosts; ls /evil/out; ls /ctx; cat {host}\n",
            dir = case.dir.path().display()
        );
        let built = case.built(&dockerfile);
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "host");
        assert!(!case.dir.path().join("x").exists());
        assert_eq!(*case.log.borrow(), "host-file\nx\nlinks\nchanged\n");
        assert_eq!(entry(&built, "/etc/hosts").map(|e| e[..1].to_owned()).as_deref(), Some("l"));
        assert!(built.tree.resolve(host.to_string().as_bytes()).is_err());
        // Links in the base itself, before any step.
        let built = case.built("FROM base AS b\nRUN rm -rf /run && ln -s /proc/1/root /run; ln -s ../../../../../../etc /x\nFROM b\nRUN --mount=type=secret,id=s,required=false --mount=type=tmpfs,target=/x/t true\n");
        assert_eq!(entry(&built, "/run").as_deref(), Some("l0777 0:0 /proc/1/root"));
        assert_eq!(entry(&built, "/etc/t"), None);
    });
}

#[test]
fn copies_between_stages_and_steps() {
    both(|case| {
        let case = case.file("src/a.txt", "a").file("b.txt", "b");
        let built = case.built(
            "FROM base AS build\nWORKDIR /w\nCOPY src ./src\nRUN cat src/a.txt src/a.txt >out && chmod 600 out && chown 1000 out\n\
             FROM base\nRUN rm -rf /usr/share\nCOPY --from=build /w/out /w/src/a.txt /got/\nCOPY b.txt /usr/share/\nRUN ls -ln /got /usr/share && cat /got/out && rm /got/a.txt\n",
        );
        assert!(case.log.borrow().contains("-rw------- 1 1000 0 2") && case.log.borrow().ends_with("aa"), "{}", case.log.borrow());
        assert_eq!(entry(&built, "/got/out").as_deref(), Some("-0600 1000:0 aa"));
        assert_eq!(entry(&built, "/got/a.txt"), None);
        assert_eq!(text(&built, "/usr/share/b.txt"), "b");
    });
}

#[test]
fn many_steps() {
    let case = case();
    let steps: String = (0..100).map(|n| format!("COPY <<E /f/{n}\n{n}\nE\n")).collect();
    let built = case.built(&format!("FROM base\n{steps}RUN ls /f | wc -l; rm /f/7\nRUN ls /f | wc -l\n"));
    assert_eq!(*case.log.borrow(), "100\n99\n");
    assert_eq!(entry(&built, "/f/7"), None);
}
