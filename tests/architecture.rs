//! Checks the sources against ARCHITECTURE.md: layers, `unsafe`, SQL, names of threads, paths. Reads the sources as
//! tokens. Files named tests.rs and items with `#[cfg(test)]` are exempt.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::parse::{ParseStream, Parser};

/// The layers, lowest first, and their parts: files or folders of src. A part imports only parts of lower layers,
/// nothing of its own layer or of a higher one. Entries joined by `+` are one part. lib.rs, which re-exports, is exempt.
const LAYERS: &str = "error, lock, backoff, shutdown, extensions < text, devdb < db, job < config < client+hooks < tasks < cron \
                      < engine < worker < capi, main+cli";
/// Folders whose mod.rs lists its files, lowest first.
const LISTED: [&str; 3] = ["capi", "cli", "db"];
/// Threads that import only `APART_IMPORTS` of the engine, and that no other module of the engine imports.
const APART: [&str; 2] = ["scheduler", "recovery"];
const APART_IMPORTS: [&str; 3] = ["Shared", "stats", "store"];
/// Not a thread: the prefix of the folder of a development database.
const NO_THREAD: &str = "gw-devdb";

/// The text, or the place, of each file or name.
type Map = BTreeMap<String, String>;

/// Returns one line per violation: file, line, rule. `files` has the text of each file by its path.
fn check(files: &Map, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let (mut found, mut in_source, mut in_table) = (Vec::new(), Map::new(), Map::new());
    let exports = read("src/lib.rs", &files["src/lib.rs"]).into_iter().filter_map(|(_, token)| match token {
        Found::Use(path) => Some((path.last()?.clone(), layer(path.first()?)?)),
        _ => None,
    });
    let exports: BTreeMap<_, _> = exports.collect();
    for entry in parts().flat_map(|(_, part)| part.split('+')) {
        if !files.keys().any(|path| *path == format!("src/{entry}.rs") || path.starts_with(&format!("src/{entry}/"))) {
            found.push(format!("tests/architecture.rs:1: LAYERS has {entry}, which is not in src"));
        }
    }
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".rs") && !path.ends_with("/tests.rs")) {
        let mut report = |line: usize, rule: &str| found.push(format!("{path}:{line}: {rule}"));
        let module = module(path);
        let Some(part) = layer(&module[0]).or((module[0] == "lib").then_some((0, "lib"))) else {
            report(1, "is in no layer; add it to LAYERS in tests/architecture.rs");
            continue;
        };
        for (line, token) in read(path, text) {
            match token {
                Found::Path(used) if part.1 != "lib" => {
                    let broken = allows(&module, part, &used, &exports).err();
                    broken.into_iter().for_each(|rule| report(line, &format!("uses {}: {rule}", used.join("::"))));
                }
                Found::Unsafe if part.1 != "capi" => report(line, "has `unsafe` outside of src/capi"),
                Found::Text(text) => {
                    if is_sql(&text) {
                        report(line, "has an SQL statement, which belongs in src/sql");
                    }
                    let names = threads(&text).filter(|name| name != NO_THREAD);
                    in_source.extend(names.map(|name| (name, format!("{path}:{line}"))));
                }
                _ => {}
            }
        }
    }
    for (at, line) in files["ARCHITECTURE.md"].lines().enumerate() {
        let place = format!("ARCHITECTURE.md:{}", at + 1);
        let is_path = |text: &&str| [".rs", ".sql", "/"].iter().any(|end| text.ends_with(end)) && !text.contains(' ');
        let paths = line.split('`').skip(1).step_by(2).filter(is_path);
        let missing = paths.filter(|path| !exists(path) && !exists(&format!("src/{path}")));
        found.extend(missing.map(|path| format!("{place}: names {path}, which does not exist")));
        let cell = line.strip_prefix("| `gw-").and_then(|_| line.split('|').nth(1));
        in_table.extend(threads(cell.unwrap_or_default()).map(|name| (name, place.clone())));
    }
    for (these, others, whose) in [(&in_source, &in_table, "thread table"), (&in_table, &in_source, "source")] {
        let alone = these.iter().filter(|(name, _)| !others.contains_key(*name));
        found.extend(alone.map(|(name, place)| format!("{place}: names thread {name}, but the {whose} does not")));
    }
    found
}

fn parts() -> impl Iterator<Item = (usize, &'static str)> {
    LAYERS.split(" < ").enumerate().flat_map(|(at, layer)| layer.split(", ").map(move |part| (at + 1, part)))
}

/// The layer of a file or folder of src, and its part.
fn layer(name: &str) -> Option<(usize, &'static str)> {
    parts().find(|(_, part)| part.split('+').any(|entry| entry == name))
}

type Exports = BTreeMap<String, (usize, &'static str)>;

/// Whether a module may name this path; the broken rule if not.
fn allows(module: &[String], own: (usize, &str), used: &[String], exports: &Exports) -> Result<(), String> {
    let at = |path: &[String], at: usize| path.get(at).cloned().unwrap_or_default();
    if own.1 == "main+cli" {
        let is_seen = ["graphile_worker", "cli"].contains(&&*at(used, 0));
        return if is_seen { Ok(()) } else { Err("the program sees only graphile_worker::…".into()) };
    }
    let used = used.strip_prefix(&["graphile_worker".to_owned()]).unwrap_or(used);
    let target = layer(&at(used, 0)).or(exports.get(&at(used, 0)).copied()).ok_or("is in no layer")?;
    if target != own && target.0 >= own.0 {
        return Err(format!("{} must not import {}", own.1, target.1));
    }
    let (from, to) = (at(module, 1), at(used, 1));
    let (from_apart, to_apart) = (APART.contains(&&*from), APART.contains(&&*to));
    let is_allowed = from == to || !to_apart && (!from_apart || APART_IMPORTS.contains(&&*to));
    match (target.1, own.1) {
        ("engine", "engine") if !is_allowed => Err(format!("{from} must not import {to}")),
        _ => Ok(()),
    }
}

/// The names of threads in a text, without their numbers.
fn threads(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-').filter(|word| word.starts_with("gw-"));
    words.map(|word| word.trim_end_matches('-').to_owned())
}

/// Whether a literal has a statement that reads or writes tables. Settings, `begin`, `commit` and `listen` are none.
fn is_sql(text: &str) -> bool {
    let text = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let pair = |first, last| text.split_once(first).is_some_and(|(_, rest)| rest.contains(last));
    pair("select ", " from ") || pair("update ", " set ") || pair("insert ", "into ") || pair("delete ", "from ")
}

/// `db`, `session` of src/db/session.rs; `db` of src/db/mod.rs.
fn module(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// Something of a source that a rule looks at.
enum Found {
    /// Begins with `crate`, `super`, `self` or `graphile_worker`. From the root; only the last of the four stays.
    Path(Vec<String>),
    /// What a `use` names, as written.
    Use(Vec<String>),
    Unsafe,
    Text(String),
}

/// What the rules look at, each with its line.
fn read(path: &str, text: &str) -> Vec<(usize, Found)> {
    let (mut found, mut here) = (Vec::new(), module(path));
    here.retain(|name| path != format!("src/{name}.rs") || !["lib", "main"].contains(&&**name));
    scan(text.parse().unwrap(), &here, &mut found);
    found
}

fn scan(tokens: TokenStream, here: &[String], found: &mut Vec<(usize, Found)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        let (line, next) = (tokens[at].span().start().line, word(&tokens, at + 1));
        match (word(&tokens, at).as_str(), &tokens[at]) {
            ("#", _) if next == "[cfg(test)]" => at += 1 + length_of_item(&tokens[at + 2..]),
            ("#" | "!", _) if next.starts_with("[doc=") => at += 1,
            (_, TokenTree::Group(group)) => scan(group.stream(), here, found),
            (_, TokenTree::Literal(literal)) => {
                if let syn::Lit::Str(text) = syn::Lit::new(literal.clone()) {
                    found.push((line, Found::Text(text.value())));
                }
            }
            ("unsafe", _) => found.push((line, Found::Unsafe)),
            // In main.rs: a file that the program has beside the library.
            ("mod", _) if here.is_empty() => found.push((line, Found::Path(vec![next]))),
            ("use", _) => read_path(&tokens[at + 1..], Vec::new(), Found::Use, found),
            ("crate" | "graphile_worker" | "super", _) if next == "as" => found.push((line, Found::Path(vec![]))),
            ("crate" | "graphile_worker" | "super" | "self", _) if next == ":" && word(&tokens, at + 2) == ":" => {
                read_path(&tokens[at..], here.to_vec(), Found::Path, found);
            }
            _ => {}
        }
        at += 1;
    }
}

/// Reads a path, or a tree of paths as `use` has them.
fn read_path(
    tokens: &[TokenTree],
    mut path: Vec<String>,
    kind: fn(Vec<String>) -> Found,
    found: &mut Vec<(usize, Found)>,
) {
    let (mut at, mut line) = (0, 0);
    loop {
        match (word(tokens, at).as_str(), tokens.get(at)) {
            (_, Some(TokenTree::Group(group))) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let parts = inner.split(|token| token.to_string() == ",").filter(|part| !part.is_empty());
                return parts.for_each(|part| read_path(part, path.clone(), kind, found));
            }
            ("crate", _) => path.clear(),
            ("graphile_worker", _) => path = vec!["graphile_worker".into()],
            ("super", _) => drop(path.pop()),
            ("self", _) => {}
            (name, Some(TokenTree::Ident(_))) | (name @ "*", _) => path.push(name.to_owned()),
            _ => break,
        }
        line = tokens[at].span().start().line;
        at += 3;
        if word(tokens, at - 2) != ":" || word(tokens, at - 1) != ":" {
            break;
        }
    }
    found.push((line, kind(path)));
}

/// The word, the mark or the attribute at this place.
fn word(tokens: &[TokenTree], at: usize) -> String {
    match tokens.get(at) {
        Some(TokenTree::Group(group)) if group.delimiter() != Delimiter::Bracket => String::new(),
        token => token.map(|token| token.to_string().replace(' ', "")).unwrap_or_default(),
    }
}

/// How many tokens the item, the statement or the field has that begins here.
fn length_of_item(tokens: &[TokenTree]) -> usize {
    let rest = |input: ParseStream| input.parse::<syn::Stmt>().and_then(|_| input.parse::<TokenStream>());
    let field = || tokens.iter().position(|token| token.to_string() == ",").unwrap_or(tokens.len());
    let rest = rest.parse2(tokens.iter().cloned().collect());
    rest.map_or_else(|_| field(), |rest| tokens.len() - rest.into_iter().count())
}

fn add_sources(root: &Path, folder: &str, files: &mut Map) {
    for entry in std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap()) {
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        match entry.path().is_dir() {
            true => add_sources(root, &path, files),
            false => drop(files.insert(path, std::fs::read_to_string(entry.path()).unwrap())),
        }
    }
}

#[test]
fn the_sources_keep_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let mut files = Map::from([("ARCHITECTURE.md".to_owned(), guide)]);
    add_sources(root, "src", &mut files);
    let violations = check(&files, |path| root.join(path).exists());
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// The doc of the folder's mod.rs lists its files and folders. Each imports only those that stand before it.
#[test]
fn files_of_a_listed_folder_import_only_files_before_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found: Vec<String> = LISTED.iter().flat_map(|folder| check_order(root, folder)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn check_order(root: &Path, folder: &str) -> Vec<String> {
    let mut files = Map::new();
    add_sources(root, &format!("src/{folder}"), &mut files);
    files.retain(|path, _| !path.ends_with("/tests.rs"));
    let doc = files.remove(&format!("src/{folder}/mod.rs")).unwrap();
    let entry = |line: &str| Some(line.strip_prefix("//! ")?.split_once(". `")?.1.split_once('`')?.0.to_owned());
    let order: Vec<String> = doc.lines().filter_map(entry).collect();
    let place = |name: &str| order.iter().position(|other| other == name);
    let names: BTreeSet<String> = files.keys().map(|path| module(path)[1].clone()).collect();
    assert_eq!(order.len(), names.len(), "the list of src/{folder} names each file once");
    let mut found = Vec::new();
    for (path, text) in &files {
        let own = &module(path)[1];
        let own_place = place(own).unwrap_or_else(|| panic!("{path} is not in the list"));
        let is_before = |name: &String| name == own || place(name).is_some_and(|place| place < own_place);
        for (line, token) in read(path, text) {
            match token {
                Found::Path(used) if used[0] == folder && !used.get(1).is_some_and(is_before) => {
                    found.push(format!(
                        "{path}:{line}: uses {}, which the list does not have before it",
                        used.join("::")
                    ));
                }
                _ => {}
            }
        }
    }
    found
}

/// What is planted in a small crate: the file, its text, and the violation; without one, it is allowed. `⏎` ends a line.
const PLANTED: &str = r##"
src/db/session.rs | ⏎use crate::engine::lease::X; | 2: uses engine::lease::X: db must not import engine
src/db/session.rs | use crate::{error::Error,⏎engine::{run::{X as Y}}}; | 2: uses engine::run::X: db must not import engine
src/db/session.rs | fn f(x: crate::engine::X<u8>) {} | 1: uses engine::X: db must not import engine
src/db/session.rs | use super::super::engine; | 1: uses engine: db must not import engine
src/db/session.rs | #[cfg(test)] fn f<A, B>() {} fn g() { log!("", crate::cron::X::<u8>::new()) } | 1: uses cron::X: db must not import cron
src/db.rs | use crate::Config; | 1: uses Config: db must not import config
src/db.rs | use graphile_worker::config as c; | 1: uses graphile_worker::config: db must not import config
src/db.rs | use crate as c; | 1: uses : is in no layer
src/job.rs | use crate::*; | 1: uses *: is in no layer
src/job.rs | use crate::db::X; | 1: uses db::X: job must not import db
src/lock.rs | gone | tests/architecture.rs:1: LAYERS has lock, which is not in src
src/helpers.rs | | 1: is in no layer; add it to LAYERS in tests/architecture.rs
src/cli.rs | use crate::db::X; | 1: uses db::X: the program sees only graphile_worker::…
src/main.rs | mod db; | 1: uses db: the program sees only graphile_worker::…
src/engine/recovery.rs | use super::lease::X; | 1: uses engine::lease::X: recovery must not import lease
src/engine/run.rs | use super::scheduler; | 1: uses engine::scheduler: run must not import scheduler
src/db.rs | unsafe fn f() {} | 1: has `unsafe` outside of src/capi
src/db.rs | f("SELECT 1⏎  FROM t") | 1: has an SQL statement, which belongs in src/sql
src/db.rs | f("gw-pool-{n}") | 1: names thread gw-pool, but the thread table does not
src/engine/lease.rs | | ARCHITECTURE.md:1: names thread gw-lease, but the source does not
ARCHITECTURE.md | | `gw-lease-0` |⏎`src/db/x.rs` | 2: names src/db/x.rs, which does not exist
src/db/session.rs | //! gw-x⏎/// crate::engine unsafe select a from b gw-x⏎use crate::{Error, text::X}; use super::Y; |
src/db/session.rs | f("crate::engine unsafe", "set x = 1; listen y", "gw-devdb-1") |
src/db/session.rs | #[cfg(test)] mod tests { use crate::engine::X; unsafe fn f() { g("insert into t") } } |
src/db/session.rs | struct X { #[cfg(test)] a: crate::cli::X } fn f() { #[cfg(test)] let a = crate::cli::X; } |
src/db/tests.rs | use crate::engine::X; |
src/engine/recovery.rs | use super::Shared; use crate::{engine::store, cron as c}; |
src/cli.rs | use graphile_worker::{db::X, Error}; use crate::cli::x; |
src/capi.rs | use crate::Config; unsafe { f() } |
src/client.rs | use crate::tasks::X; | 1: uses tasks::X: client+hooks must not import tasks
src/client.rs | use crate::hooks::X; fn f(x: *const X) { self as *const _; self.x::<u8>() } |
"##;

#[test]
fn planted_violations_are_found_and_nothing_else() {
    for row in PLANTED.trim().lines() {
        let (path, rest) = row.split_once(" |").unwrap();
        let (text, rule) = rest.rsplit_once('|').unwrap();
        let mut files: Map = parts()
            .flat_map(|(_, part)| part.split('+'))
            .map(|entry| (format!("src/{entry}.rs"), String::new()))
            .collect();
        let guide = "| `gw-lease-0` | a row | `gw-x` |\n`src/db/` `src/error.rs` `a b.rs`";
        for (path, text) in [
            ("src/lib.rs", "pub use {config::Config, error::Error};"),
            ("ARCHITECTURE.md", guide),
            ("src/engine/lease.rs", "f(\"gw-lease-{n}\")"),
            ("src/db/session.rs", ""),
            (path, &*text.trim().replace('⏎', "\n")),
        ] {
            files.insert(path.into(), text.into());
        }
        files.retain(|_, text| text != "gone");
        let expected = match rule.trim() {
            "" => Vec::new(),
            rule if rule.starts_with(|c: char| c.is_ascii_digit()) => vec![format!("{path}:{rule}")],
            rule => vec![rule.to_owned()],
        };
        let exists =
            |path: &str| files.keys().any(|file| file == path || path.ends_with('/') && file.starts_with(path));
        assert_eq!(check(&files, exists), expected, "{row}");
    }
}
