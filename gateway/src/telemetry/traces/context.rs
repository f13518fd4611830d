//! W3C Trace Context as text: in the headers of requests and in the attributes of events.

use std::str::FromStr as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tidegate_schemas::Event;

/// The header and the attribute that name the trace and the span.
pub(super) const TRACEPARENT: &str = "traceparent";
/// The header and the attribute with what vendors add to it.
pub(super) const TRACESTATE: &str = "tracestate";

/// The context that the headers of a request name, where they name a valid one.
pub(super) fn of_headers(headers: &HeaderMap) -> Option<SpanContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = parents.next()?.to_str().ok()?;
    // Two of them say nothing that could be relied on.
    if parents.next().is_some() {
        return None;
    }
    let states: Vec<&str> = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    parse(parent, &states.join(","))
}

/// The context that an event carries, where it carries a valid one.
pub(super) fn of_event(event: &Event) -> Option<SpanContext> {
    let parent = event.attribute(TRACEPARENT)?;
    parse(&parent, &event.attribute(TRACESTATE).unwrap_or_default())
}

/// Reads a `traceparent`: of version 00 exactly, of later versions the part that version 00 defines. A `tracestate` that
/// cannot be read is left out, as the specification demands.
pub(super) fn parse(parent: &str, state: &str) -> Option<SpanContext> {
    let parent = parent.trim();
    let (known, rest) = parent.split_at_checked(55)?;
    let mut parts = known.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2 || trace.len() != 32 || span.len() != 16 || flags.len() != 2 {
        return None;
    }
    if known.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')) {
        return None;
    }
    let longer = !rest.is_empty();
    if version == "ff" || (version == "00" && longer) || (longer && !rest.starts_with('-')) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = TraceState::from_str(state).unwrap_or_default();
    let context = SpanContext::new(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags, true, state);
    context.is_valid().then_some(context)
}

/// Writes a `traceparent`.
pub(super) fn format(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

pub(super) fn into_headers(context: &SpanContext, headers: &mut HeaderMap) {
    let Ok(parent) = HeaderValue::from_str(&format(context)) else { return };
    headers.insert(HeaderName::from_static(TRACEPARENT), parent);
    let state = context.trace_state().header();
    match HeaderValue::from_str(&state) {
        Ok(state) if !state.is_empty() => headers.insert(HeaderName::from_static(TRACESTATE), state),
        _ => headers.remove(TRACESTATE),
    };
}

/// The ids of the trace and of the span within which this is called, for log lines.
pub fn current_trace() -> Option<(String, String)> {
    Context::map_current(|context| {
        if !context.has_active_span() {
            return None;
        }
        let span = context.span();
        let context = span.span_context();
        context.is_valid().then(|| (context.trace_id().to_string(), context.span_id().to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_as_the_specification_says() {
        let read = |text: &str| parse(text, "").map(|context| format(&context));
        for (text, expected) in [
            (GOOD, Some(GOOD)),
            (" 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ", Some(GOOD)),
            // Flags that nobody defined are not passed on.
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff", Some(GOOD)),
            // A later version may say more behind what this one knows.
            ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what", Some(GOOD)),
            ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what", None),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what", None),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", None),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", None),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", None),
            ("00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01", None),
            ("", None),
            ("ä", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn vendors_state_is_passed_on_and_a_broken_one_left_out() {
        let context = parse(GOOD, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE").unwrap();
        let mut headers = HeaderMap::new();
        into_headers(&context, &mut headers);
        assert_eq!(
            (&headers["traceparent"], &headers["tracestate"]),
            (&GOOD.parse().unwrap(), &"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE".parse().unwrap())
        );
        into_headers(&parse(GOOD, "no state at all").unwrap(), &mut headers);
        assert!(!headers.contains_key("tracestate"), "{headers:?}");
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", GOOD.parse().unwrap());
        assert!(of_headers(&headers).is_some());
        headers.append("traceparent", GOOD.parse().unwrap());
        assert!(of_headers(&headers).is_none());
    }
}
