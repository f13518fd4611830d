//! The manifest: which format a directory has (FORMAT.md, Manifest).

use std::fmt::Write as _;

use tidegate_backbone::{Random, Result};

use crate::error::{from_io, misconfigured};
use crate::log::frame::Key;
use crate::name;
use crate::storage::{self, Mode, Storage};

const TITLE: &str = "tidegate embedded log";
const VERSION: u32 = 1;
/// Feature bits that this program knows.
const FEATURES: u64 = 0;

/// The content of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Names the content of the directory for ever.
    pub(crate) cluster: u128,
    /// What the headers' checksums begin with.
    pub(crate) key: Key,
}

impl Manifest {
    fn text(&self) -> String {
        let mut text = format!("{TITLE}\nversion {VERSION}\nfeatures {FEATURES}\ncluster {:032x}\n", self.cluster);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "key {:032x}", u128::from_be_bytes(self.key.0));
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc32c {crc:08x}");
        text
    }

    /// Reads the text. `path` is for the message.
    fn parse(text: &[u8], path: &str) -> Result<Self> {
        let damaged = || {
            misconfigured(format!(
                "{path} is not a manifest of the embedded log, or is damaged; restore it from a backup of the same directory"
            ))
        };
        let text = std::str::from_utf8(text).map_err(|_| damaged())?;
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(damaged());
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        // Version and features come first and are looked at before all else: what follows may differ in a newer one.
        let version = field("version").ok_or_else(damaged)?;
        if version != VERSION.to_string() {
            return Err(misconfigured(format!(
                "{path} says format version {version}, and this program reads version {VERSION} only; start the program that wrote it"
            )));
        }
        let features: u64 = field("features").and_then(|bits| bits.parse().ok()).ok_or_else(damaged)?;
        if features & !FEATURES != 0 {
            return Err(misconfigured(format!(
                "{path} names feature bits {:#x}, which this program does not know; start the program that wrote it",
                features & !FEATURES
            )));
        }
        let hexadecimal = |text: &str| u128::from_str_radix(text, 16).ok();
        let cluster = field("cluster").and_then(hexadecimal).ok_or_else(damaged)?;
        let key = field("key").and_then(hexadecimal).ok_or_else(damaged)?;
        let manifest = Self { cluster, key: Key(key.to_be_bytes()) };
        // The text is canonical, so comparing it checks the checksum and everything else.
        if manifest.text() == text { Ok(manifest) } else { Err(damaged()) }
    }

    /// Reads the manifest of the directory, or writes one where there is neither a manifest nor a segment.
    pub(crate) fn open(storage: &dyn Storage, random: &dyn Random, has_segments: bool) -> Result<Self> {
        let path = format!("{}/{}", storage.describe(), name::MANIFEST);
        match storage::read_all(storage, name::MANIFEST) {
            Ok(text) => Self::parse(&text, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if has_segments {
                    return Err(misconfigured(format!(
                        "{path} is missing beside segments that it describes; restore it from a backup, or name an empty directory"
                    )));
                }
                let wide = || u128::from(random.bits()) << 64 | u128::from(random.bits());
                let manifest = Self { cluster: wide(), key: Key(wide().to_be_bytes()) };
                manifest.write(storage).map_err(|error| from_io("write", &path, error))?;
                Ok(manifest)
            }
            Err(error) => Err(from_io("read", &path, error)),
        }
    }

    fn write(&self, storage: &dyn Storage) -> std::io::Result<()> {
        let file = storage.open(name::MANIFEST_NEW, Mode::Create)?;
        file.write_at(0, self.text().as_bytes())?;
        file.sync_data()?;
        storage.rename(name::MANIFEST_NEW, name::MANIFEST)?;
        storage.sync_folder("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let manifest = Manifest { cluster: 5, key: Key([3; 16]) };
        let text = manifest.text();
        assert_eq!(Manifest::parse(text.as_bytes(), "x").unwrap(), manifest);
        let check = |from: &str, to: &str, says: &str| {
            let error = Manifest::parse(text.replace(from, to).as_bytes(), "d/FORMAT").unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("d/FORMAT"), "{error}");
        };
        check("version 1", "version 2", "version 2");
        check("features 0", "features 4", "0x4");
        check("cluster 0", "cluster 1", "damaged");
        check("key 0303", "key 0403", "damaged");
        check("tidegate", "other", "not a manifest");
    }
}
