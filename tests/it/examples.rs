//! Every example runs and prints what it promises; the README's first block is one of them.

use crate::harness::TestDb;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of this package.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo builds the examples next to the tests.
fn built(example: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(example);
    assert!(path.exists(), "{} is not built; `cargo build --examples` or a plain `cargo test` does it", path.display());
    path
}

/// Runs an example against a new database; answers what it printed.
#[track_caller]
fn run(db: &TestDb, example: &str) -> String {
    let output = Command::new(built(example)).env("DATABASE_URL", db.url()).output().unwrap();
    assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn check(example: &str, prints: &str) {
    let db = TestDb::new();
    assert_eq!(run(&db, example), prints);
    assert_eq!(db.jobs(), 0, "{example} leaves a job behind");
}

#[test]
fn hello_runs_the_job_that_it_added() {
    check("hello", "Hello, Ada! Attempt 1 of job 1.\n");
}

#[test]
fn transaction_runs_only_what_was_committed() {
    check("transaction", "Welcome, Ada!\n");
}

#[test]
fn every_example_is_run_by_a_test() {
    let files = std::fs::read_dir(root().join("examples")).unwrap();
    let names = files
        .filter_map(|file| file.unwrap().file_name().into_string().unwrap().strip_suffix(".rs").map(str::to_owned));
    // `make demo` runs the demo, and `make test-interop` interop.
    assert_eq!(names.collect::<BTreeSet<_>>(), ["demo", "hello", "interop", "transaction"].map(str::to_owned).into());
}

#[test]
fn the_first_block_of_the_readme_is_hello() {
    let readme = include_str!("../../README.md");
    let (_, block) = readme.split_once("```rust\n").expect("README.md has a block of Rust");
    let (block, _) = block.split_once("```").expect("the block ends");
    assert_eq!(block, include_str!("../../examples/hello.rs"));
}
