//! What a run came to, for people and as a document.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::Measured;
use crate::cli::arguments::Bench;
use crate::cli::client::Context;
use crate::cli::client::failure::Failure;

const PERCENTILES: [(&str, f64); 5] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];

pub(super) fn print(
    context: &mut Context<'_>,
    arguments: &Bench,
    measured: &Measured,
    took: Duration,
    followed: bool,
) -> Result<(), Failure> {
    let per_second = measured.published as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE);
    let unseen = measured.unseen.len();
    if context.wants_json() {
        let document = json!({
            "topic": arguments.topic,
            "loop": if arguments.rate.is_some() { "open" } else { "closed" },
            "rate": arguments.rate,
            "concurrency": arguments.concurrency,
            "sizeBytes": arguments.size,
            "seconds": took.as_secs_f64(),
            "published": measured.published,
            "failed": measured.failed,
            "eventsPerSecond": per_second,
            "publishMicroseconds": percentiles(&measured.publish),
            "endToEndMicroseconds": if followed { percentiles(&measured.end_to_end) } else { Value::Null },
            "unseen": if followed { json!(unseen) } else { Value::Null },
            "latestSendMicroseconds": arguments.rate.map(|_| measured.late.as_micros() as u64),
        });
        return context.console.line(&document.to_string());
    }
    let (published, failed) = (measured.published, measured.failed);
    context.console.line(&format!(
        "published   {published} events of {} bytes in {:.2} s: {per_second:.0}/s, {failed} failed",
        arguments.size,
        took.as_secs_f64()
    ))?;
    context.console.line(&format!("publish     {}", line(&measured.publish)))?;
    if followed {
        let missing = if unseen == 0 { String::new() } else { format!("  ({unseen} not seen)") };
        context.console.line(&format!("end to end  {}{missing}", line(&measured.end_to_end)))?;
    }
    match arguments.rate {
        Some(rate) => {
            let late = time(u64::try_from(measured.late.as_micros()).unwrap_or(u64::MAX));
            context.console.hint(&format!(
                "open loop at {rate}/s: latencies count from when an event was due; the latest was sent {late} after that"
            ));
        }
        None => context.console.hint(&format!(
            "closed loop: {} publishers wait for their answers, so a stall delays what would have been sent and is \
             counted once; use --rate for latencies under a fixed load",
            arguments.concurrency
        )),
    }
    Ok(())
}

fn line(histogram: &Histogram<u64>) -> String {
    let values =
        PERCENTILES.map(|(name, percentile)| format!("{name} {}", time(histogram.value_at_percentile(percentile))));
    values.join("  ")
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    let values =
        PERCENTILES.map(|(name, percentile)| (name.to_owned(), json!(histogram.value_at_percentile(percentile))));
    let mut document: serde_json::Map<String, Value> = values.into_iter().collect();
    document.insert("mean".to_owned(), json!(histogram.mean()));
    document.insert("count".to_owned(), json!(histogram.len()));
    Value::Object(document)
}

/// Microseconds in the unit that people read.
fn time(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} us"),
        1_000..1_000_000 => format!("{:.2} ms", microseconds as f64 / 1e3),
        _ => format!("{:.2} s", microseconds as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_written_in_their_unit() {
        assert_eq!([7, 1_234, 2_500_000].map(super::time), ["7 us", "1.23 ms", "2.50 s"]);
    }
}
