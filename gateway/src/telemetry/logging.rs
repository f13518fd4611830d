//! Log lines on stderr: compact text for people, one JSON object a line for machines.
//!
//! Control characters in values are escaped in both forms, so that an event's id cannot forge a line. A line that is
//! written within a trace carries its `trace_id` and `span_id`. What is written can be changed at run time ([`Filter`]).

use std::fmt as text;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_schemas::limits::LOG_FILTER_BYTES;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use super::traces::current_trace;

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
    /// The configured filter cannot be read.
    #[error("the log filter (from the configuration or {FILTER_VARIABLE}) cannot be read: {0}")]
    Filter(#[from] FilterError),
    /// Another subscriber is set already.
    #[error("logging was begun twice in one process")]
    Twice,
}

/// A filter cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{filter:?} {fault}; give a level (error, warn, info, debug, trace) or directives such as warn,tidegate=debug")]
pub struct FilterError {
    filter: String,
    fault: String,
}

/// What is logged, which can be changed while the process runs. Clones change the same.
#[derive(Clone, Debug)]
pub struct Filter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: reload::Handle<EnvFilter, Registry>,
    configured: String,
    current: Mutex<String>,
}

impl Filter {
    /// The filter in force.
    pub fn current(&self) -> String {
        self.0.current.lock().clone()
    }

    /// The filter that the process began with.
    pub fn configured(&self) -> &str {
        &self.0.configured
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// The text is no filter; the one before stays.
    pub fn set(&self, filter: &str) -> Result<(), FilterError> {
        let parsed = parse(filter)?;
        let mut current = self.0.current.lock();
        if self.0.handle.reload(parsed).is_ok() {
            filter.trim().clone_into(&mut current);
        }
        Ok(())
    }
}

/// Reads a filter: directives joined by commas, each a level, `target=level`, or one with a span. A word alone that is no
/// level would be a target of which everything is logged and nothing else; it is a typing error more often than a wish,
/// so it is refused.
fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let filter = filter.trim();
    let refuse = |fault: String| {
        let shown: String = filter.chars().take(100).collect();
        FilterError { filter: shown, fault }
    };
    if filter.is_empty() {
        return Err(refuse("is empty".to_owned()));
    }
    if filter.len() > LOG_FILTER_BYTES {
        return Err(refuse(format!("has more than {LOG_FILTER_BYTES} bytes")));
    }
    for directive in filter.split(',').map(str::trim).filter(|_| !filter.contains('[')) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level.trim());
        if !LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known)) {
            return Err(refuse(format!("names no level at {directive:?}")));
        }
    }
    EnvFilter::try_new(filter).map_err(|error| refuse(format!("cannot be read: {error}")))
}

/// Begins logging to stderr for the whole process. `environment` is the value of [`FILTER_VARIABLE`], which goes before
/// the configured filter.
pub fn install(mut options: Options, environment: Option<String>) -> Result<Filter, Error> {
    if let Some(filter) = environment.filter(|filter| !filter.is_empty()) {
        options.filter = filter;
    }
    let (subscriber, filter) = subscriber(&options, io::stderr().is_terminal(), io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Twice)?;
    Ok(filter)
}

/// The subscriber that [`install`] sets, over any writer; `colours` says whether text may carry terminal colours.
pub fn subscriber<W>(
    options: &Options,
    colours: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, Filter), Error>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(&options.filter)?);
    let layer = match options.format {
        Format::Pretty => fmt::layer()
            .compact()
            .with_ansi(colours)
            .with_writer(writer)
            .map_event_format(|format| Traced { format: format.with_ansi(colours), json: false })
            .boxed(),
        Format::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(writer)
            .map_event_format(|format| Traced { format, json: true })
            .boxed(),
    };
    let configured = options.filter.clone();
    let current = Mutex::new(configured.clone());
    let inner = Inner { handle, configured, current };
    Ok((Registry::default().with(filter).with(layer), Filter(Arc::new(inner))))
}

/// Lines in a format, with the trace that they are written in where there is one.
struct Traced<F> {
    format: F,
    json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> text::Result {
        let Some((trace, span)) = current_trace() else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        match line.strip_suffix('}').filter(|_| self.json) {
            Some(open) => writeln!(writer, r#"{open},"trace_id":"{trace}","span_id":"{span}"}}"#),
            None => writeln!(writer, "{line} trace_id={trace} span_id={span}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::telemetry::traces::Traces;

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
        let (subscriber, _) = subscriber(&options, false, move || writer.clone()).unwrap();
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

    #[test]
    fn the_filter_changes_while_lines_are_written_and_a_faulty_one_changes_nothing() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, filter) = subscriber(&Options::default(), false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let written = || {
                lines.0.lock().clear();
                tracing::debug!("a detail");
                String::from_utf8(lines.0.lock().clone()).unwrap()
            };
            assert_eq!(written(), "");
            filter.set(" warn,tidegate=debug ").unwrap();
            assert!(written().contains("a detail"));
            for faulty in ["", "inof", "warn,tidegate", "tidegate=loud", "warn,,info", &"info,".repeat(1_000)] {
                let error = filter.set(faulty).unwrap_err().to_string();
                assert!(error.contains("give a level"), "{faulty}: {error}");
            }
            assert!(written().contains("a detail"));
            assert_eq!((filter.current().as_str(), filter.configured()), ("warn,tidegate=debug", "info"));
            filter.set(filter.configured()).unwrap();
            assert_eq!(written(), "");
        });
    }

    #[test]
    fn a_line_within_a_trace_names_it() {
        let mut headers = http::HeaderMap::new();
        headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
        for format in [Format::Pretty, Format::Json] {
            let within = Traces::within_request(&headers, || async { written(format, "info") });
            let text = within.now_or_never().unwrap();
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(text.contains("0af7651916cd43dd8448eb211c80319c") && text.contains("span_id"), "{text:?}");
            if format == Format::Json {
                let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
                assert_eq!(line["span_id"], "b7ad6b7169203331");
                assert_eq!(line["message"], "took an event");
            }
        }
    }
}
