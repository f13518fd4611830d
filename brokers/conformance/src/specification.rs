//! The cases that the specification names, and why some of them are not here.

/// Groups of the specification with the number of their last case: `PUB-01` to `PUB-20`, and so on.
pub const SPECIFIED: [(&str, u32); 6] = [("PUB", 20), ("TAIL", 11), ("GRP", 31), ("REQ", 17), ("JRN", 34), ("CLM", 12)];

/// Specified cases that no case implements, with the reason.
pub const LEFT_OUT: &[(&str, &str)] = &[
    (
        "GRP-06",
        "there is no acknowledgement timeout to extend: a delivery is out until its holder settles it or drops it",
    ),
    ("GRP-28", "events do not expire yet"),
    (
        "GRP-31",
        "a consumer has no state that could be wedged apart from the broker's; a reader that fails is opened anew",
    ),
    ("JRN-06", "needs several slots"),
    ("JRN-15", "the journal has no outbox yet"),
    ("JRN-26", "the journal trims by whole generations, and JRN-27 shows that they go only behind a snapshot"),
];

/// The id of every specified case.
pub fn ids() -> Vec<String> {
    SPECIFIED.iter().flat_map(|(group, last)| (1..=*last).map(move |number| format!("{group}-{number:02}"))).collect()
}
