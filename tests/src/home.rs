//! A folder that a gateway lives in: its data, its resource files and what it wrote to stderr, run by run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::gateway::{Gateway, Options, Refused, Starting};

/// A temporary folder that survives restarts of the gateway inside it, and stays for inspection where its test fails.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
    data: PathBuf,
    runs: AtomicU64,
}

impl Home {
    /// A new, empty home.
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("tidegate-test-").expect("a temporary folder can be made");
        let data = folder.path().join("data");
        std::fs::create_dir(folder.path().join("resources")).expect("the folder is ours");
        Self { folder, data, runs: AtomicU64::new(0) }
    }

    /// A new home whose data lies somewhere else, for instance on a file system of its own.
    pub fn with_data(data: &Path) -> Self {
        let mut home = Self::new();
        home.data = data.to_path_buf();
        home
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The folder of the resource files.
    pub fn resources(&self) -> PathBuf {
        self.folder.path().join("resources")
    }

    /// Writes a resource file whole: beside its place and then renamed, as an editor or a mount does it.
    pub fn write_resource(&self, name: &str, text: &str) -> PathBuf {
        let path = self.resources().join(name);
        let draft = self.folder.path().join(format!("{name}.draft"));
        std::fs::write(&draft, text).expect("the folder is ours");
        std::fs::rename(&draft, &path).expect("the folder is ours");
        path
    }

    /// Starts the gateway and waits until it is ready.
    ///
    /// # Panics
    ///
    /// Where it does not get ready, with what it wrote to stderr.
    pub async fn start(&self) -> Gateway {
        self.start_with(Options::default()).await.unwrap_or_else(|refused| panic!("{refused}"))
    }

    /// Starts the gateway with options; gives what it said where it ended instead of getting ready.
    pub async fn start_with(&self, options: Options) -> Result<Gateway, Refused> {
        self.launch(&options).ready().await
    }

    /// Starts the gateway and does not wait for it.
    pub fn begin(&self, options: &Options) -> Starting {
        self.launch(options)
    }

    /// Starts the gateway and kills it after a while, ready or not.
    pub async fn start_and_kill(&self, after: Duration) {
        let starting = self.launch(&Options::default());
        tokio::time::sleep(after).await;
        starting.kill().await;
    }

    fn launch(&self, options: &Options) -> Starting {
        Starting::launch(self, self.runs.fetch_add(1, Ordering::Relaxed), options)
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("the gateway's folder is kept: {}", self.folder.path().display());
        }
    }
}
