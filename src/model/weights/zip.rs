//! Zip archives as PyTorch writes them: found through the central directory, every entry's CRC-32 checked when read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;

/// Where an entry lies.
struct Member {
    /// Of the local header.
    offset: usize,
    packed: usize,
    size: usize,
    crc: u32,
    deflated: bool,
}

/// The entries of an archive by name.
pub struct Archive<'a> {
    input: &'a [u8],
    members: BTreeMap<String, Member>,
}

const END: [u8; 4] = *b"PK\x05\x06";
const END64_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const END64: [u8; 4] = *b"PK\x06\x06";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// Larger archives keep their sizes in an extra field with this tag.
const ZIP64_TAG: u64 = 1;

type Result<T> = std::result::Result<T, &'static str>;

impl<'a> Archive<'a> {
    /// Reads the central directory; what is wrong with the archive otherwise.
    pub fn open(input: &'a [u8]) -> Result<Self> {
        // The end record is followed by a comment of at most 64 KiB.
        let first = input.len().saturating_sub(22 + 0xffff);
        let tail = &input[first..];
        let end = tail
            .windows(4)
            .rposition(|window| window == END)
            .ok_or("its end is missing, it was cut or is still being written")?;
        let end = first + end;
        // Its last field is the comment's length.
        slice(input, end, 22 + size(input, end + 20, 2)?)?;
        let (mut count, mut at) = (number(input, end + 10, 2)?, size(input, end + 16, 4)?);
        if let Some(locator) = end.checked_sub(20).filter(|&at| input[at..].starts_with(&END64_LOCATOR)) {
            let end64 = size(input, locator + 8, 8)?;
            if !input.get(end64..).is_some_and(|rest| rest.starts_with(&END64)) {
                return Err("its end record is damaged");
            }
            (count, at) = (number(input, end64 + 32, 8)?, size(input, end64 + 48, 8)?);
        }
        let mut members = BTreeMap::new();
        for _ in 0..count {
            let (name, member, next) = central_entry(input, at)?;
            if members.insert(name, member).is_some() {
                return Err("it holds two entries of one name");
            }
            at = next;
        }
        Ok(Archive { input, members })
    }

    /// Names of the entries, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// The content of the entry `name`, at most `limit` bytes, or None where there is none.
    pub fn read(&self, name: &str, limit: usize) -> Result<Option<Cow<'a, [u8]>>> {
        let Some(member) = self.members.get(name) else { return Ok(None) };
        let at = member.offset;
        if !self.input.get(at..).is_some_and(|rest| rest.starts_with(&LOCAL)) {
            return Err("an entry's header is damaged");
        }
        let (name_length, extra) = (size(self.input, at + 26, 2)?, size(self.input, at + 28, 2)?);
        if slice(self.input, at + 30, name_length)? != name.as_bytes() {
            return Err("an entry's name differs from the directory's");
        }
        let packed = slice(self.input, at + 30 + name_length + extra, member.packed)?;
        if member.size > limit {
            return Err("an entry is larger than anything it may hold");
        }
        let content = if member.deflated {
            let mut content = Vec::new();
            let inflater = flate2::read::DeflateDecoder::new(packed);
            inflater
                .take(member.size as u64 + 1)
                .read_to_end(&mut content)
                .map_err(|_| "an entry cannot be inflated")?;
            Cow::Owned(content)
        } else {
            Cow::Borrowed(packed)
        };
        if content.len() != member.size || crc32fast::hash(&content) != member.crc {
            return Err("an entry's checksum is wrong");
        }
        Ok(Some(content))
    }
}

/// The entry at `at` of the central directory, and where the next one starts.
fn central_entry(input: &[u8], at: usize) -> Result<(String, Member, usize)> {
    if !input.get(at..).is_some_and(|rest| rest.starts_with(&CENTRAL)) {
        return Err("its directory is damaged");
    }
    let method = number(input, at + 10, 2)?;
    let (mut packed, mut full, mut offset) =
        (number(input, at + 20, 4)?, number(input, at + 24, 4)?, number(input, at + 42, 4)?);
    let (name_length, extra_length) = (size(input, at + 28, 2)?, size(input, at + 30, 2)?);
    let name = String::from_utf8_lossy(slice(input, at + 46, name_length)?).into_owned();
    let mut extra = slice(input, at + 46 + name_length, extra_length)?;
    while extra.len() >= 4 {
        let (tag, length) = (number(extra, 0, 2)?, size(extra, 2, 2)?);
        if tag == ZIP64_TAG {
            let mut field = 4;
            for value in [&mut full, &mut packed, &mut offset] {
                if *value == 0xffff_ffff {
                    *value = number(extra, field, 8)?;
                    field += 8;
                }
            }
        }
        extra = extra.get(4 + length..).unwrap_or_default();
    }
    if !matches!(method, 0 | 8) {
        return Err("an entry is packed in an unknown way");
    }
    let whole = |value: u64| usize::try_from(value).map_err(|_| "a size is too large");
    let member = Member {
        offset: whole(offset)?,
        packed: whole(packed)?,
        size: whole(full)?,
        crc: number(input, at + 16, 4)? as u32,
        deflated: method == 8,
    };
    Ok((name, member, at + 46 + name_length + extra_length + size(input, at + 32, 2)?))
}

fn slice(input: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    at.checked_add(length).and_then(|end| input.get(at..end)).ok_or("it ends early")
}

/// The little-endian number of `width` bytes at `at`.
fn number(input: &[u8], at: usize, width: usize) -> Result<u64> {
    Ok(slice(input, at, width)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

fn size(input: &[u8], at: usize, width: usize) -> Result<usize> {
    // Kept well below usize::MAX so that adding header lengths cannot overflow.
    usize::try_from(number(input, at, width)?).ok().filter(|&size| size <= input.len()).ok_or("it ends early")
}
