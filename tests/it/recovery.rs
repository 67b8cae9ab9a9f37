//! Recovery: the jobs of dead workers are recovered once, and those of living workers are not touched.

use crate::cron::wall_clock;
use crate::harness::{Running, SOON, Started, TestDb, eventually, log_lines};
use crate::proxy::Proxy;
use graphile_worker::{
    ErrorKind, HookRegistry, JobRecovery, JobRecoveryResult, ListenerState, SweepStaleWorkersOptions, WorkerContext,
    WorkerOptions, WorkerRecoveryConfig,
};
use std::process::Command;
use std::time::{Duration, Instant};

const NOW: SweepStaleWorkersOptions =
    SweepStaleWorkersOptions { sweep_threshold: None, recovery_delay: None, dry_run: false };

/// A worker whose last heartbeat is this number of minutes ago.
fn silent(db: &TestDb, worker: &str, minutes: i32) {
    db.execute(&format!(
        "insert into graphile_worker._native_workers (id, last_heartbeat_at)
         values ('{worker}', now() - interval '{minutes} minutes')"
    ));
}

/// A job that `worker` holds, claimed now.
fn held(db: &TestDb, worker: &str, arguments: &str) -> i64 {
    let id = db.add(arguments);
    db.execute(&format!(
        "update graphile_worker._private_jobs set locked_by = '{worker}', locked_at = now(), attempts = attempts + 1
          where id = {id};
         update graphile_worker._private_job_queues set locked_by = '{worker}', locked_at = now()
          where id = (select job_queue_id from graphile_worker._private_jobs where id = {id})"
    ));
    id
}

fn row(db: &TestDb, job: i64, what: &str) -> String {
    db.one(&format!("select ({what})::text from graphile_worker._private_jobs where id = {job}"))
}

#[test]
fn jobs_and_queues_of_a_dead_worker_come_back_after_the_delay() {
    let db = TestDb::new();
    silent(&db, "dead", 6);
    let job = held(&db, "dead", "'t', queue_name => 'q'");
    let result = db.utils().sweep_stale_workers(NOW).unwrap();
    assert_eq!((result.worker_ids, result.recovered_count), (vec!["dead".to_owned()], 1));
    assert_eq!(row(&db, job, "attempts"), "0");
    assert_eq!(row(&db, job, "run_at - now() between interval '14 seconds' and interval '46 seconds'"), "true");
    assert!(row(&db, job, "last_error").contains("the worker dead died"));
    assert_eq!(db.locks(), 0, "job and queue are unlocked");
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._native_workers"), 0);
    assert!(db.utils().sweep_stale_workers(NOW).unwrap().worker_ids.is_empty(), "recovered once");
}

#[test]
fn a_dry_run_names_dead_workers_and_changes_nothing() {
    let db = TestDb::new();
    silent(&db, "dead", 6);
    let job = held(&db, "dead", "'t'");
    let look = SweepStaleWorkersOptions { dry_run: true, ..NOW };
    assert_eq!(db.utils().sweep_stale_workers(look).unwrap().worker_ids, ["dead"]);
    assert_eq!(row(&db, job, "locked_by || attempts"), "dead1");
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._native_workers"), 1);
}

#[test]
fn living_workers_and_those_without_heartbeat_are_not_touched() {
    let db = TestDb::new();
    silent(&db, "living", 4);
    let (ours, nodes) = (held(&db, "living", "'t'"), held(&db, "worker-of-node", "'t'"));
    db.execute("update graphile_worker._private_jobs set locked_at = now() - interval '3 hours'");
    assert!(db.utils().sweep_stale_workers(NOW).unwrap().worker_ids.is_empty());
    assert_eq!(row(&db, ours, "locked_by"), "living");
    assert_eq!(row(&db, nodes, "locked_by"), "worker-of-node");
}

#[test]
fn a_resilient_job_gives_its_worker_three_thresholds() {
    let db = TestDb::new();
    silent(&db, "slow", 14);
    silent(&db, "dead", 16);
    for worker in ["slow", "dead"] {
        held(&db, worker, "'t', flags => array['infrastructure_resilient']");
    }
    assert_eq!(db.utils().sweep_stale_workers(NOW).unwrap().worker_ids, ["dead"]);
    let config = WorkerRecoveryConfig::default().resilient_job_flags(vec!["other".into()]);
    let result = db.utils().sweep_stale_workers_with_config(&config, NOW).unwrap();
    assert_eq!(result.worker_ids, ["slow"], "its flag is not in the list");
}

#[test]
fn a_job_superseded_while_its_worker_died_is_not_revived() {
    let db = TestDb::new();
    silent(&db, "dead", 6);
    let mut adding = db.client();
    let mut adding = adding.transaction().unwrap();
    // The transaction that supersedes the job begins before the claim.
    adding.execute("select now()", &[]).unwrap();
    let old = held(&db, "dead", "'t', job_key => 'k', payload => '1'");
    adding.execute("select graphile_worker.add_job('t', '2', job_key => 'k')", &[]).unwrap();
    adding.commit().unwrap();
    db.execute(&format!("update graphile_worker._private_jobs set locked_at = now() where id = {old}"));
    assert_eq!(db.utils().sweep_stale_workers(NOW).unwrap().recovered_count, 1);
    assert_eq!(row(&db, old, "attempts >= max_attempts and locked_by is null"), "true");
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker.jobs where attempts < max_attempts"), 1);
}

#[test]
fn a_hook_decides_the_recovery_of_each_job() {
    let db = TestDb::new();
    silent(&db, "dead", 6);
    let jobs = ["reschedule", "fail", "skip", "default"].map(|task| held(&db, "dead", &format!("'{task}'")));
    let at = "2040-01-02T03:04:05Z".parse().unwrap();
    let mut hooks = HookRegistry::new();
    hooks.on(JobRecovery, move |ctx| match ctx.job.task_identifier() {
        "reschedule" => JobRecoveryResult::Reschedule { run_at: at, attempts: Some(3) },
        "fail" => JobRecoveryResult::FailWithBackoff,
        "skip" => JobRecoveryResult::Skip,
        _ => JobRecoveryResult::Default,
    });
    let result = db.utils().with_hooks(hooks.into()).sweep_stale_workers(NOW).unwrap();
    assert_eq!(result.recovered_count, 3);
    assert_eq!(row(&db, jobs[0], "attempts || ' ' || (run_at = '2040-01-02 03:04:05+00')"), "3 true");
    assert_eq!(row(&db, jobs[1], "attempts || ' ' || round(extract(epoch from run_at - now()))"), "1 3");
    assert_eq!(row(&db, jobs[2], "locked_by || attempts"), "dead1");
    assert_eq!(row(&db, jobs[3], "attempts"), "0");
    let workers = db.utils().list_active_workers(Duration::from_secs(300)).unwrap();
    assert_eq!(workers.len(), 1, "a worker that still holds a job stays listed");
    assert!(workers[0].is_stale);
}

#[test]
fn each_recovery_of_a_job_doubles_its_delay_until_its_key_is_updated() {
    let db = TestDb::new();
    let job = db.add("'t', job_key => 'k'");
    let die = || {
        silent(&db, "dead", 6);
        let hold = "update graphile_worker._private_jobs set locked_by = 'dead', locked_at = now(), run_at = now(), attempts = 1";
        db.execute(hold);
        db.utils().sweep_stale_workers(NOW).unwrap();
        db.one::<f64>(&format!(
            "select (extract(epoch from run_at - now()) / 30)::float8 from graphile_worker._private_jobs where id = {job}"
        ))
    };
    let delays = [die(), die(), die()];
    for (place, delay) in delays.into_iter().enumerate() {
        let doubled = f64::from(1 << place);
        assert!((doubled * 0.45..doubled * 1.55).contains(&delay), "{delays:?}");
    }
    db.add("'t', job_key => 'k'");
    assert!(die() < 1.55, "a new revision starts at the first delay");
}

#[test]
fn concurrent_sweeps_recover_each_job_once() {
    let db = TestDb::new();
    for worker in 0..10 {
        silent(&db, &format!("dead-{worker}"), 6);
        held(&db, &format!("dead-{worker}"), "'t'");
    }
    let recovered: i32 = std::thread::scope(|scope| {
        let sweeps = (0..8).map(|_| scope.spawn(|| db.utils().sweep_stale_workers(NOW).unwrap().recovered_count));
        sweeps.collect::<Vec<_>>().into_iter().map(|sweep| sweep.join().unwrap()).sum()
    });
    assert_eq!(recovered, 10);
    assert_eq!(db.one::<i64>("select sum(recoveries) from graphile_worker._native_recoveries"), 10);
}

#[test]
fn every_worker_sends_heartbeats_even_if_it_does_not_sweep() {
    let db = TestDb::new();
    let running = Running::start(db.worker().define_raw_job("t", |_| ()));
    let listed = || db.utils().list_active_workers(Duration::from_secs(300)).unwrap();
    eventually(SOON, || listed().len() == 1);
    assert_eq!(Some(&listed()[0].worker_id), running.worker.worker_id().as_ref());
    assert!(!listed()[0].is_stale);
    running.stop().0.unwrap();
    assert!(listed().is_empty());
}

#[test]
fn a_threshold_too_short_for_the_default_heartbeat_is_refused() {
    let db = TestDb::new();
    let options = db.worker().define_raw_job("t", |_| ()).sweep_threshold(Duration::from_secs(59));
    let error = options.init().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("sweep_threshold"), "{error}");
}

#[test]
fn a_threshold_below_three_heartbeats_is_refused() {
    let db = TestDb::new();
    let options = |beat, threshold| {
        let options = db.worker().define_raw_job("t", |_| ()).heartbeat_interval(Duration::from_secs(beat));
        options.sweep_threshold(Duration::from_secs(threshold)).init().map(drop)
    };
    for (beat, threshold) in [(30, 89), (10, 29), (600, 300), (u64::MAX, u64::MAX - 1)] {
        let error = options(beat, threshold).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("at least 3 times as long"), "{error}");
    }
    options(30, 90).unwrap();
    options(60, 180).unwrap();
}

/// A worker that publishes this metadata, and whose last heartbeat is this number of seconds ago.
fn publishing(db: &TestDb, worker: &str, metadata: &str, seconds: i32) {
    db.execute(&format!(
        "insert into graphile_worker._native_workers (id, last_heartbeat_at, metadata)
         values ('{worker}', now() - interval '{seconds} seconds', {metadata})"
    ));
}

#[test]
fn a_worker_is_dead_after_the_threshold_and_three_of_its_own_heartbeats() {
    let db = TestDb::new();
    let half_a_minute = "'{\"pid\": 1, \"heartbeat_interval_ms\": 30000}'";
    for (worker, metadata, seconds) in [
        ("slow alive", half_a_minute, 60),
        ("slow dead", half_a_minute, 100),
        ("quick alive", "'{\"heartbeat_interval_ms\": 200}'", 5),
        ("quick dead", "'{\"heartbeat_interval_ms\": 200.5}'", 20),
        ("older alive", "'{\"pid\": 1}'", 60),
        ("older dead", "'{\"pid\": 1}'", 100),
        ("mute alive", "null", 60),
        ("mute dead", "null", 100),
        ("odd alive", "'{\"heartbeat_interval_ms\": \"soon\"}'", 60),
        ("odd dead", "'{\"heartbeat_interval_ms\": -1}'", 100),
        ("endless dead", "'{\"heartbeat_interval_ms\": 1e300}'", 100),
        ("list dead", "'[1]'", 100),
    ] {
        publishing(&db, worker, metadata, seconds);
        held(&db, worker, "'t'");
    }
    let threshold = Duration::from_secs(8);
    let workers = db.utils().list_active_workers(threshold).unwrap();
    assert_eq!(workers.len(), 12);
    for worker in workers {
        assert_eq!(worker.is_stale, worker.worker_id.ends_with("dead"), "{}", worker.worker_id);
    }
    let short = |dry_run| SweepStaleWorkersOptions { sweep_threshold: Some(threshold), dry_run, ..NOW };
    for dry_run in [true, false] {
        let mut swept = db.utils().sweep_stale_workers(short(dry_run)).unwrap();
        swept.worker_ids.sort();
        let dead = ["endless dead", "list dead", "mute dead", "odd dead", "older dead", "quick dead", "slow dead"];
        assert_eq!(swept.worker_ids, dead);
        let raised = swept.raised_thresholds.iter().map(|raised| {
            assert_eq!(raised.sweep_threshold, Duration::from_secs(90));
            (raised.worker_id.as_str(), raised.heartbeat_interval.map(|interval| interval.as_secs()))
        });
        let expected = [("mute alive", None), ("odd alive", None), ("older alive", None), ("slow alive", Some(30))];
        assert_eq!(raised.collect::<Vec<_>>(), expected);
    }
    let alive = "select count(*) from graphile_worker._private_jobs where locked_by like '% alive'";
    assert_eq!((db.one::<i64>(alive), db.locks()), (5, 5));
    assert!(db.utils().sweep_stale_workers(NOW).unwrap().raised_thresholds.is_empty(), "five minutes are long enough");
}

#[test]
fn a_worker_publishes_how_often_it_sends_a_heartbeat() {
    for (asked, published) in [(None, 30_000), (Some(2), 2_000), (Some(60), 30_000)] {
        let db = TestDb::new();
        let options = db.worker().define_raw_job("t", |_| ());
        let options = match asked {
            Some(seconds) => options.heartbeat_interval(Duration::from_secs(seconds)),
            None => options,
        };
        let _running = Running::start(options);
        let told = "select (metadata->>'heartbeat_interval_ms')::int from graphile_worker._native_workers";
        eventually(SOON, || db.all::<i32>(told) == [published]);
    }
}

#[test]
fn a_short_threshold_spares_slow_workers_and_warns_once() {
    drop(log_lines());
    let db = TestDb::new();
    let (release, wait) = crossbeam_channel::bounded::<()>(0);
    let slow = Running::start(db.worker().define_raw_job("t", move |_| _ = wait.recv_timeout(6 * SOON)));
    let job = db.add("'t'");
    eventually(SOON, || slow.worker.stats().running == 1);
    let quick = Running::start(quick(&db).define_raw_job("other", |_| ()));
    let slow_id = slow.worker.worker_id().unwrap();
    let silence = format!(
        "select count(*) from graphile_worker._native_workers
          where id = '{slow_id}' and last_heartbeat_at < now() - interval '{} seconds'",
        2.0 * THRESHOLD.as_secs_f64()
    );
    eventually(SOON, || db.one::<i64>(&silence) == 1);
    for _ in 0..2 {
        silent(&db, "dead", 6);
        eventually(SOON, || {
            db.one::<i64>("select count(*) from graphile_worker._native_workers where id = 'dead'") == 0
        });
    }
    assert_eq!(row(&db, job, "locked_by || attempts"), format!("{slow_id}1"));
    let quick_id = quick.worker.worker_id().unwrap();
    let warning = format!(
        "sweep_threshold of worker {quick_id} is 1.5s, but worker {slow_id} sends a heartbeat every 30s, so it is stale \
         after 90s; set sweep_threshold to at least 90s, or heartbeat_interval of the other worker to at most 500ms"
    );
    assert_eq!(log_lines().iter().filter(|line| line.of == quick_id && line.text == warning).count(), 1);
    drop(release);
    eventually(SOON, || db.jobs() == 0);
    assert_eq!(slow.worker.stats().lost, 0);
}

#[test]
fn a_worker_starts_no_job_after_three_missed_heartbeats() {
    let db = TestDb::new();
    let options = db.worker().concurrency(1).define_raw_job("t", |_| ());
    let running = Running::start(options.heartbeat_interval(HEARTBEAT).sweep_threshold(6 * SOON));
    db.add("'t'");
    eventually(SOON, || db.jobs() == 0);
    let mut other = db.client();
    let mut list = other.transaction().unwrap();
    list.execute("lock graphile_worker._native_workers", &[]).unwrap();
    // After three missed heartbeats, and at least a second, this worker must expect that its jobs were taken.
    std::thread::sleep(Duration::from_secs(1) + 2 * HEARTBEAT);
    let heard = running.worker.stats().notifications;
    db.add("'t'");
    eventually(SOON, || running.worker.stats().notifications > heard);
    assert_eq!((db.jobs(), db.locks()), (1, 0));
    list.commit().unwrap();
    eventually(SOON, || db.jobs() == 0);
}

#[test]
fn a_new_sweeper_waits_for_three_heartbeats_of_a_slow_worker() {
    let db = TestDb::new();
    publishing(&db, "dead", "'{\"heartbeat_interval_ms\": 1000}'", 360);
    held(&db, "dead", "'t'");
    let (done, ran) = crossbeam_channel::bounded(1);
    let start = Instant::now();
    let _running = Running::start(quick(&db).define_raw_job("t", move |_| done.try_send(Instant::now()).unwrap()));
    let ran = ran.recv_timeout(SOON).unwrap() - start;
    assert!(ran >= Duration::from_secs(3), "swept after {ran:?}, before a heartbeat could be missing");
}

const HEARTBEAT: Duration = Duration::from_millis(200);
const SWEEP: Duration = Duration::from_millis(300);
const THRESHOLD: Duration = Duration::from_millis(1500);

/// How long the whole run may take, kills included.
const LONG: Duration = Duration::from_secs(60);

/// Not a test: a worker process of the tests below. Passes at once when run by itself.
#[test]
fn child() {
    let Ok(url) = std::env::var("RECOVERY_TEST_URL") else { return };
    let handler = |ctx: WorkerContext| -> graphile_worker::Result<()> {
        let say = "insert into public.ran values ($1, $2, $3)";
        ctx.connection()?.execute(say, &[&ctx.job().id(), &(std::process::id() as i32), &ctx.job().run_at()])?;
        std::thread::sleep(Duration::from_millis(ctx.job().payload_as().unwrap_or(20)));
        Ok(())
    };
    let options = WorkerOptions::default().database_url(&url).concurrency(8).define_raw_job("t", handler);
    let options = options.define_raw_job("pill", swallow);
    let options = options.heartbeat_interval(HEARTBEAT).sweep_interval(SWEEP).sweep_threshold(THRESHOLD);
    options.recovery_delay(Duration::ZERO).init().unwrap().run().unwrap();
}

/// Not a test: a worker process of the tests below, with the default heartbeats.
#[test]
fn a_worker_that_sleeps() {
    let Ok(url) = std::env::var("RECOVERY_TEST_SLEEPER") else { return };
    let handler = |ctx: WorkerContext| -> graphile_worker::Result<()> {
        let note = "insert into public.ran select last_heartbeat_at from graphile_worker._native_workers";
        ctx.connection()?.execute(note, &[])?;
        Ok(())
    };
    WorkerOptions::default().database_url(&url).define_raw_job("t", handler).init().unwrap().run().unwrap();
}

#[test]
fn a_worker_sends_a_heartbeat_first_after_its_machine_slept() {
    let db = TestDb::new();
    db.execute("create table public.ran (beat timestamptz)");
    let ran = |times| eventually(SOON, || db.one::<i64>("select count(*) from public.ran") == times);
    let awake = std::env::temp_dir().join(format!("gw-awake-{}", std::process::id()));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "recovery::a_worker_that_sleeps", "-q"]).env("RECOVERY_TEST_SLEEPER", db.url());
    command.env("LD_PRELOAD", wall_clock("recovery")).env("GW_CLOCK_OFFSET", "600").env("GW_CLOCK_SINCE", &awake);
    let _sleeper = Started::new(command.stdout(std::process::Stdio::null()));
    db.add("'t'");
    ran(1);
    std::fs::write(&awake, "").unwrap();
    db.add("'t'");
    ran(2);
    std::fs::remove_file(&awake).unwrap();
    assert_eq!(db.one::<i64>("select count(distinct beat) from public.ran"), 2);
}

/// A handler that kills its process.
fn swallow(_: WorkerContext) {
    std::process::abort();
}

fn start(db: &TestDb) -> Started {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "recovery::child", "-q"]).env("RECOVERY_TEST_URL", db.url());
    Started::new(command.stdout(std::process::Stdio::null()))
}

/// The variables `RECOVERY_TEST_JOBS` and `RECOVERY_TEST_KILLS` make this test longer.
#[test]
fn killed_processes_lose_no_job_and_only_kills_cause_reruns() {
    let number = |name, usually| std::env::var(name).map_or(usually, |text: String| text.parse().unwrap());
    let (jobs, kills): (i64, usize) = (number("RECOVERY_TEST_JOBS", 2500), number("RECOVERY_TEST_KILLS", 4) as usize);
    let pause = Duration::from_millis(number("RECOVERY_TEST_PAUSE_MS", 700) as u64);
    let db = TestDb::new();
    db.execute(
        "create table public.ran (job bigint, pid int, run_at timestamptz, at timestamptz default clock_timestamp());
                create table public.killed (pid int, at timestamptz default clock_timestamp())",
    );
    db.execute(&format!(
        "select graphile_worker.add_job('t', queue_name => case when n % 5 = 0 then 'q' || n % 50 end)
           from generate_series(1, {jobs}) n"
    ));
    let mut processes: Vec<_> = (0..4).map(|_| start(&db)).collect();
    eventually(SOON, || db.one::<i64>("select count(distinct pid) from public.ran") == 4);
    for kill in 0..kills {
        std::thread::sleep(pause);
        let place = kill % processes.len();
        let pid = processes[place].0.id() as i32;
        processes[place] = {
            processes[place].0.kill().unwrap();
            db.execute(&format!("insert into public.killed values ({pid})"));
            start(&db)
        };
    }
    let start = Instant::now();
    eventually(LONG + pause * kills as u32, || db.jobs() == 0);
    let drained = start.elapsed();

    assert_eq!(db.one::<i64>("select count(distinct job) from public.ran"), jobs, "lost");
    let again = "select count(*) from public.ran r
                  where exists (select from public.ran l where l.job = r.job and l.at > r.at)";
    let unexplained = format!(
        "{again} and not exists (
            select from public.killed k where k.pid = r.pid and abs(extract(epoch from r.at - k.at)) < 1)"
    );
    assert_eq!(db.one::<i64>(&unexplained), 0, "a job ran again although no kill interrupted its run");
    // With no delay, a recovered job is due from the moment of its recovery.
    let longest = "select coalesce(max(extract(epoch from l.run_at - k.at)), 0)::float8
                     from public.ran r join public.killed k on k.pid = r.pid
                     join public.ran l on l.job = r.job and l.at > r.at";
    let (again, longest) = (db.one::<i64>(again), db.one::<f64>(longest));
    println!(
        "{jobs} jobs, {kills} kills: {again} ran again, rescued {longest:.2} s after the kill at most; the rest took {drained:?}"
    );
    assert!(again > 0, "no kill hit a running job");
    // On a busy machine each step may take some seconds, but far less than the four hours after which any worker frees a
    // lock without recovery.
    let usual = HEARTBEAT + THRESHOLD + SWEEP;
    assert!(longest <= 10.0 * usual.as_secs_f64(), "rescued after {longest} s, usually within {usual:?}");
}

#[test]
fn a_job_that_kills_its_workers_fails_and_others_do_not() {
    let db = TestDb::new();
    db.execute("create table public.ran (job bigint, pid int, run_at timestamptz)");
    let pill = db.add("'pill'");
    db.execute("select graphile_worker.add_job('t', '300') from generate_series(1, 200)");
    let mut processes: Vec<_> = (0..2).map(|_| start(&db)).collect();
    let unfinished = "select count(*) from graphile_worker._private_jobs where attempts < max_attempts";
    eventually(LONG, || {
        for process in &mut processes {
            if process.0.try_wait().unwrap().is_some() {
                *process = start(&db);
            }
        }
        db.one::<i64>(unfinished) == 0
    });
    assert_eq!(db.jobs(), 1, "the other jobs are done");
    assert_eq!(db.one::<i64>("select count(distinct job) from public.ran"), 200);
    let why = row(&db, pill, "last_error");
    assert!(why.contains("held this job and no other, after 5 recoveries"), "{why}");
    assert_eq!(db.one::<i32>("select recoveries from graphile_worker._native_recoveries"), 6);
}

/// The number of jobs whose recoveries are counted.
const COUNTED: &str = "select count(*) from graphile_worker._native_recoveries";

#[test]
fn the_count_of_recoveries_lasts_as_long_as_its_job() {
    let db = TestDb::new();
    silent(&db, "dead", 6);
    for task in ["done", "again"] {
        held(&db, "dead", &format!("'{task}'"));
    }
    let soon = SweepStaleWorkersOptions { recovery_delay: Some(Duration::ZERO), ..NOW };
    assert_eq!(db.utils().sweep_stale_workers(soon).unwrap().recovered_count, 2);
    assert_eq!(db.one::<i64>(COUNTED), 2);
    let options = db.worker().define_raw_job("done", |_| ());
    let running = Running::start(options.define_raw_job("again", |_| Err::<(), _>("not yet")));
    eventually(SOON, || running.worker.stats().retried == 1 && db.jobs() == 1);
    let left =
        "select j.id from graphile_worker._native_recoveries r join graphile_worker._private_jobs j on j.id = r.job_id";
    eventually(SOON, || db.one::<i64>(COUNTED) == 1);
    assert_eq!(db.all::<i64>(left).len(), 1);
    assert_eq!(running.worker.stats().database_errors, 0);
}

#[test]
fn a_count_that_cannot_be_deleted_does_not_affect_its_job() {
    let db = TestDb::new();
    silent(&db, "dead", 6);
    held(&db, "dead", "'t'");
    let soon = SweepStaleWorkersOptions { recovery_delay: Some(Duration::ZERO), ..NOW };
    db.utils().sweep_stale_workers(soon).unwrap();
    db.execute(
        "create function public.keeps() returns trigger language plpgsql as $$begin raise 'kept'; end$$;
         create trigger keeps before delete on graphile_worker._native_recoveries
           for each row execute function public.keeps()",
    );
    let running = Running::start(db.worker().define_raw_job("t", |_| ()));
    eventually(SOON, || running.worker.stats().completed == 1 && running.worker.stats().database_errors == 1);
    assert_eq!((db.jobs(), db.one::<i64>(COUNTED)), (0, 1));
    running.stop().0.unwrap();
}

#[test]
fn a_count_that_another_session_locks_delays_no_outcome() {
    let db = TestDb::new();
    silent(&db, "dead", 6);
    held(&db, "dead", "'t'");
    let soon = SweepStaleWorkersOptions { recovery_delay: Some(Duration::ZERO), ..NOW };
    db.utils().sweep_stale_workers(soon).unwrap();
    let mut other = db.client();
    let mut holds = other.transaction().unwrap();
    holds.execute("select from graphile_worker._native_recoveries for update", &[]).unwrap();
    let running = Running::start(db.worker().define_raw_job("t", |_| ()));
    eventually(SOON, || running.worker.stats().completed == 1);
    db.add("'t'");
    eventually(SOON, || running.worker.stats().completed == 2);
    let worker = running.worker.clone();
    running.stop().0.unwrap();
    assert_eq!((db.jobs(), db.one::<i64>(COUNTED), worker.stats().database_errors), (0, 1, 0));
}

#[test]
fn every_sweep_deletes_counts_of_jobs_that_are_gone() {
    let db = TestDb::new();
    let kept = db.add("'t'");
    db.execute(&format!("insert into graphile_worker._native_recoveries values ({kept}, 0, 1), ({kept} + 1, 0, 1)"));
    let look = SweepStaleWorkersOptions { dry_run: true, ..NOW };
    db.utils().sweep_stale_workers(look).unwrap();
    assert_eq!(db.one::<i64>(COUNTED), 2);
    db.utils().sweep_stale_workers(NOW).unwrap();
    assert_eq!(db.all::<i64>("select job_id from graphile_worker._native_recoveries"), [kept]);
}

/// Takes up to a minute: workers delete the counts when they free locks older than four hours.
#[test]
fn workers_without_sweeps_delete_counts_of_jobs_that_are_gone() {
    let db = TestDb::new();
    db.execute("insert into graphile_worker._native_recoveries values (7, 0, 1)");
    // Each worker does this at a random moment of its first minute; of ten workers, one does it soon.
    let options = || db.worker().concurrency(1).max_pg_conn(5).worker_recovery(WorkerRecoveryConfig::default());
    let _workers: Vec<Running> = (0..10).map(|_| Running::start(options().define_raw_job("t", |_| ()))).collect();
    eventually(SOON * 7, || db.one::<i64>(COUNTED) == 0);
}

#[test]
fn a_worker_without_options_has_a_recovery_thread() {
    let db = TestDb::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "recovery::a_worker_that_sleeps", "-q"]).env("RECOVERY_TEST_SLEEPER", db.url());
    let worker = Started::new(command.stdout(std::process::Stdio::null()));
    let threads = || std::fs::read_dir(format!("/proc/{}/task", worker.0.id())).unwrap().flatten();
    let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
    eventually(SOON, || threads().any(|thread| name(thread).trim_end() == "gw-recovery"));
}

#[test]
fn only_a_job_alone_in_its_dead_worker_fails() {
    let db = TestDb::new();
    silent(&db, "busy", 6);
    silent(&db, "quiet", 6);
    let (one, other, alone) = (held(&db, "busy", "'t'"), held(&db, "busy", "'t'"), held(&db, "quiet", "'t'"));
    db.execute(
        "insert into graphile_worker._native_recoveries select id, revision, 5 from graphile_worker._private_jobs",
    );
    assert_eq!(db.utils().sweep_stale_workers(NOW).unwrap().recovered_count, 3);
    let has_failed = |job| row(&db, job, "attempts >= max_attempts");
    assert_eq!([one, other, alone].map(has_failed), ["false", "false", "true"]);
}

#[test]
fn nothing_is_claimed_before_the_first_heartbeat() {
    let db = TestDb::new();
    db.add("'t'");
    let mut other = db.client();
    let mut list = other.transaction().unwrap();
    list.execute("lock graphile_worker._native_workers", &[]).unwrap();
    let running = Running::start(db.worker().define_raw_job("t", |_| ()));
    let waits = "select count(*) from pg_stat_activity
                  where datname = current_database() and wait_event_type = 'Lock' and query like '%_native_workers%'";
    eventually(SOON, || db.one::<i64>(waits) == 1);
    eventually(SOON, || running.worker.stats().listener == ListenerState::Listening);
    // There is no event to wait for, so allow 200 ms.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((db.jobs(), db.locks()), (1, 0));
    list.commit().unwrap();
    eventually(SOON, || db.jobs() == 0);
}

#[test]
fn a_worker_starts_no_job_after_a_threshold_without_heartbeat() {
    let db = TestDb::new();
    let options = db.worker().concurrency(1).define_raw_job("t", |_| ());
    let running = Running::start(options.heartbeat_interval(HEARTBEAT).sweep_threshold(THRESHOLD));
    db.add("'t'");
    eventually(SOON, || db.jobs() == 0);
    let mut other = db.client();
    let mut list = other.transaction().unwrap();
    list.execute("lock graphile_worker._native_workers", &[]).unwrap();
    std::thread::sleep(THRESHOLD + HEARTBEAT);
    let heard = running.worker.stats().notifications;
    db.add("'t'");
    eventually(SOON, || running.worker.stats().notifications > heard);
    assert_eq!((db.jobs(), db.locks()), (1, 0));
    list.commit().unwrap();
    eventually(SOON, || db.jobs() == 0);
}

#[test]
fn a_new_sweeper_waits_a_whole_threshold() {
    let db = TestDb::new();
    silent(&db, "dead", 6);
    held(&db, "dead", "'t'");
    let (done, ran) = crossbeam_channel::bounded(1);
    let options = db.worker().define_raw_job("t", move |_| done.try_send(Instant::now()).unwrap());
    let options = options.worker_recovery(
        WorkerRecoveryConfig::default()
            .heartbeat_interval(Duration::from_millis(100))
            .sweep_interval(Duration::from_millis(50))
            .sweep_threshold(Duration::from_millis(800))
            .recovery_delay(Duration::ZERO)
            .enabled(true),
    );
    let start = Instant::now();
    let _running = Running::start(options);
    let ran = ran.recv_timeout(SOON).unwrap() - start;
    assert!(ran >= Duration::from_millis(800), "swept after {ran:?}, before the threshold was over");
}

#[test]
fn a_job_removed_while_its_worker_died_is_not_revived() {
    let db = TestDb::new();
    silent(&db, "dead", 6);
    let job = held(&db, "dead", "'t', job_key => 'k'");
    assert!(db.utils().remove_job("k").unwrap());
    db.utils().sweep_stale_workers(NOW).unwrap();
    assert_eq!(row(&db, job, "attempts >= max_attempts and locked_by is null"), "true");
}

#[test]
fn a_queue_of_a_dead_worker_without_a_job_is_unlocked() {
    for hooked in [false, true] {
        let db = TestDb::new();
        silent(&db, "dead", 6);
        let job = held(&db, "dead", "'t', queue_name => 'q'");
        db.execute(&format!("delete from graphile_worker._private_jobs where id = {job}"));
        let mut hooks = HookRegistry::new();
        if hooked {
            hooks.on(JobRecovery, |_| JobRecoveryResult::Default);
        }
        let result = db.utils().with_hooks(hooks.into()).sweep_stale_workers(NOW).unwrap();
        assert_eq!((result.worker_ids, db.locks()), (vec!["dead".to_owned()], 0), "hooks: {hooked}");
    }
}

/// The options of a worker with short sweep and heartbeat intervals.
fn quick(db: &TestDb) -> WorkerOptions {
    let options = db.worker().heartbeat_interval(HEARTBEAT).sweep_interval(SWEEP).sweep_threshold(THRESHOLD);
    options.recovery_delay(Duration::ZERO)
}

#[test]
fn sweeps_follow_each_other_at_their_interval() {
    let db = TestDb::new();
    let interval = Duration::from_millis(500);
    let _running = Running::start(quick(&db).sweep_interval(interval).define_raw_job("t", |_| ()));
    let one_more = || {
        silent(&db, "dead", 6);
        let found = "select count(*) from graphile_worker._native_workers where id = 'dead'";
        eventually(SOON, || db.one::<i64>(found) == 0);
        Instant::now()
    };
    let first = one_more();
    let took = (0..4).fold(first, |_, _| one_more()) - first;
    // The first of the four sweeps may happen as soon as the dead worker is inserted.
    assert!(took >= 3 * interval && took < 12 * interval, "four more sweeps took {took:?}");
}

#[test]
fn a_sweeper_with_late_heartbeats_does_not_take_its_own_jobs() {
    let db = TestDb::new();
    db.execute(
        "create function public.late() returns trigger language plpgsql as $$
         begin
           if new.id <> 'dead' then new.last_heartbeat_at := now() - interval '1 hour'; end if;
           return new;
         end $$;
         create trigger late before insert or update on graphile_worker._native_workers
           for each row execute function public.late()",
    );
    let job = db.add("'t'");
    let (release, wait) = crossbeam_channel::bounded::<()>(0);
    let running = Running::start(quick(&db).define_raw_job("t", move |_| _ = wait.recv_timeout(SOON)));
    eventually(SOON, || running.worker.stats().running == 1);
    for _ in 0..2 {
        silent(&db, "dead", 6);
        eventually(SOON, || {
            db.one::<i64>("select count(*) from graphile_worker._native_workers where id = 'dead'") == 0
        });
    }
    assert_eq!(row(&db, job, "locked_by"), running.worker.worker_id().unwrap());
    drop(release);
    eventually(SOON, || db.jobs() == 0);
    assert_eq!(running.worker.stats().lost, 0);
}

#[test]
fn a_failed_heartbeat_is_retried() {
    let db = TestDb::new();
    let running = Running::start(quick(&db).define_raw_job("t", |_| ()));
    let fresh =
        "select count(*) from graphile_worker._native_workers where last_heartbeat_at > now() - interval '1 second'";
    eventually(SOON, || db.one::<i64>(fresh) == 1);
    db.execute(
        "create function public.fails() returns trigger language plpgsql as $$begin raise 'not now'; end$$;
         create trigger fails before insert or update on graphile_worker._native_workers
           for each row execute function public.fails()",
    );
    eventually(SOON, || db.one::<i64>(fresh) == 0);
    assert!(running.worker.stats().database_errors > 0);
    db.execute("drop trigger fails on graphile_worker._native_workers");
    eventually(SOON, || db.one::<i64>(fresh) == 1);
    db.add("'t'");
    eventually(SOON, || db.jobs() == 0);
}

#[test] // Upstream: resetLockedAt.test.ts
fn locks_of_any_worker_are_released_after_four_hours() {
    let db = TestDb::new();
    let (old, young) =
        (held(&db, "worker-of-node", "'u', queue_name => 'a'"), held(&db, "another", "'u', queue_name => 'b'"));
    let last = held(&db, "worker-of-node", "'u', max_attempts => 1");
    db.execute(
        "update graphile_worker._private_jobs
            set locked_at = now() - case locked_by when 'another' then interval '5 minutes' else interval '241 minutes' end;
         update graphile_worker._private_job_queues
            set locked_at = now() - case locked_by when 'another' then interval '5 minutes' else interval '241 minutes' end",
    );
    // Each worker does this at a random moment of its first minute; of ten workers, one does it soon.
    let start = || Running::start(db.worker().concurrency(1).max_pg_conn(5).define_raw_job("t", |_| ()));
    let _workers: Vec<Running> = (0..10).map(|_| start()).collect();
    eventually(SOON * 7, || row(&db, old, "locked_by is null and attempts = 1") == "true");
    // A statement of its own frees the queues.
    let queues = "select locked_by from graphile_worker._private_job_queues where locked_at is not null";
    eventually(SOON, || db.all::<String>(queues) == ["another"]);
    assert_eq!(row(&db, young, "locked_by"), "another");
    assert_eq!(row(&db, last, "last_error"), "the worker died during the last attempt");
}

#[test]
fn a_job_recorded_as_superseded_is_not_revived() {
    for hooked in [false, true] {
        let db = TestDb::new();
        // As in schemas where superseding records the job in a table.
        db.execute("create table graphile_worker._private_job_retirements (id bigint primary key)");
        silent(&db, "dead", 6);
        let [noted, other] = [(); 2].map(|()| held(&db, "dead", "'t', max_attempts => 1"));
        db.execute(&format!("insert into graphile_worker._private_job_retirements values ({noted})"));
        db.execute("update graphile_worker._private_jobs set updated_at = created_at");
        let mut hooks = HookRegistry::new();
        if hooked {
            hooks.on(JobRecovery, |_| JobRecoveryResult::Default);
        }
        db.utils().with_hooks(hooks.into()).sweep_stale_workers(NOW).unwrap();
        assert_eq!(db.locks(), 0);
        assert_eq!((row(&db, noted, "attempts"), row(&db, other, "attempts")), ("1".into(), "0".into()), "{hooked}");
    }
}

/// Takes a minute: a lock is renewed when it is that old.
#[test]
fn only_the_locks_of_a_long_job_and_its_queue_are_renewed() {
    let db = TestDb::new();
    let job = db.add("'t', queue_name => 'q'");
    let (release, wait) = crossbeam_channel::bounded::<()>(0);
    let running = Running::start(db.worker().define_raw_job("t", move |_| _ = wait.recv_timeout(12 * SOON)));
    eventually(SOON, || db.locks() == 2);
    let claimed = row(&db, job, "locked_at");
    let updated = row(&db, job, "updated_at");
    eventually(9 * SOON, || row(&db, job, "locked_at") != claimed);
    assert_eq!(
        row(
            &db,
            job,
            "locked_at - timestamptz '%' between interval '30 seconds' and interval '80 seconds'"
                .replace('%', &claimed)
                .as_str()
        ),
        "true"
    );
    let queue = "select locked_at::text from graphile_worker._private_job_queues";
    eventually(SOON, || db.one::<String>(queue) == row(&db, job, "locked_at"));
    assert_eq!(row(&db, job, "updated_at"), updated);
    assert_eq!(running.worker.stats().lost, 0);
    drop(release);
    eventually(SOON, || db.jobs() == 0);
}

#[test]
fn a_worker_whose_last_reconcile_is_cut_off_repeats_it() {
    let db = TestDb::new();
    let proxy = Proxy::to_server_of(&db.url());
    let options = db.worker().database_url(&proxy.url(&db.url())).define_raw_job("t", |_| ());
    let running = Running::start(options);
    db.add("'t'");
    eventually(SOON, || db.jobs() == 0);
    // The worker does not know this job, so only lease's last reconcile gives it back in time.
    let stranded = held(&db, &running.worker.worker_id().unwrap(), "'u'");
    proxy.drop_reply_to(1, |sent| sent.application_name.ends_with("lease") && sent.sql.contains("keyless"));
    running.stop().0.unwrap();
    assert_eq!((proxy.replies_dropped(), db.locks()), (1, 0));
    assert_eq!(row(&db, stranded, "attempts"), "0");
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._native_workers"), 0);
}
