//! What opens the repository in this run: a passphrase, a key file, the recovery key or a KMS plugin.
//!
//! One of them is chosen by an option, else by a variable, else a passphrase is asked for on the terminal. Options
//! win over variables; two of the same rank are refused, since nobody can know which was meant. A variable that is set
//! to nothing counts as not set. Secrets come from files, never from arguments, and there is no default.

use crate::context::{Context, Global};
use crate::error::{Exit, Failure, Result, io};
use crate::kms::Plugin;
use crate::output::note;
use crate::passphrase;
use repo::{KeyFile, KeyKind, Passphrase, RecoveryKey, Unlock};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A secret that was read, or made.
pub enum Secret {
    /// What people remember.
    Passphrase(Passphrase),
    /// The content of a key file.
    KeyFile(KeyFile),
    /// What was written on paper.
    RecoveryKey(RecoveryKey),
    /// A plugin's socket.
    Plugin(Plugin),
}

impl Secret {
    /// As the repository takes it.
    pub fn unlock(&self) -> Unlock<'_> {
        match self {
            Secret::Passphrase(words) => words.into(),
            Secret::KeyFile(file) => file.into(),
            Secret::RecoveryKey(key) => key.into(),
            Secret::Plugin(plugin) => Unlock::Plugin(plugin),
        }
    }
}

/// Where a secret is to come from: the option or variable that said so, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    kind: KeyKind,
    told_by: &'static str,
    value: OsString,
}

/// Option, variable and kind of each.
const WAYS: [(&str, &str, KeyKind); 4] = [
    ("--password-file", "HOLDFAST_PASSWORD_FILE", KeyKind::Passphrase),
    ("--key-file", "HOLDFAST_KEY_FILE", KeyKind::KeyFile),
    ("--kms", "HOLDFAST_KMS", KeyKind::Kms),
    ("--recovery-key-file", "HOLDFAST_RECOVERY_KEY_FILE", KeyKind::RecoveryKey),
];

fn choose(global: &Global, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Source>> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.clone().into_os_string());
    let options = [
        path(&global.password_file),
        path(&global.key_file),
        global.kms.as_ref().map(OsString::from),
        path(&global.recovery_key_file),
    ];
    let source = |told_by, kind| move |value| Source { kind, told_by, value };
    let mut given: Vec<Source> = WAYS
        .iter()
        .zip(options)
        .filter_map(|((option, _, kind), value)| value.map(source(*option, *kind)))
        .collect();
    if given.is_empty() {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        given = WAYS.iter().filter_map(|(_, name, kind)| set(name).map(source(*name, *kind))).collect();
    }
    match given.as_slice() {
        [first, second, ..] => Err(Failure::usage(format!(
            "{} and {} are both given, and one opens the repository",
            first.told_by, second.told_by
        ))
        .next("give one; an option wins over the variables")),
        _ => Ok(given.pop()),
    }
}

/// What opens the repository this run works with.
pub fn existing(ctx: &Context) -> Result<Secret> {
    match choose(&ctx.global, |name| std::env::var_os(name))? {
        Some(source) => read(ctx, &source),
        None => passphrase::ask(ctx).map(Secret::Passphrase),
    }
}

/// What opens another repository: the passphrase in the file of its own option, else what the variables with its prefix
/// name (`HOLDFAST_TO_KEY_FILE`), else a passphrase that is typed.
pub fn other(ctx: &Context, file: Option<&Path>, option: &str, url: &str, prefix: &str) -> Result<Secret> {
    let variable = |name: &str| std::env::var_os(name.replacen("HOLDFAST_", prefix, 1));
    let source = match file {
        Some(_) => None,
        None => choose(&Global::default(), variable)?,
    };
    match source {
        Some(source) => read(ctx, &source),
        None => passphrase::other(ctx, file, option, url, prefix).map(Secret::Passphrase),
    }
}

/// What will open a repository that is about to be made: the same, and a passphrase is typed twice.
pub fn first(ctx: &Context) -> Result<Secret> {
    match choose(&ctx.global, |name| std::env::var_os(name))? {
        Some(source) if source.kind == KeyKind::RecoveryKey => Err(Failure::usage(format!(
            "{} names the recovery key, which `repo init` makes and does not take",
            source.told_by
        ))
        .next("name what opens the repository every day: --password-file, --key-file or --kms")),
        Some(source) => read(ctx, &source),
        None => passphrase::ask_twice(ctx).map(Secret::Passphrase),
    }
}

fn read(ctx: &Context, source: &Source) -> Result<Secret> {
    let file = Path::new(&source.value);
    let refused = |error: repo::Error| {
        Failure::usage(format!("{} {}: {error}", source.told_by, file.display()))
            .next("name the file that holds it, unchanged")
    };
    Ok(match source.kind {
        KeyKind::KeyFile => {
            let text = passphrase::read_file(file, source.told_by)?;
            Secret::KeyFile(KeyFile::parse(&text).map_err(refused)?)
        }
        KeyKind::RecoveryKey => {
            let text = passphrase::read_file(file, source.told_by)?;
            let text = std::str::from_utf8(&text)
                .map_err(|_| refused(repo::Error::invalid("a recovery key is text")))?;
            Secret::RecoveryKey(RecoveryKey::parse(text).map_err(refused)?)
        }
        KeyKind::Kms => Secret::Plugin(plugin(ctx, &source.value.to_string_lossy(), source.told_by)?),
        // No option names a bundle: that one process hands to another.
        KeyKind::Passphrase | KeyKind::Bundle | KeyKind::Unknown => {
            Secret::Passphrase(passphrase::from_file(file, source.told_by)?)
        }
    })
}

fn plugin(ctx: &Context, url: &str, told_by: &str) -> Result<Plugin> {
    Plugin::new(url, ctx.env.clone()).map_err(|what| Failure::usage(format!("{told_by} {url}: {what}")))
}

/// What a new key is to be opened with.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
pub struct NewKey {
    /// The file that holds the new passphrase; without any of these options it is asked for
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    /// Make a key file: 32 random bytes in a new FILE, opened by --key-file
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
    /// A Kubernetes KMS v2 plugin, opened by --kms
    #[arg(long, value_name = "unix://SOCKET")]
    pub new_kms: Option<String>,
    /// Make one more recovery key, which is shown once
    #[arg(long)]
    pub new_recovery_key: bool,
}

impl NewKey {
    /// Whether nothing was chosen.
    pub fn is_open(&self) -> bool {
        self.new_password_file.is_none()
            && self.new_key_file.is_none()
            && self.new_kms.is_none()
            && !self.new_recovery_key
    }

    /// Reads or makes it. A key file that is made lies on the disk before any key object relies on it.
    pub fn get(&self, ctx: &Context) -> Result<Secret> {
        if let Some(file) = &self.new_key_file {
            return make_key_file(ctx, file);
        }
        if let Some(url) = &self.new_kms {
            return Ok(Secret::Plugin(plugin(ctx, url, "--new-kms")?));
        }
        if self.new_recovery_key {
            return Ok(Secret::RecoveryKey(RecoveryKey::generate(&ctx.env)?));
        }
        Ok(Secret::Passphrase(match &self.new_password_file {
            Some(file) => passphrase::from_file(file, "--new-password-file")?,
            None => passphrase::ask_twice(ctx)?,
        }))
    }

    /// Takes back what [`NewKey::get`] left on the disk, when no key came of it.
    pub fn undo(&self) {
        if let Some(file) = &self.new_key_file
            && let Err(error) = std::fs::remove_file(file)
        {
            note(format!("note: {} opens nothing and could not be removed: {error}", file.display()));
        }
    }
}

/// Makes a key file.
pub fn make_key_file(ctx: &Context, file: &Path) -> Result<Secret> {
    let key = KeyFile::generate(&ctx.env)?;
    write_secret(file, &key.to_text(), "the key file")?;
    Ok(Secret::KeyFile(key))
}

/// Writes a secret to a file that is not there yet and that only its owner can read.
pub fn write_secret(file: &Path, text: &str, what: &str) -> Result<()> {
    let failed = |error: std::io::Error| {
        let failure = io(format!("cannot write {what} {}", file.display()), &error);
        match failure.exit {
            Exit::Refused => failure.next("name a file that is not there yet: no key is overwritten"),
            _ => failure,
        }
    };
    let mut out =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(|error| {
        // Half a key is worse than none; that it stays is told by the next attempt.
        let _ = std::fs::remove_file(file);
        failed(error)
    })
}

/// What belongs into a machine-readable result.
pub type Told = serde_json::Map<String, serde_json::Value>;

/// Shows a new recovery key, once: in `file` if one is named, else to whoever sits there.
pub fn show_recovery_key(ctx: &Context, key: &RecoveryKey, file: Option<&Path>) -> Result<Told> {
    let told = |name: &str, value: &str| Told::from_iter([(name.to_owned(), value.into())]);
    let text = key.to_text();
    if let Some(file) = file {
        write_secret(file, &format!("{}\n", *text), "the recovery key")?;
        if ctx.out.is_table() {
            ctx.out.line(format!(
                "The recovery key is in {}: keep it where the repository is not.",
                file.display()
            ));
        }
        return Ok(told("recoveryKeyFile", &file.to_string_lossy()));
    }
    if ctx.out.is_table() {
        note(format!(
            "Recovery key, shown this once. Write it down and keep it where the repository is not:\n\n    {}\n\nIt opens everything when all else is lost (--recovery-key-file).",
            *text
        ));
        return Ok(Told::new());
    }
    Ok(told("recoveryKey", &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_win_over_variables_and_two_of_a_rank_are_refused() {
        let global = |options: &[(&str, &str)]| {
            let mut global = Global::default();
            for (option, value) in options {
                match *option {
                    "--password-file" => global.password_file = Some(value.into()),
                    "--key-file" => global.key_file = Some(value.into()),
                    "--kms" => global.kms = Some((*value).into()),
                    _ => global.recovery_key_file = Some(value.into()),
                }
            }
            global
        };
        type Pairs<'a> = &'a [(&'a str, &'a str)];
        // options, variables, what is chosen: the name and the value, or what the refusal names
        type Case<'a> = (Pairs<'a>, Pairs<'a>, std::result::Result<&'a str, [&'a str; 2]>);
        let cases: &[Case] = &[
            (&[], &[], Ok("")),
            (&[], &[("HOLDFAST_PASSWORD_FILE", "")], Ok("")),
            (&[], &[("HOLDFAST_PASSWORD_FILE", "p")], Ok("HOLDFAST_PASSWORD_FILE p")),
            (&[], &[("HOLDFAST_PASSWORD_FILE", ""), ("HOLDFAST_KEY_FILE", "k")], Ok("HOLDFAST_KEY_FILE k")),
            (&[("--key-file", "k")], &[("HOLDFAST_PASSWORD_FILE", "p")], Ok("--key-file k")),
            (&[("--recovery-key-file", "r")], &[("HOLDFAST_KMS", "unix:///k")], Ok("--recovery-key-file r")),
            (&[], &[("HOLDFAST_KMS", "unix:///k")], Ok("HOLDFAST_KMS unix:///k")),
            (
                &[],
                &[("HOLDFAST_PASSWORD_FILE", "p"), ("HOLDFAST_KEY_FILE", "k")],
                Err(["HOLDFAST_PASSWORD_FILE", "HOLDFAST_KEY_FILE"]),
            ),
            (&[("--kms", "s"), ("--key-file", "k")], &[], Err(["--key-file", "--kms"])),
        ];
        for (options, variables, wanted) in cases {
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, v)| OsString::from(v))
            };
            let chosen = choose(&global(options), variable).map(|source| {
                source.map_or(String::new(), |s| format!("{} {}", s.told_by, s.value.to_string_lossy()))
            });
            match (chosen, wanted) {
                (Ok(chosen), Ok(wanted)) => assert_eq!(chosen, *wanted, "{options:?} {variables:?}"),
                (Err(failure), Err(names)) => {
                    assert!(names.iter().all(|name| failure.message.contains(name)), "{}", failure.message);
                }
                (chosen, _) => panic!("{options:?} {variables:?}: {chosen:?}"),
            }
        }
    }
}
