//! Clients of brokers in Python, installed by `pip` as `requirements.txt` pins them.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tidegate_conformance::Broker;
use tidegate_tests::machine::not_had;
use tidegate_tests::{PATIENCE, workspace_root};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// What is installed.
const REQUIREMENTS: &str = include_str!("requirements.txt");

/// A client of a broker.
#[derive(Debug)]
pub(crate) struct Foreign {
    python: PathBuf,
    script: PathBuf,
    url: String,
}

impl Foreign {
    /// The client of a broker; none, with a loud word, where this machine cannot install it.
    pub(crate) async fn of(broker: &Broker) -> Option<Self> {
        Self::with(broker, broker.name()).await
    }

    /// The client of that name.
    pub(crate) async fn with(broker: &Broker, name: &str) -> Option<Self> {
        static INSTALLED: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
        let python = match INSTALLED.get_or_init(install).await {
            Ok(python) => python.clone(),
            Err(reason) => {
                not_had(&format!("foreign clients of {}", broker.name()), reason);
                return None;
            }
        };
        let script = sources().join(format!("{name}_client.py"));
        Some(Self { python, script, url: broker.url().to_owned() })
    }

    /// Calls a verb of its script with a document, and gives the one that it answers.
    ///
    /// # Panics
    ///
    /// Where it fails, with what it said.
    pub(crate) async fn call(&self, verb: &str, arguments: &[&str], document: &Value) -> Value {
        let mut command = Command::new(&self.python);
        // What it compiles would stand beside its source.
        command.arg("-B").arg(&self.script).arg(&self.url).arg(verb).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut input = child.stdin.take().expect("it is piped");
        // One that ends before it has read all of this says why.
        let _ = input.write_all(document.to_string().as_bytes()).await;
        drop(input);
        // It has limits of its own, which say more.
        let ended = tokio::time::timeout(2 * PATIENCE, child.wait_with_output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{command:?} hangs")).expect("the child is ours");
        assert!(output.status.success(), "{command:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{command:?}: {error}: {}", said(&output)))
    }
}

/// Makes an environment with the clients, or takes the one that was made from the same requirements; gives its Python.
async fn install() -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = workspace_root().join(target).join("foreign-clients");
    let (environment, built_from) = (folder.join("venv"), folder.join("built-from"));
    let python = environment.join("bin/python");
    let imports = ["-c", "import cloudevents, confluent_kafka, nats, pika"];
    if std::fs::read_to_string(&built_from).is_ok_and(|text| text == REQUIREMENTS)
        && run(Command::new(&python).args(imports)).await.is_ok()
    {
        return Ok(python);
    }
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let _ = std::fs::remove_file(&built_from);
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment)).await?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2", "--timeout", "15"];
    // Nothing that is not pinned, and nothing that a compiler would have to build.
    let only = ["--no-deps", "--only-binary", ":all:", "--requirement"];
    run(Command::new(&python).args(pip).args(only).arg(sources().join("requirements.txt"))).await?;
    run(Command::new(&python).args(imports)).await?;
    std::fs::write(&built_from, REQUIREMENTS).map_err(|error| format!("{}: {error}", built_from.display()))?;
    Ok(python)
}

/// Runs a command; where it fails, the error is the last line that it said.
async fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{:?}", command.as_std());
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = said(&output);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(format!("{shown}: {last}"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Where the scripts are.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign_clients")
}
