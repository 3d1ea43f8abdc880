//! Does a custom resource fit its schema? The words are those of a real server.
//!
//! Rules in CEL are asked afterwards ([`crate::rules`]), about objects that fit.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use crate::status::Cause;

/// Checks a custom resource against its schema.
pub fn validate(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() {
        if schema["nullable"] != json!(true) && schema.get("type").is_some() {
            let want = schema["type"].as_str().unwrap_or("");
            causes.push(Cause::type_invalid(
                path,
                &json!("null"),
                format!("{path} in body must be of type {want}: \"null\""),
            ));
        }
        return;
    }
    if schema["x-kubernetes-int-or-string"] == json!(true) {
        if !value.is_string() && !value.is_i64() {
            causes.push(Cause::type_invalid(path, value, "must be an integer or a string"));
        }
        return;
    }
    let want = schema["type"].as_str().unwrap_or("");
    let fits = match want {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        "number" => value.is_number(),
        _ => true,
    };
    if !fits {
        let got = match value {
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            _ => "object",
        };
        let why = format!("{path} in body must be of type {want}: \"{got}\"");
        causes.push(Cause::type_invalid(path, &json!(got), why));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let texts: Vec<String> =
            allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        causes.push(Cause::unsupported(path, value, &texts));
    }
    if !fits {
        return;
    }
    combined(schema, value, path, causes);
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let exclusive = |key: &str| schema.get(key) == Some(&json!(true));
    // What is counted is told by its number; members, for some reason, by the bound.
    let mut measure = |[least, most, unit]: [&str; 3], low: &str, high: &str, got: f64| {
        let told = |bound: f64| match low {
            "minItems" => json!(got as i64),
            "minProperties" => json!(bound as i64),
            _ => value.clone(),
        };
        let (over, under) = (
            low == "minimum" && exclusive("exclusiveMinimum"),
            high == "maximum" && exclusive("exclusiveMaximum"),
        );
        if let Some(low) = bound(low).filter(|low| got < *low || (over && got == *low)) {
            let least = if over { "be greater than" } else { least };
            let why = format!("{path} in body should {least} {low}{unit}");
            causes.push(Cause::invalid(path, &told(low), why));
        }
        if let Some(high) = bound(high).filter(|high| got > *high || (under && got == *high)) {
            let most = if under { "be less than" } else { most };
            let why = format!("{path} in body should {most} {high}{unit}");
            causes.push(Cause::invalid(path, &told(high), why));
        }
    };
    match value {
        Value::Number(number) => {
            measure(
                ["be greater than or equal to", "be less than or equal to", ""],
                "minimum",
                "maximum",
                number.as_f64().unwrap_or(0.0),
            );
            if let Some(step) = schema.get("multipleOf").and_then(Value::as_f64).filter(|step| *step > 0.0) {
                let parts = number.as_f64().unwrap_or(0.0) / step;
                if (parts - parts.round()).abs() > 1e-9 {
                    causes.push(Cause::invalid(
                        path,
                        value,
                        format!("{path} in body should be a multiple of {step}"),
                    ));
                }
            }
        }
        Value::String(text) => {
            measure(
                ["be at least", "be at most", " chars long"],
                "minLength",
                "maxLength",
                text.chars().count() as f64,
            );
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && let Ok(fits) = regex::Regex::new(pattern)
                && !fits.is_match(text)
            {
                causes.push(Cause::invalid(path, value, format!("{path} in body should match '{pattern}'")));
            }
            if let Some(format) = schema.get("format").and_then(Value::as_str)
                && !has_format(format, text)
            {
                let why = format!("{path} in body must be of type {format}: {value}");
                causes.push(Cause::type_invalid(path, value, why));
            }
        }
        Value::Array(items) => {
            measure(["have at least", "have at most", " items"], "minItems", "maxItems", items.len() as f64);
            let lists = schema.get("x-kubernetes-list-type").and_then(Value::as_str).unwrap_or("");
            if schema.get("uniqueItems") == Some(&json!(true))
                && items.iter().enumerate().any(|(at, item)| items[..at].contains(item))
            {
                causes.push(Cause::invalid(
                    path,
                    value,
                    format!("{path} in body shouldn't contain duplicates"),
                ));
            }
            if lists == "set" || lists == "map" {
                duplicates(schema, items, path, causes);
            }
            if let Some(inner) = schema.get("items") {
                for (at, item) in items.iter().enumerate() {
                    validate(inner, item, &format!("{path}[{at}]"), causes);
                }
            }
        }
        Value::Object(map) => {
            // The word is the plural whatever the number.
            measure(
                ["have at least", "have at most", " properties"],
                "minProperties",
                "maxProperties",
                map.len() as f64,
            );
            validate_map(schema, map, path, causes);
        }
        _ => {}
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`, which only restrict values further.
fn combined(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let among = |key: &str| {
        let list = schema.get(key).and_then(Value::as_array)?;
        let fitting = list.iter().filter(|inner| fits(inner, value, path)).count();
        Some((list.len(), fitting))
    };
    // A real server names no field for these.
    let tell = |why: String, causes: &mut Vec<Cause>| {
        causes.push(Cause::invalid("<nil>", &json!(""), format!("\"{path}\" {why}")));
    };
    // Where nothing fits, what is wrong with the nearest alternative helps.
    let nearest = |key: &str, causes: &mut Vec<Cause>| {
        let list = schema.get(key).and_then(Value::as_array).into_iter().flatten();
        let wrong = list.map(|inner| {
            let mut wrong = Vec::new();
            validate(inner, value, path, &mut wrong);
            wrong
        });
        causes.extend(wrong.min_by_key(Vec::len).into_iter().flatten());
    };
    if let Some((all, fitting)) = among("allOf")
        && fitting < all
    {
        let none = if fitting == 0 { ". None validated" } else { "" };
        tell(format!("must validate all the schemas (allOf){none}"), causes);
    }
    if let Some((_, 0)) = among("anyOf") {
        tell("must validate at least one schema (anyOf)".into(), causes);
        nearest("anyOf", causes);
    }
    match among("oneOf") {
        Some((_, 0)) => {
            tell("must validate one and only one schema (oneOf). Found none valid".into(), causes);
            nearest("oneOf", causes);
        }
        Some((_, many)) if many > 1 => {
            let why =
                format!("must validate one and only one schema (oneOf). Found {many} valid alternatives");
            tell(why, causes);
        }
        _ => {}
    }
    if let Some(inner) = schema.get("not").filter(|inner| inner.is_object())
        && fits(inner, value, path)
    {
        tell("must not validate the schema (not)".into(), causes);
    }
}

fn fits(schema: &Value, value: &Value, path: &str) -> bool {
    let mut causes = Vec::new();
    validate(schema, value, path, &mut causes);
    causes.is_empty()
}

/// A set holds each value once, a list by keys each key once.
fn duplicates(schema: &Value, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let keys: Vec<&str> = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let identity = |item: &Value| -> Value {
        if keys.is_empty() {
            return item.clone();
        }
        let mut identity = Map::new();
        for key in &keys {
            let default = || schema["items"]["properties"][*key]["default"].clone();
            let own = item.get(*key).cloned().unwrap_or_else(default);
            if !own.is_null() {
                identity.insert((*key).to_string(), own);
            }
        }
        Value::Object(identity)
    };
    let all: Vec<Value> = items.iter().map(identity).collect();
    for (at, item) in all.iter().enumerate() {
        if all[..at].contains(item) {
            causes.push(Cause::duplicate(format!("{path}[{at}]"), item));
        }
    }
}

/// Formats a real server checks; any other says nothing.
fn has_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => crate::cel::is_duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => {
            let Some((ip, bits)) = text.split_once('/') else { return false };
            let most = if ip.contains(':') { 128 } else { 32 };
            ip.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
        }
        "uuid" | "uuid3" | "uuid4" | "uuid5" => {
            let bare = text.replace('-', "");
            bare.len() == 32 && bare.bytes().all(|b| b.is_ascii_hexdigit())
        }
        "byte" => super::is_base64(text),
        "hostname" => {
            !text.is_empty()
                && text.len() <= 255
                && text.split('.').all(|part| {
                    (1..=63).contains(&part.len())
                        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                        && !part.starts_with('-')
                        && !part.ends_with('-')
                })
        }
        "email" => text.split_once('@').is_some_and(|(who, at)| !who.is_empty() && !at.is_empty()),
        "uri" => text.contains(':') || text.starts_with('/'),
        "mac" => {
            let parts: Vec<&str> = text.split([':', '-']).collect();
            parts.len() == 6 && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
        }
        _ => true,
    }
}

fn validate_map(schema: &Value, map: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    let at = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(key) {
            causes.push(Cause::required(at(key), ""));
        }
    }
    for (key, inner) in map {
        // The API server itself answers for these, whatever the schema says.
        if path.is_empty() && matches!(key.as_str(), "metadata" | "apiVersion" | "kind") {
            continue;
        }
        if let Some(property) = schema["properties"].get(key) {
            validate(property, inner, &at(key), causes);
        } else if let Some(more @ Value::Object(_)) = schema.get("additionalProperties") {
            validate(more, inner, &at(key), causes);
        }
    }
}
