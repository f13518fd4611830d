//! The payload of an event as a value of CEL.

use std::collections::HashMap;
use std::fmt;

use ::cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use ::cel::common::value::Val;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tidegate_schemas::Data;
use tidegate_schemas::limits::JSON_DEPTH;

/// What CEL sees of a payload, or why it cannot be read. Texts stay where they are, unless they hold escapes.
pub(crate) fn value_of(data: &Data) -> Result<Box<dyn Val + '_>, String> {
    match data {
        Data::None => Ok(Box::new(CelNull)),
        Data::Text(text) => Ok(Box::new(CelString::from(&**text))),
        Data::Binary(bytes) => Ok(Box::new(CelBytes::from(&**bytes))),
        Data::Json(bytes) => {
            let mut reader = serde_json::Deserializer::from_slice(bytes);
            let value = Json { depth: 0 }.deserialize(&mut reader);
            value
                .and_then(|value| reader.end().map(|()| value))
                .map_err(|error| format!("the data of the event is no JSON that can be read: {error}"))
        }
    }
}

/// Reads one JSON value. Whole numbers are `int`, or `uint` where they are too large for it; others are `double`.
#[derive(Clone, Copy)]
struct Json {
    /// The lists and objects around it.
    depth: usize,
}

impl Json {
    fn below<E: Error>(self) -> Result<Self, E> {
        if self.depth == JSON_DEPTH {
            return Err(E::custom(format_args!("it is nested deeper than {JSON_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Json {
    type Value = Box<dyn Val + 'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json {
    type Value = Box<dyn Val + 'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Box::new(CelBool::from(flag)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Box::new(CelInt::from(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => Ok(Box::new(CelUInt::from(number))),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Box::new(CelDouble::from(number)))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Box::new(CelString::from(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Box::new(CelString::from(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(Box::new(CelList::from(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let below = self.below()?;
        let mut map: HashMap<CelMapKey<'de>, Box<dyn Val + 'de>> = HashMap::new();
        while let Some(name) = members.next_key_seed(Name)? {
            map.insert(CelMapKey::String(name), members.next_value_seed(below)?);
        }
        Ok(Box::new(CelMap::from(map)))
    }
}

/// Reads the name of a member.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = CelString<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = CelString<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a member")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(CelString::from(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(CelString::from(text.to_owned()))
    }
}
