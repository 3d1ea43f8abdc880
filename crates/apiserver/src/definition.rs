//! What a server with these definitions would say of an object, for who has to say it in its place.
//!
//! A server before 1.25 drops the rules of a definition in silence, so whoever serves a kind there checks its objects again. With
//! this it is the same text of the same definition that is checked, by the same code as [`crate::ApiServer`]'s.

use serde_json::Value;

use crate::kinds::{self, Kind};
use crate::rules;
use crate::schema;
use crate::status::Cause;

/// A definition of a custom resource, read once.
pub struct Definition {
    kind: Kind,
}

impl Definition {
    /// Reads a `CustomResourceDefinition`; none if it serves nothing.
    pub fn read(definition: &Value) -> Option<Definition> {
        kinds::from_definition(definition).map(|kind| Definition { kind })
    }

    /// Which kind it defines.
    pub fn kind(&self) -> &str {
        &self.kind.kind
    }

    /// Fills in the defaults, as a server does before it stores an object.
    pub fn complete(&self, object: &mut Value) {
        if let Some(schema) = self.schema() {
            schema::default(schema, object);
        }
    }

    /// What is wrong with an object whose defaults are filled in. `old` is what it was before a change.
    pub fn check(&self, old: Option<&Value>, new: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        check(&self.kind, old, new, &mut causes);
        causes
    }

    fn schema(&self) -> Option<&Value> {
        self.kind.version(&self.kind.storage)?.schema.as_ref()
    }
}

/// Shape first; the rules of a definition are asked only about an object that has it.
pub(crate) fn check(kind: &Kind, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    let Some(version) = kind.version(&kind.storage) else { return };
    let Some(schema) = version.schema.as_ref() else { return };
    let before = causes.len();
    schema::validate(schema, new, "", causes);
    if causes.len() == before && !version.rules.is_empty() {
        rules::validate(&version.rules, schema, old, new, "", causes);
    }
}
