//! What a host looks like, and which keys have one as their value.

use std::net::{IpAddr, Ipv4Addr};

use super::{Kind, Mention, Sure, kind};

/// A host with its port, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// In lower case.
    pub name: String,
    /// If one is written.
    pub port: Option<u16>,
}

impl Host {
    /// From `db`, `db.data:5432`, `10.0.0.5`, `[::1]:80`. Nothing that means this very machine, the cluster's own API or its domain,
    /// or that something else still has to fill in.
    pub fn parse(text: &str) -> Option<Host> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (address, port.strip_prefix(':'))
            }
            None => match text.rsplit_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => Some(port.parse::<u16>().ok().filter(|p| *p > 0)?),
            None => None,
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Ok(address) = name.parse::<IpAddr>() {
            let is_somewhere = match address {
                IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified() && v4 != Ipv4Addr::BROADCAST,
                IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified(),
            };
            return is_somewhere.then_some(Host { name, port });
        }
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let fine = name.len() <= 253
            && name.split('.').all(is_label)
            && name.bytes().any(|b| b.is_ascii_alphabetic())
            && name != "localhost"
            && !name.ends_with(".localhost")
            && !name.starts_with("kubernetes.default")
            && !CLUSTER.contains(&name.as_str())
            && !NO_HOSTS.contains(&name.as_str());
        fine.then_some(Host { name, port })
    }

    /// `db:5432`.
    pub fn shown(&self) -> String {
        match self.port {
            Some(port) if self.name.contains(':') => format!("[{}]:{port}", self.name),
            Some(port) => format!("{}:{port}", self.name),
            None => self.name.clone(),
        }
    }

    /// One label, as services of the own namespace are called.
    pub fn is_short(&self) -> bool {
        !self.name.contains(['.', ':'])
    }
}

/// The cluster's domain, which meshes and DNS are told as it is: nobody is reached by it alone.
const CLUSTER: &[&str] = &["cluster.local", "svc.cluster.local"];

/// Words that stand where a host may stand.
const NO_HOSTS: &[&str] = &[
    "true",
    "false",
    "yes",
    "no",
    "on",
    "off",
    "none",
    "null",
    "nil",
    "auto",
    "default",
    "all",
    "any",
    "enabled",
    "disabled",
    "undefined",
    "host",
    "hostname",
    "stdin",
    "stdout",
    "stderr",
];

/// The words of a key, in upper case: `dbHost`, `db.host`, `DB_HOST` and `--db-host` are DB, HOST.
pub(crate) fn words(key: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut was_lower) = (String::new(), false);
    for c in key.chars() {
        if !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && was_lower) {
            words.push(std::mem::take(&mut word));
        }
        was_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        if c.is_ascii_alphanumeric() {
            word.push(c.to_ascii_uppercase());
        }
    }
    words.push(word);
    words.retain(|w| !w.is_empty());
    words
}

/// Keys that end so have a host as their value, whatever it is.
const HOSTS: &[&str] =
    &["HOST", "HOSTS", "SERVERS", "BROKERS", "BROKER", "BOOTSTRAP", "SEEDS", "PGHOST", "DBHOST", "REDISHOST"];
/// Keys that end so may have one.
const PERHAPS: &[&str] = &[
    "SERVER",
    "HOSTNAME",
    "ADDR",
    "ADDRS",
    "ADDRESS",
    "ADDRESSES",
    "ENDPOINT",
    "ENDPOINTS",
    "NODES",
    "UPSTREAM",
    "UPSTREAMS",
    "URL",
    "URI",
    "DSN",
    "CONTACTPOINTS",
    "POINTS",
    "MASTER",
    "PRIMARY",
    "PROXY",
    "GATEWAY",
    "BACKEND",
    "SERVICE",
    "DOMAIN",
];

/// Endings of files, which look like domains.
const FILES: &[&str] = &[
    "yaml",
    "yml",
    "json",
    "conf",
    "cfg",
    "txt",
    "log",
    "properties",
    "xml",
    "py",
    "sh",
    "js",
    "crt",
    "key",
    "pem",
    "sql",
    "ini",
    "toml",
    "so",
    "jar",
    "html",
    "css",
    "png",
    "svg",
    "gz",
    "zip",
    "go",
    "rs",
    "md",
    "class",
    "tmpl",
];

/// A host, or a list of them, as the value of a key.
pub(super) fn listed(text: &str, words: &[String], found: &mut Vec<Mention>) {
    let last = words.last().map_or("", String::as_str);
    if matches!(last, "IMAGE" | "TAG" | "VERSION" | "PATH" | "FILE" | "PASSWORD" | "TOKEN" | "SECRET" | "KEY")
    {
        return;
    }
    let surely = HOSTS.contains(&last);
    let perhaps = PERHAPS.contains(&last);
    if text.contains(char::is_whitespace) && !surely {
        return;
    }
    let parts = text.split([',', ' ']).map(str::trim).filter(|p| !p.is_empty());
    let Some(hosts) = parts.map(Host::parse).collect::<Option<Vec<Host>>>() else { return };
    for host in hosts {
        let kind = kind::of(None, &host, words);
        let is_known_port = host.port.is_some_and(|p| kind::of_port(p).is_some());
        // `image:16` has the form of a host and its port.
        let has_port = host.port.is_some_and(|p| p >= 80);
        let is_file = host.name.rsplit('.').next().is_some_and(|end| FILES.contains(&end));
        let sure = match () {
            () if surely || is_known_port => Sure::Surely,
            () if perhaps && !is_file && (!host.is_short() || has_port) => Sure::Surely,
            // A word alone under `…_URL` is a mistake, or a secret.
            () if perhaps && !matches!(last, "URL" | "URI" | "DSN") || has_port && !is_file => Sure::IfThere,
            () => continue,
        };
        found.push(Mention { kind, name: host.shown(), host: host.name, sure });
    }
}

/// What the words of a key say that a host is for.
pub(super) fn kind_of(words: &[String]) -> Option<Kind> {
    words.iter().find_map(|word| match word.as_str() {
        "POSTGRES" | "POSTGRESQL" | "PG" | "PGSQL" | "PGHOST" | "MYSQL" | "MARIADB" | "MONGO" | "MONGODB"
        | "MSSQL" | "ORACLE" | "DB" | "DBHOST" | "DATABASE" | "DATASOURCE" | "SQL" | "CASSANDRA"
        | "CLICKHOUSE" | "CQL" => Some(Kind::Database),
        "REDIS" | "REDISHOST" | "VALKEY" | "CACHE" | "MEMCACHED" | "MEMCACHE" => Some(Kind::Cache),
        "KAFKA" | "AMQP" | "RABBIT" | "RABBITMQ" | "NATS" | "QUEUE" | "BROKER" | "BROKERS" | "BOOTSTRAP"
        | "MQTT" | "PULSAR" | "ZOOKEEPER" => Some(Kind::Queue),
        "ELASTIC" | "ELASTICSEARCH" | "OPENSEARCH" | "ES" | "SEARCH" | "SOLR" => Some(Kind::Search),
        "LDAP" => Some(Kind::Directory),
        "SMTP" | "MAIL" | "IMAP" => Some(Kind::Mail),
        "NFS" => Some(Kind::Files),
        _ => None,
    })
}
