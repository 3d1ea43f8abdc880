//! Reads the one protobuf message that kubectl insists on sending: `kubectl auth can-i` posts its
//! access review in protobuf and takes no other answer than yes or no.

use serde_json::{Map, Value, json};

use crate::status::Fault;

/// The media type.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";

/// A field of a message: its number and its bytes. Numbers and flags are of no interest here.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        match tag & 7 {
            0 => {
                varint(&mut bytes)?;
            }
            1 => bytes = bytes.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                out.push((tag >> 3, bytes.get(..length)?));
                bytes = bytes.get(length..)?;
            }
            5 => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some(out)
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

fn field(message: &[u8], number: u64) -> Option<&[u8]> {
    fields(message)?.into_iter().find(|(n, _)| *n == number).map(|(_, bytes)| bytes)
}

fn texts(message: &[u8], names: &[&str]) -> Option<Value> {
    let mut map = Map::new();
    for (number, bytes) in fields(message)? {
        let name = usize::try_from(number).ok().and_then(|n| names.get(n.checked_sub(1)?));
        if let (Some(name), Ok(text)) = (name, std::str::from_utf8(bytes)) {
            map.insert((*name).to_string(), json!(text));
        }
    }
    Some(Value::Object(map))
}

/// An access review, as JSON.
pub fn review(body: &[u8]) -> Result<Value, Fault> {
    let read = || -> Option<Value> {
        let envelope = body.strip_prefix(MAGIC)?;
        let mut review = texts(field(envelope, 1)?, &["apiVersion", "kind"])?;
        let spec = field(field(envelope, 2)?, 2).unwrap_or_default();
        review["metadata"] = json!({ "creationTimestamp": null });
        review["spec"] = json!({});
        if let Some(attributes) = field(spec, 1) {
            let names = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
            review["spec"]["resourceAttributes"] = texts(attributes, &names)?;
        }
        if let Some(attributes) = field(spec, 2) {
            review["spec"]["nonResourceAttributes"] = texts(attributes, &["path", "verb"])?;
        }
        Some(review)
    };
    read().ok_or_else(|| Fault::bad_request("the body is not a protobuf access review"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, bytes) in parts {
            out.push(number << 3 | 2);
            out.push(bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
        out
    }

    #[test]
    fn a_review_is_read_and_garbage_is_refused() {
        let attributes = message(&[(1, b"shop"), (2, b"get"), (5, b"pods")]);
        let raw = message(&[(2, &message(&[(1, &attributes)]))]);
        let kind = message(&[(1, b"authorization.k8s.io/v1"), (2, b"SelfSubjectAccessReview")]);
        let mut body = MAGIC.to_vec();
        body.extend(message(&[(1, &kind), (2, &raw)]));
        let review = review(&body).unwrap();
        assert_eq!(review["kind"], "SelfSubjectAccessReview");
        assert_eq!(
            review["spec"]["resourceAttributes"],
            json!({"namespace": "shop", "verb": "get", "resource": "pods"})
        );
        assert!(super::review(b"{}").is_err());
        assert!(super::review(b"k8s\0\xff\xff").is_err());
    }
}
