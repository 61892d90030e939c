//! Code counts when something leads to it, whatever the way, and only then. Needs gcc.

mod common;

use std::path::Path;
use std::process::Command;

use common::{host, host_tree, starts};
use ukc_analyze::{Options, analyze};

/// Compiles a program (and a library that it needs or loads) and returns whether the analysis finds `acct`, which no program here makes by accident.
fn makes_acct(program: &str, library: &str, flags: &[&str]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let gcc = |output: &str, source: &str, flags: &[&str]| {
        let input = path(&format!("{output}.c"));
        std::fs::write(&input, source).unwrap();
        let done =
            Command::new("gcc").args(["-O1", "-o"]).arg(path(output)).arg(&input).args(flags).current_dir(dir.path()).status().unwrap();
        assert!(done.success());
    };
    gcc("libown.so", &format!("#define _DEFAULT_SOURCE\n#include <unistd.h>\n{library}"), &["-shared", "-fPIC"]);
    let own = format!("-L{0} -Wl,-rpath,{0}", dir.path().display());
    let flags: Vec<&str> = own.split(' ').chain(flags.iter().copied()).collect();
    gcc("program", &format!("#define _GNU_SOURCE\n#include <unistd.h>\n#include <dlfcn.h>\n{program}"), &flags);
    let mut tree = host_tree();
    host(&mut tree, dir.path().to_str().unwrap());
    let config = starts(&[path("program").to_str().unwrap()]);
    let facts = analyze(&tree, &config, &Options::default()).unwrap_or_else(|e| panic!("{e:?}"));
    assert!(facts.syscalls.values().any(|c| c.name == "write"), "printing is found always");
    facts.syscalls.values().any(|c| c.name == "acct")
}

#[test]
fn what_nothing_leads_to_does_not_count() {
    assert!(!makes_acct("int main(void) { return write(1, \"\", 0); }", "", &[]), "the C library has it, nobody asks for it");
    assert!(!makes_acct(
        "int unused(void) { return 0; } int main(void) { return write(1, \"\", 0); }",
        "int own(void) { return acct(\"\"); }",
        &["-lown"]
    ));
}

#[test]
fn every_way_to_a_function_counts() {
    for (way, program) in [
        ("a call", "int main(void) { return acct(\"\"); }"),
        ("an address that is taken", "int (*f)(const char *); int main(int c, char **v) { f = c > 1 ? acct : 0; return f ? f(\"\") : 0; }"),
        ("a table", "static int (*const table[])(const char *) = {chdir, acct}; int main(int c, char **v) { return table[c & 1](\"\"); }"),
        (
            "a constructor",
            "__attribute__((constructor)) static void early(void) { if (acct(\"\")) _exit(0); } int main(void) { return 0; }",
        ),
        (
            "a wrapper's argument",
            "static long make(int n) { return syscall(n, \"\"); } int main(int c, char **v) { return c > 1 ? make(163) : make(1); }",
        ),
        (
            "a name that is looked up",
            "int main(int c, char **v) { int (*f)(const char *) = dlsym(RTLD_DEFAULT, \"acct\"); return f ? f(\"\") : 0; }",
        ),
        (
            "an indirect function",
            "static int with(void) { return acct(\"\"); } static int without(void) { return 0; }\n\
             static void *choose(void) { return __builtin_cpu_supports(\"avx2\") ? (void *)with : (void *)without; }\n\
             int chosen(void) __attribute__((ifunc(\"choose\"))); int main(void) { __builtin_cpu_init(); return chosen(); }",
        ),
    ] {
        for flags in [&["-pie"][..], &["-no-pie"]] {
            assert!(makes_acct(program, "", flags), "{way}, {flags:?}");
        }
    }
}

#[test]
fn libraries_count_as_far_as_they_are_used() {
    let library = "int own(void) { return acct(\"\"); } int other(void) { return write(1, \"\", 0); }";
    assert!(makes_acct("int own(void); int main(void) { return own(); }", library, &["-lown"]));
    assert!(!makes_acct("int other(void); int main(void) { return other(); }", library, &["-lown"]));
    let loads = "int main(void) { void *l = dlopen(\"libown.so\", RTLD_NOW); write(1, \"\", 0); return l != 0; }";
    assert!(makes_acct(loads, library, &[]), "what is loaded at run time counts with all that it exports");
    let names = "const char *name = \"libown.so\"; int main(void) { return write(1, name, 0); }";
    assert!(!makes_acct(names, library, &[]), "a name alone loads nothing");
    assert!(Path::new("/usr/bin/gcc").exists());
}
