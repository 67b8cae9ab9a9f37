//! Connecting to the database: pools, two schemas in one database, and the errors if the connection fails.

use crate::cli::{program, stderr, stdout};
use crate::harness::{Running, SOON, Started, TestDb, eventually};
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{ErrorKind, JobSpec, Schema, WorkerContext, WorkerOptions, WorkerUtils};
use r2d2_postgres::PostgresConnectionManager;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

fn noop(options: WorkerOptions) -> WorkerOptions {
    options.define_raw_job("t", |_| ())
}

fn pool(db: &TestDb, size: u32) -> r2d2::Pool<PostgresConnectionManager<postgres::NoTls>> {
    let manager = PostgresConnectionManager::new(db.url().parse().unwrap(), postgres::NoTls);
    r2d2::Pool::builder().max_size(size).build(manager).unwrap()
}

#[track_caller]
fn refused(options: WorkerOptions, kind: ErrorKind, words: &[&str]) {
    let error = noop(options).init().map(drop).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error} does not contain {word:?}");
    }
}

#[test]
fn a_worker_runs_on_the_callers_pool_alone() {
    let db = TestDb::new();
    db.add("'t', queue_name => 'q'");
    let running = Running::start(noop(WorkerOptions::default().pg_pool(pool(&db, 6)).concurrency(2)));
    eventually(SOON, || db.jobs() == 0);
    eventually(SOON, || db.backends("listen").len() == 1);
    db.add("'t'");
    eventually(SOON, || db.jobs() == 0);
    let (result, took) = running.stop();
    result.unwrap();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(db.locks(), 0);
}

#[test]
fn with_a_pool_and_a_url_only_handlers_use_the_pool() {
    let db = TestDb::new();
    let running = Running::start(noop(WorkerOptions::default().pg_pool(pool(&db, 1)).database_url(&db.url())));
    db.add("'t'");
    eventually(SOON, || db.jobs() == 0);
    assert_eq!(db.backends("fetch").len(), 1);
    drop(running);
}

#[test]
fn a_pool_without_room_for_engine_and_handlers_is_refused() {
    let db = TestDb::new();
    refused(WorkerOptions::default().pg_pool(pool(&db, 4)), ErrorKind::Config, &["pg_pool", "4"]);
    refused(db.worker().max_pg_conn(4), ErrorKind::Config, &["max_pg_conn: 4 is fewer than 5"]);
}

#[test]
fn options_out_of_range_are_named_with_their_limit() {
    let db = TestDb::new();
    refused(WorkerOptions::default(), ErrorKind::Config, &["database_url", "pg_pool"]);
    refused(db.worker().concurrency(0), ErrorKind::Config, &["concurrency: 0 is outside 1"]);
    refused(db.worker().poll_interval(Duration::ZERO), ErrorKind::Config, &["poll_interval", "1ms"]);
    refused(db.worker().schema("a$$b"), ErrorKind::Config, &["schema", "$"]);
    refused(db.worker().define_raw_job("t", |_| ()), ErrorKind::Config, &["task \"t\": is defined twice"]);
    refused(db.worker().define_raw_job("", |_| ()), ErrorKind::Config, &["task name: has 0 characters"]);
    let error = db.worker().init().map(drop).unwrap_err();
    assert!(error.to_string().contains("no task is defined"), "{error}");
}

#[test]
fn an_unreachable_server_is_named_at_once() {
    let start = Instant::now();
    let url = "postgres://ada:s3cret@127.0.0.1:1/app";
    refused(WorkerOptions::default().database_url(url), ErrorKind::Connect, &["127.0.0.1:1"]);
    let error = WorkerUtils::connect("postgres://ada:s3cret@127.0.0.1:port/app").map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!error.to_string().contains("s3cret"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_wrong_password_is_reported_at_once_with_its_sqlstate() {
    let files = vec![("pg_hba.conf".to_owned(), "local all all trust\nhost all all all scram-sha-256\n".to_owned())];
    let server = DevDb::start(Options { fsync: false, files, ..Options::default() }).unwrap();
    let start = Instant::now();
    let url = format!("postgres://postgres:wr0ng@127.0.0.1:{}/postgres", server.port());
    let error = WorkerUtils::connect(&url).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Auth, Some("28P01")), "{error}");
    assert!(!error.to_string().contains("wr0ng"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn calls_on_an_async_runtime_thread_fail_and_name_the_fix() {
    let db = TestDb::new();
    let utils = db.utils();
    let worker = noop(db.worker()).init().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let errors = [
            utils.add_raw_job("t", &1, JobSpec::new()).map(drop).unwrap_err(),
            WorkerUtils::connect(&db.url()).map(drop).unwrap_err(),
            worker.run().unwrap_err(),
            noop(db.worker()).init().map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Misuse);
            assert!(error.to_string().contains("spawn_blocking"), "{error}");
        }
    });
    runtime.block_on(async { tokio::task::yield_now().await });
}

#[test]
fn workers_on_two_schemas_of_one_database_are_independent() {
    let db = TestDb::new();
    let odd = "Größe \"q\" ; drop schema x; 🦀";
    let first = Running::start(noop(db.worker().poll_interval(Duration::from_secs(3600))));
    let second = Running::start(noop(db.worker().schema(odd).poll_interval(Duration::from_secs(3600))));
    let utils = db.utils().schema(Schema::new(odd).unwrap());
    for n in 0..20 {
        utils.add_raw_job("t", &n, JobSpec::new().queue_name("q")).unwrap();
        db.add("'t', queue_name => 'q'");
    }
    eventually(SOON, || first.worker.stats().completed == 20 && second.worker.stats().completed == 20);
}

#[test]
fn a_worker_runs_once_at_a_time_and_can_run_again() {
    let db = TestDb::new();
    let running = Running::start(noop(db.worker()));
    eventually(SOON, || running.worker.stats().claims > 0);
    assert_eq!(running.worker.run_once().unwrap_err().kind(), ErrorKind::Misuse);
    let worker = noop(db.worker()).init().unwrap();
    worker.run_once().unwrap();
    let first = worker.worker_id().unwrap();
    worker.run_once().unwrap();
    assert_ne!(worker.worker_id().unwrap(), first, "every start has a new worker id");
}

#[test]
fn a_migration_of_another_schema_stops_no_worker() {
    let db = TestDb::new();
    let running = Running::start(noop(db.worker()));
    eventually(SOON, || running.worker.stats().listener == graphile_worker::ListenerState::Listening);
    // All schemas of a database share the channel.
    db.execute("select pg_notify('worker:migrate', '{\"migrationNumber\": 99, \"breaking\": true}')");
    db.add("'t'");
    eventually(SOON, || running.worker.stats().completed == 1);
    running.stop().0.unwrap();
}

/// Longer than a connection takes on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

/// A server that accepts connections and never sends a byte.
fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// `postgres://postgres@` with these servers, then the real server of `db`, and these parameters.
fn after_others(db: &TestDb, servers: &str, parameters: &str) -> String {
    let url = db.url();
    let (start, rest) = url.split_once('@').expect("a URL with a user");
    let separator = if rest.contains('?') { '&' } else { '?' };
    format!("{start}@{servers},{rest}{separator}{parameters}")
}

/// Runs a worker, a handler's connection and a client on one URL.
#[track_caller]
fn works_on(db: &TestDb, url: &str) {
    let utils = WorkerUtils::connect(url).unwrap();
    let options =
        WorkerOptions::default().database_url(url).concurrency(2).define_raw_job("t", |ctx: WorkerContext| {
            ctx.connection()?.batch_execute("select 1").map_err(graphile_worker::Error::from)
        });
    let running = Running::start(options);
    utils.add_raw_job("t", &1, JobSpec::new()).unwrap();
    eventually(PATIENT, || db.jobs() == 0);
    running.stop().0.unwrap();
}

#[test]
fn the_second_host_is_tried_when_the_first_never_replies() {
    let db = TestDb::new();
    let (_silent, port) = silent();
    works_on(&db, &after_others(&db, &format!("127.0.0.1:{port}"), "connect_timeout=3"));
    // Without `connect_timeout` the first host gets its share of the whole timeout.
    let utils =
        WorkerUtils::connect_within(&after_others(&db, &format!("127.0.0.1:{port}"), ""), 1, Duration::from_secs(20));
    utils.unwrap().add_raw_job("t", &1, JobSpec::new()).unwrap();
    // With `sslmode=require` the first host times out in the TLS handshake, and the second host has no TLS.
    let tls = after_others(&db, &format!("127.0.0.1:{port}"), "connect_timeout=3&sslmode=require");
    let error = WorkerUtils::connect_within(&tls, 1, PATIENT).map(drop).unwrap_err();
    assert!(error.to_string().contains("does not support TLS") && error.to_string().contains("within 3s"), "{error}");
}

#[test]
fn the_second_host_is_tried_when_the_first_drops_packets() {
    let db = TestDb::new();
    // This address is reserved for documentation: packets to it are lost, or a router refuses them at once.
    works_on(&db, &after_others(&db, "192.0.2.1:5432", "connect_timeout=3"));
    let url = after_others(&db, "far.invalid:5432", "connect_timeout=3&hostaddr=192.0.2.1,127.0.0.1");
    works_on(&db, &url);
}

#[test]
fn a_socket_whose_server_is_stopped_is_skipped() {
    use std::os::unix::net::UnixListener;
    let db = TestDb::new();
    let folder = std::env::temp_dir().join(format!("gw-socket-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(".s.PGSQL.5432");
    let _ = std::fs::remove_file(&path);
    let _silent = UnixListener::bind(&path).unwrap();
    let url = db.url();
    let address = url.split_once('@').unwrap().1;
    let (address, rest) = address.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap_or((address, "5432"));
    let database = rest.split('?').next().unwrap();
    let user = url.split_once("://").unwrap().1.split(['@', ':']).next().unwrap();
    works_on(
        &db,
        &format!("host={},{host} port=5432,{port} user={user} dbname={database} connect_timeout=3", folder.display()),
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_server_that_does_not_match_the_session_attrs_is_skipped() {
    let db = TestDb::alone();
    let settings = vec![("default_transaction_read_only".to_owned(), "on".to_owned())];
    let read_only = DevDb::start(Options { fsync: false, settings, ..Options::default() }).unwrap();
    let (_silent, port) = silent();
    let servers = format!("127.0.0.1:{},127.0.0.1:{port}", read_only.port());
    for attrs in ["read-write", "primary"] {
        works_on(&db, &after_others(&db, &servers, &format!("connect_timeout=3&target_session_attrs={attrs}")));
    }
    let url = after_others(&db, &servers, "connect_timeout=3&target_session_attrs=read-only");
    assert!(WorkerUtils::connect_within(&url, 1, PATIENT).is_ok(), "the first one is read-only");
    let alone = format!("{}?target_session_attrs=read-write", read_only.url());
    let error = WorkerUtils::connect_within(&alone, 1, PATIENT).map(drop).unwrap_err();
    assert!(error.to_string().contains("does not allow writes") && error.is_transient(), "{error}");
}

#[test]
fn no_other_host_is_tried_after_one_that_refuses_the_password() {
    let files = vec![("pg_hba.conf".to_owned(), "local all all trust\nhost all all all scram-sha-256\n".to_owned())];
    let strict = DevDb::start(Options { fsync: false, files, ..Options::default() }).unwrap();
    let db = TestDb::new();
    let url = after_others(&db, &format!("127.0.0.1:{}", strict.port()), "password=wr0ng");
    let error = WorkerUtils::connect_within(&url, 1, PATIENT).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Auth, Some("28P01")), "{error}");
}

#[test]
fn the_callers_timeout_bounds_the_whole_connect() {
    let (_silent, port) = silent();
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
    let list = |timeout: &str| {
        let mut program = program();
        Started::new(program.args(["stats", "--database-url", &url, "--timeout", timeout]).stderr(Stdio::piped()))
    };
    let mut longest = list("60s");
    let mut short = list("1s");
    // Less than the 60 seconds of the other process.
    eventually(Duration::from_secs(50), || short.0.try_wait().unwrap().is_some());
    assert!(longest.0.try_wait().unwrap().is_none(), "60s ended with 1s");
    let mut text = String::new();
    short.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(short.status().code(), Some(3), "{text}");
    assert!(text.contains(&format!("connecting to 127.0.0.1:{port}: the database did not reply within")), "{text}");
    // A library call with a limit of 12 seconds still waits after ten seconds.
    let start = Instant::now();
    let error = WorkerUtils::connect_within(&url, 1, Duration::from_secs(12)).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() > Duration::from_secs(11), "{:?}", start.elapsed());
    assert!(longest.0.try_wait().unwrap().is_none(), "60s ended with 12s");
}

#[test]
fn sessions_are_named_after_the_application_of_the_url_and_their_role() {
    let db = TestDb::new();
    let separator = if db.url().contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}application_name=myapp", db.url());
    let running =
        Running::start(WorkerOptions::default().database_url(&url).define_raw_job("t", |ctx: WorkerContext| {
            let name: String = ctx.connection()?.query_one("show application_name", &[])?.get(0);
            assert_eq!(name, "myapp graphile-worker:handler");
            Ok::<_, Box<dyn std::error::Error>>(())
        }));
    db.add("'t'");
    eventually(SOON, || running.worker.stats().completed == 1);
    let named = "select count(*) from pg_stat_activity where datname = current_database()
                    and application_name = 'myapp graphile-worker:fetch'";
    assert_eq!(db.one::<i64>(named), 1);
}

#[test]
fn without_a_url_the_variables_of_libpq_select_the_database() {
    let db = DevDb::start(Options { fsync: false, ..Options::default() }).unwrap();
    let service = std::env::temp_dir().join(format!("gw-services-{}", std::process::id()));
    let text = format!("[here]\nhost=127.0.0.1\nport={}\nuser=postgres\n", db.port());
    std::fs::write(&service, text).unwrap();
    let port = db.port().to_string();
    for (number, url) in [None, Some("")].into_iter().enumerate() {
        let mut program = program();
        program.args(["migrate"]).env("PGHOST", "127.0.0.1").env("PGPORT", &port).env("PGUSER", "postgres");
        url.map(|url| program.env("DATABASE_URL", url));
        let output = program.output().unwrap();
        assert_eq!(stdout(&output), "schema graphile_worker is ready\n", "{number}: {}", stderr(&output));
    }
    let output = program().arg("stats").env("PGSERVICE", "here").env("PGSERVICEFILE", &service).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    // Beside a complete URL the service has no effect, as in libpq.
    let output = program()
        .args(["stats", "--database-url", &db.url()])
        .env("PGSERVICE", "here")
        .env("PGSERVICEFILE", &service)
        .env("PGREQUIREPEER", "root")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let output = program().arg("stats").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("DATABASE_URL or one of PGHOST"), "{}", stderr(&output));
    std::fs::remove_file(&service).unwrap();
}

/// A server that sends these bytes in reply to each startup packet.
fn answering(answer: &'static [u8]) -> u16 {
    let (listener, port) = silent();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut first = [0; 1024];
                let _ = client.read(&mut first);
                let _ = client.write_all(answer);
                let _ = client.shutdown(Shutdown::Write);
                // Closing a socket with unread input would discard the reply.
                let _ = std::io::copy(&mut client, &mut std::io::sink());
            });
        }
    });
    port
}

#[test]
fn connect_errors_have_their_kind_and_name_host_and_port() {
    use ErrorKind::{Auth, Config, Connect, Tls};
    let hba = "local all all trust\nhost all postgres all trust\nhost all pass all scram-sha-256\n\
               host all narrow all trust\nhost all reader all trust\nhost all md5 all md5\nhost all clear all password\n";
    let files = vec![("pg_hba.conf".to_owned(), hba.to_owned())];
    let server = DevDb::start(Options { fsync: false, files, ..Options::default() }).unwrap();
    let mut admin = postgres::Client::connect(&server.url(), postgres::NoTls).unwrap();
    for sql in [
        "create role pass login password 'right'",
        "create role clear login password 'right'",
        "set password_encryption = 'md5'",
        "create role md5 login password 'right'",
        "create role narrow login connection limit 0",
        "create role reader login",
        "create role stranger login",
        "create database closed allow_connections false",
        "create database private",
        "revoke connect on database private from public",
    ] {
        admin.batch_execute(sql).unwrap();
    }
    let real = server.port();
    // Authentication requests: 7 is GSSAPI, 9 SSPI, 2 Kerberos, 10 SASL with an unsupported mechanism.
    let gss = answering(b"R\0\0\0\x08\0\0\0\x07");
    let sspi = answering(b"R\0\0\0\x08\0\0\0\x09");
    let kerberos = answering(b"R\0\0\0\x08\0\0\0\x02");
    let sasl = answering(b"R\0\0\0\x15\0\0\0\x0aOAUTHBEARER\0\0");
    let starting = answering(b"E\0\0\0\x24SFATAL\0C57P03\0Mstarting up now\0\0");
    let web = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let ended = answering(b"");
    let no_tls = answering(b"N");
    let broken_tls = answering(b"S");
    let cases: &[(u16, &str, ErrorKind, Option<&str>)] = &[
        (real, "user=pass", Auth, None),
        (real, "user=md5", Auth, None),
        (real, "user=clear", Auth, None),
        (real, "user=pass password=wrong", Auth, Some("28P01")),
        (real, "user=md5 password=wrong", Auth, Some("28P01")),
        (real, "user=clear password=wrong", Auth, Some("28P01")),
        (real, "user=pass password=right channel_binding=require", Auth, None),
        (real, "user=postgres channel_binding=require", Auth, None),
        (real, "user=stranger", Auth, Some("28000")),
        (real, "user=postgres dbname=gone", Auth, Some("3D000")),
        (real, "user=postgres dbname=closed", Auth, Some("55000")),
        (real, "user=reader dbname=private", Auth, Some("42501")),
        (real, "user=narrow dbname=postgres", Connect, Some("53300")),
        (real, "user=postgres options='-c nonsense=1'", Config, Some("42704")),
        (real, "user=postgres options='-c work_mem=much'", Config, Some("22023")),
        (real, "user=postgres sslmode=require", Tls, None),
        (gss, "user=u sslmode=disable", Auth, None),
        (sspi, "user=u sslmode=disable", Auth, None),
        (kerberos, "user=u sslmode=disable", Auth, None),
        (sasl, "user=u password=p sslmode=disable", Auth, None),
        (starting, "user=u sslmode=disable", Connect, Some("57P03")),
        (web, "user=u sslmode=disable", Connect, None),
        (ended, "user=u sslmode=disable", Connect, None),
        (no_tls, "user=u sslmode=require", Tls, None),
        (broken_tls, "user=u sslmode=require", Connect, None),
        (1, "user=u", Connect, None),
    ];
    for (port, rest, kind, sqlstate) in cases {
        let text = format!("host=127.0.0.1 port={port} {rest}");
        let place = format!("127.0.0.1:{port}");
        let errors = [
            WorkerUtils::connect_within(&text, 1, PATIENT).map(drop).unwrap_err(),
            noop(WorkerOptions::default().database_url(&text).database_timeout(PATIENT)).init().map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.sqlstate()), (*kind, *sqlstate), "{text}: {error}");
            assert_eq!(error.is_transient(), *kind == Connect, "{text}: {error}");
            assert!(error.to_string().contains(&place), "{text}: {error}");
            assert!(!error.to_string().contains("wrong"), "{error}");
        }
    }
}

#[test]
fn an_error_of_init_names_the_server_after_connecting_too() {
    let db = TestDb::new();
    let proxy = crate::proxy::Proxy::to_server_of(&db.url());
    let place = format!("127.0.0.1:{}", proxy.port());
    // Round by round, drop the reply to a later statement of the start.
    for number in 0..8 {
        let mut seen = 0;
        let before = proxy.replies_dropped();
        proxy.drop_reply_to(1, move |_| {
            seen += 1;
            seen > number
        });
        match noop(WorkerOptions::default().database_url(&proxy.url(&db.url())).database_timeout(PATIENT)).init() {
            Ok(_) => assert_eq!(proxy.replies_dropped(), before, "statement {number}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Connect, "statement {number}: {error}");
                assert!(error.to_string().contains(&place), "statement {number}: {error}");
            }
        }
    }
    assert!(proxy.replies_dropped() >= 4, "{}", proxy.replies_dropped());
    // An error of the root certificate names the host too.
    let text = "host=127.0.0.1 port=1 user=u sslmode=verify-full sslrootcert=/nowhere";
    refused(WorkerOptions::default().database_url(text), ErrorKind::Tls, &["127.0.0.1:1", "/nowhere"]);
}
