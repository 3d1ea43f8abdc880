//! Cases of single fields, made from a definition: at each limit, just beyond it, of another type, missing, and not of its form.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{Case, samples};

/// All cases of a kind. Every field of the spec has to be in one of the samples.
pub fn cases(definition: &Value) -> Vec<Case> {
    let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut cases = Vec::new();
    let mut seen = BTreeSet::new();
    for (of, object) in samples::full().into_iter().chain(samples::more()) {
        if of == kind {
            let mut made = Maker { kind, object: &object, cases: &mut cases, seen: &mut seen };
            made.walk(schema, "/spec", "spec", "spec");
        }
    }
    let mut all = Vec::new();
    paths(schema, "spec", &mut all);
    // A lock stands before the cut only, so no valid object has one elsewhere; those before it have the same schema.
    for path in all.iter().filter(|path| !path.contains("post[].lock") && !path.contains("restore[].lock")) {
        assert!(seen.contains(path), "{kind}: no sample has {path}");
    }
    cases
}

/// The paths of all fields, lists without their indices.
fn paths(schema: &Value, path: &str, all: &mut Vec<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        paths(inner, &path, all);
        all.push(path);
    }
    if schema["items"].is_object() {
        let path = format!("{path}[]");
        paths(&schema["items"], &path, all);
        all.push(path);
    }
}

struct Maker<'a> {
    kind: &'a str,
    object: &'a Value,
    cases: &'a mut Vec<Case>,
    seen: &'a mut BTreeSet<String>,
}

impl Maker<'_> {
    /// `pointer` leads to the value, `field` is what messages call it, `path` is the field whatever the index.
    fn walk(&mut self, schema: &Value, pointer: &str, field: &str, path: &str) {
        let value = self.object.pointer(pointer).unwrap().clone();
        // Once for each field: a second element of a list adds nothing.
        if self.seen.insert(path.to_owned()) {
            self.at(schema, &value, pointer, field);
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            if value.get(name).is_some() {
                self.walk(
                    inner,
                    &format!("{pointer}/{name}"),
                    &format!("{field}.{name}"),
                    &format!("{path}.{name}"),
                );
            }
        }
        if let (Some(items), true) = (value.as_array(), schema["items"].is_object()) {
            for at in 0..items.len() {
                let path = format!("{path}[]");
                self.walk(&schema["items"], &format!("{pointer}/{at}"), &format!("{field}[{at}]"), &path);
            }
        }
    }

    /// With another value in the place of this one.
    fn with(&mut self, pointer: &str, field: &str, value: Value, expect: &str, by_rule: bool) {
        let mut new = self.object.clone();
        let shown: String = value.to_string().chars().take(60).collect();
        *new.pointer_mut(pointer).unwrap() = value;
        let expect = if expect.is_empty() { vec![] } else { vec![(field.to_owned(), expect.to_owned())] };
        let story = format!("{} {field} = {shown}", self.kind);
        self.cases.push(Case { story, kind: self.kind.to_owned(), old: None, new, expect, by_rule });
    }

    fn at(&mut self, schema: &Value, value: &Value, pointer: &str, field: &str) {
        let rules: Vec<(&str, &str)> = schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|rule| (rule["rule"].as_str().unwrap(), rule["message"].as_str().unwrap()))
            .collect();
        let number = |key: &str| schema[key].as_i64();
        // Of another type.
        let other = if schema["type"] == "string" { json!(1) } else { json!("x") };
        let want = schema["type"].as_str().unwrap();
        self.with(pointer, field, other, &format!("must be of type {want}"), false);
        for name in schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap()) {
            let mut less = value.clone();
            less.as_object_mut().unwrap().remove(name);
            let mut new = self.object.clone();
            *new.pointer_mut(pointer).unwrap() = less;
            let expect = vec![(format!("{field}.{name}"), "Required value".to_owned())];
            let story = format!("{} without {field}.{name}", self.kind);
            self.cases.push(Case {
                story,
                kind: self.kind.to_owned(),
                old: None,
                new,
                expect,
                by_rule: false,
            });
        }
        match want {
            "integer" => {
                if let Some(least) = number("minimum") {
                    self.with(pointer, field, json!(least), "", false);
                    let says = format!("should be greater than or equal to {least}");
                    self.with(pointer, field, json!(least - 1), &says, false);
                }
                if let Some(most) = number("maximum") {
                    self.with(pointer, field, json!(most), "", false);
                    let says = format!("should be less than or equal to {most}");
                    self.with(pointer, field, json!(most + 1), &says, false);
                }
            }
            "string" => self.text(schema, &rules, value, pointer, field),
            "array" => {
                let one = value[0].clone();
                if let Some(most) = number("maxItems") {
                    let many = (0..=most).map(|n| numbered(&schema["items"], &one, n)).collect::<Vec<_>>();
                    // A set of an enum cannot have more than there are.
                    if schema["items"]["enum"].is_null() {
                        self.with(pointer, field, json!(many[..many.len() - 1]), "", false);
                    }
                    self.with(
                        pointer,
                        field,
                        json!(many),
                        &format!("should have at most {most} items"),
                        false,
                    );
                }
                if number("minItems") == Some(1) {
                    self.with(pointer, field, json!([]), "should have at least 1 items", false);
                }
                if !schema["x-kubernetes-list-type"].is_null() {
                    let mut new = self.object.clone();
                    *new.pointer_mut(pointer).unwrap() = json!([one, one]);
                    let story = format!("{} {field} twice the same", self.kind);
                    let expect = vec![(format!("{field}[1]"), "Duplicate value".to_owned())];
                    self.cases.push(Case {
                        story,
                        kind: self.kind.to_owned(),
                        old: None,
                        new,
                        expect,
                        by_rule: false,
                    });
                }
            }
            "object" => {
                if let Some(most) = number("maxProperties") {
                    let one = value.as_object().unwrap().values().next().unwrap().clone();
                    let many = |n: i64| {
                        (0..n).map(|at| (format!("k{at}"), one.clone())).collect::<serde_json::Map<_, _>>()
                    };
                    self.with(pointer, field, json!(many(most)), "", false);
                    self.with(
                        pointer,
                        field,
                        json!(many(most + 1)),
                        &format!("should have at most {most} properties"),
                        false,
                    );
                    if let Some(longest) = schema["additionalProperties"]["maxLength"].as_u64() {
                        let key = value.as_object().unwrap().keys().next().unwrap().clone();
                        // Keys are paths in pointers and messages; those with a dot are left to the schema of the value.
                        let long = json!({ key.clone(): "x".repeat(longest as usize + 1) });
                        self.with(
                            pointer,
                            &format!("{field}.{key}"),
                            long,
                            &format!("should be at most {longest} chars long"),
                            false,
                        );
                        let fits = json!({ key: "x".repeat(longest as usize) });
                        self.with(pointer, field, fits, "", false);
                    }
                }
            }
            "boolean" => {}
            other => panic!("{field} is {other}"),
        }
    }

    fn text(&mut self, schema: &Value, rules: &[(&str, &str)], value: &Value, pointer: &str, field: &str) {
        if !schema["enum"].is_null() {
            self.with(pointer, field, json!("Nonsense"), "supported values", false);
            return;
        }
        if schema["format"] == "date-time" {
            self.with(pointer, field, json!("yesterday"), "must be of type date-time", false);
            return;
        }
        let most =
            schema["maxLength"].as_u64().unwrap_or_else(|| panic!("{field} has no maxLength")) as usize;
        let says = format!("should be at most {most} chars long");
        self.with(pointer, field, json!("a".repeat(most + 1)), &says, false);
        if schema["minLength"] == 1 {
            self.with(pointer, field, json!(""), "should be at least 1 chars long", false);
        }
        let formed: Vec<_> = rules.iter().filter(|(rule, _)| !rule.contains("oldSelf")).collect();
        if formed.is_empty() {
            self.with(pointer, field, json!("a".repeat(most)), "", false);
        }
        for (rule, message) in formed {
            // In no form of ours there is such a character.
            self.with(pointer, field, json!("§"), message, true);
            if let Some((least, most)) = limits(rule) {
                let more = format!("{most}1ms");
                let less = if least.ends_with("ms") { "99ms" } else { "0s" };
                self.with(pointer, field, json!(least), "", false);
                if field != "spec.schedules[0].jitter" {
                    self.with(pointer, field, json!(most), "", false);
                }
                self.with(pointer, field, json!(more), message, true);
                if less != least {
                    self.with(pointer, field, json!(less), message, true);
                }
                for form in ["1.5h", "-1m", "1h 5m", "5", "PT5M", "99999999h", ""] {
                    self.with(pointer, field, json!(form), message, true);
                }
            } else if rule.contains("[^ ]+$") || rule.contains("startsWith('") {
                let text = value.as_str().unwrap();
                self.with(
                    pointer,
                    field,
                    json!(format!("{text}{}", "a".repeat(most - text.len()))),
                    "",
                    false,
                );
            } else if value.as_str().is_some_and(|text| rule.contains("[-a-z0-9") && !text.contains('/'))
                && most > 32
            {
                self.with(pointer, field, json!("a".repeat(most)), "", false);
                for form in ["", "Shop", "-a", "a-", "a_b", "a b"] {
                    self.with(pointer, field, json!(form), message, true);
                }
            }
        }
    }
}

/// An element of a list that is unlike the others.
fn numbered(items: &Value, one: &Value, n: i64) -> Value {
    match one {
        Value::Object(map) if map.contains_key("name") && items["properties"]["name"]["maxLength"] == 32 => {
            let mut other = one.clone();
            other["name"] = json!(format!("n{n}"));
            other
        }
        // Ref as it is: lists of them are no sets.
        Value::String(text) if items["enum"].is_null() => json!(format!("{text}{n}")),
        other => other.clone(),
    }
}

/// The limits of a duration, from its rule.
fn limits(rule: &str) -> Option<(&str, &str)> {
    let after = |mark: &str| rule.split_once(mark)?.1.split_once('\'').map(|(text, _)| text);
    Some((after(">= duration('")?, after("<= duration('")?))
}
