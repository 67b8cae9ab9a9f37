//! `make demo`: a private PostgreSQL, a trigger that enqueues, a worker with eight threads, and one SQL
//! query that checks every result. The input is the text of this checkout.

use graphile_worker::devdb::DevDb;
use graphile_worker::{Worker, WorkerContext, WorkerOptions};
use postgres::{Client, NoTls};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const THREADS: usize = 8;
/// The lines of a file that make one document.
const LINES: usize = 4;
/// The number of documents that one transaction inserts.
const BATCH: usize = 100;
/// One of this number of `count` jobs fails at its first attempt.
const FAILS: i64 = 50;
/// The demo fails if the jobs take longer.
const TIMEOUT: Duration = Duration::from_secs(60);

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const TABLES: &str = include_str!("demo/tables.sql");
const CHECK: &str = include_str!("demo/check.sql");

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let begin = Instant::now();
    let server = DevDb::start(Default::default())?;
    let mut db = Client::connect(&server.url(), NoTls)?;
    let version: String = db.query_one("show server_version", &[])?.get(0);
    println!("PostgreSQL {version}, private, fsync on: ready in {:.1} s", begin.elapsed().as_secs_f64());

    let watch = Arc::new(Watch::default());
    let worker = WorkerOptions::default()
        .database_url(&server.url())
        .concurrency(THREADS)
        .add_extension(watch.clone())
        .define_raw_job("count", count)
        .define_raw_job("add_up", add_up)
        .define_raw_job("summarise", summarise)
        .define_raw_job("publish", publish)
        .init()?;
    db.batch_execute(TABLES)?;

    let documents = read_checkout(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    println!("{} documents of {LINES} lines: inserting them, {THREADS} threads run jobs …\n", documents.len());
    let commits = thread::scope(|scope| {
        let run = scope.spawn(|| worker.run());
        let commits = insert(&mut db, &documents).and_then(|commits| {
            wait_until_done(&mut db, || run.is_finished())?;
            Ok(commits)
        });
        worker.request_shutdown();
        run.join().expect("run() does not panic")?;
        commits
    })?;

    report(&watch, &worker, &commits, &mut db)?;
    let differing = db.query(CHECK, &[])?;
    for row in differing.iter().take(10) {
        let [what, wanted, found] = [0, 1, 2].map(|column| row.get::<_, Option<String>>(column).unwrap_or_default());
        println!("  {what}: {wanted} in SQL, {found} by the jobs");
    }
    let overlaps = watch.overlaps.load(Ordering::Relaxed);
    match (differing.len(), overlaps) {
        (0, 0) => println!("check   one SQL query over all documents: every count, total and summary agrees"),
        (rows, _) => println!("check   FAILED: {rows} rows differ, {overlaps} jobs of one queue overlapped"),
    }
    println!("        {:.1} s in all", begin.elapsed().as_secs_f64());
    Ok(if differing.is_empty() && overlaps == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

// ---- the tasks ----

#[derive(Deserialize)]
struct Of {
    document: i64,
}

/// Counts the words and lines of one document.
fn count(ctx: WorkerContext) -> Outcome {
    let Of { document } = ctx.job().payload_as()?;
    Watch::of(&ctx).started(&ctx, document);
    if document % FAILS == 0 && ctx.job().attempts() == 1 {
        return Err("every fiftieth job fails once".into());
    }
    let mut db = ctx.connection()?;
    let body: String = db.query_one("select body from documents where id = $1", &[&document])?.get(0);
    let words = body.split_ascii_whitespace().count() as i64;
    let lines = body.lines().count() as i64;
    let longest = body.lines().map(|line| line.chars().count()).max().unwrap_or(0) as i64;
    let sql = "insert into counts values ($1, $2, $3, $4)";
    db.execute(sql, &[&document, &words, &lines, &longest])?;
    Ok(())
}

/// Adds one document to its folder's total: it reads, adds and writes, without a lock. Only the named queue
/// keeps two of these jobs from overwriting each other's total.
fn add_up(ctx: WorkerContext) -> Outcome {
    let Of { document } = ctx.job().payload_as()?;
    let watch = Watch::of(&ctx);
    watch.started(&ctx, document);
    let queue = ctx.job().job_queue_id().ok_or("not in a queue")?;
    if !watch.busy.lock().unwrap().insert(queue) {
        watch.overlaps.fetch_add(1, Ordering::Relaxed);
    }
    let outcome = add_without_lock(&ctx, document);
    watch.busy.lock().unwrap().remove(&queue);
    outcome
}

fn add_without_lock(ctx: &WorkerContext, document: i64) -> Outcome {
    let mut db = ctx.connection()?;
    let sql = "select d.folder, d.body, coalesce(t.documents, 0), coalesce(t.words, 0)
                 from documents d left join totals t on t.folder = d.folder where d.id = $1";
    let row = db.query_one(sql, &[&document])?;
    let (folder, body): (String, String) = (row.get(0), row.get(1));
    let documents = row.get::<_, i64>(2) + 1;
    let words = row.get::<_, i64>(3) + body.split_ascii_whitespace().count() as i64;
    let sql = "insert into totals values ($1, $2, $3)
               on conflict (folder) do update set documents = $2, words = $3";
    db.execute(sql, &[&folder, &documents, &words])?;
    Ok(())
}

/// Reads a whole folder again. It should run once after many inserts, not after each.
fn summarise(ctx: WorkerContext) -> Outcome {
    #[derive(Deserialize)]
    struct Of {
        folder: String,
    }
    let Of { folder } = ctx.job().payload_as()?;
    Watch::of(&ctx).started(&ctx, 0);
    let mut db = ctx.connection()?;
    let rows = db.query("select body from documents where folder = $1", &[&folder])?;
    let characters: usize = rows.iter().map(|row| row.get::<_, &str>(0).chars().count()).sum();
    let sql = "insert into summaries values ($1, $2, $3)
               on conflict (folder) do update set documents = $2, characters = $3";
    db.execute(sql, &[&folder, &(rows.len() as i64), &(characters as i64)])?;
    Ok(())
}

/// Always fails.
fn publish(ctx: WorkerContext) -> Outcome {
    Watch::of(&ctx).started(&ctx, 0);
    Err("there is no publisher".into())
}

// ---- the input ----

struct Document {
    folder: String,
    path: String,
    body: String,
}

/// Returns every text file below `root`, split into documents. Leaves out hidden and generated folders.
fn read_checkout(root: &Path) -> Result<Vec<Document>, Box<dyn Error>> {
    let (mut folders, mut documents) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        let mut entries = fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
            if name.starts_with('.') || ["target", "node_modules", "Cargo.lock"].contains(&&*name) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            // Files that are not text are not read.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let path = path.strip_prefix(root)?;
            let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            for lines in text.replace('\0', "").lines().collect::<Vec<_>>().chunks(LINES) {
                documents.push(Document {
                    folder: folder.display().to_string(),
                    path: path.display().to_string(),
                    body: lines.iter().flat_map(|line| [line, "\n"]).collect(),
                });
            }
        }
    }
    Ok(documents)
}

/// Inserts the documents; returns the time of each batch's commit.
fn insert(db: &mut Client, documents: &[Document]) -> Result<Vec<Instant>, Box<dyn Error>> {
    let insert = db.prepare("insert into documents (folder, path, body) values ($1, $2, $3)")?;
    let mut commits = Vec::new();
    for batch in documents.chunks(BATCH) {
        let mut transaction = db.transaction()?;
        for Document { folder, path, body } in batch {
            transaction.execute(&insert, &[folder, path, body])?;
        }
        transaction.commit()?;
        commits.push(Instant::now());
    }
    Ok(commits)
}

/// Waits until no job is left that runs or will run again, retries included.
fn wait_until_done(db: &mut Client, stopped: impl Fn() -> bool) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let left = "select count(*) from graphile_worker.jobs where attempts < max_attempts or locked_at is not null";
    while db.query_one(left, &[])?.get::<_, i64>(0) > 0 {
        if stopped() || start.elapsed() > TIMEOUT {
            return Err("the worker stopped or the time is over, but jobs are left".into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

// ---- the report ----

/// Records every start of a handler.
#[derive(Default)]
struct Watch {
    starts: Mutex<Vec<Start>>,
    /// The queues that have a running job.
    busy: Mutex<HashSet<i32>>,
    overlaps: AtomicUsize,
}

struct Start {
    task: String,
    attempt: i16,
    document: i64,
    at: Instant,
}

impl Watch {
    fn of(ctx: &WorkerContext) -> &Arc<Self> {
        ctx.get_ext().expect("given to the options")
    }

    fn started(&self, ctx: &WorkerContext, document: i64) {
        let (task, attempt) = (ctx.job().task_identifier().to_owned(), ctx.job().attempts());
        self.starts.lock().unwrap().push(Start { task, attempt, document, at: Instant::now() });
    }
}

fn report(watch: &Watch, worker: &Worker, commits: &[Instant], db: &mut Client) -> Result<(), Box<dyn Error>> {
    let starts = watch.starts.lock().unwrap();
    let failed = db.query("select task_identifier, last_error from graphile_worker.jobs", &[])?;
    let mut tasks: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for start in starts.iter() {
        tasks.entry(&start.task).or_default()[usize::from(start.attempt > 1)] += 1;
    }
    println!("{:<12}{:>8}{:>10}{:>20}", "task", "jobs", "retries", "failed permanently");
    for (task, [jobs, retries]) in &tasks {
        let for_good = failed.iter().filter(|row| row.get::<_, &str>(0) == *task).count();
        println!("{task:<12}{jobs:>8}{retries:>10}{for_good:>20}");
    }

    // From the first start to the last first attempt: the rate must not include the wait for retries.
    let work: Vec<&Start> = starts.iter().filter(|start| start.document > 0 && start.attempt == 1).collect();
    let (first, last) = (work.iter().map(|start| start.at).min(), work.iter().map(|start| start.at).max());
    let seconds = last.zip(first).map_or(0.0, |(last, first)| (last - first).as_secs_f64());
    let inserting = commits[commits.len() - 1] - commits[0];
    let (rate, inserting) = (work.len() as f64 / seconds.max(0.001), inserting.as_secs_f64());
    println!("\nrate    {rate:.0} jobs/s, each with its own writes; inserting and enqueueing took {inserting:.1} s");
    let mut waits: Vec<Duration> = work
        .iter()
        .filter(|start| start.task == "count")
        .map(|start| start.at.saturating_duration_since(commits[(start.document as usize - 1) / BATCH]))
        .collect();
    waits.sort();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!("start   p50 {:.1} ms, p99 {:.1} ms after the commit of a hundred rows at once", at(50), at(99));
    let summaries = tasks.get("summarise").map_or(0, |[jobs, _]| *jobs);
    println!("keys    {} summaries added, {summaries} run", waits.len());
    println!("queues  {} overlaps", watch.overlaps.load(Ordering::Relaxed));
    let stats = worker.stats();
    println!(
        "worker  {} claims and {} writes for {} jobs, {} lost",
        stats.claims, stats.settlements, stats.claimed, stats.lost
    );
    if let Some(reason) = failed.first().and_then(|row| row.get::<_, Option<&str>>(1)) {
        println!("failed  permanently failed jobs stay in the table, with their error: {reason}");
    }
    Ok(())
}
