//! The stack machine behind [`Pickle::parse`], for every protocol from 0 to 5.

use std::collections::HashMap;

use super::pickle::{Global, Id, Node, Pickle, PickleError, Result, global};

/// Operations accepted in one pickle, each of which makes at most one object; pairs copied from one object to another
/// count as well. A state dict of 1,000 tensors needs about 40,000.
const MAX_OPERATIONS: usize = 1_000_000;

pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
    /// Pairs copied so far.
    copied: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        let (nodes, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        Machine { input, at: 0, nodes, stack, marks, memo, copied: 0 }
    }

    pub(super) fn run(mut self) -> Result<Pickle> {
        for _ in 0..MAX_OPERATIONS {
            let op = self.byte()?;
            if op == b'.' {
                let root = self.pop()?;
                return Ok(Pickle { nodes: self.nodes, root, length: self.at });
            }
            self.step(op)?;
        }
        Err(PickleError::Damaged("too many operations"))
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.input.len());
        let end = end.ok_or(PickleError::Damaged("it ends early"))?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    /// A little-endian unsigned number of `width` bytes.
    fn number(&mut self, width: usize) -> Result<usize> {
        let value = self.bytes(width)?.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        usize::try_from(value).map_err(|_| PickleError::Damaged("a length is too large"))
    }

    /// Bytes preceded by their count in `width` bytes.
    fn counted(&mut self, width: usize) -> Result<&'a [u8]> {
        let count = self.number(width)?;
        self.bytes(count)
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.input[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or(PickleError::Damaged("it ends early"))?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn text_line(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.line()?).trim_end_matches('\r').to_string())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    /// The lowest stack height that may be popped to: values below a mark belong to an enclosing object.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id> {
        if self.stack.len() <= self.floor() {
            return Err(PickleError::Damaged("stack underflow"));
        }
        self.stack.pop().ok_or(PickleError::Damaged("stack underflow"))
    }

    fn top(&self) -> Result<Id> {
        if self.stack.len() <= self.floor() {
            return Err(PickleError::Damaged("stack underflow"));
        }
        self.stack.last().copied().ok_or(PickleError::Damaged("stack underflow"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or(PickleError::Damaged("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        items.reverse();
        Ok(items)
    }

    fn step(&mut self, op: u8) -> Result<()> {
        match op {
            0x80 => self.byte().map(|_| ()),
            0x95 => self.bytes(8).map(|_| ()),
            b'c' | b'i' | b'o' | 0x81 | 0x92 | 0x93 | b'R' | b'b' | 0x82..=0x84 => self.step_names(op),
            b'(' | b'0' | b'1' | b'2' | b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' | b'P' | b'Q' => {
                self.step_stack(op)
            }
            b't' | b'l' | b'd' | b')' | b']' | b'}' | 0x85..=0x87 | b'a' | b'e' | b's' | b'u' | 0x8f..=0x91 => {
                self.step_containers(op)
            }
            _ => self.step_scalars(op),
        }
    }

    /// Names and what is done with them: the only place where a file could ask for something to be run.
    fn step_names(&mut self, op: u8) -> Result<()> {
        match op {
            b'c' | b'i' => {
                let (module, name) = (self.text_line()?, self.text_line()?);
                let found = global(&module, &name)?;
                if op == b'i' {
                    return Err(PickleError::Damaged("INST"));
                }
                self.push(Node::Global(found));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Str(module), Node::Str(name)) = (&self.nodes[module], &self.nodes[name]) else {
                    return Err(PickleError::Damaged("a name is not text"));
                };
                let found = global(module, name)?;
                self.push(Node::Global(found));
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments)?;
            }
            b'b' => {
                // A state dict carries its version numbers (`_metadata`) this way; nothing else has a state.
                self.pop()?;
                let target = self.top()?;
                if !matches!(self.nodes[target], Node::Dict(_)) {
                    return Err(PickleError::Damaged("BUILD of something that is not a dict"));
                }
            }
            0x82..=0x84 => return Err(PickleError::Foreign("copyreg extension registry".into())),
            _ => return Err(PickleError::Damaged("OBJ or NEWOBJ_EX")),
        }
        Ok(())
    }

    fn call(&mut self, callable: Id, arguments: Id) -> Result<()> {
        let Node::Global(callable) = self.nodes[callable] else {
            return Err(PickleError::Damaged("a call of something that is not a name"));
        };
        let Node::Tuple(arguments) = &self.nodes[arguments] else {
            return Err(PickleError::Damaged("a call without a tuple of arguments"));
        };
        match (callable, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.push(Node::Dict(Vec::new())),
            (Global::OrderedDict, &[pairs]) => {
                // Python 2 passes the items as a list of lists of two.
                self.copied = self.copied.saturating_add(self.items(pairs).map_or(0, <[Id]>::len));
                if self.copied > MAX_OPERATIONS {
                    return Err(PickleError::Damaged("it copies the same items over and over"));
                }
                let pairs = self.pairs(pairs).ok_or(PickleError::Damaged("OrderedDict of something strange"))?;
                self.push(Node::Dict(pairs));
            }
            (Global::RebuildTensor, &[storage, offset, size, stride, ..]) => {
                self.push(Node::Tensor { storage, offset, size, stride });
            }
            (Global::RebuildParameter, &[tensor, ..]) => self.stack.push(tensor),
            (Global::Size, &[dimensions]) => self.stack.push(dimensions),
            _ => return Err(PickleError::Damaged("a call with other arguments than PyTorch's")),
        }
        Ok(())
    }

    fn items(&self, id: Id) -> Option<&[Id]> {
        match &self.nodes[id] {
            Node::List(items) | Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn pairs(&self, list: Id) -> Option<Vec<(Id, Id)>> {
        let pair = |&id| <[Id; 2]>::try_from(self.items(id)?).ok().map(|[key, value]| (key, value));
        self.items(list)?.iter().map(pair).collect()
    }

    fn step_stack(&mut self, op: u8) -> Result<()> {
        match op {
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => self.stack.push(self.top()?),
            b'p' | b'q' | b'r' | 0x94 => {
                let slot = match op {
                    b'p' => self.index_line()?,
                    b'q' => self.number(1)?,
                    b'r' => self.number(4)?,
                    _ => self.memo.len(),
                };
                self.memo.insert(slot, self.top()?);
            }
            b'g' | b'h' | b'j' => {
                let slot = match op {
                    b'g' => self.index_line()?,
                    b'h' => self.number(1)?,
                    _ => self.number(4)?,
                };
                self.stack.push(*self.memo.get(&slot).ok_or(PickleError::Damaged("an unknown memo"))?);
            }
            b'P' => {
                let text = self.text_line()?;
                self.push(Node::Str(text));
                let id = self.pop()?;
                self.push(Node::Persistent(id));
            }
            _ => {
                let id = self.pop()?;
                self.push(Node::Persistent(id));
            }
        }
        Ok(())
    }

    fn index_line(&mut self) -> Result<usize> {
        self.text_line()?.parse().map_err(|_| PickleError::Damaged("an index is not a number"))
    }

    fn step_containers(&mut self, op: u8) -> Result<()> {
        match op {
            b')' => self.push(Node::Tuple(Vec::new())),
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            0x8f => self.push(Node::Other),
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(op - 0x84))?;
                self.push(Node::Tuple(items));
            }
            b't' | b'l' => {
                let items = self.pop_to_mark()?;
                self.push(if op == b't' { Node::Tuple(items) } else { Node::List(items) });
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(Vec::new()));
                self.set_items(&items)?;
            }
            0x90 | 0x91 => {
                self.pop_to_mark()?;
                if op == 0x91 {
                    self.push(Node::Other);
                }
            }
            b'a' | b'e' => {
                let items = if op == b'a' { vec![self.pop()?] } else { self.pop_to_mark()? };
                let list = self.top()?;
                match &mut self.nodes[list] {
                    Node::List(list) => list.extend(items),
                    _ => return Err(PickleError::Damaged("an append to something that is not a list")),
                }
            }
            _ => {
                let items = if op == b's' { self.pop_many(2)? } else { self.pop_to_mark()? };
                self.set_items(&items)?;
            }
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let (pairs, odd) = items.as_chunks::<2>();
        let dict = self.top()?;
        match &mut self.nodes[dict] {
            Node::Dict(dict) if odd.is_empty() => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(PickleError::Damaged("items set on something that is not a dict")),
        }
        Ok(())
    }

    fn step_scalars(&mut self, op: u8) -> Result<()> {
        let node = match op {
            b'N' => Node::Other,
            0x88 | 0x89 => Node::Bool(op == 0x88),
            b'G' => self.bytes(8).map(|_| Node::Other)?,
            b'F' => self.line().map(|_| Node::Other)?,
            b'K' => Node::Int(self.byte()?.into()),
            b'M' => Node::Int(self.number(2)? as i128),
            b'J' => Node::Int(i128::from(self.number(4)? as u32 as i32)),
            b'I' | b'L' => {
                let text = self.text_line()?;
                match (op, text.as_str()) {
                    (b'I', "00" | "01") => Node::Bool(text == "01"),
                    _ => Node::Int(text.trim_end_matches('L').parse().map_err(|_| PickleError::Damaged("a number"))?),
                }
            }
            0x8a => long(self.counted(1)?)?,
            0x8b => long(self.counted(4)?)?,
            b'U' | 0x8c => text(self.counted(1)?),
            b'T' | b'X' => text(self.counted(4)?),
            0x8d => text(self.counted(8)?),
            b'V' => text(self.line()?),
            b'S' => quoted(self.line()?),
            b'C' => self.counted(1).map(|_| Node::Other)?,
            b'B' => self.counted(4).map(|_| Node::Other)?,
            0x8e | 0x96 => self.counted(8).map(|_| Node::Other)?,
            _ => return Err(PickleError::Damaged("an unknown operation")),
        };
        self.push(node);
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Node {
    Node::Str(String::from_utf8_lossy(bytes).into_owned())
}

/// Text between quotes, as protocol 0 writes it; names and keys hold nothing that needs escapes.
fn quoted(line: &[u8]) -> Node {
    let line = line.trim_ascii_end();
    text(line.get(1..line.len().max(2) - 1).unwrap_or_default())
}

/// A two's complement number of up to 16 bytes, little-endian.
fn long(bytes: &[u8]) -> Result<Node> {
    if bytes.len() > 16 {
        return Err(PickleError::Damaged("a number is too large"));
    }
    let fill = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
    let mut wide = [fill; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    Ok(Node::Int(i128::from_le_bytes(wide)))
}
