//! Why work on an application ended, as coarse as a caller acts on it. What is merely incomplete is a finding.

use crate::api::ApiError;

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// These credentials may not.
    #[error("{0}; ask for read access, or narrow the selection with -n")]
    Denied(String),
    /// Nobody answers.
    #[error("{0}; check that the cluster is up and --context is the one you mean")]
    Unreachable(String),
    /// There is no such application, namespace or object, or nothing fits the selection.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense as it is: a malformed rule, selector or name, or one that fits several things.
    #[error("{0}")]
    Invalid(String),
    /// A rule that must succeed did not; every lock is released and nothing was committed.
    #[error("{0}")]
    Rule(String),
    /// A whole point was asked for, and this is what it would lack; nothing was committed.
    #[error("the recovery point would lack {}; nothing was committed", listed(.0))]
    Incomplete(Vec<String>),
    /// The cluster answered something that it must not.
    #[error("{0}")]
    Cluster(ApiError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] repo::Error),
    /// The stop button was pressed; every lock is released and nothing was committed.
    #[error("cancelled; nothing was committed")]
    Cancelled,
}

/// The first of them, and how many more there are.
fn listed(gaps: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = gaps.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    if gaps.len() > SHOWN {
        text.push_str(&format!("; and {} more", gaps.len() - SHOWN));
    }
    text
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Error {
        match &error {
            ApiError::Denied { .. } => Error::Denied(error.to_string()),
            ApiError::Unreachable { .. } => Error::Unreachable(error.to_string()),
            ApiError::NotFound { .. } => Error::NotFound(error.to_string()),
            ApiError::Conflict { .. } | ApiError::Invalid { .. } | ApiError::Other { .. } => {
                Error::Cluster(error)
            }
        }
    }
}
