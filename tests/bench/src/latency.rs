//! Time from publish to delivery at a fixed rate. The schedule of arrivals is fixed before: an event that could not be
//! sent in time has waited all the same, and its time counts from when it was due.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::figures::{Figures, print_table};
use crate::http::{self, Message, Prebuilt};
use crate::process::{Bystanders, Kind, Server, bind_generator, load_average, processor_time, wait_for_quiet};
use crate::sink::{self, Arrivals};
use crate::{Common, Failure};

/// Connections of the generator: more than are ever needed at once.
const CONNECTIONS: usize = 64;
/// Events that may wait for one of them.
const QUEUE: usize = 4096;
const WARM_UP: Duration = Duration::from_millis(500);
/// What the last deliveries may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two percentiles in milliseconds, and what else the processors did.
#[derive(Clone, Copy, Debug)]
struct Percentiles {
    delivered: (f64, f64),
    answered: (f64, f64),
    bystanders: f64,
}

#[derive(Clone, Debug, Default)]
struct Contender {
    delivered: (Figures, Figures),
    answered: (Figures, Figures),
    bystanders: Figures,
}

impl Contender {
    fn add(&mut self, percentiles: Percentiles) {
        self.delivered.0.push(percentiles.delivered.0);
        self.delivered.1.push(percentiles.delivered.1);
        self.answered.0.push(percentiles.answered.0);
        self.answered.1.push(percentiles.answered.1);
        self.bystanders.push(percentiles.bystanders);
    }

    fn row(&self, name: &str) -> Vec<String> {
        let ((p50, p99), (answered_p50, answered_p99)) = (&self.delivered, &self.answered);
        vec![name.to_owned(), p50.text(2), p99.text(2), answered_p50.text(2), answered_p99.text(2)]
    }
}

/// Interleaved rounds for each rate.
pub(crate) fn run(common: &Common, rates: &[u32], rounds: usize, seconds: f64) -> Result<(), Failure> {
    bind_generator(common)?;
    for rate in rates {
        let (mut straight, mut through) = (Contender::default(), Contender::default());
        let before = load_average();
        for round in 0..rounds {
            wait_for_quiet(common);
            straight.add(measure(common, *rate, seconds, false)?);
            wait_for_quiet(common);
            let percentiles = measure(common, *rate, seconds, true)?;
            eprintln!(
                "round {} of {rounds} at {rate}/s: delivered p50 and p99 {:?} ms",
                round + 1,
                percentiles.delivered
            );
            through.add(percentiles);
        }
        println!("{rate} events/s offered, {rounds} rounds of {seconds} s, load average {before} before the first.\n");
        let heads = ["ms from when an event was due", "delivered p50", "delivered p99", "answered p50", "answered p99"];
        print_table(&heads, &[straight.row("straight to the sink"), through.row("through the gateway")]);
        let ratios =
            (through.delivered.0.ratio(&straight.delivered.0), through.delivered.1.ratio(&straight.delivered.1));
        println!("Through the gateway / straight, delivered: p50 {}, p99 {}.", ratios.0.text(1), ratios.1.text(1));
        println!("Processors kept busy by others meanwhile: {}.\n", through.bystanders.text(2));
    }
    Ok(())
}

fn measure(common: &Common, rate: u32, seconds: f64, through: bool) -> Result<Percentiles, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let warm_up = (WARM_UP.as_secs_f64() * f64::from(rate)) as usize;
    let events = warm_up + (seconds * f64::from(rate)) as usize;
    let arrivals = Arrivals::new(events);
    let address = runtime.block_on(sink::start(Arc::clone(&arrivals)))?;
    if !through {
        return runtime.block_on(offer(address, "/hook", rate, warm_up, &arrivals, None));
    }
    let home = tempfile::tempdir_in(&common.folder)?;
    let resources = home.path().join("resources");
    std::fs::create_dir(&resources)?;
    std::fs::write(
        resources.join("sink.yaml"),
        format!(
            "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {{name: bench}}\nspec:\n  topics: [bench]\n  \
             sink: http://{address}/hook\n  delivery: {{from: earliest}}\n"
        ),
    )?;
    let resources = resources.to_str().ok_or("the folder's name is not UTF-8")?;
    let mut server = Server::start(common, Kind::Gateway, home.path(), &["--resources", resources])?;
    let process = server.process_id();
    let percentiles = runtime
        .block_on(offer(server.http, "/topics/bench", rate, warm_up, &arrivals, Some(process)))
        .map_err(|failure| server.post_mortem(&failure))?;
    server.terminate()?;
    Ok(percentiles)
}

/// Sends every event when it is due, and waits until all have arrived.
async fn offer(
    address: SocketAddr,
    path: &str,
    rate: u32,
    warm_up: usize,
    arrivals: &Arc<Arrivals>,
    server: Option<u32>,
) -> Result<Percentiles, Failure> {
    let total = usize::try_from(arrivals.missing())?;
    let used = || -> Result<Duration, Failure> {
        let server = server.map(processor_time).transpose()?.unwrap_or_default();
        Ok(server + processor_time(std::process::id())?)
    };
    let mut connections = JoinSet::new();
    let mut queues = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let (queue, due) = mpsc::channel(QUEUE);
        queues.push(queue);
        connections.spawn(send(TcpStream::connect(address).await?, Prebuilt::new(address, path), due));
    }
    let (before, others) = (used()?, Bystanders::begin());
    let began = Instant::now();
    let shift = u64::try_from((began - arrivals.began).as_nanos())?;
    let interval = Duration::from_secs(1) / rate;
    // A thread of its own, because the runtime's clock only has milliseconds.
    let pacer = std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
        for number in 0..total {
            let due = began + interval * u32::try_from(number).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if queues[number % CONNECTIONS].blocking_send((number, due)).is_err() {
                return;
            }
        }
    })?;
    let mut answered = Vec::with_capacity(total);
    while let Some(sent) = connections.join_next().await {
        answered.extend(sent??.into_iter().filter(|(number, _)| *number >= warm_up).map(|(_, took)| took));
    }
    pacer.join().map_err(|_| "the pacer has panicked")?;
    let ended = Instant::now();
    while arrivals.missing() > 0 {
        if ended.elapsed() > PATIENCE {
            return Err(format!("{} of {total} events were never delivered", arrivals.missing()).into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let bystanders = others.end(used()?.saturating_sub(before));
    if arrivals.repeats() > 0 {
        eprintln!("{} deliveries were repeats", arrivals.repeats());
    }
    let delivered: Figures = (warm_up..total)
        .filter_map(|number| {
            let due = shift + u64::try_from((interval * u32::try_from(number).ok()?).as_nanos()).ok()?;
            Some(arrivals.at(number)?.saturating_sub(due) as f64 / 1e6)
        })
        .collect();
    let answered: Figures = answered.into_iter().map(|took| took.as_secs_f64() * 1e3).collect();
    let percentiles = |figures: &Figures| (figures.quantile(0.5), figures.quantile(0.99));
    Ok(Percentiles { delivered: percentiles(&delivered), answered: percentiles(&answered), bystanders })
}

async fn send(
    mut stream: TcpStream,
    mut request: Prebuilt,
    mut due: mpsc::Receiver<(usize, Instant)>,
) -> Result<Vec<(usize, Duration)>, Failure> {
    stream.set_nodelay(true)?;
    let mut answer = [0; 1024];
    let mut took = Vec::new();
    while let Some((number, due)) = due.recv().await {
        stream.write_all(request.with_id(number as u64)).await?;
        let mut read = 0;
        loop {
            match stream.read(&mut answer[read..]).await? {
                0 => return Err("the server closed a connection".into()),
                more => read += more,
            }
            if let Message::Whole { .. } = http::message(&answer[..read]) {
                if !matches!(http::status(&answer), 202 | 204) {
                    return Err(String::from_utf8_lossy(&answer[..read]).into_owned().into());
                }
                break;
            }
        }
        took.push((number, due.elapsed()));
    }
    Ok(took)
}
