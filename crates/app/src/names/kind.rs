//! What a host is for: by the scheme of its URL, by its provider's domain, by its key, by its port.

use super::{Host, Kind, host};

/// What a scheme stands for. What it is not known to stand for is a host.
pub(super) fn of_scheme(scheme: &str) -> Option<Kind> {
    Some(match scheme {
        "postgres" | "postgresql" | "pgsql" | "mysql" | "mysqlx" | "mariadb" | "mongodb" | "mssql"
        | "sqlserver" | "oracle" | "cassandra" | "scylla" | "cql" | "clickhouse" | "cockroachdb"
        | "cockroach" | "neo4j" | "bolt" | "couchbase" | "couchbases" | "couchdb" | "db2" | "redshift"
        | "snowflake" | "influxdb" | "tidb" | "arangodb" | "etcd" => Kind::Database,
        "redis" | "rediss" | "valkey" | "valkeys" | "memcached" | "memcache" | "hazelcast" => Kind::Cache,
        "amqp" | "amqps" | "kafka" | "nats" | "pulsar" | "mqtt" | "mqtts" | "stomp" | "zookeeper" | "zk"
        | "rabbitmq" | "activemq" => Kind::Queue,
        "elasticsearch" | "elastic" | "es" | "opensearch" | "solr" => Kind::Search,
        "s3" | "s3a" | "s3n" | "gs" | "gcs" | "az" | "azure" | "azblob" | "abfs" | "abfss" | "wasb"
        | "wasbs" | "r2" | "b2" | "oss" | "swift" => Kind::Bucket,
        "ldap" | "ldaps" => Kind::Directory,
        "smtp" | "smtps" | "imap" | "imaps" | "pop3" => Kind::Mail,
        "nfs" | "smb" | "cifs" | "ftp" | "ftps" | "sftp" | "hdfs" => Kind::Files,
        "http" | "https" | "ws" | "wss" | "grpc" | "grpcs" | "otlp" => Kind::Web,
        "tcp" | "udp" | "tls" | "ssl" => Kind::Host,
        _ => return None,
    })
}

/// Domains under which providers run what others store data in.
const MANAGED: &[(&str, Kind)] = &[
    (".rds.amazonaws.com", Kind::Database),
    (".redshift.amazonaws.com", Kind::Database),
    (".docdb.amazonaws.com", Kind::Database),
    (".database.windows.net", Kind::Database),
    (".database.azure.com", Kind::Database),
    (".documents.azure.com", Kind::Database),
    (".mongodb.net", Kind::Database),
    (".cache.amazonaws.com", Kind::Cache),
    (".redis.cache.windows.net", Kind::Cache),
    (".servicebus.windows.net", Kind::Queue),
    (".mq.amazonaws.com", Kind::Queue),
    (".confluent.cloud", Kind::Queue),
    (".es.amazonaws.com", Kind::Search),
    (".cloud.es.io", Kind::Search),
    (".file.core.windows.net", Kind::Files),
    (".efs.amazonaws.com", Kind::Files),
];

/// What listens on a port, if the port says.
pub(super) fn of_port(port: u16) -> Option<Kind> {
    Some(match port {
        5432 | 3306 | 33060 | 27017 | 1433 | 1521 | 9042 | 26257 | 7687 | 5984 | 50000 | 8529 | 2379 => {
            Kind::Database
        }
        6379 | 11211 => Kind::Cache,
        5672 | 5671 | 9092 | 9093 | 9094 | 4222 | 6650 | 1883 | 8883 | 61616 | 2181 => Kind::Queue,
        9200 | 8983 => Kind::Search,
        389 | 636 => Kind::Directory,
        25 | 465 | 587 | 993 => Kind::Mail,
        2049 | 445 => Kind::Files,
        _ => return None,
    })
}

/// What a host is for, by everything that is known of it.
pub(super) fn of(scheme: Option<Kind>, at: &Host, words: &[String]) -> Kind {
    let by_domain = || MANAGED.iter().find(|(end, _)| at.name.ends_with(end)).map(|(_, kind)| *kind);
    scheme
        .filter(|kind| !matches!(kind, Kind::Host | Kind::Web))
        .or_else(by_domain)
        .or_else(|| scheme.filter(|kind| *kind == Kind::Web))
        .or_else(|| host::kind_of(words))
        .or_else(|| at.port.and_then(of_port))
        .unwrap_or(Kind::Host)
}

/// Does a key have the name of a bucket as its value?
pub(super) fn means_bucket(words: &[String]) -> bool {
    match words {
        [.., first, last] if last == "NAME" => first == "BUCKET",
        [.., last] => matches!(last.as_str(), "BUCKET" | "BUCKETS" | "BUCKETNAME"),
        [] => false,
    }
}

/// The name of a bucket, if it is one.
pub(super) fn bucket_name(text: &str) -> Option<&str> {
    let fine = (3..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_'))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && !matches!(text, "true" | "false" | "none" | "null");
    fine.then_some(text)
}

/// The bucket that a web address leads to: Azure, Amazon and Google have names of their own for them.
pub(super) fn bucket_at(host: &str, path: &str) -> Option<String> {
    let first = path.trim_start_matches('/').split(['/', '?', '#']).next().unwrap_or("");
    if host.ends_with(".blob.core.windows.net") || host.ends_with(".dfs.core.windows.net") {
        let container = bucket_name(first).map_or(String::new(), |name| format!("/{name}"));
        return Some(format!("https://{host}{container}"));
    }
    if let Some(rest) = host.strip_suffix(".amazonaws.com") {
        // `BUCKET.s3`, `BUCKET.s3.REGION`, `BUCKET.s3-REGION`; or `s3.REGION` with the bucket in the path.
        let labels: Vec<&str> = rest.split('.').collect();
        let at = labels.iter().position(|l| *l == "s3" || l.starts_with("s3-"))?;
        let name = if at == 0 { first.to_owned() } else { labels.get(..at)?.join(".") };
        return bucket_name(&name).map(|name| format!("s3://{name}"));
    }
    if host == "storage.googleapis.com" {
        return bucket_name(first).map(|name| format!("gs://{name}"));
    }
    host.strip_suffix(".storage.googleapis.com").and_then(bucket_name).map(|name| format!("gs://{name}"))
}
