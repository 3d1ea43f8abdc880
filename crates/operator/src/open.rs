//! Repositories, opened with what their objects name: accounts and keys out of Secrets, read as the Repository's requester.
//!
//! Of a Secret the values are what the store is asked with; where a variable of the command line names a file, they are its content:
//! no path out of a Secret is ever opened. A key file opens at once; a passphrase is refused, since it costs 48 MiB and a second each
//! time. What goes wrong is said in the words of the condition `Ready`: its reason and a message that says what to do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{KeySource, RepositorySpec};
use app::api::{ApiError, Cluster};
use data_encoding::BASE64;
use repo::store::retry::RetryPolicy;
use repo::store::{self, StoreError};
use repo::{Capability, Env, KeyFile, LocalOptions, Repository, Zeroizing};

use crate::watch::{Key, Kind};

const SECRETS: Kind =
    Kind { kind: "Secret", version: "v1", plural: "secrets", metadata_only: false, labels: None };
/// How long a store that does not answer is waited for: its condition is to say so soon.
const ANSWER: Duration = Duration::from_secs(15);

/// Why a repository is not open: the reason of a condition, and a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// In a word.
    pub reason: &'static str,
    /// In a sentence, with what to do.
    pub message: String,
}

fn closed(reason: &'static str, message: impl Into<String>) -> Closed {
    Closed { reason, message: message.into() }
}

/// A repository, and what can be done with the keys that were given.
pub struct Opened {
    /// With the key that can do most.
    pub repository: Repository,
    /// What all keys together can do.
    pub can: Vec<Capability>,
}

/// What a Secret holds. Wiped when dropped.
type Members = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Opens it. `ours`: the Repository lies in the operator's namespace, so that it may have what a tenant's may not.
pub async fn open(
    acting: &Cluster,
    namespace: &str,
    spec: &RepositorySpec,
    ours: bool,
    local: &LocalOptions,
    env: &Env,
) -> Result<Opened, Closed> {
    if let Some(endpoint) = spec.endpoint.as_deref().filter(|_| !ours) {
        refuse_inside(endpoint).await?;
    }
    let account = match &spec.credentials {
        Some(credentials) => secret(acting, namespace, &credentials.secret, "CredentialsRefused").await?,
        None => Members::new(),
    };
    let options = options(spec, &account)?;
    let mut keys = Vec::new();
    let given = [
        (Capability::Read, &spec.keys.read),
        (Capability::Put, &spec.keys.put),
        (Capability::List, &spec.keys.list),
    ];
    for (wanted, source) in given {
        if let Some(source) = source {
            keys.push((wanted, key(acting, namespace, source, wanted).await?));
        }
    }
    let (url, local, env) = (spec.url.clone(), local.clone(), env.clone());
    let work = move || open_with(&url, &options, &keys, &local, &env);
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(closed("Unreachable", "opening it panicked; the log says where")))
}

fn open_with(
    url: &str,
    options: &store::StoreOptions,
    keys: &[(Capability, KeyFile)],
    local: &LocalOptions,
    env: &Env,
) -> Result<Opened, Closed> {
    let store: Arc<dyn store::Store> = store::open(url, options).map_err(|e| of_store(&e))?;
    let mut found: Option<Repository> = None;
    let mut can: Vec<Capability> = Vec::new();
    for (wanted, key) in keys {
        let opened = Repository::open(store.clone(), key, env).map_err(of_repository)?;
        opened.require(*wanted).map_err(|_| {
            closed("KeyRefused", format!(
                "keys.{} holds a key that can only {}: `holdfast repo key add --capability {}` makes the right one",
                wanted.as_str(), opened.capability().as_str(), wanted.as_str()
            ))
        })?;
        // Who can read can do the other two.
        let grants = match wanted {
            Capability::Read => [Capability::Put, Capability::List, Capability::Read].as_slice(),
            other => std::slice::from_ref(other),
        };
        can.extend(grants);
        // Of put and list the one that lists: the operator counts points.
        if found.as_ref().is_none_or(|found| found.capability() < opened.capability()) {
            found = Some(opened);
        }
    }
    let Some(repository) = found else {
        return Err(closed("KeyRefused", "name keys.read, or keys.put and keys.list"));
    };
    can.sort();
    can.dedup();
    Ok(Opened { repository: repository.with_local(local), can })
}

/// A repository's error as a condition has it.
pub fn of_repository(error: repo::Error) -> Closed {
    use repo::Error;
    match &error {
        Error::Store(inner) => of_store(inner),
        Error::WrongKey { .. } | Error::NotPermitted { .. } | Error::KeyPlugin { .. } => {
            closed("KeyRefused", error.to_string())
        }
        Error::NewerFormat { .. } => closed("NewerFormat", error.to_string()),
        Error::NoRepository { .. } => closed("NotFound", error.to_string()),
        Error::Damaged { .. } | Error::Missing { .. } => closed("Damaged", error.to_string()),
        _ => closed("Unreachable", error.to_string()),
    }
}

fn of_store(error: &StoreError) -> Closed {
    match error {
        StoreError::Denied { .. } => {
            closed("CredentialsRefused", format!("{error}; spec.credentials names the account"))
        }
        _ => closed("Unreachable", format!("{error}; check spec.url, spec.endpoint and the network")),
    }
}

/// How the store is reached.
fn options(spec: &RepositorySpec, account: &Members) -> Result<store::StoreOptions, Closed> {
    let endpoint = match spec.url.split(':').next() {
        Some("gs") => "STORAGE_EMULATOR_HOST",
        Some("az") => "AZURE_STORAGE_ENDPOINT",
        _ => "HOLDFAST_S3_ENDPOINT",
    };
    let variable = |name: &str| {
        let own = match name {
            "AWS_REGION" => spec.region.clone(),
            "AWS_CA_BUNDLE" => spec.ca_bundle.clone(),
            name if name == endpoint => spec.endpoint.clone(),
            _ => None,
        };
        own.or_else(|| account.get(name).and_then(|value| String::from_utf8(value.to_vec()).ok()))
    };
    let read = store::settings("", &variable, &|content| Ok(content.into()));
    let options = read.map_err(|e| {
        closed("CredentialsRefused", format!("the value of {} is not as it has to be", e.variable))
    })?;
    let retry = RetryPolicy { deadline: ANSWER, ..options.retry.clone() };
    Ok(store::StoreOptions { retry, ..options })
}

async fn key(
    acting: &Cluster,
    namespace: &str,
    source: &KeySource,
    wanted: Capability,
) -> Result<KeyFile, Closed> {
    let word = wanted.as_str();
    let Some(name) = &source.secret else {
        let why = format!(
            "keys.{word}: this release opens no key management service in the cluster yet; put a key file into a Secret"
        );
        return Err(closed("KeyRefused", why));
    };
    let members = secret(acting, namespace, name, "KeyRefused").await?;
    let Some(text) = members.get(&source.key) else {
        let why = format!(
            "keys.{word}: Secret {name} has no member {}: `holdfast repo key add --new-key-file` makes a key file",
            source.key
        );
        return Err(closed("KeyRefused", why));
    };
    KeyFile::parse(text).map_err(|e| {
        closed(
            "KeyRefused",
            format!(
                "keys.{word}: member {} of Secret {name}: {e} (a passphrase is not taken here)",
                source.key
            ),
        )
    })
}

async fn secret(
    acting: &Cluster,
    namespace: &str,
    name: &str,
    reason: &'static str,
) -> Result<Members, Closed> {
    let found = match acting.get_path(&SECRETS.object_path(&Key::new(namespace, name))).await {
        Ok(found) => found,
        Err(ApiError::NotFound { .. }) => {
            return Err(closed(reason, format!("there is no Secret {namespace}/{name}: make it")));
        }
        Err(ApiError::Denied { .. }) => {
            let why = format!(
                "the account in spec.serviceAccountName may not get Secret {namespace}/{name}: give it a role that may"
            );
            return Err(closed("Denied", why));
        }
        Err(error) => return Err(closed("CannotAsk", error.to_string())),
    };
    let member = |(name, value): (&String, &serde_json::Value)| {
        let bytes = BASE64.decode(value.as_str()?.as_bytes()).ok()?;
        Some((name.clone(), Zeroizing::new(bytes)))
    };
    Ok(found["data"].as_object().into_iter().flatten().filter_map(member).collect())
}

/// A tenant's store is not where only our own pods may go: this machine, and what answers on link-local addresses in clouds.
async fn refuse_inside(endpoint: &str) -> Result<(), Closed> {
    let uri: http::Uri = endpoint
        .parse()
        .map_err(|_| closed("Unreachable", format!("spec.endpoint {endpoint} is no address")))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let found =
        found.map_err(|e| closed("Unreachable", format!("spec.endpoint: {host} is not found: {e}")))?;
    match found.map(|address| address.ip()).find(|address| is_inside(*address)) {
        None => Ok(()),
        Some(address) => Err(closed(
            "NotAllowed",
            format!(
                "spec.endpoint is {address}, which is for Repositories in the operator's namespace only: name a store that others reach, too"
            ),
        )),
    }
}

fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast(),
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenants_store_is_not_inside() {
        for (endpoint, inside) in [
            ("http://127.0.0.1:9000", true),
            ("http://localhost:9000", true),
            ("http://169.254.169.254", true),
            ("http://[::1]:9000", true),
            ("http://[::ffff:127.0.0.1]:9000", true),
            ("http://[fe80::1]", true),
            ("http://0.0.0.0", true),
            ("https://192.0.2.7", false),
            ("https://[2001:db8::1]", false),
        ] {
            let refused = refuse_inside(endpoint).await;
            assert_eq!(refused.is_err_and(|closed| closed.reason == "NotAllowed"), inside, "{endpoint}");
        }
    }

    #[test]
    fn a_secrets_values_are_what_the_store_is_asked_with_and_never_paths() {
        let spec = |url: &str| -> RepositorySpec {
            let keys = serde_json::json!({"read": {"secret": "k", "key": "key"}});
            let object = serde_json::json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "x"},
                "spec": {"url": url, "keys": keys, "region": "eu-1", "endpoint": "https://s3.example"}});
            let mut object = object;
            crate::check::definitions()["Repository"].complete(&mut object);
            serde_json::from_value(object["spec"].take()).unwrap()
        };
        let account: Members = [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "other"),
            ("AWS_CA_BUNDLE", "/etc/passwd"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "{\"type\": \"service_account\"}"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Zeroizing::new(value.as_bytes().to_vec())))
        .collect();
        let s3 = options(&spec("s3://b/p"), &account).unwrap();
        assert_eq!(s3.s3.access_key_id.as_deref(), Some("id"));
        assert_eq!(
            (s3.s3.region.as_deref(), s3.s3.endpoint.as_deref()),
            (Some("eu-1"), Some("https://s3.example"))
        );
        assert_eq!(s3.s3.extra_roots_pem.as_deref(), Some("/etc/passwd".as_bytes()), "the text itself");
        let google = options(&spec("gs://b/p"), &account).unwrap();
        assert_eq!((google.gcs.endpoint.as_deref(), google.s3.endpoint), (Some("https://s3.example"), None));
        assert_eq!(google.gcs.service_account_json.as_deref(), Some("{\"type\": \"service_account\"}"));
        assert_eq!(
            options(&spec("az://c/p"), &account).unwrap().azure.endpoint.as_deref(),
            Some("https://s3.example")
        );
    }
}
