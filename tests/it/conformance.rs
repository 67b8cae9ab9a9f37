//! Runs the table of behaviours, tests/conformance/cases.json, through the binding of every language.
//! Knows no language: it sends commands to each language's adapter (tests/conformance/README.md), and reads the
//! database.
//!
//! A case has a name, which is a sentence, and steps. Each case has a database of its own. A step is one of:
//!
//! - `["add", "ok", "{}"]`: a command to the adapter, which must reply `ok`.
//! - `{"send": [...], "reply": ["true"]}`: the fields after `ok` must be these.
//! - `{"send": [...], "json": {"state": "ready"}}`: the fields after `ok` must be JSON that contains this. A list must
//!   have exactly the expected items.
//! - `{"send": [...], "as": "id"}`: stores the reply as `$id` for the following steps; `"as": ["a", "b"]` for several
//!   fields.
//! - `{"refused": "GW_ERR_CONFIG", "send": [...], "says": "priority", "sqlstate": "-"}`: the reply must be an error of
//!   this kind, whose text contains these words. With `"then": [...]`, this command may be the one that is refused.
//! - `{"sql": "select …", "is": "3"}`: the first column of every row, joined by `, `, must be this; `"as"` stores it.
//! - `{"eventually": "select …", "is": "3"}`: the same, retried for up to ten seconds.
//! - `{"exec": "update …"}`: executes any statements.
//! - `{"ran": ["ok:1:{}"]}`: waits until the tasks have made that many notes since the last `ran`, and compares them.
//!   With `"in any order": true` the order does not matter.
//! - `{"events": ["JobComplete"]}`: the same for events that the worker observes.
//! - `{"work": ["concurrency=1"]}`: a new worker with these options runs until no job is due, and must end without
//!   error.
//!
//! In expected texts, `*` matches any text (but not with `"in any order"`). In all texts, `$name` is a stored value,
//! and `%{ä*300}` is a text of 300 repetitions. `$no_database` and `$no_role` are stored at the start: the database's
//! URL with a name that does not exist. So are `$role`, a role that owns nothing, and `$as_role`, the URL for its
//! sessions. For C, `"is in c"` replaces `"is"`.
//!
//! `CONFORMANCE_CASE=words` runs only the cases with these words in their names.

use crate::examples::built;
use crate::harness::{Role, SOON, Started, TestDb};
use crossbeam_channel::{Receiver, Sender, unbounded};
use postgres::{Client, SimpleQueryMessage};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The longest time for one case, the end of its adapter included.
const PATIENCE: Duration = Duration::from_secs(20);

/// The number of cases of a language that run at once.
const AT_ONCE: usize = 4;

#[test]
fn rust() {
    hold("rust", &built("adapter"), &[]);
}

#[test]
#[ignore = "needs the adapters that `make test-bindings` builds"]
fn c() {
    hold("c", &adapter("adapter-c"), &[]);
}

#[test]
#[ignore = "needs the adapters that `make test-bindings` builds"]
fn cpp() {
    hold("cpp", &adapter("adapter-cpp"), &[]);
}

#[test]
#[ignore = "needs the adapters that `make test-bindings` builds"]
fn python() {
    hold("python", &adapter("adapter-python"), &[]);
}

#[test]
#[ignore = "needs the adapters that `make test-bindings` builds"]
fn python_asyncio() {
    hold("python_asyncio", &adapter("adapter-python"), &["--asyncio"]);
}

#[test]
#[ignore = "needs the adapters that `make test-bindings` builds"]
fn go() {
    hold("go", &adapter("adapter-go"), &[]);
}

/// Returns the path of an adapter that cargo does not build.
fn adapter(name: &str) -> PathBuf {
    let folder = std::env::var_os("GRAPHILE_WORKER_ADAPTERS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/adapters"));
    let path = folder.join(name);
    assert!(path.exists(), "{} does not exist; `make test-bindings` builds it", path.display());
    path
}

/// Runs the table with one language. Fails with every case that failed.
#[track_caller]
fn hold(language: &str, adapter: &Path, arguments: &[&str]) {
    let wanted = std::env::var("CONFORMANCE_CASE").unwrap_or_default();
    let cases: Vec<Case> = table().into_iter().filter(|case| case.name.contains(&wanted)).collect();
    assert!(!cases.is_empty(), "no case has {wanted:?} in its name");
    let (next, red) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut command = Command::new(adapter);
                    command.args(arguments);
                    let run = catch_unwind(AssertUnwindSafe(|| play(case, language, command, PATIENCE)));
                    if let Err(why) = run.unwrap_or_else(|_| Err("the harness panicked; see above".into())) {
                        red.lock().unwrap().push(format!("{}\n{why}", case.name));
                    }
                }
            });
        }
    });
    let red = red.into_inner().unwrap();
    assert!(red.is_empty(), "{language}: {} of {} cases failed\n\n{}", red.len(), cases.len(), red.join("\n\n"));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    steps: Vec<Value>,
}

fn table() -> Vec<Case> {
    serde_json::from_str(include_str!("../conformance/cases.json"))
        .expect("tests/conformance/cases.json is a list of cases")
}

/// Runs one case. If it fails, returns the step, the expected value and the value it got.
fn play(case: &Case, language: &str, command: Command, patience: Duration) -> Result<(), String> {
    let db = TestDb::new();
    let role = Role::new(&db, "");
    let mut sql = db.client();
    sql.batch_execute("set search_path = graphile_worker; set time zone 'UTC'").map_err(text)?;
    let mut stage = Stage {
        language,
        sql,
        adapter: Adapter::start(command, &db, patience),
        names: HashMap::from([
            ("no_database".into(), db.url().replace(db.name(), "gw_it_nowhere")),
            ("no_role".into(), with_role(&db.url(), "gw_it_no_role")),
            ("role".into(), role.name.clone()),
            ("as_role".into(), role.url()),
        ]),
    };
    for (place, step) in case.steps.iter().enumerate() {
        let done = Step::read(step).and_then(|step| stage.step(&step));
        done.map_err(|why| {
            format!("  step {}  {}\n{why}{}", place + 1, short(&step.to_string()), stage.adapter.last_words())
        })?;
    }
    stage.adapter.quit().map_err(|why| format!("  at its end\n{why}{}", stage.adapter.last_words()))
}

/// A step of the table.
#[derive(Deserialize)]
#[serde(untagged)]
enum Step {
    Command(Vec<String>),
    Send(Send),
    Refused(Refused),
    Sql(Sql),
    Exec(Exec),
    Notes(Notes),
    Work(Work),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    send: Vec<String>,
    reply: Option<Vec<String>>,
    json: Option<Value>,
    #[serde(rename = "as", default)]
    names: Names,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    refused: String,
    send: Vec<String>,
    then: Option<Vec<String>>,
    #[serde(default)]
    says: String,
    sqlstate: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sql {
    #[serde(alias = "eventually")]
    sql: String,
    is: Option<String>,
    #[serde(rename = "is in c")]
    is_in_c: Option<String>,
    #[serde(rename = "as", default)]
    names: Names,
    /// Whether the step has the key `eventually`. [`Step::read`] sets it.
    #[serde(skip)]
    eventually: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exec {
    exec: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notes {
    ran: Option<Vec<String>>,
    events: Option<Vec<String>>,
    #[serde(rename = "in any order", default)]
    in_any_order: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Work {
    work: Vec<String>,
}

/// No name, one, or several.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Names {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Names {
    fn list(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

impl Step {
    fn read(step: &Value) -> Result<Self, String> {
        let mut read =
            Self::deserialize(step).map_err(|_| "  is not a step that tests/it/conformance.rs knows".to_owned())?;
        if let Self::Sql(sql) = &mut read {
            sql.eventually = step.get("eventually").is_some();
        }
        Ok(read)
    }
}

/// The state of one running case.
struct Stage<'a> {
    language: &'a str,
    sql: Client,
    adapter: Adapter,
    /// The stored values, by name.
    names: HashMap<String, String>,
}

impl Stage<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Command(command) => self.tell(command).map(drop),
            Step::Send(step) => self.send(step),
            Step::Refused(step) => self.refused(step),
            Step::Sql(step) => self.look(step),
            Step::Exec(step) => {
                let statements = self.fill(&step.exec)?;
                self.sql.batch_execute(&statements).map_err(text)
            }
            Step::Notes(step) => match (&step.ran, &step.events) {
                (Some(expected), None) => self.noted("ran", expected, step.in_any_order),
                (None, Some(expected)) => self.noted("events", expected, step.in_any_order),
                _ => Err("  needs either ran or events".into()),
            },
            Step::Work(step) => {
                let worker = [vec!["worker".to_owned()], step.work.clone()].concat();
                self.tell(&worker)?;
                self.tell(&["start_once".to_owned()])?;
                let end = self.tell(&["wait".to_owned(), "15000".to_owned()])?;
                agree_all(&["ended".to_owned()], &end)
            }
        }
    }

    /// Sends a command to the adapter; returns the fields after `ok`, or those after `error`.
    fn ask(&mut self, command: &[String]) -> Result<Result<Vec<String>, Vec<String>>, String> {
        let words = self.fill_all(command)?;
        let reply = self.adapter.ask(&words)?;
        let mut fields = reply.split('\t').map(str::to_owned);
        match fields.next().as_deref() {
            Some("ok") => Ok(Ok(fields.collect())),
            Some("error") => Ok(Err(fields.collect())),
            _ => Err(format!("  the adapter's reply is neither ok nor error: {}", short(&reply))),
        }
    }

    /// The same for a reply that must be `ok`.
    fn tell(&mut self, command: &[String]) -> Result<Vec<String>, String> {
        self.ask(command)?.map_err(|error| differ("ok", &format!("error\t{}", error.join("\t"))))
    }

    fn send(&mut self, step: &Send) -> Result<(), String> {
        let answer = self.tell(&step.send)?;
        if let Some(expected) = &step.reply {
            agree_all(&self.fill_all(expected)?, &answer)?;
        }
        if let Some(expected) = &step.json {
            let expected = self.fill_json(expected)?;
            let got: Value = serde_json::from_str(&answer.join("\t")).map_err(|e| {
                format!("{}\n  which is not JSON: {e}", differ(&expected.to_string(), &answer.join("\t")))
            })?;
            if !has(&got, &expected) {
                return Err(differ(&format!("has {expected}"), &got.to_string()));
            }
        }
        self.remember(step.names.list(), answer)
    }

    fn refused(&mut self, step: &Refused) -> Result<(), String> {
        let mut answer = self.ask(&step.send)?;
        if let (Ok(_), Some(then)) = (&answer, &step.then) {
            answer = self.ask(then)?;
        }
        let sqlstate = step.sqlstate.as_deref().unwrap_or("*");
        let expected = format!("error\t{}\t{sqlstate}\t*{}*", step.refused, self.fill(&step.says)?);
        match answer {
            Ok(fields) => Err(differ(&expected, &format!("ok\t{}", fields.join("\t")))),
            Err(fields) => agree(&expected, &format!("error\t{}", fields.join("\t"))),
        }
    }

    fn look(&mut self, step: &Sql) -> Result<(), String> {
        let statement = self.fill(&step.sql)?;
        let is = step.is_in_c.as_ref().filter(|_| self.language == "c").or(step.is.as_ref());
        let expected = is.map(|is| self.fill(is)).transpose()?;
        let end = Instant::now() + SOON;
        loop {
            let got = self.select(&statement)?;
            match expected.as_deref().map_or(Ok(()), |expected| agree(expected, &got)) {
                Ok(()) => return self.remember(step.names.list(), vec![got]),
                Err(why) if !step.eventually || Instant::now() >= end => return Err(why),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn select(&mut self, statement: &str) -> Result<String, String> {
        let messages = self.sql.simple_query(statement).map_err(text)?;
        let cells = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("null")),
            _ => None,
        });
        Ok(cells.collect::<Vec<_>>().join(", "))
    }

    /// Collects notes until there are as many as expected, and compares them.
    fn noted(&mut self, command: &str, expected: &[String], in_any_order: bool) -> Result<(), String> {
        let mut expected = self.fill_all(expected)?;
        let (mut got, end) = (Vec::new(), Instant::now() + SOON);
        loop {
            got.extend(self.tell(&[command.to_owned()])?);
            if got.len() >= expected.len() || Instant::now() >= end {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if in_any_order {
            expected.sort();
            got.sort();
        }
        agree_all(&expected, &got)
    }

    fn remember(&mut self, names: &[String], values: Vec<String>) -> Result<(), String> {
        if !names.is_empty() && names.len() != values.len() {
            return Err(differ(&format!("{} values", names.len()), &values.join("\t")));
        }
        self.names.extend(names.iter().cloned().zip(values));
        Ok(())
    }

    /// Replaces `$name` and `%{text*times}` in a text of the table.
    fn fill(&self, template: &str) -> Result<String, String> {
        let (mut text, mut rest) = (String::new(), template);
        while let Some(at) = rest.find(['$', '%']) {
            let (before, after) = rest.split_at(at);
            let (filled, length) = self.filled(after)?;
            text.extend([before, &filled]);
            rest = &after[length..];
        }
        Ok(text + rest)
    }

    /// Returns the replacement for the start of a text, which is `$` or `%`, and the length of the part that it
    /// replaces.
    fn filled(&self, text: &str) -> Result<(String, usize), String> {
        if let Some((long, _)) = text.strip_prefix("%{").and_then(|long| long.split_once('}')) {
            let repeated = long.rsplit_once('*').and_then(|(piece, times)| Some(piece.repeat(times.parse().ok()?)));
            return Ok((
                repeated.ok_or_else(|| format!("  %{{{long}}} is not %{{text*times}}"))?,
                "%{}".len() + long.len(),
            ));
        }
        // SQL uses $$ for quotes and % in patterns.
        if let Some(sign) = ["$$", "%"].into_iter().find(|sign| text.starts_with(sign)) {
            return Ok((sign.to_owned(), sign.len()));
        }
        let end = text[1..].find(|c: char| !(c.is_ascii_lowercase() || c == '_')).map_or(text.len(), |at| at + 1);
        let value = self.names.get(&text[1..end]).ok_or_else(|| format!("  no value is stored as {}", &text[..end]))?;
        Ok((value.clone(), end))
    }

    fn fill_all(&self, templates: &[String]) -> Result<Vec<String>, String> {
        templates.iter().map(|template| self.fill(template)).collect()
    }

    fn fill_json(&self, template: &Value) -> Result<Value, String> {
        Ok(match template {
            Value::String(text) => Value::String(self.fill(text)?),
            Value::Array(items) => items.iter().map(|item| self.fill_json(item)).collect::<Result<Vec<_>, _>>()?.into(),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| Ok((name.clone(), self.fill_json(value)?)));
                Value::Object(fields.collect::<Result<_, String>>()?)
            }
            other => other.clone(),
        })
    }
}

/// A running adapter. It is killed when this value is dropped.
struct Adapter {
    process: Started,
    /// Dropped to let the adapter end.
    say: Option<Sender<String>>,
    heard: Receiver<String>,
    complaints: Arc<Mutex<String>>,
    /// Closed when all writers of stderr have ended.
    complained: Receiver<()>,
    end: Instant,
    patience: Duration,
}

impl Adapter {
    fn start(mut command: Command, db: &TestDb, patience: Duration) -> Self {
        command.env("DATABASE_URL", db.url()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Started::new(&mut command);
        let (mut stdin, stdout) = (process.0.stdin.take().unwrap(), BufReader::new(process.0.stdout.take().unwrap()));
        let mut stderr = process.0.stderr.take().unwrap();
        let (say, said) = unbounded::<String>();
        // Separate threads, so that an adapter that neither reads nor writes does not block the test.
        thread::spawn(move || {
            said.iter().try_for_each(|line| stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()))
        });
        let (tell, heard) = unbounded();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let complaints = Arc::new(Mutex::new(String::new()));
        let kept = complaints.clone();
        let (complains, complained) = unbounded();
        thread::spawn(move || {
            let _complains = complains;
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { process, say: Some(say), heard, complaints, complained, end: Instant::now() + patience, patience }
    }

    fn ask(&mut self, words: &[String]) -> Result<String, String> {
        let line = words.join("\t");
        if line.contains('\n') || words.iter().any(|word| word.contains('\t')) {
            return Err("  a command must fit into one line without tabs".into());
        }
        if let Some(say) = &self.say {
            let _ = say.send(line.clone() + "\n");
        }
        self.heard.recv_deadline(self.end).map_err(|error| match error {
            crossbeam_channel::RecvTimeoutError::Timeout => {
                format!("  the case has taken {:?}, waiting for the reply to: {}", self.patience, short(&line))
            }
            crossbeam_channel::RecvTimeoutError::Disconnected => {
                let ended = self.ended().map_or_else(|| "stdout closed".into(), |status| status.to_string());
                format!("  the adapter ended ({ended}) without a reply to: {}", short(&line))
            }
        })
    }

    /// Lets the adapter end. It must exit with status 0.
    fn quit(&mut self) -> Result<(), String> {
        if let Some(say) = self.say.take() {
            let _ = say.send("quit\n".into());
        }
        match self.ended() {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(differ("quits with status 0", &status.to_string())),
            None => Err(format!("  has not quit within the case's {:?}", self.patience)),
        }
    }

    /// Returns the adapter's exit status, or `None` if it does not end within the case's time.
    fn ended(&mut self) -> Option<ExitStatus> {
        loop {
            match self.process.0.try_wait() {
                Ok(None) if Instant::now() < self.end => thread::sleep(Duration::from_millis(5)),
                status => return status.ok().flatten(),
            }
        }
    }

    /// Kills the adapter, and returns the last lines of its stderr.
    fn last_words(&mut self) -> String {
        let _ = self.process.0.kill();
        let _ = self.complained.recv_timeout(Duration::from_secs(1));
        let complaints = self.complaints.lock().unwrap();
        let lines: Vec<&str> = complaints.lines().collect();
        let last = &lines[lines.len().saturating_sub(12)..];
        last.iter().map(|line| format!("\n  stderr    {}", short(line))).collect()
    }
}

/// Whether the text matches the pattern, in which `*` is any text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, mut rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    while let Some((piece, after)) = rest.split_once('*') {
        let Some(at) = text.find(piece) else { return false };
        (text, rest) = (&text[at + piece.len()..], after);
    }
    text.ends_with(rest)
}

/// Whether JSON contains the expected JSON.
fn has(got: &Value, expected: &Value) -> bool {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| got.get(name).is_some_and(|got| has(got, value)))
        }
        (Value::Array(got), Value::Array(expected)) => {
            got.len() == expected.len() && got.iter().zip(expected).all(|(got, expected)| has(got, expected))
        }
        // Stored values are texts.
        (Value::Number(got), Value::String(expected)) => fits(expected, &got.to_string()),
        (Value::String(got), Value::String(expected)) => fits(expected, got),
        _ => got == expected,
    }
}

fn agree(expected: &str, got: &str) -> Result<(), String> {
    if fits(expected, got) { Ok(()) } else { Err(differ(expected, got)) }
}

fn agree_all(expected: &[String], got: &[String]) -> Result<(), String> {
    let agree = expected.len() == got.len() && expected.iter().zip(got).all(|(expected, got)| fits(expected, got));
    if agree { Ok(()) } else { Err(differ(&expected.join("\t"), &got.join("\t"))) }
}

fn differ(expected: &str, got: &str) -> String {
    format!("  expected  {}\n  got       {}", short(expected), short(got))
}

/// Shortens a text for a message.
fn short(text: &str) -> String {
    let shown: String = text.replace('\t', " ⇥ ").chars().take(600).collect();
    let left = text.chars().count().saturating_sub(600);
    if left == 0 { shown } else { format!("{shown}… and {left} more characters") }
}

fn text(error: impl Display) -> String {
    format!("  {error:#}")
}

/// Returns the URL with another role and without a password.
fn with_role(url: &str, role: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{role}@{host}")
}

#[test]
fn every_case_has_a_unique_name_and_valid_steps() {
    let cases = table();
    let wrong: Vec<String> = cases
        .iter()
        .flat_map(|case| case.steps.iter().map(move |step| (case, step)))
        .filter(|(_, step)| Step::read(step).is_err())
        .map(|(case, step)| format!("{}: {step}", case.name))
        .collect();
    assert_eq!(wrong, [""; 0]);
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases have the same name");
}

#[test]
fn a_star_matches_any_text() {
    #[track_caller]
    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(fits(pattern, text), expected, "{pattern} and {text}");
    }
    check("a", "a", true);
    check("a", "ab", false);
    check("*", "", true);
    check("a*c", "abc", true);
    check("a*c", "abcd", false);
    check("*b*", "abc", true);
    check("*b*b*", "abc", false);
    check("a*a", "a", false);
}

#[test]
fn json_may_have_more_fields_but_not_more_items() {
    #[track_caller]
    fn check(got: &str, expected: &str, holds: bool) {
        let read = |text| serde_json::from_str(text).unwrap();
        assert_eq!(has(&read(got), &read(expected)), holds, "{got} and {expected}");
    }
    check(r#"{"a":1,"b":2}"#, r#"{"a":1}"#, true);
    check(r#"{"a":1}"#, r#"{"a":1,"b":2}"#, false);
    check(r#"[{"a":7}]"#, r#"[{"a":"7"}]"#, true);
    check("[1,2]", "[1]", false);
    check("null", r#""*""#, false);
}

/// Checks that a case fails with these words. The adapter is a script of sh.
#[track_caller]
fn red(script: &str, steps: &str, words: &[&str]) {
    let case = Case { name: "a case".into(), steps: serde_json::from_str(steps).unwrap() };
    let mut adapter = Command::new("sh");
    adapter.args(["-c", script]);
    let why = play(&case, "sh", adapter, Duration::from_millis(700)).expect_err("the case must fail");
    for word in words {
        assert!(why.contains(word), "{why}\ndoes not contain {word:?}");
    }
}

#[test]
fn a_failed_case_names_its_step_and_both_values() {
    let obedient = "while read -r line; do printf 'ok\\t7\\n'; done";
    let (steps, expected) = (r#"[["client"], {"send": ["add"], "reply": ["8"]}]"#, "expected  8\n  got       7");
    red(obedient, steps, &["step 2", r#""send":["add"]"#, expected]);
    red(obedient, r#"[{"refused": "GW_ERR_JSON", "send": ["add"]}]"#, &["error ⇥ GW_ERR_JSON", "ok ⇥ 7"]);
    red(obedient, r#"[{"sql": "select count(*) from jobs", "is": "1"}]"#, &["expected  1\n  got       0"]);
    red(obedient, r#"[{"sql": "select $id"}]"#, &["no value is stored as $id"]);
    red(obedient, r#"[{"send": ["add"], "repyl": ["7"]}]"#, &["not a step that"]);
    red(
        "read -r line; printf 'error\\tGW_ERR_JSON\\t-\\tno\\n'",
        r#"[["add"]]"#,
        &["expected  ok", "GW_ERR_JSON ⇥ - ⇥ no"],
    );
}

#[test]
fn an_adapter_that_hangs_or_dies_fails_the_case() {
    red("exec sleep 60", r#"[["client"]]"#, &["has taken 700ms", "client"]);
    red("echo oh dear >&2; exit 3", r#"[["client"]]"#, &["the adapter ended (exit status: 3)", "stderr    oh dear"]);
    red("read -r line; exit 4", "[]", &["expected  quits with status 0", "exit status: 4"]);
    red("exec sleep 60", "[]", &["has not quit"]);
}
