//! Large payloads, slow links, little memory: a worker goes on, keeps the order of its jobs, and does not exceed its
//! budget.

use crate::harness::{Frozen, Running, SOON, Tally, TestDb, eventually, log_lines};
use crate::proxy::Proxy;
use crossbeam_channel::bounded;
use graphile_worker::{
    JobFetch, JobSpec, ListJobsOptions, LocalQueueConfig, RawJob, WorkerContext, WorkerOptions, WorkerRecoveryConfig,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KIB: usize = 1024;

/// The statement that reads payloads.
const PAYLOADS: &str = "-- The payloads of jobs";

/// How long a slow link may take on a busy machine.
const LATE: Duration = Duration::from_secs(120);

/// Shorter than the default, so that a slow link exceeds it after a short time.
const DEADLINE: Duration = Duration::from_secs(3);

/// Adds jobs with payloads of `kib` KiB that PostgreSQL cannot compress.
fn add(db: &TestDb, task: &str, jobs: usize, kib: usize, arguments: &str) {
    db.execute(&format!(
        "with text as materialized (
           select string_agg(md5(random()::text), '') as text from generate_series(1, {kib} * 1024 / 32))
         select graphile_worker.add_job('{task}', to_json(n || text) {arguments})
           from text, generate_series(1, {jobs}) n"
    ));
}

/// The same, with payloads that PostgreSQL compresses to a hundredth of their size.
fn add_compressible(db: &TestDb, task: &str, jobs: usize, kib: usize) {
    db.execute(&format!(
        "select graphile_worker.add_job('{task}', to_json(n || repeat('x', {kib} * 1024)))
           from generate_series(1, {jobs}) n"
    ));
}

#[test]
fn urgent_jobs_overtake_payloads_slower_than_the_deadline() {
    let db = TestDb::new();
    let tally = Tally::default();
    db.execute("select graphile_worker.add_job('work') from generate_series(1, 600)");
    add(&db, "work", 120, 256, "");
    let proxy = Proxy::to_server_of(&db.url());
    proxy.limit(4 * KIB * KIB);
    let (counting, left_at_urgent) = (tally.clone(), Arc::new(AtomicUsize::new(0)));
    let left = left_at_urgent.clone();
    let options = db.worker().database_url(&proxy.url(&db.url())).database_timeout(DEADLINE);
    let options = options.define_raw_job("work", move |ctx: WorkerContext| counting.count(ctx.job().id()));
    let counting = tally.clone();
    let options = options.define_raw_job("urgent", move |_| left.store(720 - counting.jobs(), Ordering::SeqCst));
    let running = Running::start(options);
    eventually(LATE, || tally.jobs() >= 605);
    db.add("'urgent', priority => -1");
    eventually(LATE, || db.jobs() == 0);
    assert_eq!((tally.jobs(), tally.repeated()), (720, vec![]));
    assert!(left_at_urgent.load(Ordering::SeqCst) > 0, "the urgent job ran last");
    let stats = running.worker.stats();
    assert_eq!((stats.lost, stats.failed), (0, 0), "{stats:?}");
}

#[test]
fn a_payload_is_read_past_the_deadline_while_bytes_arrive() {
    let db = TestDb::new();
    let (tally, size) = (Tally::default(), Arc::new(AtomicUsize::new(0)));
    add(&db, "work", 1, 12 * KIB, "");
    let proxy = Proxy::to_server_of(&db.url());
    proxy.limit(2 * KIB * KIB);
    let (counting, sink) = (tally.clone(), size.clone());
    let options = db.worker().database_url(&proxy.url(&db.url())).database_timeout(DEADLINE);
    let running = Running::start(options.define_raw_job("work", move |ctx: WorkerContext| {
        sink.store(ctx.payload().len(), Ordering::SeqCst);
        counting.count(ctx.job().id());
    }));
    eventually(LATE, || db.jobs() == 0);
    assert_eq!((tally.runs(), running.worker.stats().lost), (1, 0));
    assert_eq!(size.load(Ordering::SeqCst), 12 * KIB * KIB + 3);
}

/// The server's own limit would end a long reply, however steadily its bytes arrive.
#[test]
fn no_limit_of_the_server_ends_a_claim() {
    let db = TestDb::new();
    db.execute(&format!(
        "alter database {} set statement_timeout = '7s';
         create table public.limits (role text, value text);
         create function public.note_limit() returns trigger language plpgsql as $$
         begin
           insert into public.limits
             values (current_setting('application_name'), current_setting('statement_timeout'));
           return new;
         end $$;
         create trigger note_limit before update on graphile_worker._private_jobs
           for each row execute function public.note_limit()",
        db.name()
    ));
    db.add("'work'");
    db.worker().define_raw_job("work", |_| ()).init().unwrap().run_once().unwrap();
    let limits: Vec<String> = db.all("select role || ' ' || value from public.limits");
    assert_eq!(limits, ["graphile-worker:fetch 0"]);
}

#[test]
fn held_payloads_stay_within_the_budget() {
    for compressible in [false, true] {
        let db = TestDb::new();
        match compressible {
            true => add_compressible(&db, "work", 100, 100),
            false => add(&db, "work", 100, 100, ""),
        }
        let tally = Tally::default();
        let (release, wait) = bounded::<()>(0);
        let counting = tally.clone();
        let queue = LocalQueueConfig::default().with_size(100);
        let options = db.worker().concurrency(1).local_queue(queue).max_held_bytes(1000 * KIB);
        let running = Running::start(options.define_raw_job("work", move |ctx: WorkerContext| {
            counting.count(ctx.job().id());
            let _ = wait.recv_timeout(LATE);
        }));
        // Some are held and one runs: the others, about ninety, were given back.
        let mut locked = 0;
        eventually(SOON, || {
            let stats = running.worker.stats();
            locked = db.locks();
            stats.held >= 5 && stats.held + stats.running == stats.in_flight && locked == stats.in_flight as i64
        });
        assert!(locked <= 11, "{locked} jobs are locked, compressible: {compressible}");
        drop(release);
        eventually(LATE, || db.jobs() == 0);
        assert_eq!((tally.jobs(), tally.repeated()), (100, vec![]));
        assert_eq!(running.worker.stats().lost, 0);
    }
}

/// A claim leaves these payloads out, because each has a stored size of more than 100 KiB. Only a read shows that it is
/// 2 MiB.
#[test]
fn payloads_that_grow_when_read_stay_within_the_budget() {
    const JOBS: usize = 20;
    // One runs and four fit. The first read of a claim may exceed the budget by one payload.
    const MOST: usize = 1 + 4 + 1;
    let db = TestDb::new();
    db.execute(&format!(
        "with text as materialized (
           select repeat('x', 1948 * 1024) || string_agg(md5(random()::text), '') as text
             from generate_series(1, 100 * 1024 / 32))
         select graphile_worker.add_job('work', to_json(n || text)) from text, generate_series(1, {JOBS}) n"
    ));
    let stored: i32 = db.one("select max(pg_column_size(payload)) from graphile_worker._private_jobs");
    assert!((100 * KIB..200 * KIB).contains(&(stored as usize)), "{stored} bytes are stored");
    let tally = Tally::default();
    let (release, wait) = bounded::<()>(0);
    let counting = tally.clone();
    let queue = LocalQueueConfig::default().with_size(100);
    let options = db.worker().concurrency(1).local_queue(queue).max_held_bytes(10 * KIB * KIB);
    let read = Arc::new(AtomicUsize::new(0));
    let counting_reads = read.clone();
    let options = options.on(JobFetch, move |_| {
        counting_reads.fetch_add(1, Ordering::SeqCst);
    });
    let running = Running::start(options.define_raw_job("work", move |ctx: WorkerContext| {
        counting.count(ctx.job().id());
        let _ = wait.recv_timeout(LATE);
    }));
    for ended in 0..JOBS {
        // The jobs that are locked are held or run: the others were given back.
        eventually(LATE, || {
            let kept = read.load(Ordering::SeqCst).saturating_sub(ended);
            assert!(kept <= MOST, "{kept} jobs are held at once");
            kept >= (JOBS - ended).min(3) && db.locks() == kept as i64
        });
        release.send_timeout((), LATE).unwrap();
        eventually(LATE, || running.worker.stats().completed == ended as u64 + 1);
    }
    assert_eq!((tally.jobs(), tally.repeated(), db.jobs()), (JOBS, vec![], 0));
    assert_eq!(running.worker.stats().lost, 0);
}

#[test]
fn a_job_that_is_larger_than_the_budget_runs() {
    let db = TestDb::new();
    let tally = Tally::default();
    add(&db, "work", 5, 100, "");
    db.execute("select graphile_worker.add_job('work') from generate_series(1, 100)");
    let counting = tally.clone();
    let options = db.worker().max_held_bytes(1);
    let worker = options.define_raw_job("work", move |ctx: WorkerContext| counting.count(ctx.job().id()));
    worker.init().unwrap().run_once().unwrap();
    assert_eq!((tally.jobs(), tally.repeated(), db.jobs()), (105, vec![], 0));
}

#[test]
fn large_and_small_jobs_run_in_their_order() {
    let db = TestDb::new();
    for n in 1..=40 {
        let kib = if n % 4 == 0 { 100 } else { 0 };
        add(&db, "work", 1, kib, &format!(", priority => {n}"));
    }
    let order: Arc<Mutex<Vec<i16>>> = Arc::default();
    let sink = order.clone();
    let options = db.worker().concurrency(1).local_queue(LocalQueueConfig::default());
    let options = options.define_raw_job("work", move |ctx: WorkerContext| {
        let size = ctx.payload().len();
        assert!(if ctx.job().priority() % 4 == 0 { size > 100 * KIB } else { size < 10 });
        sink.lock().unwrap().push(ctx.job().priority());
    });
    options.init().unwrap().run_once().unwrap();
    assert_eq!(*order.lock().unwrap(), (1..=40).collect::<Vec<_>>());
    assert_eq!(db.jobs(), 0);
}

#[test]
fn an_unreadable_payload_is_named_and_delays_no_other_job() {
    let db = TestDb::new();
    drop(log_lines());
    let tally = Tally::default();
    add(&db, "work", 1, 300, ", priority => -1");
    let bad: i64 = db.one("select id from graphile_worker._private_jobs");
    db.execute("select graphile_worker.add_job('work') from generate_series(1, 50)");
    let proxy = Proxy::to_server_of(&db.url());
    proxy.drop_reply_to(usize::MAX, |sent| sent.sql.starts_with(PAYLOADS));
    let counting = tally.clone();
    let options = db.worker().database_url(&proxy.url(&db.url()));
    let running =
        Running::start(options.define_raw_job("work", move |ctx: WorkerContext| counting.count(ctx.job().id())));
    eventually(LATE, || db.jobs() == 1 && db.locks() == 0);
    assert_eq!((tally.jobs(), tally.repeated()), (50, vec![]));
    let waits = format!("select run_at > now() and attempts = 0 from graphile_worker._private_jobs where id = {bad}");
    assert!(db.one::<bool>(&waits), "the job waits, and its attempt does not count");
    let worker_id = running.worker.worker_id().unwrap();
    let said = |text: &str| log_lines().iter().any(|line| line.of == worker_id && line.text.contains(text));
    assert!(said("the payload of a job cannot be read"));
    proxy.drop_reply_to(0, |_| false);
    db.execute("update graphile_worker._private_jobs set run_at = now()");
    eventually(LATE, || db.jobs() == 0);
    assert_eq!((tally.jobs(), tally.repeated()), (51, vec![]));
}

/// Freezes the server's fetch session before it gets the `nth` statement that reads payloads.
struct HeldRead {
    /// How many of these statements were sent.
    reads: Arc<AtomicUsize>,
    /// The other statements that a lease session sent, in their order.
    lease: Arc<Mutex<Vec<String>>>,
    frozen: Arc<Mutex<Option<Frozen>>>,
}

impl HeldRead {
    fn new(db: &TestDb, proxy: &Proxy, nth: usize) -> Self {
        let this = Self { reads: Arc::default(), lease: Arc::default(), frozen: Arc::default() };
        let (reads, lease, frozen) = (this.reads.clone(), this.lease.clone(), this.frozen.clone());
        let mut client = db.client();
        proxy.drop_reply_to(1, move |sent| {
            if sent.application_name == "graphile-worker:lease" {
                lease.lock().unwrap().push(sent.sql.to_owned());
            }
            if sent.sql.starts_with(PAYLOADS) && reads.fetch_add(1, Ordering::SeqCst) + 1 == nth {
                let mut pid = None;
                // A process that waits for its client holds nothing that others need.
                eventually(SOON, || {
                    let sql = "select pid from pg_stat_activity
                                where application_name = 'graphile-worker:fetch' and wait_event = 'ClientRead'";
                    pid = client.query_opt(sql, &[]).unwrap().map(|row| row.get(0));
                    pid.is_some()
                });
                *frozen.lock().unwrap() = pid.map(Frozen::new);
            }
            false
        });
        this
    }

    #[track_caller]
    fn wait(&self) {
        eventually(LATE, || self.frozen.lock().unwrap().is_some());
    }

    fn release(&self) {
        self.frozen.lock().unwrap().take();
    }
}

#[test]
fn a_job_whose_payload_is_being_read_is_left_alone() {
    let db = TestDb::alone();
    let tally = Tally::default();
    add(&db, "work", 1, 300, "");
    let proxy = Proxy::to_server_of(&db.url());
    let read = HeldRead::new(&db, &proxy, 1);
    let counting = tally.clone();
    let beats = WorkerRecoveryConfig::default().heartbeat_interval(Duration::from_millis(20));
    let options = db.worker().database_url(&proxy.url(&db.url())).database_timeout(LATE).worker_recovery(beats);
    // Few connections give each role one session.
    let options = options.max_pg_conn(8);
    let running =
        Running::start(options.define_raw_job("work", move |ctx: WorkerContext| counting.count(ctx.job().id())));
    read.wait();
    for _ in 0..2 {
        // A failed heartbeat makes lease compare the worker's jobs with the database.
        eventually(SOON, || db.backends("lease").first().is_some_and(|&pid| db.terminate(pid)));
        read.lease.lock().unwrap().clear();
        // The next statement after the comparison shows that the comparison is over.
        eventually(LATE, || {
            let sent = read.lease.lock().unwrap();
            let compared = sent.iter().position(|sql| sql.starts_with("-- Returns the jobs that this worker holds"));
            compared.is_some_and(|at| sent[at..].iter().any(|sql| sql.contains("heartbeat")))
        });
    }
    assert_eq!((tally.runs(), read.reads.load(Ordering::SeqCst)), (0, 1), "the payload is still being read");
    assert_eq!(db.locks(), 1);
    read.release();
    eventually(LATE, || db.jobs() == 0);
    let stats = running.worker.stats();
    assert_eq!((tally.runs(), read.reads.load(Ordering::SeqCst)), (1, 1));
    assert_eq!((stats.lost, stats.reconciled), (0, 0), "{stats:?}");
}

#[test]
fn a_stop_gives_back_jobs_whose_payloads_were_not_read() {
    let db = TestDb::alone();
    let tally = Tally::default();
    add(&db, "work", 40, 512, "");
    let proxy = Proxy::to_server_of(&db.url());
    // The job of the first read runs, and that of the second is held. The stop comes while the third read is in progress.
    let read = HeldRead::new(&db, &proxy, 3);
    let (release, wait) = bounded::<()>(0);
    let counting = tally.clone();
    let options = db.worker().database_url(&proxy.url(&db.url())).database_timeout(LATE).shutdown_grace_period(LATE);
    // Few connections give each role one session.
    let options = options.concurrency(1).local_queue(LocalQueueConfig::default()).max_pg_conn(8);
    let running = Running::start(options.define_raw_job("work", move |ctx: WorkerContext| {
        counting.count(ctx.job().id());
        let _ = wait.recv_timeout(LATE);
    }));
    read.wait();
    assert_eq!(db.locks(), 40);
    running.worker.request_shutdown();
    // The stop has begun when held jobs have been given back.
    eventually(SOON, || db.locks() < 40);
    read.release();
    drop(release);
    running.stop().0.unwrap();
    assert_eq!(read.reads.load(Ordering::SeqCst), 3, "no payload is read after the stop has begun");
    assert_eq!((tally.runs(), db.jobs(), db.locks()), (1, 39, 0));
    assert_eq!(db.one::<i64>("select coalesce(sum(attempts), 0)::bigint from graphile_worker._private_jobs"), 0);
}

#[test]
fn long_failures_are_written_over_a_slow_link() {
    const JOBS: usize = 400;
    let db = TestDb::new();
    db.execute(&format!("select graphile_worker.add_job('work', max_attempts => 1) from generate_series(1, {JOBS})"));
    let proxy = Proxy::to_server_of(&db.url());
    proxy.limit(4 * KIB * KIB);
    let options = db.worker().database_url(&proxy.url(&db.url())).database_timeout(DEADLINE);
    let options = options.fail_job_batch_delay(Duration::from_secs(1));
    let running = Running::start(options.define_raw_job("work", |_| Err("x".repeat(64 * KIB))));
    eventually(LATE, || running.worker.stats().failed == JOBS as u64);
    let stats = running.worker.stats();
    assert_eq!(stats.lost, 0, "{stats:?}");
    // A statement writes about a megabyte.
    assert!(stats.settle_sizes.max() <= 17, "{stats:?}");
    let written = "select count(*) from graphile_worker._private_jobs where length(last_error) = 65536";
    assert_eq!(db.one::<i64>(written), JOBS as i64);
}

#[test]
fn many_large_jobs_are_added_over_a_slow_link() {
    let db = TestDb::new();
    let proxy = Proxy::to_server_of(&db.url());
    let utils = graphile_worker::WorkerUtils::connect(&proxy.url(&db.url())).unwrap().timeout(Duration::from_secs(1));
    proxy.limit(8 * KIB * KIB);
    let payload = serde_json::json!("x".repeat(512 * KIB)).to_string();
    let job = RawJob { identifier: "work".into(), payload, spec: JobSpec::new() };
    assert_eq!(utils.add_raw_jobs(vec![job; 16]).unwrap().len(), 16);
    assert_eq!(db.jobs(), 16);
}

#[test]
fn large_jobs_are_listed_over_a_slow_link() {
    let db = TestDb::new();
    add(&db, "work", 40, 512, "");
    let proxy = Proxy::to_server_of(&db.url());
    let utils = graphile_worker::WorkerUtils::connect(&proxy.url(&db.url())).unwrap().timeout(DEADLINE);
    proxy.limit(4 * KIB * KIB);
    assert_eq!(utils.list_jobs(&ListJobsOptions::default()).unwrap().len(), 40);
}

#[test]
fn a_budget_of_zero_is_refused() {
    let options = WorkerOptions::default().max_held_bytes(0).define_raw_job("t", |_| ());
    assert_eq!(options.init().err().unwrap().to_string(), "max_held_bytes: 0 is fewer than 1");
}
