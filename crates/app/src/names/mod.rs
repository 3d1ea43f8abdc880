//! Names in text: hosts, buckets and databases in environment, arguments, configuration and secrets.
//!
//! A connection string is a reference that no schema knows. What is found is a host (which may be a Service of the
//! cluster, `crate::resolve` looks) or a bucket, with what it is for as far as the text tells: by the scheme, by a
//! provider's domain, by the key, or by the port.
//!
//! The text may be a secret. Of a connection string only scheme, host, port and the name of the database leave this
//! file; users, passwords, options and paths of web addresses never do. When in doubt about where a password ends,
//! the whole string is dropped.

mod host;
mod kind;
mod url;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use host::Host;
pub(crate) use host::words;

/// What a name in text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A database.
    Database,
    /// A cache, which may hold what nobody else has.
    Cache,
    /// A message queue or log.
    Queue,
    /// A search index.
    Search,
    /// A bucket of an object store.
    Bucket,
    /// A directory of people and groups.
    Directory,
    /// A mail server.
    Mail,
    /// Files over a network.
    Files,
    /// A web address.
    Web,
    /// A container image, which the target's nodes have to be able to pull.
    Image,
    /// A host, for we do not know what.
    #[serde(other)]
    Host,
}

impl Kind {
    /// Is there data behind it that a restore would want back?
    pub fn holds_data(self) -> bool {
        matches!(self, Kind::Database | Kind::Cache | Kind::Queue | Kind::Search | Kind::Bucket | Kind::Files)
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Database => "database",
            Kind::Cache => "cache",
            Kind::Queue => "queue",
            Kind::Search => "search",
            Kind::Bucket => "bucket",
            Kind::Directory => "directory",
            Kind::Mail => "mail",
            Kind::Files => "files",
            Kind::Web => "web",
            Kind::Image => "image",
            Kind::Host => "host",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How sure it is that a host is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sure {
    /// Only if the cluster has something of that name.
    IfThere,
    /// Whether it is there or not.
    Surely,
}

/// Something named in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// What it stands for.
    pub kind: Kind,
    /// The host, in lower case; empty for a bucket.
    pub host: String,
    /// How it is shown: `postgres://db.example.com:5432/shop`, without anything secret.
    pub name: String,
    /// How sure it is.
    pub sure: Sure,
}

/// What a value names: of an environment variable, a field, a line of a file. `key` is the name it stands under.
pub fn in_value(key: &str, text: &str) -> Vec<Mention> {
    let mut found = Vec::new();
    value(key, text, &mut found);
    tidy(found)
}

/// What a file names: JSON, or lines of `key: value`, `key = value`, or anything with URLs in it. `key` is its name, which
/// counts when it has only one line.
pub fn in_document(key: &str, text: &str) -> Vec<Mention> {
    let text = text.trim();
    let mut found = Vec::new();
    if !text.contains('\n') && !text.starts_with(['{', '[']) {
        value(key, text, &mut found);
        return tidy(found);
    }
    match text.starts_with(['{', '[']).then(|| serde_json::from_str::<Value>(text)) {
        Some(Ok(json)) => members(key, &json, &mut found),
        _ => text.lines().for_each(|one| line(one, &mut found)),
    }
    tidy(found)
}

/// What the words of a command name: `--db-host=db`, `--redis-addr cache:6379`, `s3://bucket`. Gives the number of the
/// word with each.
pub fn in_arguments(words: &[String]) -> Vec<(usize, Vec<Mention>)> {
    let mut found = Vec::new();
    let mut option = "";
    for (number, word) in words.iter().enumerate() {
        let is_option = word.starts_with('-') && word.len() > 1;
        let (key, text) = match word.split_once('=') {
            Some((key, text)) if is_option => (key, text),
            _ if is_option => ("", ""),
            _ => (option, word.as_str()),
        };
        option = if is_option && !word.contains('=') { word } else { "" };
        // `sh -c` gets a script.
        let mentions = if text.contains('\n') {
            in_document(key, text)
        } else {
            in_value(key.trim_start_matches('-'), text)
        };
        if !mentions.is_empty() {
            found.push((number, mentions));
        }
    }
    found
}

/// `$(NAME)` as Kubernetes fills it in from variables of the same container. What is not known is left.
pub fn filled_in<'t>(text: &'t str, variables: &[(&str, &str)]) -> Cow<'t, str> {
    if !text.contains("$(") {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find("$(") {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = after.find(')') else {
            rest = after;
            break;
        };
        let name = &after[2..end];
        match variables.iter().rev().find(|(n, v)| *n == name && !v.is_empty()) {
            // Filling in once is enough: the values come from before, and are filled in themselves.
            Some((_, value)) if !value.contains("$(") => out.push_str(value),
            _ => out.push_str(&after[..=end]),
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// One mention a thing; the surest of equals stays.
fn tidy(mut found: Vec<Mention>) -> Vec<Mention> {
    found.sort_by(|a, b| (&a.host, &a.name, b.sure, a.kind).cmp(&(&b.host, &b.name, a.sure, b.kind)));
    // A URL tells more than the bare host beside it.
    let told: Vec<String> = found.iter().filter(|m| m.name.contains("://")).map(|m| m.host.clone()).collect();
    found.retain(|m| m.host.is_empty() || m.name.contains("://") || !told.contains(&m.host));
    found.dedup_by(|a, b| a.host == b.host && a.name == b.name);
    found
}

fn members(key: &str, json: &Value, found: &mut Vec<Mention>) {
    match json {
        Value::String(text) if text.contains('\n') => text.lines().for_each(|one| line(one, found)),
        // Web addresses in a document are links as often as not.
        Value::String(text) => inside(key, text, found),
        Value::Array(items) => items.iter().for_each(|item| members(key, item, found)),
        Value::Object(fields) => fields.iter().for_each(|(name, field)| members(name, field, found)),
        _ => {}
    }
}

fn line(text: &str, found: &mut Vec<Mention>) {
    let text = text.trim().trim_start_matches("- ").trim_start();
    if text.is_empty() || text.starts_with(['#', ';']) || text.starts_with("//") {
        return;
    }
    match pair(text) {
        Some((key, rest)) => inside(key, rest, found),
        None => inside("", text, found),
    }
}

/// A value within something larger.
fn inside(key: &str, text: &str, found: &mut Vec<Mention>) {
    let from = found.len();
    value(key, text, found);
    for mention in found.iter_mut().skip(from).filter(|m| m.kind == Kind::Web) {
        mention.sure = Sure::IfThere;
    }
}

/// `key: value`, `key = value`, `key value`.
fn pair(text: &str) -> Option<(&str, &str)> {
    let is_key =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'' | ' ' | '[' | ']');
    let end = text.find(|c: char| !is_key(c)).unwrap_or(text.len());
    let (head, rest) = text.split_at(end);
    let rest = rest.trim_start();
    // The colon of `http://` is none of a pair.
    if let Some(value) = rest.strip_prefix(['=', ':']).filter(|v| !v.starts_with("//")) {
        return Some((unquoted(head), value));
    }
    let (key, value) = text.split_once(char::is_whitespace)?;
    let value = value.trim();
    (!value.contains(char::is_whitespace)).then_some((key, value))
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_end_matches([',', ';']).trim().trim_matches(['"', '\'']).trim()
}

fn value(key: &str, text: &str, found: &mut Vec<Mention>) {
    let text = unquoted(text);
    if text.is_empty() || text.len() > 64 * 1024 {
        return;
    }
    let words = words(key);
    let from = found.len();
    url::find(text, &words, found);
    if found.len() > from || text.contains("://") {
        return;
    }
    url::connection_string(text, &words, found);
    if found.len() > from {
        return;
    }
    if kind::means_bucket(&words) {
        if let Some(name) = kind::bucket_name(text) {
            found.push(Mention {
                kind: Kind::Bucket,
                host: String::new(),
                name: name.to_owned(),
                sure: Sure::Surely,
            });
        }
        return;
    }
    host::listed(text, &words, found);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(mentions: Vec<Mention>) -> String {
        let one =
            |m: Mention| format!("{} {}{}", m.kind, m.name, if m.sure == Sure::IfThere { "?" } else { "" });
        mentions.into_iter().map(one).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn values_with_their_keys() {
        for (key, text, expected) in [
            (
                "DATABASE_URL",
                "postgres://shop:s3cret@db:5432/shop?sslmode=disable",
                "database postgres://db:5432/shop",
            ),
            ("X", "postgres://db.data.svc/x", "database postgres://db.data.svc/x"),
            ("DB", "postgresql+psycopg2://u:p@db/ledger", "database postgresql://db/ledger"),
            (
                "URI",
                "mongodb://root:p%40s@m-0.m:27017,m-1.m:27017/split?replicaSet=rs0",
                "database mongodb://m-0.m:27017/split | database mongodb://m-1.m:27017/split",
            ),
            (
                "URI",
                "mongodb+srv://u:p@c0.abcd.mongodb.net/app",
                "database mongodb://c0.abcd.mongodb.net/app",
            ),
            ("REDIS_URL", "redis://:p4ss@cache:6379/0", "cache redis://cache:6379/0"),
            ("AMQP", "amqp://guest:guest@queue:5672/", "queue amqp://queue:5672"),
            (
                "url",
                "jdbc:postgresql://db1:5432,db2:5432/x?user=u&password=p",
                "database postgresql://db1:5432/x | database postgresql://db2:5432/x",
            ),
            (
                "url",
                "jdbc:sqlserver://w.example.com:1433;databaseName=sales;user=r;password=s!",
                "database sqlserver://w.example.com:1433",
            ),
            (
                "url",
                "jdbc:oracle:thin:u/p@//ora.example.com:1521/svc",
                "database oracle://ora.example.com:1521",
            ),
            ("url", "jdbc:oracle:thin:@ora.example.com:1521:SID", "database oracle://ora.example.com:1521"),
            (
                "DSN",
                "forum:do-not-show@tcp(forum-db:3306)/forum?parseTime=true",
                "database mysql://forum-db:3306/forum",
            ),
            (
                "dsn",
                "host=db.fx port=5432 user=ledger password=do-not-show dbname=ledger",
                "database db.fx:5432",
            ),
            (
                "C",
                "Server=tcp:sql.example.com,1433;Initial Catalog=x;User ID=u;Password=p;",
                "database sql.example.com:1433",
            ),
            ("DB_HOST", "db", "database db"),
            ("REDIS_HOST", "cache", "cache cache"),
            ("KAFKA_BOOTSTRAP_SERVERS", "a:9092,b.c:9092", "queue a:9092 | queue b.c:9092"),
            ("dbHost", "10.0.0.5", "database 10.0.0.5"),
            ("SMTP_SERVER", "smtp.example.com:587", "mail smtp.example.com:587"),
            ("SERVER", "nginx", "host nginx?"),
            ("ENDPOINT", "http://minio.store:9000", "web http://minio.store:9000"),
            ("HOOK", "https://hooks.example.com/services/T0/B0/SECRET", "web https://hooks.example.com"),
            ("peer", "db:5432", "database db:5432"),
            ("OUTPUT", "s3://reports/daily", "bucket s3://reports"),
            ("raw", "gs://raw-events/2026", "bucket gs://raw-events"),
            (
                "x",
                "abfss://data@acct.dfs.core.windows.net/x",
                "bucket abfss://data@acct.dfs.core.windows.net",
            ),
            (
                "x",
                "https://acct.blob.core.windows.net/landing?sig=SECRET",
                "bucket https://acct.blob.core.windows.net/landing",
            ),
            ("x", "https://logs.s3.eu-west-1.amazonaws.com/a", "bucket s3://logs"),
            ("x", "https://s3.eu-west-1.amazonaws.com/logs/a", "bucket s3://logs"),
            ("x", "https://storage.googleapis.com/media/a", "bucket gs://media"),
            ("x", "arn:aws:s3:::archive/*", "bucket s3://archive"),
            ("ARCHIVE_BUCKET", "reports-archive", "bucket reports-archive"),
            ("bucketName", "media", "bucket media"),
            (
                "PGHOST",
                "main.abc.eu-west-1.rds.amazonaws.com",
                "database main.abc.eu-west-1.rds.amazonaws.com",
            ),
            ("LDAP", "ldaps://ldap.example.com", "directory ldaps://ldap.example.com"),
        ] {
            assert_eq!(told(in_value(key, text)), expected, "{key}={text}");
        }
    }

    #[test]
    fn what_is_no_host_is_none() {
        for (key, text) in [
            ("LISTEN_ADDR", "0.0.0.0:8080"),
            ("DB_HOST", "localhost"),
            ("HOST", "cluster.local"),
            ("DNS_SERVER", "svc.cluster.local."),
            ("URL", "http://127.0.0.1:8080/x"),
            ("API", "https://kubernetes.default.svc"),
            ("DB_HOST", "$(DB_HOST)"),
            ("URL", "postgres://${USER}:${PASS}@${HOST}:5432/x"),
            ("URL", "http://{{ .host }}/"),
            ("TIME", "12:30"),
            ("image", "postgres:16"),
            ("SERVER", "true"),
            ("ADDRESS", "12 Main Street"),
            ("HOST_PATH", "/var/lib/x"),
            ("args", "--verbose"),
            ("role", "arn:aws:iam::123456789012:role/reports"),
            ("DB_HOST", ""),
            ("cert", "-----BEGIN CERTIFICATE-----"),
        ] {
            assert_eq!(told(in_value(key, text)), "", "{key}={text}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        for text in [
            "postgres://u:hunter2@db/x",
            "postgres://u:hunt/er2@db/x",
            "postgres://u:hunter2#@db:5432/x",
            "postgres://hunter2@db/x",
            "mysql://u:hunter2@@db/x",
            "redis://:1234/hunter2@cache:6379",
            "https://u:hunter2@git.example.com/x.git",
            "https://git.example.com/hunter2",
            "https://x.blob.core.windows.net/c?sig=hunter2",
            "amqps://u:hunter2@mq:5671/vhost?heartbeat=1",
            "jdbc:mysql://db/x?password=hunter2",
            "jdbc:oracle:thin:u/hunter2@db:1521:x",
            "u:hunter2@tcp(db:3306)/x",
            "Server=db;Password=hunter2;",
            "host=db password=hunter2",
            "hunter2",
            "mongodb://u:hunter2",
            "postgres://u:hunter2",
            "postgres://hunter2",
            "s3://AKIA:hunter2@bucket/x",
        ] {
            for key in ["DATABASE_URL", "password", "dsn", "DB_HOST", "x"] {
                // A bare word under a key that says host is a host; only there.
                if (key == "DB_HOST" && text == "hunter2") || text == "postgres://hunter2" {
                    continue;
                }
                for mention in
                    in_value(key, text).iter().chain(&in_document(key, &format!("a: b\n{key}: {text}\n")))
                {
                    let shown = format!("{mention:?}");
                    assert!(!shown.contains("hunt") && !shown.contains("er2"), "{key}={text}: {shown}");
                    assert!(!shown.contains("AKIA"), "{key}={text}: {shown}");
                }
            }
        }
    }

    #[test]
    fn documents_of_all_sorts() {
        for (text, expected) in [
            ("cache:\n  host: cache\n  port: 6379\n", "host cache"),
            ("[database]\nserver = docs-db\nbucket = media\n", "bucket media | host docs-db?"),
            (
                "a: 1\n- seeds: \"r-0.r.ring.svc.cluster.local,r-1.r.ring.svc.cluster.local\"\n",
                "host r-0.r.ring.svc.cluster.local | host r-1.r.ring.svc.cluster.local",
            ),
            ("server {\n  location / { proxy_pass http://api.back:8080; }\n}\n", "web http://api.back:8080?"),
            ("[OUTPUT]\n    Name  es\n    Host  logs.example.com\n    Port  9200\n", "host logs.example.com"),
            ("# host: x\n// db: postgres://u:p@old/x\n", ""),
            (
                "{\"db\":{\"host\":\"pg\",\"port\":5432},\"links\":[{\"url\":\"https://wiki.example.com/a\"}]}",
                "host pg | web https://wiki.example.com?",
            ),
            ("spring.datasource.url=jdbc:mysql://db:3306/x\nx=1\n", "database mysql://db:3306/x"),
        ] {
            assert_eq!(told(in_document("f", text)), expected, "{text}");
        }
    }

    #[test]
    fn arguments_are_read_with_their_options() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let told = |line: &str| {
            in_arguments(&words(line))
                .into_iter()
                .map(|(n, m)| format!("{n}: {}", told(m)))
                .collect::<Vec<_>>()
        };
        assert_eq!(told("--db-host=db --brokers a:9092 serve"), ["0: database db", "2: queue a:9092"]);
        assert_eq!(
            told("dump --host mongo.data --to s3://dumps/x"),
            ["2: host mongo.data", "4: bucket s3://dumps"]
        );
        assert_eq!(told("nodetool --host ring repair -pr"), ["2: host ring"]);
        assert_eq!(told("--verbose --name db"), Vec::<String>::new());
    }

    #[test]
    fn variables_of_the_container_are_filled_in() {
        let variables = [("HOST", "db"), ("PORT", "5432"), ("SECRET", "")];
        assert_eq!(filled_in("x://$(SECRET)@$(HOST):$(PORT)/", &variables), "x://$(SECRET)@db:5432/");
        assert_eq!(filled_in("plain $(", &variables), "plain $(");
        assert_eq!(
            told(in_value("URL", &filled_in("postgres://$(USER):$(PASS)@$(HOST):5432/x", &variables))),
            "database postgres://db:5432/x"
        );
    }
}
