use std::collections::BTreeMap;
use std::fmt;

use bytestring::ByteString;
use serde_json::{Map, Value};
use tidegate_schemas::limits::{FILTER_DEPTH, FILTER_EXPRESSIONS};

use super::{Filter, Pairs};
use crate::{cel, cesql};

const AVAILABLE: &str = "exact, prefix, suffix, all, any, not, sql, cel";

/// One step from the list of filters down to a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathSegment {
    /// An entry of a list, zero-based.
    Index(usize),
    /// The value of a key.
    Key(String),
    /// A key itself, where the key and not its value is at fault. Only ever the last step.
    KeyItself(String),
}

/// One thing that is wrong with a list of filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterFault {
    /// Where, from the list of filters downwards; empty where the list itself is meant.
    pub path: Vec<PathSegment>,
    /// What is wrong and how to mend it, in one sentence without a full stop.
    pub reason: String,
}

impl fmt::Display for FilterFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("filters")?;
        for segment in &self.path {
            match segment {
                PathSegment::Index(index) => write!(formatter, "[{index}]")?,
                PathSegment::Key(key) | PathSegment::KeyItself(key) => write!(formatter, ".{key}")?,
            }
        }
        write!(formatter, ": {}", self.reason)
    }
}

/// Reads the `filters` of a subscription: a list of objects with one dialect each. Every fault is reported, not only
/// the first.
pub fn parse_filters(list: &Value) -> Result<Vec<Filter>, Vec<FilterFault>> {
    let mut parser = Parser { path: Vec::new(), expressions: 0, faults: Vec::new() };
    let filters = match list {
        Value::Array(entries) => parser.entries(entries, 1),
        _ => {
            parser.fault("must be a list of filters, such as `[{exact: {type: com.example.placed}}]`");
            Vec::new()
        }
    };
    if parser.expressions > FILTER_EXPRESSIONS {
        let reason = format!(
            "has {} expressions and may have {FILTER_EXPRESSIONS}; use several subscriptions",
            parser.expressions
        );
        parser.path.clear();
        parser.fault(reason);
    }
    if parser.faults.is_empty() { Ok(filters) } else { Err(parser.faults) }
}

struct Parser {
    path: Vec<PathSegment>,
    expressions: usize,
    faults: Vec<FilterFault>,
}

impl Parser {
    fn fault(&mut self, reason: impl Into<String>) {
        self.faults.push(FilterFault { path: self.path.clone(), reason: reason.into() });
    }

    fn fault_of_key(&mut self, key: &str, reason: impl Into<String>) {
        self.path.push(PathSegment::KeyItself(key.to_owned()));
        self.fault(reason);
        self.path.pop();
    }

    /// Reads below one more step.
    fn below<T>(&mut self, segment: PathSegment, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment);
        let value = read(self);
        self.path.pop();
        value
    }

    fn entries(&mut self, entries: &[Value], depth: usize) -> Vec<Filter> {
        let mut filters = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            filters.extend(self.below(PathSegment::Index(index), |parser| parser.filter(entry, depth)));
        }
        filters
    }

    fn filter(&mut self, value: &Value, depth: usize) -> Option<Filter> {
        self.expressions += 1;
        if depth > FILTER_DEPTH {
            self.fault(format!("is nested deeper than {FILTER_DEPTH} levels; write it flatter"));
            return None;
        }
        let Value::Object(object) = value else {
            self.fault(format!("must be a filter, which is an object with one of the dialects {AVAILABLE}"));
            return None;
        };
        if object.len() > 1 {
            let names: Vec<_> = object.keys().map(|key| format!("`{key}`")).collect();
            self.fault(format!(
                "holds {} dialects ({}); write each as an entry of its own, or join them with `all` or `any`",
                object.len(),
                names.join(", ")
            ));
        }
        let mut filter = None;
        for (dialect, content) in object {
            filter = self.dialect(dialect, content, depth);
        }
        if object.is_empty() {
            self.fault(format!("is an empty filter; give it one of the dialects {AVAILABLE}, or remove it"));
        }
        filter
    }

    fn dialect(&mut self, dialect: &str, content: &Value, depth: usize) -> Option<Filter> {
        match dialect {
            "exact" => self.pairs(dialect, content).map(Filter::Exact),
            "prefix" => self.pairs(dialect, content).map(Filter::Prefix),
            "suffix" => self.pairs(dialect, content).map(Filter::Suffix),
            "all" => self.list(dialect, content, depth).map(Filter::All),
            "any" => self.list(dialect, content, depth).map(Filter::Any),
            "not" => self
                .below(PathSegment::Key(dialect.to_owned()), |parser| parser.filter(content, depth + 1))
                .map(|filter| Filter::Not(Box::new(filter))),
            "sql" | "cesql" => self.expression(dialect, content).map(Filter::Sql),
            "cel" => self.cel(dialect, content).map(Filter::Cel),
            _ => {
                self.fault_of_key(dialect, format!("there is no filter dialect `{dialect}`; use {AVAILABLE}"));
                None
            }
        }
    }

    fn list(&mut self, dialect: &str, content: &Value, depth: usize) -> Option<Vec<Filter>> {
        self.below(PathSegment::Key(dialect.to_owned()), |parser| match content {
            Value::Array(entries) if !entries.is_empty() => {
                let filters = parser.entries(entries, depth + 1);
                (filters.len() == entries.len()).then_some(filters)
            }
            _ => {
                parser.fault(format!("`{dialect}` takes a list with at least one filter"));
                None
            }
        })
    }

    fn expression(&mut self, dialect: &str, content: &Value) -> Option<cesql::Expression> {
        self.below(PathSegment::Key(dialect.to_owned()), |parser| {
            let Value::String(text) = content else {
                parser.fault(format!(
                    "`{dialect}` takes an expression as a text; put it in quotes, such as `\"type = 'com.example.placed'\"`"
                ));
                return None;
            };
            match cesql::Expression::parse(text) {
                Ok(expression) if expression.objections().is_empty() => return Some(expression),
                Ok(expression) => {
                    for objection in expression.objections() {
                        parser.fault(format!("in the expression, {objection}"));
                    }
                }
                Err(error) => parser.fault(format!("in the expression, {error}")),
            }
            None
        })
    }

    fn cel(&mut self, dialect: &str, content: &Value) -> Option<cel::Expression> {
        self.below(PathSegment::Key(dialect.to_owned()), |parser| {
            let Value::String(text) = content else {
                parser.fault(format!(
                    "`{dialect}` takes an expression as a text; put it in quotes, such as `\"event.data.amount > 100\"`"
                ));
                return None;
            };
            cel::Expression::parse(text).map_err(|error| parser.fault(format!("in the expression, {error}"))).ok()
        })
    }

    fn pairs(&mut self, dialect: &str, content: &Value) -> Option<Pairs> {
        self.below(PathSegment::Key(dialect.to_owned()), |parser| match content {
            Value::Object(object) if !object.is_empty() => parser.checked_pairs(object),
            _ => {
                parser.fault(format!(
                    "`{dialect}` takes attribute names with the text to compare to, such as `{{type: com.example.placed}}`"
                ));
                None
            }
        })
    }

    fn checked_pairs(&mut self, object: &Map<String, Value>) -> Option<Pairs> {
        let mut pairs = BTreeMap::new();
        // The object itself is one expression already, which stands for its first pair.
        self.expressions += object.len() - 1;
        for (name, text) in object {
            if let Some(reason) = fault_of_name(name) {
                self.fault_of_key(name, reason);
            }
            match text {
                Value::String(text) if !text.is_empty() => {
                    pairs.insert(ByteString::from(name.as_str()), ByteString::from(text.as_str()));
                }
                Value::String(_) => self.below(PathSegment::Key(name.clone()), |parser| {
                    parser.fault("is compared to an empty text, which the Subscriptions API forbids; give a text");
                }),
                _ => self.below(PathSegment::Key(name.clone()), |parser| {
                    parser.fault("must be a text; put the value in quotes, attributes are compared as text");
                }),
            }
        }
        (pairs.len() == object.len()).then(|| Pairs(pairs.into_iter().collect()))
    }
}

fn fault_of_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("an attribute without a name; name it, for example `type`".to_owned());
    }
    if name == "data" || name.starts_with("data.") || name == "data_base64" {
        return Some(format!(
            "`{name}` is not an attribute, and this dialect sees attributes only; filter on `type` or `subject`"
        ));
    }
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Some(format!("no event has an attribute `{name}`: their names are lower-case letters and digits"));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_faults_are_told_at_once_with_their_places() {
        let list = json!([
            {"exact": {"type": "", "Region": "eu"}},
            {"sql": "a = 'b' AND"},
            {"prefx": {"type": "x"}},
            {"all": []},
            {"any": [{"not": {"suffix": {"id": 5}}}]},
            {"exact": {"type": "a"}, "prefix": {"type": "b"}},
            {},
            "exact",
            {"prefix": {"data": "x", "": "y"}},
            {"exact": []},
            {"cel": "event.type == 'a' and true"},
            {"cesql": "type = 'a' AND EXISTS b OR NOT id = 'c'\n AND LENGHT(id) > data"},
            {"sql": true},
            {"cel": 5},
            {"cel": "true &&\n evnt.type == 'x'"},
        ]);
        let faults: Vec<_> = parse_filters(&list).unwrap_err().iter().map(ToString::to_string).collect();
        let expected = [
            "filters[0].exact.Region: no event has an attribute `Region`: their names are lower-case letters and digits",
            "filters[0].exact.type: is compared to an empty text, which the Subscriptions API forbids; give a text",
            "filters[1].sql: in the expression, line 1, column 12: expected a value and found the end; a value is an attribute, a number, a text in quotes, `TRUE`, `FALSE` or a function",
            "filters[2].prefx: there is no filter dialect `prefx`; use exact, prefix, suffix, all, any, not, sql, cel",
            "filters[3].all: `all` takes a list with at least one filter",
            "filters[4].any[0].not.suffix.id: must be a text; put the value in quotes, attributes are compared as text",
            "filters[5]: holds 2 dialects (`exact`, `prefix`); write each as an entry of its own, or join them with `all` or `any`",
            "filters[6]: is an empty filter; give it one of the dialects exact, prefix, suffix, all, any, not, sql, cel, or remove it",
            "filters[7]: must be a filter, which is an object with one of the dialects exact, prefix, suffix, all, any, not, sql, cel",
            "filters[8].prefix.: an attribute without a name; name it, for example `type`",
            "filters[8].prefix.data: `data` is not an attribute, and this dialect sees attributes only; filter on `type` or `subject`",
            "filters[9].exact: `exact` takes attribute names with the text to compare to, such as `{type: com.example.placed}`",
            "filters[10].cel: in the expression, line 1, column 19: mismatched input 'and'; write `&&`",
            "filters[11].cesql: in the expression, line 1, column 25: `AND` and `OR` bind alike, and not everybody reads them in the same order; write `(a AND b) OR c` or `a AND (b OR c)`",
            "filters[11].cesql: in the expression, line 1, column 28: `NOT` binds tighter than the operator behind it, so only what stands between them is negated; put what is meant into parentheses, as in `NOT (type = 'x')`, or write `!=`, `NOT LIKE` or `NOT IN`",
            "filters[11].cesql: in the expression, line 2, column 2: `OR` and `AND` bind alike, and not everybody reads them in the same order; write `(a OR b) AND c` or `a OR (b AND c)`",
            "filters[11].cesql: in the expression, line 2, column 6: there is no function LENGHT; use one of ABS, BOOL, CONCAT, CONCAT_WS, INT, LEFT, LENGTH, LOWER, RIGHT, STRING, SUBSTRING, TRIM, UPPER",
            "filters[11].cesql: in the expression, line 2, column 19: `data` is not an attribute, and this dialect sees attributes only; ask for `type` or `subject`",
            "filters[12].sql: `sql` takes an expression as a text; put it in quotes, such as `\"type = 'com.example.placed'\"`",
            "filters[13].cel: `cel` takes an expression as a text; put it in quotes, such as `\"event.data.amount > 100\"`",
            "filters[14].cel: in the expression, line 2, column 2: there is no variable of this name; attributes are asked for as `event.type`, data as `event.data.amount`; put text into quotes",
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn nesting_and_size_are_bounded() {
        let nested = |levels: usize| {
            let mut filter = json!({"exact": {"type": "a"}});
            for _ in 1..levels {
                filter = json!({"not": filter});
            }
            parse_filters(&json!([filter]))
        };
        assert!(nested(FILTER_DEPTH).is_ok());
        assert!(nested(FILTER_DEPTH + 1).is_err());
        let wide = |count: usize| parse_filters(&Value::Array(vec![json!({"exact": {"type": "a"}}); count]));
        assert!(wide(FILTER_EXPRESSIONS).is_ok());
        assert_eq!(wide(FILTER_EXPRESSIONS + 1).unwrap_err().len(), 1);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let list = json!([{"all": [{"exact": {"id": "1", "type": "a"}}, {"not": {"any": [{"prefix": {"source": "/"}}, {"suffix": {"time": "Z"}}]}}]}]);
        let filters = parse_filters(&list).unwrap();
        assert_eq!(Value::Array(filters.iter().map(Filter::to_json).collect()), list);
        assert_eq!(serde_json::from_value::<Vec<Filter>>(list.clone()).unwrap(), filters);
        assert_eq!(serde_json::to_value(&filters).unwrap(), list);
        assert!(serde_json::from_value::<Filter>(json!({"cel": "tru"})).is_err());
        assert!(serde_json::from_value::<Filter>(json!({"sql": "x ="})).is_err());
    }

    #[test]
    fn expressions_keep_their_text_under_one_name() {
        let text = "type  IN ('a',\"b\")\n  and Exists subject";
        let cel = "event.type == 'a'\n  &&event.data.x>1";
        let filters = parse_filters(&json!([{"cesql": text}, {"not": {"sql": text}}, {"cel": cel}])).unwrap();
        let written = json!([{"sql": text}, {"not": {"sql": text}}, {"cel": cel}]);
        assert_eq!(serde_json::to_value(&filters).unwrap(), written);
        assert_eq!(serde_json::from_value::<Vec<Filter>>(written).unwrap(), filters);
    }
}
