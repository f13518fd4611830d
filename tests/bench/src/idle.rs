//! What a gateway takes at rest, and how soon it serves.

use std::path::Path;
use std::time::Duration;

use crate::figures::{Figures, print_table};
use crate::process::{Kind, Server, load_average, memory_bytes, wait_for_quiet};
use crate::{Common, Failure, load};

const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// After this a gateway that has nothing to do has come to rest.
const REST: Duration = Duration::from_secs(2);

/// Starts of a gateway on an empty folder, on a log that was closed, and on one whose gateway was killed.
pub(crate) fn run(common: &Common, starts: usize, log_bytes: u64) -> Result<(), Failure> {
    println!("{starts} starts of each kind, load average {} before the first.\n", load_average());
    let mut rows = Vec::new();

    let (mut ready, mut resident, mut anonymous) = (Figures::default(), Figures::default(), Figures::default());
    for _ in 0..starts {
        wait_for_quiet(common);
        let home = tempfile::tempdir_in(&common.folder)?;
        let server = Server::start(common, Kind::Gateway, home.path(), &[])?;
        ready.push(server.ready_after.as_secs_f64() * 1e3);
        resident.push(memory_bytes(server.process_id(), "VmRSS")? as f64 / MEBIBYTE);
        anonymous.push(memory_bytes(server.process_id(), "RssAnon")? as f64 / MEBIBYTE);
        server.terminate()?;
    }
    rows.push(vec!["empty folder".to_owned(), ready.text(1), resident.text(1), anonymous.text(1)]);

    let home = tempfile::tempdir_in(&common.folder)?;
    let bytes = fill(common, home.path(), log_bytes)?;
    for (name, kill) in [("closed log", false), ("log after a kill", true)] {
        let (mut ready, mut resident, mut anonymous) = (Figures::default(), Figures::default(), Figures::default());
        for _ in 0..starts {
            wait_for_quiet(common);
            let server = Server::start(common, Kind::Gateway, home.path(), &[])?;
            ready.push(server.ready_after.as_secs_f64() * 1e3);
            resident.push(memory_bytes(server.process_id(), "VmRSS")? as f64 / MEBIBYTE);
            anonymous.push(memory_bytes(server.process_id(), "RssAnon")? as f64 / MEBIBYTE);
            // Dropped, it is killed.
            if !kill {
                server.terminate()?;
            }
        }
        let name = format!("{name}, {} MB", bytes / 1_000_000);
        rows.push(vec![name, ready.text(1), resident.text(1), anonymous.text(1)]);
    }
    print_table(&["", "start to ready ms", "RSS at ready MiB", "of it anonymous MiB"], &rows);

    let home = tempfile::tempdir_in(&common.folder)?;
    let server = Server::start(common, Kind::Gateway, home.path(), &[])?;
    std::thread::sleep(REST);
    let resident = memory_bytes(server.process_id(), "VmRSS")? as f64 / MEBIBYTE;
    let anonymous = memory_bytes(server.process_id(), "RssAnon")? as f64 / MEBIBYTE;
    println!(
        "After {} s at rest, before any request: RSS {resident:.1} MiB, of it anonymous {anonymous:.1} MiB.",
        REST.as_secs()
    );
    load::run(server.http, "/topics/bench", 256, Duration::from_secs(3), server.process_id())?;
    std::thread::sleep(REST);
    let resident = memory_bytes(server.process_id(), "VmRSS")? as f64 / MEBIBYTE;
    let peak = memory_bytes(server.process_id(), "VmHWM")? as f64 / MEBIBYTE;
    println!(
        "At rest after 3 s of publishing on 256 connections: RSS {resident:.1} MiB, at its highest {peak:.1} MiB.\n"
    );
    server.terminate()?;
    Ok(())
}

/// Publishes until the segments have so many bytes; gives how many they have.
fn fill(common: &Common, home: &Path, bytes: u64) -> Result<u64, Failure> {
    let server = Server::start(common, Kind::Gateway, home, &[])?;
    let mut have = 0;
    while have < bytes {
        load::run(server.http, "/topics/bench", 64, Duration::from_millis(200), server.process_id())?;
        let topic = crate::http::get(server.http, "/topics/bench")?;
        have = topic["partitions"].as_array().into_iter().flatten().filter_map(|one| one["bytes"].as_u64()).sum();
    }
    server.terminate()?;
    Ok(have)
}
