//! Cases of others that contradict the specification, each with the clause. A listed case that passes fails the run, so
//! that the list cannot outlive its reasons.

/// File, case, and why the case is wrong.
pub(crate) const BELIEVED_WRONG: &[(&str, &str, &str)] = &[(
    "sdk-java/json-jackson/v1",
    "json_data_with_ext_upper_case.json",
    "the SDK takes aString and makes it astring; CloudEvents 1.0, Attribute Naming Convention: names MUST consist of \
     lower-case letters or digits",
)];
