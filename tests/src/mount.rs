//! A small file system of its own, to be filled to the brim.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted tmpfs of a fixed size. Dropped, it is unmounted.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts one; the reason where this machine does not let it.
    pub fn mount(mebibytes: u64) -> Result<Self, String> {
        let folder = TempDir::with_prefix("tidegate-disk-").map_err(|error| error.to_string())?;
        let size = format!("size={mebibytes}m");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tidegate"]).arg(folder.path()).output();
        let output = output.map_err(|error| format!("mount: {error}"))?;
        if !output.status.success() {
            return Err(format!("no tmpfs can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(Self { folder })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes up all but this much of what is free, with a file that is given back.
    ///
    /// # Panics
    ///
    /// Where the disk is not ours any more.
    pub fn fill_but(&self, left_bytes: u64) -> PathBuf {
        let statistics = rustix::fs::statvfs(self.path()).expect("the disk is mounted");
        let free_bytes = statistics.f_bavail * statistics.f_frsize;
        let path = self.path().join("filler");
        let file = std::fs::File::create(&path).expect("the disk is ours");
        let length = free_bytes.saturating_sub(left_bytes);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length).expect("that much is free");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a gateway that a failing test left behind may still hold files open.
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}
