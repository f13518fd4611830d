use std::borrow::Cow;

use proptest::prelude::*;
use tidegate_schemas::limits::{CESQL_BYTES, CESQL_DEPTH, CESQL_NODES, CESQL_TEXT_BYTES};
use tidegate_schemas::{Event, Value as AttributeValue};

use super::*;
use crate::demand::Demand;

fn event() -> Event {
    Event::builder("7", "/shop", "com.example.placed")
        .subject("order-1")
        .extension("region", AttributeValue::String("eu".into()))
        .extension("count", AttributeValue::Integer(3))
        .extension("flag", AttributeValue::Boolean(true))
        .extension("note", AttributeValue::String("It's  ß".into()))
        .build()
        .unwrap()
}

fn evaluate(text: &str) -> (Value<'static>, Vec<ErrorKind>) {
    let event = event();
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let Evaluation { value, errors } = expression.evaluate(&event);
    for error in &errors {
        assert!(error.span.start < error.span.end && error.span.end <= text.len(), "{text}: {error:?}");
    }
    assert_eq!(expression.matches(&event), value == Value::Boolean(true) && errors.is_empty(), "{text}");
    (value.into_owned(), errors.iter().map(|error| error.kind).collect())
}

#[track_caller]
fn check(text: &str, value: impl Into<Expected>, errors: &[ErrorKind]) {
    assert_eq!(evaluate(text), (value.into().0, errors.to_vec()), "{text}");
}

struct Expected(Value<'static>);

impl From<bool> for Expected {
    fn from(flag: bool) -> Self {
        Self(Value::Boolean(flag))
    }
}

impl From<i32> for Expected {
    fn from(number: i32) -> Self {
        Self(Value::Integer(number))
    }
}

impl From<&'static str> for Expected {
    fn from(text: &'static str) -> Self {
        Self(Value::String(Cow::Borrowed(text)))
    }
}

use ErrorKind::{Cast, FunctionEvaluation, Math, MissingAttribute, MissingFunction};

#[test]
fn what_the_specification_leaves_open_is_decided() {
    // Left to right on one level.
    check("FALSE AND TRUE OR TRUE", true, &[]);
    check("FALSE AND (TRUE OR TRUE)", false, &[]);
    check("TRUE OR TRUE XOR TRUE", false, &[]);
    check("TRUE XOR TRUE AND FALSE", false, &[]);
    check("NOT FALSE = FALSE", false, &[]);
    check("10 - 4 - 3", 3, &[]);
    check("1 < 2 = TRUE", true, &[]);
    // Signs.
    check("1-1", 0, &[]);
    check("1 -1", 0, &[]);
    check("+5 - +2", 3, &[]);
    check("-2147483648", i32::MIN, &[]);
    check("- 5", -5, &[]);
    check("---5", -5, &[]);
    // Overflow.
    check("2147483647 + 1", 0, &[Math]);
    check("-2147483648 - 1", 0, &[Math]);
    check("65536 * 65536", 0, &[Math]);
    check("-2147483648 / -1", 0, &[Math]);
    check("-2147483648 % -1", 0, &[]);
    check("- -2147483648", 0, &[Math]);
    check("-7 / 2", -3, &[]);
    check("-7 % 2", -1, &[]);
    check("7 % -2", 1, &[]);
    // Quotes and backslashes.
    check("'it''s' = \"it's\"", true, &[]);
    check("\"a\"\"b\"", "a\"b", &[]);
    check(r"'a\\'", r"a\\", &[]);
    check(r"'a\nb'", r"a\nb", &[]);
    check(r"'50%' LIKE '50\%'", true, &[]);
    check(r"'a\b' LIKE 'a\_'", false, &[]);
    check(r"'a\' LIKE '", "a' LIKE ", &[]);
    check(r#"'a\\' LIKE 'a\\'"#, true, &[]);
    // Letter case.
    check("TYPE Like 'com.%' aNd Length(ID) = 1", true, &[]);
    check("'ABC' = 'abc'", false, &[]);
}

#[test]
fn errors_give_zero_values_and_are_all_told() {
    check("missing", false, &[MissingAttribute]);
    check("missing + missing", 0, &[MissingAttribute, MissingAttribute]);
    check("missing + 1 / 0", 0, &[MissingAttribute, Math]);
    check("(missing + 1) * 5", 0, &[MissingAttribute]);
    check("CONCAT('a', missing)", "", &[MissingAttribute]);
    check("LENGTH(missing)", 0, &[MissingAttribute]);
    check("NOT missing LIKE 'a'", false, &[MissingAttribute]);
    check("missing NOT LIKE 'a'", false, &[MissingAttribute]);
    check("missing NOT IN ('a', other)", false, &[MissingAttribute, MissingAttribute]);
    check("EXISTS missing AND missing = 1", false, &[]);
    check("NOT EXISTS missing OR missing = 1", true, &[]);
    check("missing AND other", false, &[MissingAttribute]);
    check("missing OR TRUE OR other", false, &[MissingAttribute, MissingAttribute]);
    check("missing XOR other", false, &[MissingAttribute, MissingAttribute]);
    check("TRUE XOR missing", false, &[MissingAttribute]);
    check("type + 1", 0, &[Cast]);
    check("type AND TRUE", false, &[Cast]);
    check("type = 5", false, &[Cast]);
    check("type != 5", false, &[Cast]);
    check("type < subject", false, &[Cast, Cast]);
    check("5 IN ('5', type)", false, &[Cast]);
    check("INT('+2147483648')", 0, &[Cast]);
    check("INT(' 1')", 0, &[Cast]);
    check("NOPE(missing)", false, &[MissingFunction]);
    check("LENGTH()", false, &[MissingFunction]);
    check("NOPE() = FALSE", false, &[MissingFunction]);
}

#[test]
fn types_of_attributes_are_kept() {
    check("count", 3, &[]);
    check("flag", true, &[]);
    check("count = '3'", true, &[]);
    check("'3' = count", true, &[]);
    check("flag = 'true'", true, &[]);
    check("'TRUE' = flag", true, &[]);
    check("count IN ('3')", true, &[]);
    check("count + flag", 4, &[]);
    check("count > 2 AND flag", true, &[]);
    check("NOT count", false, &[]);
    check("specversion = '1.0'", true, &[]);
}

#[test]
fn functions_follow_their_table() {
    check("LENGTH('a😀ß')", 3, &[]);
    check("TRIM('\u{2003}\n a b\u{a0} ')", "a b", &[]);
    check("TRIM('  ')", "", &[]);
    check("UPPER('straße')", "STRASSE", &[]);
    check("LOWER(note)", "it's  ß", &[]);
    check("LEFT('a😀ß', 2)", "a😀", &[]);
    check("RIGHT('a😀ß', 2)", "😀ß", &[]);
    check("RIGHT('abc', 0)", "", &[]);
    check("RIGHT(CONCAT('ab', 'cd'), 3)", "bcd", &[]);
    check("LEFT(region, -1)", "eu", &[FunctionEvaluation]);
    check("LEFT(region, -1) = 'eu'", false, &[FunctionEvaluation]);
    check("SUBSTRING('😀bc', 2, 1)", "b", &[]);
    check("SUBSTRING('abc', -3, 2)", "ab", &[]);
    check("SUBSTRING('abc', 3, 2147483647)", "c", &[]);
    check("SUBSTRING('abc', 4)", "", &[FunctionEvaluation]);
    check("SUBSTRING('abc', -4)", "", &[FunctionEvaluation]);
    check("SUBSTRING('abc', -2147483648)", "", &[FunctionEvaluation]);
    check("SUBSTRING('abc', 1, -1)", "", &[FunctionEvaluation]);
    check("SUBSTRING('', 1)", "", &[FunctionEvaluation]);
    check("SUBSTRING(123, 2)", "23", &[]);
    check("CONCAT_WS('-', 1, TRUE, region, 'x', count)", "1-true-eu-x-3", &[]);
    check("concat_ws(',', '', '')", ",", &[]);
    check("BOOL(-1)", true, &[]);
    check("STRING(-2147483648)", "-2147483648", &[]);
    let long = "x".repeat(1_000);
    let doubled = (0..8).fold(format!("'{long}'"), |text, _| format!("CONCAT({text}, '{long}')"));
    assert_eq!(evaluate(&format!("LENGTH({doubled})")), (Value::Integer(9_000), vec![]));
    let event = Event::builder("1", "/s", "t").subject("y".repeat(16_000)).build().unwrap();
    let join = |count: usize| format!("LENGTH(CONCAT({}))", vec!["subject"; count].join(", "));
    let fits = Expression::parse(&join(CESQL_TEXT_BYTES / 16_000)).unwrap();
    assert_eq!(fits.evaluate(&event).errors, []);
    let expression = Expression::parse(&join(CESQL_TEXT_BYTES / 16_000 + 1)).unwrap();
    let Evaluation { value, errors } = expression.evaluate(&event);
    assert_eq!((value, errors.len(), errors[0].kind), (Value::Integer(0), 1, FunctionEvaluation));
}

#[test]
fn faults_name_their_place_and_what_was_expected() {
    let cases = [
        ("", "line 1, column 1: the expression is empty"),
        ("type =", "line 1, column 7: expected a value and found the end"),
        ("type = 'a", "line 1, column 8: the text that begins here does not end"),
        ("type =\n\t'é' 'b'", "line 2, column 6: expected an operator or the end and found a text"),
        ("(type = 'a'", "line 1, column 12: expected an operator or `)` and found the end"),
        ("type = 'a')", "line 1, column 11: a `)` closes nothing"),
        ("a, b", "line 1, column 2: a `,` stands outside of a list"),
        ("type LIKE 5", "line 1, column 11: expected a text in quotes behind `LIKE` and found a number"),
        ("type NOT = 'a'", "line 1, column 10: expected `LIKE` or `IN` behind `NOT` and found `=`"),
        ("type IN 'a'", "line 1, column 9: expected `(` behind `IN` and found a text"),
        ("type IN ()", "line 1, column 10: the set has no elements"),
        ("type IN ('a' 'b')", "line 1, column 14: expected `,` or `)` in the set and found a text"),
        ("EXISTS 'a'", "line 1, column 8: expected the name of an attribute behind `EXISTS` and found a text"),
        ("ABC(", "line 1, column 5: expected a value and found the end"),
        ("F5(1)", "line 1, column 1: names of functions begin with a letter and have letters and `_` only"),
        ("my_name = 1", "line 1, column 1: names of attributes have letters and digits only"),
        ("2147483648", "line 1, column 1: the number does not fit"),
        ("99999999999999999999999", "line 1, column 1: the number does not fit"),
        ("- 2147483648", "line 1, column 3: the number does not fit"),
        ("1.5", "line 1, column 2: the character '.' means nothing here"),
        ("a == b", "line 1, column 3: there is no operator `==`"),
        ("+a", "line 1, column 1: a `+` with nothing before it is no operator"),
        ("a && b", "line 1, column 3: the character '&' means nothing here"),
        ("type = \u{2018}a\u{2019}", "line 1, column 8: the character '\u{2018}' means nothing here"),
        ("a\u{a0}= 1", "line 1, column 2: the character U+00A0 means nothing here"),
    ];
    for (text, expected) in cases {
        let error = Expression::parse(text).expect_err(text);
        let shown = error.to_string();
        assert_eq!(shown.split_once("; ").map(|(what, _)| what), Some(expected), "{text}");
        assert!(error.position.offset <= text.len());
    }
}

#[test]
fn hostile_texts_end_where_a_limit_is_reached() {
    let check = |text: &str, most: usize, what: &str| {
        let error = Expression::parse(text).expect_err("a limit");
        assert!(error.what.contains(what), "{error}");
        assert!(error.position.offset <= most, "read up to {}", error.position.offset);
    };
    // Text that is too long is not read at all.
    for part in ["(", "x", "'", "NOT ", "-", "a=1 AND ", "\0", "ä", "((((", "a IN (a,"] {
        check(&part.repeat(1024 * 1024 / part.len()), 0, "bytes");
    }
    check(&"(".repeat(100_000), 0, "bytes");
    for (part, tail) in
        [("(", "a"), ("NOT ", "a"), ("-", "a"), ("F(", ""), ("a IN (", ""), ("a = (", ""), ("a AND (", "")]
    {
        check(
            &format!("{}{tail}", part.repeat(CESQL_BYTES / part.len() - 1)),
            part.len() * (CESQL_DEPTH + 1),
            "deeper",
        );
    }
    // Left-leaning chains have depth as well.
    for part in ["1+", "1*", "1=", "1<"] {
        check(&format!("{}1", part.repeat(1_000)), 0, "deeper");
    }
    check(&format!("a{}", " LIKE ''".repeat(1_000)), 0, "deeper");
    check(&format!("a IN ({}1)", "1,".repeat(CESQL_NODES)), 2 * CESQL_NODES + 8, "parts");
    // Chains of one connective do not.
    let wide = format!("{}a", "a OR ".repeat(1_000));
    assert!(Expression::parse(&wide).unwrap().evaluate(&event()).errors.len() == 1_001);
    let nested = |levels: usize| format!("{}a{}", "(".repeat(levels), ")".repeat(levels));
    assert!(Expression::parse(&nested(CESQL_DEPTH - 1)).is_ok());
    assert!(Expression::parse(&nested(CESQL_DEPTH)).is_err());
}

#[test]
fn objections_are_made_to_what_is_hardly_meant() {
    let objections = |text: &str| -> Vec<(usize, String)> {
        let expression = Expression::parse(text).unwrap();
        expression.objections().iter().map(|each| (each.position.column, each.what.clone())).collect()
    };
    for fine in [
        "a AND b AND c",
        "(a AND b) OR c",
        "a AND (b OR c)",
        "NOT (a = b)",
        "NOT a AND NOT EXISTS b",
        "NOT EXISTS a",
        "(NOT a) = b",
        "a = NOT b",
        "a IN (b AND c, d OR e)",
        "SUBSTRING(a, 1) = 'x'",
    ] {
        assert_eq!(objections(fine), [], "{fine}");
    }
    assert_eq!(objections("a AND b OR c OR d").len(), 1);
    assert_eq!(objections("a AND b OR c AND d").len(), 2);
    assert_eq!(objections("(a OR b XOR c)")[0].0, 9);
    assert_eq!(objections("NOT a = b")[0].0, 1);
    assert_eq!(objections("x AND NOT a LIKE 'b'")[0].0, 7);
    assert_eq!(objections("NOT a IN (b)").len(), 1);
    assert_eq!(objections("EXISTS data").len(), 1);
    assert_eq!(objections("SUBSTRING(a) = ''")[0].1, "the function SUBSTRING does not take 1 arguments");
    assert_eq!(objections("IS_INT(a)")[0].1, "there is no function IS_INT");
    assert!(Expression::parse("SUBSTRING(a)").unwrap().objections()[0].mend.contains("2 or 3"));
}

#[test]
fn functions_are_told_apart_by_name_and_arity() {
    let text = Parameter::Of(Type::String);
    let function = |name: &str, parameters: usize, answer: i32| {
        Function::new(name, &vec![text; parameters], Type::Integer, move |_| Ok(Value::Integer(answer)))
    };
    let mut functions = Functions::default();
    functions.register(function("abc", 1, 1)).unwrap();
    functions.register(function("ABC", 2, 2)).unwrap();
    assert!(matches!(functions.register(function("Abc", 2, 0)), Err(RegistrationError::Overload(_))));
    assert!(matches!(functions.register(function("ABC", 0, 0).variadic(text)), Err(RegistrationError::Overload(_))));
    assert!(matches!(functions.register(function("ABC", 2, 0).variadic(text)), Err(RegistrationError::Overload(_))));
    functions.register(function("ABC", 3, 3).variadic(text)).unwrap();
    assert!(matches!(functions.register(function("ABC", 4, 0)), Err(RegistrationError::Overload(_))));
    assert!(matches!(functions.register(function("ABC", 9, 0).variadic(text)), Err(RegistrationError::Overload(_))));
    for name in ["not", "A1", "", "_A", "A B", "Ä"] {
        assert!(matches!(functions.register(function(name, 0, 0)), Err(RegistrationError::Name(_))), "{name}");
    }
    let event = event();
    for (call, expected) in [("ABC('')", 1), ("abc('','')", 2), ("Abc('','','')", 3), ("ABC(1,2,3,4,5,6)", 3)] {
        let expression = Expression::parse_with(call, &functions).unwrap();
        assert_eq!(expression.evaluate(&event).value, Value::Integer(expected), "{call}");
        assert_eq!(expression.objections(), []);
    }
    // A function that breaks its own signature gives the zero value and an error.
    functions.register(Function::new("LIAR", &[], Type::Boolean, |_| Ok(Value::Integer(1)))).unwrap();
    let expression = Expression::parse_with("LIAR()", &functions).unwrap();
    let Evaluation { value, errors } = expression.evaluate(&event);
    assert_eq!((value, errors[0].kind), (Value::Boolean(false), FunctionEvaluation));
    // One that fails keeps its value.
    let failing = Function::new("FAILS", &[], Type::Boolean, |_| Err(Failure::new(Value::Boolean(true), "no")));
    functions.register(failing).unwrap();
    let expression = Expression::parse_with("FAILS()", &functions).unwrap();
    assert_eq!(expression.evaluate(&event).value, Value::Boolean(true));
    assert!(!expression.matches(&event));
}

#[test]
fn what_an_event_must_have_is_found() {
    let demands = |text: &str| {
        let one = |demand: &Demand| format!("{} {:?} {}", demand.attribute, demand.comparison, demand.text);
        let either = |alternatives: Alternatives| alternatives.iter().map(one).collect::<Vec<_>>().join(" or ");
        Expression::parse(text).unwrap().demands().into_iter().map(either).collect::<Vec<_>>()
    };
    assert_eq!(
        demands("type = 'a' AND (region = 'eu' AND count > 2) AND 'x' = subject AND 'y' = extra AND id != '1'"),
        ["type Exact a", "region Exact eu", "subject Exact x"]
    );
    assert_eq!(demands("type = 'b' OR type IN ('a', 'b', TRUE)"), ["type Exact a or type Exact b or type Exact true"]);
    assert_eq!(demands("type = 'b' OR (LENGTH(id) > 2 AND flag = 'x')"), ["flag Exact x or type Exact b"]);
    assert_eq!(
        demands("type LIKE 'a%b_%c' AND count LIKE '_a%' AND flag LIKE 'x' AND id LIKE '%\\\\%'"),
        ["type Prefix a", "type Suffix c", "flag Exact x", "id Suffix \\%"]
    );
    for open in [
        "type NOT IN ('a')",
        "type = id",
        "type IN ('a', id)",
        "region IN ('a')",
        "type = 5",
        "type = 'a' XOR flag",
        "type != 'a'",
        "type = 'a' OR id != '1'",
        "NOT (type = 'a')",
        "type LIKE '%'",
        "type NOT LIKE 'a%'",
        "type LIKE '_'",
    ] {
        assert!(demands(open).is_empty(), "{open}");
    }
}

/// Expressions of every form, as text with all parentheses that keep their structure.
fn expression() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "'[abé%_ ]{0,4}'",
        "'([ab%_ü\"]|\\\\\\\\|\\\\'|''|\\\\[a%_\"])*'",
        "\"([a%_']|\\\\\"|\"\"|\\\\')*\""
    ];
    let leaf = prop_oneof![
        any::<i32>().prop_map(|number| number.to_string()),
        (0_i32..6).prop_map(|number| number.to_string()),
        text.clone().prop_map(|text: String| text),
        Just("TRUE".to_owned()),
        Just("false".to_owned()),
        "(type|id|subject|region|count|flag|note|missing|data|Type)",
        "exists (type|missing)",
    ];
    leaf.prop_recursive(6, 48, 4, move |inner| {
        let operand =
            (inner.clone(), any::<bool>()).prop_map(|(text, bare)| if bare { text } else { format!("({text})") });
        prop_oneof![
            ("(NOT |-|- |\\+)?", operand.clone()).prop_filter_map("a sign", |(sign, operand)| {
                let text = format!("{sign}{operand}");
                Expression::parse(&text).is_ok().then_some(text)
            }),
            (operand.clone(), " ?(=|!=|<>|<|<=|>|>=|[-+*/%]) ", operand.clone())
                .prop_map(|(left, operator, right)| format!("{left}{operator}{right}")),
            (prop::collection::vec(operand.clone(), 2..4), " (AND|or|Xor) ")
                .prop_map(|(operands, operator)| operands.join(&operator)),
            (operand.clone(), "( NOT)? LIKE ", text.clone())
                .prop_map(|(operand, operator, pattern)| format!("{operand}{operator}{pattern}")),
            (operand, "( not)? in ", prop::collection::vec(inner.clone(), 1..4))
                .prop_map(|(operand, operator, set)| format!("{operand}{operator}({})", set.join(","))),
            (
                "(LENGTH|concat|CONCAT_WS|LOWER|upper|TRIM|LEFT|RIGHT|SUBSTRING|ABS|INT|BOOL|STRING|NOPE)",
                prop::collection::vec(inner, 0..4)
            )
                .prop_map(|(name, arguments)| format!("{name}({})", arguments.join(", "))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = Expression::parse(&text);
    }

    #[test]
    fn no_sequence_of_tokens_makes_it_panic(
        tokens in prop::collection::vec(
            prop_oneof![
                Just("("), Just(")"), Just(","), Just("NOT"), Just("LIKE"), Just("IN"), Just("EXISTS"), Just("AND"), Just("OR"),
                Just("a"), Just("F"), Just("1"), Just("-"), Just("+"), Just("="), Just("'x%'"), Just("TRUE"), Just("*"), Just("\\"),
                Just("'"), Just("_"),
            ],
            0..12,
        ),
        separator in " ?",
    ) {
        if let Ok(expression) = Expression::parse(&tokens.join(&separator)) {
            let printed = expression.to_string();
            let again = Expression::parse(&printed);
            prop_assert_eq!(again.as_ref(), Ok(&expression), "{}", printed);
            expression.evaluate(&event());
        }
    }

    #[test]
    fn what_is_printed_is_read_as_the_same(text in expression()) {
        // Some are too deep, which is no fault of theirs.
        let parsed = Expression::parse(&text);
        prop_assume!(parsed.is_ok());
        let expression = parsed.unwrap();
        let printed = expression.to_string();
        let again = Expression::parse(&printed);
        prop_assert_eq!(again.as_ref(), Ok(&expression), "{}", printed);
        prop_assert_eq!(again.unwrap().to_string(), printed);
    }

    #[test]
    fn evaluation_is_total_and_the_filter_agrees(text in expression()) {
        let parsed = Expression::parse(&text);
        prop_assume!(parsed.is_ok());
        let (expression, event) = (parsed.unwrap(), event());
        let Evaluation { value, errors } = expression.evaluate(&event);
        let passes = value == Value::Boolean(true) && errors.is_empty();
        prop_assert_eq!(expression.matches(&event), passes);
        for error in &errors {
            prop_assert!(text.get(error.span.clone()).is_some_and(|part| !part.is_empty()), "{:?}", error);
        }
        // What an index is told holds for every event that passes.
        if passes {
            for alternatives in expression.demands() {
                let met = alternatives.iter().any(|demand| {
                    let found = event.attribute(&demand.attribute);
                    found.is_some_and(|found| demand.comparison.holds(&found, &demand.text))
                });
                prop_assert!(met, "{:?}", alternatives);
            }
        }
    }
}
