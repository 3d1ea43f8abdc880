//! Prints a `.proto` file from the text of `node.rs`: its structs, enums and verbs, with what is said about them.
//!
//! It reads the attributes that `prost` reads, line by line, and knows just the forms that stand there. What it does not know
//! it does not pass over: it stops the test.

use std::fmt::Write;

#[derive(Default)]
struct Item {
    said: Vec<String>,
    name: String,
    kind: Kind,
    fields: Vec<Field>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Kind {
    #[default]
    Message,
    Oneof,
    Enumeration,
}

struct Field {
    said: Vec<String>,
    /// What stands in `#[prost(...)]`.
    attribute: String,
    name: String,
    /// The Rust type of a field, the number of an enumeration's value.
    what: String,
}

pub fn printed(source: &str) -> String {
    let items = items(source);
    let mut out = String::from(
        "// The node protocol of Holdfast (docs/node-agent.md). Printed from crates/api/src/node.rs by a test; do not edit.\n\
         syntax = \"proto3\";\npackage holdfast.node.v1;\n",
    );
    services(source, &mut out);
    for item in items.iter().filter(|item| item.kind == Kind::Message) {
        out.push('\n');
        say(&mut out, "", &item.said);
        if item.fields.is_empty() {
            writeln!(out, "message {} {{}}", item.name).unwrap();
            continue;
        }
        writeln!(out, "message {} {{", item.name).unwrap();
        for field in &item.fields {
            print_field(&mut out, "  ", field, &items);
        }
        out.push_str("}\n");
    }
    out
}

/// Lines of a comment, without Rust's marks for links.
fn say(out: &mut String, indent: &str, said: &[String]) {
    for line in said {
        let line = line.replace("[`", "").replace("`]", "").replace('`', "\"").replace("::", ".");
        writeln!(out, "{indent}// {line}").unwrap();
    }
}

fn print_field(out: &mut String, indent: &str, field: &Field, items: &[Item]) {
    let Field { attribute, name, what, .. } = field;
    let of = |key: &str| {
        let from = attribute.find(&format!("{key} = \""))? + key.len() + 4;
        attribute[from..].split('"').next()
    };
    let item = |name: &str| items.iter().find(|item| item.name == name).unwrap_or_else(|| panic!("{name}?"));
    let inner = |generic: &str| what.strip_prefix(generic).and_then(|rest| rest.strip_suffix('>'));
    if let Some(choice) = of("oneof") {
        say(out, indent, &field.said);
        writeln!(out, "{indent}oneof {name} {{").unwrap();
        for field in &item(choice).fields {
            print_field(out, &format!("{indent}  "), field, items);
        }
        return writeln!(out, "{indent}}}").unwrap();
    }
    let kind = match attribute.split([',', ' ']).next().unwrap() {
        "btree_map" => format!("map<{}>", of("btree_map").unwrap()),
        "enumeration" => {
            let values = item(of("enumeration").unwrap());
            say(out, indent, &values.said);
            writeln!(out, "{indent}enum {} {{", values.name).unwrap();
            for value in &values.fields {
                say(out, &format!("{indent}  "), &value.said);
                writeln!(out, "{indent}  {} = {};", screaming(&value.name), value.what).unwrap();
            }
            writeln!(out, "{indent}}}").unwrap();
            values.name.clone()
        }
        "message" => inner("Option<").or(inner("Vec<")).unwrap_or(what).to_owned(),
        scalar @ ("bool" | "bytes" | "int64" | "string" | "uint32" | "uint64") => scalar.to_owned(),
        other => panic!("a field of kind {other}?"),
    };
    say(out, indent, &field.said);
    let repeated = if attribute.contains(", repeated") { "repeated " } else { "" };
    writeln!(out, "{indent}{repeated}{kind} {} = {};", snake(name), of("tag").unwrap()).unwrap();
}

/// `LockLost`: `LOCK_LOST`.
fn screaming(name: &str) -> String {
    snake(name).to_uppercase()
}

/// `LockLost`: `lock_lost`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

fn items(source: &str) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let (mut said, mut attribute, mut derived) = (Vec::new(), String::new(), String::new());
    let mut inside = false;
    for line in source.lines() {
        let text = line.trim();
        if let Some(comment) = text.strip_prefix("/// ") {
            said.push(comment.to_owned());
        } else if let Some(rest) = text.strip_prefix("#[derive(") {
            derived = rest.to_owned();
        } else if let Some(rest) = text.strip_prefix("#[prost(") {
            attribute = rest.strip_suffix(")]").unwrap().to_owned();
        } else if let Some(rest) = text.strip_prefix("pub struct ").or(text.strip_prefix("pub enum ")) {
            let kind =
                [("Message", Kind::Message), ("Oneof", Kind::Oneof), ("Enumeration", Kind::Enumeration)];
            let kind = kind.into_iter().find(|(name, _)| derived.contains(name));
            if let Some((_, kind)) = kind {
                let name = rest.split(' ').next().unwrap().to_owned();
                items.push(Item { said: std::mem::take(&mut said), name, kind, fields: Vec::new() });
                inside = !rest.ends_with("{}");
            }
            (said, attribute, derived) = (Vec::new(), String::new(), String::new());
        } else if inside && text == "}" {
            inside = false;
        } else if inside && !text.starts_with("#[") {
            let text = text.strip_suffix(',').unwrap_or_else(|| panic!("{text}?"));
            let (name, what) = text
                .strip_prefix("pub ")
                .and_then(|text| text.split_once(": "))
                .or(text.split_once(" = "))
                .or(text.strip_suffix(')').and_then(|text| text.split_once('(')))
                .unwrap_or_else(|| panic!("{text}?"));
            let (name, what) = (name.to_owned(), what.to_owned());
            let field = Field {
                said: std::mem::take(&mut said),
                attribute: std::mem::take(&mut attribute),
                name,
                what,
            };
            items.last_mut().unwrap().fields.push(field);
        } else if !text.starts_with("#[") {
            said.clear();
        }
    }
    items
}

/// From `pub const NAME: Verb<Question, Answer> = Verb::kind("/package.Service/Method");`.
fn services(source: &str, out: &mut String) {
    let (mut service, mut said) = (String::new(), Vec::new());
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if let Some(comment) = line.strip_prefix("/// ") {
            said.push(comment.to_owned());
        } else if let Some(title) = line.strip_prefix("// --- ").and_then(|rest| rest.strip_suffix(" ---")) {
            if !service.is_empty() {
                out.push_str("}\n");
            }
            write!(out, "\n// {}{}.\n", title[..1].to_uppercase(), &title[1..]).unwrap();
            service.clear();
        } else if line.starts_with("pub const ") && line.contains(": Verb<") {
            let mut whole = line.to_owned();
            while !whole.ends_with(';') {
                whole.push_str(lines.next().unwrap());
            }
            let mut types = whole.split(['<', '>']).nth(1).unwrap().split(", ");
            let (question, answer) = (types.next().unwrap(), types.next().unwrap());
            let kind = whole.split("Verb::").nth(1).unwrap().split('(').next().unwrap();
            let path = whole.split('"').nth(1).unwrap().strip_prefix("/holdfast.node.v1.").unwrap();
            let (of, method) = path.split_once('/').unwrap();
            if service != of {
                assert!(service.is_empty(), "{of} begins without a title");
                writeln!(out, "service {of} {{").unwrap();
                service = of.to_owned();
            }
            let (asks, tells) = match kind {
                "unary" => ("", ""),
                "answers" => ("", "stream "),
                "requests" => ("stream ", ""),
                "both" => ("stream ", "stream "),
                other => panic!("a verb that is {other}?"),
            };
            say(out, "  ", &std::mem::take(&mut said));
            writeln!(out, "  rpc {method}({asks}{question}) returns ({tells}{answer});").unwrap();
        } else {
            said.clear();
        }
    }
    out.push_str("}\n");
}
