//! The functions of CEL, its string extensions, and those that Kubernetes adds.

use std::net::IpAddr;
use std::rc::Rc;

use super::{List, Map, Val, equal, no_overload, order};

/// The name of a type as a value of the language.
pub fn type_name(name: &str) -> Option<&'static str> {
    const NAMES: &[&str] =
        &["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];
    NAMES.iter().find(|n| **n == name).copied()
}

/// Every function there is.
const FUNCTIONS: &str = "size string int uint double bool bytes type dyn duration timestamp matches startsWith \
    endsWith contains charAt indexOf lastIndexOf join lowerAscii upperAscii replace split substring trim reverse \
    format isSorted sum min max distinct find findAll url isURL getScheme getHost getHostname getPort \
    getEscapedPath getQuery quantity isQuantity sign add sub isInteger asInteger asApproximateFloat isLessThan \
    isGreaterThan compareTo ip isIP ip.isCanonical family isUnspecified isLoopback isLinkLocalMulticast \
    isLinkLocalUnicast isGlobalUnicast cidr isCIDR containsIP containsCIDR prefixLength masked getFullYear getMonth \
    getDate getDayOfMonth getDayOfWeek getDayOfYear getHours getMinutes getSeconds getMilliseconds optional.of \
    optional.none optional.ofNonZeroValue hasValue value orValue or sets.contains sets.equivalent sets.intersects \
    math.greatest math.least first last flatten";

/// Is there a function of this name?
pub fn knows(name: &str) -> bool {
    FUNCTIONS.split_whitespace().any(|f| f == name)
}

/// What a call or an operator costs beyond itself: as much as it has to look at and to write. Counted no further than `most`.
pub fn cost(name: &str, of: Option<&Val<'_>>, args: &[Val<'_>], most: u64) -> u64 {
    let all: Vec<&Val<'_>> = of.into_iter().chain(args).collect();
    let top = |value: &Val<'_>| match value {
        Val::Text(text) => text.len() as u64 / 16,
        Val::Bytes(bytes) => bytes.len() as u64 / 16,
        Val::List(list) => list.len() as u64,
        Val::Map(map) => map.len() as u64,
        _ => 0,
    };
    let deep = || all.iter().map(|value| weight(value, most)).fold(0, u64::saturating_add);
    let texts = |at: usize| all.get(at).and_then(|value| value.as_text()).map_or(0, |text| text.len() as u64);
    match (name, all.as_slice()) {
        // Whole values are compared, or written out.
        ("==" | "!=" | "in" | "indexOf" | "lastIndexOf" | "string" | "format", _) => deep(),
        ("distinct", [list]) => weight(list, most).saturating_mul(top(list)),
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => {
            let (long, each) = (top(a).saturating_mul(top(b)), weight(a, most).max(weight(b, most)));
            long.saturating_mul(2).saturating_add(each)
        }
        ("replace", _) => {
            let places = texts(0) / texts(1).max(1) + 1;
            places.saturating_mul(texts(2)).saturating_add(texts(0)) / 16
        }
        ("join", [list, ..]) => deep().saturating_add(top(list).saturating_mul(texts(1)) / 16),
        ("split" | "findAll", _) => texts(0),
        _ => all.iter().map(|value| top(value)).fold(0, u64::saturating_add),
    }
}

/// How much there is to look at in a value, however deep; counted no further than `most`.
fn weight(value: &Val<'_>, most: u64) -> u64 {
    fn each<T>(items: impl Iterator<Item = T>, left: &mut u64, count: impl Fn(T, &mut u64)) {
        for item in items {
            if *left == 0 {
                return;
            }
            count(item, left);
        }
    }
    fn json(value: &serde_json::Value, left: &mut u64) {
        *left = left.saturating_sub(1);
        match value {
            serde_json::Value::String(text) => *left = left.saturating_sub(text.len() as u64 / 16),
            serde_json::Value::Array(items) => each(items.iter(), left, json),
            serde_json::Value::Object(map) => each(map.values(), left, json),
            _ => {}
        }
    }
    fn made(value: &Val<'_>, left: &mut u64) {
        *left = left.saturating_sub(1);
        match value {
            Val::Text(text) => *left = left.saturating_sub(text.len() as u64 / 16),
            Val::Bytes(bytes) => *left = left.saturating_sub(bytes.len() as u64 / 16),
            Val::List(List::Json(items, _)) => each(items.iter(), left, json),
            Val::Map(Map::Json(map, _)) => each(map.values(), left, json),
            Val::List(List::Made(items)) => each(items.iter(), left, made),
            Val::Map(Map::Made(entries)) => {
                each(entries.iter().flat_map(|(key, item)| [key, item]), left, made);
            }
            Val::Optional(Some(inner)) => made(inner, left),
            _ => {}
        }
    }
    let mut left = most.saturating_add(1);
    made(value, &mut left);
    most.saturating_add(1) - left
}

/// Nanoseconds since the epoch of an RFC 3339 time.
pub fn time(text: &str) -> Option<i128> {
    text.parse::<jiff::Timestamp>().ok().map(|time| time.as_nanosecond())
}

/// Nanoseconds of a Go duration such as `1h30m`.
pub fn span(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        if !part.is_empty() && part.len() <= 18 {
            total += part.parse::<i128>().ok()? * unit / 10i128.pow(part.len() as u32);
        }
        rest = after;
    }
    (!text.is_empty()).then_some(sign * total)
}

/// A Kubernetes quantity in billionths: `1500m`, `2Gi`, `1e3`.
pub fn quantity(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && part.is_empty()) || !digits.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    // One unit is `up` / `down` billionths.
    let (up, down): (i128, i128) = match suffix {
        "n" => (1, 1),
        "u" => (1_000, 1),
        "m" => (1_000_000, 1),
        "" => (1_000_000_000, 1),
        "k" => (10i128.pow(12), 1),
        "M" => (10i128.pow(15), 1),
        "G" => (10i128.pow(18), 1),
        "T" => (10i128.pow(21), 1),
        "P" => (10i128.pow(24), 1),
        "E" => (10i128.pow(27), 1),
        "Ki" => (1_000_000_000 << 10, 1),
        "Mi" => (1_000_000_000 << 20, 1),
        "Gi" => (1_000_000_000 << 30, 1),
        "Ti" => (1_000_000_000 << 40, 1),
        "Pi" => (1_000_000_000 << 50, 1),
        "Ei" => (1_000_000_000 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            match power {
                0..=18 => (10i128.pow(9 + power.unsigned_abs()), 1),
                -9..=-1 => (10i128.pow((9 + power).unsigned_abs()), 1),
                _ => return None,
            }
        }
    };
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(up)? / down;
    if !part.is_empty() {
        let part = part.get(..part.len().min(9))?;
        // Rounded up, as a quantity is when it is finer than it can be.
        let scale = 10i128.pow(part.len() as u32);
        total = total.checked_add((part.parse::<i128>().ok()?.checked_mul(up)? + scale - 1) / scale)?;
    }
    Some(sign * total)
}

/// A value in words, as `string()` and messages have it.
pub fn shown(value: &Val<'_>) -> String {
    match value {
        Val::Null => "null".into(),
        Val::Bool(b) => b.to_string(),
        Val::Int(n) => n.to_string(),
        Val::Uint(n) => n.to_string(),
        Val::Double(n) => n.to_string(),
        Val::Text(text) => text.to_string(),
        Val::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Val::List(list) => {
            format!("[{}]", list.iter().map(|item| shown(&item)).collect::<Vec<_>>().join(", "))
        }
        Val::Map(map) => {
            let entries = map.entries();
            let entries = entries.iter().map(|(k, v)| format!("{}: {}", shown(k), shown(v)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Val::Time(nanos) => {
            jiff::Timestamp::from_nanosecond(*nanos).map_or_else(|_| nanos.to_string(), |t| t.to_string())
        }
        Val::Span(nanos) => format!("{}s", *nanos as f64 / 1e9),
        Val::Optional(None) => "optional.none()".into(),
        Val::Optional(Some(inner)) => format!("optional({})", shown(inner)),
        Val::Type(name) => (*name).into(),
        Val::Quantity(nanos) => format!("{}", *nanos as f64 / 1e9),
        Val::Ip(ip) => ip.to_string(),
        Val::Cidr(ip, bits) => format!("{ip}/{bits}"),
        Val::Url(parts) => format!("{}://{}{}", parts[0], parts[1], parts[2]),
    }
}

/// How many states a pattern has, roughly: a group that is repeated a number of times is there that often.
pub fn states(pattern: &str) -> u64 {
    let mut open = vec![0u64];
    let mut last = 0u64;
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '(' => open.push(0),
            ')' if open.len() > 1 => {
                last = open.pop().unwrap_or(0);
                if let Some(outer) = open.last_mut() {
                    *outer = outer.saturating_add(last);
                }
            }
            '{' => {
                let text: String = rest.by_ref().take_while(|c| *c != '}').collect();
                let times = text.split(',').filter_map(|n| n.trim().parse::<u64>().ok()).max().unwrap_or(1);
                if let Some(here) = open.last_mut() {
                    *here = here.saturating_add(last.saturating_mul(times.saturating_sub(1)));
                }
            }
            '*' | '+' | '?' | '|' | '^' | '$' => {}
            _ => {
                match c {
                    '[' => while rest.next().is_some_and(|c| c != ']') {},
                    '\\' => drop(rest.next()),
                    _ => {}
                }
                last = 1;
                if let Some(here) = open.last_mut() {
                    *here = here.saturating_add(1);
                }
            }
        }
    }
    open.iter().fold(0, |sum, part| sum.saturating_add(*part))
}

/// A regular expression of bounded size.
pub fn regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map_err(|e| format!("{pattern:?} is no regular expression: {e}"))
}

fn url(text: &str) -> Option<[String; 4]> {
    let (scheme, rest) = text.split_once("://").or_else(|| text.starts_with('/').then_some(("", text)))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let at = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    let fits = !text.contains(char::is_whitespace) && (scheme.is_empty() || !host.is_empty());
    fits.then(|| [scheme.into(), host.into(), path.into(), query.into()])
}

fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let (ip, bits): (IpAddr, u8) = (ip.parse().ok()?, bits.parse().ok()?);
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

fn holds((net, bits): (IpAddr, u8), ip: IpAddr) -> bool {
    net.is_ipv4() == ip.is_ipv4() && masked(net, bits) == masked(ip, bits)
}

fn int<'a>(n: usize) -> Val<'a> {
    Val::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn chars(text: &str, from: usize, to: usize) -> String {
    text.chars().skip(from).take(to.saturating_sub(from)).collect()
}

/// Calls a function: on something, or with arguments only.
pub fn call<'a>(name: &str, of: Option<Val<'a>>, args: Vec<Val<'a>>) -> Result<Val<'a>, String> {
    let shown_args = || {
        let all: Vec<&Val<'_>> = of.iter().chain(&args).collect();
        no_overload(name, &all)
    };
    // `size(x)` and `x.size()` are one function, as are several others.
    let all: Vec<&Val<'a>> = of.iter().chain(&args).collect();
    if let [Val::Text(text), rest @ ..] = all.as_slice()
        && let Some(done) = on_text(name, text, rest)?
    {
        return Ok(done);
    }
    if let [Val::List(list), rest @ ..] = all.as_slice()
        && let Some(done) = on_list(name, list, rest)?
    {
        return Ok(done);
    }
    let found = match (name, all.as_slice()) {
        ("size", [Val::Text(text)]) => int(text.chars().count()),
        ("size", [Val::Bytes(bytes)]) => int(bytes.len()),
        ("size", [Val::List(list)]) => int(list.len()),
        ("size", [Val::Map(map)]) => int(map.len()),
        ("dyn", [value]) => (*value).clone(),
        ("type", [value]) => Val::Type(value.kind()),
        ("string", [value @ (Val::List(_) | Val::Map(_))]) => return Err(no_overload(name, &[value])),
        ("string", [value]) => Val::owned(shown(value)),
        ("int", [Val::Int(n)]) => Val::Int(*n),
        ("int", [Val::Uint(n)]) => Val::Int(i64::try_from(*n).map_err(|_| "integer overflow")?),
        ("int", [Val::Double(n)]) if n.is_finite() && n.abs() < 9.3e18 => Val::Int(*n as i64),
        ("int", [Val::Text(text)]) => Val::Int(text.parse().map_err(|_| format!("{text:?} is no int"))?),
        ("int", [Val::Time(nanos)]) => Val::Int((nanos / 1_000_000_000) as i64),
        ("uint", [Val::Uint(n)]) => Val::Uint(*n),
        ("uint", [Val::Int(n)]) => Val::Uint(u64::try_from(*n).map_err(|_| "integer overflow")?),
        ("uint", [Val::Text(text)]) => Val::Uint(text.parse().map_err(|_| format!("{text:?} is no uint"))?),
        ("double", [Val::Double(n)]) => Val::Double(*n),
        ("double", [Val::Int(n)]) => Val::Double(*n as f64),
        ("double", [Val::Uint(n)]) => Val::Double(*n as f64),
        ("double", [Val::Text(t)]) => Val::Double(t.parse().map_err(|_| format!("{t:?} is no double"))?),
        ("bool", [Val::Bool(b)]) => Val::Bool(*b),
        ("bool", [Val::Text(text)]) => match text.as_ref() {
            "true" | "True" | "TRUE" | "t" | "1" => Val::Bool(true),
            "false" | "False" | "FALSE" | "f" | "0" => Val::Bool(false),
            _ => return Err(format!("{text:?} is no bool")),
        },
        ("bytes", [Val::Text(text)]) => Val::Bytes(text.as_bytes().into()),
        ("duration", [Val::Text(text)]) => {
            Val::Span(span(text).ok_or_else(|| format!("{text:?} is no duration"))?)
        }
        ("timestamp", [Val::Text(text)]) => {
            Val::Time(time(text).ok_or_else(|| format!("{text:?} is no timestamp"))?)
        }
        ("duration", [Val::Span(_)]) | ("timestamp", [Val::Time(_)]) => all[0].clone(),
        (_, [Val::Quantity(nanos), rest @ ..]) => on_quantity(name, *nanos, rest).ok_or_else(shown_args)?,
        (_, [Val::Time(_) | Val::Span(_), ..]) => {
            on_time(name, all[0], args.first()).ok_or_else(shown_args)?
        }
        (_, [Val::Url(parts)]) => on_url(name, parts).ok_or_else(shown_args)?,
        (_, [Val::Ip(ip)]) => on_ip(name, *ip).ok_or_else(shown_args)?,
        (_, [Val::Cidr(ip, bits), rest @ ..]) => on_cidr(name, *ip, *bits, rest).ok_or_else(shown_args)?,
        ("optional.of", [value]) => Val::Optional(Some(Rc::new((*value).clone()))),
        ("optional.none", []) => Val::Optional(None),
        ("optional.ofNonZeroValue", [value]) => {
            Val::Optional((!is_zero(value)).then(|| Rc::new((*value).clone())))
        }
        ("hasValue", [Val::Optional(inner)]) => Val::Bool(inner.is_some()),
        ("value", [Val::Optional(inner)]) => match inner {
            Some(inner) => (**inner).clone(),
            None => return Err("optional.none() dereference".into()),
        },
        ("orValue", [Val::Optional(inner), other]) => {
            inner.as_ref().map_or_else(|| (*other).clone(), |v| (**v).clone())
        }
        ("or", [first @ Val::Optional(inner), other]) => {
            if inner.is_some() {
                (*first).clone()
            } else {
                (*other).clone()
            }
        }
        ("math.greatest" | "math.least", [_, ..]) => {
            let list = match all.as_slice() {
                [Val::List(list)] => list.clone(),
                values => List::Made(Rc::new(values.iter().map(|v| (*v).clone()).collect())),
            };
            extreme(&list, name == "math.greatest").ok_or_else(shown_args)?
        }
        _ => return Err(shown_args()),
    };
    Ok(found)
}

/// Asks a regular expression; none if it is not asked so.
pub fn search<'a>(name: &str, regex: &regex::Regex, text: &str, rest: &[&Val<'a>]) -> Option<Val<'a>> {
    let limit = match rest {
        [] => usize::MAX,
        [Val::Int(n)] if name == "findAll" => usize::try_from(*n).unwrap_or(usize::MAX),
        _ => return None,
    };
    Some(match name {
        "matches" => Val::Bool(regex.is_match(text)),
        "find" => Val::owned(regex.find(text).map_or("", |found| found.as_str())),
        _ => Val::list(regex.find_iter(text).take(limit).map(|m| Val::owned(m.as_str())).collect()),
    })
}

fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Null => true,
        Val::Bool(b) => !b,
        Val::Int(n) => *n == 0,
        Val::Uint(n) => *n == 0,
        Val::Double(n) => *n == 0.0,
        Val::Text(text) => text.is_empty(),
        Val::List(list) => list.len() == 0,
        Val::Map(map) => map.len() == 0,
        _ => false,
    }
}

fn on_text<'a>(name: &str, text: &str, rest: &[&Val<'a>]) -> Result<Option<Val<'a>>, String> {
    let at = |n: &i64| usize::try_from(*n).map_err(|_| format!("index out of range: {n}"));
    let length = text.chars().count();
    let position = |byte: usize| text[..byte].chars().count();
    let found = match (name, rest) {
        ("startsWith", [Val::Text(part)]) => Val::Bool(text.starts_with(part.as_ref())),
        ("endsWith", [Val::Text(part)]) => Val::Bool(text.ends_with(part.as_ref())),
        ("contains", [Val::Text(part)]) => Val::Bool(text.contains(part.as_ref())),
        ("charAt", [Val::Int(n)]) if at(n)? <= length => Val::owned(chars(text, at(n)?, at(n)? + 1)),
        ("indexOf", [Val::Text(part)]) => text.find(part.as_ref()).map_or(Val::Int(-1), |b| int(position(b))),
        ("lastIndexOf", [Val::Text(part)]) => {
            text.rfind(part.as_ref()).map_or(Val::Int(-1), |b| int(position(b)))
        }
        ("lowerAscii", []) => Val::owned(text.to_ascii_lowercase()),
        ("upperAscii", []) => Val::owned(text.to_ascii_uppercase()),
        ("trim", []) => Val::owned(text.trim()),
        ("reverse", []) => Val::owned(text.chars().rev().collect::<String>()),
        ("replace", [Val::Text(from), Val::Text(to)]) => Val::owned(text.replace(from.as_ref(), to)),
        ("replace", [Val::Text(from), Val::Text(to), Val::Int(n)]) => match usize::try_from(*n) {
            Ok(n) => Val::owned(text.replacen(from.as_ref(), to, n)),
            Err(_) => Val::owned(text.replace(from.as_ref(), to)),
        },
        ("split", [Val::Text(by), limit @ ..]) => {
            let limit = match limit {
                [Val::Int(n)] if *n >= 0 => at(n)?,
                _ => usize::MAX,
            };
            let parts: Vec<Val<'a>> = if limit == 0 {
                Vec::new()
            } else if by.is_empty() {
                text.chars().take(limit).map(|c| Val::owned(c.to_string())).collect()
            } else {
                text.splitn(limit, by.as_ref()).map(Val::owned).collect()
            };
            Val::list(parts)
        }
        ("substring", [Val::Int(from)]) if at(from)? <= length => Val::owned(chars(text, at(from)?, length)),
        ("substring", [Val::Int(from), Val::Int(to)]) if at(from)? <= at(to)? && at(to)? <= length => {
            Val::owned(chars(text, at(from)?, at(to)?))
        }
        ("charAt" | "substring", _) => return Err(format!("index out of range in {text:?}")),
        ("format", [Val::List(args)]) => Val::owned(format(text, args)?),
        ("url", []) => Val::Url(Rc::new(url(text).ok_or_else(|| format!("{text:?} is no URL"))?)),
        ("isURL", []) => Val::Bool(url(text).is_some()),
        ("quantity", []) => Val::Quantity(quantity(text).ok_or_else(|| format!("{text:?} is no quantity"))?),
        ("isQuantity", []) => Val::Bool(quantity(text).is_some()),
        ("ip", []) => Val::Ip(text.parse().map_err(|_| format!("{text:?} is no IP address"))?),
        ("isIP", []) => Val::Bool(text.parse::<IpAddr>().is_ok()),
        ("ip.isCanonical", []) => Val::Bool(text.parse::<IpAddr>().is_ok_and(|ip| ip.to_string() == text)),
        ("cidr", []) => {
            let (ip, bits) = cidr(text).ok_or_else(|| format!("{text:?} is no network"))?;
            Val::Cidr(ip, bits)
        }
        ("isCIDR", []) => Val::Bool(cidr(text).is_some()),
        _ => return Ok(None),
    };
    Ok(Some(found))
}

/// `'%s'.format([…])`: the verbs s, d, f, x and o, and `%%`.
fn format(text: &str, args: &List<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut next = 0;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = String::new();
        while let Some(c) = rest.next_if(|c| c.is_ascii_digit() || *c == '.') {
            precision.push(c);
        }
        let verb = rest.next().ok_or("a format that ends in %")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = args.get(next).ok_or("a format with too few values")?;
        next += 1;
        match (verb, &value) {
            ('s', value) => out.push_str(&shown(value)),
            ('d', Val::Int(_) | Val::Uint(_)) => out.push_str(&shown(&value)),
            ('f', Val::Double(n)) => {
                let digits = precision.trim_start_matches('.').parse().unwrap_or(6usize).min(100);
                out.push_str(&format!("{n:.digits$}"));
            }
            ('x', Val::Int(n)) => out.push_str(&format!("{n:x}")),
            ('o', Val::Int(n)) => out.push_str(&format!("{n:o}")),
            (verb, value) => return Err(no_overload(&format!("%{verb}"), &[value])),
        }
    }
    Ok(out)
}

fn extreme<'a>(list: &List<'a>, greatest: bool) -> Option<Val<'a>> {
    let mut values = list.iter();
    let mut best = values.next()?;
    for value in values {
        let order = order(&value, &best)??;
        if (greatest && order.is_gt()) || (!greatest && order.is_lt()) {
            best = value;
        }
    }
    Some(best)
}

fn on_list<'a>(name: &str, list: &List<'a>, rest: &[&Val<'a>]) -> Result<Option<Val<'a>>, String> {
    let find = |wanted: &Val<'a>| list.iter().position(|item| equal(&item, wanted));
    let every =
        |some: &List<'a>, of: &List<'a>| some.iter().all(|item| of.iter().any(|other| equal(&item, &other)));
    let found = match (name, rest) {
        ("isSorted", []) => {
            let items: Vec<Val<'a>> = list.iter().collect();
            let sorted = |pair: &[Val<'a>]| order(&pair[0], &pair[1]).flatten().is_some_and(|o| o.is_le());
            Val::Bool(items.windows(2).all(sorted))
        }
        ("sum", []) => {
            let mut items = list.iter();
            let Some(first) = items.next() else { return Ok(Some(Val::Int(0))) };
            items.try_fold(first, |total, item| super::binary("+", total, item))?
        }
        ("min" | "max", []) => {
            extreme(list, name == "max").ok_or_else(|| format!("{name} called on an empty list"))?
        }
        ("indexOf", [wanted]) => find(wanted).map_or(Val::Int(-1), int),
        ("lastIndexOf", [wanted]) => {
            let at = (0..list.len()).rev().find(|at| list.get(*at).is_some_and(|item| equal(&item, wanted)));
            at.map_or(Val::Int(-1), int)
        }
        ("first" | "last", []) => {
            let at = if name == "first" { Some(0) } else { list.len().checked_sub(1) };
            Val::Optional(at.and_then(|at| list.get(at)).map(Rc::new))
        }
        ("join", []) => Val::owned(list.iter().map(|item| shown(&item)).collect::<Vec<_>>().concat()),
        ("join", [Val::Text(by)]) => {
            Val::owned(list.iter().map(|item| shown(&item)).collect::<Vec<_>>().join(by))
        }
        ("reverse", []) => {
            let mut items: Vec<Val<'a>> = list.iter().collect();
            items.reverse();
            Val::list(items)
        }
        ("distinct", []) => {
            let mut items: Vec<Val<'a>> = Vec::new();
            for item in list.iter() {
                if !items.iter().any(|known| equal(known, &item)) {
                    items.push(item);
                }
            }
            Val::list(items)
        }
        ("flatten", []) => Val::list(
            list.iter()
                .flat_map(|item| match item {
                    Val::List(inner) => inner.iter().collect(),
                    other => vec![other],
                })
                .collect(),
        ),
        ("sets.contains", [Val::List(other)]) => Val::Bool(every(other, list)),
        ("sets.equivalent", [Val::List(other)]) => Val::Bool(every(other, list) && every(list, other)),
        ("sets.intersects", [Val::List(other)]) => {
            Val::Bool(list.iter().any(|item| other.iter().any(|o| equal(&item, &o))))
        }
        _ => return Ok(None),
    };
    Ok(Some(found))
}

fn on_quantity<'a>(name: &str, nanos: i128, rest: &[&Val<'a>]) -> Option<Val<'a>> {
    const ONE: i128 = 1_000_000_000;
    let other = match rest {
        [] => None,
        [Val::Quantity(other)] => Some(*other),
        [Val::Int(other)] => Some(i128::from(*other) * ONE),
        _ => return None,
    };
    Some(match (name, other) {
        ("sign", None) => Val::Int(nanos.signum() as i64),
        ("isInteger", None) => Val::Bool(nanos % ONE == 0 && i64::try_from(nanos / ONE).is_ok()),
        ("asInteger", None) if nanos % ONE == 0 => Val::Int(i64::try_from(nanos / ONE).ok()?),
        ("asApproximateFloat", None) => Val::Double(nanos as f64 / 1e9),
        ("add", Some(other)) => Val::Quantity(nanos.checked_add(other)?),
        ("sub", Some(other)) => Val::Quantity(nanos.checked_sub(other)?),
        ("isLessThan", Some(other)) => Val::Bool(nanos < other),
        ("isGreaterThan", Some(other)) => Val::Bool(nanos > other),
        ("compareTo", Some(other)) => Val::Int(nanos.cmp(&other) as i64),
        _ => return None,
    })
}

fn on_time<'a>(name: &str, value: &Val<'a>, zone: Option<&Val<'a>>) -> Option<Val<'a>> {
    if let Val::Span(nanos) = value {
        let whole = |unit: i128| Some(Val::Int(i64::try_from(nanos / unit).ok()?));
        return match name {
            "getHours" => whole(3_600_000_000_000),
            "getMinutes" => whole(60_000_000_000),
            "getSeconds" => whole(1_000_000_000),
            "getMilliseconds" => whole(1_000_000),
            _ => None,
        };
    }
    let Val::Time(nanos) = value else { return None };
    let zone = match zone {
        None => jiff::tz::TimeZone::UTC,
        Some(Val::Text(name)) if name == "UTC" => jiff::tz::TimeZone::UTC,
        Some(Val::Text(name)) => offset(name)?,
        Some(_) => return None,
    };
    let time = jiff::Timestamp::from_nanosecond(*nanos).ok()?.to_zoned(zone);
    let number = |n: i64| Some(Val::Int(n));
    match name {
        "getFullYear" => number(i64::from(time.year())),
        "getMonth" => number(i64::from(time.month()) - 1),
        "getDate" => number(i64::from(time.day())),
        "getDayOfMonth" => number(i64::from(time.day()) - 1),
        "getDayOfWeek" => number(i64::from(time.weekday().to_sunday_zero_offset())),
        "getDayOfYear" => number(i64::from(time.day_of_year()) - 1),
        "getHours" => number(i64::from(time.hour())),
        "getMinutes" => number(i64::from(time.minute())),
        "getSeconds" => number(i64::from(time.second())),
        "getMilliseconds" => number(i64::from(time.millisecond())),
        _ => None,
    }
}

/// `+02:00`; names of zones need a database that this library does not carry.
fn offset(text: &str) -> Option<jiff::tz::TimeZone> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = (hours.parse::<i32>().ok()? * 60 + minutes.parse::<i32>().ok()?) * 60;
    Some(jiff::tz::Offset::from_seconds(sign * seconds).ok()?.to_time_zone())
}

fn on_url<'a>(name: &str, parts: &[String; 4]) -> Option<Val<'a>> {
    let [scheme, host, path, query] = parts;
    let without_port = |host: &str| match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => host[..at].to_string(),
        _ => host.to_string(),
    };
    Some(match name {
        "getScheme" => Val::owned(scheme.as_str()),
        "getHost" => Val::owned(host.as_str()),
        "getHostname" => Val::owned(without_port(host).trim_matches(['[', ']'])),
        "getPort" => Val::owned(host[without_port(host).len()..].trim_start_matches(':')),
        "getEscapedPath" => Val::owned(path.as_str()),
        "getQuery" => {
            let mut entries: Vec<(Val<'a>, Val<'a>)> = Vec::new();
            for part in query.split('&').filter(|p| !p.is_empty()) {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                let (key, value) = (Val::owned(key), Val::owned(value));
                match entries.iter_mut().find(|(k, _)| equal(k, &key)) {
                    Some((_, Val::List(List::Made(values)))) => Rc::make_mut(values).push(value),
                    _ => entries.push((key, Val::list(vec![value]))),
                }
            }
            Val::Map(Map::Made(Rc::new(entries)))
        }
        _ => return None,
    })
}

fn on_ip<'a>(name: &str, ip: IpAddr) -> Option<Val<'a>> {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    let is_link_multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    };
    Some(match name {
        "family" => Val::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Val::Bool(ip.is_unspecified()),
        "isLoopback" => Val::Bool(ip.is_loopback()),
        "isLinkLocalUnicast" => Val::Bool(is_link_local),
        "isLinkLocalMulticast" => Val::Bool(is_link_multicast),
        "isGlobalUnicast" => {
            let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            Val::Bool(
                !ip.is_unspecified()
                    && !ip.is_loopback()
                    && !ip.is_multicast()
                    && !is_link_local
                    && !is_broadcast,
            )
        }
        _ => return None,
    })
}

fn on_cidr<'a>(name: &str, ip: IpAddr, bits: u8, rest: &[&Val<'a>]) -> Option<Val<'a>> {
    Some(match (name, rest) {
        ("containsIP", [Val::Ip(other)]) => Val::Bool(holds((ip, bits), *other)),
        ("containsIP", [Val::Text(other)]) => Val::Bool(holds((ip, bits), other.parse().ok()?)),
        ("containsCIDR", [Val::Cidr(other, more)]) => Val::Bool(*more >= bits && holds((ip, bits), *other)),
        ("containsCIDR", [Val::Text(other)]) => {
            let (other, more) = cidr(other)?;
            Val::Bool(more >= bits && holds((ip, bits), other))
        }
        ("ip", []) => Val::Ip(ip),
        ("prefixLength", []) => Val::Int(i64::from(bits)),
        ("masked", []) => Val::Cidr(masked(ip, bits), bits),
        _ => return None,
    })
}
