//! What the image starts, and what is said when it cannot be started.

mod common;

use common::{file, starts, symlink};
use ukc_analyze::{Options, Reason, analyze};
use ukc_diagnostics::{Diagnostic, FileId, Span};
use ukc_elf::fixture::Fixture;
use ukc_rootfs::{ImageConfig, Tree};

/// `mov eax, 60; syscall`
const EXIT: [u8; 7] = [0xb8, 60, 0, 0, 0, 0x0f, 5];

fn program() -> Vec<u8> {
    Fixture { is_exec: true, code: EXIT.to_vec(), ..Fixture::default() }.build()
}

fn options() -> Options<'static> {
    Options {
        follows_shells: true,
        span_of: &|_| Some(Span { file: FileId(0), start: 10, end: 20 }),
        command_span: Some(Span { file: FileId(0), start: 30, end: 40 }),
        user_span: Some(Span { file: FileId(0), start: 50, end: 60 }),
        cache: None,
    }
}

fn errors(tree: &Tree, config: &ImageConfig) -> Vec<Diagnostic> {
    analyze(tree, config, &options()).map(|f| panic!("no error, but {}", f.to_text())).unwrap_err()
}

/// Writes diagnostics for comparison: name, message, labels with the first byte of their span, notes and help.
fn golden(diagnostics: &[Diagnostic]) -> String {
    let mut out = String::new();
    for d in diagnostics {
        out += &format!("{:?}[{}]: {}\n", d.severity, d.name, d.message).to_lowercase().replacen(&d.message.to_lowercase(), &d.message, 1);
        d.labels.iter().for_each(|l| out += &format!("  at {}: {}\n", l.span.start, l.text));
        d.notes.iter().for_each(|n| out += &format!("  note: {n}\n"));
        d.help.iter().for_each(|h| out += &format!("  help: {h}\n"));
    }
    out
}

#[test]
fn no_command() {
    assert_eq!(
        golden(&errors(&Tree::new(), &ImageConfig::default())),
        "error[no-command]: the image does not say what to start: it has neither `ENTRYPOINT` nor `CMD`
  at 30: this starts it
  help: add `CMD [\"/path/to/program\"]` to the last stage
"
    );
}

#[test]
fn programs_that_cannot_run() {
    let mut tree = Tree::new();
    file(&mut tree, "/app/plain", 0o644, program());
    file(&mut tree, "/app/arm", 0o755, Fixture { machine: 183, code: EXIT.to_vec(), ..Fixture::default() }.build());
    let mut narrow = program();
    (narrow[4], narrow[18]) = (1, 3);
    file(&mut tree, "/app/narrow", 0o755, narrow);
    file(&mut tree, "/app/cut", 0o755, program()[..0x1003].to_vec());
    file(&mut tree, "/app/text", 0o755, *b"echo hello\n");
    file(&mut tree, "/app/empty", 0o755, *b"");
    symlink(&mut tree, "/app/loop", "loop");
    let cases = [
        ("/app/server", "error[program-not-found]: `/app/server` does not exist in the image
  at 30: this starts it
  help: check the destination of the `COPY` that should bring it in
"),
        ("server", "error[program-not-found]: `server` is in no directory of PATH
  at 30: this starts it
  note: PATH is `/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`
  help: install the program in the last stage, or correct the name
"),
        ("/bin/arm", "error[program-not-found]: `/bin/arm` does not exist in the image
  at 30: this starts it
  help: the image has `/app/arm`
"),
        ("/app/loop", "error[program-not-found]: `/app/loop` leads through a loop of symbolic links
  at 30: this starts it
  help: check the destination of the `COPY` that should bring it in
"),
        ("/app", "error[program-is-directory]: `/app` is a directory, so it cannot be started
  at 30: this starts it
  help: name a file in it
"),
        ("/app/plain", "error[program-not-executable]: `/app/plain` is not executable (mode 0644), so it cannot be started
  at 30: this starts it
  at 10: this brought it in
  help: make it executable before the build, or use `COPY --chmod=755`
"),
        ("/app/arm", "error[foreign-architecture]: `/app/arm` cannot run: a program for aarch64, not x86-64
  at 10: this brought the file in
  help: take the linux/amd64 variant of the base image, or build the program for x86_64
"),
        ("/app/narrow", "error[program-32-bit]: `/app/narrow` cannot run: a 32-bit program (i386)
  at 10: this brought the file in
  help: ukc runs 64-bit programs: build it for x86_64, or install the amd64 package
"),
        ("/app/cut", "error[program-truncated]: `/app/cut` cannot run: truncated: the contents of a LOAD segment ends at byte 4103, but the file has 4099 bytes
  at 10: this brought the file in
  help: the file was cut short on its way into the image: build or download it again
"),
        ("/app/text", "error[not-a-program]: `/app/text` is neither an ELF program nor a script with a `#!` line, so Linux cannot execute it
  at 10: this is what the image starts
  help: if it is a script, make `#!/bin/sh` (or its interpreter) its first line
"),
        ("/app/empty", "error[not-a-program]: `/app/empty` is empty, so Linux cannot execute it
  at 10: this is what the image starts
  help: the build step that should have written it left an empty file
"),
    ];
    for (name, expected) in cases {
        let text = golden(&errors(&tree, &starts(&[name])));
        assert_eq!(text, expected, "{name}");
    }
}

#[test]
fn missing_interpreters_and_libraries() {
    let mut tree = Tree::new();
    let dynamic = Fixture {
        interpreter: Some("/lib64/ld-linux-x86-64.so.2".into()),
        needed: vec!["libssl.so.3".into()],
        code: EXIT.to_vec(),
        ..Fixture::default()
    };
    file(&mut tree, "/app/server", 0o755, dynamic.build());
    file(&mut tree, "/app/script", 0o755, *b"#!/bin/bash\nexec server\n");
    file(&mut tree, "/app/dos", 0o755, *b"#!/bin/sh\r\n");
    file(&mut tree, "/app/env", 0o755, *b"#!/usr/bin/env python3\n");
    file(&mut tree, "/usr/bin/env", 0o755, program());
    file(&mut tree, "/bin/sh", 0o755, program());
    file(&mut tree, "/app/self", 0o755, *b"#!/app/self\n");
    let mut text = golden(&errors(&tree, &starts(&["/app/server"])));
    file(
        &mut tree,
        "/lib64/ld-linux-x86-64.so.2",
        0o755,
        Fixture { soname: Some("ld-linux-x86-64.so.2".into()), ..Fixture::default() }.build(),
    );
    file(
        &mut tree,
        "/usr/lib/libmid.so",
        0o644,
        Fixture { soname: Some("libmid.so".into()), needed: vec!["libdeep.so.1".into()], ..Fixture::default() }.build(),
    );
    file(&mut tree, "/opt/lib/libdeep.so.1", 0o644, Fixture { soname: Some("libdeep.so.1".into()), ..Fixture::default() }.build());
    file(&mut tree, "/app/mid", 0o755, Fixture { needed: vec!["libmid.so".into()], ..dynamic.clone() }.build());
    for name in ["/app/server", "/app/mid", "/app/script", "/app/dos", "/app/env", "/app/self"] {
        text += &golden(&errors(&tree, &starts(&[name])));
    }
    assert_eq!(
        text,
        "error[missing-interpreter]: `/app/server` needs the dynamic loader `/lib64/ld-linux-x86-64.so.2`, which the image does not contain
  at 10: this program asks for it (`PT_INTERP`)
  help: install the C library in this stage (glibc's is not in `scratch`, `alpine` or `busybox:musl`), or link the program statically
error[missing-library]: `/app/server` needs `libssl.so.3`, which the image does not contain
  at 10: this program asks for it (`DT_NEEDED`)
  help: install the library in this stage, or link `server` statically
error[missing-library]: `/app/server` needs `libssl.so.3`, which the image does not contain
  at 10: this program asks for it (`DT_NEEDED`)
  help: install the library in this stage, or link `server` statically
error[missing-library]: `/usr/lib/libmid.so` needs `libdeep.so.1`, which the image does not contain
  at 10: this library asks for it (`DT_NEEDED`)
  note: `/app/mid` loads `/usr/lib/libmid.so`
  help: `/opt/lib/libdeep.so.1` exists, but the loader does not look there: set `LD_LIBRARY_PATH`, or copy it to `/usr/lib`
error[missing-script-interpreter]: `/app/script` is run by `/bin/bash`, which the image does not contain
  at 10: this script asks for it (`#!`)
  help: install it in this stage, or change the first line of `/app/script`
error[missing-script-interpreter]: `/app/dos` is run by `/bin/sh\\r`, which the image does not contain
  at 10: this script asks for it (`#!`)
  note: the `#!` line ends with a carriage return, which is part of the name
  help: save the script with Unix line endings
error[missing-script-interpreter]: `/app/env` is run by `python3` (through `env`), which is in no directory of PATH
  at 10: this script asks for it (`#!`)
  help: install `python3` in this stage
error[script-loop]: `/app/self` leads through more than 5 scripts, which Linux refuses (`ELOOP`)
  at 10: 
"
    );
}

#[test]
fn users_become_numbers() {
    let mut tree = Tree::new();
    file(&mut tree, "/app", 0o755, program());
    file(&mut tree, "/etc/passwd", 0o644, *b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/var/www:/bin/false\n1000:x:7:8::/seven:\n");
    file(&mut tree, "/etc/group", 0o644, *b"root:x:0:\nwww:x:34:\nssl:x:90:www,other\nadm:x:4:www\n");
    let cases = [
        ("", "0:0 [] /root"),
        ("www", "33:34 [4, 90] /var/www"),
        ("33", "33:34 [4, 90] /var/www"),
        ("www:adm", "33:4 [] /var/www"),
        ("1000", "7:8 [] /seven"),
        ("1001", "1001:0 [] /"),
        ("1001:5", "1001:5 [] /"),
        ("nobody", "unknown-user: the image has no user `nobody`"),
        ("www:nogroup", "unknown-user: the image has no group `nogroup`"),
    ];
    for (user, expected) in cases {
        let config = ImageConfig { user: user.into(), ..starts(&["/app"]) };
        let text = match analyze(&tree, &config, &options()) {
            Ok(f) => format!("{}:{} {:?} {}", f.user.uid, f.user.gid, f.user.groups, f.user.home),
            Err(e) => {
                assert_eq!(e[0].labels[0].span.start, 50);
                format!("{}: {}", e[0].name, e[0].message)
            }
        };
        assert_eq!(text, expected, "USER {user}");
    }
}

#[test]
fn scripts_and_what_they_name() {
    let mut tree = Tree::new();
    let with = |code: &[u8]| Fixture { is_exec: true, code: code.to_vec(), ..Fixture::default() }.build();
    file(&mut tree, "/usr/bin/lang", 0o755, with(&EXIT));
    // getpid and getuid
    file(&mut tree, "/usr/bin/helper", 0o755, with(&[0xb8, 39, 0, 0, 0, 0x0f, 5]));
    file(&mut tree, "/usr/bin/bystander", 0o755, with(&[0xb8, 102, 0, 0, 0, 0x0f, 5]));
    file(&mut tree, "/app/run", 0o755, *b"#!/usr/bin/lang -x\ncall(\"helper\")\n");
    let config = ImageConfig { working_dir: "/app".into(), ..starts(&["./run", "arg"]) };
    let facts = analyze(&tree, &config, &options()).unwrap();
    assert_eq!(
        facts.to_text(),
        "program /app/run
script /app/run
executable /usr/bin/lang
argv [\"./run\", \"arg\"]
directory /app
user 0:0 groups [] home /
runtimes static
rule named-programs: arguments and scripts name 1 further programs
object /usr/bin/lang (runs the script /app/run)
object /usr/bin/helper (named in /app/run)
syscall 39 getpid: 1 site /usr/bin/helper+0x1005
syscall 60 exit: 1 site /usr/bin/lang+0x1005
"
    );
    // With a shell, everything in PATH counts.
    file(&mut tree, "/bin/sh", 0o755, with(&EXIT));
    file(&mut tree, "/app/run", 0o755, *b"#!/bin/sh\n$x\n");
    let facts = analyze(&tree, &config, &options()).unwrap();
    assert!(facts.syscalls.contains_key(&102));
    assert!(facts.objects.iter().any(|o| o.path == "/usr/bin/bystander" && o.reason == Reason::PathDirectory));
    // The JSON form reads back.
    let json = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<ukc_analyze::Facts>(&json).unwrap().to_text(), facts.to_text());
}

#[test]
fn summaries_come_back_from_the_cache() {
    let mut tree = Tree::new();
    file(&mut tree, "/app", 0o755, program());
    let dir = tempfile::tempdir().unwrap();
    let cache = ukc_analyze::DirCache::new(dir.path().join("summaries"));
    let options = Options { cache: Some(&cache), ..Options::default() };
    let json = || serde_json::to_string(&analyze(&tree, &starts(&["/app"]), &options).unwrap()).unwrap();
    let cold = json();
    let entries: Vec<_> = std::fs::read_dir(dir.path().join("summaries")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(json(), cold);
    // Another summary in its place shows that the cache was read; what is no summary is made anew.
    let text = std::fs::read_to_string(&entries[0]).unwrap();
    std::fs::write(&entries[0], text.replace("[60]", "[61]")).unwrap();
    assert_ne!(json(), cold);
    std::fs::write(&entries[0], "cut sho").unwrap();
    assert_eq!(json(), cold);
}
