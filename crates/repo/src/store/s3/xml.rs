//! As much XML as the answers of an S3 service need: elements by name, and the text in them.
//!
//! Five flat answers do not pay for a parser of everything XML can be. What does not look as expected reads as
//! absent, and whoever asks treats that as the service's failure.

/// The insides of the elements with one of these names, in the order they come. Elements of a name do not nest in
/// the answers we read.
pub(super) fn elements<'x>(xml: &'x str, names: &[&'static str]) -> Vec<(&'static str, &'x str)> {
    let mut found = Vec::new();
    let mut rest = xml;
    'next: while let Some((_, after)) = rest.split_once('<') {
        rest = after;
        for name in names {
            let Some(tail) = after.strip_prefix(name) else { continue };
            if !tail.starts_with(['>', ' ', '\n', '\t', '\r', '/']) {
                continue;
            }
            let Some((head, inner)) = tail.split_once('>') else { return found };
            if head.ends_with('/') {
                found.push((*name, ""));
                rest = inner;
                continue 'next;
            }
            let Some((inner, beyond)) = inner.split_once(&format!("</{name}>")) else { return found };
            found.push((*name, inner));
            rest = beyond;
            continue 'next;
        }
    }
    found
}

/// The text of the first element of this name.
pub(super) fn text(xml: &str, name: &'static str) -> Option<String> {
    elements(xml, &[name]).first().map(|(_, inner)| plain(inner.trim()))
}

/// Text with the five named and the numbered entities resolved.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let known = after.split_once(';').and_then(|(name, beyond)| {
            let char = match name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                _ => {
                    let number = name.strip_prefix('#')?;
                    let code = match number.strip_prefix(['x', 'X']) {
                        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                        None => number.parse().ok()?,
                    };
                    char::from_u32(code)?
                }
            };
            Some((char, beyond))
        });
        match known {
            Some((char, beyond)) => {
                out.push(char);
                rest = beyond;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// What cannot stand in text as it is.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_are_found_by_their_whole_name_in_their_order() {
        let xml = "<?xml version=\"1.0\"?><R xmlns=\"x\"><Name>b</Name><Version><VersionId>1</VersionId></Version>\
                   <DeleteMarker>\n<VersionId> 2&amp;&#x41;&#66;&lt;&bad; </VersionId></DeleteMarker><Version a=\"b\">3</Version><Empty/></R>";
        let found = elements(xml, &["Version", "DeleteMarker"]);
        assert_eq!(
            found.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["Version", "DeleteMarker", "Version"]
        );
        assert_eq!(text(found[0].1, "VersionId").as_deref(), Some("1"));
        assert_eq!(text(found[1].1, "VersionId").as_deref(), Some("2&AB<&bad;"));
        assert_eq!(found[2].1, "3");
        assert_eq!(text(xml, "Empty").as_deref(), Some(""));
        assert_eq!(text(xml, "Absent"), None);
        assert_eq!(text(&format!("<a>{}</a>", escaped("<&>")), "a").as_deref(), Some("<&>"));
    }

    proptest! {
        #[test]
        fn nonsense_does_no_harm(xml in "[<>/a-c&;#x0-9 ]{0,80}") {
            let _ = (elements(&xml, &["a", "b"]), text(&xml, "c"));
        }
    }
}
