//! Runs transactions that this library commits. If the connection is lost, it asks the database for their outcome.
//! Knows nothing of the tables.
//!
//! If the commit was not sent, the server undoes the transaction, and the call can be repeated. Only a lost reply to
//! the commit leaves the outcome unknown. So the id of the transaction is read before the commit is sent.

use super::database::Database;
use super::deadline::{Pending, missed};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use log::debug;
use parking_lot::Mutex;
use postgres::types::Type;
use postgres::{Client, SimpleQueryMessage};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How many attempts a call has that a broken connection or another transaction undoes.
const TRIES: u32 = 8;

/// How many attempts a call has whose session is out of date. A new session helps at once, or not at all.
const TRIES_OF_STALE_SESSIONS: u32 = 2;

/// What identifies a transaction when the database is asked for its outcome.
#[derive(Clone, Copy)]
struct Mark {
    transaction: i64,
    began: DateTime<Utc>,
    server_started: DateTime<Utc>,
}

/// The progress of a transaction.
enum Stage<T> {
    /// The commit is not sent.
    Open,
    /// The commit is sent, or about to be sent. Holds the value to return if the commit succeeds.
    Ending(Mark, T),
    /// The caller has stopped waiting. The commit must not be sent.
    GivenUp,
}

impl Database {
    /// Runs `work` in a transaction and commits it; rolls it back if `keep` is false. `work` may run several times,
    /// each time in a new transaction. `is_shown` returns whether the tables show that a transaction that began at the
    /// given time has committed a value. It is called only if the database alone cannot report the outcome. The whole
    /// call ends within `timeout`.
    ///
    /// # Errors
    /// `UnknownOutcome` if it is not known whether the transaction was committed. After any other error it was not
    /// committed.
    pub(crate) fn change<T: Clone + Send + 'static>(
        &self,
        timeout: Duration,
        keep: bool,
        work: impl Fn(&mut Client, Instant) -> Result<T> + Send + Sync + 'static,
        is_shown: impl Fn(&mut Client, &T, DateTime<Utc>) -> Result<bool> + Send + Sync + 'static,
    ) -> Result<T> {
        let end = Instant::now() + timeout;
        let (work, is_shown) = (Arc::new(work), Arc::new(is_shown));
        let answer = repeat(end, || {
            let stage = Arc::new(Mutex::new(Stage::Open));
            let pending = {
                let (stage, work) = (stage.clone(), work.clone());
                self.start(end, move |client| transact(client, end, keep, &*work, &stage))?
            };
            let ended = match pending.wait(end.saturating_duration_since(Instant::now()) * 3 / 4) {
                // Before the commit is sent there is no outcome to ask for.
                Err(_) if !matches!(*stage.lock(), Stage::Ending(..)) => {
                    pending.wait(end.saturating_duration_since(Instant::now()))
                }
                ended => ended,
            }
            .and_then(|ended| ended);
            match (std::mem::replace(&mut *stage.lock(), Stage::GivenUp), ended) {
                (Stage::Ending(_, answer), Ok(())) => Ok(answer),
                (Stage::Ending(mark, answer), Err(error)) if leaves_doubt(&error) => {
                    self.find_out(end, &pending, mark, answer, error, &is_shown)
                }
                (_, Err(error)) => Err(error),
                (_, Ok(())) => unreachable!("a transaction succeeds only after its stage is `Ending`"),
            }
        });
        answer.map_err(|error| match (error.kind(), error.sqlstate()) {
            (ErrorKind::Timeout, _) => missed(timeout).context("not committed"),
            // The server ended the statement shortly before the caller's deadline.
            (_, Some("57014" | "55P03")) if Instant::now() + timeout / 4 >= end => {
                missed(timeout).caused_by(error).context("not committed")
            }
            (_, Some("25006")) => error.context(
                "not committed: the server is a standby, or default_transaction_read_only is on for the role or the database",
            ),
            (ErrorKind::Connect, _) => error.context("not committed"),
            _ => error,
        })
    }

    /// Runs `work` on a pooled connection, and repeats it if that helps. For statements that change nothing.
    pub(crate) fn look<T: Send + 'static>(
        &self,
        timeout: Duration,
        work: impl Fn(&mut Client) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let (end, work) = (Instant::now() + timeout, Arc::new(work));
        repeat(end, || {
            let work = work.clone();
            self.run(end, move |client| work(client))
        })
    }

    /// Asks the database for the outcome of a transaction whose commit got no reply.
    fn find_out<T: Clone + Send + 'static>(
        &self,
        end: Instant,
        pending: &Pending<Result<()>>,
        mark: Mark,
        answer: T,
        error: Error,
        is_shown: &Arc<impl Fn(&mut Client, &T, DateTime<Utc>) -> Result<bool> + Send + Sync + 'static>,
    ) -> Result<T> {
        let mut pause = Backoff::new(Duration::from_millis(10), Duration::from_millis(250));
        loop {
            let (shown, claimed) = (is_shown.clone(), answer.clone());
            let found = self.run(end, move |client| {
                Ok(match outcome(client, &mark)? {
                    Outcome::PerhapsCommitted if shown(client, &claimed, mark.began)? => Outcome::Committed,
                    found => found,
                })
            });
            match found {
                Ok(Outcome::Committed) => return Ok(answer),
                Ok(Outcome::Undone) => {
                    return Err(Error::new(ErrorKind::Connect, format!("the connection was lost: {error}")));
                }
                Ok(Outcome::PerhapsCommitted) => break,
                Ok(Outcome::Open) | Err(_) => {}
            }
            let pause = pause.next();
            if Instant::now() + pause >= end {
                break;
            }
            thread::sleep(pause);
            // The reply was late, and not lost.
            if let Ok(Ok(())) = pending.wait(Duration::ZERO) {
                return Ok(answer);
            }
        }
        let text = format!(
            "the change may or may not have been committed; check before you repeat it \
             (the reply to the commit was lost, and the database could not report the outcome): {error}"
        );
        Err(Error::new(ErrorKind::UnknownOutcome, text).caused_by(error))
    }
}

/// Repeats a call that was undone and may succeed now.
fn repeat<T>(end: Instant, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut pause = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
    let mut tries = 0;
    loop {
        let error = match attempt() {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        tries += 1;
        let tries_allowed = match error.sqlstate() {
            Some("40001" | "40P01") => TRIES,
            _ if error.kind() == ErrorKind::Connect => TRIES,
            _ if error.is_stale() || error.kind() == ErrorKind::Database && error.breaks_session() => {
                TRIES_OF_STALE_SESSIONS
            }
            _ => return Err(error),
        };
        let pause = pause.next();
        if tries >= tries_allowed || Instant::now() + pause >= end {
            return Err(error);
        }
        debug!(error:%, tries; "the database undid a call, repeating it");
        thread::sleep(pause);
    }
}

/// Runs one transaction, on the thread that waits for the database.
fn transact<T>(
    client: &mut Client,
    end: Instant,
    keep: bool,
    work: &impl Fn(&mut Client, Instant) -> Result<T>,
    stage: &Mutex<Stage<T>>,
) -> Result<()> {
    let mut transaction = Transaction { client, is_open: true };
    let mark = transaction.begin(end.saturating_duration_since(Instant::now()))?;
    let answer = work(transaction.client, end)?;
    {
        let mut stage = stage.lock();
        if matches!(*stage, Stage::GivenUp) {
            return Err(Error::new(ErrorKind::Stopped, "the caller has stopped waiting"));
        }
        *stage = Stage::Ending(mark, answer);
    }
    transaction.end(keep)
}

/// A transaction that is rolled back if it is dropped before its end. The driver's own transaction is not used, because
/// its begin costs a round trip of its own.
struct Transaction<'a> {
    client: &'a mut Client,
    is_open: bool,
}

impl Transaction<'_> {
    fn begin(&mut self, left: Duration) -> Result<Mark> {
        let milliseconds = |time: Duration| time.as_millis().clamp(1, i32::MAX as u128).to_string();
        let sql = include_str!("../sql/session/begin.sql")
            .replace(":STATEMENT_MS", &milliseconds(left))
            .replace(":IDLE_MS", &milliseconds(left / 2));
        let messages = self.client.simple_query(&sql)?;
        let row = messages.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let number = |column| row.and_then(|row| row.get(column)?.parse::<i64>().ok());
        let time = |column| number(column).and_then(DateTime::from_timestamp_micros);
        let mark = || Some(Mark { transaction: number(0)?, began: time(1)?, server_started: time(2)? });
        mark().ok_or_else(|| Error::new(ErrorKind::Database, "the server began a transaction and returned no id"))
    }

    fn end(mut self, keep: bool) -> Result<()> {
        self.is_open = false;
        Ok(self.client.batch_execute(if keep { "commit" } else { "rollback" })?)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_open && !self.client.is_closed() {
            // If this fails, the connection is lost, and the server rolls the transaction back by itself.
            let _ = self.client.batch_execute("rollback");
        }
    }
}

/// Whether a commit with this error may have succeeded: the server did not report that it failed.
fn leaves_doubt(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Misuse)
}

enum Outcome {
    Committed,
    /// Committed, unless the server crashed and assigned the id again.
    PerhapsCommitted,
    Undone,
    /// Not ended yet, or unknown to the server that replied.
    Open,
}

fn outcome(client: &mut Client, mark: &Mark) -> Result<Outcome> {
    let params: [(&(dyn postgres::types::ToSql + Sync), Type); 3] =
        [(&mark.transaction, Type::INT8), (&mark.began, Type::TIMESTAMPTZ), (&mark.server_started, Type::TIMESTAMPTZ)];
    let row = match client.query_typed_one(include_str!("../sql/session/outcome.sql"), &params).map_err(Error::from) {
        Ok(row) => row,
        Err(error) if error.sqlstate() == Some("22023") => return Ok(Outcome::Undone),
        Err(error) => return Err(error),
    };
    let never_crashed: bool = row.try_get("never_crashed")?;
    Ok(match row.try_get::<_, Option<&str>>("status")? {
        Some("committed") if never_crashed => Outcome::Committed,
        Some("committed") => Outcome::PerhapsCommitted,
        Some("aborted") => Outcome::Undone,
        _ => Outcome::Open,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devdb::{DevDb, Options};
    use postgres::NoTls;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// A database with a table for changes, a server of its own, and a session that watches it.
    fn made() -> (DevDb, Database, Client) {
        let db = DevDb::start(Options { fsync: false, ..Options::default() }).unwrap();
        let mut watcher = Client::connect(&db.url(), NoTls).unwrap();
        watcher.batch_execute("create table public.made (n int)").unwrap();
        let database = Database::open(&db.url(), 2, Duration::from_secs(10)).unwrap();
        (db, database, watcher)
    }

    fn number(client: &mut Client, sql: &str) -> i64 {
        client.query_one(sql, &[]).unwrap().get(0)
    }

    #[track_caller]
    fn eventually(mut is: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !is() {
            assert!(Instant::now() < end, "did not come true");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_change_is_not_committed_after_its_caller_stopped_waiting() {
        let (_db, database, mut watcher) = made();
        let returned = Arc::new(AtomicBool::new(false));
        let goes_on = returned.clone();
        let work = move |client: &mut Client, _: Instant| {
            client.batch_execute("insert into public.made values (1)")?;
            // Without statements, the server would end the transaction before the deadline.
            while !goes_on.load(Ordering::SeqCst) {
                client.batch_execute("select 1")?;
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        };
        let error = database.change(Duration::from_secs(3), true, work, |_, (), _| Ok(true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().starts_with("not committed: "), "{error}");
        let open = "select count(*) from pg_stat_activity
                     where application_name = 'graphile-worker:handler' and xact_start is not null";
        assert_eq!(number(&mut watcher, open), 1, "the transaction is still open");
        returned.store(true, Ordering::SeqCst);
        eventually(|| number(&mut watcher, open) == 0);
        assert_eq!(number(&mut watcher, "select count(*) from public.made"), 0);
    }

    #[test]
    fn a_change_is_repeated_if_the_server_ended_its_idle_transaction() {
        let (_db, database, watcher) = made();
        let watcher = Arc::new(Mutex::new(watcher));
        let (tries, errors) = (AtomicUsize::new(0), Arc::new(Mutex::new(Vec::new())));
        let (watching, sink) = (watcher.clone(), errors.clone());
        let work = move |client: &mut Client, _: Instant| {
            let made = match tries.fetch_add(1, Ordering::SeqCst) {
                0 => {
                    let pid: i32 = client.query_one("select pg_backend_pid()", &[])?.get(0);
                    let exists = format!("select count(*) from pg_stat_activity where pid = {pid}");
                    eventually(|| number(&mut watching.lock(), &exists) == 0);
                    client.batch_execute("insert into public.made values (1)")
                }
                // The reason that the server gives arrives only if the client reads it before the connection is reset.
                1 => client.batch_execute("do $$ begin raise 'idle' using errcode = '25P03'; end $$"),
                _ => client.batch_execute("insert into public.made values (1)"),
            };
            let made = made.map_err(Error::from);
            sink.lock().push(made.as_ref().err().map(Error::kind));
            made
        };
        database.change(Duration::from_secs(6), true, work, |_, (), _| Ok(true)).unwrap();
        assert_eq!(*errors.lock(), [Some(ErrorKind::Connect), Some(ErrorKind::Connect), None]);
        assert_eq!(number(&mut watcher.lock(), "select count(*) from public.made"), 1);
    }
}
