//! Reads protobuf bodies. kubectl and other typed clients send built-in kinds that way when they
//! create them, and do not fall back to JSON. Answers are always JSON, which all of them accept.
//!
//! The field numbers are in the type table. The wire does not tell an absent number from a zero, as
//! JSON does, so zeros are dropped except where the API gives them a meaning of their own.

use serde_json::{Map, Value, json};

use crate::defaults::base64;
use crate::status::Fault;
use crate::types::{self, Ty, Type};

/// The media type.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";
/// Deeper than any object, shallow enough for any stack.
const DEPTH_MAX: usize = 64;

/// Fields whose zero or false is a choice and not an absence.
const MEANT: &[&str] = &[
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "backoffLimit",
    "completions",
    "enableServiceLinks",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "minReplicas",
    "parallelism",
    "partition",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "successfulJobsHistoryLimit",
    "suspend",
    "terminationGracePeriodSeconds",
    "ttlSecondsAfterFinished",
    "value",
];

/// An object of this type, as JSON.
pub fn object(ty: &Type, body: &[u8]) -> Result<Value, Fault> {
    let read = || -> Option<Value> {
        let envelope = fields(body.strip_prefix(MAGIC)?)?;
        let inside = |fields: &[(u64, Wire<'_>)], number: u64| match fields.iter().find(|f| f.0 == number) {
            Some((_, Wire::Bytes(bytes))) => Some(bytes.to_vec()),
            _ => None,
        };
        let mut object = message(ty, &inside(&envelope, 2)?, 0)?;
        let head = fields_owned(&inside(&envelope, 1)?)?;
        for (number, key) in [(1, "apiVersion"), (2, "kind")] {
            if let Some((_, text)) = head.iter().find(|(n, _)| *n == number) {
                object[key] = json!(text);
            }
        }
        Some(object)
    };
    read().ok_or_else(|| Fault::bad_request(format!("the body is not a protobuf {}", ty.name)))
}

#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Wire<'_>)>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            1 => {
                let (raw, rest) = bytes.split_first_chunk::<8>()?;
                bytes = rest;
                Wire::Double(f64::from_le_bytes(*raw))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (raw, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Wire::Bytes(raw)
            }
            5 => {
                bytes = bytes.get(4..)?;
                continue;
            }
            _ => return None,
        };
        out.push((tag >> 3, value));
    }
    Some(out)
}

fn fields_owned(bytes: &[u8]) -> Option<Vec<(u64, String)>> {
    let text = |(number, wire): (u64, Wire<'_>)| match wire {
        Wire::Bytes(raw) => Some((number, String::from_utf8_lossy(raw).into_owned())),
        _ => None,
    };
    Some(fields(bytes)?.into_iter().filter_map(text).collect())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn message(ty: &Type, bytes: &[u8], depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    let mut map = Map::new();
    part(ty, &[], bytes, &mut map, depth)?;
    Some(Value::Object(map))
}

/// Reads one message of a type; `prefix` leads to it if JSON shows it inline.
fn part(ty: &Type, prefix: &[u64], bytes: &[u8], map: &mut Map<String, Value>, depth: usize) -> Option<()> {
    for (number, wire) in fields(bytes)? {
        let mut path = prefix.to_vec();
        path.push(number);
        if let Some(field) = ty.fields.iter().find(|f| f.wire == path) {
            add(field.name, &field.ty, wire, map, depth)?;
        } else if let Wire::Bytes(inner) = wire
            && ty.fields.iter().any(|f| f.wire.len() > path.len() && f.wire.starts_with(&path))
        {
            part(ty, &path, inner, map, depth + 1)?;
        }
        // Anything else is a field of a newer version; a real server would not know it either.
    }
    Some(())
}

fn add(name: &str, ty: &Ty, wire: Wire<'_>, map: &mut Map<String, Value>, depth: usize) -> Option<()> {
    match (ty, wire) {
        (Ty::List(inner), wire) => {
            let value = single(inner, wire, depth)?;
            if let Value::Array(items) = map.entry(name).or_insert_with(|| json!([])) {
                items.push(value);
            }
        }
        (Ty::Map(inner), Wire::Bytes(entry)) => {
            let (mut key, mut value) = (String::new(), empty(inner));
            for (number, wire) in fields(entry)? {
                match (number, wire, &**inner) {
                    (1, Wire::Bytes(raw), _) => key = String::from_utf8_lossy(raw).into_owned(),
                    // A map of lists wraps each list in a message.
                    (2, Wire::Bytes(raw), Ty::List(item)) => {
                        let items = fields(raw)?.into_iter().map(|(_, wire)| single(item, wire, depth + 1));
                        value = Value::Array(items.collect::<Option<Vec<Value>>>()?);
                    }
                    (2, wire, inner) => value = single(inner, wire, depth + 1)?,
                    _ => {}
                }
            }
            if let Value::Object(entries) = map.entry(name).or_insert_with(|| json!({})) {
                entries.insert(key, value);
            }
        }
        (ty, wire) => {
            let value = single(ty, wire, depth)?;
            let nothing = match &value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Number(number) => number.as_f64() == Some(0.0) && !MEANT.contains(&name),
                Value::Bool(on) => !on && !MEANT.contains(&name),
                _ => false,
            };
            if !nothing {
                map.insert(name.to_string(), value);
            }
        }
    }
    Some(())
}

fn empty(ty: &Ty) -> Value {
    match ty {
        Ty::Scalar(_) => json!(""),
        Ty::List(_) => json!([]),
        _ => json!({}),
    }
}

fn single(ty: &Ty, wire: Wire<'_>, depth: usize) -> Option<Value> {
    Some(match (ty, wire) {
        (Ty::Scalar('b'), Wire::Number(n)) => json!(n != 0),
        (Ty::Scalar('i' | 'l'), Wire::Number(n)) => json!(n as i64),
        (Ty::Scalar('n'), Wire::Double(n)) => json!(n),
        (Ty::Scalar('s'), Wire::Bytes(raw)) => json!(std::str::from_utf8(raw).ok()?),
        (Ty::Scalar('y'), Wire::Bytes(raw)) => json!(base64(raw)),
        (Ty::Scalar('q'), Wire::Bytes(raw)) => {
            json!(fields_owned(raw)?.into_iter().find(|f| f.0 == 1).map(|f| f.1).unwrap_or_default())
        }
        (Ty::Scalar('t'), Wire::Bytes(raw)) => time(raw)?,
        (Ty::Scalar('x'), Wire::Bytes(raw)) => int_or_string(raw)?,
        (Ty::Scalar('*'), Wire::Bytes(raw)) => match fields(raw)?.first() {
            Some((1, Wire::Bytes(text))) => serde_json::from_slice(text).ok()?,
            _ => Value::Null,
        },
        (Ty::Named(name), Wire::Bytes(raw)) => message(types::get(name)?, raw, depth + 1)?,
        _ => return None,
    })
}

/// Seconds and nanoseconds; nothing at all means no time.
fn time(raw: &[u8]) -> Option<Value> {
    let (mut seconds, mut nanos) = (None, 0);
    for field in fields(raw)? {
        match field {
            (1, Wire::Number(n)) => seconds = Some(n as i64),
            (2, Wire::Number(n)) => nanos = n as i64,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Some(Value::Null) };
    let time = jiff::Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok()?;
    let form = if nanos == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%.6fZ" };
    Some(json!(time.strftime(form).to_string()))
}

fn int_or_string(raw: &[u8]) -> Option<Value> {
    let (mut text, mut number, mut is_text) = (String::new(), 0i64, false);
    for field in fields(raw)? {
        match field {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(n)) => number = n as i64,
            (3, Wire::Bytes(raw)) => text = String::from_utf8_lossy(raw).into_owned(),
            _ => {}
        }
    }
    Some(if is_text { json!(text) } else { json!(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: u8, inner: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, inner.len() as u8];
        out.extend_from_slice(inner);
        out
    }

    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    fn body(kind: &[u8], raw: &[u8]) -> Vec<u8> {
        [MAGIC, &bytes(1, &[bytes(1, b"v1"), bytes(2, kind)].concat()), &bytes(2, raw)].concat()
    }

    #[test]
    fn an_object_is_read_as_its_json_would_be() {
        let meta = [
            bytes(1, b"a"),
            bytes(2, b""),
            bytes(8, b""),
            bytes(11, &[bytes(1, b"k"), bytes(2, b"v")].concat()),
        ];
        let entry = [bytes(1, b"key"), bytes(2, b"abc")].concat();
        let raw = [bytes(1, &meta.concat()), bytes(2, &entry), bytes(3, b"Opaque"), number(5, 0)].concat();
        let secret = object(types::get("core.v1.Secret").unwrap(), &body(b"Secret", &raw)).unwrap();
        assert_eq!(
            secret,
            json!({"metadata": {"name": "a", "labels": {"k": "v"}}, "data": {"key": "YWJj"}, "type": "Opaque",
                "apiVersion": "v1", "kind": "Secret"})
        );
    }

    #[test]
    fn inlined_messages_int_or_strings_and_quantities_are_read() {
        // A volume's source is a message of its own on the wire: emptyDir is field 2 of field 2.
        let volume = [bytes(1, b"v"), bytes(2, &bytes(2, &bytes(2, &bytes(1, b"1Gi"))))].concat();
        let port = [number(3, 80), bytes(4, &[number(1, 1), bytes(3, b"http")].concat())].concat();
        let read = |name: &str, raw: &[u8]| message(types::get(name).unwrap(), raw, 0).unwrap();
        assert_eq!(read("core.v1.Volume", &volume), json!({"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}));
        assert_eq!(read("core.v1.ServicePort", &port), json!({"port": 80, "targetPort": "http"}));
    }

    #[test]
    fn garbage_is_refused() {
        let ty = types::get("core.v1.Secret").unwrap();
        for bad in [&b"{}"[..], b"k8s\0\xff\xff", &body(b"Secret", &[0x0a, 0x7f])] {
            assert_eq!(object(ty, bad).unwrap_err().code, 400);
        }
    }
}
