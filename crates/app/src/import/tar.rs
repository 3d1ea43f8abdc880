//! Reads the files of a tar archive, one after the other, as the common writers write them: ustar, with the long names
//! of POSIX (pax) and of GNU. Anything else in it (links, devices) is passed over.
//!
//! A name in an archive is text and nothing more: nothing is ever written to where it points.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// A name is not longer than this, whatever a header says.
const NAME_MAX: u64 = 64 << 10;

/// One file.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name in the archive.
    pub(super) name: String,
    /// Its content; none if it is larger than the limit, and then it was passed over.
    pub(super) content: Option<Vec<u8>>,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// The files of an archive.
#[derive(Debug)]
pub(super) struct Archive<R> {
    from: R,
    /// Larger files are passed over.
    content_max: u64,
}

impl<R: Read> Archive<R> {
    /// An archive that is read from its beginning.
    pub(super) fn new(from: R, content_max: u64) -> Self {
        Self { from, content_max }
    }

    /// The next file, or none at the end.
    ///
    /// # Errors
    /// If it cannot be read, ends in the middle, or is no archive.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut long_name: Option<String> = None;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(field(&header, 124, 12))?;
            match header.get(156).copied().unwrap_or(0) {
                // A file; very old writers say so with a zero byte.
                b'0' | 0 => {
                    let name = long_name.take().unwrap_or_else(|| name_of(&header));
                    let content = if size <= self.content_max {
                        Some(self.content(size)?)
                    } else {
                        self.pass(size)?;
                        None
                    };
                    return Ok(Some(Entry { name, content, size }));
                }
                b'L' => long_name = Some(text(&self.small(size)?)),
                b'x' => long_name = pax_path(&self.small(size)?).or(long_name),
                _ => {
                    self.pass(size)?;
                    long_name = None;
                }
            }
        }
    }

    /// The next header; none at the two blocks of zeros, or where the file ends without them.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut header = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.from.read(header.get_mut(filled..).unwrap_or_default())? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(*byte) })
            .sum();
        if number(field(&header, 148, 8))? != sum {
            return Err(broken("a header's checksum is wrong: it is damaged, or no tar archive"));
        }
        Ok(Some(header))
    }

    fn content(&mut self, size: u64) -> io::Result<Vec<u8>> {
        // Grown as it is read: a size in a damaged header is not believed.
        let mut content = Vec::new();
        if (&mut self.from).take(size).read_to_end(&mut content)? as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pass_bytes(padding(size))?;
        Ok(content)
    }

    fn small(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > NAME_MAX {
            return Err(broken("a name is longer than names are"));
        }
        self.content(size)
    }

    fn pass(&mut self, size: u64) -> io::Result<()> {
        self.pass_bytes(size)?;
        self.pass_bytes(padding(size))
    }

    fn pass_bytes(&mut self, bytes: u64) -> io::Result<()> {
        if io::copy(&mut (&mut self.from).take(bytes), &mut io::sink())? != bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn field(header: &[u8; BLOCK], at: usize, len: usize) -> &[u8] {
    header.get(at..at + len).unwrap_or_default()
}

/// An octal number, or GNU's binary one for what is too large for that.
fn number(bytes: &[u8]) -> io::Result<u64> {
    if let Some((first, rest)) = bytes.split_first()
        && *first == 0x80
    {
        return rest
            .iter()
            .try_fold(0_u64, |number, byte| number.checked_mul(256)?.checked_add(u64::from(*byte)))
            .ok_or_else(|| broken("a size is larger than files are"));
    }
    let digits = text(bytes);
    let digits = digits.trim_matches([' ', '\0']);
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).map_err(|_| broken("a header's number is none"))
}

/// Up to the first zero byte.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn name_of(header: &[u8; BLOCK]) -> String {
    let name = text(field(header, 0, 100));
    let prefix =
        if field(header, 257, 5) == b"ustar" { text(field(header, 345, 155)) } else { String::new() };
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

/// `path` of pax records: `LENGTH KEY=VALUE\n`, where the length counts all of it.
fn pax_path(records: &[u8]) -> Option<String> {
    let mut rest = records;
    let mut path = None;
    while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(rest.get(..space)?).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length)?;
        if let Some(value) = record.strip_prefix(b"path=") {
            path = Some(String::from_utf8_lossy(value.strip_suffix(b"\n").unwrap_or(value)).into_owned());
        }
        rest = rest.get(length..)?;
    }
    path
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header as writers write it.
    pub(in crate::import) fn header(name: &str, size: usize, kind: u8) -> Vec<u8> {
        let mut header = vec![0; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[148..156].copy_from_slice(b"        ");
        header[156] = kind;
        header[257..263].copy_from_slice(b"ustar\0");
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }

    /// A file with its header and padding; a long name goes before it as pax does.
    pub(in crate::import) fn file(name: &str, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if name.len() > 100 {
            let body = format!(" path={name}\n");
            let mut length = body.len() + 1;
            while length != body.len() + length.to_string().len() {
                length = body.len() + length.to_string().len();
            }
            let record = format!("{length}{body}");
            out.extend(part("pax", record.as_bytes(), b'x'));
        }
        out.extend(part(&name[..name.len().min(100)], content, b'0'));
        out
    }

    fn part(name: &str, content: &[u8], kind: u8) -> Vec<u8> {
        let mut out = header(name, content.len(), kind);
        out.extend(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    fn all(bytes: &[u8]) -> io::Result<Vec<(String, Option<String>)>> {
        let mut archive = Archive::new(bytes, 1000);
        let mut found = Vec::new();
        while let Some(entry) = archive.next()? {
            found.push((entry.name, entry.content.map(|content| String::from_utf8(content).unwrap())));
        }
        Ok(found)
    }

    #[test]
    fn files_are_read_with_names_of_any_length_and_the_rest_is_passed_over() {
        let long = format!("resources/{}/a.json", "x".repeat(200));
        let mut bytes = file("a", b"one");
        bytes.extend(header("folder/", 0, b'5'));
        bytes.extend(file(&long, b"two"));
        bytes.extend(part("././@LongLink", format!("{long}2\0").as_bytes(), b'L'));
        bytes.extend(part("cut", b"three", b'0'));
        bytes.extend(file("large", &[b'x'; 1001]));
        bytes.extend(file("b", b""));
        bytes.extend([0; 1024]);
        let text = |text: &str| Some(text.to_owned());
        let want = [
            ("a".to_owned(), text("one")),
            (long.clone(), text("two")),
            (format!("{long}2"), text("three")),
            ("large".to_owned(), None),
            ("b".to_owned(), text("")),
        ];
        assert_eq!(all(&bytes).unwrap(), want);
        assert_eq!(all(&bytes[..bytes.len() - 1024]).unwrap().len(), 5, "the end may be missing");
        assert_eq!(all(&bytes[..700]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        bytes[130] ^= 1;
        assert!(all(&bytes).unwrap_err().to_string().contains("checksum"));
        assert!(all(&[7; 600]).is_err());
    }
}
