//! Repository: where points go, with which keys, and which namespaces may use it.

use crate::condition::{Condition, conditions};
use crate::definitions::{Column, Kind};
use crate::forms::{cron_or_never, duration, http, name, rate, span, time_zone, words};
use crate::schema::{Rule, any, choice, count, filled, flag, int, list, object, one_of, record, text, time};
use crate::shared::{AllowedNamespaces, KeySource, SecretRef};
use serde_json::Value;

object! {
    /// What a platform team writes about a repository.
    RepositorySpec {
        url: String = words(1024)
            .rule(Rule::new(
                "self.matches('^(s3|gs|az)://[^ ]+$') || self.startsWith('/')",
                "write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or an absolute path"))
            .rule(Rule::new("self == oldSelf", "a repository does not move: make another Repository, and `holdfast copy` the points"))
            .required(),
            "Where it lies: s3://, gs://, az://, or an absolute path that operator and agents mount at the same place. Never changes.";
        region: Option<String> = words(64), "The store's region.";
        endpoint: Option<String> = http(), "The store's address, if it is not that of the cloud.";
        ca_bundle: Option<String> = text(65_536).rule(Rule::new(
            "self.startsWith('-----BEGIN CERTIFICATE-----')", "write certificates as PEM: -----BEGIN CERTIFICATE----- and so on")),
            "Who is trusted to be the store, as PEM.";
        credentials: Option<SecretRef> = record(), "The store's account, as the variables of the command line. Without it: the pods' own identity.";
        agent_credentials: Option<SecretRef> = record(), "The account of the nodes, which cannot delete; by default the same.";
        keys: Keys = record().required(), "The keys that open it.";
        allowed_namespaces: AllowedNamespaces = filled(), "Which namespaces may use it.";
        discovery: Discovery = filled(), "Which of its points get an object.";
        maintenance: Maintenance = filled(), "When it is collected and checked.";
        bandwidth: Option<Bandwidth> = record(), "How fast each node may send and receive.";
        keep_at_least: Option<String> = span(), "No policy and no erase deletes a younger point, whoever asks.";
        suspend: bool = flag().default(false), "Nothing new is begun; what runs ends.";
        service_account_name: Option<String> = name(), "In whose name Secrets are read; an account of this namespace.";
    }
}

object! {
    /// The keys of a repository, by what they can do.
    Keys {
        put: Option<KeySource> = record(), "Writes. By default from read.";
        list: Option<KeySource> = record(), "Lists names, sizes and retention. By default from read.";
        read: Option<KeySource> = record(), "Reads what was stored. Without it this cluster cannot read its own points.";
    }
    rules [Rule::new(
        "has(self.read) || (has(self.put) && has(self.list))",
        "name keys.read, or keys.put and keys.list; `holdfast repo manifest` writes the Secrets",
    )]
}

choice! {
    /// Which points get an object.
    DiscoveryMode {
        None = "None", "None but those made here.";
        Newest = "Newest", "The newest of each series.";
        All = "All", "All.";
    }
}

object! {
    /// Which points get an object.
    Discovery {
        mode: DiscoveryMode = one_of().default("Newest"), "Which.";
        per_application: u32 = int(1, 1000).default(30), "So many of each series, for Newest.";
        interval: String = duration("1m", "24h", "5m").default("5m"), "How often is looked.";
    }
}

object! {
    /// When a repository is collected and checked.
    Maintenance {
        time_zone: String = time_zone().default("UTC"), "In which time zone.";
        collect: String = cron_or_never().default("30 3 * * *"), "When space that nothing needs is given back.";
        check: String = cron_or_never().default("0 5 * * *"), "When it is checked.";
        read_percent: u32 = int(0, 100).default(5), "How much of the data a check reads, in percent.";
    }
}

object! {
    /// How fast each node may be.
    Bandwidth {
        up: Option<String> = rate(), "Bytes a second to the store.";
        down: Option<String> = rate(), "Bytes a second from the store.";
    }
}

choice! {
    /// What a key can do.
    Capability {
        Put = "put", "Write.";
        List = "list", "List.";
        Read = "read", "Read.";
    }
}

object! {
    /// What the store promises to let nobody remove.
    Lock {
        mode: String = text(32).required(), "governance or compliance.";
        seconds: Option<u64> = count(), "For how long.";
        slack_seconds: Option<u64> = count(), "How much longer objects are locked than promised.";
    }
}

object! {
    /// What is seen of a repository.
    RepositoryStatus {
        id: Option<String> = text(64), "Its id.";
        #[serde(default)]
        capabilities: Vec<Capability> = list(one_of::<Capability>(), 3), "What can be done with the keys that were given.";
        lock: Option<Lock> = record(), "The store's locks.";
        points: Option<u64> = count(), "How many points it holds.";
        applications: Option<u64> = count(), "Of how many applications.";
        bytes_stored: Option<u64> = count(), "How many bytes it takes in the store.";
        checked: Option<String> = time(), "When it was last checked.";
        collected: Option<String> = time(), "When space was last given back.";
        pieces: Option<u64> = count(), "How many pieces of unfinished points it holds.";
        accepted: Option<Value> = any(), "The spec that was accepted, for what may never change.";
        #[serde(default)]
        conditions: Vec<Condition> = conditions(), "Accepted, Authorized, Ready, Healthy, Narrow.";
    }
}

/// The kind Repository.
pub struct Repository;

impl Kind for Repository {
    const KIND: &'static str = "Repository";
    const PLURAL: &'static str = "repositories";
    const SHORT: &'static str = "hfrepo";
    const ABOUT: &'static str = "Where recovery points go, with which keys, and which namespaces may use it. `holdfast repo manifest` prints one.";
    type Spec = RepositorySpec;
    type Status = RepositoryStatus;

    #[rustfmt::skip] // A column a line reads as the table it is.
    fn columns() -> Vec<Column> {
        vec![
            Column::condition("Ready"),
            Column::text("URL", ".spec.url"),
            Column::number("Points", ".status.points"),
            Column::number("Size", ".status.bytesStored"),
            Column::text("Lock", ".status.lock.mode"),
            Column::age("Checked", ".status.checked"),
        ]
    }
}
