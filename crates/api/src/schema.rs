//! A field's Rust type and its schema, written down together.
//!
//! `object!` makes a struct and its schema from one table, `choice!` an enum. `Schema<T>` says in its type what the field is in
//! Rust: `text(64)` is for an `Option<String>`, `text(64).required()` and `text(64).default("x")` for a `String`. A row whose two
//! halves do not agree does not compile.
//!
//! No `pattern` is used anywhere: its message shows a regular expression and not what to write instead. A form is a rule in CEL with
//! a sentence ([`Rule`]); servers before 1.25 know neither, and there the operator says the same sentence.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde_json::{Map, Value, json};

/// The schema of a field that is a `T` in Rust.
pub struct Schema<T> {
    json: Map<String, Value>,
    required: bool,
    of: PhantomData<fn() -> T>,
}

/// A rule in CEL, and what is said when it is broken: what is wrong, and what to write instead.
#[derive(Clone)]
pub struct Rule {
    rule: String,
    message: String,
}

impl Rule {
    /// A rule and its message.
    pub fn new(rule: impl Into<String>, message: impl Into<String>) -> Rule {
        Rule { rule: rule.into(), message: message.into() }
    }

    /// The named properties of an object stay as they were; `but` names those that may change.
    ///
    /// A rule at each field would not do: it is not asked when the field comes or goes.
    pub fn frozen<T: Record>(but: &[&str], message: &str) -> Rule {
        let fields = T::fields();
        let same = fields.iter().map(|field| field.name.as_str()).filter(|name| !but.contains(name)).map(|name| {
            format!("has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})")
        });
        Rule::new(same.collect::<Vec<_>>().join(" && "), message)
    }
}

/// A field of a record.
pub struct Field {
    /// Its name in JSON.
    pub name: String,
    required: bool,
    json: Map<String, Value>,
}

impl Field {
    /// A field from its Rust name, what it is for, and its schema.
    pub fn of<T>(name: &str, about: &str, schema: Schema<T>) -> Field {
        let mut json = Map::new();
        json.insert("description".into(), json!(about));
        json.extend(schema.json);
        Field { name: camel(name), required: schema.required, json }
    }
}

/// `time_zone` is `timeZone` in JSON, as serde has it.
fn camel(name: &str) -> String {
    let mut out = String::new();
    let mut upper = false;
    for c in name.trim_start_matches("r#").chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                out.extend(c.to_uppercase());
                upper = false;
            }
            c => out.push(c),
        }
    }
    out
}

/// A struct with a schema.
pub trait Record {
    /// Its fields, in the order in which they are told.
    fn fields() -> Vec<Field>;
    /// Its rules.
    fn rules() -> Vec<Rule>;
}

/// An enum of texts.
pub trait Choice {
    /// All of them.
    const ALL: &'static [&'static str];
}

/// What is not written when it is not there.
pub trait Absent {
    /// Is it not there?
    fn is_absent(&self) -> bool {
        false
    }
}

impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Absent for BTreeMap<String, T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for String {}
impl Absent for bool {}
impl Absent for i64 {}
impl Absent for u32 {}
impl Absent for u64 {}

impl<T> Schema<T> {
    fn new(json: Value) -> Schema<T> {
        let json = if let Value::Object(json) = json { json } else { Map::new() };
        Schema { json, required: false, of: PhantomData }
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Schema<T> {
        self.json.insert(key.into(), value.into());
        self
    }

    fn cast<U>(self) -> Schema<U> {
        Schema { json: self.json, required: self.required, of: PhantomData }
    }

    /// With a rule.
    pub fn rule(mut self, rule: Rule) -> Schema<T> {
        let rules = self.json.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        if let Some(rules) = rules.as_array_mut() {
            rules.push(json!({"rule": rule.rule, "message": rule.message}));
        }
        self
    }
}

impl<T> Schema<Option<T>> {
    /// It has to be there.
    pub fn required(mut self) -> Schema<T> {
        self.required = true;
        self.cast()
    }

    /// It is this if it is not there.
    pub fn default(self, value: impl Into<Value>) -> Schema<T> {
        self.with("default", value).cast()
    }
}

impl Schema<Option<String>> {
    /// At least so many characters.
    pub fn least(self, least: u64) -> Schema<Option<String>> {
        self.with("minLength", least)
    }
}

impl<T> Schema<Vec<T>> {
    /// At least one.
    pub fn some(self) -> Schema<Vec<T>> {
        self.with("minItems", 1)
    }

    /// Not twice with the same value of this field, which tells elements apart.
    pub fn keyed(self, key: &str) -> Schema<Vec<T>> {
        self.with("x-kubernetes-list-type", "map").with("x-kubernetes-list-map-keys", json!([key]))
    }

    /// No value twice.
    pub fn set(self) -> Schema<Vec<T>> {
        self.with("x-kubernetes-list-type", "set")
    }
}

/// A text of at most so many characters.
pub fn text(most: u64) -> Schema<Option<String>> {
    Schema::new(json!({"type": "string", "maxLength": most}))
}

/// An instant, as RFC 3339 has it.
pub fn time() -> Schema<Option<String>> {
    Schema::new(json!({"type": "string", "format": "date-time"}))
}

/// A whole number.
pub fn int<T>(least: i64, most: i64) -> Schema<Option<T>> {
    Schema::new(json!({"type": "integer", "minimum": least, "maximum": most}))
}

/// A count or a size, which Holdfast writes.
pub fn count() -> Schema<Option<u64>> {
    Schema::new(json!({"type": "integer", "format": "int64", "minimum": 0}))
}

/// Yes or no.
pub fn flag() -> Schema<Option<bool>> {
    Schema::new(json!({"type": "boolean"}))
}

/// One of some texts.
pub fn one_of<T: Choice>() -> Schema<Option<T>> {
    Schema::new(json!({"type": "string", "enum": T::ALL}))
}

/// A list of at most so many.
pub fn list<T>(item: Schema<Option<T>>, most: u64) -> Schema<Vec<T>> {
    Schema::new(json!({"type": "array", "maxItems": most, "items": item.json}))
}

/// A map of at most so many, from texts.
pub fn map<T>(value: Schema<Option<T>>, most: u64) -> Schema<BTreeMap<String, T>> {
    Schema::new(json!({"type": "object", "maxProperties": most, "additionalProperties": value.json}))
}

/// An object with the fields of a record.
pub fn record<T: Record>() -> Schema<Option<T>> {
    let fields = T::fields();
    let mut json = json!({"type": "object"});
    let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.name.as_str()).collect();
    if !required.is_empty() {
        json["required"] = json!(required);
    }
    let mut properties = Map::new();
    for field in &fields {
        properties.insert(field.name.clone(), Value::Object(field.json.clone()));
    }
    json["properties"] = Value::Object(properties);
    T::rules().into_iter().fold(Schema::new(json), Schema::rule)
}

/// An object with the fields of a record that can be left out, so that it is always there. Its default names every default of a field:
/// a server asks the rules about a default as it is written, before anything is filled in.
pub fn filled<T: Record>() -> Schema<T> {
    let fields = T::fields();
    let defaults = fields.iter().filter_map(|f| Some((f.name.clone(), f.json.get("default")?.clone())));
    record::<T>().default(defaults.collect::<Map<String, Value>>())
}

/// An object that is kept as it is and read by somebody else.
pub fn any() -> Schema<Option<Value>> {
    Schema::new(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))
}

/// The object with these properties, whose Rust type is the JSON itself: another part reads it, and has the last word.
pub fn foreign(properties: Value) -> Schema<Option<Value>> {
    Schema::new(json!({"type": "object", "properties": properties}))
}

impl<T> Schema<T> {
    /// The schema as JSON.
    pub fn into_json(self) -> Value {
        Value::Object(self.json)
    }
}

/// A struct and its schema from one table. A row: `name: type = schema, "what it is for";`.
macro_rules! object {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $($(#[$at:meta])* $field:ident: $type:ty = $schema:expr, $doc:literal;)*
        }
        $(rules $rules:expr)?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $(
                #[doc = $doc]
                $(#[$at])*
                #[serde(skip_serializing_if = "crate::schema::Absent::is_absent")]
                pub $field: $type,
            )*
        }

        impl crate::schema::Absent for $name {}

        impl crate::schema::Record for $name {
            fn fields() -> Vec<crate::schema::Field> {
                vec![$({
                    let schema: crate::schema::Schema<$type> = $schema;
                    crate::schema::Field::of(stringify!($field), $doc, schema)
                }),*]
            }

            fn rules() -> Vec<crate::schema::Rule> {
                let none: [crate::schema::Rule; 0] = [];
                none.into_iter()$(.chain($rules))?.collect()
            }
        }
    };
}

/// An enum of texts. A row: `Variant = "text", "what it is";`.
macro_rules! choice {
    ($(#[doc = $about:literal])+ $name:ident { $($variant:ident = $text:literal, $doc:literal;)* }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(
                #[doc = $doc]
                #[serde(rename = $text)]
                $variant,
            )*
        }

        impl $name {
            /// As it stands in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }

        impl crate::schema::Absent for $name {}

        impl crate::schema::Choice for $name {
            const ALL: &'static [&'static str] = &[$($text),*];
        }
    };
}

pub(crate) use {choice, object};

#[cfg(test)]
mod tests {
    use super::*;

    object! {
        /// A thing.
        Thing {
            size: u32 = int(1, 9).default(3), "How large.";
            r#type: String = text(8).required(), "Of which sort.";
            time_zone: Option<String> = text(8), "Where.";
            #[serde(default)]
            parts: Vec<String> = list(text(4), 2), "Of what.";
        }
        rules [Rule::frozen::<Thing>(&["parts", "size"], "make another thing")]
    }

    #[test]
    fn a_row_is_a_field_and_its_schema() {
        let schema = record::<Thing>().into_json();
        assert_eq!(schema["required"], json!(["type"]));
        assert_eq!(
            schema["properties"]["size"],
            json!({"description": "How large.", "type": "integer", "minimum": 1, "maximum": 9, "default": 3})
        );
        assert_eq!(
            schema["properties"]["parts"],
            json!({"description": "Of what.", "type": "array", "maxItems": 2,
                "items": {"type": "string", "maxLength": 4}})
        );
        assert_eq!(filled::<Thing>().into_json()["default"], json!({"size": 3}));
        assert_eq!(
            schema["x-kubernetes-validations"],
            json!([{"message": "make another thing", "rule":
                "has(self.type) == has(oldSelf.type) && (!has(self.type) || self.type == oldSelf.type) && \
                 has(self.timeZone) == has(oldSelf.timeZone) && (!has(self.timeZone) || self.timeZone == oldSelf.timeZone)"}])
        );
        let read: Thing = serde_json::from_value(json!({"size": 3, "type": "a"})).unwrap();
        assert_eq!(read, Thing { size: 3, r#type: "a".into(), time_zone: None, parts: vec![] });
        assert_eq!(serde_json::to_value(&read).unwrap(), json!({"size": 3, "type": "a"}));
        assert!(serde_json::from_value::<Thing>(json!({"size": 3})).is_err(), "required is required");
    }
}
