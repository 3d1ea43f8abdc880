//! The rules of a definition (`x-kubernetes-validations`): compiled when it is stored, asked at every write.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cel::{self, Expr, Type, Val};
use crate::schema;
use crate::status::Cause;

/// The compiled expressions of a schema, by their text.
pub type Compiled = Arc<BTreeMap<String, Expr>>;

const VARIABLES: &[&str] = &["self", "oldSelf"];

/// Steps that all rules about one object may take together: ten times what one expression may.
const STEPS_MAX: u64 = 20_000_000;

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

/// Whether one expression of a rule can be compiled, with the types its schema tells, and answers with what it must.
fn compiled(schema: &Value, rule: &Value, key: &str, is_root: bool) -> Result<(), String> {
    let error = |why: String| format!("ERROR: {why}");
    let expr = cel::compile(text(rule, key), VARIABLES).map_err(error)?;
    let own = Type::of(schema, is_root);
    let is_optional = rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false);
    let old = if is_optional { own.clone().optional() } else { own.clone() };
    let answers = cel::check(&expr, &[("self", own), ("oldSelf", old)]).map_err(error)?;
    let (wanted, word) =
        if key == "rule" { ("bool", "cel expression") } else { ("string", "messageExpression") };
    match answers.may_be(&Type::Plain(wanted)) {
        true => Ok(()),
        false => Err(format!("{word} must evaluate to a {wanted}")),
    }
}

/// Whether a default fits its own schema, rules included. It is judged as it is written: other defaults inside it are not filled in.
fn default_fits(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(default) = schema.get("default") else { return };
    let mut known = default.clone();
    if !schema::prune(schema::nested(schema), &mut known).is_empty() {
        causes.push(Cause::invalid(path, default, "must not have unknown fields"));
    }
    // The sentence tells the place within the default, the field all of it.
    let mut own = Vec::new();
    schema::validate(schema, default, "", &mut own);
    if own.is_empty() {
        return validate(&compile(schema), schema, None, default, path, causes);
    }
    causes.extend(own.into_iter().map(|cause| {
        let dot = if cause.field.is_empty() || cause.field.starts_with('[') { "" } else { "." };
        Cause { field: format!("{path}{dot}{}", cause.field), ..cause }
    }));
}

/// What is wrong with the defaults, rules and patterns of a definition's schema.
pub fn check_definition(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let root = path.to_owned();
    let before = causes.len();
    each(schema, path, &mut |schema, path| default_fits(schema, &format!("{path}.default"), causes));
    // As on a real server: of defaults that do not fit, rules are not even read.
    if causes.len() > before {
        return;
    }
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
                if let Err(why) = compiled(schema, rule, key, path == root) {
                    let shown = if key == "rule" { rule.clone() } else { json!(expression) };
                    causes.push(Cause::invalid(
                        format!("{here}.{key}"),
                        &shown,
                        format!("compilation failed: {why}"),
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
    Judge { compiled, left: STEPS_MAX, causes }.object(schema, old, new, path);
}

/// Asks rule after rule, as long as there are steps left.
struct Judge<'c> {
    compiled: &'c Compiled,
    left: u64,
    causes: &'c mut Vec<Cause>,
}

impl Judge<'_> {
    fn object(&mut self, schema: &Value, old: Option<&Value>, new: &Value, path: &str) {
        for rule in rules(schema) {
            if self.left == 0 {
                return;
            }
            self.ask(schema, rule, old, new, path);
            if self.left == 0 {
                let why = "validation failed due to running out of cost budget, no further validation rules will be run";
                self.causes.push(Cause::invalid(field_of(path), &json!(text(schema, "type")), why));
            }
        }
        match new {
            Value::Object(map) => {
                for (key, inner) in map {
                    let below = schema.get("properties").and_then(|p| p.get(key));
                    let below =
                        below.or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()));
                    let Some(below) = below else { continue };
                    let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.object(below, old.and_then(|o| o.get(key)), inner, &here);
                }
            }
            Value::Array(items) => {
                let Some(below) = schema.get("items") else { return };
                let olds = old.and_then(Value::as_array);
                for (at, item) in items.iter().enumerate() {
                    // Only a list by keys says which of its elements is the same as before.
                    let before = correlated(schema, olds, item);
                    self.object(below, before, item, &format!("{path}[{at}]"));
                }
            }
            _ => {}
        }
    }

    fn ask(&mut self, schema: &Value, rule: &Value, old: Option<&Value>, new: &Value, path: &str) {
        let expression = text(rule, "rule");
        let Some(expr) = self.compiled.get(expression) else { return };
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
        let why = match cel::evaluate_within(expr, &variables, &mut self.left) {
            Ok(value) if value.as_bool() == Some(true) => return,
            Ok(value) if value.as_bool() == Some(false) => {
                let own = self.compiled.get(text(rule, "messageExpression"));
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
        let field = field_of(&format!("{path}{}", text(rule, "fieldPath")));
        let shown = json!(text(schema, "type"));
        self.causes.push(match text(rule, "reason") {
            "FieldValueForbidden" => Cause::forbidden(field, &why),
            "FieldValueRequired" => Cause::required(field, &why),
            "FieldValueDuplicate" => Cause::duplicate(field, &shown),
            _ => Cause::invalid(field, &shown, why),
        });
    }
}

/// A field as causes tell it.
fn field_of(path: &str) -> String {
    let field = path.trim_start_matches('.');
    if field.is_empty() { "<nil>".to_string() } else { field.to_string() }
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

    #[test]
    fn a_rule_that_no_object_could_pass_is_refused_with_its_definition() {
        let refused = |rule: Value, expect: &str| {
            let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}},
                "x-kubernetes-validations": [rule]});
            let mut causes = Vec::new();
            check_definition(&schema, "schema", &mut causes);
            let told: Vec<&str> = causes.iter().map(|cause| cause.message.as_str()).collect();
            match expect {
                "" => assert!(told.is_empty(), "{told:?}"),
                expect => assert!(told.len() == 1 && told[0].contains(expect), "{told:?}, expected {expect}"),
            }
        };
        refused(json!({"rule": "self.n + 1 == size(self.a)"}), "");
        refused(
            json!({"rule": "self.n + self.a == 'x'"}),
            "compilation failed: ERROR: found no matching overload for '_+_' applied to '(int, string)'",
        );
        refused(json!({"rule": "self.a"}), "compilation failed: cel expression must evaluate to a bool");
        refused(
            json!({"rule": "self.n > 1", "messageExpression": "self.n"}),
            "compilation failed: messageExpression must evaluate to a string",
        );
        refused(json!({"rule": "self.n >= oldSelf.n"}), "");
        refused(json!({"rule": "self.n >= oldSelf.n.value()", "optionalOldSelf": true}), "");
        refused(json!({"rule": "self.n >= oldSelf.value().n", "optionalOldSelf": true}), "");
        refused(
            json!({"rule": "self.n >= oldSelf.n", "optionalOldSelf": true}),
            "no matching overload for '_>=_'",
        );
    }

    #[test]
    fn a_default_that_breaks_its_own_rule_is_refused_as_it_is_written() {
        let refused = |default: Value, expect: &[&str]| {
            let from = json!({"type": "object", "default": default, "properties": {
                "from": {"type": "string", "default": "Same"}, "selector": {"type": "object"}},
                "x-kubernetes-validations": [{"rule": "(self.from == 'Some') == has(self.selector)", "message": "selector goes with Some"}]});
            let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"allowed": from}}}});
            let mut causes = Vec::new();
            check_definition(&schema, "schema", &mut causes);
            let told: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(told, expect);
        };
        refused(json!({"from": "Same"}), &[]);
        let at = "schema.properties[spec].properties[allowed].default";
        // The default of `from` comes later.
        refused(
            json!({}),
            &[&format!(
                "{at}: Invalid value: \"object\": no such key: from evaluating rule: selector goes with Some"
            )],
        );
        refused(
            json!({"from": "Some"}),
            &[&format!("{at}: Invalid value: \"object\": selector goes with Some")],
        );
        refused(
            json!({"from": 1}),
            &[&format!(
                "{at}.from: Invalid value: \"integer\": from in body must be of type string: \"integer\""
            )],
        );
        refused(
            json!({"from": "Same", "form": "x"}),
            &[&format!(
                "{at}: Invalid value: {{\"from\":\"Same\",\"form\":\"x\"}}: must not have unknown fields"
            )],
        );
    }

    #[test]
    fn the_rules_about_one_object_are_bounded_together() {
        let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer",
            "x-kubernetes-validations": [{"rule": "[1, 2, 3, 4, 5, 6, 7, 8].all(a, [1, 2, 3, 4, 5, 6, 7, 8].all(b, [1, 2, 3, 4, 5, 6, 7, 8].all(c, a + b + c + self >= 0)))"}]}}}});
        let mut causes = Vec::new();
        let few = json!({"l": vec![1; 100]});
        validate(&compile(&schema), &schema, None, &few, "", &mut causes);
        assert!(causes.is_empty(), "{}", causes[0].message);
        let many = json!({"l": vec![1; 100_000]});
        validate(&compile(&schema), &schema, None, &many, "", &mut causes);
        let told = causes.last().unwrap();
        assert!(told.message.contains("running out of cost budget") && causes.len() <= 2, "{}", told.message);
    }
}
