//! Label selectors, in the three ways people write them: `app=web,tier in (a,b)` on a command line, a
//! LabelSelector in a spec, and a plain map in a Service.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::object::string_map;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Need {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    Absent,
}

/// A label selector. Empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Vec<(String, Need)>);

impl Selector {
    /// Does it select everything?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every label of a map, as it is.
    pub fn equals(labels: &BTreeMap<String, String>) -> Selector {
        Selector(labels.iter().map(|(k, v)| (k.clone(), Need::In([v.clone()].into()))).collect())
    }

    /// A plain map of labels, as in a Service or a Stork rule.
    pub fn from_map(value: Option<&Value>) -> Selector {
        Selector::equals(&string_map(value))
    }

    /// A LabelSelector: `matchLabels` and `matchExpressions`. An operator we do not know selects nothing.
    pub fn from_json(value: &Value) -> Selector {
        let mut needs = Selector::from_map(value.get("matchLabels")).0;
        for expression in
            value.get("matchExpressions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
        {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or("");
            let values = || -> BTreeSet<String> {
                let list = expression.get("values").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
            };
            let need = match text("operator") {
                "In" => Need::In(values()),
                "NotIn" => Need::NotIn(values()),
                "Exists" => Need::Exists,
                "DoesNotExist" => Need::Absent,
                _ => Need::In(BTreeSet::new()),
            };
            needs.push((text("key").to_owned(), need));
        }
        Selector(needs)
    }

    /// `app=web,tier!=cache,env in (a,b),env notin (c),gpu,!spot`. The error says which part and why.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let mut needs = Vec::new();
        for part in split(text) {
            needs.push(requirement(part.trim())?);
        }
        Ok(Selector(needs))
    }

    /// A label that everything it selects has, to look for candidates by.
    pub fn one_label(&self) -> Option<(&str, &str)> {
        self.0.iter().find_map(|(key, need)| match need {
            Need::In(set) if set.len() == 1 => Some((key.as_str(), set.first()?.as_str())),
            _ => None,
        })
    }

    /// Does it select an object with these labels?
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selects(|name| labels.get(name).map(String::as_str))
    }

    /// The same, with the labels looked up one by one.
    pub fn selects<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.0.iter().all(|(key, need)| match (need, label(key)) {
            (Need::In(set), Some(value)) => set.contains(value),
            (Need::In(_), None) => false,
            // As in Kubernetes: `!=` and `notin` also select what has no such label.
            (Need::NotIn(set), value) => value.is_none_or(|value| !set.contains(value)),
            (Need::Exists, value) => value.is_some(),
            (Need::Absent, value) => value.is_none(),
        })
    }
}

/// As [`Selector::parse`] reads it.
impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |set: &BTreeSet<String>| set.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let parts = self.0.iter().map(|(key, need)| match need {
            Need::In(set) => format!("{key} in ({})", list(set)),
            Need::NotIn(set) => format!("{key} notin ({})", list(set)),
            Need::Exists => key.clone(),
            Need::Absent => format!("!{key}"),
        });
        f.write_str(&parts.collect::<Vec<_>>().join(","))
    }
}

/// Splits at commas outside parentheses; an empty text has no part.
fn split(text: &str) -> Vec<&str> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Result<(String, Need), String> {
    let wrong = |why: &str| format!("label selector {part:?}: {why}");
    let key_of = |key: &str| {
        let key = key.trim();
        let fine = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        if fine {
            Ok(key.to_owned())
        } else {
            Err(wrong("the key is empty or has a character labels cannot have"))
        }
    };
    let value_of = |value: &str| {
        let value = value.trim();
        let fine = value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if fine { Ok(value.to_owned()) } else { Err(wrong("the value has a character labels cannot have")) }
    };
    if let Some(rest) = part.strip_suffix(')') {
        let Some((head, list)) = rest.split_once('(') else { return Err(wrong("a ) without (")) };
        let values = list.split(',').map(value_of).collect::<Result<BTreeSet<_>, _>>()?;
        let head = head.trim_end();
        return match head.rsplit_once(char::is_whitespace) {
            Some((key, "in")) => Ok((key_of(key)?, Need::In(values))),
            Some((key, "notin")) => Ok((key_of(key)?, Need::NotIn(values))),
            _ => Err(wrong("before ( there must be `in` or `notin`")),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok((key_of(key)?, Need::NotIn([value_of(value)?].into())));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok((key_of(key)?, Need::In([value_of(value)?].into())));
    }
    match part.strip_prefix('!') {
        Some(key) => Ok((key_of(key)?, Need::Absent)),
        None => Ok((key_of(part)?, Need::Exists)),
    }
}

/// Does a name match a pattern with `*` (any run) and `?` (any one character)?
pub fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go back to: the last star and how much of the name it took.
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match back {
                Some((star, taken)) => {
                    back = Some((star, taken + 1));
                    p = star + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn a_selector_selects_as_kubectl_does() {
        for (selector, object, selected) in [
            ("", "app=web", true),
            ("app=web", "app=web,tier=a", true),
            ("app==web", "app=db", false),
            ("app!=web", "app=db", true),
            ("app!=web", "tier=a", true),
            ("app in (web, db),tier", "app=db,tier=a", true),
            ("app in (web,db),tier", "app=db", false),
            ("app notin (web)", "app=web", false),
            ("!spot", "app=web", true),
            ("!spot", "spot=", false),
            ("app.kubernetes.io/part-of=shop", "app.kubernetes.io/part-of=shop", true),
            ("app=", "app=", true),
        ] {
            assert_eq!(
                Selector::parse(selector).unwrap().matches(&labels(object)),
                selected,
                "{selector} on {object}"
            );
        }
    }

    #[test]
    fn a_malformed_selector_says_where() {
        for (selector, part) in [
            ("app in web,db)", "\"app in web\""),
            ("a=b,=c", "\"=c\""),
            ("a=b c", "\"a=b c\""),
            ("app of (x)", "\"app of (x)\""),
            ("a,,b", "\"\""),
        ] {
            let error = Selector::parse(selector).unwrap_err();
            assert!(error.contains(part), "{selector}: {error}");
        }
    }

    #[test]
    fn a_spec_selector_is_the_same() {
        let selector = Selector::from_json(&json!({"matchLabels":{"app":"web"},"matchExpressions":[
            {"key":"tier","operator":"In","values":["a","b"]},{"key":"spot","operator":"DoesNotExist"}]}));
        assert!(selector.matches(&labels("app=web,tier=b")));
        assert!(!selector.matches(&labels("app=web,tier=c")));
        assert!(!selector.matches(&labels("app=web,tier=a,spot=1")));
        assert!(
            !Selector::from_json(&json!({"matchExpressions":[{"key":"a","operator":"Gt"}]}))
                .matches(&labels("a=1"))
        );
    }

    #[test]
    fn globs() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("shop-*", "shop-eu", true),
            ("shop-*", "shop", false),
            ("*-prod", "a-prod-prod", true),
            ("s?op", "shop", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
        ] {
            assert_eq!(glob(pattern, name), fits, "{pattern} {name}");
        }
    }
}
