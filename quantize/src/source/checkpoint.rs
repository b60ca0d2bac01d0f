//! Torch zip checkpoints (`.bin`, `.pt`, `.pth`, `.ckpt`), read by a restricted pickle machine.
//!
//! A pickle is a program for a stack machine that may call any function. This machine calls nothing: the few
//! constructors torch and Lightning need are imitated on inert values, a call of anything else is an error that names
//! it, and merely naming a class (Lightning keys its callbacks by class) does nothing. Values live in an arena and refer
//! to each other by index, so neither cycles nor deep nesting can exhaust the stack or leak.
//!
//! Source: CPython's `pickletools.py`; `torch/serialization.py`, `torch/_utils.py`.

use super::{Dtype, Error, MAX_DIMS, MAX_TENSORS, Stored, TensorInfo, contiguous, plain, view_end};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;
use zip::{CompressionMethod, ZipArchive};

/// A pickle holds names and shapes; those of this model are tens of kilobytes.
const MAX_PICKLE_BYTES: u64 = 64 << 20;
/// Values that one pickle may make, and slots its stack and memo may have.
const MAX_VALUES: usize = 2 << 20;
/// Items that all its lists, tuples and dictionaries may hold together: a few bytes can copy a long list again and again.
const MAX_HELD: usize = 4 << 20;
/// Bytes of a tensor's name; far longer than any, and short enough that no name can be used to fill the memory.
const MAX_NAME_BYTES: usize = 512;
/// Dictionaries inside dictionaries that are searched for tensors.
const MAX_NESTING: usize = 8;
/// A tensor may repeat elements of its storage (stride 0) up to this many; beyond, it would be a way to ask for any amount of memory.
const MAX_REPEATED: usize = 1 << 24;

/// Where an archive's entry lies in the file.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    bytes: u64,
}

/// Opens a torch zip archive of `file_bytes` bytes and lists the tensors of its state dict. `index` is the file's place
/// in its checkpoint.
///
/// *Errors*: damaged or foreign archives, big-endian ones, pickles that call anything, views past their storage.
pub(super) fn open(path: &Path, file: File, file_bytes: u64, index: usize) -> Result<(File, Vec<Stored>), Error> {
    let bad = |what: String| Error::format(path, what);
    let zipped = |e: zip::result::ZipError| match e {
        zip::result::ZipError::Io(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => Error::io(path)(e),
        e => Error::format(path, format!("damaged zip archive: {}; is the download complete?", plain(&e.to_string()))),
    };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(zipped)?;
    if archive.has_duplicate_names() {
        return Err(bad("two entries of the archive have the same name".into()));
    }
    // Before its compressed code is complained about.
    if archive.file_names_raw().any(|n| n.ends_with(b"/constants.pkl")) {
        return Err(bad("is a TorchScript program, not a state dict".into()));
    }
    let mut entries = HashMap::new();
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(zipped)?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        if entry.is_dir() {
            continue;
        }
        if entry.encrypted() {
            return Err(bad(format!("entry {} is encrypted", plain(&name))));
        }
        if entry.compression() != CompressionMethod::Stored || entry.compressed_size() != entry.size() {
            return Err(bad(format!(
                "entry {} is compressed, which torch never does; save the file again with torch.save",
                plain(&name)
            )));
        }
        let (start, bytes) = (entry.data_start().unwrap_or(u64::MAX), entry.size());
        if start.checked_add(bytes).is_none_or(|end| end > file_bytes) {
            return Err(bad(format!("entry {} runs past the end of the file", plain(&name))));
        }
        entries.insert(name, Span { start, bytes });
    }
    let mut file = archive.into_inner().into_inner();
    let mut read = |span: Span| -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        file.seek(SeekFrom::Start(span.start))
            .and_then(|_| (&mut file).take(span.bytes).read_to_end(&mut out))
            .map_err(Error::io(path))?;
        Ok(out)
    };

    let mut pickles =
        entries.keys().filter(|n| *n == "data.pkl" || n.matches('/').count() == 1 && n.ends_with("/data.pkl"));
    let prefix = match (pickles.next(), pickles.next()) {
        (Some(one), None) => one.trim_end_matches("data.pkl").to_owned(),
        (None, _) => return Err(bad("is a zip archive but no torch checkpoint: it has no data.pkl".into())),
        (Some(a), Some(b)) => return Err(bad(format!("has two pickles, {} and {}", plain(a), plain(b)))),
    };
    if let Some(&span) = entries.get(&format!("{prefix}byteorder")) {
        let order = read(Span { bytes: span.bytes.min(16), ..span })?;
        if order.trim_ascii() != b"little" {
            return Err(bad(format!("byte order is {}, expected little", plain(&String::from_utf8_lossy(&order)))));
        }
    }
    let Some(&span) = entries.get(&format!("{prefix}data.pkl")) else { return Err(bad("has no data.pkl".into())) };
    if span.bytes > MAX_PICKLE_BYTES {
        return Err(bad(format!("its pickle is {} bytes, the limit is {MAX_PICKLE_BYTES}", span.bytes)));
    }
    let pickle = read(span)?;
    let mut machine = Machine::new(&pickle);
    let top = machine.run().map_err(|stop| match stop {
        Stop::Bad(what) => bad(format!("pickle, byte {}: {what}", machine.at)),
        Stop::Call(global) => Error::Refused { path: path.to_owned(), global },
    })?;

    let mut found = BTreeMap::new();
    machine.collect(machine.state_dict(top), "", 0, &mut 0, &mut found).map_err(bad)?;
    if found.is_empty() {
        return Err(bad("holds no tensors under names; a state dict is expected".into()));
    }
    let mut out = Vec::with_capacity(found.len());
    for (name, view) in found {
        let wrong = |found: String, expected: String| Error::Tensor {
            path: path.to_owned(),
            tensor: plain(&name),
            found,
            expected,
        };
        let key = machine.text(view.storage.key).unwrap_or_default();
        let Some(&storage) = entries.get(&format!("{prefix}data/{key}")) else {
            return Err(wrong(format!("no storage {}", plain(key)), "an entry of that name under data/".into()));
        };
        let size = view.dtype.size_bytes();
        // The pickle's own element count is only a claim; what counts is the entry.
        let have = usize::try_from(storage.bytes / size as u64).unwrap_or(usize::MAX);
        if view.storage.bytes.is_none_or(|claimed| claimed > storage.bytes) {
            return Err(wrong(
                format!("a storage of {} bytes", storage.bytes),
                "what the pickle says it has; is the download complete?".into(),
            ));
        }
        let end = view_end(&view.shape, &view.strides)
            .and_then(|n| if n == 0 { Some(0) } else { n.checked_add(view.offset) });
        if end.is_none_or(|end| end > have) {
            return Err(wrong(
                format!("shape {:?}, strides {:?} from element {}", view.shape, view.strides, view.offset),
                format!("a view inside its storage of {have} elements"),
            ));
        }
        let elements: usize = view.shape.iter().product();
        if elements > have.max(MAX_REPEATED) {
            return Err(wrong(
                format!("{elements} elements out of {have} stored ones"),
                format!("at most {MAX_REPEATED} repeated ones"),
            ));
        }
        let offset_bytes = if elements == 0 { storage.start } else { storage.start + (view.offset * size) as u64 };
        out.push(Stored {
            info: TensorInfo { name, dtype: view.dtype, shape: view.shape },
            file: index,
            offset_bytes,
            strides: view.strides,
        });
    }
    Ok((file, out))
}

/// Why the machine stopped.
#[derive(Debug)]
enum Stop {
    /// The pickle is damaged or uses something torch does not.
    Bad(String),
    /// It asked for a call of this global.
    Call(String),
}

impl<T: Into<String>> From<T> for Stop {
    fn from(what: T) -> Self {
        Self::Bad(what.into())
    }
}

/// A value on the stack: small, copyable, the bulk is in the arena.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// Something whose content is of no interest: floats, bytes, objects of harmless classes.
    Inert,
    /// Index into the arena.
    Ref(usize),
}

#[derive(Clone, Copy, Debug)]
struct Storage {
    /// Arena index of the entry's name.
    key: usize,
    /// `None` for untyped storages.
    dtype: Option<Dtype>,
    /// What the pickle claims; `None` if that overflows.
    bytes: Option<u64>,
}

#[derive(Clone, Debug)]
struct View {
    storage: Storage,
    dtype: Dtype,
    /// Elements from the start of the storage.
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

#[derive(Debug)]
enum Object {
    Text(Rc<str>),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global { module: Rc<str>, name: Rc<str> },
    Storage(Storage),
    View(Box<View>),
}

struct Machine<'a> {
    code: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    arena: Vec<Object>,
    held: usize,
}

type Step<T> = Result<T, Stop>;

impl<'a> Machine<'a> {
    fn new(code: &'a [u8]) -> Self {
        Self { code, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), arena: Vec::new(), held: 0 }
    }

    /// Runs to STOP and returns the value left.
    fn run(&mut self) -> Step<Value> {
        match self.code {
            [0x80, 2..=5, ..] => {}
            [0x80, v, ..] => return Err(format!("protocol {v}, expected 2 to 5").into()),
            _ => return Err("does not begin with a protocol from 2 to 5".into()),
        }
        loop {
            let op = self.u8()?;
            if op == b'.' {
                return self.pop();
            }
            self.step(op)?;
            if self.stack.len() > MAX_VALUES
                || self.marks.len() > MAX_VALUES
                || self.memo.len() > MAX_VALUES
                || self.arena.len() > MAX_VALUES
            {
                return Err(format!("makes more than {MAX_VALUES} values").into());
            }
        }
    }

    fn step(&mut self, op: u8) -> Step<()> {
        match op {
            // PROTO, FRAME: only say what follows.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                // POP takes a mark off if one lies on top.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }

            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(n.into()));
            }
            b'K' => {
                let n = self.u8()?;
                self.stack.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(n.into()));
            }
            0x8a => {
                let n = self.u8()?.into();
                self.long(n)?;
            }
            0x8b => {
                let n = self.len4()?;
                self.long(n)?;
            }
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Inert);
            }

            // Text: BINUNICODE and its short and long forms; 'T' and 'U' are Python 2's strings.
            b'X' | b'T' => {
                let n = self.len4()?;
                self.push_text(n)?;
            }
            0x8c | b'U' => {
                let n = self.u8()?.into();
                self.push_text(n)?;
            }
            0x8d => {
                let n = self.len8()?;
                self.push_text(n)?;
            }
            // Bytes are never needed.
            b'B' => {
                let n = self.len4()?;
                self.skip_bytes(n)?;
            }
            b'C' => {
                let n = self.u8()?.into();
                self.skip_bytes(n)?;
            }
            0x8e | 0x96 => {
                let n = self.len8()?;
                self.skip_bytes(n)?;
            }

            b')' => self.push(Object::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Object::Tuple(items));
            }
            0x85..=0x87 => {
                let n = usize::from(op - 0x84);
                let at = self.floor(n)?;
                let items = self.stack.split_off(at);
                self.hold(items.len())?;
                self.push(Object::Tuple(items));
            }
            b']' | 0x8f => self.push(Object::List(Vec::new())),
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(Object::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.hold(1)?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Object::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Object::Dict(Vec::new()));
                self.set_items(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.hold(2)?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }

            b'q' => {
                let i = self.u8()?.into();
                self.put(i)?;
            }
            b'r' => {
                let i = u32::from_le_bytes(self.array()?);
                self.put(i)?;
            }
            0x94 => {
                let i = u32::try_from(self.memo.len()).map_err(|_| "memo is full")?;
                self.put(i)?;
            }
            b'h' => {
                let i = self.u8()?.into();
                self.get(i)?;
            }
            b'j' => {
                let i = u32::from_le_bytes(self.array()?);
                self.get(i)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Object::Global { module, name });
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |v| match self.object(v) {
                    Some(Object::Text(t)) => Ok(Rc::clone(t)),
                    _ => Err("a global's name is no text"),
                };
                let (module, name) = (text(module)?, text(name)?);
                self.push(Object::Global { module, name });
            }
            b'R' | 0x81 => {
                let args = self.pop()?;
                let callee = self.pop()?;
                self.call(callee, args)?;
            }
            0x92 => {
                self.pop()?;
                let args = self.pop()?;
                let callee = self.pop()?;
                self.call(callee, args)?;
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let items = self.pop_mark()?;
                let (callee, args) = (self.add(Object::Global { module, name }), self.add(Object::Tuple(items)));
                self.call(callee, args)?;
            }
            b'o' => {
                let mut items = self.pop_mark()?.into_iter();
                let callee = items.next().ok_or("OBJ without a class")?;
                let args = self.add(Object::Tuple(items.collect()));
                self.call(callee, args)?;
            }
            b'b' => {
                self.pop()?;
                let object = self.top()?;
                // State of an inert object is of no interest; state put on a class or function would be a call.
                if let Some((module, name)) = self.global(object) {
                    return Err(Stop::Call(full_name(module, name)));
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Object::Storage(storage));
            }
            _ => return Err(unknown_opcode(op).into()),
        }
        Ok(())
    }

    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let end =
            self.at.checked_add(n).filter(|&end| end <= self.code.len()).ok_or("ends in the middle of an opcode")?;
        let out = &self.code[self.at..end];
        self.at = end;
        Ok(out)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        self.take(N)?.first_chunk().copied().ok_or_else(|| "ends in the middle of an opcode".into())
    }

    fn u8(&mut self) -> Step<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn len4(&mut self) -> Step<usize> {
        let n = u32::from_le_bytes(self.array()?);
        usize::try_from(n).map_err(|_| "a length does not fit".into())
    }

    fn len8(&mut self) -> Step<usize> {
        let n = u64::from_le_bytes(self.array()?);
        usize::try_from(n).map_err(|_| "a length does not fit".into())
    }

    fn line(&mut self) -> Step<Rc<str>> {
        let rest = self.code.get(self.at..).unwrap_or_default();
        let n = rest.iter().position(|&b| b == b'\n').ok_or("a name without end")?;
        let text = String::from_utf8_lossy(self.take(n)?).into();
        self.take(1)?;
        Ok(text)
    }

    /// LONG1 and LONG4; what does not fit 64 bits is no size or offset and may be anything.
    fn long(&mut self, n: usize) -> Step<()> {
        let raw = self.take(n)?;
        let mut bytes = [if raw.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 }; 8];
        let value = match bytes.get_mut(..n) {
            Some(low) => {
                low.copy_from_slice(raw);
                Value::Int(i64::from_le_bytes(bytes))
            }
            None => Value::Inert,
        };
        self.stack.push(value);
        Ok(())
    }

    fn push_text(&mut self, n: usize) -> Step<()> {
        let text = String::from_utf8_lossy(self.take(n)?).into();
        self.push(Object::Text(text));
        Ok(())
    }

    fn skip_bytes(&mut self, n: usize) -> Step<()> {
        self.take(n)?;
        self.stack.push(Value::Inert);
        Ok(())
    }

    fn add(&mut self, object: Object) -> Value {
        self.arena.push(object);
        Value::Ref(self.arena.len() - 1)
    }

    fn push(&mut self, object: Object) {
        let value = self.add(object);
        self.stack.push(value);
    }

    /// Where the top `n` values begin; they may not reach below the last mark.
    fn floor(&self, n: usize) -> Step<usize> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        self.stack
            .len()
            .checked_sub(n)
            .filter(|&at| at >= bottom)
            .ok_or_else(|| "takes a value from an empty stack".into())
    }

    fn pop(&mut self) -> Step<Value> {
        self.floor(1)?;
        self.stack.pop().ok_or_else(|| "takes a value from an empty stack".into())
    }

    fn top(&self) -> Step<Value> {
        self.floor(1)?;
        self.stack.last().copied().ok_or_else(|| "takes a value from an empty stack".into())
    }

    fn pop_mark(&mut self) -> Step<Vec<Value>> {
        let mark = self.marks.pop().ok_or("closes a mark that was not set")?;
        let items = self.stack.split_off(mark);
        self.hold(items.len())?;
        Ok(items)
    }

    fn hold(&mut self, n: usize) -> Step<()> {
        self.held = self.held.saturating_add(n);
        if self.held > MAX_HELD { Err(format!("holds more than {MAX_HELD} items").into()) } else { Ok(()) }
    }

    fn put(&mut self, i: u32) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(i, top);
        Ok(())
    }

    fn get(&mut self, i: u32) -> Step<()> {
        let value = *self.memo.get(&i).ok_or_else(|| format!("memo has no entry {i}"))?;
        self.stack.push(value);
        Ok(())
    }

    fn object(&self, v: Value) -> Option<&Object> {
        match v {
            Value::Ref(i) => self.arena.get(i),
            _ => None,
        }
    }

    fn text(&self, i: usize) -> Option<&str> {
        self.text_of(Value::Ref(i))
    }

    fn text_of(&self, v: Value) -> Option<&str> {
        match self.object(v)? {
            Object::Text(t) => Some(t),
            _ => None,
        }
    }

    fn global(&self, v: Value) -> Option<(&str, &str)> {
        match self.object(v)? {
            Object::Global { module, name } => Some((module, name)),
            _ => None,
        }
    }

    fn items(&self, v: Value) -> Option<&[Value]> {
        match self.object(v)? {
            Object::Tuple(items) | Object::List(items) => Some(items),
            _ => None,
        }
    }

    /// APPEND(S) and ADDITEMS. On an inert object they would call its methods; nothing happens.
    fn append(&mut self, items: Vec<Value>) -> Step<()> {
        let list = self.top()?;
        if let Some((module, name)) = self.global(list) {
            return Err(Stop::Call(full_name(module, name)));
        }
        if let Value::Ref(i) = list
            && let Some(Object::List(to)) = self.arena.get_mut(i)
        {
            to.extend(items);
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Value]) -> Step<()> {
        let dict = self.top()?;
        if let Some((module, name)) = self.global(dict) {
            return Err(Stop::Call(full_name(module, name)));
        }
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        if let Value::Ref(i) = dict
            && let Some(Object::Dict(to)) = self.arena.get_mut(i)
        {
            to.extend(items.chunks_exact(2).map(|p| (p[0], p[1])));
        }
        Ok(())
    }

    /// A persistent id: `('storage', class, key, location, elements)`.
    fn storage(&self, id: Value) -> Step<Storage> {
        let bad = || Stop::from("a persistent id is not a torch storage");
        let items = self.items(id).ok_or_else(bad)?;
        let [kind, class, key, _, elements, ..] = *items else { return Err(bad()) };
        if self.text_of(kind) != Some("storage") {
            return Err(bad());
        }
        let (module, name) = self.global(class).ok_or_else(bad)?;
        let (Value::Ref(key_at), Some(_), Value::Int(elements)) = (key, self.text_of(key), elements) else {
            return Err(bad());
        };
        let dtype = storage_dtype(module, name)
            .ok_or_else(|| format!("storage class {} is not known", plain(&full_name(module, name))))?;
        let bytes = u64::try_from(elements).ok().and_then(|n| n.checked_mul(dtype.map_or(1, Dtype::size_bytes) as u64));
        Ok(Storage { key: key_at, dtype, bytes })
    }

    /// REDUCE, NEWOBJ and their kin: imitates the harmless constructors and refuses the rest.
    fn call(&mut self, callee: Value, args: Value) -> Step<()> {
        let Some((module, name)) = self.global(callee) else {
            return Err("calls something that is not a global".into());
        };
        let args = self.items(args).ok_or("a call without an argument tuple")?;
        let arg = |i: usize| args.get(i).copied().unwrap_or(Value::None);
        let made = match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                let dtype = if name == "_rebuild_tensor_v3" {
                    self.global(arg(6)).and_then(|(_, n)| torch_dtype(n))
                } else {
                    None
                };
                Object::View(Box::new(self.view(arg(0), arg(1), arg(2), arg(3), dtype)?))
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                self.stack.push(arg(0));
                return Ok(());
            }
            // A tensor with attributes: func, type, args, state.
            ("torch._tensor", "_rebuild_from_type_v2") => {
                let (func, args) = (arg(0), arg(2));
                if self.global(func) == Some((module, name)) {
                    return Err("a tensor that rebuilds itself".into());
                }
                return self.call(func, args);
            }
            ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => {
                let pairs = self.items(arg(0)).unwrap_or_default();
                let pairs = pairs
                    .iter()
                    .filter_map(|&p| self.items(p).and_then(|kv| Some((*kv.first()?, *kv.get(1)?))))
                    .collect();
                Object::Dict(pairs)
            }
            ("collections", "defaultdict") => Object::Dict(Vec::new()),
            ("builtins" | "__builtin__", "list" | "set" | "frozenset") => {
                Object::List(self.items(arg(0)).unwrap_or_default().to_vec())
            }
            ("builtins" | "__builtin__", "tuple") | ("torch", "Size") => {
                Object::Tuple(self.items(arg(0)).unwrap_or_default().to_vec())
            }
            _ if is_harmless(module, name) => {
                self.stack.push(Value::Inert);
                return Ok(());
            }
            _ => return Err(Stop::Call(plain(&full_name(module, name)))),
        };
        self.hold(match &made {
            Object::Dict(pairs) => 2 * pairs.len(),
            Object::List(items) | Object::Tuple(items) => items.len(),
            Object::View(view) => 2 * view.shape.len(),
            _ => 0,
        })?;
        self.push(made);
        Ok(())
    }

    fn view(&self, storage: Value, offset: Value, shape: Value, strides: Value, dtype: Option<Dtype>) -> Step<View> {
        let Some(Object::Storage(storage)) = self.object(storage) else {
            return Err("a tensor without a storage".into());
        };
        let dtype = dtype.or(storage.dtype).ok_or("a tensor without a type")?;
        let sizes = |v: Value| -> Step<Vec<usize>> {
            let items = self.items(v).ok_or("a tensor without shape or strides")?;
            if items.len() > MAX_DIMS {
                return Err(format!("a tensor of {} dimensions, at most {MAX_DIMS} are allowed", items.len()).into());
            }
            items.iter().map(|&v| size(v)).collect()
        };
        let (offset, shape, strides) = (size(offset)?, sizes(shape)?, sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(format!("a tensor of {} dimensions with {} strides", shape.len(), strides.len()).into());
        }
        if contiguous(&shape).is_none() {
            return Err(format!("a tensor of shape {shape:?}, too large").into());
        }
        Ok(View { storage: *storage, dtype, offset, shape, strides })
    }

    fn dict(&self, v: Value) -> Option<&[(Value, Value)]> {
        match self.object(v)? {
            Object::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The dictionary of tensors: under `state_dict`, else under `module` or `model` if nothing at the top is a tensor, else the top.
    fn state_dict(&self, top: Value) -> Value {
        let mut at = top;
        for _ in 0..MAX_NESTING {
            let Some(pairs) = self.dict(at) else { return at };
            // The last of equal keys is the one Python would keep.
            let under = |name: &str| {
                pairs
                    .iter()
                    .rev()
                    .find(|(k, _)| self.text_of(*k) == Some(name))
                    .map(|&(_, v)| v)
                    .filter(|&v| self.dict(v).is_some())
            };
            let has_tensors = pairs.iter().any(|&(_, v)| matches!(self.object(v), Some(Object::View(_))));
            let next = under("state_dict")
                .or_else(|| if has_tensors { None } else { under("module").or_else(|| under("model")) });
            match next {
                Some(inner) => at = inner,
                None => return at,
            }
        }
        at
    }

    /// Tensors of a dictionary and of those inside it, names joined with a point. `visited` bounds the work where
    /// dictionaries are shared.
    fn collect(
        &self,
        at: Value,
        prefix: &str,
        depth: usize,
        visited: &mut usize,
        out: &mut BTreeMap<String, View>,
    ) -> Result<(), String> {
        for &(key, value) in self.dict(at).unwrap_or_default() {
            *visited += 1;
            if *visited > MAX_VALUES || out.len() > MAX_TENSORS {
                return Err(format!("its state dict has more than {MAX_TENSORS} tensors or {MAX_VALUES} entries"));
            }
            let Some(key) = self.text_of(key) else { continue };
            if prefix.len() + key.len() >= MAX_NAME_BYTES {
                return Err(format!("a tensor's name is longer than {MAX_NAME_BYTES} bytes"));
            }
            let name = || if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
            match self.object(value) {
                Some(Object::View(view)) => drop(out.insert(name(), View::clone(view))),
                Some(Object::Dict(_)) if depth < MAX_NESTING => {
                    self.collect(value, &name(), depth + 1, visited, out)?
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn full_name(module: &str, name: &str) -> String {
    format!("{module}.{name}")
}

fn size(v: Value) -> Step<usize> {
    match v {
        Value::Int(n) => usize::try_from(n).map_err(|_| format!("a size or offset of {n}").into()),
        _ => Err("a size that is no number".into()),
    }
}

/// `Some(None)` for untyped storages.
fn storage_dtype(module: &str, name: &str) -> Option<Option<Dtype>> {
    if !matches!(module, "torch" | "torch.cuda" | "torch.storage") {
        return None;
    }
    Some(Some(match name {
        "UntypedStorage" | "_UntypedStorage" => return Some(None),
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::Bf16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        "ComplexFloatStorage" => Dtype::C64,
        "ComplexDoubleStorage" => Dtype::C128,
        _ => return None,
    }))
}

fn torch_dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float64" => Dtype::F64,
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::Bf16,
        "float8_e4m3fn" => Dtype::F8E4M3,
        "float8_e5m2" => Dtype::F8E5M2,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::Bool,
        "complex64" => Dtype::C64,
        "complex128" => Dtype::C128,
        _ => return None,
    })
}

/// Constructors whose result is kept as an inert value: plain data that a trainer leaves in a checkpoint.
fn is_harmless(module: &str, name: &str) -> bool {
    let within = |roots: &[&str]| {
        roots.iter().any(|r| module == *r || module.strip_prefix(r).is_some_and(|rest| rest.starts_with('.')))
    };
    // A class and nothing reached through it: `STACK_GLOBAL` takes dotted names, so a module's own imports (`os.system`) would be within reach.
    let class = name.trim_start_matches('_').starts_with(|c: char| c.is_ascii_uppercase()) && !name.contains('.');
    match module {
        "builtins" | "__builtin__" => matches!(
            name,
            "int" | "float" | "bool" | "complex" | "str" | "bytes" | "bytearray" | "slice" | "range" | "object"
        ),
        "_codecs" => name == "encode",
        "copyreg" | "copy_reg" => name == "_reconstructor",
        "collections" => matches!(name, "Counter" | "deque"),
        "datetime" => matches!(name, "date" | "datetime" | "time" | "timedelta" | "timezone"),
        "argparse" => name == "Namespace",
        "torch" => name == "device",
        "torch.serialization" => name == "_get_layout",
        "numpy" => matches!(name, "dtype" | "ndarray"),
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "scalar" | "_reconstruct"),
        "pathlib" | "pathlib._local" => name.ends_with("Path") && class,
        _ => {
            class && within(&["pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "omegaconf"])
        }
    }
}

fn unknown_opcode(op: u8) -> String {
    let name = match op {
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'p' => "PUT",
        b'g' => "GET",
        b'P' => "PERSID",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => "no opcode of pickle",
    };
    format!("opcode 0x{op:02x} ({name}) is not one that torch writes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(body: &[u8]) -> Step<Value> {
        let code = [&[0x80, 2], body].concat();
        Machine::new(&code).run()
    }

    #[test]
    fn a_global_that_is_only_named_is_inert() {
        assert!(matches!(run(b"}cmade_up.package\nThing\nK\x01s."), Ok(Value::Ref(_))));
    }

    #[test]
    fn every_kind_of_call_of_an_unknown_global_is_refused_by_name() {
        for body in [
            &b"cos\nsystem\nX\x02\0\0\0id\x85R."[..],
            b"cos\nsystem\n)\x81.",
            b"cos\nsystem\n)}\x92.",
            b"(X\x02\0\0\0idios\nsystem\n.",
            b"(cos\nsystem\nX\x02\0\0\0ido.",
            b"cos\nsystem\n}b.",
            b"\x8c\x02os\x8c\x06system\x93)R.",
            b"cos\nsystem\nK\x01K\x01s.",
            b"cos\nsystem\nK\x01a.",
            b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN)Nt\x52.",
        ] {
            match run(body) {
                Err(Stop::Call(name)) => assert_eq!(name, "os.system"),
                other => panic!("{body:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn names_within_reach_of_an_allowed_module_are_refused() {
        for (module, name) in [
            ("pytorch_lightning.utilities", "os.system"),
            ("lightning", "Trainer.os.system"),
            ("lightningx", "Thing"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("torch.storage", "_load_from_bytes"),
            ("pathlib", "os.Path"),
            ("numpy", "load"),
        ] {
            assert!(!is_harmless(module, name), "{module}.{name}");
        }
        assert!(is_harmless("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"));
        assert!(is_harmless("pathlib", "PosixPath"));
    }

    #[test]
    fn unknown_opcodes_are_named() {
        match run(b"\x97.") {
            Err(Stop::Bad(what)) => assert!(what.contains("0x97 (NEXT_BUFFER)"), "{what}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_truncation_of_a_pickle_panics() {
        let body: &[u8] =
            b"\x80\x02}q\x00(X\x01\0\0\0aK\x01X\x01\0\0\0b\x8a\x02\xff\x00X\x01\0\0\0cccollections\nOrderedDict\n)Ru.";
        for n in 0..body.len() {
            assert!(Machine::new(&body[..n]).run().is_err(), "{n}");
        }
        assert!(Machine::new(body).run().is_ok());
    }

    #[test]
    fn deep_nesting_and_cycles_end() {
        let deep = [&b"N"[..], &[0x85; 1_000_000], b"."].concat();
        assert!(run(&deep).is_ok());
        let endless = [&b"N"[..], &[b'2'; MAX_VALUES + 1], b"."].concat();
        assert!(run(&endless).is_err());

        // A dictionary that holds itself under its own key.
        let code = b"\x80\x02}q\x00X\x01\0\0\0ah\x00s.";
        let mut m = Machine::new(code);
        let top = m.run().expect("a cycle is a value");
        let mut out = BTreeMap::new();
        m.collect(m.state_dict(top), "", 0, &mut 0, &mut out).expect("ends");
        assert!(out.is_empty());
    }

    #[test]
    fn a_self_rebuilding_tensor_ends() {
        // args tuple holds itself as its own third item through a list.
        let body = b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00]q\x01(h\x00Nh\x01eh\x01R.";
        assert!(run(body).is_err());
        let body = b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00(h\x00Nh\x00Nt\x52.";
        assert!(run(body).is_err());
    }

    #[test]
    fn values_do_not_reach_below_a_mark() {
        assert!(run(b"K\x01(\x85.").is_err());
        assert!(run(b"K\x01(0.").is_ok());
    }

    #[test]
    fn longs_keep_their_sign() {
        assert!(matches!(run(b"\x8a\x02\xff\xff."), Ok(Value::Int(-1))));
        assert!(matches!(run(b"\x8a\x02\xff\x00."), Ok(Value::Int(255))));
        assert!(matches!(run(b"\x8a\x00."), Ok(Value::Int(0))));
        assert!(matches!(run(b"\x8a\x09\0\0\0\0\0\0\0\0\x01."), Ok(Value::Inert)));
    }
}
