//! Proves that a module uses its own layer and lower ones, never a higher one.
//! Reads the sources as text; knows the layers, and nothing of what the modules do.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// What each layer consists of, lowest first. An entry covers the files below it too, unless
/// some of those are listed by name. `lib.rs` is exempt: it lists the public names.
const LAYERS: [&[&str]; 6] = [
    &[
        "error", "schema", "job", "spec", "config", "backoff", "retry", "claim", "shutdown", "stats", "admin", "lock",
        "text",
    ],
    &["db", "store", "enqueue", "migrate", "standing", "devdb", "manage", "cleanup"],
    &["utils", "task", "batch", "hooks", "trace", "sweep"],
    &[
        "worker",
        "worker/listen",
        "worker/local_queue",
        "worker/dispatch",
        "worker/fetch",
        "worker/intake",
        "worker/run",
        "worker/settle",
        "worker/watch",
        "worker/lease",
        "worker/pull",
        "worker/seat",
        "worker/core",
        "worker/avoid",
        "worker/halves",
        "worker/pace",
        "cron",
        "cron/crontab",
        "cron/payload",
        "cron/schedule",
        "recovery",
    ],
    &["options", "local_queue", "running", "signals"],
    &["capi", "main", "cli"],
];

/// Side by side in one layer, and strangers to each other.
const STRANGERS: [&str; 3] = ["worker", "cron", "recovery"];

/// The program: it sees the library as everybody does.
const PROGRAM: [&str; 2] = ["main", "cli"];

#[test]
fn every_file_stands_in_a_layer_and_uses_no_higher_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    read_sources(root, &root.join("src"), &mut files);
    assert!(files.iter().any(|(path, _)| path == "src/lib.rs"), "the sources were not found");
    let violations = check(&files);
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// The rules. Takes the path, from the package's folder, and the text of every file; returns one
/// line per violation: file, line, rule.
fn check<P: AsRef<str>, S: AsRef<str>>(files: &[(P, S)]) -> Vec<String> {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path.as_ref(), text.as_ref())).collect();
    let house = House::new(&sources);
    let mut violations = Vec::new();
    let mut unsafe_in_db = 0;
    for source in sources.iter().filter(|source| source.module != "lib" && !source.is_test()) {
        let mut violation = |line: usize, rule: String| violations.push(format!("{}:{line}: {rule}", source.path));
        if layer(&source.module).is_none() {
            violation(1, "stands in no layer; add it to LAYERS in tests/architecture.rs".into());
            continue;
        }
        for used in &source.paths {
            if let Err(rule) = house.allows(source, used) {
                violation(used.line, rule);
            }
        }
        for token in source.tokens.iter().filter(|token| token.text == "unsafe") {
            match group(&source.module) {
                "capi" => {}
                "db" if unsafe_in_db == 0 => unsafe_in_db = 1,
                "db" => violation(token.line, "`unsafe` stands a second time in src/db, which may have one".into()),
                _ => violation(token.line, "`unsafe` stands outside src/capi".into()),
            }
        }
    }
    violations
}

/// What there is to use: the modules, and the names that the root of the library gives on.
struct House {
    modules: Vec<String>,
    /// A name at the root, and the module that it comes from.
    names: HashMap<String, String>,
}

impl House {
    fn new(sources: &[Source]) -> Self {
        let modules = sources.iter().map(|source| source.module.clone()).filter(|module| module != "lib").collect();
        let mut house = Self { modules, names: HashMap::new() };
        for source in sources {
            if source.module == "lib" {
                for used in uses(&source.tokens) {
                    let from = used.segments.join("/");
                    house.names.insert(used.name, from);
                }
            }
            // An exported macro stands at the root, wherever it is written.
            for words in source.tokens.windows(3) {
                if words[0].text == "macro_rules" && words[1].text == "!" {
                    house.names.insert(words[2].text.clone(), source.module.clone());
                }
            }
        }
        house
    }

    /// Whether this file may name this path; the broken rule if not.
    fn allows(&self, source: &Source, used: &Used) -> Result<(), String> {
        let named = format!("{}{}", used.segments.join("::"), if used.glob { "::*" } else { "" });
        let program = PROGRAM.contains(&group(&source.module));
        if program && !used.external {
            // The program's own root, which is main.rs.
            return match used.segments.first().map(String::as_str) {
                Some("cli") => Ok(()),
                _ => Err(format!("uses crate::{named}, but the program sees only public names: graphile_worker::…")),
            };
        }
        let Some(first) = used.segments.first() else {
            return Err("takes the whole root of the crate in; name what is used".into());
        };
        let target = self
            .module_of(&used.segments)
            .or_else(|| self.names.get(first).and_then(|from| self.module_of(from.split('/'))))
            .ok_or_else(|| format!("uses crate::{named}, which neither a file nor a `pub use` of lib.rs declares"))?;
        let (Some(own), Some(other)) = (layer(&source.module), layer(target)) else {
            return Ok(()); // The file without a layer is reported by itself.
        };
        if program {
            return Ok(()); // What is public the compiler knows.
        }
        if other > own {
            return Err(format!("uses crate::{named}, but layer {own} must not use layer {other} ({target})"));
        }
        let (own, other) = (group(&source.module), group(target));
        if own != other && STRANGERS.contains(&own) && STRANGERS.contains(&other) {
            return Err(format!("uses crate::{named}, but {own} and {other} must not know each other"));
        }
        Ok(())
    }

    /// The module in which a path from the root ends.
    fn module_of(&self, segments: impl IntoIterator<Item = impl AsRef<str>>) -> Option<&str> {
        let (mut path, mut found) = (String::new(), None);
        for segment in segments {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(segment.as_ref());
            found = self.modules.iter().find(|module| **module == path).or(found);
        }
        found.map(String::as_str)
    }
}

/// The number of a module's layer.
fn layer(module: &str) -> Option<usize> {
    let listed = |entry: &str| LAYERS.iter().any(|layer| layer.contains(&entry));
    let lists_children = |entry: &str| LAYERS.iter().any(|l| l.iter().any(|other| is_below(other, entry)));
    let mut entry = module;
    loop {
        if listed(entry) && (entry == module || !lists_children(entry)) {
            return LAYERS.iter().position(|layer| layer.contains(&entry)).map(|at| at + 1);
        }
        entry = entry.rsplit_once('/')?.0;
    }
}

fn is_below(module: &str, parent: &str) -> bool {
    module.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
}

/// `worker` of `worker/listen`.
fn group(module: &str) -> &str {
    module.split('/').next().unwrap_or(module)
}

struct Source {
    path: String,
    /// `db/session` of src/db/session.rs, `db` of src/db/mod.rs.
    module: String,
    /// Without comments, literals and the items that only tests have.
    tokens: Vec<Token>,
    paths: Vec<Used>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let module = path.strip_prefix("src/").unwrap_or(path);
        let module = module.strip_suffix(".rs").unwrap_or(module);
        let module = module.strip_suffix("/mod").unwrap_or(module).to_owned();
        let tokens = without_tests(tokens(&without_words(text)));
        let paths = paths(&module, &tokens);
        Self { path: path.to_owned(), module, tokens, paths }
    }

    /// A module of tests in a file of its own.
    fn is_test(&self) -> bool {
        self.module.ends_with("/tests")
    }
}

struct Token {
    text: String,
    line: usize,
}

/// A path to something of this crate.
struct Used {
    /// From the root.
    segments: Vec<String>,
    /// What it is called here; the alias if it has one.
    name: String,
    glob: bool,
    /// Spelled `graphile_worker::`, as everybody else spells it.
    external: bool,
    line: usize,
}

/// Every path that starts with `crate`, `super`, `self` or `graphile_worker`, in `use` or elsewhere.
fn paths(module: &str, tokens: &[Token]) -> Vec<Used> {
    let mut here: Vec<String> = match module {
        "lib" | "main" => Vec::new(),
        module => module.split('/').map(str::to_owned).collect(),
    };
    let mut inline = Vec::new(); // The depths at which modules inside the file began.
    let (mut depth, mut at, mut found) = (0, 0, Vec::new());
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    while at < tokens.len() {
        let mut base = here.clone();
        match text(at) {
            "{" => depth += 1,
            "}" => {
                if inline.last() == Some(&depth) {
                    inline.pop();
                    here.pop();
                }
                depth -= 1;
            }
            "mod" if text(at + 2) == "{" => {
                here.push(text(at + 1).to_owned());
                inline.push(depth + 1);
            }
            start @ ("crate" | "graphile_worker" | "self" | "super") if text(at + 1) == "::" => {
                let external = start == "graphile_worker";
                match start {
                    "self" => {}
                    "super" => drop(base.pop()),
                    _ => base.clear(),
                }
                while text(at + 2) == "super" && text(at + 3) == "::" {
                    base.pop();
                    at += 2;
                }
                at = tree(tokens, at + 2, base, external, &mut found);
                continue;
            }
            // Under another name the root would be out of our sight.
            start @ ("crate" | "graphile_worker") if text(at + 1) == "as" => {
                let (external, line) = (start == "graphile_worker", tokens[at].line);
                found.push(Used { segments: Vec::new(), name: String::new(), glob: true, external, line });
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The paths of all `use` declarations, as they are written.
fn uses(tokens: &[Token]) -> Vec<Used> {
    let mut found = Vec::new();
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| token.text == "use") {
        let rooted = tokens.get(at + 1).is_some_and(|token| matches!(token.text.as_str(), "crate" | "self"));
        tree(tokens, at + if rooted { 3 } else { 1 }, Vec::new(), false, &mut found);
    }
    found
}

/// Reads a path, or a tree of paths as `use` has them, from `at`; returns where it ends.
fn tree(tokens: &[Token], mut at: usize, mut segments: Vec<String>, external: bool, found: &mut Vec<Used>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    let line = tokens.get(at).map_or(0, |token| token.line);
    let mut glob = false;
    loop {
        match text(at) {
            "{" => {
                at += 1;
                while !matches!(text(at), "}" | "") {
                    at = tree(tokens, at, segments.clone(), external, found);
                    if !matches!(text(at), "}" | "") {
                        at += 1; // The comma.
                    }
                }
                return at + 1;
            }
            "*" => glob = true,
            "self" => {}
            word if is_word(word) => segments.push(word.to_owned()),
            // The types of a generic call.
            _ => break,
        }
        at += 1;
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    let name = if text(at) == "as" { text(at + 1).to_owned() } else { segments.last().cloned().unwrap_or_default() };
    found.push(Used { segments, name, glob, external, line });
    at
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Words, `::`, and every other character by itself.
fn tokens(text: &str) -> Vec<Token> {
    let (mut tokens, mut line) = (Vec::new(), 1);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = match first {
            _ if word > 0 => word,
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        if !first.is_whitespace() {
            tokens.push(Token { text: rest[..length].to_owned(), line });
        }
        line += usize::from(first == '\n');
        rest = &rest[length..];
    }
    tokens
}

/// Leaves out every item after `#[cfg(test)]`: tests may use what they like.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    let starts =
        |at: usize| MARK.iter().enumerate().all(|(n, word)| tokens.get(at + n).is_some_and(|t| t.text == *word));
    let mut dropped = vec![false; tokens.len()];
    while at < tokens.len() {
        if !starts(at) {
            at += 1;
            continue;
        }
        let (start, mut depth) = (at, 0);
        at += MARK.len();
        while at < tokens.len() {
            match tokens[at].text.as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            let text = &tokens[at].text;
            // The end of a block, of a declaration, or of a field.
            if depth < 0 || depth == 0 && matches!(text.as_str(), "}" | ";" | ",") {
                break;
            }
            at += 1;
        }
        // A brace that closes what is around the item is not the item's.
        let end = if depth < 0 { at } else { (at + 1).min(tokens.len()) };
        dropped[start..end].fill(true);
        at = end;
    }
    kept.extend(tokens.into_iter().zip(dropped).filter(|(_, dropped)| !dropped).map(|(token, _)| token));
    kept
}

/// The text with its comments and literals blanked, line for line.
fn without_words(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (mut blank, mut at) = (String::with_capacity(text.len()), 0);
    let get = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let in_word = at > 0 && (get(at - 1).is_alphanumeric() || get(at - 1) == '_');
        let end = match (get(at), get(at + 1)) {
            ('/', '/') => (at..chars.len()).find(|at| get(*at) == '\n').unwrap_or(chars.len()),
            ('/', '*') => end_of_comment(&chars, at),
            ('"', _) => end_of_string(&chars, at),
            ('b' | 'c' | 'r', _) if !in_word => end_of_raw_string(&chars, at),
            ('\'', '\\') => (at + 3..chars.len()).find(|at| get(*at) == '\'').map_or(chars.len(), |end| end + 1),
            // Not a lifetime.
            ('\'', _) if get(at + 2) == '\'' => at + 3,
            _ => at,
        };
        if end == at {
            blank.push(chars[at]);
            at += 1;
        } else {
            blank.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    blank
}

fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `start` itself if no raw string begins there.
fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let r = start + usize::from(matches!(chars[start], 'b' | 'c'));
    if chars.get(r) != Some(&'r') {
        return start;
    }
    let hashes = chars[r + 1..].iter().take_while(|c| **c == '#').count();
    let open = r + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return start;
    }
    (open + 1..chars.len())
        .find(|at| chars[*at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes)
        .map_or(chars.len(), |end| end + 1 + hashes)
}

fn read_sources(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            read_sources(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A small house, to plant things in.
const HOUSE: [(&str, &str); 11] = [
    ("src/lib.rs", "mod error; mod options; pub use options::WorkerOptions; pub use error::{Error, Result as R};"),
    ("src/error.rs", "pub struct Error;"),
    ("src/job.rs", "use crate::error::Error; #[macro_export] macro_rules! define_job { () => {} }"),
    ("src/db/mod.rs", "pub mod session;"),
    ("src/db/session.rs", ""),
    ("src/worker/mod.rs", ""),
    ("src/worker/listen.rs", "use super::Wake; use crate::db::session;"),
    ("src/cron/mod.rs", ""),
    ("src/options.rs", "use crate::worker::listen;"),
    ("src/main.rs", "mod cli; use graphile_worker::WorkerOptions;"),
    ("src/cli/mod.rs", ""),
];

/// Checks the small house with `text` as the file `path`.
fn planted(path: &str, text: &str) -> Vec<String> {
    let mut files: Vec<(&str, &str)> = HOUSE.into_iter().filter(|(other, _)| *other != path).collect();
    files.push((path, text));
    check(&files)
}

#[test]
fn a_planted_violation_is_named_by_file_line_and_rule() {
    #[track_caller]
    fn check(path: &str, text: &str, expected: &str) {
        assert_eq!(planted(path, text), [format!("{path}:{expected}")]);
    }
    let up = "2: uses crate::worker::listen::Wake, but layer 2 must not use layer 4 (worker/listen)";
    check("src/db/session.rs", "\nuse crate::worker::listen::Wake;", up);
    check("src/db/session.rs", "\nuse crate::{error::Error, worker::{listen::{Wake}}};", up);
    check("src/db/session.rs", "\nfn f(wake: crate::worker::listen::Wake) {}", up);
    check("src/db/session.rs", "\nuse super::super::worker::listen::Wake;", up);
    check("src/db/session.rs", "\nuse graphile_worker::worker::listen::Wake as W;", up);
    check("src/db/session.rs", "\nmod inner { use super::super::super::worker::listen::Wake; }", up);
    check("src/db/session.rs", "/*\n*/#[cfg(test)] mod tests {} use crate::worker::listen::Wake;", up);
    check("src/db/session.rs", "fn f() { let quote = '\"';\n crate::worker::listen::Wake::<u8>::new(); }", up);

    check(
        "src/job.rs",
        "use crate::WorkerOptions;",
        "1: uses crate::WorkerOptions, but layer 1 must not use layer 5 (options)",
    );
    check("src/job.rs", "fn f() { $crate::db::x!() }", "1: uses crate::db::x, but layer 1 must not use layer 2 (db)");
    check(
        "src/job.rs",
        "use crate::Nothing;",
        "1: uses crate::Nothing, which neither a file nor a `pub use` of lib.rs declares",
    );
    check("src/job.rs", "use super::*;", "1: takes the whole root of the crate in; name what is used");
    check("src/job.rs", "use crate as c;", "1: takes the whole root of the crate in; name what is used");
    check(
        "src/cron/mod.rs",
        "use crate::worker::Wake;",
        "1: uses crate::worker::Wake, but cron and worker must not know each other",
    );
    check(
        "src/worker/listen.rs",
        "use crate::cron;",
        "1: uses crate::cron, but worker and cron must not know each other",
    );
    check(
        "src/cli/mod.rs",
        "use crate::options::X;",
        "1: uses crate::options::X, but the program sees only public names: graphile_worker::…",
    );
    check(
        "src/main.rs",
        "mod cli; use self::db::x;",
        "1: uses crate::db::x, but the program sees only public names: graphile_worker::…",
    );
    check("src/helpers.rs", "", "1: stands in no layer; add it to LAYERS in tests/architecture.rs");
    check("src/worker/drawer.rs", "", "1: stands in no layer; add it to LAYERS in tests/architecture.rs");
    check("src/job.rs", "\n\nunsafe fn f() {}", "3: `unsafe` stands outside src/capi");
    check(
        "src/db/session.rs",
        "unsafe fn f() {}\nunsafe fn g() {}",
        "2: `unsafe` stands a second time in src/db, which may have one",
    );
}

#[test]
fn what_is_allowed_is_not_reported() {
    #[track_caller]
    fn check(path: &str, text: &str) {
        assert_eq!(planted(path, text), [""; 0]);
    }
    check("src/error.rs", "pub struct Error;");
    check(
        "src/db/session.rs",
        "use crate::{R, error::Error}; use super::Wake; crate::define_job!(); pub(crate) struct X;",
    );
    check(
        "src/db/session.rs",
        "// crate::worker\n/* crate::worker /* */ crate::worker */ \"crate::worker\\\" crate::worker\"",
    );
    check(
        "src/db/session.rs",
        "r#\"crate::worker\" crate::worker\"# br\"crate::worker\" b\"crate::worker\" '\\'' 'x' fn f<'a>()",
    );
    check(
        "src/db/session.rs",
        "#[cfg(test)] mod tests { use crate::worker::Wake; fn f() {} } #[cfg(test)] use crate::{worker};",
    );
    check("src/db/tests.rs", "use crate::worker::Wake;");
    check("src/db/tls/roots.rs", "unsafe {}");
    check(
        "src/worker/dispatch.rs",
        "use super::{Wake, listen}; use crate::worker::listen::Listener; impl X { fn f() { self::g() } }",
    );
    check("src/cli/serve.rs", "use graphile_worker::{WorkerOptions, db::Session}; use super::args; use crate::cli::x;");
    check("src/capi/mod.rs", "use crate::options::X; unsafe { }");
}
