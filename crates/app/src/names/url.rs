//! URLs and connection strings, with the hosts in them and without what is secret.

use super::{Host, Kind, Mention, Sure, kind};

/// Schemes whose authority may be a list of hosts; the password before it may hold anything.
fn is_store(kind: Option<Kind>) -> bool {
    matches!(kind, Some(Kind::Database | Kind::Cache | Kind::Queue | Kind::Search))
}

/// Finds URLs anywhere in a text.
pub(super) fn find(text: &str, words: &[String], found: &mut Vec<Mention>) {
    let whole_is_url = !text.contains(char::is_whitespace);
    for (at, _) in text.match_indices("://") {
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let head = &text[..at];
        let start = head
            .rfind(|c: char| !is_scheme(c))
            .map_or(0, |i| i + head[i..].chars().next().map_or(1, char::len_utf8));
        // `postgresql+psycopg2`, `mongodb+srv`: what stands behind the plus is how, not what.
        let scheme = head[start..].split('+').next().unwrap_or("").to_ascii_lowercase();
        let rest = &text[at + 3..];
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>'))
            .unwrap_or(rest.len());
        one(&scheme, &rest[..end], whole_is_url, words, found);
    }
    for (at, _) in text.match_indices("arn:aws") {
        // `arn:aws:s3:::BUCKET/…`, also of other partitions.
        let Some((_, rest)) = text[at..].split_once(":s3:::") else { continue };
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))).unwrap_or(rest.len());
        if let Some(name) = kind::bucket_name(&rest[..end]) {
            found.push(bucket(format!("s3://{name}")));
        }
    }
}

fn bucket(name: String) -> Mention {
    Mention { kind: Kind::Bucket, host: String::new(), name, sure: Sure::Surely }
}

/// What follows `scheme://`, up to the next space or quote.
fn one(scheme: &str, token: &str, whole_is_url: bool, words: &[String], found: &mut Vec<Mention>) {
    let by_scheme = kind::of_scheme(scheme);
    if by_scheme == Some(Kind::Bucket) {
        let name = token.split(['/', '?', '#', ',', ';', ')', '}', ']']).next().unwrap_or("");
        // `container@account` is Azure's way; before any other @ there is a secret.
        match name.split_once('@') {
            Some((container, account)) if account.contains(".core.windows.net") => {
                if let (Some(container), Some(account)) = (kind::bucket_name(container), Host::parse(account))
                {
                    found.push(bucket(format!("{scheme}://{container}@{}", account.name)));
                }
            }
            Some(_) => {}
            None => found.extend(kind::bucket_name(name).map(|name| bucket(format!("{scheme}://{name}")))),
        }
        return;
    }
    let is_store = is_store(by_scheme);
    // Options may hold a password, and that an @.
    let token = token.split(['?', ';']).next().unwrap_or("");
    // A password may hold any character: where a store's URL has an @, everything before the last one is not for us.
    let authority = match token.rfind('@') {
        Some(at) if is_store => &token[at + 1..],
        _ => token,
    };
    let stops: &[char] = if is_store {
        &['/', '?', '#', ';', '\\', ')', ']', '}', '|']
    } else {
        &['/', '?', '#', ';', '\\', ')', ']', '}', '|', ',']
    };
    // An IPv6 address has its own brackets.
    let end = match authority.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(close) => close + 2 + authority[close + 2..].find(stops).unwrap_or(authority.len() - close - 2),
        None => authority.find(stops).unwrap_or(authority.len()),
    };
    let (hosts, path) = authority.split_at(end);
    let hosts = hosts.rsplit('@').next().unwrap_or("");
    let database = match (is_store, path.strip_prefix('/')) {
        (true, Some(path)) => {
            let name = path.split(['?', '#', '/', ';', '&', ',']).next().unwrap_or("");
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            if !name.is_empty() && name.len() <= 63 && name.bytes().all(plain) {
                format!("/{name}")
            } else {
                String::new()
            }
        }
        _ => String::new(),
    };
    // If one of them is no host, we have misread where the password ends.
    let Some(hosts) = hosts.split(',').map(Host::parse).collect::<Option<Vec<Host>>>() else { return };
    for host in hosts {
        // What looks like a port may be the beginning of a password with a slash in it.
        if !is_store && host.port.is_some() && path.contains('@') {
            return;
        }
        if by_scheme == Some(Kind::Web)
            && let Some(name) = kind::bucket_at(&host.name, path)
        {
            found.push(bucket(name));
            continue;
        }
        let kind = kind::of(by_scheme, &host, words);
        let sure = match by_scheme {
            Some(Kind::Web) if !whole_is_url => Sure::IfThere,
            Some(_) => Sure::Surely,
            None => Sure::IfThere,
        };
        found.push(Mention {
            kind,
            name: format!("{scheme}://{}{database}", host.shown()),
            host: host.name,
            sure,
        });
    }
}

/// Connection strings that are no URLs: Go's, Oracle's, libpq's and ADO.NET's.
pub(super) fn connection_string(text: &str, words: &[String], found: &mut Vec<Mention>) {
    // USER:PASSWORD@tcp(HOST:PORT)/NAME
    if let Some((_, rest)) = text.rsplit_once("@tcp(")
        && let Some((host, path)) = rest.split_once(')')
        && let Some(host) = Host::parse(host)
    {
        let name = path.trim_start_matches('/').split('?').next().unwrap_or("");
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        let name =
            if !name.is_empty() && name.bytes().all(plain) { format!("/{name}") } else { String::new() };
        let shown = format!("mysql://{}{name}", host.shown());
        found.push(Mention { kind: Kind::Database, name: shown, host: host.name, sure: Sure::Surely });
        return;
    }
    // jdbc:oracle:thin:USER/PASSWORD@//HOST:PORT/SERVICE, …@HOST:PORT:SID
    if let Some(rest) = text.strip_prefix("jdbc:oracle:") {
        let Some((_, rest)) = rest.rsplit_once('@') else { return };
        let rest = rest.trim_start_matches('/').split(['/', '?']).next().unwrap_or("");
        let mut parts = rest.split(':');
        let (name, port) = (parts.next().unwrap_or(""), parts.next().unwrap_or("1521"));
        if let Some(host) = Host::parse(&format!("{name}:{port}")) {
            let shown = format!("oracle://{}", host.shown());
            found.push(Mention { kind: Kind::Database, name: shown, host: host.name, sure: Sure::Surely });
        }
        return;
    }
    // host=HOST port=PORT password=…; Server=tcp:HOST,PORT;Password=…;
    let separator = if text.contains(';') { ';' } else { ' ' };
    let pairs: Vec<(String, &str)> = text
        .split(separator)
        .filter_map(|part| part.split_once('='))
        .map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim()))
        .collect();
    if pairs.len() < 2 {
        return;
    }
    let get =
        |names: &[&str]| pairs.iter().find(|(key, _)| names.contains(&key.as_str())).map(|(_, value)| *value);
    let Some(value) =
        get(&["host", "hostaddr", "server", "data source", "addr", "address", "network address"])
    else {
        return;
    };
    let is_login =
        get(&["password", "pwd", "user", "user id", "uid", "dbname", "database", "initial catalog"])
            .is_some();
    if !is_login {
        return;
    }
    let value = value.trim_start_matches("tcp:").replace(',', ":");
    let with_port = match get(&["port"]) {
        Some(port) if !value.contains(':') => format!("{value}:{port}"),
        _ => value,
    };
    if let Some(host) = Host::parse(&with_port) {
        let kind = match kind::of(None, &host, words) {
            Kind::Host => Kind::Database,
            known => known,
        };
        found.push(Mention { kind, name: host.shown(), host: host.name, sure: Sure::Surely });
    }
}
