//! A real broker, started by `scripts/brokers`, for the tests of every crate.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokio::process::Command;

use crate::machine::not_had;
use crate::proxy::Proxy;

/// What `scripts/brokers` ends with where a broker cannot be had on this machine.
const NOT_HAD: i32 = 3;

/// A broker that runs. Dropped, it is taken down with its data; a test that is killed leaves none behind either.
#[derive(Debug)]
pub struct Broker {
    name: String,
    url: String,
    /// None where the environment gave the broker: then its processes are not ours.
    state: Option<TempDir>,
}

/// What is done to the processes of a broker's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: it stands still, its connections stay open.
    Pause,
    /// SIGCONT: it goes on.
    Resume,
    /// SIGKILL where it runs, and started again on the same port and data; waits until it answers.
    Restart,
}

impl Broker {
    /// Starts the broker of that name (`scripts/brokers names` lists them) with data of its own, and waits until it
    /// answers; or gives the one that `TIDEGATE_BROKER_…` names. None, with a loud word, where this machine cannot have it.
    ///
    /// # Panics
    ///
    /// Where it does not start, with the end of its log.
    pub async fn start(name: &str) -> Option<Self> {
        Self::start_advertising(name, &[]).await
    }

    /// The same with its data below that folder, such as a small disk of its own.
    ///
    /// # Panics
    ///
    /// As [`Broker::start`].
    pub async fn start_in(name: &str, folder: &Path) -> Option<Self> {
        let state = tempfile::tempdir_in(folder).expect("the folder of a test can be written to");
        Self::start_with(name, &[], state).await
    }

    /// The same; its nodes tell clients to come to these ports of loopback. See [`Linked`], which puts proxies there.
    ///
    /// # Panics
    ///
    /// As [`Broker::start`].
    pub async fn start_advertising(name: &str, ports: &[u16]) -> Option<Self> {
        let state = tempfile::tempdir().expect("a folder for tests can be made");
        Self::start_with(name, ports, state).await
    }

    async fn start_with(name: &str, ports: &[u16], state: TempDir) -> Option<Self> {
        let mut command = script(state.path());
        command.args(["up", name, "--while", &std::process::id().to_string()]);
        if !ports.is_empty() {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            command.args(["--advertise", &ports.join(",")]);
        }
        let output = output(&mut command).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(NOT_HAD) {
            let prefix = format!("NOT HAD: {name}: ");
            let reason = told.lines().find_map(|line| line.strip_prefix(&prefix));
            not_had(name, reason.unwrap_or("scripts/brokers gave no reason"));
            return None;
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let url = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let Some(url) = url.filter(|_| output.status.success()) else {
            panic!("scripts/brokers up {name}: {}\n{text}{told}", output.status);
        };
        let ours = state.path().join(name).is_dir();
        Some(Self { name: name.to_owned(), url: url.to_owned(), state: ours.then_some(state) })
    }

    /// `kafka://127.0.0.1:…`, with every node.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The addresses of its nodes, `host:port` each.
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        addresses.split(',').map(str::to_owned).collect()
    }

    /// Whether its processes are ours to kill and to stop.
    pub fn is_ours(&self) -> bool {
        self.state.is_some()
    }

    /// Where its data, logs and certificates are.
    pub fn folder(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|state| state.path().join(&self.name))
    }

    /// [`Act::Kill`] for all nodes, or for one, counted from 1.
    ///
    /// # Panics
    ///
    /// Where the broker is not ours, here and below.
    pub async fn kill(&self, node: Option<u32>) {
        self.act(Act::Kill, node).await;
    }

    /// [`Act::Pause`].
    pub async fn pause(&self, node: Option<u32>) {
        self.act(Act::Pause, node).await;
    }

    /// [`Act::Resume`].
    pub async fn resume(&self, node: Option<u32>) {
        self.act(Act::Resume, node).await;
    }

    /// [`Act::Restart`].
    pub async fn restart(&self, node: Option<u32>) {
        self.act(Act::Restart, node).await;
    }

    /// The user `tidegate` is refused from now on, on Kafka with SCRAM-SHA-512, or taken again. NATS ends the connections that it
    /// has; Kafka leaves them.
    ///
    /// # Panics
    ///
    /// Where the broker is not ours, or takes everybody.
    pub async fn admit(&self, admit: bool) {
        self.run(if admit { "grant" } else { "revoke" }, &self.name).await;
    }

    /// Does that to all nodes, or to one, counted from 1.
    ///
    /// # Panics
    ///
    /// Where the broker is not ours.
    pub async fn act(&self, act: Act, node: Option<u32>) {
        let verb = match act {
            Act::Kill => "kill",
            Act::Pause => "pause",
            Act::Resume => "resume",
            Act::Restart => "restart",
        };
        self.run(verb, &node.map_or_else(|| self.name.clone(), |node| format!("{}/{node}", self.name))).await;
    }

    /// Runs `rabbitmqctl` with these words at the first node, and gives what it printed: users and their rights, alarms.
    ///
    /// # Panics
    ///
    /// Where the broker is not ours or no RabbitMQ, or the command fails, with what it said.
    pub async fn control(&self, words: &[&str]) -> String {
        self.call(&[&["control", &self.name], words].concat()).await
    }

    async fn run(&self, verb: &str, target: &str) {
        self.call(&[verb, target]).await;
    }

    async fn call(&self, arguments: &[&str]) -> String {
        let state = self.state.as_ref().unwrap_or_else(|| panic!("{} was given by the environment", self.name));
        let output = output(script(state.path()).args(arguments)).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/brokers {}: {}\n{told}", arguments.join(" "), output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(state) = &self.state else { return };
        let mut command = std::process::Command::new(path());
        command.arg("--state").arg(state.path()).args(["down", "--purge", &self.name]);
        // Where even this fails, the script takes it down when this process has ended.
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A broker with a fault proxy in front of each of its nodes.
#[derive(Debug)]
pub struct Linked {
    broker: Broker,
    proxies: Vec<Proxy>,
}

impl Linked {
    /// Starts the broker of that name behind proxies that forward everything. None where it cannot be had, or where the
    /// environment gives one: that one tells clients its own address, and they would go past the proxies.
    ///
    /// # Panics
    ///
    /// As [`Broker::start`].
    pub async fn start(name: &str) -> Option<Self> {
        let count = if name.ends_with('3') { 3 } else { 1 };
        let mut proxies = Vec::new();
        for _ in 0..count {
            proxies.push(Proxy::start().await);
        }
        let ports: Vec<u16> = proxies.iter().map(|proxy| proxy.address().port()).collect();
        let broker = Broker::start_advertising(name, &ports).await?;
        if !broker.is_ours() {
            not_had(&format!("{name} behind a fault proxy"), "the environment gives the broker");
            return None;
        }
        for (proxy, address) in proxies.iter().zip(broker.addresses()) {
            proxy.forward_to(address.parse().expect("the script prints addresses"));
        }
        Some(Self { broker, proxies })
    }

    /// Where clients come: the proxies.
    pub fn url(&self) -> String {
        let scheme = self.broker.url().split("://").next().unwrap_or_default();
        let addresses: Vec<String> = self.proxies.iter().map(|proxy| proxy.address().to_string()).collect();
        format!("{scheme}://{}", addresses.join(","))
    }

    /// The broker behind.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// One proxy for each node, in order.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/brokers")
}

fn script(state: &Path) -> Command {
    let mut command = Command::new(path());
    command.arg("--state").arg(state).stdin(Stdio::null());
    command
}

async fn output(command: &mut Command) -> Output {
    command.output().await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
