//! JSON texts as a tree, read more strictly than `serde_json::Value`: a name that comes twice in one object is a fault,
//! because two readers would not agree on which one counts (RFC 8259 4).

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// One JSON value.
#[derive(Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool,
    /// A whole number that is not negative.
    Whole(u64),
    /// Any other number.
    Number,
    Text(String),
    Array(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// The kind of value, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Whole(_) => "a number",
            Self::Number => "a negative or broken number",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// The text is not JSON, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    /// From 1; 0 where no place is known.
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) detail: String,
}

/// Reads a text whose value is an object. Depth is bounded by `serde_json`, at 128.
pub(super) fn object(text: &[u8]) -> Result<BTreeMap<String, Json>, Malformed> {
    match serde_json::from_slice(text) {
        Ok(Json::Object(members)) => Ok(members),
        Ok(other) => Err(Malformed {
            line: 1,
            column: 1,
            detail: format!(
                "the body is {}; a JSON object such as {{\"phone\":\"+966500000123\"}} is needed",
                other.kind()
            ),
        }),
        Err(error) => Err(Malformed {
            line: error.line(),
            column: error.column(),
            detail: format!("the body is not JSON: {error}"),
        }),
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(u64::try_from(number).map_or(Json::Number, Json::Whole))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut read = Vec::new();
        while let Some(item) = items.next_element()? {
            read.push(item);
        }
        Ok(Json::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = entries.next_entry::<String, Json>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a name comes twice in one object"));
            }
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_with_their_place() {
        let cases: [(&[u8], usize, usize, &str); 8] = [
            (b"", 1, 0, "EOF"),
            (b"{\"phone\":\n  +966}", 2, 3, "expected value"),
            (b"{\"a\":1,\n\"a\":2}", 2, 5, "twice"),
            (b"{\"x\":{\"a\":1,\"a\":2}}", 1, 17, "twice"),
            (b"[1,2]", 1, 1, "an array"),
            (b"\"text\"", 1, 1, "a string"),
            (b"{} {}", 1, 4, "trailing"),
            (b"{\"a\":\"\xff\"}", 1, 7, "unicode"),
        ];
        for (text, line, column, detail) in cases {
            let fault = object(text).map(|_| ()).unwrap_err();
            assert!(fault.detail.contains(detail), "{fault:?}");
            assert_eq!(fault.line, line, "{fault:?}");
            assert!(fault.column.abs_diff(column) <= 2, "{fault:?}");
        }
    }

    #[test]
    fn deep_nesting_is_malformed() {
        let text = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(object(text.as_bytes()).map(|_| ()).unwrap_err().detail.contains("recursion"));
    }

    #[test]
    fn whole_numbers_are_told_from_others() {
        let members =
            object(b"{\"a\":120,\"b\":-1,\"c\":1.0,\"d\":1e3,\"e\":99999999999999999999}").map_err(|_| ()).unwrap();
        let whole: Vec<_> = members.values().map(|value| matches!(value, Json::Whole(_))).collect();
        assert_eq!(whole, [true, false, false, false, false]);
    }
}
