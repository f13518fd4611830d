//! What a connection costs that rests: in memory, and in the time of others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::figures::{Figures, print_table};
use crate::http::{self, Prebuilt};
use crate::process::{Kind, Server, load_average, memory_bytes, wait_for_quiet};
use crate::{Common, Failure};

/// Connections of one client address; the gateway lets a thousand of them in.
const PER_ADDRESS: usize = 900;
/// Connections that are opened at once.
const OPENING: usize = 64;
/// After this a gateway that has nothing to do has come to rest.
const REST: Duration = Duration::from_secs(3);
/// Publishes, one after the other, of which the time is taken.
const PUBLISHES: u64 = 500;
/// What a connection may take to open, or to be sent an event.
const PATIENCE: Duration = Duration::from_secs(60);
const KIBIBYTE: f64 = 1024.0;

/// What a connection is, before it rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resting {
    /// One request, answered.
    KeepAlive,
    /// A topic that is followed by server-sent events.
    Stream,
    /// A topic that is followed over a WebSocket.
    WebSocket,
}

impl Resting {
    const ALL: [Self; 3] = [Self::KeepAlive, Self::Stream, Self::WebSocket];

    fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "HTTP, kept alive",
            Self::Stream => "server-sent events",
            Self::WebSocket => "WebSocket",
        }
    }

    fn request(self, address: SocketAddr) -> String {
        let (path, fields) = match self {
            Self::KeepAlive => ("/livez", ""),
            Self::Stream => ("/topics/bench/events", "accept: text/event-stream\r\n"),
            Self::WebSocket => (
                "/topics/bench/ws",
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: cloudevents.json\r\n",
            ),
        };
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{fields}\r\n")
    }

    /// What the answer begins with, and what shows that all of it has come.
    fn answer(self) -> (&'static str, &'static str) {
        match self {
            Self::KeepAlive => ("HTTP/1.1 200", "\r\n\r\n"),
            Self::Stream => ("HTTP/1.1 200", ": following"),
            Self::WebSocket => ("HTTP/1.1 101", "\r\n\r\n"),
        }
    }
}

/// Opens so many connections of each kind to a gateway of its own, and measures what it takes while they rest.
pub(crate) fn run(common: &Common, connections: usize) -> Result<(), Failure> {
    raise_open_files()?;
    println!("{connections} connections of each kind, load average {} before the first.\n", load_average());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for kind in Resting::ALL {
        wait_for_quiet(common);
        let home = tempfile::tempdir_in(&common.folder)?;
        let server = Server::start(common, Kind::Gateway, home.path(), &[])?;
        rows.push(runtime.block_on(measure(&server, kind, connections))?);
        server.terminate()?;
    }
    print_table(
        &[
            "",
            "KiB each, at rest",
            "of it anonymous",
            "KiB each, after an event",
            "last one has it after ms",
            "publish p50 / p99 ms alone",
            "beside them",
        ],
        &rows,
    );
    Ok(())
}

async fn measure(server: &Server, kind: Resting, connections: usize) -> Result<Vec<String>, Failure> {
    // The first publish makes the topic. Those of which the time is taken go elsewhere, or nobody would rest.
    let mut followed = Prebuilt::new(server.http, "/topics/bench");
    http::once(server.http, followed.with_id(0))?;
    let mut elsewhere = Prebuilt::new(server.http, "/topics/elsewhere");
    let alone = publish_times(server.http, &mut elsewhere)?;
    tokio::time::sleep(REST).await;
    let before = memory(server)?;

    let mut open: Vec<TcpStream> = stream::iter(0..connections)
        .map(|number| open(server.http, kind, number))
        .buffer_unordered(OPENING)
        .try_collect()
        .await?;
    tokio::time::sleep(REST).await;
    let resting = memory(server)?;
    let beside = publish_times(server.http, &mut elsewhere)?;

    let (mut after, mut last) = ("-".to_owned(), "-".to_owned());
    if kind != Resting::KeepAlive {
        let id = format!("{:016x}", u64::MAX - 1);
        let began = Instant::now();
        http::once(server.http, followed.with_id(u64::MAX - 1))?;
        for stream in &mut open {
            tokio::time::timeout(PATIENCE, read_to(stream, &id)).await??;
        }
        last = format!("{:.0}", began.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(REST).await;
        after = each(before.0, memory(server)?.0, connections);
    }
    let times = |times: &Figures| format!("{:.2} / {:.2}", times.median(), times.quantile(0.99));
    Ok(vec![
        kind.name().to_owned(),
        each(before.0, resting.0, connections),
        each(before.1, resting.1, connections),
        after,
        last,
        times(&alone),
        times(&beside),
    ])
}

fn each(before: u64, after: u64, connections: usize) -> String {
    format!("{:.1}", (after as f64 - before as f64) / connections as f64 / KIBIBYTE)
}

/// Resident memory, and how much of it is the process's own.
fn memory(server: &Server) -> Result<(u64, u64), Failure> {
    Ok((memory_bytes(server.process_id(), "VmRSS")?, memory_bytes(server.process_id(), "RssAnon")?))
}

/// Milliseconds of publishes, each on a connection of its own.
fn publish_times(address: SocketAddr, publish: &mut Prebuilt) -> Result<Figures, Failure> {
    let mut times = Figures::default();
    for number in 0..PUBLISHES {
        let began = Instant::now();
        http::once(address, publish.with_id(number))?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Opens a connection from an address of its own share, and reads the answer to its request.
async fn open(address: SocketAddr, kind: Resting, number: usize) -> Result<TcpStream, Failure> {
    let share = u8::try_from(number / PER_ADDRESS + 1)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, share, 1)), 0))?;
    let mut stream = tokio::time::timeout(PATIENCE, socket.connect(address)).await??;
    stream.write_all(kind.request(address).as_bytes()).await?;
    let (begins, ends) = kind.answer();
    let answer = tokio::time::timeout(PATIENCE, read_to(&mut stream, ends)).await??;
    if answer.starts_with(begins) { Ok(stream) } else { Err(answer.into()) }
}

/// Reads until a text has come, and gives everything.
async fn read_to(stream: &mut TcpStream, text: &str) -> Result<String, Failure> {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Err(format!("closed after {}", String::from_utf8_lossy(&received)).into()),
            read => received.extend_from_slice(&chunk[..read]),
        }
        let so_far = String::from_utf8_lossy(&received);
        if so_far.contains(text) {
            return Ok(so_far.into_owned());
        }
    }
}

/// As many open files as the machine lets us have; the gateway inherits them.
fn raise_open_files() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}
