//! Compares `docs/cli.md` with the program: runs every example, and checks that every command and option is documented.

use crate::cli::{program, run, stdout};
use crate::harness::TestDb;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

const MANUAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");

/// The text in the manual for a time within a day of now.
const NOW: &str = "2026-11-24T04:00:00Z";

fn manual() -> String {
    fs::read_to_string(MANUAL).expect("the manual is there")
}

/// The part of the manual below a headline, up to the next headline of the same or a higher level.
fn part(manual: &str, headline: &str) -> String {
    let depth = headline.chars().take_while(|&c| c == '#').count();
    let is_next = |line: &str| {
        let hashes = line.chars().take_while(|&c| c == '#').count();
        (1..=depth).contains(&hashes)
    };
    let below = manual.lines().skip_while(|line| *line != headline).skip(1);
    let text: Vec<&str> = below.take_while(|line| !is_next(line)).collect();
    assert!(!text.is_empty(), "the manual has nothing below {headline:?}");
    text.join("\n")
}

/// The first cells of the rows of a part's tables.
fn first_cells(part: &str) -> Vec<&str> {
    let rows = part.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| row.split(" | ").next()).collect()
}

/// Words that begin with two dashes.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words
        .filter(|word| word.len() > 2 && word.starts_with("--") && !word.starts_with("---"))
        .map(str::to_owned)
        .collect()
}

/// The texts in `` `backticks` ``.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The commands, from `--help`.
fn commands() -> Vec<String> {
    let help = stdout(&run(&["--help"]));
    let list = help.split_once("Commands:\n").expect("help lists commands").1;
    let names = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

/// The options of a command, from its `--help`, without those that all commands have.
fn options_of(command: &str) -> BTreeSet<String> {
    let help = stdout(&run(&[command, "--help"]));
    let heads = help.lines().filter(|line| line.starts_with("      --") || line.starts_with("  -"));
    let all: BTreeSet<String> = heads.flat_map(|line| options(line.trim().split("  ").next().unwrap())).collect();
    all.difference(&everywhere()).cloned().collect()
}

fn everywhere() -> BTreeSet<String> {
    ["--database-url", "--schema", "--max-connections", "--timeout", "--json", "--help", "--version"]
        .map(str::to_owned)
        .into()
}

/// Replaces each time within a day of now by the same fixed time.
fn timeless(text: &str) -> String {
    let is_now =
        |time: &str| time.parse::<DateTime<Utc>>().is_ok_and(|time| (time - Utc::now()).abs() < TimeDelta::days(1));
    // A time ends with Z. It has 20 characters, or up to 27 with microseconds.
    let pieces = text.split_inclusive('Z').map(|piece| {
        let begins = (20..=27).filter_map(|length| piece.len().checked_sub(length));
        match begins.into_iter().find(|&begin| piece.get(begin..).is_some_and(is_now)) {
            Some(begin) => format!("{}{NOW}", &piece[..begin]),
            None => piece.to_owned(),
        }
    });
    pieces.collect()
}

/// Runs the manual's examples one after the other on one database, and returns the manual with their current output.
fn replayed(manual: &str, db: &TestDb) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_graphile-worker"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), env::var("PATH").unwrap_or_default());
    let (mut out, mut in_example, mut sql) = (String::new(), false, None::<String>);
    for line in manual.lines() {
        let keep = match line {
            "```console" => {
                in_example = true;
                true
            }
            "```" => {
                in_example = false;
                true
            }
            _ if line.starts_with("<!-- sql:") => {
                sql = Some("set search_path = graphile_worker;".into());
                true
            }
            "-->" => {
                if let Some(sql) = sql.take() {
                    db.execute(&format!("{sql}; reset search_path"));
                }
                true
            }
            _ => !in_example || line.starts_with("$ "),
        };
        if let (Some(sql), false) = (&mut sql, line.starts_with("<!--")) {
            sql.push_str(line);
            sql.push('\n');
        }
        if keep {
            out.push_str(line);
            out.push('\n');
        }
        if let (true, Some(command)) = (in_example, line.strip_prefix("$ ")) {
            let script = format!("exec 2>&1; {command}");
            let mut sh = std::process::Command::new("sh");
            let output = sh.args(["-c", &script]).env("PATH", &path).env("DATABASE_URL", db.url()).output().unwrap();
            out.push_str(&timeless(&stdout(&output)));
        }
    }
    out
}

#[test] // To update the output in the manual: GRAPHILE_WORKER_BLESS=1 cargo test --test it manual::
fn every_example_of_the_manual_matches_the_program() {
    let (manual, db) = (manual(), TestDb::new());
    let replayed = replayed(&manual, &db);
    if env::var_os("GRAPHILE_WORKER_BLESS").is_some() {
        fs::write(MANUAL, replayed).unwrap();
        return;
    }
    for (number, (stands, said)) in manual.lines().zip(replayed.lines()).enumerate() {
        assert_eq!(said, stands, "docs/cli.md:{}: the program prints the left side", number + 1);
    }
    assert_eq!(replayed.lines().count(), manual.lines().count());
}

#[test]
fn the_manual_has_every_command_with_example_and_options() {
    let manual = manual();
    for command in commands() {
        let part = part(&manual, &format!("### `{command}`"));
        let documented: BTreeSet<String> = first_cells(&part).iter().flat_map(|cell| options(cell)).collect();
        assert_eq!(documented, options_of(&command), "{command}: left in the manual, right in --help");
        // `dev` would not end.
        let called = part.contains(&format!("$ graphile-worker {command}"))
            || part.contains(&format!("| graphile-worker {command}"));
        assert!(called || command == "dev", "{command} has no example");
    }
    let global: BTreeSet<String> =
        first_cells(&part(&manual, "## Global options")).iter().flat_map(|cell| options(cell)).collect();
    let help: BTreeSet<String> = ["--help", "--version"].map(str::to_owned).into();
    assert_eq!(global, everywhere().difference(&help).cloned().collect());
}

#[test]
fn the_statuses_of_the_manual_are_those_of_help() {
    let help = stdout(&run(&["--help"]));
    let of_help = help.split_once("Exit status:\n").expect("help lists them").1;
    let of_help: Vec<String> = of_help.lines().map(|line| line.trim().replacen("  ", " | ", 1)).collect();
    let part = part(&manual(), "## Exit status");
    let rows = part.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let of_the_manual: Vec<String> =
        rows.filter(|row| row.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned).collect();
    assert_eq!(of_the_manual, of_help.into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>());
}

#[test]
fn json_fields_of_manual_and_examples_are_the_same() {
    let manual = manual();
    let documented: BTreeSet<String> =
        first_cells(&part(&manual, "## JSON")).iter().flat_map(|cell| quoted(cell)).map(str::to_owned).collect();
    let mut shown = BTreeSet::new();
    let mut example = String::new();
    for line in part(&manual, "## Commands").lines() {
        match line {
            // JSON begins and ends in the first column.
            "{" | "[" => example = line.to_owned(),
            "}" | "]" => {
                let json: serde_json::Value = serde_json::from_str(&(example.clone() + line)).unwrap();
                let objects = if let Some(array) = json.as_array() { array.clone() } else { vec![json] };
                for object in objects {
                    shown.extend(object.as_object().expect("an object").keys().cloned());
                }
                example.clear();
            }
            _ if !example.is_empty() => example.push_str(line),
            _ => {}
        }
    }
    // A field of `dev`, which has no example here.
    shown.insert("database_url".into());
    assert_eq!(documented, shown);
}

/// Every option of the async crate's program according to its manual (0.13.5 and 0.14.1), without those of its web
/// page.
const ASYNC_TOOL: [(&str, &[&str]); 14] = [
    ("migrate", &[]),
    (
        "add",
        &[
            "--payload",
            "--payload-file",
            "--queue",
            "--run-at",
            "--max-attempts",
            "--key",
            "--job-key-mode",
            "--priority",
            "--flag",
        ],
    ),
    ("list", &["--identifier", "--queue", "--state", "--limit", "--offset"]),
    ("show", &[]),
    ("complete", &[]),
    ("fail", &["--reason"]),
    ("reschedule", &["--now", "--run-at", "--priority", "--attempts", "--max-attempts"]),
    ("remove", &[]),
    ("cleanup", &[]),
    ("force-unlock", &[]),
    ("stats", &[]),
    ("queues", &[]),
    ("workers", &[]),
    ("sweep-stale-workers", &["--sweep-threshold", "--recovery-delay", "--dry-run"]),
];

#[test]
fn no_command_or_option_of_the_async_crates_program_is_missing() {
    let manual = manual();
    let part = part(&manual, "## Differences from the async crate's program");
    let rows: Vec<Vec<&str>> = first_cells(&part).into_iter().map(quoted).collect();
    let is_listed = |words: &str| rows.iter().any(|row| row.first().is_some_and(|head| head.starts_with(words)));
    for option in ["--database-url", "--schema", "--max-connections", "--json"] {
        assert!(everywhere().contains(option) && is_listed(option), "{option}");
    }
    for (command, options) in ASYNC_TOOL {
        assert!(commands().iter().any(|ours| ours == command), "{command} is missing");
        assert!(is_listed(command), "{command} is not in the table");
        for option in options {
            assert!(options_of(command).contains(*option), "{command} {option} is missing");
            assert!(is_listed(&format!("{command} {option}")), "{command} {option} is not in the table");
        }
    }
    let states = stdout(&run(&["list", "--help"]));
    for value in ["all", "ready", "scheduled", "locked", "failed"] {
        assert!(states.contains(&format!("- {value}:")), "{value}: {states}");
    }
    assert!(program().arg("admin").output().unwrap().status.code() == Some(2));
}

#[test]
fn only_times_near_now_are_replaced() {
    let now = Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    assert_eq!(
        timeless(&format!("a {now} T 2031-01-02T03:04:05Z ä{now}")),
        format!("a {NOW} T 2031-01-02T03:04:05Z ä{NOW}")
    );
    assert_eq!(timeless("no time: TTTTTTTTTTTTTTZ"), "no time: TTTTTTTTTTTTTTZ");
}
