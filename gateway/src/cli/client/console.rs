//! Where results and everything else go: standard output and standard error, or the buffers of a test.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Style as Ansi};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::io::AsyncRead;
use tokio::time::Instant;

use super::failure::Failure;
use crate::cli::arguments::Server;

/// How long a command works before it shows its progress.
const PROGRESS_DELAY: Duration = Duration::from_secs(1);

/// What a piece of text is, which decides its colour.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    /// An error's first word.
    Error,
    /// What can be done without.
    Faint,
    /// What the eye looks for.
    Strong,
    /// What went well.
    Good,
}

/// The three streams of a command and what is known of them.
pub(super) struct Console {
    pub(super) out: Box<dyn Write + Send>,
    pub(super) err: Box<dyn Write + Send>,
    /// Taken by the command that reads it.
    pub(super) input: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Whether standard output may carry colours.
    pub(super) out_colours: bool,
    /// Whether standard output shows more than ASCII.
    pub(super) out_symbols: bool,
    /// How many characters a line of standard output has, where it is a terminal.
    pub(super) out_width: Option<usize>,
    /// Whether standard error may carry colours.
    pub(super) err_colours: bool,
    /// Whether somebody looks at standard error: hints and progress are for them.
    pub(super) attended: bool,
    pub(super) progress: Option<Progress>,
}

/// How far a command has come, shown only when it takes long.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    total_bytes: Option<u64>,
    /// Whether things are counted, and not bytes.
    counts: bool,
}

impl fmt::Debug for Console {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Console").field("attended", &self.attended).finish_non_exhaustive()
    }
}

impl Console {
    /// The streams of the process. No colours where `NO_COLOR` is set or the terminal is dumb (no-color.org).
    pub(super) fn system() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colours = !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
        let attended = io::stderr().is_terminal();
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            input: standard_input(),
            out_colours: colours && io::stdout().is_terminal(),
            out_symbols: io::stdout().is_terminal() && speaks_unicode(),
            out_width: rustix::termios::tcgetwinsize(io::stdout())
                .ok()
                .map(|size| size.ws_col.into())
                .filter(|width| *width > 0),
            err_colours: colours && attended,
            attended,
            progress: None,
        }
    }

    /// Prints a line of the result.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        let out = &mut self.out;
        let mut print = || writeln!(out, "{line}").and_then(|()| out.flush());
        match &self.progress {
            Some(progress) => progress.bar.suspend(print),
            None => print(),
        }
        .map_err(Failure::Output)
    }

    /// Prints lines of the result, the first of them a header.
    pub(super) fn table(&mut self, lines: &[String]) -> Result<(), Failure> {
        for (index, line) in lines.iter().enumerate() {
            if index == 0 {
                let header = self.styled(Style::Faint, line);
                self.line(&header)?;
            } else {
                self.line(line)?;
            }
        }
        Ok(())
    }

    /// Text for [`Console::line`] in a colour, where there are colours.
    pub(super) fn styled(&self, style: Style, text: &str) -> String {
        paint(self.out_colours, style, text)
    }

    /// Tells something that is not part of the result. Nothing can be done where even that fails.
    pub(super) fn note(&mut self, text: &str) {
        let err = &mut self.err;
        let mut print = || writeln!(err, "{text}");
        let _ = match &self.progress {
            Some(progress) => progress.bar.suspend(print),
            None => print(),
        };
    }

    /// As [`Console::note`], for people only.
    pub(super) fn hint(&mut self, text: &str) {
        if self.attended {
            let text = paint(self.err_colours, Style::Faint, text);
            self.note(&text);
        }
    }

    /// Tells why the command failed and what to do about it.
    pub(super) fn error(&mut self, failure: &Failure, server: &Server) {
        let prefix = paint(self.err_colours, Style::Error, "error:");
        for (index, line) in failure.lines(server).iter().enumerate() {
            if index == 0 {
                self.note(&format!("{prefix} {line}"));
            } else {
                self.note(&format!("  {line}"));
            }
        }
    }

    /// Begins to measure progress, against a total where it is known.
    pub(super) fn begin_progress(&mut self, total_bytes: Option<u64>) {
        if self.attended {
            let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::hidden());
            self.progress = Some(Progress { bar, begun: Instant::now(), total_bytes, counts: false });
        }
    }

    /// Begins to count towards a total.
    pub(super) fn begin_count(&mut self, total: u64) {
        self.begin_progress(Some(total));
        if let Some(progress) = &mut self.progress {
            progress.counts = true;
        }
    }

    /// Tells how many of the total are done.
    pub(super) fn count(&mut self, done: u64, what: &str) {
        self.show(done, super::text::counted(done, what));
    }

    /// Moves the progress on; it is shown once the work has taken a while.
    pub(super) fn advance(&mut self, bytes: u64, events: u64) {
        self.show(bytes, super::text::counted(events, "event"));
    }

    fn show(&mut self, position: u64, message: String) {
        let Some(progress) = &self.progress else { return };
        if progress.bar.is_hidden() && progress.begun.elapsed() >= PROGRESS_DELAY {
            progress.bar.set_draw_target(ProgressDrawTarget::stderr());
            let template = if progress.counts {
                "{wide_bar} {pos}/{len}  {msg}  {eta}"
            } else if progress.total_bytes.is_some() {
                "{wide_bar} {bytes}/{total_bytes}  {msg}  {eta}"
            } else {
                "{spinner} {bytes}  {msg}  {elapsed}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                progress.bar.set_style(style);
            }
        }
        progress.bar.set_position(position);
        progress.bar.set_message(message);
    }

    /// Takes the progress off the screen.
    pub(super) fn end_progress(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.bar.finish_and_clear();
        }
    }
}

/// Whether the locale says that the terminal shows UTF-8: the first of these variables that is set decides (POSIX).
fn speaks_unicode() -> bool {
    let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let decides = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(set);
    let locale = decides.and_then(|name| std::env::var(name).ok()).unwrap_or_default().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Standard input as a file, which the runtime can read; `None` where the process was started without.
fn standard_input() -> Option<Box<dyn AsyncRead + Send + Unpin>> {
    let descriptor = io::stdin().as_fd().try_clone_to_owned().ok()?;
    Some(Box::new(tokio::fs::File::from_std(File::from(descriptor))))
}

fn paint(colours: bool, style: Style, text: &str) -> String {
    if !colours {
        return text.to_owned();
    }
    let ansi = match style {
        Style::Error => Ansi::new().bold().fg_color(Some(AnsiColor::Red.into())),
        Style::Faint => Ansi::new().dimmed(),
        Style::Strong => Ansi::new().bold(),
        Style::Good => Ansi::new().fg_color(Some(AnsiColor::Green.into())),
    };
    format!("{ansi}{text}{ansi:#}")
}
