//! `deploy/crds.yaml` is what the types say, and what the types say is what a server takes.

// The lints know only functions marked #[test]; the helpers here are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use serde_json::Value;

fn printed() -> String {
    let mut text = String::from(
        "# The custom resources of Holdfast (docs/custom-resources.md). Printed from crates/api; HOLDFAST_WRITE_CRDS=1 cargo test -p api\n# writes it anew. For a server before 1.25 `holdfast install` leaves out the rules, which it does not know.\n",
    );
    for definition in api::definitions() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition).unwrap());
    }
    text
}

#[test]
fn the_definitions_in_deploy_are_not_stale() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds.yaml");
    if std::env::var_os("HOLDFAST_WRITE_CRDS").is_some() {
        std::fs::write(&path, printed()).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == printed(),
        "deploy/crds.yaml is stale: HOLDFAST_WRITE_CRDS=1 cargo test -p api writes it anew"
    );
    // And what is printed says what was meant.
    let read: Vec<Value> =
        there.split("\n---\n").skip(1).map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    assert_eq!(read, api::definitions());
}

/// Every schema in a definition, with its path.
fn each(schema: &Value, path: &str, see: &mut dyn FnMut(&Value, &str)) {
    see(schema, path);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        each(inner, &format!("{path}.{name}"), see);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            each(&schema[key], &format!("{path}[]"), see);
        }
    }
}

fn root(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

#[test]
fn every_field_says_what_it_is_for_and_has_a_limit() {
    for definition in api::definitions() {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        each(&root(&definition)["properties"]["spec"], kind, &mut |schema, path| {
            let has = |key: &str| !schema[key].is_null();
            let bounded = match schema["type"].as_str() {
                Some("string") => has("maxLength") || has("enum") || has("format"),
                Some("integer") => has("minimum") && has("maximum"),
                Some("array") => has("maxItems"),
                Some("object") => {
                    has("properties") || has("maxProperties") || has("x-kubernetes-preserve-unknown-fields")
                }
                Some("boolean") => true,
                _ => false,
            };
            assert!(bounded, "{path} has no limit: {schema}");
            assert!(path.ends_with("[]") || has("description"), "{path} says not what it is for");
        });
        // No regular expression stands where a person would read it.
        each(root(&definition), kind, &mut |schema, path| assert!(schema["pattern"].is_null(), "{path}"));
    }
}

#[test]
fn every_rule_has_a_sentence_that_a_server_takes() {
    for definition in api::definitions() {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        each(root(&definition), kind, &mut |schema, path| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let text = |key: &str| rule[key].as_str().unwrap_or_default();
                assert!(!text("rule").is_empty() && !text("message").is_empty(), "{path}: {rule}");
                assert!(!text("rule").contains('\n') && !text("message").contains('\n'), "{path}: {rule}");
            }
        });
    }
}

/// A server keeps an object of at most 1.5 MiB, kubectl's client-side apply an annotation of at most 256 KiB with all of it.
#[test]
fn a_definition_is_small_enough_to_be_applied() {
    for definition in api::definitions() {
        let size = definition.to_string().len();
        assert!(size < 128 << 10, "{}: {size} bytes", definition["metadata"]["name"]);
    }
}

#[test]
fn without_rules_nothing_but_the_rules_is_missing() {
    for definition in api::definitions() {
        let bare = api::without_rules(definition.clone());
        assert!(!bare.to_string().contains("x-kubernetes-validations"));
        let mut paths = [Vec::new(), Vec::new()];
        for (definition, paths) in [&definition, &bare].into_iter().zip(&mut paths) {
            each(root(definition), "", &mut |schema, path| {
                paths.push((path.to_owned(), schema["default"].clone(), schema["maxLength"].clone()));
            });
        }
        assert_eq!(paths[0], paths[1]);
    }
}
