//! CEL, the language in which definitions of custom resources state their rules.
//!
//! Values are looked at where they lie in the JSON, with the schema beside them, since the schema decides
//! whether `3` is an int or a double and a text is a time. What no object could make right is refused before it
//! runs, as far as the schema tells types (`types.rs`). The work of one expression is bounded, and that of all rules about one
//! object, so that no definition stops the server.
//! Why not a library: `docs/decisions/0010-cel.md`.

mod library;
mod parse;
mod types;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use serde_json::Value;

pub use library::quantity;
pub use parse::Expr;
use parse::{Literal, Loop};
pub use types::{Type, check};

/// Steps one expression may take: what is looked at counts too, so that no step is a long one.
const STEPS_MAX: u64 = 2_000_000;
/// What it costs to read a regular expression, once.
const PATTERN_STEPS: u64 = 20_000;
/// What it says when that is not enough.
pub const TOO_LONG: &str = "the evaluation takes too long and was stopped";

/// A list: of the JSON, or made by an expression.
#[derive(Debug, Clone)]
pub enum List<'a> {
    /// As it lies there, with the schema of its items.
    Json(&'a [Value], Option<&'a Value>),
    /// Made.
    Made(Rc<Vec<Val<'a>>>),
}

/// A map: of the JSON, or made by an expression.
#[derive(Debug, Clone)]
pub enum Map<'a> {
    /// As it lies there, with its schema.
    Json(&'a serde_json::Map<String, Value>, Option<&'a Value>),
    /// Made.
    Made(Rc<Vec<(Val<'a>, Val<'a>)>>),
}

/// A value.
#[derive(Debug, Clone)]
pub enum Val<'a> {
    /// `null`.
    Null,
    /// `true`.
    Bool(bool),
    /// `1`.
    Int(i64),
    /// `1u`.
    Uint(u64),
    /// `1.0`.
    Double(f64),
    /// `"a"`.
    Text(Cow<'a, str>),
    /// `b"a"`.
    Bytes(Rc<[u8]>),
    /// `[1]`.
    List(List<'a>),
    /// `{"a": 1}`.
    Map(Map<'a>),
    /// An instant, in nanoseconds since the epoch.
    Time(i128),
    /// A duration, in nanoseconds.
    Span(i128),
    /// What may be absent.
    Optional(Option<Rc<Val<'a>>>),
    /// What `type()` gives.
    Type(&'static str),
    /// A Kubernetes quantity, in billionths.
    Quantity(i128),
    /// An address.
    Ip(IpAddr),
    /// A network.
    Cidr(IpAddr, u8),
    /// A URL: scheme, host with port, path, query.
    Url(Rc<[String; 4]>),
}

impl<'a> Val<'a> {
    /// A JSON value as its schema has it.
    pub fn json(value: &'a Value, schema: Option<&'a Value>) -> Val<'a> {
        let says = |key: &str| schema.and_then(|s| s.get(key)).and_then(Value::as_str).unwrap_or("");
        match value {
            Value::Null => Val::Null,
            Value::Bool(b) => Val::Bool(*b),
            Value::Number(number) => match number.as_i64() {
                Some(n) if says("type") != "number" => Val::Int(n),
                _ => Val::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => match says("format") {
                "date-time" => library::time(text).map_or_else(|| Val::text(text), Val::Time),
                "date" => {
                    library::time(&format!("{text}T00:00:00Z")).map_or_else(|| Val::text(text), Val::Time)
                }
                "duration" => library::span(text).map_or_else(|| Val::text(text), Val::Span),
                _ => Val::text(text),
            },
            Value::Array(items) => Val::List(List::Json(items, schema.and_then(|s| s.get("items")))),
            Value::Object(map) => Val::Map(Map::Json(map, schema)),
        }
    }

    fn text(text: &'a str) -> Val<'a> {
        Val::Text(Cow::Borrowed(text))
    }

    fn owned(text: impl Into<String>) -> Val<'a> {
        Val::Text(Cow::Owned(text.into()))
    }

    fn list(items: Vec<Val<'a>>) -> Val<'a> {
        Val::List(List::Made(Rc::new(items)))
    }

    /// What `type()` and messages call it.
    fn kind(&self) -> &'static str {
        match self {
            Val::Null => "null_type",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Uint(_) => "uint",
            Val::Double(_) => "double",
            Val::Text(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::List(_) => "list",
            Val::Map(_) => "map",
            Val::Time(_) => "google.protobuf.Timestamp",
            Val::Span(_) => "google.protobuf.Duration",
            Val::Optional(_) => "optional_type",
            Val::Type(_) => "type",
            Val::Quantity(_) => "kubernetes.Quantity",
            Val::Ip(_) => "net.IP",
            Val::Cidr(..) => "net.CIDR",
            Val::Url(_) => "kubernetes.URL",
        }
    }

    /// The truth, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Val::Bool(b) = self { Some(*b) } else { None }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Val::Text(text) = self { Some(text) } else { None }
    }
}

impl<'a> List<'a> {
    fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Made(items) => items.len(),
        }
    }

    fn get(&self, at: usize) -> Option<Val<'a>> {
        match self {
            List::Json(items, schema) => items.get(at).map(|item| Val::json(item, *schema)),
            List::Made(items) => items.get(at).cloned(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

impl<'a> Map<'a> {
    fn len(&self) -> usize {
        match self {
            Map::Json(map, _) => map.len(),
            Map::Made(entries) => entries.len(),
        }
    }

    fn get(&self, key: &Val<'a>) -> Option<Val<'a>> {
        match self {
            Map::Json(map, schema) => {
                let key = key.as_text()?;
                let value = map.get(key)?;
                Some(Val::json(value, schema.and_then(|s| below(s, key))))
            }
            Map::Made(entries) => entries.iter().find(|(k, _)| equal(k, key)).map(|(_, v)| v.clone()),
        }
    }

    /// A field by the name an expression can write: `foo__dash__bar` for `foo-bar`.
    fn field(&self, name: &str) -> Option<Val<'a>> {
        self.get(&Val::owned(name)).or_else(|| {
            let real = unescape(name);
            if real == name { None } else { self.get(&Val::owned(real)) }
        })
    }

    fn entries(&self) -> Vec<(Val<'a>, Val<'a>)> {
        match self {
            Map::Json(map, schema) => map
                .iter()
                .map(|(k, v)| (Val::text(k), Val::json(v, schema.and_then(|s| below(s, k)))))
                .collect(),
            Map::Made(entries) => entries.to_vec(),
        }
    }
}

fn below<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema
        .get("properties")
        .and_then(|p| p.get(key))
        .or_else(|| schema.get("additionalProperties").filter(|more| more.is_object()))
}

/// The name of a property whose name is no name in CEL.
pub(crate) fn unescape(name: &str) -> String {
    const KEYWORDS: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let inner = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"));
    if let Some(keyword) = inner.filter(|inner| KEYWORDS.contains(inner)) {
        return keyword.to_string();
    }
    let mut out = name.to_string();
    for (escaped, real) in
        [("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__")]
    {
        out = out.replace(escaped, real);
    }
    out
}

/// Is it a duration such as `1h30m`?
pub fn is_duration(text: &str) -> bool {
    library::span(text).is_some()
}

/// Reads an expression, and refuses functions there are none of: what would fail each time it is evaluated.
pub fn compile(text: &str, variables: &[&str]) -> Result<Expr, String> {
    let expr = parse::parse(text)?;
    let mut unknown = None;
    let mut own: Vec<String> = Vec::new();
    let mut used: Vec<String> = Vec::new();
    parse::visit(&expr, &mut |part| match part {
        Expr::Call { name, .. } if !library::knows(name) => {
            unknown.get_or_insert_with(|| format!("undeclared reference to '{name}'"));
        }
        Expr::Loop { names, .. } => own.extend(names.iter().cloned()),
        Expr::Bind { name, .. } => own.push(name.clone()),
        Expr::Name(name) => used.push(name.clone()),
        _ => {}
    });
    if let Some(unknown) = unknown {
        return Err(unknown);
    }
    let declared = |name: &String| {
        variables.contains(&name.as_str()) || own.contains(name) || library::type_name(name).is_some()
    };
    match used.iter().find(|name| !declared(name)) {
        Some(name) => Err(format!("undeclared reference to '{name}'")),
        None => Ok(expr),
    }
}

/// Whether an expression mentions a variable.
pub fn mentions(expr: &Expr, variable: &str) -> bool {
    let mut found = false;
    parse::visit(expr, &mut |part| found |= matches!(part, Expr::Name(name) if name == variable));
    found
}

/// Evaluates an expression.
pub fn evaluate<'a>(expr: &Expr, variables: &[(&str, Val<'a>)]) -> Result<Val<'a>, String> {
    let mut left = STEPS_MAX;
    evaluate_within(expr, variables, &mut left)
}

/// Evaluates an expression in the steps that are left, and takes off those it took.
pub fn evaluate_within<'a>(
    expr: &Expr,
    variables: &[(&str, Val<'a>)],
    left: &mut u64,
) -> Result<Val<'a>, String> {
    let scope = variables.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
    let most = STEPS_MAX.min(*left);
    let mut run = Run { scope, left: most, patterns: BTreeMap::new() };
    let answer = run.eval(expr);
    *left -= most - run.left;
    answer
}

struct Run<'a> {
    scope: Vec<(String, Val<'a>)>,
    left: u64,
    /// Regular expressions are read once, however often they are asked.
    patterns: BTreeMap<String, regex::Regex>,
}

type Answer<'a> = Result<Val<'a>, String>;

impl<'a> Run<'a> {
    /// Takes steps off before they are taken.
    fn spend(&mut self, steps: u64) -> Result<(), String> {
        match self.left.checked_sub(steps) {
            Some(left) => self.left = left,
            None => {
                self.left = 0;
                return Err(TOO_LONG.into());
            }
        }
        Ok(())
    }

    fn call(&mut self, name: &str, of: Option<Val<'a>>, args: Vec<Val<'a>>) -> Answer<'a> {
        self.spend(library::cost(name, of.as_ref(), &args, self.left))?;
        let all: Vec<&Val<'a>> = of.iter().chain(&args).collect();
        if let ("matches" | "find" | "findAll", [Val::Text(text), Val::Text(pattern), rest @ ..]) =
            (name, all.as_slice())
        {
            let pattern: &str = pattern;
            if !self.patterns.contains_key(pattern) {
                self.spend(PATTERN_STEPS)?;
                self.patterns.insert(pattern.to_owned(), library::regex(pattern)?);
            }
            // Linear in the text and in the states of the pattern, of which a repeated group has many.
            let (long, states) = (text.len() as u64 / 16 + 1, library::states(pattern) / 16 + 1);
            self.spend(long.saturating_mul(states))?;
            let regex = self.patterns.get(pattern);
            if let Some(found) = regex.and_then(|regex| library::search(name, regex, text, rest)) {
                return Ok(found);
            }
        }
        library::call(name, of, args)
    }

    fn eval(&mut self, expr: &Expr) -> Answer<'a> {
        self.spend(1)?;
        match expr {
            Expr::Literal(literal) => Ok(match literal {
                Literal::Null => Val::Null,
                Literal::Bool(b) => Val::Bool(*b),
                Literal::Int(n) => Val::Int(*n),
                Literal::Uint(n) => Val::Uint(*n),
                Literal::Double(n) => Val::Double(*n),
                Literal::Text(text) => {
                    self.spend(text.len() as u64 / 16)?;
                    Val::owned(text.clone())
                }
                Literal::Bytes(bytes) => Val::Bytes(bytes.as_slice().into()),
            }),
            Expr::Name(name) => {
                let found = self.scope.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                if let Some(Val::Text(Cow::Owned(text))) = &found {
                    self.spend(text.len() as u64 / 16)?;
                }
                found
                    .or_else(|| library::type_name(name).map(Val::Type))
                    .ok_or_else(|| format!("undeclared reference to '{name}'"))
            }
            Expr::Select { of, field, optional } => {
                let of = self.eval(of)?;
                self.select(of, field, *optional)
            }
            Expr::Has { of, field } => match self.eval(of)? {
                Val::Map(map) => Ok(Val::Bool(map.field(field).is_some_and(|v| !matches!(v, Val::Null)))),
                Val::Optional(None) => Ok(Val::Bool(false)),
                Val::Optional(Some(inner)) => match &*inner {
                    Val::Map(map) => Ok(Val::Bool(map.field(field).is_some())),
                    other => Err(format!("{} has no fields", other.kind())),
                },
                other => Err(format!("{} has no fields", other.kind())),
            },
            Expr::Index { of, at, optional } => {
                let (of, at) = (self.eval(of)?, self.eval(at)?);
                self.index(of, &at, *optional)
            }
            Expr::Call { name, of, args } => {
                let of = of.as_ref().map(|of| self.eval(of)).transpose()?;
                let args = args.iter().map(|arg| self.eval(arg)).collect::<Result<Vec<_>, _>>()?;
                self.call(name, of, args)
            }
            Expr::Unary('!', inner) => match self.eval(inner)? {
                Val::Bool(b) => Ok(Val::Bool(!b)),
                other => Err(no_overload("!", &[&other])),
            },
            Expr::Unary(_, inner) => match self.eval(inner)? {
                Val::Int(n) => n.checked_neg().map(Val::Int).ok_or_else(|| "integer overflow".to_string()),
                Val::Double(n) => Ok(Val::Double(-n)),
                other => Err(no_overload("-", &[&other])),
            },
            Expr::Binary(sign, a, b) => {
                let (a, b) = (self.eval(a)?, self.eval(b)?);
                self.spend(library::cost(sign, Some(&a), std::slice::from_ref(&b), self.left))?;
                binary(sign, a, b)
            }
            Expr::Logic(or, a, b) => {
                // One side decides even if the other fails.
                let first = self.truth(a);
                if first == Ok(*or) {
                    return Ok(Val::Bool(*or));
                }
                let second = self.truth(b);
                if second == Ok(*or) {
                    return Ok(Val::Bool(*or));
                }
                first.and(second).map(Val::Bool)
            }
            Expr::Choice(condition, yes, no) => {
                if self.truth(condition)? {
                    self.eval(yes)
                } else {
                    self.eval(no)
                }
            }
            Expr::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (optional, item) in items {
                    match (optional, self.eval(item)?) {
                        (true, Val::Optional(inner)) => list.extend(inner.map(|v| (*v).clone())),
                        (_, value) => list.push(value),
                    }
                }
                Ok(Val::list(list))
            }
            Expr::Map(entries) => {
                let mut map = Vec::with_capacity(entries.len());
                for (optional, key, value) in entries {
                    let key = self.eval(key)?;
                    match (optional, self.eval(value)?) {
                        (true, Val::Optional(inner)) => map.extend(inner.map(|v| (key, (*v).clone()))),
                        (_, value) => map.push((key, value)),
                    }
                }
                Ok(Val::Map(Map::Made(Rc::new(map))))
            }
            Expr::Loop { kind, over, names, filter, body } => {
                let over = self.eval(over)?;
                self.each(*kind, over, names, filter.as_deref(), body)
            }
            Expr::Bind { name, value, body, optional } => {
                let value = self.eval(value)?;
                let inner = match (optional, value) {
                    (None, value) => value,
                    (Some(_), Val::Optional(None)) => return Ok(Val::Optional(None)),
                    (Some(_), Val::Optional(Some(inner))) => (*inner).clone(),
                    (Some(_), other) => return Err(no_overload("optMap", &[&other])),
                };
                self.scope.push((name.clone(), inner));
                let out = self.eval(body);
                self.scope.pop();
                match optional {
                    Some(false) => Ok(Val::Optional(Some(Rc::new(out?)))),
                    _ => out,
                }
            }
        }
    }

    fn truth(&mut self, expr: &Expr) -> Result<bool, String> {
        let value = self.eval(expr)?;
        value.as_bool().ok_or_else(|| format!("{} is no bool", value.kind()))
    }

    fn select(&self, of: Val<'a>, field: &str, optional: bool) -> Answer<'a> {
        match of {
            Val::Map(map) => match (map.field(field), optional) {
                (Some(found), false) => Ok(found),
                (Some(found), true) => Ok(Val::Optional(Some(Rc::new(found)))),
                (None, true) => Ok(Val::Optional(None)),
                (None, false) => Err(format!("no such key: {field}")),
            },
            // What is selected from an optional is optional.
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => self.select((*inner).clone(), field, true),
            other => Err(format!("no such overload: {}.{field}", other.kind())),
        }
    }

    fn index(&self, of: Val<'a>, at: &Val<'a>, optional: bool) -> Answer<'a> {
        let found = match &of {
            Val::List(list) => {
                let at = match at {
                    Val::Int(n) => usize::try_from(*n).ok(),
                    Val::Uint(n) => usize::try_from(*n).ok(),
                    Val::Double(n) if n.fract() == 0.0 && *n >= 0.0 => Some(*n as usize),
                    other => return Err(no_overload("_[_]", &[&of, other])),
                };
                at.and_then(|at| list.get(at))
            }
            Val::Map(map) => map.get(at),
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => return self.index((**inner).clone(), at, true),
            other => return Err(no_overload("_[_]", &[other, at])),
        };
        match (found, optional) {
            (Some(found), false) => Ok(found),
            (found, true) => Ok(Val::Optional(found.map(Rc::new))),
            (None, false) if matches!(of, Val::List(_)) => {
                Err(format!("index out of bounds: {}", library::shown(at)))
            }
            (None, false) => Err(format!("no such key: {}", library::shown(at))),
        }
    }

    fn each(
        &mut self,
        kind: Loop,
        over: Val<'a>,
        names: &[String],
        filter: Option<&Expr>,
        body: &Expr,
    ) -> Answer<'a> {
        self.spend(match &over {
            Val::List(list) => list.len() as u64,
            Val::Map(map) => map.len() as u64,
            _ => 0,
        })?;
        let two = names.len() == 2;
        let elements: Vec<(Option<Val<'a>>, Val<'a>)> = match over {
            Val::List(list) if two => {
                list.iter().enumerate().map(|(at, v)| (Some(Val::Int(at as i64)), v)).collect()
            }
            Val::List(list) => list.iter().map(|v| (None, v)).collect(),
            Val::Map(map) if two => map.entries().into_iter().map(|(k, v)| (Some(k), v)).collect(),
            Val::Map(map) => map.entries().into_iter().map(|(k, _)| (None, k)).collect(),
            other => return Err(format!("{} cannot be looped over", other.kind())),
        };
        let (mut count, mut failed, mut out) = (0usize, None, Vec::new());
        for (position, element) in elements {
            let depth = self.scope.len();
            self.scope.extend(position.zip(names.first()).map(|(p, name)| (name.clone(), p)));
            self.scope.extend(names.last().map(|name| (name.clone(), element.clone())));
            let done = (|| {
                if let Some(filter) = filter
                    && !self.truth(filter)?
                {
                    return Ok(None);
                }
                self.eval(body).map(Some)
            })();
            self.scope.truncate(depth);
            match (kind, done) {
                (Loop::All | Loop::Exists, Err(why)) => failed = Some(why),
                (_, Err(why)) => return Err(why),
                (_, Ok(None)) => {}
                (Loop::Map, Ok(Some(value))) => out.push(value),
                (_, Ok(Some(value))) => {
                    let truth = value.as_bool().ok_or_else(|| format!("{} is no bool", value.kind()))?;
                    match kind {
                        Loop::All if !truth => return Ok(Val::Bool(false)),
                        Loop::Exists if truth => return Ok(Val::Bool(true)),
                        Loop::Filter if truth => out.push(element),
                        _ => {}
                    }
                    count += usize::from(truth);
                }
            }
        }
        match (kind, failed) {
            (Loop::All | Loop::Exists, Some(why)) => Err(why),
            (Loop::All, None) => Ok(Val::Bool(true)),
            (Loop::Exists, None) => Ok(Val::Bool(false)),
            (Loop::ExistsOne, _) => Ok(Val::Bool(count == 1)),
            (Loop::Map | Loop::Filter, _) => Ok(Val::list(out)),
        }
    }
}

fn no_overload(what: &str, of: &[&Val<'_>]) -> String {
    let kinds: Vec<&str> = of.iter().map(|v| v.kind()).collect();
    format!("no such overload: {what}({})", kinds.join(", "))
}

fn binary<'a>(sign: &str, a: Val<'a>, b: Val<'a>) -> Answer<'a> {
    match sign {
        "==" => return Ok(Val::Bool(equal(&a, &b))),
        "!=" => return Ok(Val::Bool(!equal(&a, &b))),
        "in" => {
            return match &b {
                Val::List(list) => Ok(Val::Bool(list.iter().any(|item| equal(&item, &a)))),
                Val::Map(map) => Ok(Val::Bool(map.get(&a).is_some())),
                _ => Err(no_overload("in", &[&a, &b])),
            };
        }
        "<" | "<=" | ">" | ">=" => {
            let order = order(&a, &b).ok_or_else(|| no_overload(sign, &[&a, &b]))?;
            return Ok(Val::Bool(match sign {
                "<" => order == Some(Ordering::Less),
                "<=" => order.is_some_and(Ordering::is_le),
                ">" => order == Some(Ordering::Greater),
                _ => order.is_some_and(Ordering::is_ge),
            }));
        }
        _ => {}
    }
    let overflow = || "integer overflow".to_string();
    let zero = || if sign == "%" { "modulus by zero".to_string() } else { "division by zero".to_string() };
    match (sign, &a, &b) {
        ("+", Val::Int(x), Val::Int(y)) => x.checked_add(*y).map(Val::Int).ok_or_else(overflow),
        ("-", Val::Int(x), Val::Int(y)) => x.checked_sub(*y).map(Val::Int).ok_or_else(overflow),
        ("*", Val::Int(x), Val::Int(y)) => x.checked_mul(*y).map(Val::Int).ok_or_else(overflow),
        ("/" | "%", Val::Int(_), Val::Int(0)) | ("/" | "%", Val::Uint(_), Val::Uint(0)) => Err(zero()),
        ("/", Val::Int(x), Val::Int(y)) => x.checked_div(*y).map(Val::Int).ok_or_else(overflow),
        ("%", Val::Int(x), Val::Int(y)) => x.checked_rem(*y).map(Val::Int).ok_or_else(overflow),
        ("+", Val::Uint(x), Val::Uint(y)) => x.checked_add(*y).map(Val::Uint).ok_or_else(overflow),
        ("-", Val::Uint(x), Val::Uint(y)) => x.checked_sub(*y).map(Val::Uint).ok_or_else(overflow),
        ("*", Val::Uint(x), Val::Uint(y)) => x.checked_mul(*y).map(Val::Uint).ok_or_else(overflow),
        ("/", Val::Uint(x), Val::Uint(y)) => Ok(Val::Uint(x / y)),
        ("%", Val::Uint(x), Val::Uint(y)) => Ok(Val::Uint(x % y)),
        ("+", Val::Double(x), Val::Double(y)) => Ok(Val::Double(x + y)),
        ("-", Val::Double(x), Val::Double(y)) => Ok(Val::Double(x - y)),
        ("*", Val::Double(x), Val::Double(y)) => Ok(Val::Double(x * y)),
        ("/", Val::Double(x), Val::Double(y)) => Ok(Val::Double(x / y)),
        ("+", Val::Text(x), Val::Text(y)) => Ok(Val::owned(format!("{x}{y}"))),
        ("+", Val::Bytes(x), Val::Bytes(y)) => Ok(Val::Bytes([&x[..], &y[..]].concat().into())),
        ("+", Val::List(x), Val::List(y)) => Ok(Val::list(x.iter().chain(y.iter()).collect())),
        ("+", Val::Time(x), Val::Span(y)) | ("+", Val::Span(y), Val::Time(x)) => Ok(Val::Time(x + y)),
        ("-", Val::Time(x), Val::Span(y)) => Ok(Val::Time(x - y)),
        ("-", Val::Time(x), Val::Time(y)) => Ok(Val::Span(x - y)),
        ("+", Val::Span(x), Val::Span(y)) => Ok(Val::Span(x + y)),
        ("-", Val::Span(x), Val::Span(y)) => Ok(Val::Span(x - y)),
        _ => Err(no_overload(sign, &[&a, &b])),
    }
}

/// Are they one value? Numbers of different types may be.
fn equal(a: &Val<'_>, b: &Val<'_>) -> bool {
    match (a, b) {
        (Val::Null, Val::Null) => true,
        (Val::Type(x), Val::Type(y)) => x == y,
        (Val::Optional(x), Val::Optional(y)) => match (x, y) {
            (None, None) => true,
            (Some(x), Some(y)) => equal(x, y),
            _ => false,
        },
        (Val::List(x), Val::List(y)) => {
            x.len() == y.len() && x.iter().zip(y.iter()).all(|(x, y)| equal(&x, &y))
        }
        (Val::Map(x), Val::Map(y)) => {
            x.len() == y.len()
                && x.entries().iter().all(|(k, v)| y.get(k).is_some_and(|other| equal(v, &other)))
        }
        (Val::Url(x), Val::Url(y)) => x == y,
        (Val::Cidr(x, m), Val::Cidr(y, n)) => x == y && m == n,
        (Val::Ip(x), Val::Ip(y)) => x == y,
        _ => order(a, b).flatten() == Some(Ordering::Equal),
    }
}

/// Their order: none if they have none, inner none for what is not a number.
fn order(a: &Val<'_>, b: &Val<'_>) -> Option<Option<Ordering>> {
    Some(match (a, b) {
        (Val::Bool(x), Val::Bool(y)) => Some(x.cmp(y)),
        (Val::Int(x), Val::Int(y)) => Some(x.cmp(y)),
        (Val::Uint(x), Val::Uint(y)) => Some(x.cmp(y)),
        (Val::Int(x), Val::Uint(y)) => Some(i128::from(*x).cmp(&i128::from(*y))),
        (Val::Uint(x), Val::Int(y)) => Some(i128::from(*x).cmp(&i128::from(*y))),
        (Val::Double(x), Val::Double(y)) => x.partial_cmp(y),
        (Val::Double(x), Val::Int(y)) => x.partial_cmp(&(*y as f64)),
        (Val::Int(x), Val::Double(y)) => (*x as f64).partial_cmp(y),
        (Val::Double(x), Val::Uint(y)) => x.partial_cmp(&(*y as f64)),
        (Val::Uint(x), Val::Double(y)) => (*x as f64).partial_cmp(y),
        (Val::Text(x), Val::Text(y)) => Some(x.cmp(y)),
        (Val::Bytes(x), Val::Bytes(y)) => Some(x.cmp(y)),
        (Val::Time(x), Val::Time(y)) | (Val::Span(x), Val::Span(y)) => Some(x.cmp(y)),
        (Val::Quantity(x), Val::Quantity(y)) => Some(x.cmp(y)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
