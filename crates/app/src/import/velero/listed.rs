//! What Velero lists as backed up and its archive does not have. An archive can be short without being damaged, and
//! the list beside it is the only one who knows.

use std::collections::{BTreeMap, BTreeSet};

use repo::Finding;
use repo::store::Store;
use serde_json::Value;

use super::data::companion;
use crate::error::Error;
use crate::object::{Object, ObjectKey, split_api_version};

/// Names told of each kind; the rest is counted.
const NAMES_MAX: usize = 10;

/// One finding for each kind of which something is missing. Releases that write no list say nothing.
pub(super) fn absent<'a>(
    store: &dyn Store,
    name: &str,
    objects: impl Iterator<Item = &'a Value>,
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let list = companion(store, name, "resource-list", &mut findings)?;
    let there: BTreeSet<ObjectKey> = objects.map(|object| Object(object.clone()).key()).collect();
    let mut absent: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    // `apps/v1/Deployment`: `shop/web`, …; `v1/Namespace`: `shop`.
    for (of, entries) in list.as_object().into_iter().flatten() {
        let Some((api_version, kind)) = of.rsplit_once('/') else { continue };
        let (group, _) = split_api_version(api_version);
        for entry in entries.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let (namespace, called) = entry.split_once('/').unwrap_or(("", entry));
            if !there.contains(&ObjectKey::new(group, kind, namespace, called)) {
                absent.entry(of).or_default().push(entry);
            }
        }
    }
    findings.extend(absent.into_iter().map(|(of, names)| {
        let told = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = match names.len().saturating_sub(NAMES_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let why = format!("Velero lists {told}{more} as backed up, and the archive does not have it");
        Finding::error("unreadable", of, why)
    }));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use repo::store::mem::MemStore;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_listed_and_not_there_is_told_by_kind() {
        let object = |api: &str, kind: &str, namespace: &str, name: &str| json!({"apiVersion": api, "kind": kind, "metadata": {"namespace": namespace, "name": name}});
        let there = [
            object("v1", "Namespace", "", "shop"),
            object("apps/v1", "Deployment", "shop", "web"),
            object("v1", "Secret", "shop", "s-0"),
        ];
        let secrets: Vec<String> = (0..13).map(|i| format!("shop/s-{i}")).collect();
        let whole = json!({"v1/Namespace": ["shop"], "apps/v1/Deployment": ["shop/web"]});
        let short = json!({"v1/Namespace": ["shop"], "apps/v1/Deployment": ["shop/web", "shop/db"], "v1/Secret": secrets});
        for (story, list, told) in [
            ("no list", None, vec![]),
            ("all of it is there", Some(whole.to_string()), vec![]),
            (
                "some of it is not",
                Some(short.to_string()),
                vec![
                    "apps/v1/Deployment: Velero lists shop/db as backed up",
                    "v1/Secret: Velero lists shop/s-1, shop/s-2, shop/s-3, shop/s-4, shop/s-5, shop/s-6, shop/s-7, shop/s-8, shop/s-9, shop/s-10 and 2 more as backed up",
                ],
            ),
            (
                "a list that is damaged",
                Some("{".into()),
                vec!["backups/b/b-resource-list.json.gz: it does not parse"],
            ),
        ] {
            let store = MemStore::new();
            if let Some(list) = list {
                let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
                zipped.write_all(list.as_bytes()).unwrap();
                store.put("backups/b/b-resource-list.json.gz", zipped.finish().unwrap().into()).unwrap();
            }
            let found = absent(&store, "b", there.iter()).unwrap();
            let lines: Vec<String> = found.iter().map(|f| format!("{}: {}", f.what, f.message)).collect();
            assert_eq!(lines.len(), told.len(), "{story}: {lines:#?}");
            assert!(
                lines.iter().zip(&told).all(|(line, told)| line.starts_with(told)),
                "{story}: {lines:#?}"
            );
        }
    }
}
