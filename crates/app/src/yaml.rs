//! Writing YAML that every reader takes for the same thing.
//!
//! kubectl reads YAML 1.1: an unquoted `yes`, `0644`, `1e3` or `12:30` is not a string there. So a string is
//! written plain only when it cannot be anything else in any version of YAML, and quoted as JSON (which is
//! YAML) or as a literal block otherwise. It costs some quotes and never a value.
//!
//! Why not serde-saphyr's emitter, which we read YAML with: its block scalars are YAML 1.2, and kubectl
//! refuses some of them (a literal block whose line starts with a tab). Found by the test at the end, which
//! asks kubectl itself.

use std::fmt::Write;

use serde_json::Value;

/// One document, without `---`, ending with a line break.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut out, value, 0),
        Value::Array(list) if !list.is_empty() => block(&mut out, value, 0),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

/// A map or list that is not empty, every line indented by `depth` levels.
fn block(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) => {
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 {
                    indent(out, depth);
                }
                string(out, key);
                out.push(':');
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        out.push('\n');
                        indent(out, depth + 1);
                        block(out, value, depth + 1);
                    }
                    // Lists stand under their key without a further indent, as kubectl writes them.
                    Value::Array(inner) if !inner.is_empty() => {
                        out.push('\n');
                        indent(out, depth);
                        block(out, value, depth);
                    }
                    other => {
                        out.push(' ');
                        scalar(out, other, depth + 1);
                        out.push('\n');
                    }
                }
            }
        }
        Value::Array(list) => {
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    indent(out, depth);
                }
                out.push_str("- ");
                match item {
                    Value::Object(inner) if !inner.is_empty() => block(out, item, depth + 1),
                    Value::Array(inner) if !inner.is_empty() => block(out, item, depth + 1),
                    other => {
                        scalar(out, other, depth + 1);
                        out.push('\n');
                    }
                }
            }
        }
        other => scalar(out, other, depth),
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// Anything that fits behind `key: ` or `- `.
fn scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(text) if fits_literal(text) => literal(out, text, depth),
        Value::String(text) => string(out, text),
        // Numbers, booleans, null, {} and [] read the same in JSON and YAML.
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// A text of several lines, as people want to read a configuration file.
fn literal(out: &mut String, text: &str, depth: usize) {
    let body = text.strip_suffix('\n');
    out.push_str(match body {
        None => "|-",
        Some(body) if body.ends_with('\n') || body.is_empty() => "|+",
        Some(_) => "|",
    });
    for line in body.unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth);
            out.push_str(line);
        }
    }
}

/// Whether a literal block gives the text back exactly: several lines of ordinary characters, the first of
/// which starts with neither blank nor break (its indent tells the reader the indent of the block).
fn fits_literal(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && !text.ends_with("\n\n")
        && text.chars().all(|c| c == '\n' || c == '\t' || is_plain_char(c))
        // Lines of blanks only would have to be indented exactly; others read them away.
        && text.split('\n').all(|line| line.is_empty() || !line.trim().is_empty())
}

fn is_plain_char(c: char) -> bool {
    // Without the line and paragraph separators, which YAML 1.1 takes for line breaks, and without the BOM.
    matches!(c, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

fn string(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else {
        quoted(out, text);
    }
}

/// Whether the text, written without quotes, is this string in every version of YAML.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    // A plain word starts with a letter, so it is no number, date or time; words that mean true, false or
    // nothing are the rest. A version such as v1, a path such as apps/v1 and a name such as web-0 pass.
    let starts = first.is_ascii_alphabetic() || first == '/' && text.len() > 1;
    starts
        && text.chars().all(|c| {
            c.is_ascii_alphanumeric()
                || matches!(c, '-' | '_' | '.' | '/' | ' ' | '(' | ')' | '+' | '@' | ':' | ',' | '=')
        })
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !is_word_with_meaning(text)
}

fn is_word_with_meaning(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "nan" | "inf" | "infinity"
    )
}

/// Double quotes, with the escapes that JSON and YAML share.
fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_plain_char(c) => out.push(c),
            c => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use serde_json::json;

    use super::*;

    #[test]
    fn words_that_yaml_readers_take_for_something_else_are_quoted() {
        let cases = [
            ("web-0", "web-0"),
            ("apps/v1", "apps/v1"),
            ("nginx:1.27", "nginx:1.27"),
            ("/var/lib", "/var/lib"),
            ("yes", "\"yes\""),
            ("y", "\"y\""),
            ("N", "\"N\""),
            ("Off", "\"Off\""),
            ("null", "\"null\""),
            ("~", "\"~\""),
            ("0644", "\"0644\""),
            ("1e3", "\"1e3\""),
            ("12:30", "\"12:30\""),
            ("2026-01-01", "\"2026-01-01\""),
            (".inf", "\".inf\""),
            ("", "\"\""),
            (" a", "\" a\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("a:", "\"a:\""),
            ("*a", "\"*a\""),
            ("<<", "\"<<\""),
            ("=", "\"=\""),
            ("a\tb", "\"a\\tb\""),
            ("a\u{85}b", "\"a\\u0085b\""),
            ("\u{2028}", "\"\\u2028\""),
            ("\u{feff}", "\"\\ufeff\""),
            ("🚀 up", "\"🚀 up\""),
            ("a\0", "\"a\\u0000\""),
        ];
        for (text, want) in cases {
            assert_eq!(document(&json!(text)), format!("{want}\n"));
        }
    }

    #[test]
    fn a_manifest_looks_like_one() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {}, "finalizers": []},
            "data": {"on": "yes", "a.conf": "x = 1\n  y = 2\n\nend\n", "b": "p\nq", "c": "\nlead"},
            "list": [{"name": "a", "ports": [80, 443]}, ["x", ["y"]], {}, null, true, 1.5]});
        let want = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: c
  labels: {}
  finalizers: []
data:
  \"on\": \"yes\"
  a.conf: |
    x = 1
      y = 2

    end
  b: |-
    p
    q
  c: \"\\nlead\"
list:
- name: a
  ports:
  - 80
  - 443
- - x
  - - \"y\"
- {}
- null
- true
- 1.5
";
        assert_eq!(document(&object), want);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            any::<String>(),
            "[ -~\n\t]{0,20}",
            "(yes|no|~|0x1f|1_000|0o17|1:2|<<|=|- a|\\? b|\\| c)"
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((text.clone(), inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect()))
            ]
        })
    }

    /// The reader that counts: what kubectl makes of 400 nasty texts.
    #[test]
    fn kubectl_reads_every_text_as_it_was() {
        let texts = prop_oneof![
            any::<String>(),
            "[ -~\n\t]{0,120}",
            "([a-z]{1,9} {0,2}){0,30}\n{0,3}",
            "[-+.0-9eExob_:]{1,6}",
            "(yes|no|~|0x1f|1_000|0o17|1:2|<<|=|- a|\\? b|\\| c|\t\t\n| \n |\n\n|\r\n|a\r\nb)",
            "[ \n\ta#:\"'>|]{0,12}"
        ];
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let pairs =
            prop::collection::vec((texts.clone(), texts), 400..401).new_tree(&mut runner).unwrap().current();
        let data: serde_json::Map<String, Value> = pairs
            .into_iter()
            .enumerate()
            .map(|(i, (key, value))| (format!("k{i}{key}"), json!(value)))
            .collect();
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.yaml");
        std::fs::write(&file, document(&object)).unwrap();
        let out = std::process::Command::new("kubectl")
            .args(["label", "--local", "--dry-run=client", "-o", "json", "a=b", "-f"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let back: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(back.get("data"), object.get("data"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in json_value()) {
            let text = document(&value);
            let back: Value = serde_saphyr::from_str(&text)
                .map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            prop_assert_eq!(back, value, "{}", text);
        }
    }
}
