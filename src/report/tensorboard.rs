//! TensorBoard event files, written by hand.
//!
//! A file is a row of records (tensorflow/core/lib/io/record_writer.h), little-endian:
//!
//!     u64 length · u32 masked CRC-32C of it · data · u32 masked CRC-32C of the data
//!
//! and each record's data is an `Event` message (tensorflow/core/util/event.proto, summary.proto) in protobuf's wire
//! format. Only the fields below are written, so the encoder is a page and not a dependency.

use std::fs::{File, create_dir_all};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Event: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
const WALL_TIME: u32 = 1;
const STEP: u32 = 2;
const FILE_VERSION: u32 = 3;
const SUMMARY: u32 = 5;
const SESSION_LOG: u32 = 7;

/// Writes one event file; what a step adds is in the file when the call returns.
pub struct EventWriter {
    file: File,
}

impl EventWriter {
    /// Starts a file in `folder` for a run that continues after `step` updates.
    ///
    /// TensorBoard then drops what an interrupted run had written beyond `step`.
    pub fn create(folder: &Path, step: u64) -> io::Result<EventWriter> {
        create_dir_all(folder)?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let now = wall_time();
        let name = format!("events.out.tfevents.{:010}.{host}.{}.{step}", now as u64, std::process::id());
        let mut writer = EventWriter { file: File::create(folder.join(name))? };
        let mut version = Message::default();
        version.double(WALL_TIME, now);
        version.bytes(FILE_VERSION, b"brain.Event:2");
        writer.record(&version)?;
        let mut start = Message::default();
        start.varint(1, 1); // SessionLog.status = START
        writer.event(step + 1, SESSION_LOG, &start)?;
        Ok(writer)
    }

    /// Adds scalars of a step, by tag.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Message::default();
        for (tag, scalar) in scalars {
            let mut value = Message::default();
            value.bytes(1, tag.as_bytes());
            value.float(2, *scalar as f32);
            summary.bytes(1, &value.0);
        }
        self.event(step, SUMMARY, &summary)
    }

    /// Adds a PNG picture of `width` × `height` RGB pixels.
    pub fn image(&mut self, step: u64, tag: &str, (width, height): (u32, u32), png: &[u8]) -> io::Result<()> {
        let mut image = Message::default();
        image.varint(1, u64::from(height));
        image.varint(2, u64::from(width));
        image.varint(3, 3); // RGB
        image.bytes(4, png);
        let mut value = Message::default();
        value.bytes(1, tag.as_bytes());
        value.bytes(4, &image.0);
        let mut summary = Message::default();
        summary.bytes(1, &value.0);
        self.event(step, SUMMARY, &summary)
    }

    fn event(&mut self, step: u64, field: u32, content: &Message) -> io::Result<()> {
        let mut event = Message::default();
        event.double(WALL_TIME, wall_time());
        event.varint(STEP, step);
        event.bytes(field, &content.0);
        self.record(&event)
    }

    fn record(&mut self, message: &Message) -> io::Result<()> {
        let length = (message.0.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(message.0.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&message.0);
        record.extend(masked_crc(&message.0).to_le_bytes());
        self.file.write_all(&record)
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A protobuf message in the making: fields one after the other.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u32, wire_type: u32) {
        self.raw_varint(u64::from((field << 3) | wire_type));
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u32, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u32, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }
}

/// CRC-32C, rotated and offset, so that a checksum of data that holds checksums stays a good one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: event files are small.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_has_the_published_check_values() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283); // the catalogue's check value
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa); // RFC 3720, B.4
    }

    #[test]
    fn varints_are_little_endian_groups_of_seven_bits() {
        let mut message = Message::default();
        message.varint(2, 300);
        assert_eq!(message.0, [0x10, 0xac, 0x02]);
    }
}
