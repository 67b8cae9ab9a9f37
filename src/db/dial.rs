//! Connects to a server: tries every host and every address of it in turn, as libpq does, each within its share of the
//! time. Reads everything that a connection needs anew for each one. The implementations of [`Dialer`] open the
//! sockets.

use super::conninfo::{ConnInfo, Server, WHERE};
use super::tls::Tls;
use crate::error::{Error, ErrorKind, Result};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::Config;

/// A connection string, as the caller wrote it.
///
/// Password files, service files, certificates and the environment change while a worker runs. So none of them is kept.
pub(crate) struct ConnectionString {
    text: String,
    /// Whether it was read once without an error. A later error then means that a file is being replaced.
    was_read: AtomicBool,
}

/// Makes one connection.
pub(super) trait Dialer {
    /// The type of an open connection.
    type Line;

    /// Returns the addresses of a name.
    fn resolve(&mut self, host: &str, port: u16, limit: Duration) -> Result<Vec<IpAddr>>;

    /// Connects to the only server of `config`, including TLS and authentication. `target` is its name.
    fn connect(&mut self, config: &Config, tls: &Tls, target: &str, limit: Duration) -> Result<Self::Line>;
}

impl ConnectionString {
    /// Takes a connection string, and checks that it can be read now.
    ///
    /// # Errors
    /// `Config` or `Tls`, naming what is wrong with the connection string or with a file.
    pub(crate) fn new(text: &str) -> Result<Self> {
        let url = Self { text: text.to_owned(), was_read: AtomicBool::new(false) };
        url.read()?;
        Ok(url)
    }

    fn read(&self) -> Result<(ConnInfo, Tls)> {
        let read = ConnInfo::parse(&self.text, &environment).and_then(|info| {
            let tls = Tls::new(info.tls()).map_err(|e| e.context(format_args!("connecting to {}", info.host())))?;
            Ok((info, tls))
        });
        match read {
            Ok(both) => {
                self.was_read.store(true, Ordering::Relaxed);
                Ok(both)
            }
            Err(error) if self.was_read.load(Ordering::Relaxed) => {
                Err(Error::new(ErrorKind::Connect, format!("rereading the connection settings: {error}"))
                    .caused_by(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Connects within `time`. Returns the connection and the name of the server.
    ///
    /// # Errors
    /// Names every server that was tried. If a server cannot be reached, does not reply, or cannot be used, the next
    /// one is tried. If a server refuses the role or its password, no other server is tried.
    pub(super) fn dial<D: Dialer>(&self, role: &str, time: Duration, dialer: &mut D) -> Result<(D::Line, String)> {
        let until = Instant::now() + time;
        let (info, tls) = self.read()?;
        let servers = info.servers();
        // Each server has its share of the remaining time, so that the last one is tried too.
        let share = |rest: usize| {
            let left = until.saturating_duration_since(Instant::now()).as_millis() as u64;
            let share = Duration::from_millis(left / rest as u64);
            info.connect_timeout().map_or(share, |timeout| timeout.min(share))
        };
        let mut failed = None;
        for (number, server) in servers.iter().enumerate() {
            let rest = servers.len() - number;
            let addresses = match addresses(&info, server, share(rest), dialer) {
                Ok(addresses) => addresses,
                Err(error) => {
                    failed = Some(both(failed, error.context(format_args!("connecting to {server}")))?);
                    continue;
                }
            };
            for (tried, address) in addresses.iter().enumerate() {
                let limit = share(rest - 1 + addresses.len() - tried);
                let target = match address {
                    Some(address) if address.to_string() != server.host => format!("{server} ({address})"),
                    _ => server.to_string(),
                };
                let mut config = info.config(server, *address, role);
                config.connect_timeout(limit);
                match dialer.connect(&config, &tls, &target, limit) {
                    Ok(line) => return Ok((line, target)),
                    Err(error) => {
                        let error = error.of_a_connect().context(format_args!("connecting to {target}"));
                        failed = Some(both(failed, error)?);
                    }
                }
            }
        }
        Err(failed.expect("there is a server, and it has an address"))
    }
}

/// Returns the connection string, or an empty one if there is none and a `PG*` variable names the database.
///
/// # Errors
/// `Config` with the text `missing`, if there is neither. A forgotten connection string must not lead to whatever
/// database is on this machine.
pub(crate) fn given_or_environment<'a>(text: Option<&'a str>, missing: &str) -> Result<&'a str> {
    let is_set = || WHERE.iter().any(|variable| environment(variable).is_some_and(|value| !value.is_empty()));
    match text {
        Some(text) => Ok(text),
        None if is_set() => Ok(""),
        None => Err(Error::config(format!("{missing}, or set one of {}", WHERE.join(", ")))),
    }
}

/// The addresses of a server; `None` means a socket, which needs no address.
fn addresses<D: Dialer>(
    info: &ConnInfo,
    server: &Server,
    limit: Duration,
    dialer: &mut D,
) -> Result<Vec<Option<IpAddr>>> {
    if server.is_socket() {
        return Ok(vec![None]);
    }
    if let Some(address) = server.address.or_else(|| server.host.parse().ok()) {
        return Ok(vec![Some(address)]);
    }
    let mut found = dialer.resolve(&server.host, server.port, limit)?;
    if found.is_empty() {
        return Err(Error::new(ErrorKind::Connect, "the name has no address"));
    }
    info.order(&mut found);
    Ok(found.into_iter().map(Some).collect())
}

/// Joins the error of an attempt to those of earlier attempts. The result is transient if one of them is. Returns `Err`
/// if there must be no other attempt.
fn both(earlier: Option<Error>, error: Error) -> Result<Error> {
    let ends = !matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Tls);
    let error = match earlier {
        Some(earlier) => {
            let text = format!("{earlier}; {error}");
            if earlier.is_transient() && !ends { earlier.with_message(text) } else { error.with_message(text) }
        }
        None => error,
    };
    if ends { Err(error) } else { Ok(error) }
}

/// Reads a variable of the environment. Ignores a value that is not UTF-8 with a warning, because it cannot be sent.
fn environment(name: &str) -> Option<String> {
    match std::env::var(name) {
        Ok(value) => Some(value),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => {
            log::warn!(variable = name; "environment variable is not UTF-8, not used");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records what is tried, and returns the errors in its table. Attempts that are not in the table succeed.
    #[derive(Default)]
    struct Noting {
        tried: Vec<(String, Duration)>,
        answers: Vec<(&'static str, ErrorKind)>,
    }

    impl Dialer for Noting {
        type Line = ();

        fn resolve(&mut self, host: &str, _port: u16, _limit: Duration) -> Result<Vec<IpAddr>> {
            match host {
                "two" => Ok(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]),
                "none" => Ok(Vec::new()),
                _ => Err(Error::new(ErrorKind::Connect, "the name cannot be looked up")),
            }
        }

        fn connect(&mut self, config: &Config, _tls: &Tls, target: &str, limit: Duration) -> Result<()> {
            assert_eq!(config.get_connect_timeout(), Some(&limit));
            self.tried.push((target.to_owned(), limit));
            match self.answers.iter().find(|(start, _)| target.starts_with(start)) {
                Some((_, kind)) => Err(Error::new(*kind, "test error")),
                None => Ok(()),
            }
        }
    }

    /// Checks what is tried, with the limits in seconds, and the result.
    #[track_caller]
    fn check(text: &str, answers: &[(&'static str, ErrorKind)], tried: &str, end: Result<&str, (ErrorKind, &str)>) {
        let mut dialer = Noting { answers: answers.to_vec(), ..Noting::default() };
        let answer = ConnectionString::new(text).unwrap().dial("test", Duration::from_secs(60), &mut dialer);
        let shown = |(target, limit): &(String, Duration)| format!("{target} {:.0}", limit.as_secs_f64());
        assert_eq!(dialer.tried.iter().map(shown).collect::<Vec<_>>().join(", "), tried);
        match (answer, end) {
            (Ok(((), target)), Ok(expected)) => assert_eq!(target, expected),
            (Err(error), Err((kind, text))) => assert_eq!((error.kind(), &*error.to_string()), (kind, text)),
            (answer, _) => panic!("{:?}", answer.map(|(_, target)| target)),
        }
    }

    #[test]
    fn every_host_and_address_has_its_share_of_the_time() {
        use ErrorKind::{Connect, Timeout};
        check("host=10.0.0.9 user=u", &[], "10.0.0.9:5432 60", Ok("10.0.0.9:5432"));
        check(
            "host=10.0.0.9,/s user=u connect_timeout=2",
            &[("10", Timeout)],
            "10.0.0.9:5432 2, /s/.s.PGSQL.5432 2",
            Ok("/s/.s.PGSQL.5432"),
        );
        check(
            "host=two,10.0.0.9 port=1,2 user=u",
            &[("two", Timeout)],
            "two:1 (10.0.0.1) 20, two:1 (10.0.0.2) 30, 10.0.0.9:2 60",
            Ok("10.0.0.9:2"),
        );
        check("host=two hostaddr=10.0.0.7 user=u", &[], "two:5432 (10.0.0.7) 60", Ok("two:5432 (10.0.0.7)"));
        check("host=::1 user=u sslmode=disable", &[], "[::1]:5432 60", Ok("[::1]:5432"));
        check(
            "host=gone,none,10.0.0.9 user=u",
            &[("10", Connect)],
            "10.0.0.9:5432 60",
            Err((
                Connect,
                "connecting to gone:5432: the name cannot be looked up; connecting to none:5432: the name has no address; \
                 connecting to 10.0.0.9:5432: test error",
            )),
        );
    }

    #[test]
    fn a_refusal_ends_the_attempts_and_other_errors_do_not() {
        use ErrorKind::{Auth, Connect, Stopped, Timeout, Tls};
        for ends in [Auth, Stopped] {
            check(
                "host=10.0.0.1,10.0.0.2,10.0.0.3 user=u",
                &[("10.0.0.1", Timeout), ("10.0.0.2", ends)],
                "10.0.0.1:5432 20, 10.0.0.2:5432 30",
                Err((ends, "connecting to 10.0.0.1:5432: test error; connecting to 10.0.0.2:5432: test error")),
            );
        }
        let both = "connecting to 10.0.0.1:5432: test error; connecting to 10.0.0.2:5432: test error";
        let tried = "10.0.0.1:5432 30, 10.0.0.2:5432 60";
        for (first, second, kind) in [(Tls, Connect, Connect), (Connect, Tls, Connect), (Tls, Tls, Tls)] {
            let answers = [("10.0.0.1", first), ("10.0.0.2", second)];
            check("host=10.0.0.1,10.0.0.2 user=u", &answers, tried, Err((kind, both)));
        }
    }

    #[test]
    fn random_order_tries_all_hosts() {
        let url = ConnectionString::new("host=10.0.0.1,10.0.0.2,10.0.0.3 user=u load_balance_hosts=random").unwrap();
        let mut firsts = std::collections::HashSet::new();
        // If the order is random, one of the hosts is missing from 200 tries once in 10^35 times.
        for _ in 0..200 {
            let mut dialer = Noting { answers: vec![("10", ErrorKind::Timeout)], ..Noting::default() };
            url.dial("test", Duration::from_secs(60), &mut dialer).map(drop).unwrap_err();
            let mut tried: Vec<_> = dialer.tried.into_iter().map(|(target, _)| target).collect();
            firsts.insert(tried[0].clone());
            tried.sort();
            assert_eq!(tried, ["10.0.0.1:5432", "10.0.0.2:5432", "10.0.0.3:5432"]);
        }
        assert_eq!(firsts.len(), 3);
    }
}
