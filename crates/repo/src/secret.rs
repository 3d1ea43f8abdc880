//! What a user holds to open a repository, and the texts it is written as.
//!
//! | kind | what it is | what a guess costs |
//! |---|---|---|
//! | passphrase | whatever people remember | argon2id |
//! | key file | 32 random bytes on one line | nothing: there is nothing to guess |
//! | recovery key | 20 random bytes, in groups that can be typed from paper | nothing |
//! | plugin | a Kubernetes KMS v2 plugin that encrypts a local key | the plugin's own access control |
//! | bundle | the keys themselves, from a process that has opened the repository (`bundle.rs`) | nothing |
//!
//! Secrets are wiped when dropped and none has a `Debug` that shows it. Errors about a text that does not
//! parse never repeat any of it. The plugin is a trait: this crate opens no socket.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::bundle::Bundle;
use crate::env::Env;
use crate::error::Error;

/// What a user knows. Wiped when dropped; never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(Vec<u8>);

impl Passphrase {
    /// From the bytes as the user gave them (a caller strips the line end of a file).
    pub fn new(bytes: impl Into<Vec<u8>>) -> Passphrase {
        Passphrase(bytes.into())
    }

    /// Whether there is none. Such a passphrase makes no key: there is no default password (R5).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// How much work it is to try a passphrase: argon2id, RFC 9106.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kdf {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Kdf {
    /// 48 MiB, 4 passes, 1 lane: a tenth of a second, and dear to try in bulk. As much memory traffic as the 64 MiB and
    /// 3 passes that RFC 9106 suggests where memory is scarce, with a peak that is lower than that of the work itself.
    fn default() -> Kdf {
        Kdf { memory_kib: 48 * 1024, passes: 4, lanes: 1 }
    }
}

impl Kdf {
    /// The least there is, for tests: no protection of anything.
    pub fn cheap() -> Kdf {
        Kdf { memory_kib: 8, passes: 1, lanes: 1 }
    }

    /// A key object comes from the store and must not be able to exhaust its reader.
    fn check(&self) -> Result<(), String> {
        let sane = self.memory_kib <= 4 * 1024 * 1024 && self.passes <= 64 && (1..=64).contains(&self.lanes);
        if sane { Ok(()) } else { Err(format!("key derivation parameters out of bounds: {self:?}")) }
    }

    pub(crate) fn derive(&self, passphrase: &Passphrase, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, String> {
        self.check()?;
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|error| format!("key derivation parameters: {error}"))?;
        let mut key = Zeroizing::new([0; 32]);
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_into(&passphrase.0, salt, key.as_mut_slice())
            .map_err(|error| format!("key derivation: {error}"))?;
        Ok(key)
    }
}

/// 32 random bytes in a file. Opens a repository without key derivation.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeyFile([u8; 32]);

/// How the text of a key file begins.
const KEY_FILE_PREFIX: &str = "holdfast-key-file-1-";

impl KeyFile {
    /// A new one.
    pub fn generate(env: &Env) -> Result<KeyFile, Error> {
        let mut key = KeyFile([0; 32]);
        env.random(&mut key.0)?;
        Ok(key)
    }

    /// Reads the text of a key file. The message of a refusal repeats nothing of it.
    pub fn parse(text: &[u8]) -> Result<KeyFile, Error> {
        let text = text.trim_ascii();
        let Some(rest) = text.strip_prefix(KEY_FILE_PREFIX.as_bytes()) else {
            return Err(Error::invalid(
                "it is no key file: `holdfast repo key add --new-key-file FILE` makes one",
            ));
        };
        let broken = || {
            Error::invalid(
                "the key file is damaged: a character is wrong or missing, so its checksum differs",
            )
        };
        let (hex, check) = match (rest.len(), rest.get(64)) {
            (73, Some(b'-')) => (&rest[..64], &rest[65..]),
            _ => return Err(broken()),
        };
        let mut key = KeyFile([0; 32]);
        let decoded = HEXLOWER.decode_mut(hex, &mut key.0);
        if decoded != Ok(32) || HEXLOWER.encode(&key.checksum()).as_bytes() != check {
            return Err(broken());
        }
        Ok(key)
    }

    /// The one line to be stored.
    pub fn to_text(&self) -> Zeroizing<String> {
        // As long as it gets, so that no copy is left behind by a reallocation.
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_PREFIX.len() + 74));
        text.push_str(KEY_FILE_PREFIX);
        let mut hex = Zeroizing::new([0; 64]);
        HEXLOWER.encode_mut(&self.0, hex.as_mut_slice());
        text.extend(hex.iter().map(|digit| char::from(*digit)));
        text.push('-');
        text.push_str(&HEXLOWER.encode(&self.checksum()));
        text.push('\n');
        text
    }

    fn checksum(&self) -> [u8; 4] {
        let mut first = [0; 4];
        blake3::Hasher::new().update(b"holdfast key file 1").update(&self.0).finalize_xof().fill(&mut first);
        first
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyFile(…)")
    }
}

/// What is written on paper when a repository is made, for the day when all else is lost.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RecoveryKey([u8; 20]);

/// Crockford's base 32: no I, L, O or U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Five bits each: 160 of the key and 20 of checksum.
const CHARACTERS: usize = 36;

impl RecoveryKey {
    /// A new one.
    pub fn generate(env: &Env) -> Result<RecoveryKey, Error> {
        let mut key = RecoveryKey([0; 20]);
        env.random(&mut key.0)?;
        Ok(key)
    }

    /// Reads what somebody typed: case, white space and dashes do not matter, and letters that look like digits
    /// are taken for them. The message of a refusal repeats nothing of it.
    pub fn parse(text: &str) -> Result<RecoveryKey, Error> {
        let mut bits = Zeroizing::new([0_u8; CHARACTERS]);
        let mut count = 0;
        for character in text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '‐' | '–' | '—'))
        {
            let digit = match character.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let Some(value) = ALPHABET.iter().position(|known| char::from(*known) == digit) else {
                return Err(Error::invalid(format!(
                    "character {} of the recovery key is none that such a key has",
                    count + 1
                )));
            };
            if let Some(slot) = bits.get_mut(count) {
                *slot = value as u8;
            }
            count += 1;
        }
        if count != CHARACTERS {
            return Err(Error::invalid(format!("a recovery key has {CHARACTERS} characters, not {count}")));
        }
        let mut key = RecoveryKey([0; 20]);
        let mut check = 0_u32;
        for (at, five) in bits.iter().enumerate() {
            for bit in 0..5 {
                let (place, one) = (at * 5 + bit, five >> (4 - bit) & 1);
                match key.0.get_mut(place / 8) {
                    Some(byte) => *byte |= one << (7 - place % 8),
                    None => check = check << 1 | u32::from(one),
                }
            }
        }
        if check != key.checksum() {
            return Err(Error::invalid(
                "the checksum of the recovery key does not fit: a character is wrong or two are swapped",
            ));
        }
        Ok(key)
    }

    /// Nine groups of four.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(CHARACTERS + 8));
        let check = self.checksum();
        for at in 0..CHARACTERS {
            if at > 0 && at % 4 == 0 {
                text.push('-');
            }
            let mut five = 0;
            for place in at * 5..at * 5 + 5 {
                let one = match self.0.get(place / 8) {
                    Some(byte) => byte >> (7 - place % 8) & 1,
                    None => (check >> (179 - place) & 1) as u8,
                };
                five = five << 1 | one;
            }
            text.push(char::from(ALPHABET[usize::from(five)]));
        }
        text
    }

    /// 20 bits.
    fn checksum(&self) -> u32 {
        let mut first = [0; 4];
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"holdfast recovery key 1").update(&self.0).finalize_xof().fill(&mut first);
        u32::from_be_bytes(first) >> 12
    }

    pub(crate) fn bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKey(…)")
    }
}

/// A key that somebody else keeps and that encrypts a small key of ours: a Kubernetes KMS v2 plugin.
pub trait KeyWrap: Send + Sync {
    /// What it is called in messages: its address.
    fn name(&self) -> String;

    /// Which key it encrypts with now. An error if it is not there or not well.
    fn key_id(&self) -> Result<String, WrapError>;

    /// Encrypts.
    fn wrap(&self, plain: &[u8]) -> Result<WrappedKey, WrapError>;

    /// Decrypts what it encrypted.
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, WrapError>;
}

/// What a plugin made of a key, and wants back to undo it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which of its keys it used.
    pub key_id: String,
    /// The ciphertext.
    pub ciphertext: Vec<u8>,
    /// What else it wants back.
    pub annotations: BTreeMap<String, Vec<u8>>,
}

impl WrappedKey {
    /// The bounds that Kubernetes holds a plugin to; a key object must not exceed them either.
    pub fn check(&self) -> Result<(), String> {
        let annotations: usize = self.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.key_id.is_empty() || self.key_id.len() > 1024 {
            return Err(format!("a key_id of {} bytes (1 to 1024 are allowed)", self.key_id.len()));
        }
        if self.ciphertext.is_empty() || self.ciphertext.len() > 1024 {
            return Err(format!("a ciphertext of {} bytes (1 to 1024 are allowed)", self.ciphertext.len()));
        }
        if annotations > 32 * 1024 {
            return Err(format!("annotations of {annotations} bytes (32 KiB are allowed)"));
        }
        Ok(())
    }
}

/// Why a plugin did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WrapError {
    /// It is not there, does not answer, or says that it is not well.
    #[error("{0}")]
    Unavailable(String),
    /// It answered, and the answer is no: another key, or changed bytes.
    #[error("{0}")]
    Refused(String),
}

/// What opens a repository, or will open a new key.
#[derive(Clone, Copy)]
pub enum Unlock<'k> {
    /// A passphrase.
    Passphrase(&'k Passphrase),
    /// A key file.
    KeyFile(&'k KeyFile),
    /// The recovery key.
    RecoveryKey(&'k RecoveryKey),
    /// A KMS plugin.
    Plugin(&'k dyn KeyWrap),
    /// The keys themselves. Opens, and makes no key object.
    Bundle(&'k Bundle),
}

impl std::fmt::Debug for Unlock<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unlock({})", crate::keys::KeyKind::of(*self))
    }
}

impl<'k> From<&'k Passphrase> for Unlock<'k> {
    fn from(passphrase: &'k Passphrase) -> Unlock<'k> {
        Unlock::Passphrase(passphrase)
    }
}

impl<'k> From<&'k KeyFile> for Unlock<'k> {
    fn from(file: &'k KeyFile) -> Unlock<'k> {
        Unlock::KeyFile(file)
    }
}

impl<'k> From<&'k RecoveryKey> for Unlock<'k> {
    fn from(key: &'k RecoveryKey) -> Unlock<'k> {
        Unlock::RecoveryKey(key)
    }
}

impl<'k> From<&'k Bundle> for Unlock<'k> {
    fn from(bundle: &'k Bundle) -> Unlock<'k> {
        Unlock::Bundle(bundle)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The texts are part of the format.
    #[test]
    fn the_texts_of_fixed_keys_are_fixed() {
        assert_eq!(
            *KeyFile([0x5a; 32]).to_text(),
            format!("holdfast-key-file-1-{}-{KEY_FILE_CHECK}\n", "5a".repeat(32))
        );
        assert_eq!(*RecoveryKey([0xc7; 20]).to_text(), RECOVERY_TEXT);
    }

    const KEY_FILE_CHECK: &str = "61ca8ccf";
    const RECOVERY_TEXT: &str = "RZ3W-FHY7-RZ3W-FHY7-RZ3W-FHY7-RZ3W-FHY7-HNCZ";

    #[test]
    fn a_recovery_key_is_read_as_people_type_it() {
        let key = RecoveryKey::generate(&Env::fixed(1, 3)).unwrap();
        let text = key.to_text();
        let same = |typed: &str| RecoveryKey::parse(typed).unwrap().0 == key.0;
        assert!(same(&text) && same(&text.to_lowercase()) && same(&format!("  {}\r\n", *text)));
        assert!(same(&text.replace('-', "")) && same(&text.replace('-', " – ")));
        assert!(same(&text.replace('0', "o").replace('1', "l")) && same(&text.replace('1', "I")));
        for (typed, message) in [
            ("", "36 characters, not 0"),
            (&text[1..], "36 characters, not 35"),
            (&format!("{}0", *text), "36 characters, not 37"),
            (&text.replacen(|c: char| c != '-', "U", 1), "character 1"),
        ] {
            let refused = RecoveryKey::parse(typed).unwrap_err().to_string();
            assert!(refused.contains(message), "{typed}: {refused}");
        }
        // Whatever single character is mistyped, or neighbours swapped: told before anything is tried.
        let plain: Vec<char> = text.replace('-', "").chars().collect();
        for at in 0..plain.len() {
            for other in ALPHABET.iter().map(|c| char::from(*c)).filter(|c| *c != plain[at]) {
                let mut typed = plain.clone();
                typed[at] = other;
                let refused = RecoveryKey::parse(&typed.iter().collect::<String>()).unwrap_err().to_string();
                assert!(refused.contains("checksum"), "{refused}");
            }
            if at > 0 && plain[at - 1] != plain[at] {
                let mut typed = plain.clone();
                typed.swap(at - 1, at);
                assert!(RecoveryKey::parse(&typed.iter().collect::<String>()).is_err());
            }
        }
    }

    #[test]
    fn a_key_file_is_read_back_and_whatever_is_changed_is_told() {
        let key = KeyFile::generate(&Env::fixed(1, 4)).unwrap();
        let text = key.to_text();
        assert!(KeyFile::parse(text.as_bytes()).unwrap().0 == key.0);
        assert!(KeyFile::parse(format!("\n {}\t", text.trim()).as_bytes()).unwrap().0 == key.0);
        for at in 0..text.len() - 1 {
            let mut changed = text.as_bytes().to_vec();
            changed[at] ^= 1;
            assert!(KeyFile::parse(&changed).is_err());
            assert!(KeyFile::parse(&text.as_bytes()[..at]).is_err());
        }
        let shouted = text.to_uppercase().replace("HOLDFAST-KEY-FILE", "holdfast-key-file");
        for (other, message) in
            [("correct horse", "no key file"), ("", "no key file"), (shouted.as_str(), "damaged")]
        {
            let refused = KeyFile::parse(other.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(message), "{refused}");
        }
    }

    #[test]
    fn no_secret_is_printed() {
        let (file, recovery) = (KeyFile([0x5a; 32]), RecoveryKey([0x5a; 20]));
        assert_eq!(format!("{file:?} {:?}", Unlock::from(&file)), "KeyFile(…) Unlock(key file)");
        assert_eq!(
            format!("{recovery:?} {:?}", Unlock::from(&recovery)),
            "RecoveryKey(…) Unlock(recovery key)"
        );
        let words = Passphrase::new("secret");
        assert_eq!(format!("{words:?} {:?}", Unlock::from(&words)), "Passphrase(…) Unlock(passphrase)");
    }

    proptest! {
        #[test]
        fn both_texts_stand_for_their_keys(file: [u8; 32], recovery: [u8; 20]) {
            prop_assert_eq!(KeyFile::parse(KeyFile(file).to_text().as_bytes()).unwrap().0, file);
            prop_assert_eq!(RecoveryKey::parse(&RecoveryKey(recovery).to_text()).unwrap().0, recovery);
        }

        #[test]
        fn hostile_texts_are_refused(text in "\\PC{0,100}", groups in "[0-9A-Z -]{30,50}") {
            prop_assert!(KeyFile::parse(text.as_bytes()).is_err());
            prop_assert!(RecoveryKey::parse(&text).is_err());
            if let Ok(key) = RecoveryKey::parse(&groups) {
                prop_assert!(RecoveryKey::parse(&key.to_text()).unwrap().0 == key.0);
            }
        }
    }
}
