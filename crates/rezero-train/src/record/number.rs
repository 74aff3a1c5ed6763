//! Numbers in JSON that may be infinite or NaN, for which JSON has no numbers: they are written as the
//! strings `"inf"`, `"-inf"` and `"NaN"`, and read back. A `null` of older files is NaN.
//!
//! The modules are for serde's `with`.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of either width; f32 keeps its short digits.
trait Float: Copy {
    fn of(value: f64) -> Self;
    fn name(self) -> Option<&'static str>;
    fn write<S: Serializer>(self, serializer: S) -> Result<S::Ok, S::Error>;
}

macro_rules! float {
    ($type:ty, $write:ident) => {
        impl Float for $type {
            fn of(value: f64) -> Self {
                value as $type
            }

            fn name(self) -> Option<&'static str> {
                match self {
                    v if v.is_finite() => None,
                    v if v.is_nan() => Some("NaN"),
                    v if v > 0.0 => Some("inf"),
                    _ => Some("-inf"),
                }
            }

            fn write<S: Serializer>(self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.$write(self)
            }
        }
    };
}

float!(f32, serialize_f32);
float!(f64, serialize_f64);

#[derive(Clone, Copy)]
struct Number<F>(F);

impl<F: Float> Serialize for Number<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.name() {
            Some(name) => serializer.serialize_str(name),
            None => self.0.write(serializer),
        }
    }
}

impl<'de, F: Float> Deserialize<'de> for Number<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = f64;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number, \"inf\", \"-inf\" or \"NaN\"")
            }

            fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
                Ok(value)
            }

            fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
                Ok(value as f64)
            }

            fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
                Ok(value as f64)
            }

            fn visit_unit<E>(self) -> Result<f64, E> {
                Ok(f64::NAN)
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<f64, E> {
                match value {
                    "inf" => Ok(f64::INFINITY),
                    "-inf" => Ok(f64::NEG_INFINITY),
                    "NaN" => Ok(f64::NAN),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer
            .deserialize_any(Any)
            .map(|value| Self(F::of(value)))
    }
}

/// A number.
pub(super) mod one {
    use super::*;

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        Number(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Number::deserialize(deserializer).map(|number| number.0)
    }
}

/// A number or nothing; the field needs serde's `default` too.
pub(super) mod option {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Number).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
        Number::deserialize(d).map(|number| Some(number.0))
    }
}

/// A list of numbers.
pub(super) mod list {
    use super::*;

    pub fn serialize<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| Number(*value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
        let numbers = Vec::<Number<f32>>::deserialize(deserializer)?;
        Ok(numbers.into_iter().map(|number| number.0).collect())
    }
}

/// Numbers by name.
pub(super) mod map {
    use std::collections::BTreeMap;

    use super::*;

    pub fn serialize<S: Serializer>(
        values: &BTreeMap<String, f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(values.iter().map(|(name, value)| (name, Number(*value))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, f64>, D::Error> {
        let numbers = BTreeMap::<String, Number<f64>>::deserialize(deserializer)?;
        Ok(numbers
            .into_iter()
            .map(|(name, number)| (name, number.0))
            .collect())
    }
}
