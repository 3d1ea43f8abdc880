//! Changing a manifest's text so that it says something else, and leaving the rest as people wrote it.
//!
//! Block by block: a mapping or list whose text can be followed is edited where it stands, with its comments and
//! its order; what cannot is written anew. Whether the result says what it shall is checked by reading it back, and
//! a document that does not is written anew as a whole. So the worst that can happen is a lost comment.

use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::yaml;

/// What one document shall say.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    /// Its lines.
    pub lines: Range<usize>,
    /// Which item of it, if it is a list.
    pub item: Option<usize>,
    /// What it says.
    pub before: Value,
    /// What it shall say.
    pub after: Value,
}

/// The text of a file with its edits.
pub(super) fn apply(text: &str, file: &Path, edits: Vec<Edit>) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut documents: Vec<(Range<usize>, Value, Value)> = Vec::new();
    for edit in edits {
        let whole = || lines.get(edit.lines.clone()).unwrap_or_default().join("\n");
        match edit.item {
            None => documents.push((edit.lines, edit.before, edit.after)),
            Some(item) => {
                if documents.last().is_none_or(|(range, ..)| *range != edit.lines) {
                    let Ok(value) = apiserver::read_yaml(&whole()) else { continue };
                    documents.push((edit.lines.clone(), value.clone(), value));
                }
                if let Some((_, _, after)) = documents.last_mut()
                    && let Some(place) = after.pointer_mut(&format!("/items/{item}"))
                {
                    *place = edit.after;
                }
            }
        }
    }
    let is_json = file.extension().is_some_and(|ext| ext == "json");
    let mut out: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    // From the end, so that the lines of those before stay where they are.
    documents.sort_by_key(|(range, ..)| std::cmp::Reverse(range.start));
    for (range, before, after) in documents {
        let Some(old) = lines.get(range.clone()) else { continue };
        let new = if is_json { json_text(&after, old) } else { document(old, &before, &after) };
        out.splice(range, new);
    }
    out.join("\n")
}

fn json_text(after: &Value, old: &[&str]) -> Vec<String> {
    let text = serde_json::to_string_pretty(after).unwrap_or_else(|_| after.to_string());
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if old.last() == Some(&"") {
        lines.push(String::new());
    }
    lines
}

fn document(old: &[&str], before: &Value, after: &Value) -> Vec<String> {
    let edited = match (before, after) {
        (Value::Object(before), Value::Object(after)) => mapping(&owned(old), before, after),
        _ => None,
    };
    if let Some(edited) = edited
        && apiserver::read_yaml(&edited.join("\n")).as_ref() == Ok(after)
    {
        return edited;
    }
    let mut lines: Vec<String> = yaml::document(after).lines().map(str::to_owned).collect();
    // What stands around the document is not its own.
    let head = old.iter().take_while(|line| line.trim().is_empty() || line.starts_with('#')).count();
    let tail = old.iter().rev().take_while(|line| line.trim().is_empty()).count();
    let mut all = owned(old.get(..head).unwrap_or_default());
    all.append(&mut lines);
    all.extend(std::iter::repeat_n(String::new(), tail));
    all
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn is_idle(line: &str) -> bool {
    let text = line.trim();
    text.is_empty() || text.starts_with('#')
}

/// Cuts a block into its entries: idle lines belong to what follows them, those at the end to nobody.
fn cut(lines: &[String], begins: impl Fn(&str) -> bool) -> (Vec<Vec<String>>, Vec<String>) {
    let mut entries: Vec<Vec<String>> = Vec::new();
    let mut waiting: Vec<String> = Vec::new();
    for line in lines {
        if is_idle(line) {
            waiting.push(line.clone());
        } else if begins(line) || entries.is_empty() {
            waiting.push(line.clone());
            entries.push(std::mem::take(&mut waiting));
        } else if let Some(last) = entries.last_mut() {
            last.append(&mut waiting);
            last.push(line.clone());
        }
    }
    (entries, waiting)
}

/// Where an entry begins, after the idle lines before it.
fn first(entry: &[String]) -> usize {
    entry.iter().position(|line| !is_idle(line)).unwrap_or(0)
}

/// The key of a line `key: …`, and where its value begins.
fn key_of(line: &str) -> Option<(String, usize)> {
    let text = line.trim_start_matches(' ');
    let start = line.len() - text.len();
    let (key, length) = match text.chars().next()? {
        quote @ ('"' | '\'') => {
            let end = text[1..].find(quote)? + 1;
            (apiserver::read_yaml(&text[..=end]).ok()?.as_str()?.to_owned(), end + 1)
        }
        _ => {
            let end = text.find(": ").or_else(|| text.strip_suffix(':').map(str::len))?;
            (text[..end].trim_end().to_owned(), end)
        }
    };
    let rest = text.get(length..)?.trim_start();
    rest.starts_with(':').then(|| (key, start + (text.len() - rest.len()) + 1))
}

fn emit(indent: usize, key: &str, value: &Value) -> Vec<String> {
    let mut whole = Map::new();
    whole.insert(key.to_owned(), value.clone());
    indented(indent, &yaml::document(&Value::Object(whole)))
}

fn indented(indent: usize, text: &str) -> Vec<String> {
    let pad = " ".repeat(indent);
    text.lines().map(|line| if line.is_empty() { String::new() } else { format!("{pad}{line}") }).collect()
}

fn mapping(lines: &[String], before: &Map<String, Value>, after: &Map<String, Value>) -> Option<Vec<String>> {
    let indent = indent_of(lines.iter().find(|line| !is_idle(line))?);
    let begins = |line: &str| {
        indent_of(line) == indent && !line.trim_start().starts_with("- ") && key_of(line).is_some()
    };
    let (entries, tail) = cut(lines, begins);
    let mut out = Vec::new();
    let mut seen = Vec::new();
    for entry in entries {
        let (key, value_at) = key_of(entry.get(first(&entry))?)?;
        let old = before.get(&key)?;
        seen.push(key.clone());
        match after.get(&key) {
            None => {}
            Some(new) if new == old => out.extend(entry),
            Some(new) => out.extend(changed(&entry, indent, &key, value_at, old, new)),
        }
    }
    if seen.len() != before.len() {
        return None;
    }
    for (key, value) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        out.extend(emit(indent, key, value));
    }
    out.extend(tail);
    Some(out)
}

/// One entry with another value: edited inside if that works, its comment kept if it stands on one line.
fn changed(
    entry: &[String],
    indent: usize,
    key: &str,
    value_at: usize,
    old: &Value,
    new: &Value,
) -> Vec<String> {
    let at = first(entry);
    let head = entry.get(..at).unwrap_or_default();
    let (line, body) = (entry.get(at).map_or("", String::as_str), entry.get(at + 1..).unwrap_or_default());
    let rest = line.get(value_at..).unwrap_or("").trim();
    let is_block = rest.is_empty() || rest.starts_with('#');
    let inner = match (old, new) {
        (Value::Object(old), Value::Object(new)) if is_block => mapping(body, old, new),
        (Value::Array(old), Value::Array(new)) if is_block => list(body, old, new),
        _ => None,
    };
    let mut out = head.to_vec();
    if let Some(inner) = inner {
        out.push(line.to_owned());
        out.extend(inner);
        return out;
    }
    let mut lines = emit(indent, key, new);
    let comment = rest.find(" #").filter(|_| !rest.starts_with(['"', '\'', '|', '>'])).map(|at| &rest[at..]);
    if let (Some(comment), [one], true) =
        (comment, lines.as_mut_slice(), body.iter().all(|line| is_idle(line)))
    {
        one.push_str(comment);
    }
    out.extend(lines);
    out
}

fn list(lines: &[String], before: &[Value], after: &[Value]) -> Option<Vec<String>> {
    let indent = indent_of(lines.iter().find(|line| !is_idle(line))?);
    let begins = |line: &str| indent_of(line) == indent && line.trim_start().starts_with("- ");
    let (entries, tail) = cut(lines, begins);
    if entries.len() != before.len() {
        return None;
    }
    let name = |value: &Value| value.get("name").and_then(Value::as_str).map(str::to_owned);
    let are_named = before.iter().chain(after).all(|item| name(item).is_some());
    let mut out = Vec::new();
    for (at, new) in after.iter().enumerate() {
        let old_at = match are_named {
            true => before.iter().position(|old| name(old) == name(new)),
            false => (at < before.len()).then_some(at),
        };
        let old = old_at.and_then(|at| Some((before.get(at)?, entries.get(at)?)));
        match old {
            Some((old, entry)) if old == new => out.extend(entry.iter().cloned()),
            Some((old, entry)) => out.extend(item(entry, indent, old, new)),
            None => out.extend(indented(indent, &yaml::document(&json!([new])))),
        }
    }
    out.extend(tail);
    Some(out)
}

/// One element with another value: as a mapping whose first line begins after the dash.
fn item(entry: &[String], indent: usize, old: &Value, new: &Value) -> Vec<String> {
    let at = first(entry);
    let anew = || {
        let mut out = entry.get(..at).unwrap_or_default().to_vec();
        out.extend(indented(indent, &yaml::document(&json!([new]))));
        out
    };
    let (Value::Object(old), Value::Object(new_map)) = (old, new) else { return anew() };
    let mut inside = entry.to_vec();
    let Some(line) = inside.get_mut(at) else { return anew() };
    line.replace_range(indent..indent + 1, " ");
    let Some(mut edited) = mapping(&inside, old, new_map) else { return anew() };
    let Some(line) = edited.iter_mut().find(|line| !is_idle(line)) else { return anew() };
    if indent_of(line) <= indent {
        return anew();
    }
    line.replace_range(indent..indent + 1, "-");
    edited
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# the shop
apiVersion: v1
kind: Thing
metadata:
  name: a   # its name
  labels: {x: y}
spec:
  # how many
  replicas: 2 # two
  containers:
  - name: web
    image: \"w:1\"
    args: [a, b]
  # beside it
  - name: log
    image: l:1
  gone: yes
";

    fn check(change: impl Fn(&mut Value), expect: &[&str], not: &[&str]) {
        let before = apiserver::read_yaml(TEXT).unwrap();
        let mut after = before.clone();
        change(&mut after);
        let lines = 0..TEXT.split('\n').count();
        let edit = Edit { lines, item: None, before, after: after.clone() };
        let text = apply(TEXT, Path::new("a.yaml"), vec![edit]);
        assert_eq!(apiserver::read_yaml(&text).unwrap(), after, "{text}");
        for part in expect {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        for part in not {
            assert!(!text.contains(part), "{part:?} is in\n{text}");
        }
    }

    #[test]
    fn a_manifest_changes_where_it_has_to_and_nowhere_else() {
        check(
            |v| v["spec"]["replicas"] = json!(5),
            &["# the shop", "  # how many\n  replicas: 5 # two", "name: a   # its name"],
            &[],
        );
        check(
            |v| v["spec"]["containers"][1]["image"] = json!("l:2"),
            &["  # beside it\n  - name: log\n    image: l:2", "image: \"w:1\""],
            &[],
        );
        check(
            |v| {
                v["spec"]["containers"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"name": "new", "env": [{"name": "A", "value": "yes"}]}))
            },
            &["  - name: new\n    env:\n    - name: A\n      value: \"yes\"", "# beside it"],
            &[],
        );
        check(
            |v| {
                v["spec"].as_object_mut().unwrap().shift_remove("gone");
            },
            &["# how many"],
            &["gone"],
        );
        check(
            |v| {
                v["spec"]["containers"].as_array_mut().unwrap().remove(0);
            },
            &["# beside it\n  - name: log"],
            &["w:1"],
        );
        check(|v| v["metadata"]["labels"]["z"] = json!("1"), &["  labels:\n    x: ", "# its name"], &[]);
        check(
            |v| v["metadata"]["annotations"] = json!({"text": "a\nb\n"}),
            &["  annotations:\n    text: |"],
            &[],
        );
        check(|v| v["spec"]["containers"][0]["args"] = json!(["a"]), &["    args:\n    - a"], &["[a, b]"]);
        check(|v| v["status"] = json!({"ok": true}), &["status:\n  ok: true"], &[]);
    }
}
