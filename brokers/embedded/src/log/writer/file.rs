//! The segment that is written: room in it, its beginning and its footer, and the write itself.

use std::io;
use std::sync::Arc;

use tidegate_schemas::limits;

use crate::counters::add;
use crate::log::frame::{self, HEADER_BYTES, Header, Kind, frame_bytes};
use crate::log::index::{SegmentIndex, Tie};
use crate::log::reader;
use crate::log::segment::{Beginning, Entry, Footer};
use crate::log::shared::SegmentState;
use crate::log::writer::Writer;
use crate::name;
use crate::options::Durability;
use crate::storage::{self, Mode, StorageFile};

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) end: u64,
    pub(crate) allocated: u64,
    pub(crate) first_lsn: u64,
    pub(crate) frames: u64,
}

/// Why nothing was written.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The disk is full; nothing has changed.
    Full(io::Error),
    /// Nothing can be relied on any more.
    Failed(String),
}

impl Writer {
    /// Makes room for so many bytes: a segment to write to, and space in it. `grow` allows to begin a new segment
    /// because this one is long enough.
    pub(crate) fn prepare(&mut self, bytes: u64, reserve: u64, grow: bool) -> std::result::Result<(), Halt> {
        if let Some(active) = &self.active {
            let holds_more_than_its_beginning = active.frames > 1;
            if grow && holds_more_than_its_beginning && active.end + bytes > self.shared.options.segment_bytes {
                self.seal()?;
            }
        }
        if self.active.is_none() {
            self.begin_segment(bytes + reserve)?;
        }
        let chunk = self.shared.options.allocation_bytes.max(1);
        let path = self.path();
        let Some(active) = &mut self.active else { return Ok(()) };
        let needed = active.end + bytes + reserve;
        if active.allocated < needed {
            let length = needed.next_multiple_of(chunk) - active.allocated;
            active.file.allocate(active.allocated, length).map_err(|error| halt("allocate space in", &path, error))?;
            active.allocated += length;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> String {
        let number = self.active.as_ref().map_or(self.last_number + 1, |active| active.number);
        format!("{}/{}", self.shared.storage.describe(), name::segment(number))
    }

    /// Ends the segment with its footer.
    pub(super) fn seal(&mut self) -> std::result::Result<(), Halt> {
        let Some(active) = &self.active else { return Ok(()) };
        let number = active.number;
        let path = self.path();
        self.buffer.clear();
        self.built_lsn = self.durable_lsn;
        let boot_frames = u64::from(self.continues);
        let boot_bytes = boot_frames * HEADER_BYTES as u64;
        let footer = Footer {
            number,
            first_lsn: active.first_lsn,
            frames: active.frames + boot_frames + 1,
            length: active.end + boot_bytes + Footer::frame_bytes(),
        };
        self.put_boot();
        self.put(Kind::Footer, 0, 0, 0, &footer.encode());
        let footer_lsn = self.built_lsn;
        self.write_unsynchronised()?;
        // The cut is synchronised together with the footer; nothing is acknowledged in between.
        let Some(active) = &self.active else { return Ok(()) };
        active.file.set_len(footer.length).map_err(|error| failed("cut", &path, &error))?;
        self.synchronise(&path)?;
        self.durable_lsn = footer_lsn;
        self.continues = false;
        self.active = None;
        self.attention = true;
        add(&self.shared.counters.segments_sealed, 1);
        if let Some(segment) = self.shared.segments.write().get_mut(&number) {
            segment.sealed = true;
            segment.length = footer.length;
            segment.last_lsn = footer_lsn;
        }
        let index = self.shared.active.write().take().map(|(_, index)| index).unwrap_or_default();
        let tie = Tie { number, last_lsn: footer_lsn, length: footer.length };
        reader::write_index(&*self.shared.storage, &index, tie);
        self.shared.indexes.lock().put(number, Arc::new(index));
        Ok(())
    }

    /// Begins a segment with the whole state as it is durable now.
    pub(super) fn begin_segment(&mut self, bytes: u64) -> std::result::Result<(), Halt> {
        let number = self.last_number + 1;
        let path = self.path();
        let logs = {
            let logs = self.shared.logs.read();
            logs.by_number
                .values()
                .map(|log| {
                    let state = log.state.read();
                    Entry {
                        log: log.number,
                        begin: state.begin,
                        next: state.end,
                        appended_last: state.appended_last,
                        id: log.id.clone(),
                    }
                })
                .collect()
        };
        let body = Beginning { number, next_log: self.next_log, logs }.encode();
        let chunk = self.shared.options.allocation_bytes.max(1);
        let allocated = (frame_bytes(body.len()) + bytes).next_multiple_of(chunk);
        self.buffer.clear();
        self.built_lsn = self.durable_lsn;
        self.put(Kind::Segment, 0, 0, 0, &body);
        let file = self
            .shared
            .storage
            .open(&name::segment(number), Mode::Create)
            .map_err(|error| halt("create", &path, error))?;
        let written = file.allocate(0, allocated).and_then(|()| file.write_at(0, &self.buffer));
        if let Err(error) = written {
            // It stays as an empty file, which is begun again, or removed when the directory is opened.
            let _ = file.set_len(0);
            return Err(halt("write to", &path, error));
        }
        if self.shared.options.durability == Durability::Group {
            file.sync_data().map_err(|error| failed("synchronise", &path, &error))?;
            self.shared
                .storage
                .sync_folder(name::SEGMENTS)
                .map_err(|error| failed("synchronise the folder of", &path, &error))?;
        }
        let end = self.buffer.len() as u64;
        self.durable_lsn = self.built_lsn;
        self.last_number = number;
        self.continues = false;
        self.shared.keep_open(number, Arc::clone(&file));
        *self.shared.active.write() = Some((number, SegmentIndex::default()));
        let state = SegmentState { length: end, live: 0, sealed: false, last_lsn: 0, damaged: false };
        self.shared.segments.write().insert(number, state);
        self.active = Some(Active { number, file, end, allocated, first_lsn: self.built_lsn, frames: 1 });
        Ok(())
    }

    /// Adds a frame of its own to the buffer.
    pub(super) fn put(&mut self, kind: Kind, log: u32, position: u64, appended_at: u64, body: &[u8]) -> u64 {
        self.put_verified(kind, log, position, appended_at, body, crc32c::crc32c(body))
    }

    /// Adds a frame whose body was checksummed before. Gives its place in the buffer.
    #[expect(clippy::too_many_arguments, reason = "the fields of a header, each of another kind")]
    pub(crate) fn put_verified(
        &mut self,
        kind: Kind,
        log: u32,
        position: u64,
        appended_at: u64,
        body: &[u8],
        body_crc: u32,
    ) -> u64 {
        self.built_lsn += 1;
        let header = Header {
            kind,
            boot: self.boot,
            lsn: self.built_lsn,
            durable_upto: self.durable_lsn,
            log,
            length: u32::try_from(body.len()).expect("bodies are bounded far below"),
            position,
            appended_at,
            body_crc,
        };
        let at = self.buffer.len() as u64;
        frame::put(&mut self.buffer, self.shared.key, &header, body);
        at
    }

    /// Adds the boot frame where this boot has not yet written into the segment.
    pub(super) fn put_boot(&mut self) {
        if self.continues {
            self.put(Kind::Boot, 0, 0, 0, &[]);
        }
    }

    /// Empties the buffer for a commit into the segment that [`Writer::prepare`] made ready.
    pub(crate) fn begin_frames(&mut self) {
        self.buffer.clear();
        self.built_lsn = self.durable_lsn;
        self.put_boot();
    }

    /// Writes the buffer behind the end and synchronises it.
    pub(crate) fn write(&mut self) -> std::result::Result<(), Halt> {
        self.write_unsynchronised()?;
        let path = self.path();
        self.synchronise(&path)?;
        self.durable_lsn = self.built_lsn;
        self.continues = false;
        let Some(active) = &mut self.active else { return Ok(()) };
        active.end += self.buffer.len() as u64;
        active.allocated = active.allocated.max(active.end);
        // What was built since the last write has consecutive lsns.
        active.frames = self.durable_lsn + 1 - active.first_lsn;
        let (number, end) = (active.number, active.end);
        if let Some(segment) = self.shared.segments.write().get_mut(&number) {
            segment.length = end;
        }
        add(&self.shared.counters.commits, 1);
        add(&self.shared.counters.bytes, self.buffer.len() as u64);
        if self.buffer.capacity() > 2 * limits::COMMIT_BYTES {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Writes the buffer behind the end. Where the disk is full, what was written of it is taken back, durably.
    pub(super) fn write_unsynchronised(&mut self) -> std::result::Result<(), Halt> {
        let path = self.path();
        let Some(active) = &mut self.active else { return Ok(()) };
        let Err(error) = active.file.write_at(active.end, &self.buffer) else { return Ok(()) };
        if !storage::is_full(&error) {
            return Err(failed("write to", &path, &error));
        }
        active.file.set_len(active.end).map_err(|error| failed("cut", &path, &error))?;
        active.allocated = active.end;
        self.synchronise(&path)?;
        Err(Halt::Full(error))
    }

    pub(super) fn synchronise(&self, path: &str) -> std::result::Result<(), Halt> {
        let Some(active) = &self.active else { return Ok(()) };
        if self.shared.options.durability == Durability::NoSync {
            return Ok(());
        }
        // Never tried again: after a failure nobody knows what the disk has (FORMAT.md, Opening, 4).
        active.file.sync_data().map_err(|error| failed("synchronise", path, &error))
    }
}

fn failed(action: &str, path: &str, error: &io::Error) -> Halt {
    Halt::Failed(format!("cannot {action} {path}: {error}"))
}

fn halt(action: &str, path: &str, error: io::Error) -> Halt {
    if storage::is_full(&error) { Halt::Full(error) } else { failed(action, path, &error) }
}
