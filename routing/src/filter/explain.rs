//! Why an event does not pass the filters of a subscription: the predicates that decided it, each with its place, its
//! text and what the event had there.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use tidegate_schemas::Event;
use tidegate_schemas::limits::{EXPLANATION_PREDICATES, EXPLANATION_TEXT_BYTES};

use super::{Filter, Pairs};
use crate::demand::Comparison;
use crate::view::EventView;
use crate::{cel, cesql};

/// Whether an event passes the filters of a subscription, and what decided it where it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What [`matches_all`](super::matches_all) says of the same filters and event.
    pub matched: bool,
    /// The predicates that kept the event from passing, in the order of the filters; none where it passed. The limit
    /// `EXPLANATION_PREDICATES` bounds their number.
    #[serde(default)]
    pub failed: Vec<FailedPredicate>,
    /// How many more there are than are listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

/// One predicate that did not have the outcome that was needed.
///
/// Texts longer than `EXPLANATION_TEXT_BYTES` are cut and end with `…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedPredicate {
    /// Where it stands in the filters, such as `filters[1].any[0].exact.type`.
    pub path: String,
    /// The predicate: the part of an expression that decided, or the comparison of an attribute, such as
    /// `type begins with "com.example."`.
    pub predicate: String,
    /// Whether it stands below a `not`, and holds where it must not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub negated: bool,
    /// What the event had in each place that the predicate names.
    #[serde(default)]
    pub found: Vec<Found>,
    /// Why the expression could not be evaluated, which is never a match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What an event had in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The name of an attribute, or `data` with the names of the members that lead to a value in it.
    pub name: String,
    /// Its value as text; nothing where the event does not have it.
    pub value: Option<String>,
}

/// Says whether an event passes all filters of a subscription and, where it does not, which predicates decided that.
///
/// Every filter that fails is told, not only the first. Of a combination only the branches are told that made it fail: of
/// `all` those that fail, of `any` all of them, and of `not` what holds within it.
pub fn explain(filters: &[Filter], event: &Event) -> Explanation {
    explain_view(filters, &EventView::new(event))
}

/// As [`explain`], with what other filters have worked out of the event.
pub fn explain_view(filters: &[Filter], view: &EventView<'_>) -> Explanation {
    let mut walk = Walk { view, path: String::from("filters"), explanation: Explanation::default() };
    walk.explanation.matched = walk.each(filters, true).iter().all(|outcome| *outcome);
    walk.explanation
}

struct Walk<'w, 'e> {
    view: &'w EventView<'e>,
    path: String,
    explanation: Explanation,
}

impl Walk<'_, '_> {
    /// The outcomes of filters of a list. All are looked at, so that every one that fails is told.
    fn each(&mut self, filters: &[Filter], needed: bool) -> Vec<bool> {
        let filters = filters.iter().enumerate();
        filters
            .map(|(index, filter)| self.below(format_args!("[{index}]"), |walk| walk.filter(filter, needed)))
            .collect()
    }

    /// Looks at what stands one step further down.
    fn below<T>(&mut self, step: fmt::Arguments<'_>, look: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        let _ = self.path.write_fmt(step);
        let outcome = look(self);
        self.path.truncate(length);
        outcome
    }

    /// Whether the event passes the filter. Where that is not what is `needed`, the predicates are told that are to blame.
    fn filter(&mut self, filter: &Filter, needed: bool) -> bool {
        let (failed, omitted) = (self.explanation.failed.len(), self.explanation.omitted);
        let outcome = self.below(format_args!(".{}", filter.dialect()), |walk| match filter {
            Filter::Exact(pairs) => walk.pairs(pairs, Comparison::Exact, needed),
            Filter::Prefix(pairs) => walk.pairs(pairs, Comparison::Prefix, needed),
            Filter::Suffix(pairs) => walk.pairs(pairs, Comparison::Suffix, needed),
            Filter::All(filters) => walk.each(filters, needed).iter().all(|outcome| *outcome),
            Filter::Any(filters) => walk.each(filters, needed).iter().any(|outcome| *outcome),
            Filter::Not(filter) => !walk.filter(filter, !needed),
            Filter::Sql(expression) => walk.sql(expression, needed),
            Filter::Cel(expression) => walk.cel(expression, needed),
        });
        if outcome == needed {
            // The branches below that were not as needed have done no harm.
            self.explanation.failed.truncate(failed);
            self.explanation.omitted = omitted;
        }
        outcome
    }

    fn pairs(&mut self, pairs: &Pairs, comparison: Comparison, needed: bool) -> bool {
        let mut all = true;
        for (name, text) in pairs.iter() {
            let value = self.view.event().attribute(name);
            let holds = value.as_deref().is_some_and(|value| comparison.holds(value, text));
            all &= holds;
            if holds != needed {
                let relation = match comparison {
                    Comparison::Exact => "=",
                    Comparison::Prefix => "begins with",
                    Comparison::Suffix => "ends with",
                };
                let predicate = format!("{name} {relation} {:?}", &**text);
                let found = vec![Found { name: name.to_string(), value: value.as_deref().map(excerpt) }];
                self.below(format_args!(".{name}"), |walk| walk.tell(&predicate, !needed, found, None));
            }
        }
        all
    }

    fn sql(&mut self, expression: &cesql::Expression, needed: bool) -> bool {
        let event = self.view.event();
        let found = |attributes: Vec<&str>| {
            let found = |name: &str| {
                let value = event.attribute(name);
                Found { name: name.to_owned(), value: value.as_deref().map(excerpt) }
            };
            attributes.into_iter().map(found).collect()
        };
        match expression.failing_part(event) {
            None => {
                if !needed {
                    self.tell(expression.text(), true, found(expression.attributes()), None);
                }
                true
            }
            Some(part) => {
                if needed {
                    let error = part.errors.first().map(|error| excerpt(&error.message));
                    self.tell(part.text, false, found(part.attributes), error);
                }
                false
            }
        }
    }

    fn cel(&mut self, expression: &cel::Expression, needed: bool) -> bool {
        let view = self.view;
        let found = |names: Vec<&str>| {
            let found = |name: &str| {
                let value = cel::text_of(view, name).map(|text| excerpt(&text));
                Found { name: name.to_owned(), value }
            };
            names.into_iter().map(found).collect()
        };
        match expression.failing_part(view) {
            None => {
                if !needed {
                    self.tell(expression.text(), true, found(expression.names()), None);
                }
                true
            }
            Some(part) => {
                if needed {
                    let error = part.error.map(|error| excerpt(&error));
                    self.tell(part.text, false, found(part.names), error);
                }
                false
            }
        }
    }

    fn tell(&mut self, predicate: &str, negated: bool, found: Vec<Found>, error: Option<String>) {
        if self.explanation.failed.len() == EXPLANATION_PREDICATES {
            self.explanation.omitted += 1;
            return;
        }
        let (path, predicate) = (self.path.clone(), excerpt(predicate));
        self.explanation.failed.push(FailedPredicate { path, predicate, negated, found, error });
    }
}

/// The beginning of a text that may be long.
pub(super) fn excerpt(text: &str) -> String {
    if text.len() <= EXPLANATION_TEXT_BYTES {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(EXPLANATION_TEXT_BYTES)])
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The predicate for people, on one line.
impl fmt::Display for FailedPredicate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, predicate, negated, found, error } = self;
        let negation = if *negated { "not " } else { "" };
        write!(formatter, "{path}: {negation}{predicate}; ")?;
        match error {
            Some(error) => write!(formatter, "it failed: {error}")?,
            None if found.is_empty() => formatter.write_str("no event can change that")?,
            None => formatter.write_str("the event has")?,
        }
        for (index, Found { name, value }) in found.iter().enumerate() {
            let separator = match (index, error) {
                (0, Some(_)) => "; the event has",
                (0, None) => "",
                _ => ",",
            };
            match value {
                Some(value) => write!(formatter, "{separator} {name} {value:?}")?,
                None => write!(formatter, "{separator} no {name}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::filter::testing::{events, filter_json};
    use crate::filter::{matches_all, parse_filters};

    fn event() -> Event {
        Event::builder("1", "/shop", "com.example.placed")
            .extension("region", tidegate_schemas::Value::String("ap".into()))
            .extension("count", tidegate_schemas::Value::Integer(3))
            .data(tidegate_schemas::Data::Json(r#"{"lines": [{"price": 3}], "limit": 10, "vip": false}"#.into()))
            .build()
            .unwrap()
    }

    fn lines(filters: Value) -> Vec<String> {
        let filters = parse_filters(&filters).unwrap();
        let explanation = explain(&filters, &event());
        assert_eq!(explanation.matched, matches_all(&filters, &event()));
        explanation.failed.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_predicates_that_decided_are_told_with_what_the_event_had() {
        let none: [&str; 0] = [];
        assert_eq!(lines(json!([])), none);
        assert_eq!(lines(json!([{"exact": {"type": "com.example.placed"}}, {"sql": "count > 2"}])), none);
        let told = lines(json!([
            {"exact": {"region": "eu", "source": "/shop", "subject": "x"}},
            {"any": [{"prefix": {"type": "org."}}, {"all": [{"suffix": {"type": "placed"}}, {"suffix": {"id": "2"}}]}]},
            {"not": {"any": [{"exact": {"count": "3"}}, {"exact": {"count": "4"}}]}},
            {"not": {"all": [{"exact": {"count": "3"}}, {"exact": {"id": "2"}}]}},
            {"sql": "count = 3 AND (region IN ('eu', 'us') AND subject = 'x')"},
            {"sql": "count > 2 AND subject = 'x'"},
            {"sql": "region = 'eu' OR LENGTH(type) < 5"},
            {"not": {"sql": "region = 'ap' AND count = 3"}},
            {"not": {"not": {"sql": "source"}}},
            {"sql": "1 = 2"},
            {"cel": "event.type.startsWith('com.') && event.data.lines[0].price * 2 > event.data.limit"},
            {"cel": "event.region == 'ap' && event.data.total > 5 && event.data.vip"},
            {"not": {"cel": "has(event.data.lines) && event.region == 'ap'"}},
            {"cel": "event.count"},
            {"cel": "event.data.limit == 5 || event.subject == 'x'"},
        ]));
        let expected = [
            "filters[0].exact.region: region = \"eu\"; the event has region \"ap\"",
            "filters[0].exact.subject: subject = \"x\"; the event has no subject",
            "filters[1].any[0].prefix.type: type begins with \"org.\"; the event has type \"com.example.placed\"",
            "filters[1].any[1].all[1].suffix.id: id ends with \"2\"; the event has id \"1\"",
            "filters[2].not.any[0].exact.count: not count = \"3\"; the event has count \"3\"",
            "filters[4].sql: region IN ('eu', 'us'); the event has region \"ap\"",
            "filters[5].sql: subject = 'x'; it failed: the event has no attribute `subject`; the event has no subject",
            "filters[6].sql: region = 'eu' OR LENGTH(type) < 5; the event has region \"ap\", type \"com.example.placed\"",
            "filters[7].not.sql: not region = 'ap' AND count = 3; the event has region \"ap\", count \"3\"",
            "filters[8].not.not.sql: source; the event has source \"/shop\"",
            "filters[9].sql: 1 = 2; no event can change that",
            "filters[10].cel: event.data.lines[0].price * 2 > event.data.limit; the event has data.lines \"[{\\\"price\\\":3}]\", data.limit \"10\"",
            "filters[11].cel: event.data.vip; the event has data.vip \"false\"",
            "filters[12].not.cel: not has(event.data.lines) && event.region == 'ap'; the event has data.lines \"[{\\\"price\\\":3}]\", region \"ap\"",
            "filters[13].cel: event.count; it failed: it gives a value of the type int, and a filter gives a bool; the event has count \"3\"",
            "filters[14].cel: event.data.limit == 5 || event.subject == 'x'; it failed: there is no `subject`; the event has data.limit \"10\", no subject",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn an_explanation_is_bounded() {
        let many =
            vec![json!({"exact": {"subject": "y".repeat(2 * EXPLANATION_TEXT_BYTES)}}); EXPLANATION_PREDICATES + 3];
        let filters = parse_filters(&Value::Array(many)).unwrap();
        let event = Event::builder("1", "/s", "t").subject("ü".repeat(EXPLANATION_TEXT_BYTES)).build().unwrap();
        let explanation = explain(&filters, &event);
        assert_eq!((explanation.failed.len(), explanation.omitted), (EXPLANATION_PREDICATES, 3));
        let FailedPredicate { predicate, found, .. } = &explanation.failed[0];
        for text in [predicate, found[0].value.as_ref().unwrap()] {
            assert!(text.ends_with('…') && text.len() <= EXPLANATION_TEXT_BYTES + 3, "{text}");
        }
    }

    #[test]
    fn the_stored_form_is_known_and_read_back() {
        let filters = parse_filters(&json!([{"not": {"exact": {"id": "1"}}}, {"sql": "subject = 'x'"}])).unwrap();
        let explanation = explain(&filters, &event());
        let stored = json!({"matched": false, "failed": [
            {"path": "filters[0].not.exact.id", "predicate": "id = \"1\"", "negated": true, "found": [{"name": "id", "value": "1"}]},
            {"path": "filters[1].sql", "predicate": "subject = 'x'", "found": [{"name": "subject", "value": null}],
             "error": "the event has no attribute `subject`"},
        ]});
        assert_eq!(serde_json::to_value(&explanation).unwrap(), stored);
        assert_eq!(serde_json::from_value::<Explanation>(stored).unwrap(), explanation);
        assert_eq!(serde_json::from_value::<Explanation>(json!({"matched": true})).unwrap(), explain(&[], &event()));
    }

    /// The part of the filters that a path leads to, as a filter of its own.
    fn part(filters: &Value, path: &str) -> Filter {
        let steps = path.strip_prefix("filters").unwrap().replace('[', ".[");
        let mut at = filters;
        let mut dialect = "";
        for step in steps.split('.').skip(1) {
            at = match step.strip_prefix('[') {
                Some(index) => &at[index.trim_end_matches(']').parse::<usize>().unwrap()],
                None => &at[step],
            };
            if matches!(step, "exact" | "prefix" | "suffix" | "sql" | "cel") {
                dialect = step;
            }
        }
        let content =
            if matches!(dialect, "sql" | "cel") { at.clone() } else { json!({steps.rsplit('.').next().unwrap(): at}) };
        parse_filters(&json!([{dialect: content}])).unwrap().remove(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn explaining_agrees_with_matching(list in prop::collection::vec(filter_json(), 0..4), event in events()) {
            let list = Value::Array(list);
            let filters = parse_filters(&list).unwrap();
            let explanation = explain(&filters, &event);
            prop_assert_eq!(explanation.matched, matches_all(&filters, &event));
            prop_assert_eq!(explanation.failed.is_empty(), explanation.matched);
            for failed in &explanation.failed {
                let alone = part(&list, &failed.path);
                prop_assert_eq!(alone.matches(&event), failed.negated, "{:?}", failed);
                for Found { name, value } in &failed.found {
                    if !name.starts_with("data") {
                        let attribute = event.attribute(name);
                        prop_assert_eq!(value.as_deref(), attribute.as_deref());
                    }
                }
            }
        }
    }
}
