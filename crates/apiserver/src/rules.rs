//! The rules of a definition (`x-kubernetes-validations`): compiled when it is stored, asked at every write.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cel::{self, Expr, Val};
use crate::status::Cause;

/// The compiled expressions of a schema, by their text.
pub type Compiled = Arc<BTreeMap<String, Expr>>;

const VARIABLES: &[&str] = &["self", "oldSelf"];

fn rules(schema: &Value) -> impl Iterator<Item = &Value> {
    schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

/// Every schema inside a schema, with the path definitions are told about it.
fn each<'a>(schema: &'a Value, path: &str, seen: &mut dyn FnMut(&'a Value, &str)) {
    seen(schema, path);
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        each(inner, &format!("{path}.properties[{name}]"), seen);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(key).filter(|inner| inner.is_object()) {
            each(inner, &format!("{path}.{key}"), seen);
        }
    }
}

/// Compiles what can be compiled. What cannot was refused when the definition was made, or is of a snapshot,
/// which is only looked at.
pub fn compile(schema: &Value) -> Compiled {
    let mut compiled = BTreeMap::new();
    each(schema, "", &mut |schema, _| {
        for rule in rules(schema) {
            for part in ["rule", "messageExpression"].map(|key| text(rule, key)) {
                if !part.is_empty()
                    && let Ok(expr) = cel::compile(part, VARIABLES)
                {
                    compiled.insert(part.to_string(), expr);
                }
            }
        }
    });
    Arc::new(compiled)
}

/// A field of the object that its schema does not have. Types are not checked before a rule runs; this is what people mistype,
/// and what no object could ever pass.
fn undefined_field(expr: &Expr, schema: &Value, is_root: bool) -> Option<String> {
    let mut found = None;
    cel::visit(expr, &mut |part| {
        if let Expr::Select { of, field, .. } | Expr::Has { of, field } = part
            && let Some(within) = schema_of(of, schema)
            && within.get("properties").is_some()
            && !has_field(within, field, is_root && matches!(&**of, Expr::Name(_)))
        {
            found.get_or_insert_with(|| format!("undefined field '{field}'"));
        }
    });
    found
}

/// The schema of what `self.a.b` leads to; none if that is not known.
fn schema_of<'s>(expr: &Expr, schema: &'s Value) -> Option<&'s Value> {
    match expr {
        Expr::Name(name) if name == "self" => Some(schema),
        Expr::Select { of, field, .. } => schema_of(of, schema)?.get("properties")?.get(cel::unescape(field)),
        _ => None,
    }
}

fn has_field(schema: &Value, field: &str, is_root: bool) -> bool {
    let field = cel::unescape(field);
    let is = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
    // Every object has these, whether its schema says so or not.
    let is_own = is_root || is("x-kubernetes-embedded-resource");
    schema.get("properties").and_then(|known| known.get(&field)).is_some()
        || schema.get("additionalProperties").is_some_and(|more| *more != json!(false))
        || is("x-kubernetes-preserve-unknown-fields")
        || is_own && matches!(field.as_str(), "apiVersion" | "kind" | "metadata")
}

/// What is wrong with the rules and patterns of a definition's schema.
pub fn check_definition(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let root = path.to_owned();
    each(schema, path, &mut |schema, path| {
        for (at, rule) in rules(schema).enumerate() {
            let here = format!("{path}.x-kubernetes-validations[{at}]");
            if text(rule, "rule").trim().is_empty() {
                causes.push(Cause::required(format!("{here}.rule"), ""));
            }
            for key in ["rule", "messageExpression"] {
                let expression = text(rule, key);
                if expression.trim().is_empty() {
                    continue;
                }
                let checked = cel::compile(expression, VARIABLES)
                    .and_then(|expr| undefined_field(&expr, schema, path == root).map_or(Ok(()), Err));
                if let Err(why) = checked {
                    let shown = if key == "rule" { rule.clone() } else { json!(expression) };
                    causes.push(Cause::invalid(
                        format!("{here}.{key}"),
                        &shown,
                        format!("compilation failed: ERROR: {why}"),
                    ));
                }
            }
        }
        let pattern = text(schema, "pattern");
        if !pattern.is_empty()
            && let Err(why) = regex::Regex::new(pattern)
        {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            causes.push(Cause::invalid(format!("{path}.pattern"), &json!(pattern), why));
        }
    });
}

/// Asks every rule about an object that fits its schema otherwise.
pub fn validate(
    compiled: &Compiled,
    schema: &Value,
    old: Option<&Value>,
    new: &Value,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    for rule in rules(schema) {
        ask(compiled, schema, rule, old, new, path, causes);
    }
    match new {
        Value::Object(map) => {
            for (key, inner) in map {
                let below = schema.get("properties").and_then(|p| p.get(key));
                let below = below.or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()));
                let Some(below) = below else { continue };
                let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                validate(compiled, below, old.and_then(|o| o.get(key)), inner, &here, causes);
            }
        }
        Value::Array(items) => {
            let Some(below) = schema.get("items") else { return };
            let olds = old.and_then(Value::as_array);
            for (at, item) in items.iter().enumerate() {
                // Only a list by keys says which of its elements is the same as before.
                let before = correlated(schema, olds, item);
                validate(compiled, below, before, item, &format!("{path}[{at}]"), causes);
            }
        }
        _ => {}
    }
}

fn correlated<'a>(schema: &Value, olds: Option<&'a Vec<Value>>, item: &Value) -> Option<&'a Value> {
    if text(schema, "x-kubernetes-list-type") != "map" {
        return None;
    }
    let keys: Vec<&str> = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    olds?.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
}

fn ask(
    compiled: &Compiled,
    schema: &Value,
    rule: &Value,
    old: Option<&Value>,
    new: &Value,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let expression = text(rule, "rule");
    let Some(expr) = compiled.get(expression) else { return };
    let looks_back = cel::mentions(expr, "oldSelf");
    let optional = rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false);
    let mut variables = vec![("self", Val::json(new, Some(schema)))];
    match (looks_back, old, optional) {
        // What did not change is not judged again: a rule may be younger than the object.
        (false, Some(old), _) if old == new => return,
        (false, ..) => {}
        (true, None, false) => return,
        (true, old, true) => {
            let old = old.map(|old| std::rc::Rc::new(Val::json(old, Some(schema))));
            variables.push(("oldSelf", Val::Optional(old)));
        }
        (true, Some(old), false) => variables.push(("oldSelf", Val::json(old, Some(schema)))),
    }
    let why = match cel::evaluate(expr, &variables) {
        Ok(value) if value.as_bool() == Some(true) => return,
        Ok(value) if value.as_bool() == Some(false) => {
            let own = compiled.get(text(rule, "messageExpression"));
            let own = own.and_then(|expr| cel::evaluate(expr, &variables).ok());
            let own = own.as_ref().and_then(Val::as_text).map(str::to_string);
            own.filter(|own| !own.trim().is_empty()).unwrap_or_else(|| match text(rule, "message") {
                "" => format!("failed rule: {}", expression.trim()),
                message => message.to_string(),
            })
        }
        Ok(_) => "the rule does not answer with true or false".to_string(),
        // A real server names the rule by its message, if it has one.
        Err(why) => {
            let named = [text(rule, "message"), expression].into_iter().find(|name| !name.is_empty());
            format!("{why} evaluating rule: {}", named.unwrap_or("").trim())
        }
    };
    let field = format!("{path}{}", text(rule, "fieldPath"));
    let field = field.trim_start_matches('.').to_string();
    let field = if field.is_empty() { "<nil>".to_string() } else { field };
    let shown = json!(text(schema, "type"));
    causes.push(match text(rule, "reason") {
        "FieldValueForbidden" => Cause::forbidden(field, &why),
        "FieldValueRequired" => Cause::required(field, &why),
        "FieldValueDuplicate" => Cause::duplicate(field, &shown),
        _ => Cause::invalid(field, &shown, why),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: Value, old: Option<Value>, new: Value, expect: &[&str]) {
        let mut causes = Vec::new();
        validate(&compile(&schema), &schema, old.as_ref(), &new, "", &mut causes);
        let got: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        assert_eq!(got, expect, "{new}");
    }

    #[test]
    fn a_rule_names_its_field_and_says_what_its_author_wrote() {
        let schema = |rule: Value| {
            json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": [rule],
                "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}}}}})
        };
        let plain = schema(json!({"rule": "self.min <= self.max", "message": "min must not exceed max"}));
        check(plain.clone(), None, json!({"spec": {"min": 1, "max": 2}}), &[]);
        check(
            plain.clone(),
            None,
            json!({"spec": {"min": 3, "max": 2}}),
            &["spec: Invalid value: \"object\": min must not exceed max"],
        );
        check(
            plain,
            None,
            json!({"spec": {"min": 3}}),
            &["spec: Invalid value: \"object\": no such key: max evaluating rule: min must not exceed max"],
        );
        check(
            schema(
                json!({"rule": "self.max < 10", "messageExpression": "'at most 9, not ' + string(self.max)",
                "fieldPath": ".max", "reason": "FieldValueForbidden"}),
            ),
            None,
            json!({"spec": {"max": 12}}),
            &["spec.max: Forbidden: at most 9, not 12"],
        );
    }

    #[test]
    fn a_rule_about_the_past_is_asked_when_there_is_one() {
        let schema = json!({"type": "object", "properties": {
            "size": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "self >= oldSelf", "message": "cannot shrink"}]},
            "disks": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"class": {"type": "string", "x-kubernetes-validations": [
                    {"rule": "self == oldSelf", "message": "class is immutable"}]}}}}}});
        let old = json!({"size": 3, "disks": [{"name": "a", "class": "x"}, {"name": "b", "class": "y"}]});
        check(schema.clone(), None, json!({"size": 1}), &[]);
        check(schema.clone(), Some(old.clone()), json!({"size": 4}), &[]);
        check(
            schema.clone(),
            Some(old.clone()),
            json!({"size": 2, "disks": [{"name": "b", "class": "z"}, {"name": "c", "class": "z"}]}),
            &[
                "size: Invalid value: \"integer\": cannot shrink",
                "disks[0].class: Invalid value: \"string\": class is immutable",
            ],
        );
    }

    #[test]
    fn a_definition_with_a_rule_nobody_can_read_is_refused() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "(",
            "x-kubernetes-validations": [{"rule": "self.("}, {"rule": "nothing > 1"}, {}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {}}},
            "x-kubernetes-validations": [{"rule": "self.metadata.name == self.a && has(self.free.what)"},
                {"rule": "self.aa == 'x'"}, {"rule": "!has(self.b)"}]});
        let mut causes = Vec::new();
        check_definition(&schema, "spec.validation.openAPIV3Schema", &mut causes);
        let fields: Vec<&str> = causes.iter().map(|c| c.field.as_str()).collect();
        let root = "spec.validation.openAPIV3Schema";
        let at = "spec.validation.openAPIV3Schema.properties[a]";
        assert!(causes[0].message.contains("undefined field 'aa'"), "{}", causes[0].message);
        assert_eq!(
            fields,
            [
                &format!("{root}.x-kubernetes-validations[1].rule"),
                &format!("{root}.x-kubernetes-validations[2].rule"),
                &format!("{at}.x-kubernetes-validations[0].rule"),
                &format!("{at}.x-kubernetes-validations[1].rule"),
                &format!("{at}.x-kubernetes-validations[2].rule"),
                &format!("{at}.pattern"),
            ]
        );
    }
}
