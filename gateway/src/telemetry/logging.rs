//! Log lines on stderr: compact text for people, one JSON object a line for machines.
//!
//! Control characters in values are escaped in both forms, so that an event's id cannot forge a line.

use std::io::{self, IsTerminal as _};

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

/// The environment variable that overrides the configured filter.
pub const FILTER_VARIABLE: &str = "TIDEGATE_LOG";

/// The filter where nothing is configured.
pub const FILTER_DEFAULT: &str = "info";

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Compact text, in colours where stderr is a terminal.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// How a line is written.
    pub format: Format,
    /// A level (`info`), or directives by module (`warn,tidegate::sink=debug`).
    pub filter: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { format: Format::default(), filter: FILTER_DEFAULT.to_owned() }
    }
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be read.
    #[error(
        "the log filter {filter:?} (from the configuration or {FILTER_VARIABLE}) cannot be read: {source}; \
         give a level (error, warn, info, debug, trace) or directives such as warn,tidegate=debug"
    )]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Another subscriber is set already.
    #[error("logging was begun twice in one process")]
    Twice,
}

/// Begins logging to stderr for the whole process. `environment` is the value of [`FILTER_VARIABLE`], which goes before
/// the configured filter.
pub fn install(mut options: Options, environment: Option<String>) -> Result<(), Error> {
    if let Some(filter) = environment.filter(|filter| !filter.is_empty()) {
        options.filter = filter;
    }
    let subscriber = subscriber(&options, io::stderr().is_terminal(), io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Twice)
}

/// The subscriber that [`install`] sets, over any writer; `colours` says whether text may carry terminal colours.
pub fn subscriber<W>(options: &Options, colours: bool, writer: W) -> Result<impl Subscriber + Send + Sync, Error>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&options.filter)
        .map_err(|source| Error::Filter { filter: options.filter.clone(), source })?;
    let layer = match options.format {
        Format::Pretty => fmt::layer().compact().with_ansi(colours).with_writer(writer).boxed(),
        Format::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(writer)
            .boxed(),
    };
    Ok(Registry::default().with(layer).with(filter))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, filter: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let options = Options { format, filter: filter.to_owned() };
        let subscriber = subscriber(&options, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(id = "a\n\u{1b}[31mforged", "took an event");
            tracing::debug!("a detail");
        });
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_value_cannot_forge_a_line_in_either_form() {
        for format in [Format::Pretty, Format::Json] {
            let text = written(format, "info");
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(text.contains("took an event") && !text.contains('\u{1b}'), "{text:?}");
        }
    }

    #[test]
    fn json_lines_are_objects_with_the_fields_on_top() {
        let line: serde_json::Value = serde_json::from_str(written(Format::Json, "info").trim()).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "took an event");
        assert_eq!(line["id"], "a\n\u{1b}[31mforged");
    }

    #[test]
    fn the_filter_decides_and_a_faulty_one_is_named() {
        assert_eq!(written(Format::Pretty, "debug").lines().count(), 2);
        assert_eq!(written(Format::Pretty, "warn"), "");
        let faulty = Options { filter: "tidegate=loud".to_owned(), ..Options::default() };
        let error = subscriber(&faulty, false, io::sink).err().unwrap().to_string();
        assert!(error.contains("tidegate=loud") && error.contains("TIDEGATE_LOG"), "{error}");
    }
}
