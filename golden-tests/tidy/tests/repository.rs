//! The repository as it is passes the checks, and each check finds what it looks for.

use golden_tidy::{self as tidy, TextFile};

#[track_caller]
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn files() -> Vec<TextFile> {
    tidy::files().unwrap()
}

#[test]
fn files_open_with_what_they_are_for() {
    none(tidy::opening(&files()));
}

#[test]
fn folders_have_readmes() {
    none(tidy::readmes(&files()));
}

#[test]
fn the_change_log_has_an_unreleased_part() {
    none(tidy::changelog(&files()));
}

#[test]
fn packages_take_the_lints() {
    none(tidy::lints(&files()));
}

#[test]
fn dependencies_have_reasons() {
    none(tidy::dependencies(&files()));
}

#[test]
fn unsafe_code_is_where_it_may_be() {
    none(tidy::unsafe_code(&files()));
}

#[test]
fn no_words_that_should_not_be_there() {
    none(tidy::words(&files()));
}

#[test]
fn golden_cases_say_why_and_expect_something() {
    none(tidy::cases(&files()));
}

#[test]
fn long_files_are_listed() {
    tidy::long(&files()).iter().for_each(|line| println!("worth splitting: {line}"));
}

#[test]
fn the_checks_find_what_they_look_for() {
    let file = |path: &str, text: &str| vec![TextFile { path: path.to_owned(), text: text.to_owned() }];
    assert_eq!(tidy::opening(&file("a/src/x.rs", "fn a() {}")).len(), 1);
    assert_eq!(tidy::readmes(&file("a/x", "")), ["a/: no README.md"]);
    assert_eq!(tidy::changelog(&file("CHANGELOG.md", "# Changes\n\n## 1.0\n")).len(), 1);
    assert_eq!(tidy::lints(&file("a/Cargo.toml", "[package]\n")).len(), 1);
    assert_eq!(
        tidy::dependencies(&file("Cargo.toml", "[workspace.dependencies]\na = \"1\"\n")),
        ["Cargo.toml: `a` has no reason beside it"]
    );
    assert_eq!(tidy::dependencies(&file("a/Cargo.toml", "[dev-dependencies]\nb = \"1\"\n")).len(), 1);
    assert_eq!(tidy::unsafe_code(&file("a/src/lib.rs", "//! A.\n")).len(), 1);
    assert_eq!(tidy::words(&file("a.rs", concat!("//! A.\nfn a() { to", "do!() }\n"))), ["a.rs:2: something is left undone"]);
    assert_eq!(tidy::cases(&file("golden-tests/cases/a/Dockerfile", "FROM scratch\n")).len(), 2);
    let long = "//! A.\n".repeat(tidy::LONG + 1);
    assert_eq!(tidy::long(&file("a.rs", &long)).len(), 1);
}
