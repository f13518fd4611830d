//! What becomes of a gateway that is asked for many times what it can do. The schedule of arrivals is fixed before, as if
//! each came from somebody who knows nothing of the others: a slow answer puts off none of the next.
//!
//! A connection has one request in flight. An arrival for which no connection is free within a second was never sent;
//! that is counted, because it is the operating system and the connections that hold it back then, and not the gateway.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::figures::{Figures, print_table};
use crate::http::{self, Message, Prebuilt};
use crate::process::{
    Bystanders, Kind, Server, bind_generator, load_average, memory_bytes, processor_time, wait_for_quiet,
};
use crate::{Common, Failure, load};

/// What an arrival may wait for a free connection.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(1);
/// The stretches in which the return to normal is looked for.
const WINDOW: Duration = Duration::from_millis(250);
/// Connections of the closed loop that finds out what the gateway can do.
const PEAK_CONNECTIONS: usize = 64;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Connections of the generator.
    pub(crate) connections: usize,
    /// Events on their way that the gateway allows.
    pub(crate) in_flight: usize,
    /// The gateway's budget of memory.
    pub(crate) memory_mebibytes: u64,
    /// How many times the sustainable rate is offered.
    pub(crate) factor: u32,
    /// Seconds of the burst; before and after it a third of that.
    pub(crate) seconds: f64,
}

/// One answered arrival.
#[derive(Clone, Copy, Debug)]
struct Answered {
    due: Instant,
    sent: Instant,
    done: Instant,
    accepted: bool,
}

#[derive(Default)]
struct Shared {
    next: Cell<u64>,
    unsent: Cell<u64>,
    answers: RefCell<Vec<Answered>>,
}

/// What a stretch at one rate came to.
struct Stretch {
    name: &'static str,
    offered: f64,
    seconds: f64,
    unsent: u64,
    answers: Vec<Answered>,
    server_load: f64,
    generator_load: f64,
    bystanders: f64,
}

impl Stretch {
    fn accepted(&self) -> f64 {
        self.answers.iter().filter(|answer| answer.accepted).count() as f64 / self.seconds
    }

    fn milliseconds(&self, accepted: bool, from: impl Fn(&Answered) -> Instant) -> Figures {
        let wanted = self.answers.iter().filter(|answer| answer.accepted == accepted);
        wanted.map(|answer| (answer.done - from(answer)).as_secs_f64() * 1e3).collect()
    }

    fn row(&self) -> Vec<String> {
        let refused = self.answers.iter().filter(|answer| !answer.accepted).count() as f64 / self.seconds;
        let accepted = self.milliseconds(true, |answer| answer.sent);
        let refusals = self.milliseconds(false, |answer| answer.sent);
        vec![
            self.name.to_owned(),
            format!("{:.0}", self.offered),
            format!("{:.0}", self.accepted()),
            format!("{refused:.0}"),
            format!("{:.0}", self.unsent as f64 / self.seconds),
            format!("{:.1} / {:.1}", accepted.quantile(0.5), accepted.quantile(0.99)),
            if refused > 0.0 {
                format!("{:.1} / {:.1}", refusals.quantile(0.5), refusals.quantile(0.99))
            } else {
                "-".to_owned()
            },
            format!("{:.2} / {:.2}", self.server_load, self.generator_load),
            format!("{:.2}", self.bystanders),
        ]
    }
}

/// Finds what the gateway can do, offers many times that, and looks how it comes back.
pub(crate) fn run(common: &Common, plan: Plan) -> Result<(), Failure> {
    bind_generator(common)?;
    wait_for_quiet(common);
    let home = tempfile::tempdir_in(&common.folder)?;
    configure(home.path(), plan)?;
    let mut server = Server::start(common, Kind::Configured, home.path(), &[])?;
    let before = load_average();
    let outcome = measure(&server, plan).map_err(|failure| server.post_mortem(&failure))?;
    let peak_memory = memory_bytes(server.process_id(), "VmHWM")? as f64 / f64::from(1 << 20);
    let (peak, stretches) = outcome;
    server.terminate()?;

    println!(
        "{} connections, {} events may be on their way, a budget of {} MiB; load average {before} before.\n",
        plan.connections, plan.in_flight, plan.memory_mebibytes
    );
    println!("At its peak, {PEAK_CONNECTIONS} connections in a closed loop: {peak:.0} events/s.\n");
    let heads = [
        "",
        "offered/s",
        "accepted/s",
        "refused/s",
        "never sent/s",
        "accepted p50 / p99 ms",
        "refused p50 / p99 ms",
        "processors: gateway / generator",
        "others",
    ];
    print_table(&heads, &stretches.iter().map(Stretch::row).collect::<Vec<_>>());
    let [normal, burst, after] = &stretches[..] else { return Err("there are three stretches".into()) };
    println!(
        "Goodput in the burst / peak: {:.2}. The most memory at once: {peak_memory:.0} MiB.",
        burst.accepted() / peak
    );
    match recovery(normal, after) {
        Some(took) => {
            println!("Back to twice the p99 of before within {:.2} s of the burst's end.\n", took.as_secs_f64())
        }
        None => println!("Not back to twice the p99 of before within {:.1} s.\n", after.seconds),
    }
    Ok(())
}

fn configure(home: &Path, plan: Plan) -> Result<(), Failure> {
    let text = format!(
        "apiVersion: tidegate.dev/v1\nkind: Gateway\nspec:\n  backbone: \"embedded:{}\"\n  topics: {{createOnFirstUse: \
         true}}\n  limits: {{memory: {}MiB, publishesInFlight: {}, connectionsPerAddress: 10000, \
         requestsInFlightPerClient: 10000}}\n",
        home.join("data").display(),
        plan.memory_mebibytes,
        plan.in_flight
    );
    Ok(std::fs::write(home.join("gateway.yaml"), text)?)
}

fn measure(server: &Server, plan: Plan) -> Result<(f64, Vec<Stretch>), Failure> {
    let peak =
        load::run(server.http, "/topics/bench", PEAK_CONNECTIONS, Duration::from_secs(3), server.process_id())?.rate;
    // What can be kept up with room to spare.
    let normal = peak * 0.5;
    let stretches = [
        ("before", normal, plan.seconds / 3.0),
        ("burst", normal * f64::from(plan.factor), plan.seconds),
        ("after", normal, plan.seconds / 3.0),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let stretches = local.block_on(&runtime, async {
        let mut streams = Vec::new();
        for _ in 0..plan.connections {
            let stream = TcpStream::connect(server.http).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let mut all = Vec::new();
        for (name, rate, seconds) in stretches {
            all.push(stretch(server, name, rate, seconds, &mut streams).await?);
        }
        Ok::<_, Failure>(all)
    })?;
    Ok((peak, stretches))
}

async fn stretch(
    server: &Server,
    name: &'static str,
    rate: f64,
    seconds: f64,
    streams: &mut Vec<TcpStream>,
) -> Result<Stretch, Failure> {
    let shared = Rc::new(Shared::default());
    let process = server.process_id();
    let (server_before, own_before) = (processor_time(process)?, processor_time(std::process::id())?);
    let (began, others) = (Instant::now(), Bystanders::begin());
    let schedule = Schedule { began, rate, arrivals: (rate * seconds) as u64 };
    let mut senders = Vec::new();
    for (number, stream) in streams.drain(..).enumerate() {
        let request = Prebuilt::new(server.http, "/topics/bench");
        // Ids of all stretches differ.
        let first = (u64::from(name.as_bytes()[0]) << 48) + ((number as u64) << 32);
        senders.push(tokio::task::spawn_local(send(server.http, stream, request, first, schedule, Rc::clone(&shared))));
    }
    for sender in senders {
        streams.push(sender.await??);
    }
    let took = began.elapsed().as_secs_f64();
    let server_time = processor_time(process)?.saturating_sub(server_before);
    let own_time = processor_time(std::process::id())?.saturating_sub(own_before);
    let bystanders = others.end(server_time + own_time);
    Ok(Stretch {
        name,
        offered: rate,
        seconds: took,
        unsent: shared.unsent.get(),
        answers: shared.answers.take(),
        server_load: server_time.as_secs_f64() / took,
        generator_load: own_time.as_secs_f64() / took,
        bystanders,
    })
}

/// When each arrival is due.
#[derive(Clone, Copy)]
struct Schedule {
    began: Instant,
    rate: f64,
    arrivals: u64,
}

impl Schedule {
    fn due(&self, number: u64) -> Instant {
        self.began + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// The next arrival that a free connection takes. Those that waited too long are given up.
    fn next(&self, shared: &Shared) -> Option<u64> {
        let oldest = Instant::now()
            .checked_sub(ARRIVAL_PATIENCE)
            .map_or(0, |at| (at.saturating_duration_since(self.began).as_secs_f64() * self.rate) as u64);
        let number = shared.next.get().max(oldest.min(self.arrivals));
        shared.unsent.set(shared.unsent.get() + (number - shared.next.get()));
        if number >= self.arrivals {
            shared.next.set(number);
            return None;
        }
        shared.next.set(number + 1);
        Some(number)
    }
}

async fn send(
    address: SocketAddr,
    mut stream: TcpStream,
    mut request: Prebuilt,
    first: u64,
    schedule: Schedule,
    shared: Rc<Shared>,
) -> Result<TcpStream, Failure> {
    let mut answer = [0; 1024];
    let mut id = first;
    while let Some(number) = schedule.next(&shared) {
        let due = schedule.due(number);
        tokio::time::sleep_until(due.into()).await;
        let sent = Instant::now();
        stream.write_all(request.with_id(id)).await?;
        id += 1;
        let mut read = 0;
        let accepted = loop {
            match stream.read(&mut answer[read..]).await? {
                0 => return Err("the server closed a connection".into()),
                more => read += more,
            }
            if let Message::Whole { header_bytes, .. } = http::message(&answer[..read]) {
                match http::status(&answer) {
                    202 => break true,
                    429 | 503 if http::field(&answer[..header_bytes], b"retry-after").is_some() => break false,
                    _ => return Err(String::from_utf8_lossy(&answer[..read]).into_owned().into()),
                }
            }
        };
        let closes = http::field(&answer[..read], b"connection").is_some_and(|value| value == b"close");
        if closes {
            stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
        }
        shared.answers.borrow_mut().push(Answered { due, sent, done: Instant::now(), accepted });
    }
    Ok(stream)
}

/// From the burst's end until the answers of a window came as fast as before it again: twice its p99, or 5 ms where that
/// is less, because then the clock of the generator speaks.
fn recovery(before: &Stretch, after: &Stretch) -> Option<Duration> {
    let normal = (2.0 * before.milliseconds(true, |answer| answer.due).quantile(0.99)).max(5.0);
    let began = after.answers.iter().map(|answer| answer.due).min()?;
    let windows = (after.seconds / WINDOW.as_secs_f64()) as u32;
    (0..windows).map(|window| WINDOW * window).find(|from| {
        let within = after.answers.iter().filter(|answer| {
            let at = answer.due - began;
            at >= *from && at < *from + WINDOW
        });
        let answers: Vec<&Answered> = within.collect();
        let took: Figures = answers.iter().map(|answer| (answer.done - answer.due).as_secs_f64() * 1e3).collect();
        !answers.is_empty() && answers.iter().all(|answer| answer.accepted) && took.quantile(0.99) <= normal
    })
}
