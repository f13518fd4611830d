//! The processes that are measured, and what the kernel says about them in `/proc`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use crate::{Common, Failure};

/// What a gateway may take to get ready, or to end, before it is called hung.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the ready file is looked for.
const READY_INTERVAL: Duration = Duration::from_micros(200);

/// The arguments of `tidegate dev` that the measurements use; the server without storage takes the same.
#[derive(Args, Debug)]
pub(crate) struct ServeArguments {
    /// Folder of the log
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Where to listen
    #[arg(long)]
    pub(crate) http: SocketAddr,
    /// File that is written when it serves
    #[arg(long)]
    pub(crate) ready_file: PathBuf,
}

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The product, as it is built for users.
    Gateway,
    /// The same with the configuration `gateway.yaml` in its folder.
    Configured,
    /// The same without storage.
    Null,
}

/// A server that is ready. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    stderr: PathBuf,
    /// Where it serves.
    pub(crate) http: SocketAddr,
    /// From its start until it was ready.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts a server in a folder that keeps its data and its files.
    pub(crate) fn start(common: &Common, kind: Kind, home: &Path, arguments: &[&str]) -> Result<Self, Failure> {
        let ready_file = home.join("ready");
        let _ = std::fs::remove_file(&ready_file);
        let stderr = home.join("stderr");
        let program = match kind {
            Kind::Gateway | Kind::Configured => binary(common)?,
            Kind::Null => std::env::current_exe()?,
        };
        let mut command = on_processors(common.server_cpus.as_deref(), program.into());
        match kind {
            Kind::Gateway => command.arg("dev").arg("--data").arg(home.join("data")),
            Kind::Configured => command.arg("serve").arg("--config").arg(home.join("gateway.yaml")),
            Kind::Null => command.arg("serve-null").arg("--data").arg(home.join("data")),
        };
        command.args(["--http", "127.0.0.1:0"]);
        command.arg("--ready-file").arg(&ready_file).args(arguments);
        if kind != Kind::Null {
            command.args(["--grpc", "127.0.0.1:0"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&stderr)?);
        let started = Instant::now();
        let mut child = command.spawn()?;
        while started.elapsed() < PATIENCE {
            if let Some(http) = read_ready_file(&ready_file) {
                return Ok(Self { child, stderr, http, ready_after: started.elapsed() });
            }
            if let Some(status) = child.try_wait()? {
                let said = std::fs::read_to_string(&stderr)?;
                return Err(format!("the server ended before it was ready, {status}: {said}").into());
            }
            std::thread::sleep(READY_INTERVAL);
        }
        let _ = child.kill();
        Err(format!("the server was not ready within {PATIENCE:?}").into())
    }

    /// Its process id. `taskset` replaces itself by what it starts, so this is the server's own.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// What is known where it stopped answering: whether it ended, and the last lines that it wrote.
    pub(crate) fn post_mortem(&mut self, failure: &Failure) -> Failure {
        // A connection may break before the process has ended.
        std::thread::sleep(Duration::from_millis(500));
        let ended = self.child.try_wait().ok().flatten();
        let ended = ended.map_or_else(|| "it still runs".to_owned(), |status| format!("it ended, {status}"));
        let said = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        format!("{failure}; the server: {ended}\n{last}").into()
    }

    /// Lets it end as a service manager would.
    pub(crate) fn terminate(mut self) -> Result<ExitStatus, Failure> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or("a process id is positive")?;
        kill_process(id, Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err("the server does not end".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that is bound to processors, where some are named.
pub(crate) fn on_processors(processors: Option<&str>, program: OsString) -> Command {
    match processors {
        None => Command::new(program),
        Some(processors) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(processors).arg(program);
            command
        }
    }
}

/// Binds this process, as far as its threads are not started yet, to the processors of the generator.
pub(crate) fn bind_generator(common: &Common) -> Result<(), Failure> {
    let Some(processors) = &common.generator_cpus else { return Ok(()) };
    let status = Command::new("taskset")
        .args(["-cp", processors, &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("taskset: {status}").into()) }
}

/// The gateway under measurement.
pub(crate) fn binary(common: &Common) -> Result<PathBuf, Failure> {
    let path = match &common.binary {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("tidegate"),
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("there is no gateway at {}; build it: cargo build --release -p tidegate", path.display()).into())
}

fn read_ready_file(path: &Path) -> Option<SocketAddr> {
    let ready: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    ready["http"].as_str()?.parse().ok()
}

/// Processor time that a process has used, in user and kernel mode, in steps of 10 ms.
pub(crate) fn processor_time(process_id: u32) -> Result<Duration, Failure> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat"))?;
    // The name stands in parentheses and may hold anything; utime and stime are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(") ").ok_or("/proc/PID/stat is not understood")?;
    let ticks = |at: usize| fields.split(' ').nth(at).and_then(|field| field.parse::<f64>().ok());
    let (Some(user), Some(kernel)) = (ticks(11), ticks(12)) else {
        return Err("/proc/PID/stat is not understood".into());
    };
    Ok(Duration::from_secs_f64((user + kernel) / TICKS_PER_SECOND))
}

/// A line of `/proc/PID/status` that counts kilobytes, in bytes.
pub(crate) fn memory_bytes(process_id: u32, name: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|text| text.parse::<u64>().ok());
    Ok(kilobytes.ok_or("/proc/PID/status is not understood")? * 1024)
}

/// What else the machine is doing: the load average of the last minute.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// Processor time that others take meanwhile: all of the machine's, less that of what is measured.
#[derive(Debug)]
pub(crate) struct Bystanders {
    busy: f64,
    since: Instant,
}

impl Bystanders {
    pub(crate) fn begin() -> Self {
        Self { busy: busy_seconds().unwrap_or(f64::NAN), since: Instant::now() }
    }

    /// Processors that others kept busy on average, given what was used by what is measured.
    pub(crate) fn end(&self, ours: Duration) -> f64 {
        let busy = busy_seconds().unwrap_or(f64::NAN) - self.busy - ours.as_secs_f64();
        (busy / self.since.elapsed().as_secs_f64()).max(0.0)
    }
}

/// Waits until others leave the processors alone, as long as the arguments allow.
pub(crate) fn wait_for_quiet(common: &Common) {
    const QUIET_PROCESSORS: f64 = 0.15;
    const LOOK: Duration = Duration::from_millis(500);
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < common.quiet_seconds {
        let others = Bystanders::begin();
        std::thread::sleep(LOOK);
        if others.end(Duration::ZERO) < QUIET_PROCESSORS {
            return;
        }
    }
}

/// Seconds in which the machine's processors were busy or stolen, since it booted.
fn busy_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let all: f64 = fields.iter().take(8).sum();
    Some((all - fields.get(3)? - fields.get(4)?) / 100.0)
}
