//! Writes a state dict as `torch.save` does, so that `torch.load(weights_only=True)` and the reference read it: a zip
//! archive of uncompressed entries, each aligned to 64 bytes as PyTorch's own reader likes them for memory maps.

use std::io::{self, Write};

use tch::{Kind, Tensor};

const ALIGNMENT: usize = 64;
/// The folder inside the archive; PyTorch takes any.
const ROOT: &str = "archive";
/// 1980-01-01, the earliest that zip knows, so that equal weights make equal files.
const DATE: u16 = 0x0021;

/// Writes named tensors as a .pth file, in the order given. Making it durable is the caller's.
pub fn write_pth(tensors: &[(String, Tensor)], out: &mut impl Write) -> io::Result<()> {
    let mut archive = Archive { out, at: 0, directory: Vec::new(), count: 0 };
    archive.entry("data.pkl", &pickle(tensors)?)?;
    archive.entry("byteorder", b"little")?;
    for (index, (_, tensor)) in tensors.iter().enumerate() {
        archive.entry(&format!("data/{index}"), &super::bytes(tensor).map_err(io::Error::other)?)?;
    }
    archive.entry("version", b"3\n")?;
    archive.finish()
}

/// An OrderedDict of tensors, protocol 2; tensor i is a view of the whole of storage i.
fn pickle(tensors: &[(String, Tensor)]) -> io::Result<Vec<u8>> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{}Storage\n", storage_name(tensor.kind())?).bytes());
        text(&mut out, &index.to_string());
        text(&mut out, "cpu");
        number(&mut out, tensor.numel() as i64);
        out.extend(b"tQ");
        number(&mut out, 0);
        let size = tensor.size();
        numbers(&mut out, &size);
        // Row-major, whatever the tensor's own order: its bytes are written that way.
        let stride: Vec<i64> =
            (1..=size.len()).map(|axis| size[axis..].iter().map(|&size| size.max(1)).product()).collect();
        numbers(&mut out, &stride);
        // No gradient; no backward hooks.
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    Ok(out)
}

fn storage_name(kind: Kind) -> io::Result<&'static str> {
    Ok(match kind {
        Kind::Float => "Float",
        Kind::Double => "Double",
        Kind::Half => "Half",
        Kind::BFloat16 => "BFloat16",
        Kind::Int64 => "Long",
        Kind::Int => "Int",
        Kind::Int16 => "Short",
        Kind::Int8 => "Char",
        Kind::Uint8 => "Byte",
        Kind::Bool => "Bool",
        other => return Err(io::Error::other(format!("a .pth file cannot hold {other:?}"))),
    })
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

/// Eight bytes with their sign: LONG1.
fn number(out: &mut Vec<u8>, value: i64) {
    out.extend([0x8a, 8]);
    out.extend(value.to_le_bytes());
}

fn numbers(out: &mut Vec<u8>, values: &[i64]) {
    out.push(b'(');
    values.iter().for_each(|&value| number(out, value));
    out.push(b't');
}

struct Archive<'a, W: Write> {
    out: &'a mut W,
    at: usize,
    directory: Vec<u8>,
    count: u16,
}

impl<W: Write> Archive<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len();
        self.out.write_all(bytes)
    }

    fn entry(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let name = format!("{ROOT}/{name}");
        // The extra field "FB" is PyTorch's own way to fill up to the alignment.
        let filled = self.at + 30 + name.len() + 4;
        let padding = filled.next_multiple_of(ALIGNMENT) - filled;
        let offset = small(self.at)?;
        // Version needed 2.0, no flags, stored, time, date, CRC, packed size, size, name's length.
        let mut header = [20u16, 0, 0, 0, DATE].iter().flat_map(|field| field.to_le_bytes()).collect::<Vec<u8>>();
        header.extend(crc32fast::hash(content).to_le_bytes());
        header.extend(small(content.len())?.to_le_bytes().repeat(2));
        header.extend((name.len() as u16).to_le_bytes());

        self.put(b"PK\x03\x04")?;
        self.put(&header)?;
        self.put(&(padding as u16 + 4).to_le_bytes())?;
        self.put(name.as_bytes())?;
        self.put(b"FB")?;
        self.put(&(padding as u16).to_le_bytes())?;
        self.put(&vec![b'Z'; padding])?;
        self.put(content)?;

        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(header);
        // No extra field, comment, disk number, attributes.
        self.directory.extend([0; 12]);
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.bytes());
        self.count = self.count.checked_add(1).ok_or_else(|| io::Error::other("too many tensors for a .pth file"))?;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let (start, size) = (small(self.at)?, small(self.directory.len())?);
        let directory = std::mem::take(&mut self.directory);
        self.put(&directory)?;
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        end.extend(self.count.to_le_bytes().repeat(2));
        end.extend(size.to_le_bytes());
        end.extend(start.to_le_bytes());
        end.extend([0; 2]);
        self.put(&end)
    }
}

/// Zip's 32-bit sizes are enough for every network here.
fn small(size: usize) -> io::Result<u32> {
    u32::try_from(size)
        .ok()
        .filter(|&size| size < u32::MAX)
        .ok_or_else(|| io::Error::other("a .pth file of more than 4 GiB is not supported"))
}
