//! A passport as a picture: the event, where it stands, and a branch for each subscription.

use serde_json::Value;

use super::document::{Attempt, Fate, Letter, Passport, Place};
use super::time::{moment, span};
use crate::cli::client::console::Style;
use crate::cli::client::text::{counted, excerpt, printable};

/// What is left for a text however narrow the terminal is.
const TEXT_MIN: usize = 24;
/// Attempts that are shown of one subscription: the first and the last of them where there are more.
const ATTEMPTS: usize = 12;

/// How a picture is drawn.
pub(super) struct View<'a> {
    /// Whether the terminal can show more than ASCII.
    pub(super) symbols: bool,
    /// How wide it is; nothing where lines may be as long as they are.
    pub(super) width: Option<usize>,
    /// The time now, in milliseconds since 1970.
    pub(super) now: u64,
    /// The option that names the gateway, where it must be named.
    pub(super) server: &'a str,
    /// Gives a text its colour.
    pub(super) paint: &'a dyn Fn(Style, &str) -> String,
}

/// What a state means for whoever asks why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Done,
    Failed,
    Underway,
    Aside,
}

impl View<'_> {
    fn mark(&self, mark: Mark) -> String {
        let (symbol, ascii, style) = match mark {
            Mark::Done => ("✓", "+", Style::Good),
            Mark::Failed => ("✗", "x", Style::Error),
            Mark::Underway => ("…", "~", Style::Strong),
            Mark::Aside => ("○", "-", Style::Faint),
        };
        (self.paint)(style, if self.symbols { symbol } else { ascii })
    }

    fn branch(&self, last: bool) -> (&'static str, &'static str) {
        match (self.symbols, last) {
            (true, false) => ("├─ ", "│  "),
            (true, true) => ("└─ ", "   "),
            (false, false) => ("|- ", "|  "),
            (false, true) => ("`- ", "   "),
        }
    }

    /// A text that comes from elsewhere, cut to what is left of the line.
    fn fit(&self, text: &str, used: usize) -> String {
        match self.width {
            Some(width) => excerpt(text, width.saturating_sub(used + 1).max(TEXT_MIN)),
            None => printable(text).into_owned(),
        }
    }

    fn ago(&self, text: &str) -> String {
        match moment(text) {
            Some(then) => format!("{} ago", span(self.now.saturating_sub(then))),
            None => String::new(),
        }
    }

    fn until(&self, text: &str) -> String {
        match moment(text) {
            Some(then) if then > self.now => format!("in {}", span(then - self.now)),
            _ => "now".to_owned(),
        }
    }
}

/// The lines of the picture.
pub(super) fn lines(passport: &Passport, view: &View<'_>) -> Vec<String> {
    let title = format!("{} from {}", printable(&passport.id), printable(&passport.source));
    let mut lines = vec![(view.paint)(Style::Strong, &title)];
    // A dead letter is told with the event that it was made of, unless somebody reads there.
    let told = |place: &&Place| place.dead_letter_of.is_none() || !place.subscriptions.is_empty();
    let places: Vec<&Place> = passport.places.iter().filter(told).collect();
    if let Some(about) = places.iter().find(|place| !place.event.is_empty()).map(|place| about(place)) {
        lines.push(view.fit(&about, 0));
    }
    for place in places {
        lines.push(String::new());
        draw_place(place, view, &mut lines);
    }
    lines
}

/// The attributes that tell one event from the next.
fn about(place: &Place) -> String {
    let text = |name: &str| match place.event.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
        None => None,
    };
    let named = [("type", "type"), ("subject", "subject"), ("partitionkey", "key"), ("data", "data")];
    let mut parts: Vec<String> =
        named.iter().filter_map(|(name, shown)| Some(format!("{shown} {}", text(name)?))).collect();
    // The part of a traceparent (W3C Trace Context) that a tracing system is asked for.
    if let Some(trace) = place.trace.as_ref().and_then(|trace| trace.traceparent.split('-').nth(1)) {
        parts.push(format!("trace {trace}"));
    }
    parts.join(", ")
}

fn draw_place(place: &Place, view: &View<'_>, lines: &mut Vec<String>) {
    let site = format!("{} partition {} offset {}", printable(&place.topic), place.partition, place.offset);
    let when = match (&place.appended_at, place.trimmed) {
        (_, true) => "  trimmed: the event itself is gone".to_owned(),
        (Some(at), false) => format!("  appended {}, {}", printable(at), view.ago(at)),
        (None, false) => String::new(),
    };
    lines.push(format!("{}{when}", (view.paint)(Style::Strong, &site)));
    if let Some(cause) = &place.dead_letter_of {
        lines.push(format!(
            "a dead letter of subscription {}: {}",
            printable(&cause.subscription),
            printable(&cause.reason)
        ));
    }
    if let Some(duplicate) = &place.duplicate {
        let of = duplicate.of.map(|offset| format!(" of the one at offset {offset}")).unwrap_or_default();
        lines.push(format!("a duplicate{of}, dropped: the same id and source came shortly before"));
    }
    if place.subscriptions.is_empty() {
        lines.push(format!("{}no subscription reads this topic", view.branch(true).0));
        lines.push(format!("{}try: tidegate subscriptions list{}", view.branch(true).1, view.server));
    }
    let names = place.subscriptions.iter().map(|fate| fate.subscription.chars().count()).max().unwrap_or_default();
    let words = place.subscriptions.iter().map(|fate| word(fate).1.len()).max().unwrap_or_default();
    let count = place.subscriptions.len();
    for (index, fate) in place.subscriptions.iter().enumerate() {
        let (first, rest) = view.branch(index + 1 == count);
        let (mark, state) = word(fate);
        let name = printable(&fate.subscription);
        let used = 5 + names + 2 + words + 2;
        let reason = view.fit(&reason(place, fate, view), used);
        let line = format!("{first}{} {name:<names$}  {state:<words$}  {reason}", view.mark(mark));
        lines.push(line.trim_end().to_owned());
        draw_fate(place, fate, rest, view, lines);
    }
}

/// The state in words, and what to think of it.
fn word(fate: &Fate) -> (Mark, &str) {
    match fate.state.as_str() {
        "delivered" => (Mark::Done, "delivered"),
        "dead-lettered" => (Mark::Failed, "dead-lettered"),
        "dropped" => (Mark::Failed, "dropped"),
        "trimmed" => (Mark::Failed, "trimmed"),
        "unknown" => (Mark::Failed, "unknown"),
        "filtered" => (Mark::Aside, "not wanted"),
        "duplicate" => (Mark::Aside, "duplicate"),
        "not-yet-subscribed" => (Mark::Aside, "too early"),
        "ended" => (Mark::Aside, "ended"),
        "in-flight" => (Mark::Underway, "in flight"),
        "key-waits" => (Mark::Underway, "waiting"),
        other => (Mark::Underway, other),
    }
}

fn reason(place: &Place, fate: &Fate, view: &View<'_>) -> String {
    let attempts = fate.attempts.len() + fate.dead_letters.iter().map(|letter| letter.redrives.len()).sum::<usize>();
    let attempts = counted(attempts as u64, "attempt");
    let due = || fate.due.as_deref().map(|due| view.until(due)).unwrap_or_default();
    let offset = fate.offset.unwrap_or_default();
    let text = match fate.state.as_str() {
        "delivered" => {
            let after = match (place.appended_at.as_deref().and_then(moment), fate.at.as_deref().and_then(moment)) {
                (Some(came), Some(went)) => format!("{} after it came, ", span(went.saturating_sub(came))),
                _ => String::new(),
            };
            format!("{after}{attempts}")
        }
        "dead-lettered" => match fate.dead_letters.last() {
            Some(letter) => cause(letter),
            None => format!("{attempts}; its dead letter is not there any more"),
        },
        "dropped" => "somebody dropped its dead letter".to_owned(),
        "trimmed" => "the topic let go of it before it was delivered".to_owned(),
        "unknown" => "settled, and how is not known any more".to_owned(),
        "filtered" => match &fate.explanation {
            Some(explanation) => match (explanation.failed.first(), explanation.failed.len() + explanation.omitted) {
                (Some(first), 1) => first.to_string(),
                (Some(_), more) => format!("{more} predicates do not hold:"),
                (None, _) => "its filters do not pass".to_owned(),
            },
            None => "its filters do not pass".to_owned(),
        },
        "not-yet-subscribed" => format!("the subscription begins at offset {offset}"),
        "ended" => format!("{attempts}; the subscription is gone, or reads another topic now"),
        "behind" => format!("the subscription reads offset {offset} next"),
        "queued" => "it waits for a free place".to_owned(),
        "in-flight" => format!("attempt {} is out", fate.attempt.unwrap_or(1)),
        "waiting" => format!("attempt {} goes out {}", fate.attempt.unwrap_or(1), due()),
        "key-waits" => format!("the event of the same key at offset {offset} is tried again {}", due()),
        _ => String::new(),
    };
    let Some(hold) = &fate.hold else { return text };
    let why = hold.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}{why}; {text}", hold.standing)
}

fn cause(letter: &Letter) -> String {
    let status = letter.cause.status.map(|status| format!(", the sink answered {status}")).unwrap_or_default();
    format!("{}{status}; dead letter {}", letter.cause.reason, letter.id)
}

fn draw_fate(place: &Place, fate: &Fate, rest: &str, view: &View<'_>, lines: &mut Vec<String>) {
    let indent = format!("{rest}  ");
    let predicates = fate.explanation.iter().flat_map(|explanation| &explanation.failed);
    if fate.explanation.as_ref().is_some_and(|explanation| explanation.failed.len() + explanation.omitted > 1) {
        for predicate in predicates {
            lines.push(format!("{indent}{}", view.fit(&predicate.to_string(), indent.len())));
        }
        let omitted = fate.explanation.as_ref().map_or(0, |explanation| explanation.omitted);
        if omitted > 0 {
            lines.push(format!("{indent}and {omitted} more"));
        }
    }
    let came = place.appended_at.as_deref().and_then(moment);
    draw_attempts(&fate.attempts, came, &indent, view, lines);
    let count = fate.dead_letters.len();
    for (index, letter) in fate.dead_letters.iter().enumerate() {
        // The last one is told in the line of the subscription where it is where the event is now.
        if index + 1 < count || fate.state != "dead-lettered" {
            let handled = if letter.handled && !letter.redrives.is_empty() { ", redriven" } else { "" };
            lines.push(format!("{indent}{}", view.fit(&format!("{}{handled}", cause(letter)), indent.len())));
        }
        draw_attempts(&letter.redrives, came, &indent, view, lines);
    }
    if let Some(at) = fate.changed_after.as_deref().filter(|_| matches!(fate.state.as_str(), "filtered" | "unknown")) {
        lines.push(format!(
            "{indent}the subscription was changed {}; before, it may have judged otherwise",
            view.ago(at)
        ));
    }
    if let Some(command) = next_step(fate) {
        let text = format!("try: tidegate {command}{}", view.server);
        lines.push(format!("{indent}{}", (view.paint)(Style::Faint, &text)));
    }
}

/// Which command helps.
fn next_step(fate: &Fate) -> Option<String> {
    let name = printable(&fate.subscription);
    match (fate.state.as_str(), fate.hold.as_ref().map(|hold| hold.standing.as_str())) {
        ("dead-lettered", _) => {
            Some(format!("dead-letters redrive {name} {}", printable(&fate.dead_letters.last()?.id)))
        }
        (_, Some("paused")) => Some(format!("subscriptions resume {name}")),
        (_, Some(_)) => Some(format!("subscriptions show {name}")),
        _ => None,
    }
}

fn draw_attempts(attempts: &[Attempt], came: Option<u64>, indent: &str, view: &View<'_>, lines: &mut Vec<String>) {
    let rows: Vec<[String; 5]> = attempts
        .iter()
        .map(|attempt| {
            let after = match (came, moment(&attempt.at)) {
                (Some(came), Some(ended)) => format!("+{}", span(ended.saturating_sub(came))),
                _ => printable(&attempt.at).into_owned(),
            };
            let answer = match attempt.status {
                Some(status) => status.to_string(),
                None => "no answer".to_owned(),
            };
            let ending = match attempt.ending.as_str() {
                "done" => "taken",
                "retry" => "to be tried again",
                "dead" => "given up",
                "unreachable" => "unreachable, not counted",
                "probe" => "probe, not counted",
                "paused" => "paused, not counted",
                other => other,
            };
            [format!("#{}", attempt.attempt), after, answer, printable(&attempt.took).into_owned(), ending.to_owned()]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2), width(3), width(4)];
    for (index, (row, attempt)) in rows.iter().zip(attempts).enumerate() {
        let [number, after, answer, took, ending] = row;
        if rows.len() > ATTEMPTS && index == ATTEMPTS / 2 {
            lines.push(format!("{indent}{}", counted((rows.len() - ATTEMPTS) as u64, "further attempt")));
        }
        if rows.len() > ATTEMPTS && (ATTEMPTS / 2..rows.len() - ATTEMPTS / 2).contains(&index) {
            continue;
        }
        let [w0, w1, w2, w3, w4] = widths;
        let line = format!("{indent}{number:>w0$}  {after:>w1$}  {answer:<w2$}  {took:>w3$}  {ending:<w4$}");
        let detail = if attempt.detail.is_empty() {
            String::new()
        } else {
            view.fit(attempt.detail.trim(), line.chars().count() + 2)
        };
        lines.push(format!("{line}  {detail}").trim_end().to_owned());
    }
}
