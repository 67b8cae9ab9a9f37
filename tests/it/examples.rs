//! Every example runs and prints the expected output, and the programs in the README are the examples.

use crate::harness::{SOON, Started, TestDb};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder of this package.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program of an example. Cargo builds the examples next to the tests.
pub fn built(example: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(example);
    assert!(path.exists(), "{} is not built; `cargo build --examples` or a plain `cargo test` does it", path.display());
    path
}

/// Runs an example on a new database and returns its output.
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
fn service_retries_sends_batches_and_ends_by_a_signal() {
    let db = TestDb::new();
    let mut command = Command::new(built("service"));
    let mut service = Started::new(command.env("DATABASE_URL", db.url()).stdout(Stdio::piped()));
    let (say, said) = crossbeam_channel::unbounded();
    let stdout = BufReader::new(service.0.stdout.take().unwrap());
    let reader = std::thread::spawn(move || stdout.lines().for_each(|line| say.send(line.unwrap()).unwrap()));
    let mut lines: Vec<String> = (0..4).map(|_| said.recv_timeout(SOON).unwrap()).collect();
    service.signal("INT");
    assert!(service.status().success());
    reader.join().unwrap();
    lines.extend(said);
    lines.sort();
    let expected =
        ["letter to Ada", "letter to Grace", "report failed: the figures are not there yet", "report of week 48"];
    assert_eq!(lines, expected);
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._private_known_crontabs"), 1);
}

#[test]
fn every_example_is_run_by_a_test() {
    let files = std::fs::read_dir(root().join("examples")).unwrap();
    let names = files
        .filter_map(|file| file.unwrap().file_name().into_string().unwrap().strip_suffix(".rs").map(str::to_owned));
    // `make demo` and `make demo-languages` run the demos, `make test-interop` runs interop, and conformance.rs the
    // adapter.
    let known = ["demo", "hello", "interop", "languages", "adapter", "service", "transaction"];
    assert_eq!(names.collect::<BTreeSet<_>>(), known.map(str::to_owned).into());
}

#[test]
fn the_rust_programs_of_the_readme_are_examples() {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```rust\n").skip(1).map(|block| block.split_once("```").expect("the block ends").0);
    let programs: Vec<_> = blocks.filter(|block| block.contains("fn main()")).collect();
    assert_eq!(programs, [include_str!("../../examples/hello.rs"), include_str!("../../examples/service.rs")]);
}

#[test]
fn the_programs_of_the_readme_in_other_languages_are_their_examples() {
    let readme = include_str!("../../README.md");
    for (language, program) in [
        ("python", include_str!("../../bindings/python/examples/hello.py")),
        ("go", include_str!("../../bindings/go/examples/hello/main.go")),
        ("cpp", include_str!("../../bindings/cpp/examples/hello.cpp")),
        ("c", include_str!("../../bindings/c/examples/hello.c")),
    ] {
        assert!(readme.contains(&format!("```{language}\n{program}```")), "{language}");
    }
}
