//! A passport as the API gives it.

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Deserialize)]
pub(super) struct Passport {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) places: Vec<Place>,
    pub(super) searched: Searched,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Searched {
    pub(super) back_to: String,
    pub(super) complete: bool,
    pub(super) more: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) appended_at: Option<String>,
    #[serde(default)]
    pub(super) trimmed: bool,
    pub(super) trace: Option<Trace>,
    #[serde(default)]
    pub(super) event: Map<String, Value>,
    pub(super) duplicate: Option<Duplicate>,
    pub(super) dead_letter_of: Option<Cause>,
    pub(super) subscriptions: Vec<Fate>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Trace {
    pub(super) traceparent: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Duplicate {
    pub(super) of: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Cause {
    pub(super) subscription: String,
    pub(super) reason: String,
    pub(super) status: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fate {
    pub(super) subscription: String,
    pub(super) state: String,
    pub(super) at: Option<String>,
    pub(super) attempt: Option<u32>,
    pub(super) due: Option<String>,
    pub(super) offset: Option<u64>,
    pub(super) explanation: Option<tidegate_routing::filter::Explanation>,
    pub(super) hold: Option<Hold>,
    pub(super) changed_after: Option<String>,
    #[serde(default)]
    pub(super) attempts: Vec<Attempt>,
    #[serde(default)]
    pub(super) dead_letters: Vec<Letter>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Hold {
    pub(super) standing: String,
    pub(super) reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Attempt {
    pub(super) attempt: u32,
    pub(super) at: String,
    pub(super) took: String,
    pub(super) ending: String,
    pub(super) status: Option<u16>,
    #[serde(default)]
    pub(super) detail: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Letter {
    pub(super) id: String,
    pub(super) cause: Cause,
    #[serde(default)]
    pub(super) handled: bool,
    #[serde(default)]
    pub(super) redrives: Vec<Attempt>,
}
