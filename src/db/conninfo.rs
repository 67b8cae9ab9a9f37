//! Where the database is and who we are: libpq's connection strings, variables and defaults.
//! Opens no socket; reads nothing but the environment it is handed and the password file.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::warn;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslNegotiation, TargetSessionAttrs};

use super::tls::{Roots, SslMode, TlsOptions};
use crate::error::{Error, Result};

/// A connection string, completed as libpq would, without ever showing its password.
#[derive(Clone)]
pub(crate) struct ConnInfo {
    config: Config,
    tls: TlsOptions,
    servers: Vec<Server>,
}

/// One entry of the list of hosts.
#[derive(Clone)]
struct Server {
    host: String,
    address: Option<IpAddr>,
    port: u16,
}

impl ConnInfo {
    /// Reads a URL or a key=value string; what it leaves open comes from the `PG*` variables, then
    /// from the password file, then from libpq's defaults. Empty means: all from there.
    pub(crate) fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let mut given = Given::default();
        let text = text.trim();
        match ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme)) {
            Some(rest) => given.read_url(rest)?,
            None if text.split(['=', '\'', ' ']).next().is_some_and(|start| start.contains("://")) => {
                return Err(Error::config("a connection URL starts with postgres:// or postgresql://"));
            }
            None => given.read_pairs(text)?,
        }
        given.fill_from(env);
        given.refuse_unsupported()?;

        let home = env("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let servers = given.servers()?;
        let tls = given.tls(home.as_deref(), &servers)?;
        let mut config = Config::new();
        let user = match given.text("user") {
            Some(user) => user.to_owned(),
            None => whoami::username().map_err(|e| {
                Error::config("user: none given, and the operating system has no name for us").caused_by(e)
            })?,
        };
        let dbname = given.text("dbname").unwrap_or(&user).to_owned();
        let password = match given.text("password") {
            Some(password) => Some(password.to_owned()),
            None => given.password_from_file(home.as_deref(), &servers, &dbname, &user)?,
        };
        if let Some(password) = password {
            config.password(password);
        }
        config.user(user).dbname(dbname).ssl_mode(tls.mode.on_the_wire());
        for server in &servers {
            config.port(server.port).host(&server.host);
            if let Some(address) = server.address {
                config.hostaddr(address);
            }
        }
        given.set_behaviour(&mut config, tls.mode)?;
        Ok(Self { config, tls, servers })
    }

    /// What tokio-postgres connects with; needs a `Tls` made from [`tls`](Self::tls) beside it.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// How the connection is to be protected.
    pub(crate) fn tls(&self) -> &TlsOptions {
        &self.tls
    }

    /// For messages: `host:port` or the path of the socket, of every host in turn.
    pub(crate) fn host(&self) -> String {
        self.servers.iter().map(Server::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// `postgres://user:***@host:5432/db`
impl fmt::Display for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.config.get_password().is_some() { ":***" } else { "" };
        let user = self.config.get_user().unwrap_or_default();
        let dbname = self.config.get_dbname().unwrap_or_default();
        write!(f, "postgres://{user}{secret}@{}/{dbname}", self.host().replace(", ", ","))
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnInfo({self} sslmode={})", self.tls.mode.name())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            path if self.is_socket() => write!(f, "{path}/.s.PGSQL.{}", self.port),
            v6 if v6.contains(':') => write!(f, "[{v6}]:{}", self.port),
            name => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Server {
    fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

/// Whether we act on a parameter, or accept only these values of it because they ask for nothing
/// that we do not do anyway.
enum Rule {
    Used,
    Only(&'static [&'static str]),
}
use Rule::{Only, Used};

/// Every parameter of libpq, the variable that stands in for it, and what we do with it.
const PARAMETERS: &[(&str, &str, Rule)] = &[
    ("host", "PGHOST", Used),
    ("hostaddr", "PGHOSTADDR", Used),
    ("port", "PGPORT", Used),
    ("user", "PGUSER", Used),
    ("password", "PGPASSWORD", Used),
    ("passfile", "PGPASSFILE", Used),
    ("dbname", "PGDATABASE", Used),
    ("options", "PGOPTIONS", Used),
    // Not from PGAPPNAME: our sessions name themselves after what they do.
    ("application_name", "", Used),
    ("fallback_application_name", "", Used),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Used),
    ("keepalives", "", Used),
    ("keepalives_idle", "", Used),
    ("keepalives_interval", "", Used),
    ("keepalives_count", "", Used),
    ("tcp_user_timeout", "", Used),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Used),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Used),
    ("channel_binding", "PGCHANNELBINDING", Used),
    ("sslmode", "PGSSLMODE", Used),
    ("sslnegotiation", "PGSSLNEGOTIATION", Used),
    ("sslrootcert", "PGSSLROOTCERT", Used),
    ("sslcert", "PGSSLCERT", Used),
    ("sslkey", "PGSSLKEY", Used),
    ("sslcertmode", "PGSSLCERTMODE", Only(&["allow"])),
    ("sslsni", "PGSSLSNI", Only(&["1"])),
    ("sslcompression", "PGSSLCOMPRESSION", Only(&["0", "1"])),
    ("sslcrl", "PGSSLCRL", Only(&[])),
    ("sslcrldir", "PGSSLCRLDIR", Only(&[])),
    ("sslpassword", "", Only(&[])),
    ("sslkeylogfile", "", Only(&[])),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Only(&["TLSv1", "TLSv1.1", "TLSv1.2"])),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Only(&["TLSv1.3"])),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", Only(&["3.0"])),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION", Only(&["3.0", "latest"])),
    ("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"])),
    ("gssdelegation", "PGGSSDELEGATION", Only(&["0"])),
    ("gsslib", "", Only(&[])),
    ("krbsrvname", "", Only(&[])),
    ("requirepeer", "PGREQUIREPEER", Only(&[])),
    ("require_auth", "PGREQUIREAUTH", Only(&[])),
    ("service", "PGSERVICE", Only(&[])),
    ("servicefile", "", Only(&[])),
    ("replication", "", Only(&["false", "off", "no", "0"])),
    ("client_encoding", "", Only(&["auto", "utf8", "UTF8", "utf-8", "UTF-8"])),
];

/// The parameters as written: value, and the name by which an error calls it.
#[derive(Default)]
struct Given(HashMap<&'static str, (String, &'static str)>);

impl Given {
    fn put(&mut self, key: &str, value: String) -> Result<()> {
        let Some((key, _, _)) = find(key) else {
            let is_word = key.len() <= 32 && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            let shown = if is_word { key } else { "(not a word)" };
            return Err(Error::config(format!("unknown connection parameter: {shown}")));
        };
        if value.contains('\0') {
            return Err(Error::config(format!("{key} must not contain a zero byte")));
        }
        self.0.insert(key, (value, key));
        Ok(())
    }

    fn fill_from(&mut self, env: &dyn Fn(&str) -> Option<String>) {
        for (key, variable, _) in PARAMETERS.iter().filter(|(_, variable, _)| !variable.is_empty()) {
            if !self.0.contains_key(key) {
                if let Some(value) = env(variable) {
                    self.0.insert(key, (value, variable));
                }
            }
        }
    }

    fn refuse_unsupported(&self) -> Result<()> {
        for (key, _, rule) in PARAMETERS {
            let (Only(harmless), Some(value)) = (rule, self.text(key)) else { continue };
            if !harmless.contains(&value) {
                let but =
                    if harmless.is_empty() { String::new() } else { format!(" except as {}", harmless.join(" or ")) };
                return Err(Error::config(format!("{} is not supported{but}", self.name(key))));
            }
        }
        Ok(())
    }

    /// The value, unless it is empty: which means the default, as in libpq.
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn name(&self, key: &'static str) -> &'static str {
        self.0.get(key).map_or(key, |(_, name)| name)
    }

    fn number(&self, key: &'static str) -> Result<Option<i64>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        match text.trim().parse::<i32>() {
            Ok(number) => Ok(Some(number.into())),
            Err(_) => Err(Error::config(format!("{} must be a whole number", self.name(key)))),
        }
    }

    /// A positive number of units; zero and less turn the thing off, as in libpq.
    fn duration(&self, key: &'static str, default: u64, unit: fn(u64) -> Duration) -> Result<Option<Duration>> {
        let length = self.number(key)?.map_or(default, |number| u64::try_from(number).unwrap_or(0));
        Ok(Some(unit(length)).filter(|length| !length.is_zero()))
    }

    fn choice<T: Copy>(&self, key: &'static str, allowed: &[(&str, T)]) -> Result<Option<T>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        match allowed.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let names: Vec<_> = allowed.iter().map(|(name, _)| *name).collect();
                Err(Error::config(format!("{} must be one of {}", self.name(key), names.join(", "))))
            }
        }
    }

    fn list(&self, key: &str) -> Vec<&str> {
        self.text(key).map(|text| text.split(',').map(str::trim).collect()).unwrap_or_default()
    }

    fn servers(&self) -> Result<Vec<Server>> {
        let (hosts, addresses, ports) = (self.list("host"), self.list("hostaddr"), self.list("port"));
        let count = hosts.len().max(addresses.len()).max(1);
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return Err(Error::config(format!("host has {} entries and hostaddr {}", hosts.len(), addresses.len())));
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(Error::config(format!("port has {} entries for {count} hosts", ports.len())));
        }
        let server = |i: usize| {
            let port =
                match ports.get(i).or(ports.first().filter(|_| ports.len() == 1)) {
                    None | Some(&"") => 5432,
                    Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                        Error::config(format!("{} must be a number from 1 to 65535", self.name("port")))
                    })?,
                };
            let address = match addresses.get(i) {
                None | Some(&"") if addresses.iter().all(|a| a.is_empty()) => None,
                address => Some(address.and_then(|a| a.parse::<IpAddr>().ok()).ok_or_else(|| {
                    Error::config(format!("{} must be numeric addresses, one for every host", self.name("hostaddr")))
                })?),
            };
            let host = match (hosts.get(i).filter(|host| !host.is_empty()), address) {
                (Some(host), Some(_)) if !host.starts_with('/') => (*host).to_owned(),
                (_, Some(address)) => address.to_string(),
                (Some(host), None) => (*host).to_owned(),
                (None, None) => default_host(port),
            };
            // An @ begins a socket without a file, which tokio-postgres cannot reach.
            if host.contains('@') {
                return Err(Error::config(format!("{} must not contain an @", self.name("host"))));
            }
            Ok(Server { host, address, port })
        };
        (0..count).map(server).collect()
    }

    fn tls(&self, home: Option<&Path>, servers: &[Server]) -> Result<TlsOptions> {
        let system = self.text("sslrootcert") == Some("system");
        // Sockets carry no TLS; libpq ignores whatever was asked for there.
        let mode = match self.choice("sslmode", &SslMode::NAMES)? {
            _ if servers.iter().all(Server::is_socket) => SslMode::Disable,
            Some(mode) if system && mode != SslMode::VerifyFull => {
                let name = mode.name();
                return Err(Error::config(format!("sslrootcert=system needs sslmode=verify-full, not {name}")));
            }
            Some(SslMode::Prefer) if self.text("sslmode") == Some("allow") => {
                warn!("sslmode=allow is not supported; using prefer, which tries TLS first");
                SslMode::Prefer
            }
            Some(mode) => mode,
            None if system => SslMode::VerifyFull,
            None => SslMode::Prefer,
        };
        if mode > SslMode::Prefer && servers.iter().any(Server::is_socket) {
            let name = mode.name();
            return Err(Error::config(format!("sslmode={name} cannot hold for a list of hosts with a socket in it")));
        }
        if mode == SslMode::VerifyFull && servers.iter().any(|s| s.address.is_some_and(|a| a.to_string() == s.host)) {
            return Err(Error::config("sslmode=verify-full needs the name in host beside the address in hostaddr"));
        }
        let roots = match self.text("sslrootcert") {
            None => Roots::Default,
            Some(_) if system => Roots::System,
            Some(file) => Roots::File(file.into()),
        };
        let file = |key| self.text(key).map(PathBuf::from);
        Ok(TlsOptions {
            mode,
            roots,
            cert: file("sslcert"),
            key: file("sslkey"),
            folder: home.map(|h| h.join(".postgresql")),
        })
    }

    fn password_from_file(
        &self,
        home: Option<&Path>,
        servers: &[Server],
        dbname: &str,
        user: &str,
    ) -> Result<Option<String>> {
        let path = match self.text("passfile") {
            Some(path) => PathBuf::from(path),
            None => match home {
                Some(home) => home.join(".pgpass"),
                None => return Ok(None),
            },
        };
        let Some(text) = passfile::read(&path) else { return Ok(None) };
        let mut found = servers.iter().map(|server| {
            let host = if SOCKET_FOLDERS.contains(&server.host.as_str()) { "localhost" } else { &server.host };
            passfile::look_up(&text, [host, &server.port.to_string(), dbname, user])
        });
        let first = found.next().flatten();
        // One password is tried on all hosts, and none may see another's.
        if found.any(|other| other != first) {
            return Err(Error::config("passfile must name the same password for every host of the list"));
        }
        Ok(first.filter(|password| !password.is_empty()))
    }

    fn set_behaviour(&self, config: &mut Config, mode: SslMode) -> Result<()> {
        if let Some(options) = self.text("options") {
            config.options(options);
        }
        if let Some(name) = self.text("application_name").or(self.text("fallback_application_name")) {
            config.application_name(name);
        }
        if let Some(timeout) = self.duration("connect_timeout", 10, Duration::from_secs)? {
            config.connect_timeout(timeout);
        }
        if let Some(timeout) = self.duration("tcp_user_timeout", 30_000, Duration::from_millis)? {
            config.tcp_user_timeout(timeout);
        }
        config.keepalives(self.number("keepalives")? != Some(0));
        if let Some(idle) = self.duration("keepalives_idle", 30, Duration::from_secs)? {
            config.keepalives_idle(idle);
        }
        if let Some(interval) = self.duration("keepalives_interval", 10, Duration::from_secs)? {
            config.keepalives_interval(interval);
        }
        if let Some(count) = self.number("keepalives_count")?.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0) {
            config.keepalives_retries(count);
        }
        use TargetSessionAttrs::{Any, ReadOnly, ReadWrite};
        let sessions = [("any", Any), ("read-write", ReadWrite), ("read-only", ReadOnly), ("primary", ReadWrite)];
        if let Some(attrs) = self.choice("target_session_attrs", &sessions)? {
            config.target_session_attrs(attrs);
        }
        let orders = [("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)];
        if let Some(order) = self.choice("load_balance_hosts", &orders)? {
            config.load_balance_hosts(order);
        }
        let bindings = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        if let Some(binding) = self.choice("channel_binding", &bindings)? {
            config.channel_binding(binding);
        }
        let negotiations = [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];
        if let Some(negotiation) = self.choice("sslnegotiation", &negotiations)? {
            if negotiation == SslNegotiation::Direct && mode == SslMode::Prefer {
                return Err(Error::config("sslnegotiation=direct needs sslmode require, verify-ca or verify-full"));
            }
            config.ssl_negotiation(negotiation);
        }
        Ok(())
    }
}

fn find(key: &str) -> Option<&'static (&'static str, &'static str, Rule)> {
    PARAMETERS.iter().find(|(name, _, _)| *name == key)
}

/// Where distributions and PostgreSQL itself put the server's socket.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

fn default_host(port: u16) -> String {
    let has_socket = |folder: &&&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    SOCKET_FOLDERS.iter().find(has_socket).map_or("localhost", |folder| folder).to_owned()
}

mod passfile;
mod syntax;
#[cfg(test)]
mod tests;
