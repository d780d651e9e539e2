//! Turning a value into a type by Go's rules.

use std::fmt::Display;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Error, Value};

impl de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self::Mismatch(message.to_string())
    }
}

/// Types name their Go counterparts by `#[serde(rename = "package.Type")]`; an anonymous struct
/// gives its definition.
///
/// # Errors
/// [`Error::Mismatch`]
pub fn decode_value<T: DeserializeOwned>(value: &Value<'_>) -> Result<T, Error> {
    T::deserialize(Decoder { value, place: &Place::Root, go_type: None })
}

/// Where in the document a value stands.
enum Place<'p> {
    Root,
    Field { parent: &'p Place<'p>, structure: &'static str, field: &'static str },
}

impl Place<'_> {
    fn path(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Field { parent: Self::Root, field, .. } => (*field).to_owned(),
            Self::Field { parent, field, .. } => format!("{}.{field}", parent.path()),
        }
    }
}

#[derive(Clone, Copy)]
struct Decoder<'v, 'a, 'p> {
    value: &'v Value<'a>,
    place: &'p Place<'p>,
    /// Set by a newtype for the number or string inside it.
    go_type: Option<&'static str>,
}

impl<'a> Decoder<'_, 'a, '_> {
    fn mismatch(&self, go_type: &str) -> Error {
        self.cannot(self.value.kind().to_owned(), go_type)
    }

    fn cannot(&self, what: String, go_type: &str) -> Error {
        Error::Mismatch(match self.place {
            Place::Root => format!("json: cannot unmarshal {what} into Go value of type {go_type}"),
            Place::Field { structure, .. } => {
                let anonymous = structure.starts_with("struct ");
                let name = structure.rsplit('.').next().filter(|_| !anonymous).unwrap_or("");
                let path = self.place.path();
                format!(
                    "json: cannot unmarshal {what} into Go struct field {name}.{path} \
                     of type {go_type}"
                )
            }
        })
    }

    fn element<'w>(&'w self, value: &'w Value<'a>) -> Decoder<'w, 'a, 'w> {
        Decoder { value, place: self.place, go_type: None }
    }

    fn integer<T: std::str::FromStr + Default>(&self, go_type: &str) -> Result<T, Error> {
        let go_type = self.go_type.unwrap_or(go_type);
        match self.value {
            Value::Null => Ok(T::default()),
            Value::Number(digits) => {
                digits.parse().map_err(|_| self.cannot(format!("number {digits}"), go_type))
            }
            _ => Err(self.mismatch(go_type)),
        }
    }
}

macro_rules! integers {
    ($($method:ident, $visit:ident, $go:literal;)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.integer($go)?)
        })+
    };
}

impl<'de> de::Deserializer<'de> for Decoder<'_, '_, '_> {
    type Error = Error;

    integers! {
        deserialize_u8, visit_u8, "uint8";
        deserialize_u16, visit_u16, "uint16";
        deserialize_u32, visit_u32, "uint32";
        deserialize_u64, visit_u64, "uint64";
        deserialize_i8, visit_i8, "int8";
        deserialize_i16, visit_i16, "int16";
        deserialize_i32, visit_i32, "int32";
        deserialize_i64, visit_i64, "int";
        deserialize_f32, visit_f32, "float32";
        deserialize_f64, visit_f64, "float64";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(_) => self.deserialize_bool(visitor),
            Value::Number(_) => self.deserialize_f64(visitor),
            Value::String(_) => self.deserialize_str(visitor),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.mismatch(self.go_type.unwrap_or("bool"))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_str(""),
            Value::String(text) => visitor.visit_str(text),
            _ => Err(self.mismatch(self.go_type.unwrap_or("string"))),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.go_type = Some(name);
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_seq(Elements { of: &self, rest: [].iter() }),
            Value::Array(elements) => {
                visitor.visit_seq(Elements { of: &self, rest: elements.iter() })
            }
            _ => {
                let element = match visitor.visit_seq(TypeProbe) {
                    Err(Error::Mismatch(name)) => name,
                    _ => "interface {}".to_owned(),
                };
                Err(self.mismatch(&format!("[]{element}")))
            }
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_map(Members { of: &self, rest: [].iter(), value: None }),
            Value::Object(members) => {
                visitor.visit_map(Members { of: &self, rest: members.iter(), value: None })
            }
            _ => Err(self.mismatch("map[string]string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let members: &[(String, Value<'_>)] = match self.value {
            Value::Null => &[],
            Value::Object(members) => members,
            _ => return Err(self.mismatch(name)),
        };
        let mut known: Vec<(&'static str, &Value<'_>)> = Vec::with_capacity(members.len());
        for (key, value) in members {
            let exact = fields.iter().find(|field| *field == key);
            let folded = || fields.iter().find(|field| field.eq_ignore_ascii_case(key));
            if let Some(field) = exact.or_else(folded) {
                known.retain(|(earlier, _)| earlier != field);
                known.push((field, value));
            }
        }
        visitor.visit_map(Fields { of: &self, structure: name, rest: known.iter(), value: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_enum(UnitVariant("")),
            Value::String(text) => visitor.visit_enum(UnitVariant(text)),
            _ => Err(self.mismatch(name)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Elements<'e, 'v, 'a, 'p> {
    of: &'e Decoder<'v, 'a, 'p>,
    rest: std::slice::Iter<'e, Value<'a>>,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_, '_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.rest.next().map(|value| seed.deserialize(self.of.element(value))).transpose()
    }
}

struct Members<'e, 'v, 'a, 'p> {
    of: &'e Decoder<'v, 'a, 'p>,
    rest: std::slice::Iter<'e, (String, Value<'a>)>,
    value: Option<&'e Value<'a>>,
}

impl<'de> MapAccess<'de> for Members<'_, '_, '_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        let key: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let value = self.value.take().unwrap_or(&Value::Null);
        seed.deserialize(self.of.element(value))
    }
}

struct Fields<'e, 'v, 'a, 'p> {
    of: &'e Decoder<'v, 'a, 'p>,
    structure: &'static str,
    rest: std::slice::Iter<'e, (&'static str, &'e Value<'a>)>,
    value: Option<(&'static str, &'e Value<'a>)>,
}

impl<'de> MapAccess<'de> for Fields<'_, '_, '_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((field, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some((field, value));
        let key: StrDeserializer<'_, Error> = (*field).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (field, value) = self.value.take().unwrap_or(("", &Value::Null));
        let place = Place::Field { parent: self.of.place, structure: self.structure, field };
        seed.deserialize(Decoder { value, place: &place, go_type: None })
    }
}

struct UnitVariant<'t>(&'t str);

impl<'de> EnumAccess<'de> for UnitVariant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for UnitVariant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(de::Error::custom("a name has no content"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("a name has no content"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(de::Error::custom("a name has no content"))
    }
}

/// Fails with the Go name of the type that is asked for, which serde tells no other way.
struct TypeProbe;

impl<'de> SeqAccess<'de> for TypeProbe {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        seed.deserialize(Self).map(Some)
    }
}

impl<'de> de::Deserializer<'de> for TypeProbe {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::Mismatch("string".to_owned()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::Mismatch(name.to_owned()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::Mismatch(name.to_owned()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
