//! The types of expressions, as far as a schema tells them: what no object could make right is refused when a definition is made.
//!
//! Where the schema says nothing (fields it does not know, a number that may be a text) the type is `dyn`, which fits
//! everything. A cluster is stricter here and there; what is refused here it refuses too, and in the same words.

use std::fmt;
use std::rc::Rc;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::parse::{Expr, Literal, Loop};
use super::{library, unescape};

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub enum Type<'s> {
    /// Not known before it runs.
    Dyn,
    /// One without parts, by its name.
    Plain(&'static str),
    /// A list of these.
    List(Rc<Type<'s>>),
    /// A map from these to those.
    Map(Rc<Type<'s>>, Rc<Type<'s>>),
    /// An object with the fields of a schema; a whole object, or one embedded, has a kind and a name besides.
    Object(&'s Value, bool),
    /// What may be absent.
    Optional(Rc<Type<'s>>),
}

use Type::{Dyn, Plain};

const BOOL: Type<'static> = Plain("bool");
const INT: Type<'static> = Plain("int");
const TEXT: Type<'static> = Plain("string");

/// What rules see of the metadata of an object.
static METADATA: LazyLock<Value> = LazyLock::new(
    || json!({"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}}),
);

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dyn => f.write_str("dyn"),
            Plain(name) => f.write_str(name),
            Type::List(item) => write!(f, "list({item})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Object(..) => f.write_str("object"),
            Type::Optional(inner) => write!(f, "optional_type({inner})"),
        }
    }
}

impl<'s> Type<'s> {
    /// The type of what fits a schema. `is_whole`: it is an object of the API, not a part of one.
    pub fn of(schema: &'s Value, is_whole: bool) -> Type<'s> {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or("");
        if says(schema, "x-kubernetes-int-or-string") {
            return Dyn;
        }
        match (text("type"), text("format")) {
            ("integer", _) => INT,
            ("number", _) => Plain("double"),
            ("boolean", _) => BOOL,
            ("string", "date" | "date-time") => Plain("timestamp"),
            ("string", "duration") => Plain("duration"),
            // Base64, which rules see as bytes.
            ("string", "byte") => Dyn,
            ("string", _) => TEXT,
            ("array", _) => {
                Type::List(Rc::new(schema.get("items").map_or(Dyn, |items| Type::of(items, false))))
            }
            ("object", _) => match schema.get("additionalProperties") {
                Some(more) if more.is_object() => Type::Map(Rc::new(TEXT), Rc::new(Type::of(more, false))),
                Some(Value::Bool(true)) => Type::Map(Rc::new(TEXT), Rc::new(Dyn)),
                _ if schema.get("properties").is_none() && !is_whole => Dyn,
                _ => Type::Object(schema, is_whole || says(schema, "x-kubernetes-embedded-resource")),
            },
            _ => Dyn,
        }
    }

    /// The same where it may be absent.
    pub fn optional(self) -> Type<'s> {
        Type::Optional(Rc::new(self))
    }

    /// Whether a value of this type can be one of that.
    pub fn may_be(&self, other: &Type<'s>) -> bool {
        unified(self, other).is_some()
    }

    fn field(&self, name: &str) -> Result<Type<'s>, String> {
        match self {
            Dyn => Ok(Dyn),
            Type::Map(_, value) => Ok((**value).clone()),
            // What is selected from an optional is optional.
            Type::Optional(inner) => Ok(match inner.field(name)? {
                found @ Type::Optional(_) => found,
                found => found.optional(),
            }),
            Type::Object(schema, is_whole) => {
                let name = unescape(name);
                let known = schema.get("properties").and_then(|known| known.get(&name));
                match (known, name.as_str()) {
                    (_, "metadata") if *is_whole => Ok(Type::of(&METADATA, false)),
                    (Some(known), _) => Ok(Type::of(known, false)),
                    (None, "apiVersion" | "kind") if *is_whole => Ok(TEXT),
                    _ if says(schema, "x-kubernetes-preserve-unknown-fields") => Ok(Dyn),
                    _ => Err(format!("undefined field '{name}'")),
                }
            }
            other => Err(format!("type '{other}' does not support field selection")),
        }
    }
}

fn says(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// The type of what may be either; none if nothing can be both.
fn unified<'s>(a: &Type<'s>, b: &Type<'s>) -> Option<Type<'s>> {
    let both = |a: &Type<'s>, b: &Type<'s>| unified(a, b).map(Rc::new);
    match (a, b) {
        (Dyn, _) | (_, Dyn) => Some(Dyn),
        (Plain("null"), other) | (other, Plain("null")) => Some(other.clone()),
        (Type::List(a), Type::List(b)) => both(a, b).map(Type::List),
        (Type::Optional(a), Type::Optional(b)) => both(a, b).map(Type::Optional),
        (Type::Map(k, v), Type::Map(l, w)) => Some(Type::Map(both(k, l)?, both(v, w)?)),
        (Type::Object(..), Type::Object(..)) if a == b => Some(a.clone()),
        // Objects of different schemas, and maps: whether they are the same is not judged here.
        (Type::Object(..) | Type::Map(..), Type::Object(..) | Type::Map(..)) => Some(Dyn),
        _ => (a == b).then(|| a.clone()),
    }
}

/// Checks an expression, and says what it answers with.
pub fn check<'s>(expr: &Expr, variables: &[(&str, Type<'s>)]) -> Result<Type<'s>, String> {
    Scope { known: variables.iter().map(|(name, of)| ((*name).to_string(), of.clone())).collect() }
        .infer(expr)
}

struct Scope<'s> {
    known: Vec<(String, Type<'s>)>,
}

type Inferred<'s> = Result<Type<'s>, String>;

impl<'s> Scope<'s> {
    fn infer(&mut self, expr: &Expr) -> Inferred<'s> {
        match expr {
            Expr::Literal(literal) => Ok(Plain(match literal {
                Literal::Null => "null",
                Literal::Bool(_) => "bool",
                Literal::Int(_) => "int",
                Literal::Uint(_) => "uint",
                Literal::Double(_) => "double",
                Literal::Text(_) => "string",
                Literal::Bytes(_) => "bytes",
            })),
            Expr::Name(name) => {
                let found =
                    self.known.iter().rev().find(|(known, _)| known == name).map(|(_, of)| of.clone());
                found
                    .or_else(|| library::type_name(name).map(|_| Plain("type")))
                    .ok_or_else(|| format!("undeclared reference to '{name}'"))
            }
            Expr::Select { of, field, optional } => {
                let found = self.infer(of)?.field(field)?;
                Ok(if *optional && !matches!(found, Type::Optional(_)) { found.optional() } else { found })
            }
            Expr::Has { of, field } => self.infer(of)?.field(field).map(|_| BOOL),
            Expr::Index { of, at, optional } => {
                let (of, at) = (self.infer(of)?, self.infer(at)?);
                let found = indexed(&of, &at)?;
                Ok(if *optional && !matches!(found, Type::Optional(_)) { found.optional() } else { found })
            }
            Expr::Call { name, of, args } => {
                let receiver = of.as_ref().map(|of| self.infer(of)).transpose()?;
                let args = args.iter().map(|arg| self.infer(arg)).collect::<Result<Vec<_>, _>>()?;
                called(name, receiver.as_ref(), &args)
            }
            Expr::Unary(sign, inner) => {
                let inner = self.infer(inner)?;
                called(if *sign == '!' { "!_" } else { "-_" }, None, &[inner])
            }
            Expr::Binary(sign, a, b) => {
                let sides = [self.infer(a)?, self.infer(b)?];
                called(&format!("_{sign}_").replace("_in_", "@in"), None, &sides)
            }
            Expr::Logic(or, a, b) => {
                let sides = [self.infer(a)?, self.infer(b)?];
                called(if *or { "_||_" } else { "_&&_" }, None, &sides)
            }
            Expr::Choice(condition, yes, no) => {
                let all = [self.infer(condition)?, self.infer(yes)?, self.infer(no)?];
                called("_?_:_", None, &all)
            }
            Expr::List(items) => {
                let mut of = None;
                for (optional, item) in items {
                    let item = self.infer(item)?;
                    of = Some(joined(of, element(*optional, item)?)?);
                }
                Ok(Type::List(Rc::new(of.unwrap_or(Dyn))))
            }
            Expr::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for (optional, key, value) in entries {
                    let (key, value) = (self.infer(key)?, self.infer(value)?);
                    keys = Some(joined(keys, key)?);
                    values = Some(joined(values, element(*optional, value)?)?);
                }
                Ok(Type::Map(Rc::new(keys.unwrap_or(Dyn)), Rc::new(values.unwrap_or(Dyn))))
            }
            Expr::Loop { kind, over, names, filter, body } => {
                let over = self.infer(over)?;
                let depth = self.known.len();
                let (at, element) = ranged(&over)?;
                let types = if names.len() == 2 { vec![at, element.1] } else { vec![element.0] };
                let element = types.last().cloned().unwrap_or(Dyn);
                self.known.extend(names.iter().cloned().zip(types));
                let filter = filter.as_ref().map(|filter| self.infer(filter)).transpose();
                let body = filter.and_then(|filter| Ok((filter, self.infer(body)?)));
                self.known.truncate(depth);
                let (filter, body) = body?;
                let judged = if *kind == Loop::Map { filter } else { Some(body.clone()) };
                if let Some(judged) = judged.filter(|judged| !judged.may_be(&BOOL)) {
                    return Err(format!("expected type 'bool' but found '{judged}'"));
                }
                Ok(match kind {
                    Loop::All | Loop::Exists | Loop::ExistsOne => BOOL,
                    Loop::Map => Type::List(Rc::new(body)),
                    Loop::Filter => Type::List(Rc::new(element)),
                })
            }
            Expr::Bind { name, value, body, optional } => {
                let value = match (optional, self.infer(value)?) {
                    (None, value) => value,
                    (Some(_), Dyn) => Dyn,
                    (Some(_), Type::Optional(inner)) => (*inner).clone(),
                    (Some(_), other) => return Err(no_overload("optMap", Some(&other), &[])),
                };
                self.known.push((name.clone(), value));
                let body = self.infer(body);
                self.known.pop();
                Ok(if *optional == Some(false) { body?.optional() } else { body? })
            }
        }
    }
}

/// What an element adds to its list or map.
fn element(optional: bool, of: Type<'_>) -> Inferred<'_> {
    match (optional, of) {
        (false, of) => Ok(of),
        (true, Type::Optional(inner)) => Ok((*inner).clone()),
        (true, Dyn) => Ok(Dyn),
        (true, other) => Err(format!("expected type 'optional_type({other})' but found '{other}'")),
    }
}

/// Literals of lists and maps hold values of one type.
fn joined<'s>(before: Option<Type<'s>>, now: Type<'s>) -> Inferred<'s> {
    match before {
        None => Ok(now),
        Some(before) => {
            unified(&before, &now).ok_or_else(|| format!("expected type '{before}' but found '{now}'"))
        }
    }
}

/// What a loop over it runs through: its position or key, and the element if there is one variable, and if there are two.
type Ranged<'s> = (Type<'s>, (Type<'s>, Type<'s>));

fn ranged<'s>(over: &Type<'s>) -> Result<Ranged<'s>, String> {
    Ok(match over {
        Type::List(item) => (INT, ((**item).clone(), (**item).clone())),
        Type::Map(key, value) => ((**key).clone(), ((**key).clone(), (**value).clone())),
        Dyn => (Dyn, (Dyn, Dyn)),
        other => {
            return Err(format!(
                "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
            ));
        }
    })
}

fn indexed<'s>(of: &Type<'s>, at: &Type<'s>) -> Inferred<'s> {
    let refused = || no_overload("_[_]", None, &[of.clone(), at.clone()]);
    match of {
        Dyn => Ok(Dyn),
        Type::List(item) if at.may_be(&INT) => Ok((**item).clone()),
        Type::Map(key, value) if at.may_be(key) => Ok((**value).clone()),
        Type::Optional(inner) => Ok(match indexed(inner, at)? {
            found @ Type::Optional(_) => found,
            found => found.optional(),
        }),
        _ => Err(refused()),
    }
}

/// Functions and what they take and give, one letter a type: s string, i int, u uint, d double, b bool, y bytes, t timestamp, p duration,
/// q quantity, n address, c network, r URL, T type, x anything and nothing known, A any one type, L a list of it, O an optional of
/// it, S a list of strings, M a map, R what a query is. The last letter is what it gives.
const OVERLOADS: &str = "
!_ bb; -_ ii dd; _&&_ bbb; _||_ bbb; _?_:_ bAAA; _==_ AAb; _!=_ AAb; @in ALb AMb
_<_ bbb iib uub ddb ssb yyb ttb ppb iub idb uib udb dib dub
_<=_ bbb iib uub ddb ssb yyb ttb ppb iub idb uib udb dib dub
_>_ bbb iib uub ddb ssb yyb ttb ppb iub idb uib udb dib dub
_>=_ bbb iib uub ddb ssb yyb ttb ppb iub idb uib udb dib dub
_+_ iii uuu ddd sss yyy LLL tpt ptt ppp; _-_ iii uuu ddd ttp tpt ppp; _*_ iii uuu ddd; _/_ iii uuu ddd; _%_ iii uuu
size si yi Li Mi; type xT; dyn xx
string ss is us ds bs ys ts ps ns cs qs; int si ii ui di ti; uint su iu uu du; double sd id ud dd; bool sb bb
bytes sy yy; duration sp pp; timestamp st tt it
matches ssb; startsWith ssb; endsWith ssb; contains ssb; charAt sis; lowerAscii ss; upperAscii ss; trim ss
indexOf ssi ssii LAi; lastIndexOf ssi ssii LAi; join Ss Sss; replace ssss sssis; split ssS ssiS; substring sis siis
reverse ss LL; format sLs; find sss; findAll ssS ssiS
isSorted Lb; sum LA; min LA; max LA; distinct LL; flatten Lx; first LO; last LO
url sr; isURL sb; getScheme rs; getHost rs; getHostname rs; getPort rs; getEscapedPath rs; getQuery rR
quantity sq; isQuantity sb; sign qi; add qqq qiq; sub qqq qiq; isInteger qb; asInteger qi; asApproximateFloat qd
isLessThan qqb; isGreaterThan qqb; compareTo qqi
ip sn cn; isIP sb; ip.isCanonical sb; family ni; isUnspecified nb; isLoopback nb; isLinkLocalMulticast nb
isLinkLocalUnicast nb; isGlobalUnicast nb
cidr sc; isCIDR sb; containsIP cnb csb; containsCIDR ccb csb; prefixLength ci; masked cc
getFullYear ti tsi; getMonth ti tsi; getDate ti tsi; getDayOfMonth ti tsi; getDayOfWeek ti tsi; getDayOfYear ti tsi
getHours ti tsi pi; getMinutes ti tsi pi; getSeconds ti tsi pi; getMilliseconds ti tsi pi
optional.of AO; optional.none O; optional.ofNonZeroValue AO; hasValue Ob; value OA; or OOO; orValue OAA
sets.contains LLb; sets.equivalent LLb; sets.intersects LLb";

/// The overloads of a function; none if it takes whatever there is.
fn overloads(name: &str) -> Option<impl Iterator<Item = &'static str>> {
    let entries = OVERLOADS.split([';', '\n']).map(str::split_whitespace);
    entries.into_iter().find_map(|mut entry| (entry.next() == Some(name)).then_some(entry))
}

fn plain(letter: char) -> Option<&'static str> {
    Some(match letter {
        's' => "string",
        'i' => "int",
        'u' => "uint",
        'd' => "double",
        'b' => "bool",
        'y' => "bytes",
        't' => "timestamp",
        'p' => "duration",
        'q' => "kubernetes.Quantity",
        'n' => "net.IP",
        'c' => "net.CIDR",
        'r' => "kubernetes.URL",
        'T' => "type",
        _ => return None,
    })
}

/// Whether a value of this type can stand where the letter is; binds `A` on the way.
fn fits<'s>(letter: char, of: &Type<'s>, bound: &mut Option<Type<'s>>) -> bool {
    match (letter, of) {
        ('x', _) | (_, Dyn) => true,
        ('A', of) => match bound.as_ref().map_or(Some(of.clone()), |before| unified(before, of)) {
            Some(both) => {
                *bound = Some(both);
                true
            }
            None => false,
        },
        ('L', Type::List(item)) => fits('A', item, bound),
        ('O', Type::Optional(inner)) => fits('A', inner, bound),
        ('S', Type::List(item)) => fits('s', item, bound),
        ('M', Type::Map(..) | Type::Object(..)) => true,
        (letter, of) => plain(letter).is_some_and(|name| *of == Plain(name)),
    }
}

fn given<'s>(letter: char, bound: Option<Type<'s>>) -> Type<'s> {
    let bound = bound.unwrap_or(Dyn);
    match letter {
        'A' => bound,
        'L' => Type::List(Rc::new(bound)),
        'O' => bound.optional(),
        'S' => Type::List(Rc::new(TEXT)),
        'R' => Type::Map(Rc::new(TEXT), Rc::new(Type::List(Rc::new(TEXT)))),
        letter => plain(letter).map_or(Dyn, Plain),
    }
}

/// What a function gives for these; refused if it takes no such.
fn called<'s>(name: &str, receiver: Option<&Type<'s>>, args: &[Type<'s>]) -> Inferred<'s> {
    let Some(overloads) = overloads(name) else { return Ok(Dyn) };
    let all: Vec<&Type<'s>> = receiver.into_iter().chain(args).collect();
    let mut found: Option<Type<'s>> = None;
    for overload in overloads {
        let mut letters: Vec<char> = overload.chars().collect();
        let Some(gives) = letters.pop().filter(|_| letters.len() == all.len()) else { continue };
        let mut bound = None;
        if letters.iter().zip(&all).all(|(letter, of)| fits(*letter, of, &mut bound)) {
            let gives = given(gives, bound);
            // What is not known may be several things.
            found = Some(match found {
                Some(before) if before != gives => Dyn,
                _ => gives,
            });
        }
    }
    found.ok_or_else(|| no_overload(name, receiver, args))
}

fn no_overload(name: &str, receiver: Option<&Type<'_>>, args: &[Type<'_>]) -> String {
    let args = args.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let receiver = receiver.map(|of| format!("{of}.")).unwrap_or_default();
    format!("found no matching overload for '{name}' applied to '{receiver}({args})'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::compile;

    #[test]
    fn what_no_object_could_make_right_is_refused_and_nothing_else() {
        let schema = json!({"type": "object", "properties": {
            "count": {"type": "integer"}, "ratio": {"type": "number"}, "name": {"type": "string"}, "on": {"type": "boolean"},
            "when": {"type": "string", "format": "date-time"}, "port": {"x-kubernetes-int-or-string": true},
            "tags": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "disks": {"type": "array", "items": {"type": "object", "properties": {"size": {"type": "integer"}}}}}});
        let check = |text: &str, expect: &str| {
            let variables =
                [("self", Type::of(&schema, true)), ("oldSelf", Type::of(&schema, true).optional())];
            let got = compile(text, &["self", "oldSelf"]).and_then(|expr| check(&expr, &variables));
            let got = got.map_or_else(|why| why, |of| of.to_string());
            assert_eq!(got, expect, "{text}");
        };
        check("self.count + 1 > 2", "bool");
        check("self.count + self.name", "found no matching overload for '_+_' applied to '(int, string)'");
        check("self.count < self.ratio", "bool");
        check("self.count == self.ratio", "found no matching overload for '_==_' applied to '(int, double)'");
        check("self.count == 'x'", "found no matching overload for '_==_' applied to '(int, string)'");
        check("self.when > timestamp('2026-01-01T00:00:00Z')", "bool");
        check("self.when + duration('1h')", "timestamp");
        check("self.when > '2026'", "found no matching overload for '_>_' applied to '(timestamp, string)'");
        check("self.port == 80 || self.port == 'http'", "bool");
        check("self.free.what.ever > 3", "bool");
        check("!self.name", "found no matching overload for '!_' applied to '(string)'");
        check("self.on && self.count", "found no matching overload for '_&&_' applied to '(bool, int)'");
        check("self.on ? self.count : 0", "int");
        check(
            "self.on ? self.count : 'x'",
            "found no matching overload for '_?_:_' applied to '(bool, int, string)'",
        );
        check(
            "self.name.startsWith(3)",
            "found no matching overload for 'startsWith' applied to 'string.(int)'",
        );
        check(
            "self.count.startsWith('a')",
            "found no matching overload for 'startsWith' applied to 'int.(string)'",
        );
        check("size(self.count)", "found no matching overload for 'size' applied to '(int)'");
        check("self.tags.size() + size(self.labels) + size(self.name)", "int");
        check("self.name.size", "type 'string' does not support field selection");
        check("self.nmae == ''", "undefined field 'nmae'");
        check("self.disks.all(d, d.siez > 1)", "undefined field 'siez'");
        check("self.disks.all(d, d.size)", "expected type 'bool' but found 'int'");
        check("self.disks.map(d, d.size).sum()", "int");
        check("self.disks.filter(d, d.size > 1)[0].size", "int");
        check("self.disks['a']", "found no matching overload for '_[_]' applied to '(list(object), string)'");
        check(
            "self.count.all(c, true)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        );
        check("self.tags.exists(i, t, t == 'x' && i > 0)", "bool");
        check("self.labels.all(k, k.startsWith('a'))", "bool");
        check(
            "self.labels.all(k, v, v + 1 > 0)",
            "found no matching overload for '_+_' applied to '(string, int)'",
        );
        check("'a' in self.tags && 'b' in self.labels", "bool");
        check("1 in self.tags", "found no matching overload for '@in' applied to '(int, list(string))'");
        check("[1, 'a']", "expected type 'int' but found 'string'");
        check("{'a': 1, 'b': 2}.a", "int");
        check("self.metadata.name == self.kind", "bool");
        check("self.metadata.labels", "undefined field 'labels'");
        check("self.labels[?'x'].orValue('y')", "string");
        check(
            "self.labels[?'x'].orValue(1)",
            "found no matching overload for 'orValue' applied to 'optional_type(string).(int)'",
        );
        check("oldSelf.?count.orValue(0) <= self.count", "bool");
        check("self.?name.optMap(n, n.size()).value()", "int");
        check("cel.bind(x, self.count, x * x)", "int");
        check("dyn(self.count) == 'x'", "bool");
        check("self.name == null", "bool");
        check("type(self.count) == int", "bool");
        check(
            "string(self.count) + string(self.tags)",
            "found no matching overload for 'string' applied to '(list(string))'",
        );
        check(
            "quantity('1Gi').isGreaterThan(quantity('1Mi')) && cidr('10.0.0.0/8').containsIP('10.0.0.1')",
            "bool",
        );
        check("math.greatest(1, 2.0) > 1", "bool");
        check("self.tags.join(',').split(',').size()", "int");
        check("url(self.name).getQuery()['a'][0]", "string");
        check("self.tags + ['a'] == self.tags", "bool");
        check(
            "sets.contains(self.tags, [1])",
            "found no matching overload for 'sets.contains' applied to '(list(string), list(int))'",
        );
    }
}
