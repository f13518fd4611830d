//! A real gateway process.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::PATIENCE;
use crate::client::Client;
use crate::home::Home;

/// How a gateway is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A fault that the binary built with the feature `fault-injection` brings about by itself.
    pub fault: Option<&'static str>,
    /// Further arguments of `tidegate dev`.
    pub arguments: Vec<String>,
    /// Variables of its environment, beside those of the test.
    pub variables: Vec<(&'static str, String)>,
    /// The URL of a broker in place of the embedded log.
    pub backbone: Option<String>,
    /// The config file of a `Gateway` that `tidegate serve` is started with.
    pub config: Option<PathBuf>,
    /// The `limits` of a `Gateway`, as YAML in braces: then it is `tidegate serve` that is started, with topics created
    /// on first use as `dev` has it.
    pub limits: Option<String>,
}

/// A gateway that is ready. Dropped, it is killed.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    http: SocketAddr,
    stderr: PathBuf,
    client: Client,
}

/// The gateway ended, or hung, instead of getting ready.
#[derive(Debug)]
pub struct Refused {
    /// How it ended; none where it hung.
    pub status: Option<ExitStatus>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(formatter, "the gateway ended before it was ready, {status}; it said:")?,
            None => write!(formatter, "the gateway was not ready within {PATIENCE:?}; it said:")?,
        }
        write!(formatter, "\n{}", self.stderr)
    }
}

/// A gateway process that may not be ready yet.
#[derive(Debug)]
pub struct Starting {
    child: Child,
    ready_file: PathBuf,
    stderr: PathBuf,
}

impl Starting {
    pub(crate) fn launch(home: &Home, run: u64, options: &Options) -> Self {
        let ready_file = home.path().join(format!("run-{run}.ready"));
        let stderr = home.path().join(format!("run-{run}.stderr"));
        let output = File::create(&stderr).expect("the folder is ours");
        let mut command = Command::new(binary(options.fault.is_some()));
        match &options.limits {
            None if options.config.is_some() => command.arg("serve").arg("--config").args(&options.config),
            None => match &options.backbone {
                Some(url) => command.arg("dev").arg("--backbone").arg(url),
                None => command.arg("dev").arg("--data").arg(home.data()),
            },
            Some(limits) => {
                let config = home.path().join(format!("run-{run}.yaml"));
                let text = format!(
                    "apiVersion: tidegate.dev/v1\nkind: Gateway\nspec:\n  backbone: \"embedded:{}\"\n  topics: \
                     {{createOnFirstUse: true}}\n  limits: {limits}\n",
                    home.data().display()
                );
                std::fs::write(&config, text).expect("the folder is ours");
                command.arg("serve").arg("--config").arg(config)
            }
        };
        command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]).arg("--resources").arg(home.resources());
        command.arg("--ready-file").arg(&ready_file).args(&options.arguments);
        command.env_remove("TIDEGATE_BACKBONE");
        command.envs(options.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(home.path()).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(output.try_clone().expect("a file handle can be shared")).stderr(output);
        match options.fault {
            Some(fault) => command.env("TIDEGATE_FAULT", fault),
            None => command.env_remove("TIDEGATE_FAULT"),
        };
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, ready_file, stderr }
    }

    /// What it has written so far.
    pub fn stderr(&self) -> String {
        read_text(&self.stderr)
    }

    /// Waits until it is ready; gives what it said where it ended instead.
    pub async fn ready(mut self) -> Result<Gateway, Refused> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(http) = read_ready_file(&self.ready_file) {
                return Ok(Gateway { child: self.child, http, stderr: self.stderr, client: Client::new(http) });
            }
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return Err(Refused { status: Some(status), stderr: read_text(&self.stderr) });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Err(Refused { status: None, stderr: read_text(&self.stderr) })
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("the child is ours");
    }
}

impl Gateway {
    /// The address of the HTTP listener.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// A client with connections kept open.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The process id.
    pub fn process_id(&self) -> u32 {
        self.child.id().expect("the gateway has not been waited for")
    }

    /// What the gateway has written to stderr so far.
    pub fn stderr(&self) -> String {
        read_text(&self.stderr)
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("the child is ours");
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    ///
    /// Where it does not end.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.expect("the child is ours"),
            Err(_) => panic!("the gateway did not end within {PATIENCE:?} of SIGTERM"),
        }
    }

    /// Waits for the gateway to end by itself.
    ///
    /// # Panics
    ///
    /// Where it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        status.unwrap_or_else(|_| panic!("the gateway still runs after {PATIENCE:?}")).expect("the child is ours")
    }

    /// SIGSTOP: the process stands still, its connections stay open.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.process_id();
        let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id is a positive number");
        kill_process(id, signal).expect("the child is ours and has not been waited for");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the gateway's stderr, {}:\n{}", self.stderr.display(), last_lines(&self.stderr(), 80));
        }
    }
}

/// The binary under test: the path in `TIDEGATE_BINARY` (`TIDEGATE_FAULT_BINARY` with faults), else the one that
/// cargo put beside the test's own.
///
/// # Panics
///
/// Where there is none, with the command that builds it.
pub fn binary(with_faults: bool) -> PathBuf {
    let (variable, build) = if with_faults {
        ("TIDEGATE_FAULT_BINARY", "cargo build -p tidegate --features fault-injection")
    } else {
        ("TIDEGATE_BINARY", "cargo build -p tidegate")
    };
    let path = std::env::var_os(variable).map_or_else(beside_the_test, |path| crate::workspace_root().join(path));
    assert!(path.is_file(), "there is no gateway at {}; build it first: {build}", path.display());
    path
}

/// `target/PROFILE/tidegate` for a test in `target/PROFILE/deps/`.
fn beside_the_test() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    let profile = test.parent().and_then(Path::parent).expect("cargo puts tests into target/PROFILE/deps");
    profile.join("tidegate")
}

fn read_ready_file(path: &Path) -> Option<SocketAddr> {
    let ready: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    ready["http"].as_str()?.parse().ok()
}

fn read_text(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
