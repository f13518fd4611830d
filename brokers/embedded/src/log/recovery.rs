//! Opening a directory: what is there, whether it is whole, and what of its end was never acknowledged
//! (FORMAT.md, Opening).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use tidegate_backbone::{Error, ErrorKind, LogId, Random, Result};

use crate::error::{data_loss, from_io};
use crate::log::frame::{Bad, HEADER_BYTES, Header, Key, Kind};
use crate::log::index::{self, SegmentIndex, Summary, Tie};
use crate::log::manifest::Manifest;
use crate::log::reader;
use crate::log::runs::{Run, Runs};
use crate::log::scan::{self, End, Rest, Stop};
use crate::log::segment::{Beginning, Footer};
use crate::log::shared::{Log, LogState, Logs, SegmentState};
use crate::log::writer::Active;
use crate::name;
use crate::storage::{Lock, Mode, Storage, StorageFile};

/// What is rewritten at once.
const REWRITE_BYTES: u64 = 1024 * 1024;

/// A directory that was opened.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) lock: Box<dyn Lock>,
    pub(crate) manifest: Manifest,
    pub(crate) logs: Logs,
    pub(crate) segments: BTreeMap<u64, SegmentState>,
    /// The segment that is written on, with its index; none where the last one is sealed.
    pub(crate) active: Option<(Active, SegmentIndex)>,
    /// The index of the last segment where that is sealed.
    pub(crate) sealed_index: Option<(u64, SegmentIndex)>,
    pub(crate) last_number: u64,
    pub(crate) next_log: u32,
    pub(crate) durable_lsn: u64,
}

/// What the frames of the last segment say, one after the other.
#[derive(Debug, Default)]
struct Replay {
    beginning_lsn: u64,
    frames: u64,
    next_log: u32,
    logs: HashMap<u32, (LogId, LogState)>,
    index: SegmentIndex,
    // Frames that no later one says to be synchronised: (lsn, offset, kind).
    unproven: VecDeque<(u64, u64, Kind)>,
}

impl Replay {
    /// Whether the frame makes sense after those before it.
    fn apply(&mut self, number: u64, offset: u64, header: &Header, body: &[u8]) -> bool {
        self.frames += 1;
        while self.unproven.front().is_some_and(|(lsn, ..)| *lsn <= header.durable_upto) {
            self.unproven.pop_front();
        }
        self.unproven.push_back((header.lsn, offset, header.kind));
        match header.kind {
            Kind::Segment => self.begin(number, header, body),
            Kind::Event | Kind::Frame => match self.logs.get_mut(&header.log) {
                Some((_, state)) if state.end == header.position && state.appended_last <= header.appended_at => {
                    state.end += 1;
                    state.appended_last = header.appended_at;
                    self.index.add(header.log, header.position, offset, header.frame_bytes());
                    true
                }
                _ => false,
            },
            Kind::EventCopy | Kind::FrameCopy => match self.logs.get(&header.log) {
                Some((_, state)) if header.position < state.end => {
                    self.index.add(header.log, header.position, offset, header.frame_bytes());
                    true
                }
                _ => false,
            },
            Kind::Create => match name::decode(body) {
                Some(id) if header.log == self.next_log => {
                    self.next_log += 1;
                    self.logs.insert(header.log, (id, LogState::default()));
                    true
                }
                _ => false,
            },
            Kind::Delete => self.logs.remove(&header.log).is_some(),
            Kind::Trim => match self.logs.get_mut(&header.log) {
                Some((_, state)) if header.position <= state.end => {
                    state.begin = state.begin.max(header.position);
                    true
                }
                _ => false,
            },
            Kind::Footer => Footer::decode(body).is_some_and(|footer| {
                footer.number == number
                    && footer.first_lsn == self.beginning_lsn
                    && footer.frames == self.frames
                    && footer.length == offset + header.frame_bytes()
            }),
            Kind::Boot | Kind::Mark => true,
        }
    }

    fn begin(&mut self, number: u64, header: &Header, body: &[u8]) -> bool {
        let Some(beginning) = Beginning::decode(body) else { return false };
        self.beginning_lsn = header.lsn;
        self.next_log = beginning.next_log;
        for entry in beginning.logs {
            let state = LogState {
                begin: entry.begin,
                end: entry.next,
                appended_last: entry.appended_last,
                runs: Runs::default(),
            };
            self.logs.insert(entry.log, (entry.id, state));
        }
        beginning.number == number
    }
}

/// The last segment, read whole.
struct Last {
    number: u64,
    file: Arc<dyn StorageFile>,
    end: End,
    rest: Rest,
    replay: Replay,
}

struct Opening<'a> {
    storage: &'a dyn Storage,
    key: Key,
}

/// Opens the directory. Nothing is changed before everything was found to be in order.
pub(crate) fn open(storage: &dyn Storage, random: &dyn Random) -> Result<Recovered> {
    let directory = storage.describe();
    let io = |action: &'static str| {
        let directory = directory.clone();
        move |error| from_io(action, &directory, error)
    };
    storage.create_folder("").map_err(io("create"))?;
    let lock = storage.lock(name::LOCK).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::new(
            ErrorKind::Unavailable,
            format!("another process holds the directory {directory}; stop it, or name another directory"),
        ),
        _ => from_io("lock", &directory, error),
    })?;
    storage.create_folder(name::SEGMENTS).map_err(io("create the segments of"))?;
    let names = storage.list(name::SEGMENTS).map_err(io("list the segments of"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|file| name::number(file, ".seg")).collect();
    numbers.sort_unstable();
    let manifest = Manifest::open(storage, random, !numbers.is_empty())?;
    let opening = Opening { storage, key: manifest.key };

    let (last, unfinished) = opening.last(&mut numbers)?;
    let mut segments = BTreeMap::new();
    let mut summaries: Vec<(u64, Summary)> = Vec::new();
    for &number in numbers.iter().take(numbers.len().saturating_sub(1)) {
        let (state, table) = opening.sealed(number)?;
        segments.insert(number, state);
        summaries.extend(table.into_iter().map(|summary| (number, summary)));
    }
    let Some(mut last) = last else {
        opening.clear(unfinished, &names, &segments).map_err(io("recover"))?;
        return Ok(Recovered {
            lock,
            manifest,
            logs: Logs::default(),
            segments,
            active: None,
            sealed_index: None,
            last_number: 0,
            next_log: 1,
            durable_lsn: 0,
        });
    };
    summaries.extend(last.replay.index.summaries().map(|summary| (last.number, summary)));
    let logs = opening.logs(&mut last.replay, &summaries)?;

    // From here on the directory is known to be whole, and may be changed.
    opening.repair(&last).map_err(io("recover"))?;
    let sealed = last.end.sealed;
    let durable_lsn = last.end.next_lsn - 1;
    let state = SegmentState { length: last.end.offset, live: 0, sealed, last_lsn: durable_lsn, damaged: false };
    segments.insert(last.number, state);
    for log in logs.by_number.values() {
        for run in log.state.read().runs.iter() {
            if let Some(segment) = segments.get_mut(&run.segment) {
                segment.live += run.bytes;
            }
        }
    }
    opening.clear(unfinished, &names, &segments).map_err(io("recover"))?;
    let index = std::mem::take(&mut last.replay.index);
    let (active, sealed_index) = if sealed {
        let tie = Tie { number: last.number, last_lsn: durable_lsn, length: last.end.offset };
        reader::write_index(storage, &index, tie);
        (None, Some((last.number, index)))
    } else {
        let allocated = last.file.length().map_err(io("measure the segments of"))?;
        let active = Active {
            number: last.number,
            file: last.file,
            end: last.end.offset,
            allocated,
            first_lsn: last.replay.beginning_lsn,
            frames: last.replay.frames,
        };
        (Some((active, index)), None)
    };
    Ok(Recovered {
        lock,
        manifest,
        logs,
        segments,
        active,
        sealed_index,
        last_number: last.number,
        next_log: last.replay.next_log,
        durable_lsn,
    })
}

impl Opening<'_> {
    fn path(&self, number: u64) -> String {
        format!("{}/{}", self.storage.describe(), name::segment(number))
    }

    /// The last segment that was begun, and the number of one behind it whose creation was not finished.
    fn last(&self, numbers: &mut Vec<u64>) -> Result<(Option<Last>, Option<u64>)> {
        let Some(&number) = numbers.last() else { return Ok((None, None)) };
        let last = self.scan(number)?;
        if last.end.offset > 0 {
            return Ok((Some(last), None));
        }
        // Nothing else is written to a file before its first frame is synchronised.
        if last.rest.frames {
            return Err(data_loss(format!(
                "{} is damaged at offset 0: its first frame is not valid, but others stand behind it. Nothing was \
                 changed. Restore the directory from a backup",
                self.path(number)
            )));
        }
        numbers.pop();
        let Some(&previous) = numbers.last() else { return Ok((None, Some(number))) };
        let last = self.scan(previous)?;
        if !last.end.sealed {
            return Err(self.corrupt(&last, u64::MAX));
        }
        Ok((Some(last), Some(number)))
    }

    /// Reads a segment whole; an error where a record is damaged that was acknowledged.
    fn scan(&self, number: u64) -> Result<Last> {
        let path = self.path(number);
        let file =
            self.storage.open(&name::segment(number), Mode::Write).map_err(|error| from_io("open", &path, error))?;
        let mut replay = Replay::default();
        let end = scan::scan(&*file, self.key, true, |offset, header, body| replay.apply(number, offset, header, body))
            .map_err(|stop| match stop {
                Stop::Io(error) => from_io("read", &path, error),
                Stop::Nonsense { offset, lsn } => data_loss(format!(
                    "{path} holds at offset {offset} (lsn {lsn}) a valid frame that contradicts those before it. Nothing \
                     was changed. Restore the directory from a backup"
                )),
            })?;
        if let Some(Bad::Newer { version, kind }) = end.newer {
            return Err(reader::newer(&path, end.offset, version, kind));
        }
        let rest = scan::rest(&*file, self.key, end.offset).map_err(|error| from_io("read", &path, error))?;
        let last = Last { number, file, end, rest, replay };
        if end.offset > 0 && rest.durable_upto >= end.next_lsn {
            return Err(self.corrupt(&last, rest.durable_upto));
        }
        Ok(last)
    }

    fn corrupt(&self, last: &Last, durable_upto: u64) -> Error {
        let evidence = if durable_upto == u64::MAX {
            "a later segment was begun".to_owned()
        } else {
            format!("a frame behind it says that everything up to lsn {durable_upto} was")
        };
        data_loss(format!(
            "{} is damaged at offset {}: no valid frame with lsn {} stands there, although it had been synchronised: \
             {evidence}. This is no torn end, so nothing was cut or changed. Restore the directory from a backup",
            self.path(last.number),
            last.end.offset,
            last.end.next_lsn
        ))
    }

    /// The footer of a segment that is not the last, and the table of its index.
    fn sealed(&self, number: u64) -> Result<(SegmentState, Vec<Summary>)> {
        let path = self.path(number);
        let read = |error| from_io("read", &path, error);
        let file = self.storage.open(&name::segment(number), Mode::Read).map_err(read)?;
        let length = file.length().map_err(read)?;
        let no_footer = || {
            data_loss(format!(
                "{path} is damaged at its end, near offset {length}: a later segment exists, so it must end with a valid \
                 footer, and does not. Nothing was changed. Restore the directory from a backup"
            ))
        };
        let at = length.checked_sub(Footer::frame_bytes()).ok_or_else(no_footer)?;
        let mut frame = [0; HEADER_BYTES + Footer::BODY_BYTES];
        if file.read_at(at, &mut frame).map_err(read)? < frame.len() {
            return Err(no_footer());
        }
        let (bytes, body) = frame.split_first_chunk::<HEADER_BYTES>().ok_or_else(no_footer)?;
        let header = match Header::decode(bytes, self.key) {
            Ok(header) => header,
            Err(Bad::Damaged) => return Err(no_footer()),
            Err(Bad::Newer { version, kind }) => return Err(reader::newer(&path, at, version, kind)),
        };
        let fits = header.kind == Kind::Footer
            && crc32c::crc32c(body) == header.body_crc
            && Footer::decode(body).is_some_and(|footer| footer.number == number && footer.length == length);
        if !fits {
            return Err(no_footer());
        }
        let tie = Tie { number, last_lsn: header.lsn, length };
        let table = match self.table(tie) {
            Some(table) => table,
            None => {
                let index = reader::rebuild(&*file, self.key, &path)?;
                reader::write_index(self.storage, &index, tie);
                index.summaries().collect()
            }
        };
        Ok((SegmentState { length, live: 0, sealed: true, last_lsn: header.lsn, damaged: false }, table))
    }

    /// The table of an index file, where it is there and fits.
    fn table(&self, tie: Tie) -> Option<Vec<Summary>> {
        let file = self.storage.open(&name::index(tie.number), Mode::Read).ok()?;
        let mut bytes = vec![0; index::HEADER_BYTES];
        (file.read_at(0, &mut bytes).ok()? == bytes.len()).then_some(())?;
        let length = index::table_bytes(&bytes, tie)?;
        // The header is checked by now, but a file cut short is not worth the memory that it asks for.
        (length as u64 <= file.length().ok()?).then_some(())?;
        bytes.resize(length, 0);
        file.read_at(0, &mut bytes).ok()?;
        index::decode_table(&bytes, tie)
    }

    /// The logs, with the place of each record; an error where one is missing.
    fn logs(&self, replay: &mut Replay, summaries: &[(u64, Summary)]) -> Result<Logs> {
        let mut states = std::mem::take(&mut replay.logs);
        for (segment, summary) in summaries {
            if let Some((_, state)) = states.get_mut(&summary.log) {
                let end = summary.first + u64::from(summary.records);
                // A later copy replaces an earlier one, since segments come in their order.
                state.runs.place(Run { first: summary.first, end, segment: *segment, bytes: summary.bytes });
            }
        }
        let mut logs = Logs::default();
        for (number, (id, mut state)) in states {
            state.runs.cut(state.begin);
            if let Some(position) = state.runs.missing(state.begin, state.end) {
                return Err(data_loss(format!(
                    "position {position} of {id} stands in no segment of {}, although the log is kept from {} to {}: a \
                     segment is missing. Nothing was changed. Restore the directory from a backup",
                    self.storage.describe(),
                    state.begin,
                    state.end
                )));
            }
            logs.insert(Arc::new(Log::new(number, id, state)));
        }
        Ok(logs)
    }

    /// Cuts a torn tail off, and makes sure that what is left is on the disk.
    fn repair(&self, last: &Last) -> io::Result<()> {
        if last.rest.rubbish {
            tracing::warn!(
                segment = %self.path(last.number),
                offset = last.end.offset,
                "bytes that were never acknowledged are cut off"
            );
        }
        // A footer may have survived without the cut behind it.
        let cut = last.rest.rubbish || (last.end.sealed && last.file.length()? > last.end.offset);
        if cut {
            last.file.set_len(last.end.offset)?;
        }
        // A mark says nothing that would be missed.
        let unproven = last.replay.unproven.iter().any(|(_, _, kind)| *kind != Kind::Mark);
        if unproven && let Some((_, start, _)) = last.replay.unproven.front() {
            let mut at = *start;
            while at < last.end.offset {
                let length = (last.end.offset - at).min(REWRITE_BYTES);
                let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                let read = last.file.read_at(at, &mut bytes)?;
                if read < bytes.len() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                last.file.write_at(at, &bytes)?;
                at += length;
            }
        }
        if cut || unproven {
            last.file.sync_data()?;
        }
        // The name of a segment may have survived without having been made durable.
        self.storage.sync_folder(name::SEGMENTS)
    }

    /// Removes a segment whose creation was not finished, and indexes without a segment.
    fn clear(
        &self,
        unfinished: Option<u64>,
        names: &[String],
        segments: &BTreeMap<u64, SegmentState>,
    ) -> io::Result<()> {
        if let Some(number) = unfinished {
            self.storage.remove(&name::segment(number))?;
        }
        let stray: Vec<u64> = names
            .iter()
            .filter_map(|file| name::number(file, ".idx"))
            .filter(|number| !segments.get(number).is_some_and(|segment| segment.sealed))
            .collect();
        for number in &stray {
            self.storage.remove(&name::index(*number))?;
        }
        if unfinished.is_some() || !stray.is_empty() {
            self.storage.sync_folder(name::SEGMENTS)?;
        }
        Ok(())
    }
}
