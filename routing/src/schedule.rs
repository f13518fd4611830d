//! When an event may be delivered: not before its `deliverat`, and not after its `expirytime`.
//!
//! `deliverat` is an extension attribute of this product, a Timestamp; `expirytime` is the CloudEvents extension of that
//! name. Both may come as a Timestamp or as text, because not every transport keeps types.

use tidegate_schemas::{Event, Timestamp, Value, limits};

/// The extension attribute that says before when an event is not to be delivered.
pub const DELIVER_AT: &str = "deliverat";
/// The extension attribute that says after when an event is of no use.
pub const EXPIRY_TIME: &str = "expirytime";

/// Why a time of an event cannot be what it is, in the form `attribute, reason`.
pub type Fault = (&'static str, String);

/// Before when the event is not to be delivered, in milliseconds since 1970. Such an event is a lane of its own: it
/// waits for no other, and no other waits for it. A value that is no time says nothing.
pub fn deliver_at(event: &Event) -> Option<u64> {
    time(event, DELIVER_AT)?.ok()
}

/// After when the event is of no use to anybody, in milliseconds since 1970. A value that is no time says nothing.
pub fn expires_at(event: &Event) -> Option<u64> {
    time(event, EXPIRY_TIME)?.ok()
}

/// Checks the times of an event that is published at `now`, in milliseconds since 1970.
pub fn check(event: &Event, now: u64) -> Result<(), Fault> {
    if let Some(expires_at) = time(event, EXPIRY_TIME) {
        expires_at.map_err(|reason| (EXPIRY_TIME, reason))?;
    }
    let Some(deliver_at) = time(event, DELIVER_AT) else { return Ok(()) };
    let deliver_at = deliver_at.map_err(|reason| (DELIVER_AT, reason))?;
    let most = u64::try_from(limits::DELAY_MAX.as_millis()).unwrap_or(u64::MAX);
    if deliver_at > now.saturating_add(most) {
        let days = limits::DELAY_MAX.as_secs() / 86_400;
        return Err((DELIVER_AT, format!("is more than {days} days ahead; publish the event later")));
    }
    Ok(())
}

fn time(event: &Event, name: &str) -> Option<Result<u64, String>> {
    let time = match event.extension(name)? {
        Value::Timestamp(time) => time.clone(),
        other => match Timestamp::parse(other.canonical().into_owned()) {
            Ok(time) => time,
            Err(reason) => return Some(Err(reason)),
        },
    };
    // What was before 1970 was long ago.
    Some(Ok(u64::try_from(time.unix_nanoseconds().max(0) / 1_000_000).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &'static str, value: Value) -> Event {
        Event::builder("1", "/s", "t").extension(name, value).build().unwrap()
    }

    fn text(text: &'static str) -> Value {
        Value::String(text.into())
    }

    #[test]
    fn times_are_read_as_timestamps_and_as_text_and_nonsense_says_nothing() {
        let written = "2026-10-21T07:28:00.5+01:00";
        let time = Value::Timestamp(Timestamp::parse(written).unwrap());
        for value in [time, text(written)] {
            assert_eq!(deliver_at(&event(DELIVER_AT, value.clone())), Some(1_792_564_080_500));
            assert_eq!(expires_at(&event(EXPIRY_TIME, value)), Some(1_792_564_080_500));
        }
        assert_eq!(deliver_at(&event(DELIVER_AT, text("soon"))), None);
        assert_eq!(deliver_at(&event(DELIVER_AT, Value::Boolean(true))), None);
        assert_eq!(deliver_at(&event(DELIVER_AT, text("1969-01-01T00:00:00Z"))), Some(0));
        assert_eq!(deliver_at(&Event::builder("1", "/s", "t").build().unwrap()), None);
    }

    #[test]
    fn what_is_published_is_checked() {
        let now = 1_792_564_080_500;
        for (name, value, fault) in [
            (DELIVER_AT, "2026-10-21T07:28:00Z", None),
            (DELIVER_AT, "2026-11-20T06:28:00.5Z", None),
            (DELIVER_AT, "2026-11-20T06:28:00.6Z", Some("30 days ahead")),
            (DELIVER_AT, "9999-11-20T06:28:00Z", Some("30 days ahead")),
            (DELIVER_AT, "tomorrow", Some("")),
            (EXPIRY_TIME, "never", Some("")),
            (EXPIRY_TIME, "9999-11-20T06:28:00Z", None),
        ] {
            let checked = check(&event(name, text(value)), now);
            match fault {
                None => assert_eq!(checked, Ok(()), "{value}"),
                Some(part) => {
                    let (attribute, reason) = checked.unwrap_err();
                    assert_eq!(attribute, name);
                    assert!(reason.contains(part), "{value}: {reason}");
                }
            }
        }
    }
}
