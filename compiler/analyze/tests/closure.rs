//! The closure against the loaders' rules: small trees for each rule, and the machine's own ld.so as the oracle.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::{dir, file, host_tree, starts, symlink};
use ukc_analyze::{Facts, Options, Reason, analyze};
use ukc_elf::fixture::Fixture;
use ukc_rootfs::{ImageConfig, Tree};

fn lib(soname: &str) -> Fixture {
    Fixture { soname: Some(soname.into()), code: vec![0xc3], ..Fixture::default() }
}

fn app(needed: &[&str]) -> Fixture {
    Fixture {
        interpreter: Some("/lib64/ld-linux-x86-64.so.2".into()),
        needed: needed.iter().map(|n| n.to_string()).collect(),
        code: vec![0xc3],
        ..Fixture::default()
    }
}

fn base() -> Tree {
    let mut tree = Tree::new();
    file(&mut tree, "/lib64/ld-linux-x86-64.so.2", 0o755, lib("ld-linux-x86-64.so.2").build());
    tree
}

fn paths(facts: &Facts) -> Vec<&str> {
    facts.objects.iter().map(|o| o.path.as_str()).filter(|p| !p.contains("ld-")).collect()
}

fn closure(tree: &Tree, config: &ImageConfig) -> Vec<String> {
    match analyze(tree, config, &Options::default()) {
        Ok(facts) => paths(&facts).into_iter().map(str::to_owned).collect(),
        Err(e) => e.into_iter().map(|d| d.message).collect(),
    }
}

#[test]
fn order_of_directories() {
    let mut tree = base();
    for place in ["/rpath", "/env", "/runpath", "/usr/lib"] {
        file(&mut tree, &format!("{place}/liba.so"), 0o644, lib("liba.so").build());
    }
    let cases = [
        (Fixture { rpath: Some("/rpath".into()), ..app(&["liba.so"]) }, "/rpath/liba.so"),
        (Fixture { runpath: Some("/runpath".into()), ..app(&["liba.so"]) }, "/env/liba.so"),
        // RUNPATH makes ld.so ignore RPATH.
        (Fixture { rpath: Some("/rpath".into()), runpath: Some("/none".into()), ..app(&["liba.so"]) }, "/env/liba.so"),
    ];
    let env = ImageConfig { env: vec![("LD_LIBRARY_PATH".into(), "/env".into())], ..starts(&["/app"]) };
    for (fixture, expected) in cases {
        file(&mut tree, "/app", 0o755, fixture.build());
        assert_eq!(closure(&tree, &env), ["/app", expected]);
    }
    file(&mut tree, "/app", 0o755, Fixture { runpath: Some("/runpath".into()), ..app(&["liba.so"]) }.build());
    assert_eq!(closure(&tree, &starts(&["/app"])), ["/app", "/runpath/liba.so"]);
    file(&mut tree, "/app", 0o755, app(&["liba.so"]).build());
    assert_eq!(closure(&tree, &starts(&["/app"])), ["/app", "/usr/lib/liba.so"]);
}

#[test]
fn rpath_is_inherited_and_runpath_is_not() {
    let mut tree = base();
    file(&mut tree, "/x/liba.so", 0o644, Fixture { needed: vec!["libb.so".into()], ..lib("liba.so") }.build());
    file(&mut tree, "/x/libb.so", 0o644, lib("libb.so").build());
    file(&mut tree, "/app", 0o755, Fixture { rpath: Some("/x".into()), ..app(&["liba.so"]) }.build());
    assert_eq!(closure(&tree, &starts(&["/app"])), ["/app", "/x/liba.so", "/x/libb.so"]);
    file(&mut tree, "/app", 0o755, Fixture { runpath: Some("/x".into()), ..app(&["liba.so"]) }.build());
    assert_eq!(closure(&tree, &starts(&["/app"])), ["`/x/liba.so` needs `libb.so`, which the image does not contain"]);
}

#[test]
fn tokens_loaded_sonames_and_foreign_files() {
    let mut tree = base();
    // $ORIGIN is where the program lies, not the link to it.
    file(
        &mut tree,
        "/opt/app/bin/prog",
        0o755,
        Fixture { runpath: Some("$ORIGIN/../${LIB}".into()), ..app(&["liba.so", "libreal.so"]) }.build(),
    );
    symlink(&mut tree, "/usr/bin/prog", "../../opt/app/bin/prog");
    // liba.so's soname is libreal.so, which is then already loaded.
    file(&mut tree, "/opt/app/lib64/liba.so", 0o644, lib("libreal.so").build());
    // A library of another architecture earlier in the path is passed over.
    file(&mut tree, "/opt/app/lib/x86_64-linux-gnu/liba.so", 0o644, Fixture { machine: 183, ..lib("liba.so") }.build());
    assert_eq!(closure(&tree, &starts(&["prog"])), ["/opt/app/bin/prog", "/opt/app/lib64/liba.so"]);
}

#[test]
fn variants_for_newer_processors_count() {
    let mut tree = base();
    file(&mut tree, "/app", 0o755, app(&["liba.so"]).build());
    file(&mut tree, "/usr/lib/liba.so", 0o644, lib("liba.so").build());
    file(&mut tree, "/usr/lib/glibc-hwcaps/x86-64-v3/liba.so", 0o644, lib("liba.so").build());
    let facts = analyze(&tree, &starts(&["/app"]), &Options::default()).unwrap();
    assert_eq!(paths(&facts), ["/app", "/usr/lib/liba.so", "/usr/lib/glibc-hwcaps/x86-64-v3/liba.so"]);
    assert!(facts.objects.iter().any(|o| o.reason == Reason::Hwcaps("liba.so".into())));
}

#[test]
fn a_directory_that_ldconfig_was_not_told_of() {
    let mut tree = base();
    file(&mut tree, "/app", 0o755, app(&["liba.so"]).build());
    file(&mut tree, "/usr/local/lib/liba.so", 0o644, lib("liba.so").build());
    file(&mut tree, "/etc/ld.so.conf", 0o644, *b"include ld.so.conf.d/*.conf\n");
    file(&mut tree, "/etc/ld.so.conf.d/local.conf", 0o644, *b"# local\n/usr/local/lib\n");
    let errors = analyze(&tree, &starts(&["/app"]), &Options::default()).unwrap_err();
    assert_eq!(errors[0].help, ["`/usr/local/lib/liba.so` exists, but `/etc/ld.so.cache` does not list it: run `ldconfig` in this stage"]);
}

#[test]
fn musl_has_its_own_path_and_answers_for_its_own_libraries() {
    let mut tree = Tree::new();
    file(&mut tree, "/lib/ld-musl-x86_64.so.1", 0o755, Fixture { is_dynamic: true, code: vec![0xc3], ..Fixture::default() }.build());
    let interpreter = Some("/lib/ld-musl-x86_64.so.1".to_owned());
    file(&mut tree, "/app", 0o755, Fixture { interpreter, ..app(&["libc.musl-x86_64.so.1", "libpthread.so.0", "liba.so"]) }.build());
    file(&mut tree, "/usr/local/lib/liba.so", 0o644, lib("liba.so").build());
    assert_eq!(closure(&tree, &starts(&["/app"])), ["/app", "/usr/local/lib/liba.so"]);
    file(&mut tree, "/etc/ld-musl-x86_64.path", 0o644, *b"/other\n");
    assert_eq!(closure(&tree, &starts(&["/app"])), ["`/app` needs `liba.so`, which the image does not contain"]);
}

#[test]
fn extensions_of_an_interpreter() {
    let mut tree = base();
    dir(&mut tree, "/usr/lib/python3.11/lib-dynload");
    file(&mut tree, "/usr/bin/python3.11", 0o755, app(&[]).build());
    symlink(&mut tree, "/usr/bin/python3", "python3.11");
    file(&mut tree, "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", 0o644, lib("_ssl.so").build());
    file(&mut tree, "/usr/lib/python3.11/os.py", 0o644, *b"import sys\n");
    let found = closure(&tree, &starts(&["python3", "-c", "pass"]));
    assert_eq!(found, ["/usr/bin/python3.11", "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so"]);
}

/// Asks the machine's ld.so.
fn ld_so_list(program: &str) -> Option<BTreeSet<String>> {
    let out = Command::new("/lib64/ld-linux-x86-64.so.2").args(["--list", program]).output().ok()?;
    if !out.status.success() {
        return None;
    }
    let text = String::from_utf8(out.stdout).ok()?;
    let path = |line: &str| Some(line.split_once("=> ").map_or(line, |(_, p)| p).split_whitespace().next()?.to_owned());
    let real = |p: String| std::fs::canonicalize(p).ok().map(|p| p.to_string_lossy().into_owned());
    Some(text.lines().map(str::trim).filter_map(path).filter(|p| p.starts_with('/')).filter_map(real).collect())
}

#[test]
fn the_machines_programs_load_what_ld_so_says() {
    let tree = host_tree();
    let mut compared = 0;
    for program in ["/usr/bin/true", "/usr/bin/ls", "/usr/sbin/nginx", "/usr/bin/redis-server", "/usr/bin/gdb"] {
        let Some(expected) = ld_so_list(program) else { continue };
        // A config that names no other program, so that only the loader's rules speak; shells and plugins are left out of the comparison.
        let Ok(facts) = analyze(&tree, &starts(&[program]), &Options::default()) else { panic!("{program}") };
        let found: BTreeSet<String> =
            facts.objects.iter().filter(|o| matches!(o.reason, Reason::Needed(_) | Reason::Loader(_))).map(|o| o.path.clone()).collect();
        let missed: Vec<_> = expected.difference(&found).collect();
        assert!(missed.is_empty(), "{program}: {missed:?}");
        compared += 1;
    }
    eprintln!("{compared} programs compared");
}
