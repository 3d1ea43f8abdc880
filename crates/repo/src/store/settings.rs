//! From variables to how a store is reached.
//!
//! Accounts and endpoints come as names and values: the environment of a command, or the members of a Secret. The names
//! are those the services' own tools read ([`VARIABLES`]). What they mean is decided here and nowhere else, and only by
//! what is handed in: this crate reads no environment, and which files may be read the caller knows.
//!
//! - An empty value counts as not set.
//! - With a prefix (`HOLDFAST_TO_`: the other repository of a copy) the name with it comes first (`HOLDFAST_TO_S3_ENDPOINT`
//!   before `HOLDFAST_S3_ENDPOINT`, `HOLDFAST_TO_AWS_REGION` before `AWS_REGION`).
//! - The three of an S3 account belong together: an account named with the prefix is never completed from the other.

use std::io;

use super::StoreOptions;

/// Every variable that is read.
pub const VARIABLES: [&str; 16] = [
    "HOLDFAST_S3_ENDPOINT",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CA_BUNDLE",
    "STORAGE_EMULATOR_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ENDPOINT",
];

/// Those that make an S3 account.
const ACCOUNT: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
/// What our own names begin with, and a prefix brings along.
const OWN: &str = "HOLDFAST_";

/// A variable names a file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {variable} {file}: {source}")]
pub struct Unreadable {
    /// The variable.
    pub variable: &'static str,
    /// What it names.
    pub file: String,
    /// Why not.
    pub source: io::Error,
}

/// How a store is reached, by these variables. `prefix` is empty, or what comes before the names that count first.
/// `read` gives the content of what the two variables that name a file name. Where values come from somebody
/// who may not read our files (a Secret), they are the content themselves: `&|value| Ok(value.into())`.
pub fn settings(
    prefix: &str,
    variables: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&str) -> io::Result<Vec<u8>>,
) -> Result<StoreOptions, Unreadable> {
    let set = |name: &str| variables(name).filter(|value| !value.is_empty());
    let own = |name: &str| match prefix {
        "" => None,
        prefix => set(&format!("{prefix}{}", name.strip_prefix(OWN).unwrap_or(name))),
    };
    let own_account = own("AWS_ACCESS_KEY_ID").is_some();
    let var = |name: &str| match own_account && ACCOUNT.contains(&name) {
        true => own(name),
        false => own(name).or_else(|| set(name)),
    };
    let content = |variable: &'static str| {
        let unreadable = |file: &str, source| Unreadable { variable, file: file.to_owned(), source };
        var(variable).map(|file| read(&file).map_err(|source| unreadable(&file, source))).transpose()
    };
    let mut options = StoreOptions::default();
    let s3 = &mut options.s3;
    s3.endpoint = var("HOLDFAST_S3_ENDPOINT")
        .or_else(|| var("AWS_ENDPOINT_URL_S3"))
        .or_else(|| var("AWS_ENDPOINT_URL"));
    s3.region = var("AWS_REGION").or_else(|| var("AWS_DEFAULT_REGION"));
    s3.access_key_id = var("AWS_ACCESS_KEY_ID");
    s3.secret_access_key = var("AWS_SECRET_ACCESS_KEY");
    s3.session_token = var("AWS_SESSION_TOKEN");
    s3.extra_roots_pem = content("AWS_CA_BUNDLE")?;
    options.gcs.endpoint = var("STORAGE_EMULATOR_HOST");
    let google = "GOOGLE_APPLICATION_CREDENTIALS";
    if let Some(json) = content(google)? {
        // The message must not repeat a key.
        let no_text = || io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8");
        let json = String::from_utf8(json).map_err(|_| Unreadable {
            variable: google,
            file: String::new(),
            source: no_text(),
        })?;
        options.gcs.service_account_json = Some(json);
    }
    options.azure.account = var("AZURE_STORAGE_ACCOUNT").or_else(|| var("AZURE_STORAGE_ACCOUNT_NAME"));
    options.azure.access_key = var("AZURE_STORAGE_KEY").or_else(|| var("AZURE_STORAGE_ACCOUNT_KEY"));
    options.azure.endpoint = var("AZURE_STORAGE_ENDPOINT");
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    /// What is set of it all, by short names.
    fn told(options: &StoreOptions) -> String {
        let (s3, gcs, azure) = (&options.s3, &options.gcs, &options.azure);
        let pem = s3.extra_roots_pem.as_ref().map(|pem| String::from_utf8_lossy(pem).into_owned());
        let all = [
            ("endpoint", s3.endpoint.clone()),
            ("region", s3.region.clone()),
            ("id", s3.access_key_id.clone()),
            ("secret", s3.secret_access_key.clone()),
            ("token", s3.session_token.clone()),
            ("roots", pem),
            ("google", gcs.service_account_json.clone()),
            ("emulator", gcs.endpoint.clone()),
            ("account", azure.account.clone()),
            ("key", azure.access_key.clone()),
            ("azure", azure.endpoint.clone()),
        ];
        let set = all.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        set.collect::<Vec<_>>().join(" ")
    }

    fn check(prefix: &str, variables: &str, expected: &str) {
        let pairs: Vec<(&str, &str)> =
            variables.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect();
        let value = |name: &str| pairs.iter().find(|(set, _)| *set == name).map(|(_, v)| (*v).to_owned());
        let read = |file: &str| Ok(format!("<{file}>").into_bytes());
        let options = settings(prefix, &value, &read).unwrap();
        assert_eq!(told(&options), expected, "{prefix:?} {variables}");
    }

    #[test]
    fn every_service_is_reached_by_the_variables_of_its_own_tools() {
        check("", "", "");
        check(
            "",
            "AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_SESSION_TOKEN=c AWS_REGION=r AWS_ENDPOINT_URL=u",
            "endpoint=u region=r id=a secret=b token=c",
        );
        check(
            "",
            "HOLDFAST_S3_ENDPOINT=1 AWS_ENDPOINT_URL_S3=2 AWS_ENDPOINT_URL=3 AWS_DEFAULT_REGION=d",
            "endpoint=1 region=d",
        );
        check("", "HOLDFAST_S3_ENDPOINT= AWS_ENDPOINT_URL_S3=2 AWS_ENDPOINT_URL=3 AWS_REGION=", "endpoint=2");
        check("", "S3_ENDPOINT=somebody-elses", "");
        check("", "AWS_CA_BUNDLE=ca.pem", "roots=<ca.pem>");
        check(
            "",
            "GOOGLE_APPLICATION_CREDENTIALS=g.json STORAGE_EMULATOR_HOST=h",
            "google=<g.json> emulator=h",
        );
        check(
            "",
            "AZURE_STORAGE_ACCOUNT=a AZURE_STORAGE_ACCOUNT_NAME=b AZURE_STORAGE_ACCOUNT_KEY=k AZURE_STORAGE_ENDPOINT=e",
            "account=a key=k azure=e",
        );
        check("", "AZURE_STORAGE_ACCOUNT_NAME=b AZURE_STORAGE_KEY=k", "account=b key=k");
    }

    #[test]
    fn the_other_repository_of_a_copy_has_names_of_its_own_and_never_half_an_account() {
        let to = "HOLDFAST_TO_";
        check(to, "HOLDFAST_S3_ENDPOINT=1 HOLDFAST_TO_S3_ENDPOINT=2", "endpoint=2");
        check(to, "HOLDFAST_S3_ENDPOINT=1 HOLDFAST_TO_AWS_REGION=r AWS_REGION=x", "endpoint=1 region=r");
        check(to, "HOLDFAST_TO_AWS_CA_BUNDLE=t AWS_CA_BUNDLE=x", "roots=<t>");
        // Nothing said of its account: the same one.
        check(to, "AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b", "id=a secret=b");
        // Its own, and the token of the other is not added to it.
        check(
            to,
            "HOLDFAST_TO_AWS_ACCESS_KEY_ID=p HOLDFAST_TO_AWS_SECRET_ACCESS_KEY=q \
             AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_SESSION_TOKEN=c",
            "id=p secret=q",
        );
        check(to, "HOLDFAST_TO_AWS_ACCESS_KEY_ID=p AWS_SECRET_ACCESS_KEY=b AWS_SESSION_TOKEN=c", "id=p");
        check(to, "HOLDFAST_TO_AZURE_STORAGE_ACCOUNT=z AZURE_STORAGE_ACCOUNT=a", "account=z");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_variable() {
        for name in ["AWS_CA_BUNDLE", "GOOGLE_APPLICATION_CREDENTIALS"] {
            let value = |asked: &str| (asked == name).then(|| "/no/file".to_owned());
            let gone = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
            let error = settings("", &value, &gone).unwrap_err();
            assert_eq!((error.variable, error.file.as_str()), (name, "/no/file"));
            assert!(error.to_string().contains("/no/file"), "{error}");
        }
        let value = |asked: &str| (asked == "GOOGLE_APPLICATION_CREDENTIALS").then(|| "g".to_owned());
        let error = settings("", &value, &|_| Ok(vec![0xff])).unwrap_err();
        assert!(error.to_string().contains("not text"), "{error}");
    }

    #[test]
    fn nothing_is_asked_for_that_is_not_in_the_list() {
        let asked = RefCell::new(BTreeSet::new());
        let note = |name: &str| {
            asked.borrow_mut().insert(name.to_owned());
            None
        };
        settings("", &note, &|_| Ok(Vec::new())).unwrap();
        let all: BTreeSet<String> = VARIABLES.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(asked.take(), all);
        settings("HOLDFAST_TO_", &note, &|_| Ok(Vec::new())).unwrap();
        let asked = asked.take();
        for name in VARIABLES {
            let own = format!("HOLDFAST_TO_{}", name.trim_start_matches(OWN));
            assert!(asked.contains(&own) && asked.contains(name), "{own}");
        }
        assert_eq!(asked.len(), 2 * VARIABLES.len());
    }
}
