//! A TCP proxy on 127.0.0.1 that can stall, cut or slow down connections, and drop replies. It parses PostgreSQL's
//! messages only to find out which SQL a reply belongs to. Knows nothing of jobs.

use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Forwards connections to a server. Dropping the value cuts all connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forward.
    Pass,
    /// Read bytes and forward none. The next `Pass` forwards the bytes held back.
    Stall,
    /// Close every connection, and new ones at once.
    Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// An SQL text that the client sends for execution.
pub struct Sent<'a> {
    /// The client's application name at the start of the connection.
    pub application_name: &'a str,
    /// The text, also of a statement that was prepared earlier.
    pub sql: &'a str,
}

impl Proxy {
    /// A proxy to a port of 127.0.0.1.
    pub fn new(target_port: u16) -> Self {
        Self::to(format!("127.0.0.1:{target_port}"))
    }

    /// A proxy to the server of a URL.
    pub fn to_server_of(url: &str) -> Self {
        Self::to(with_port(authority(url).1))
    }

    fn to(target: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let shared = Arc::new(Shared {
            target,
            state: Mutex::new(State { modes: [Mode::Pass; 2], connections: Vec::new(), rule: None }),
            changed: Condvar::new(),
            bytes_per_second: AtomicUsize::new(usize::MAX),
            link_free: [Mutex::new(Instant::now()), Mutex::new(Instant::now())],
            dropped: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.closed.load(Ordering::SeqCst) {
                    break;
                }
                let _ = client.and_then(|client| accepting.clone().connect(client));
            }
        });
        Self { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same URL through the proxy, without TLS: the proxy must read the messages.
    pub fn url(&self, url: &str) -> String {
        let (start, host, rest) = authority(url);
        debug_assert!(!host.is_empty());
        let query = if rest.contains('?') { "&" } else { "?" };
        format!("{start}127.0.0.1:{}{rest}{query}sslmode=disable", self.port)
    }

    /// Sets the mode of one direction, for open and for new connections.
    pub fn set(&self, direction: Direction, mode: Mode) {
        let mut state = self.shared.lock();
        state.modes[direction as usize] = mode;
        if mode == Mode::Cut {
            state.cut_all();
        }
        self.shared.changed.notify_all();
    }

    /// Changes both directions.
    pub fn set_both(&self, mode: Mode) {
        self.set(Direction::ToServer, mode);
        self.set(Direction::ToClient, mode);
    }

    /// Limits the bytes per second in each direction, over all connections together.
    pub fn limit(&self, bytes_per_second: usize) {
        self.shared.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Closes the open connections. New ones are accepted.
    pub fn cut_now(&self) {
        self.shared.lock().cut_all();
        self.shared.changed.notify_all();
    }

    /// Drops the replies to the next `times` matching executions. The server executes them. The proxy drops the reply
    /// up to ReadyForQuery, and then closes the connection. Replaces an earlier rule.
    /// [`replies_dropped`](Self::replies_dropped) counts the replies dropped completely.
    pub fn drop_reply_to(&self, times: usize, matches: impl FnMut(&Sent) -> bool + Send + 'static) {
        self.shared.lock().rule = Some(Rule { left: times, matches: Box::new(matches) });
    }

    /// The number of replies that were dropped to their end.
    pub fn replies_dropped(&self) -> usize {
        self.shared.dropped.load(Ordering::SeqCst)
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.set_both(Mode::Cut);
        // Wakes up the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

struct Shared {
    target: String,
    state: Mutex<State>,
    changed: Condvar,
    bytes_per_second: AtomicUsize,
    /// For each direction of a limited link: when all bytes received so far have passed it.
    link_free: [Mutex<Instant>; 2],
    dropped: AtomicUsize,
    closed: AtomicBool,
}

struct State {
    modes: [Mode; 2],
    connections: Vec<Arc<Connection>>,
    rule: Option<Rule>,
}

struct Rule {
    left: usize,
    matches: Box<dyn FnMut(&Sent) -> bool + Send>,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// The number of the reply that the client must not see.
    swallow: Mutex<Option<u64>>,
}

impl Connection {
    fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl State {
    fn cut_all(&mut self) {
        self.connections.drain(..).for_each(|connection| connection.close());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the proxy panics")
    }

    fn connect(self: Arc<Self>, client: TcpStream) -> io::Result<()> {
        let address = self.target.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let server = TcpStream::connect(address)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let connection = Arc::new(Connection { client, server, swallow: Mutex::new(None) });
        {
            let mut state = self.lock();
            if state.modes.contains(&Mode::Cut) {
                connection.close();
                return Ok(());
            }
            state.connections.push(connection.clone());
        }
        let (shared, other) = (self.clone(), connection.clone());
        thread::spawn(move || {
            let _ = shared.pump_to_server(&other);
            shared.forget(&other);
        });
        thread::spawn(move || {
            let _ = self.pump_to_client(&connection);
            self.forget(&connection);
        });
        Ok(())
    }

    fn forget(&self, connection: &Arc<Connection>) {
        connection.close();
        self.lock().connections.retain(|other| !Arc::ptr_eq(other, connection));
    }

    /// Returns when this direction passes bytes.
    fn wait_for_pass(&self, direction: Direction) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            match state.modes[direction as usize] {
                Mode::Pass => return Ok(()),
                Mode::Cut => return Err(io::ErrorKind::ConnectionReset.into()),
                Mode::Stall => state = self.changed.wait(state).expect("no thread of the proxy panics"),
            }
        }
    }

    /// Forwards a message at the speed of the link.
    fn carry(&self, to: &mut impl Write, message: &[u8], direction: Direction) -> io::Result<()> {
        for piece in message.chunks(8192) {
            self.wait_for_pass(direction)?;
            let limit = self.bytes_per_second.load(Ordering::SeqCst);
            if limit < usize::MAX {
                let mut free = self.link_free[direction as usize].lock().expect("no thread of the proxy panics");
                // Make up for a sleep that took too long; otherwise a busy machine would slow the link down further.
                let start = (*free).max(Instant::now() - Duration::from_millis(500));
                let over = start + Duration::from_secs_f64(piece.len() as f64 / limit as f64);
                *free = over;
                drop(free);
                thread::sleep(over.saturating_duration_since(Instant::now()));
            }
            to.write_all(piece)?;
            if limit < usize::MAX {
                to.flush()?;
            }
        }
        Ok(())
    }

    fn pump_to_server(&self, connection: &Connection) -> io::Result<()> {
        let mut from = BufReader::new(&connection.client);
        let mut to = BufWriter::new(&connection.server);
        let startup = loop {
            let startup = read_startup(&mut from)?;
            match i32::from_be_bytes(startup[4..8].try_into().expect("a startup has 8 bytes")) {
                // Requests for TLS or GSS encryption: refused, because the proxy must read the messages.
                80877103 | 80877104 => (&connection.client).write_all(b"N")?,
                _ => break startup,
            }
        };
        let mut session = Session::new(&startup);
        self.wait_for_pass(Direction::ToServer)?;
        to.write_all(&startup)?;
        to.flush()?;
        loop {
            let message = read_message(&mut from)?;
            let executed = session.read(&message);
            if let Some(sql) = executed {
                let mut state = self.lock();
                let sent = Sent { application_name: &session.application_name, sql: &sql };
                if let Some(rule) = state.rule.as_mut().filter(|rule| rule.left > 0) {
                    if (rule.matches)(&sent) {
                        rule.left -= 1;
                        // Set before the message is forwarded, so that the reply cannot arrive first.
                        let mut swallow = connection.swallow.lock().expect("no thread of the proxy panics");
                        swallow.get_or_insert(session.answer_of_last());
                    }
                }
            }
            self.carry(&mut to, &message, Direction::ToServer)?;
            if from.buffer().is_empty() {
                to.flush()?;
            }
        }
    }

    fn pump_to_client(&self, connection: &Connection) -> io::Result<()> {
        let mut from = BufReader::new(&connection.server);
        let mut to = BufWriter::new(&connection.client);
        // The first ReadyForQuery, number 0, ends the startup.
        let mut answer = 0;
        loop {
            let message = read_message(&mut from)?;
            let ready = message[0] == b'Z';
            if *connection.swallow.lock().expect("no thread of the proxy panics") == Some(answer) {
                if ready {
                    to.flush()?;
                    // Count first: a test may read the counter as soon as the connection ends.
                    self.dropped.fetch_add(1, Ordering::SeqCst);
                    connection.close();
                    return Ok(());
                }
            } else {
                self.carry(&mut to, &message, Direction::ToClient)?;
            }
            answer += u64::from(ready);
            if from.buffer().is_empty() {
                to.flush()?;
            }
        }
    }
}

/// The state of a client session that is needed to find out which SQL is executed next.
struct Session {
    application_name: String,
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, String>,
    /// The number of messages so far that a ReadyForQuery follows.
    rounds: u64,
    last_was_query: bool,
}

impl Session {
    fn new(startup: &[u8]) -> Self {
        let mut words = startup[8..].split(|byte| *byte == 0);
        let mut application_name = String::new();
        while let Some(name) = words.next().filter(|name| !name.is_empty()) {
            let value = words.next().unwrap_or_default();
            if name == b"application_name" {
                application_name = String::from_utf8_lossy(value).into_owned();
            }
        }
        Self { application_name, statements: HashMap::new(), portals: HashMap::new(), rounds: 0, last_was_query: false }
    }

    /// Reads a message. Returns the SQL if the message executes one.
    fn read(&mut self, message: &[u8]) -> Option<String> {
        let mut words = message[5..].split(|byte| *byte == 0);
        let mut word = || words.next().unwrap_or_default().to_vec();
        self.last_was_query = false;
        match message[0] {
            b'Q' => {
                self.rounds += 1;
                self.last_was_query = true;
                Some(String::from_utf8_lossy(&word()).into_owned())
            }
            b'P' => {
                let name = word();
                self.statements.insert(name, String::from_utf8_lossy(&word()).into_owned());
                None
            }
            b'B' => {
                let portal = word();
                let sql = self.statements.get(&word()).cloned().unwrap_or_default();
                self.portals.insert(portal, sql);
                None
            }
            b'E' => self.portals.get(&word()).cloned(),
            // Sync and FunctionCall.
            b'S' | b'F' => {
                self.rounds += 1;
                None
            }
            _ => None,
        }
    }

    /// The number of the ReadyForQuery that ends the reply to the last execution.
    fn answer_of_last(&self) -> u64 {
        // A Query is its own round; an Execute belongs to the round that the next Sync ends.
        if self.last_was_query { self.rounds } else { self.rounds + 1 }
    }
}

fn read_startup(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    from.read_exact(&mut message)?;
    read_rest(from, message, 8)
}

/// One message: its type, its length without the type, its body.
fn read_message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message)?;
    read_rest(from, message, 4)
}

fn read_rest(from: &mut impl Read, mut message: Vec<u8>, least: usize) -> io::Result<Vec<u8>> {
    let read = message.len();
    let length = i32::from_be_bytes(message[read - 4..].try_into().expect("four bytes"));
    let length = usize::try_from(length).ok().filter(|length| *length >= least).ok_or(io::ErrorKind::InvalidData)?;
    message.resize(read - 4 + length, 0);
    from.read_exact(&mut message[read..])?;
    Ok(message)
}

/// Splits a URL into the part before its host, host and port, and the rest.
fn authority(url: &str) -> (&str, &str, &str) {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?']).map_or(url.len(), |at| start + at);
    let host = url[start..end].rfind('@').map_or(start, |at| start + at + 1);
    (&url[..host], &url[host..end], &url[end..])
}

fn with_port(host: &str) -> String {
    let port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if port { host.to_owned() } else { format!("{host}:5432") }
}

mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use postgres::{Client, NoTls};

    use super::{Direction, Mode, Proxy};
    use crate::harness::{SOON, TestDb, eventually};

    fn behind_a_proxy() -> (TestDb, Proxy, Client) {
        let db = TestDb::new();
        db.execute("create table said(n int)");
        let proxy = Proxy::to_server_of(&db.url());
        let client = Client::connect(&proxy.url(&format!("{}?application_name=teller", db.url())), NoTls).unwrap();
        (db, proxy, client)
    }

    #[test]
    fn an_insert_whose_reply_is_dropped_is_committed() {
        let (db, proxy, mut client) = behind_a_proxy();
        let insert = client.prepare("insert into said values ($1)").unwrap();
        client.execute(&insert, &[&1]).unwrap();
        proxy.drop_reply_to(1, |sent| sent.application_name == "teller" && sent.sql.starts_with("insert"));
        client.query_one("select 1", &[]).unwrap();
        assert!(client.execute(&insert, &[&2]).is_err());
        assert_eq!(proxy.replies_dropped(), 1);
        assert!(client.is_closed());
        assert_eq!(db.one::<i64>("select count(*) from said"), 2);
        let mut again = Client::connect(&proxy.url(&db.url()), NoTls).unwrap();
        again.execute("insert into said values (3)", &[]).unwrap();
        assert_eq!(proxy.replies_dropped(), 1, "the rule applies once");
    }

    #[test]
    fn the_reply_to_a_simple_query_can_be_dropped() {
        let (db, proxy, mut client) = behind_a_proxy();
        proxy.drop_reply_to(1, |sent| sent.sql.contains("values (7)"));
        client.batch_execute("insert into said values (6)").unwrap();
        assert!(client.batch_execute("insert into said values (7)").is_err());
        assert_eq!(db.all::<i32>("select n from said order by n"), [6, 7]);
        assert_eq!(proxy.replies_dropped(), 1);
    }

    #[test]
    fn a_stalled_reply_arrives_when_the_proxy_passes_again() {
        let (db, proxy, mut client) = behind_a_proxy();
        proxy.set(Direction::ToClient, Mode::Stall);
        let (done, answered) = mpsc::channel();
        let asking = std::thread::spawn(move || done.send(client.batch_execute("insert into said values (1)").is_ok()));
        eventually(SOON, || db.one::<i64>("select count(*) from said") == 1);
        assert!(answered.recv_timeout(Duration::from_millis(50)).is_err());
        proxy.set(Direction::ToClient, Mode::Pass);
        assert_eq!(answered.recv_timeout(SOON), Ok(true));
        asking.join().unwrap().unwrap();
    }

    #[test]
    fn a_stalled_statement_does_not_reach_the_server() {
        let (db, proxy, mut client) = behind_a_proxy();
        proxy.set(Direction::ToServer, Mode::Stall);
        let (done, answered) = mpsc::channel();
        let asking = std::thread::spawn(move || done.send(client.batch_execute("insert into said values (1)").is_ok()));
        assert!(answered.recv_timeout(Duration::from_millis(100)).is_err());
        assert_eq!(db.one::<i64>("select count(*) from said"), 0);
        proxy.cut_now();
        assert_eq!(answered.recv_timeout(SOON), Ok(false));
        asking.join().unwrap().unwrap();
        proxy.set_both(Mode::Pass);
    }

    #[test]
    fn cut_closes_open_and_new_connections_until_pass() {
        let (db, proxy, mut client) = behind_a_proxy();
        assert_eq!(proxy.connections(), 1);
        assert!(Proxy::new(proxy.port()).port() > 0, "a proxy in front of a proxy");
        proxy.set_both(Mode::Cut);
        assert!(client.batch_execute("select 1").is_err());
        assert!(Client::connect(&proxy.url(&db.url()), NoTls).is_err());
        proxy.set_both(Mode::Pass);
        Client::connect(&proxy.url(&db.url()), NoTls).unwrap().batch_execute("select 1").unwrap();
        eventually(SOON, || proxy.connections() == 0);
    }
}
