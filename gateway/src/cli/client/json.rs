//! JSON that is handed on as it came.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::failure::Failure;

/// A JSON text on one line: the very text, without the line ends between its tokens. Inside strings JSON has none.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if text.contains(['\n', '\r']) { Cow::Owned(text.lines().map(str::trim).collect()) } else { Cow::Borrowed(text) }
}

/// The elements of an array, each as it was written; `None` where the text is no array.
pub(super) fn elements(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
}

/// The members of an object, each as it was written; `None` where the text is no object.
pub(super) fn members(text: &str) -> Option<BTreeMap<Cow<'_, str>, &RawValue>> {
    serde_json::from_str(text).ok()
}

/// Reads an answer of the API.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::Local(format!(
            "the answer is not of the shape that was expected ({error}); -o json prints it as it is"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::{elements, members, one_line};

    #[test]
    fn texts_stay_as_they_are() {
        assert_eq!(one_line(" {\"b\": 1,\r\n  \"a\": \"x \\n y\"\n}\n"), "{\"b\": 1,\"a\": \"x \\n y\"}");
        let array = elements("[{\"b\":1, \"a\":1.0}, 2]").unwrap();
        assert_eq!(array[0].get(), "{\"b\":1, \"a\":1.0}");
        assert!(elements("{}").is_none());
        assert_eq!(members("{\"\\u0061\": [1, 2]}").unwrap()["a"].get(), "[1, 2]");
        assert!(members("[]").is_none());
    }
}
