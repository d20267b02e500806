//! One record's place in its shard.

/// The largest image, in pixels: what Pillow refuses as a decompression bomb.
pub const MAX_PIXELS: u64 = 178_956_970;

/// How the bytes of an image are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// JPEG, baseline or progressive.
    Jpeg = 1,
    /// PNG.
    Png = 2,
}

impl Codec {
    /// Tells the codec from the first bytes of a file.
    pub fn of(bytes: &[u8]) -> Option<Codec> {
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            Some(Codec::Jpeg)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Codec::Png)
        } else {
            None
        }
    }
}
