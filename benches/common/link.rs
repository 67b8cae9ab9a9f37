//! A proxy that simulates a network link to a server: it delays every byte, or limits the bytes per second.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

/// The number of blocks that can be in transit at once in one direction.
const BLOCKS: usize = 64;
const BLOCK: usize = 1 << 16;

/// Forwards connections to a port of 127.0.0.1 until the process ends, each direction delayed by half the round-trip
/// time. Returns its own port.
#[allow(dead_code, reason = "not every bench has a link")]
pub fn delayed(server: u16, round_trip: Duration) -> u16 {
    open(server, round_trip / 2, u64::MAX)
}

/// The same without a delay: each connection is limited to `bytes_per_second` in each direction.
#[allow(dead_code, reason = "not every bench has a link")]
pub fn limited(server: u16, bytes_per_second: u64) -> u16 {
    open(server, Duration::ZERO, bytes_per_second)
}

fn open(server: u16, delay: Duration, bytes_per_second: u64) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", server)).expect("connecting to the server");
            let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
            forward(clone(&client), clone(&server), delay, bytes_per_second);
            forward(server, client, delay, bytes_per_second);
        }
    });
    port
}

fn forward(mut from: TcpStream, mut to: TcpStream, delay: Duration, bytes_per_second: u64) {
    to.set_nodelay(true).expect("a socket");
    let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(BLOCKS);
    thread::spawn(move || {
        let mut buffer = vec![0; BLOCK];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let _ = sender.send((Instant::now() + delay, buffer[..length].to_vec()));
        }
    });
    thread::spawn(move || {
        let mut link_free = Instant::now();
        while let Ok((due, bytes)) = receiver.recv() {
            thread::sleep(due.max(link_free).saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
            link_free =
                link_free.max(Instant::now()) + Duration::from_secs_f64(bytes.len() as f64 / bytes_per_second as f64);
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
