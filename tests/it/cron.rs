//! Crontab entries add exactly one job a tick. The clock of these databases is a row of a table, so killed and
//! restarted processes share it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::unbounded;
use graphile_worker::{
    BeforeJobSchedule, Cron, CronJobScheduled, CronTick, CrontabFill, ErrorKind, IntoTaskHandlerResult, JobKeyMode,
    JobScheduleResult, TaskHandler, WorkerContext, WorkerOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::harness::{Line, Running, SOON, TestDb, eventually, log_lines};

#[derive(Serialize, Deserialize)]
struct Report {
    kind: String,
}

impl TaskHandler for Report {
    const IDENTIFIER: &'static str = "report";
    fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {}
}

/// A database whose `now()` returns the time in a table, in every session.
pub struct Clocked(pub TestDb);

impl Clocked {
    fn at(db: TestDb, time: &str) -> Self {
        db.execute(
            "alter function pg_catalog.now() rename to now_of_the_machine;
             create table public.clock (at timestamptz not null);
             create function pg_catalog.now() returns timestamptz language sql stable as 'select at from public.clock'",
        );
        db.execute(&format!("insert into public.clock values ('{time}')"));
        Self(db)
    }

    pub fn new(time: &str) -> Self {
        Self::at(TestDb::new(), time)
    }

    /// Sets the clock. A clock one millisecond before a minute is read again every other millisecond, because the wait
    /// for that minute is so short.
    pub fn set(&self, time: &str) {
        self.0.execute(&format!("update public.clock set at = '{time}'"));
    }

    /// The options of a worker that runs none of cron's jobs, so that a test can count them.
    fn idle(&self) -> WorkerOptions {
        self.0.worker().concurrency(1).define_raw_job("nothing", |_: WorkerContext| ())
    }

    pub fn scheduler(&self, crontab: &str) -> Running {
        Running::start(self.idle().with_cron(crontab).unwrap())
    }

    pub fn known(&self) -> i64 {
        self.0.one("select count(*) from graphile_worker._private_known_crontabs")
    }

    /// Waits until every tick up to the clock's minute is decided.
    #[track_caller]
    fn settled(&self) {
        let sql = "select count(*) > 0 and bool_and(decided_until >= date_trunc('minute', now()))
                     from graphile_worker._native_crontabs";
        eventually(SOON, || self.0.one::<Option<bool>>(sql) == Some(true));
    }

    /// The `run_at` times of a task's jobs, as day and `HH:MM` in UTC.
    pub fn ticks(&self, task: &str) -> Vec<String> {
        let sql = "select to_char(run_at at time zone 'utc', 'DD HH24:MI') from graphile_worker.jobs
                    where task_identifier = $1 order by run_at, id";
        self.0.rows_with(sql, &[&task]).iter().map(|row| row.get(0)).collect()
    }

    fn payload(&self) -> Value {
        self.0.one("select payload from graphile_worker._private_jobs order by id desc limit 1")
    }
}

#[test]
fn a_tick_adds_one_job_with_all_options_of_its_entry() {
    let db = Clocked::new("2026-03-02 07:59:59.999Z");
    let entry = Cron::daily_at::<Report>(8, 0).unwrap().fill(CrontabFill::hours(1)).id("mornings").queue("slow");
    let entry = entry.priority(-3).max_attempts(4).job_key("k").job_key_mode(JobKeyMode::PreserveRunAt);
    let entry = entry.payload(Report { kind: "sales".into() }).unwrap();
    let _running = Running::start(db.idle().with_cron(entry));
    eventually(SOON, || db.known() == 1);
    db.set("2026-03-02 08:00:59.999Z");
    eventually(SOON, || db.0.jobs() == 1);
    db.settled();
    let row: String = db.0.one(
        "select concat_ws(' ', task_identifier, queue_name, priority, max_attempts, key, run_at at time zone 'utc', revision)
           from graphile_worker.jobs",
    );
    assert_eq!(row, "report slow -3 4 k 2026-03-02 08:00:00 0");
    assert_eq!(
        db.payload(),
        json!({"kind": "sales", "_cron": {"ts": "2026-03-02T08:00:00.000Z", "backfilled": false}})
    );
    let known: Vec<String> = db.0.all("select identifier from graphile_worker._private_known_crontabs");
    assert_eq!(known, ["mornings"]);
}

#[test]
fn an_entry_runs_its_task() {
    let db = Clocked::new("2026-03-02 07:59:59.999Z");
    let (sender, ran) = std::sync::mpsc::channel();
    let worker =
        db.0.worker().poll_interval(Duration::from_millis(20)).define_raw_job("t", move |ctx: WorkerContext| {
            sender.send(String::from_utf8(ctx.payload().to_vec()).unwrap()).unwrap();
        });
    let _running = Running::start(worker.with_cron("* * * * * t").unwrap());
    eventually(SOON, || db.known() == 1);
    db.set("2026-03-02 08:00:30Z");
    assert!(ran.recv_timeout(SOON).unwrap().contains(r#""ts":"2026-03-02T08:00:00.000Z""#));
    eventually(SOON, || db.0.jobs() == 0);
}

#[test]
fn a_new_entry_is_recorded_and_backfills_nothing() {
    let db = Clocked::new("2026-03-02 08:00:30Z");
    let running = db.scheduler("* * * * * t ?fill=1d");
    db.settled();
    running.stop().0.unwrap();
    assert_eq!(db.0.jobs(), 0);
    let known: bool =
        db.0.one("select last_execution is null and known_since = now() from graphile_worker._private_known_crontabs");
    assert!(known);
}

#[track_caller]
fn backfills(known: &str, crontab: &str, expected: &[&str]) {
    let db = Clocked::new("2026-03-02 08:00:30Z");
    db.0.execute(&format!("insert into graphile_worker._private_known_crontabs values ('t', {known})"));
    let running = db.scheduler(crontab);
    db.settled();
    running.stop().0.unwrap();
    assert_eq!(db.ticks("t"), expected);
    if !expected.is_empty() {
        assert_eq!(db.payload()["_cron"]["backfilled"], json!(true));
    }
}

#[test]
fn missed_ticks_are_backfilled_within_fill_and_since_known() {
    let long = "'2026-01-01Z', '2026-02-27 00:00Z'";
    backfills(long, "0 */4 * * * t ?fill=5h", &["02 04:00", "02 08:00"]);
    let day = ["01 08:00", "01 12:00", "01 16:00", "01 20:00", "02 00:00", "02 04:00", "02 08:00"];
    backfills(long, "0 */4 * * * t ?fill=25h", &day);
    backfills("'2026-01-01Z', '2026-03-02 00:00Z'", "0 */4 * * * t ?fill=25h", &["02 04:00", "02 08:00"]);
    backfills("'2026-03-02 04:00Z', null", "0 */4 * * * t ?fill=25h", &["02 04:00", "02 08:00"]);
    // The identifier decides, not the task.
    backfills("'2026-01-01Z', null), ('other', now(), null", "0 */4 * * * t ?id=other&fill=25h", &[]);
    // Without `fill`, nothing is backfilled after a downtime.
    backfills(long, "* * * * * t", &[]);
}

#[test]
fn a_restart_loses_no_tick_and_a_downtime_backfills_nothing() {
    let db = Clocked::new("2026-03-02 08:00:30Z");
    let restart = |time: &str| {
        db.set(time);
        let running = db.scheduler("0 * * * * t");
        db.settled();
        running.stop().0.unwrap();
    };
    restart("2026-03-02 08:58:30Z");
    restart("2026-03-02 09:03:20Z");
    assert_eq!(db.ticks("t"), ["02 09:00"]);
    restart("2026-03-02 10:30:00Z");
    assert_eq!(db.ticks("t"), ["02 09:00"]);
}

#[test]
fn clock_jumps_neither_repeat_nor_skip_ticks() {
    let db = Clocked::new("2026-03-02 08:00:59.999Z");
    let (_one, _other) = (db.scheduler("*/20 * * * * t"), db.scheduler("*/20 * * * * t"));
    // A scheduler that starts after a jump has nothing to backfill, and may take a tick before the other has.
    let begun = "select count(*) = 2 from pg_stat_activity where datname = current_database()
                    and application_name = 'graphile-worker:cron' and query like '-- Notes that all ticks%'";
    eventually(SOON, || db.0.one::<bool>(begun));
    db.settled();
    for time in ["08:20:59.999Z", "07:39:59.999Z", "08:10:59.999Z", "09:30:59.999Z", "08:59:59.999Z", "09:40:59.999Z"] {
        db.set(&format!("2026-03-02 {time}"));
        db.settled();
    }
    eventually(SOON, || db.ticks("t").len() >= 5);
    assert_eq!(db.ticks("t"), ["02 08:20", "02 08:40", "02 09:00", "02 09:20", "02 09:40"]);
}

#[test]
fn ticks_with_a_key_leave_one_job_waiting() {
    let db = Clocked::new("2026-03-02 08:00:59.999Z");
    let _running = db.scheduler("* * * * * t ?jobKey=k&jobKeyMode=preserve_run_at\n* * * * * u ?job_key=l");
    eventually(SOON, || db.known() == 2);
    for minute in 1..5 {
        db.set(&format!("2026-03-02 08:0{minute}:59.999Z"));
        db.settled();
    }
    assert_eq!((db.ticks("t"), db.ticks("u")), (vec!["02 08:01".into()], vec!["02 08:04".into()]));
}

#[test]
fn a_tick_whose_keyed_job_loses_a_race_is_retried() {
    let db = Clocked::new("2026-03-02 08:00:59.999Z");
    // The result of the shared function if a worker claims the job with the key at the same time.
    db.0.execute(
        "alter function graphile_worker.add_jobs(graphile_worker.job_spec[], boolean) rename to add_jobs_well;
         create function graphile_worker.add_jobs(specs graphile_worker.job_spec[], job_key_preserve_run_at boolean default false)
           returns setof graphile_worker._private_jobs language sql as 'select null::graphile_worker._private_jobs where false'",
    );
    let running = db.scheduler("* * * * * t ?jobKey=k");
    eventually(SOON, || db.known() == 1);
    db.set("2026-03-02 08:01:59.999Z");
    eventually(SOON, || running.worker.stats().database_errors > 1);
    let untaken: bool = db.0.one("select last_execution is null from graphile_worker._private_known_crontabs");
    assert!(untaken);
    db.0.execute(
        "drop function graphile_worker.add_jobs(graphile_worker.job_spec[], boolean);
         alter function graphile_worker.add_jobs_well(graphile_worker.job_spec[], boolean) rename to add_jobs",
    );
    eventually(SOON, || db.ticks("t") == ["02 08:01"]);
}

#[test]
fn database_faults_neither_end_cron_nor_lose_ticks() {
    let db = Clocked::new("2026-03-02 08:00:59.999Z");
    let running = db.scheduler("* * * * * t");
    eventually(SOON, || db.known() == 1);
    let pid = db.0.backends("cron")[0];
    db.0.terminate(pid);
    db.0.execute("alter table graphile_worker._private_known_crontabs rename to away");
    for minute in 1..4 {
        db.set(&format!("2026-03-02 08:0{minute}:59.999Z"));
        let errors = running.worker.stats().database_errors;
        eventually(SOON, || running.worker.stats().database_errors > errors);
    }
    db.0.execute("alter table graphile_worker.away rename to _private_known_crontabs");
    eventually(SOON, || db.ticks("t") == ["02 08:01", "02 08:02", "02 08:03"]);
    assert_ne!(db.0.backends("cron"), [pid]);
    running.stop().0.unwrap();
}

#[test]
fn a_refused_entry_delays_no_other_and_catches_up() {
    let db = Clocked::new("2026-03-02 08:00:59.999Z");
    db.0.execute("alter table graphile_worker._private_jobs add constraint no check (priority <> 13)");
    let _running = db.scheduler("* * * * * bad ?priority=13\n* * * * * good");
    eventually(SOON, || db.known() == 2);
    for minute in 1..4 {
        db.set(&format!("2026-03-02 08:0{minute}:59.999Z"));
    }
    eventually(SOON, || db.ticks("good").len() == 3);
    db.0.execute("alter table graphile_worker._private_jobs drop constraint no");
    eventually(SOON, || db.ticks("bad").len() == 3);
}

#[test]
fn hooks_see_ticks_and_decide_on_their_jobs() {
    let db = Clocked::new("2026-03-03 10:29:59.999+00");
    let (notes, heard) = unbounded();
    let (ticks, jobs) = (notes.clone(), notes);
    let options = db
        .idle()
        .with_cron("30 * * * * good\n30 * * * * skipped\n30 * * * * refused ?id=other")
        .unwrap()
        .on(BeforeJobSchedule, |ctx| match ctx.identifier.as_str() {
            "skipped" => JobScheduleResult::Skip,
            "refused" => JobScheduleResult::Fail("not today".into()),
            _ => {
                assert_eq!(ctx.spec.run_at, Some("2026-03-03T10:30:00Z".parse().unwrap()));
                let mut payload = ctx.payload;
                payload["more"] = json!(1);
                JobScheduleResult::Continue(payload)
            }
        })
        .on(CronTick, move |ctx| ticks.send(format!("{} {}", ctx.timestamp, ctx.crontabs.len())).unwrap())
        .on(CronJobScheduled, move |ctx| {
            jobs.send(format!("{} {}", ctx.crontab.identifier, ctx.scheduled_at)).unwrap();
        });
    let running = Running::start(options);
    eventually(SOON, || db.known() == 3);
    db.set("2026-03-03 10:30:00.001+00");
    db.settled();
    let next = || heard.recv_timeout(SOON).unwrap();
    assert_eq!(next(), "2026-03-03 10:29:00 UTC 3");
    assert_eq!(next(), "2026-03-03 10:30:00 UTC 3");
    assert_eq!(next(), "good 2026-03-03 10:30:00 UTC");
    assert_eq!(db.0.jobs(), 1);
    assert_eq!(db.payload()["more"], 1);
    let taken =
        "select count(*) from graphile_worker._private_known_crontabs where last_execution = '2026-03-03 10:30+00'";
    assert_eq!(db.0.one::<i64>(taken), 3);
    running.stop().0.unwrap();
    assert!(heard.try_recv().is_err(), "no further event");
}

#[test]
fn a_year_of_minutes_runs_in_seconds() {
    let db = Clocked::new("2025-12-31 23:59:59.999Z");
    let _running = db.scheduler("0 7 * * * daily\n0 */6 * * * quarterly ?tz=Europe/Berlin");
    eventually(SOON, || db.known() == 2);
    let start = Instant::now();
    for day in 1..=365 {
        db.set(&format!("2025-12-31 23:59:59.999Z'::timestamptz + '{day} days"));
        db.settled();
    }
    assert_eq!((db.ticks("daily").len(), db.ticks("quarterly").len()), (365, 365 * 4));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn cron_has_a_session_only_where_there_are_entries() {
    let db = TestDb::new();
    let idle = || db.worker().concurrency(1).define_raw_job("nothing", |_: WorkerContext| ());
    let running = Running::start(idle());
    eventually(SOON, || db.backends("listen").len() == 1);
    assert_eq!(db.backends("cron").len(), 0);
    running.stop().0.unwrap();
    let error = idle().max_pg_conn(5).with_cron("* * * * * t").unwrap().init().err().expect("must be refused");
    assert!(error.to_string().contains("5 is fewer than 6: 5 for the engine"), "{error}");
    let running = Running::start(idle().max_pg_conn(6).with_cron("0 0 1 1 * t").unwrap());
    let entered = || db.one::<i64>("select count(*) from graphile_worker._private_known_crontabs");
    eventually(SOON, || db.backends("cron").len() == 1 && entered() == 1);
    running.stop().0.unwrap();
    idle().with_cron("* * * * * t").unwrap().init().unwrap().run_once().unwrap();
    assert_eq!(entered(), 1);
}

#[test]
fn run_once_adds_no_crontab_jobs_and_logs_it() {
    drop(log_lines());
    let db = TestDb::new();
    let hour_ago = "date_trunc('minute', now()) - interval '1 hour'";
    db.execute(&format!(
        "insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution)
         values ('t', {hour_ago}, {hour_ago})"
    ));
    let options = || {
        let options = db.worker().concurrency(1).define_raw_job("other", |_: WorkerContext| ());
        options.listen_os_shutdown_signals(false).with_cron("* * * * * t ?fill=2h").unwrap()
    };
    let worker = options().init().unwrap();
    worker.run_once().unwrap();
    assert_eq!(db.jobs(), 0);
    let said = |line: &Line| {
        Some(&line.of) == worker.worker_id().as_ref() && line.text.contains("adds no jobs of crontab entries")
    };
    assert_eq!(log_lines().iter().filter(|line| said(line)).count(), 1);
    // A worker with `run` backfills all of them.
    let _running = Running::start(options());
    eventually(SOON, || db.jobs() >= 59);
}

#[test]
fn entries_are_refused_before_anything_is_written() {
    let db = TestDb::new();
    let idle = || db.worker().define_raw_job("nothing", |_: WorkerContext| ());
    let error = idle().with_cron("* * * * * one\n* * * * ? two").err().expect("must be refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("line 2, column 9"), "{error}");
    let twice = idle().with_cron("* * * * * t").unwrap().with_crons(Cron::parse("0 * * * * t").unwrap());
    assert!(twice.init().err().expect("must be refused").to_string().contains("\"t\": occurs twice"));
    let beyond = idle().with_cron(Cron::every_minute::<Report>().max_attempts(40_000)).init();
    assert!(beyond.err().expect("must be refused").to_string().contains("max_attempts: 40000"));
}

const SCHEDULER: &str = "GW_CRON_SCHEDULER";
const ENTRIES: &str = "* * * * * minutely\n0 * * * * hourly\n0 7 * * * daily";

/// Not a test: the process of a scheduler in the simulation.
#[test]
fn a_scheduler_of_the_simulation() {
    let Ok(url) = std::env::var(SCHEDULER) else { return };
    let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let note = "insert into public.skews select $1 - extract(epoch from clock_timestamp())::float8";
    client.execute(note, &[&wall]).unwrap();
    drop(client);
    let options = WorkerOptions::default().database_url(&url).concurrency(1).max_pg_conn(6);
    let options = options.poll_interval(Duration::from_secs(600)).use_notification_delivery(false);
    let worker = options.define_raw_job("nothing", |_: WorkerContext| ()).with_cron(ENTRIES).unwrap().init().unwrap();
    worker.run().unwrap();
}

/// Builds the library that shifts a process's wall clock.
pub fn wall_clock(of: &str) -> PathBuf {
    let library = std::env::temp_dir().join(format!("gw-wall-clock-{of}-{}.so", std::process::id()));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/wall_clock.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(built.expect("cc, which links Rust programs too").success());
    library
}

fn start_scheduler(db: &TestDb, library: &PathBuf, offset: i64) -> Child {
    let mut scheduler = Command::new(std::env::current_exe().unwrap());
    scheduler.args(["cron::a_scheduler_of_the_simulation", "--exact"]).env(SCHEDULER, db.url());
    scheduler.env("LD_PRELOAD", library).env("GW_CLOCK_OFFSET", offset.to_string());
    scheduler.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The processes of a simulation, killed when it is dropped.
struct Crew(Vec<Child>);

impl Drop for Crew {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(end);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Schedulers with clocks up to five minutes off are killed at random; they must add exactly one job a tick. By default
/// one day with 3 processes and 6 kills. With `GW_CRON_SIMULATE=7` a week with 8 processes and 30 kills.
#[test]
fn killed_schedulers_with_wrong_clocks_add_one_job_a_tick() {
    let days: u32 = std::env::var("GW_CRON_SIMULATE").ok().and_then(|days| days.parse().ok()).unwrap_or(1);
    let (processes, kills) = if days == 1 { (3, 6) } else { (8, 30) };
    let db = Clocked::at(TestDb::alone(), "2026-03-01 23:59:59.999Z");
    db.0.execute("create table public.skews (seconds float8)");
    let library = wall_clock("cron");
    let mut seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut roll = |sides: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    };
    let offset = |place: usize| -300 + 600 * place as i64 / (processes as i64 - 1);
    let mut crew = Crew((0..processes).map(|place| start_scheduler(&db.0, &library, offset(place))).collect());
    let ready = "select count(*) >= $1 from pg_stat_activity where application_name = 'graphile-worker:cron'";
    let wanted = processes as i64;
    eventually(SOON * 6, || db.known() == 3 && db.0.one_with::<bool>(ready, &[&wanted]));

    let start = Instant::now();
    let minutes = u64::from(days) * 1440;
    let mut killed: Vec<u64> = (0..kills).map(|_| roll(minutes)).collect();
    killed.sort_unstable();
    let mut killed = killed.into_iter().peekable();
    let lag = "select coalesce(max(last_execution) > now() - interval '3 minutes', false)
                 from graphile_worker._private_known_crontabs where identifier = 'minutely'";
    for minute in 0..minutes {
        db.set(&format!("2026-03-02 00:00:59.999Z'::timestamptz + '{minute} minutes"));
        while killed.next_if_eq(&minute).is_some() {
            std::thread::sleep(Duration::from_micros(roll(4000)));
            let place = roll(processes as u64) as usize;
            end(&mut crew.0[place]);
            crew.0[place] = start_scheduler(&db.0, &library, offset(place));
        }
        // Schedulers may fall behind the clock on a loaded machine.
        eventually(SOON * 6, || minute == 0 || db.0.one::<bool>(lag));
    }
    db.settled();
    eventually(SOON, || db.ticks("minutely").len() as u64 >= minutes);
    drop(crew);
    let counted: Vec<(String, i64, i64)> =
        db.0.rows_with(
            "select task_identifier, count(*), count(distinct run_at) from graphile_worker.jobs group by 1 order by 1",
            &[],
        )
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let days = i64::from(days);
    let expected = [("daily", days), ("hourly", days * 24), ("minutely", days * 1440)];
    assert_eq!(counted, expected.map(|(task, jobs)| (task.to_owned(), jobs, jobs)));
    let skewed: bool = db.0.one("select min(seconds) < -290 and max(seconds) > 290 from public.skews");
    assert!(skewed, "the clocks of the processes were right");
    println!("{counted:?} by {processes} processes with {kills} kills in {:?}", start.elapsed());
    let _ = std::fs::remove_file(library);
}
