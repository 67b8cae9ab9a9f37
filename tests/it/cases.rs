//! Checks docs/test-cases.md: it lists every case, and the tests that it names exist.

use std::fs;
use std::path::{Path, PathBuf};

/// The tests that the tables of a text name.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(|word| word.contains("::"))
}

/// Whether the sources below `root` have a test of this path.
fn exists(root: &Path, path: &str) -> bool {
    let (file, test) = path.rsplit_once("::").expect("a path");
    let file = file.replace("::", "/");
    let (files, words): (Vec<PathBuf>, String) = match file.split_once('/') {
        Some(("it", module)) => (vec![format!("tests/it/{module}.rs").into()], format!("\nfn {test}(")),
        Some(("interop", part)) => (vec![format!("tests/interop/{part}.mjs").into()], test.to_owned()),
        _ => {
            let module = file.strip_suffix("/tests").unwrap_or(&file);
            (
                ["tests.rs", "mod.rs"]
                    .map(|end| format!("src/{module}/{end}").into())
                    .into_iter()
                    .chain([format!("src/{module}.rs").into()])
                    .collect(),
                format!("fn {test}("),
            )
        }
    };
    files.iter().any(|file| fs::read_to_string(root.join(file)).is_ok_and(|source| source.contains(&words)))
}

#[test]
fn every_named_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/test-cases.md")).unwrap();
    let missing: Vec<&str> = named(&text).filter(|path| !exists(root, path)).collect();
    assert_eq!(missing, [""; 0], "docs/test-cases.md names tests that do not exist");
    assert!(named(&text).count() > 100);
    for case in 1..=41 {
        let row = text.lines().find(|line| line.starts_with(&format!("| {case} |")));
        assert!(row.is_some_and(|row| named(row).count() > 0), "case {case} has no test");
    }
}

#[test]
fn a_wrong_test_name_is_found_in_every_source_folder() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let check = |path: &str, expected: bool| assert_eq!(exists(root, path), expected, "{path}");
    check("it::cases::every_named_test_exists", true);
    check("it::cases::every_named", false);
    check("it::jobs::every_named_test_exists", false);
    check("db::migrate::tests::a_probe_installs_nothing", true);
    check("db::migrate::tests::a_probe", false);
    check("engine::settle::tests::error_texts_are_cut_at_a_character_and_hold_no_nul", true);
    check("interop::workers::race", true);
    check("interop::workers::no such thing", false);
    assert_eq!(named("`not::in_a_table`\n| `a::b`, `plain`, `c::d` |").collect::<Vec<_>>(), ["a::b", "c::d"]);
}
