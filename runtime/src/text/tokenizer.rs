//! Token ids of text and text of token ids, from the tokenizer files beside the language model.
//!
//! Two kinds are known. *Sentencepiece* (BPE with `▁` for a space, as Llama and Phi-3) follows the slow tokenizer
//! of transformers 4.41 with `legacy: false`, on which HealthGPT was trained and which `tokenizer.json` taken at its word
//! does not give. *Byte-level* BPE keeps the rules of its `tokenizer.json`.
//! The library does the merging only: added tokens are found here, so that a user's text cannot act as one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{Encoding, NormalizedString, Normalizer, Token};

use crate::{Error, Result};

/// Sentencepiece's mark for a space.
const MARK: char = '▁';

/// More bytes than any real `tokenizer.json` has (the largest known ones have 35 MB).
const MAX_FILE_BYTES: usize = 128 << 20;

/// More ids than any real vocabulary has; bounds the table of pieces.
const MAX_IDS: usize = 1 << 22;

/// A part of a chunk of text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text of the prompt's template: added tokens in it act.
    Template(&'a str),
    /// Text of a user or an earlier answer: never acts as a special token, whatever it says.
    Text(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sentencepiece,
    ByteLevel,
}

impl Kind {
    /// White space as the implementation that is followed sees it: Python's `str.isspace` has four more than Rust.
    fn is_space(self, c: char) -> bool {
        c.is_whitespace() || (self == Kind::Sentencepiece && ('\x1c'..='\x1f').contains(&c))
    }

    /// Whether `c` beside a `single_word` token keeps it from being one.
    fn is_glue(self, c: char) -> bool {
        match self {
            Kind::Sentencepiece => c != ' ',
            Kind::ByteLevel => c.is_alphanumeric() || c == '_',
        }
    }
}

/// An added token, with the flags of `tokenizer.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Added {
    id: u32,
    content: String,
    lstrip: bool,
    rstrip: bool,
    single_word: bool,
    normalized: bool,
    special: bool,
}

/// A chunk after the search for added tokens.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(String),
    Added(&'a Added),
}

/// Ids of the tokens that stand for a generated picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Codes {
    start: u32,
    count: u32,
}

/// Turns text into token ids and back. Built from the tokenizer's files alone; no id and no size is built in.
pub struct Tokenizer {
    kind: Kind,
    /// The file's model without any added token.
    model: tokenizers::Tokenizer,
    added: HashMap<String, Added>,
    /// Byte lengths of the added tokens, longest first.
    lengths: Vec<usize>,
    /// Added tokens before which a lone prefix mark is dropped: `all_special_tokens` of transformers.
    drops_mark: HashSet<u32>,
    /// What stands before the text of the first chunk.
    first: Vec<u32>,
    /// Bytes of each id; empty for tokens that are left out of an answer.
    pieces: Arc<Vec<Box<[u8]>>>,
    len: usize,
    codes: Option<Codes>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind)
            .field("len", &self.len)
            .field("codes", &self.codes)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads the bytes of `tokenizer.json` and, where there is one, of `tokenizer_config.json` (special tokens, `add_bos_token`).
    ///
    /// *Errors*: one line that says what is wrong; the caller knows the file.
    pub fn new(tokenizer_json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self, String> {
        let mut file = parse("tokenizer.json", tokenizer_json)?;
        let config = match tokenizer_config {
            Some(bytes) => parse("tokenizer_config.json", bytes)?,
            None => Value::Null,
        };
        let kind = kind_of(&file)?;
        let added = added_tokens(&file)?;
        let unk = file["model"]["unk_token"].as_str().map(str::to_owned);
        let pieces = pieces_of(&file, kind, &added)?;
        make_plain(&mut file, kind, &added, unk.as_deref());
        let merges = file["model"]["merges"].as_array().into_iter().flatten().filter_map(merge_of);
        let merges = merges.map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        let wrong = |e: &dyn std::fmt::Display| format!("tokenizer.json: {e}");
        let mut model: tokenizers::Tokenizer = serde_json::from_value(file).map_err(|e| wrong(&e))?;
        let forgetful = without_cache(model.get_model(), merges).map_err(|e| wrong(&e))?;
        model.with_model(forgetful);
        let mut this = Self {
            kind,
            model,
            added: added.into_iter().map(|t| (t.content.clone(), t)).collect(),
            lengths: Vec::new(),
            drops_mark: HashSet::new(),
            first: Vec::new(),
            len: pieces.len(),
            pieces: Arc::new(pieces),
            codes: None,
        };
        this.measure();
        this.first = this.first_ids(&config)?;
        this.drops_mark = this.special_ids(&config, unk.as_deref());
        Ok(this)
    }

    /// Appends `<start_index>`, `<idx_0>` to `<idx_{codes-1}>`, `<end_index>` and `<pixel_newline>` after the last id.
    /// A file that was saved with just these tokens at its end keeps them. To be called once.
    pub fn with_codes(mut self, codes: usize) -> Self {
        let count = codes.min(MAX_IDS);
        let names: Vec<String> = std::iter::once("<start_index>".to_owned())
            .chain((0..count).map(|i| format!("<idx_{i}>")))
            .chain(["<end_index>".to_owned(), "<pixel_newline>".to_owned()])
            .collect();
        let saved = self.len.checked_sub(names.len()).filter(|&start| {
            let at = |i: usize| u32::try_from(start + i).ok();
            names.iter().enumerate().all(|(i, name)| self.token_id(name) == at(i))
        });
        self.len = saved.unwrap_or(self.len);
        let start = self.len as u32; // at most MAX_IDS
        let mut pieces = self.pieces.to_vec();
        pieces.resize(self.len + names.len(), Box::default());
        for (id, content) in (start..).zip(names) {
            self.drops_mark.insert(id);
            pieces[id as usize] = Box::default();
            let token = Added {
                id,
                content: content.clone(),
                lstrip: false,
                rstrip: false,
                single_word: false,
                normalized: false,
                special: true,
            };
            self.added.insert(content, token);
        }
        self.pieces = Arc::new(pieces);
        self.codes = Some(Codes { start, count: count as u32 });
        self.measure();
        self
    }

    /// Number of ids before the codes: base vocabulary and added tokens, `len(tokenizer)` of transformers.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.len
    }

    /// Number of ids with the codes and the three tokens around them; [`len`](Self::len) without codes.
    pub fn len_with_codes(&self) -> usize {
        self.pieces.len()
    }

    /// Number of codes, `<idx_0>` and on; 0 without codes.
    pub fn codes(&self) -> usize {
        self.codes.map_or(0, |c| c.count as usize)
    }

    /// Id of `<start_index>`, which opens a generated picture.
    pub fn start_index(&self) -> Option<u32> {
        self.codes.map(|c| c.start)
    }

    /// Id of `<idx_0>`; code `i` has this plus `i`. `None` if there are no codes.
    pub fn first_code(&self) -> Option<u32> {
        self.codes.filter(|c| c.count > 0).map(|c| c.start + 1)
    }

    /// Id of `<end_index>`, which closes a generated picture.
    pub fn end_index(&self) -> Option<u32> {
        self.codes.map(|c| c.start + c.count + 1)
    }

    /// Id of `<pixel_newline>`, which may stand between rows of codes.
    pub fn pixel_newline(&self) -> Option<u32> {
        self.codes.map(|c| c.start + c.count + 2)
    }

    /// The code that `id` stands for, if it is one.
    pub fn code_of(&self, id: u32) -> Option<u32> {
        let codes = self.codes?;
        id.checked_sub(codes.start + 1).filter(|&code| code < codes.count)
    }

    /// Id of a token by its exact content, added or not.
    pub fn token_id(&self, content: &str) -> Option<u32> {
        self.added.get(content).map(|t| t.id).or_else(|| self.model.token_to_id(content))
    }

    /// Ids of one chunk: the text between two pictures, or between a picture and an end of the prompt.
    /// The first chunk begins with the BOS where this tokenizer adds one.
    ///
    /// *Errors*: the tokenizer's own model cannot encode the text.
    ///
    /// *Source*: `LlamaTokenizer.tokenize` of transformers 4.41 for the sentencepiece kind.
    pub fn encode(&self, pieces: &[Piece<'_>], first: bool) -> Result<Vec<u32>> {
        let mut ids = if first { self.first.clone() } else { Vec::new() };
        let begin = ids.len();
        let mut parts = self.split(pieces);
        if self.kind == Kind::Sentencepiece {
            // One mark before the chunk, whatever it begins with; none after added tokens.
            match parts.first_mut() {
                Some(Part::Text(text)) => text.insert(0, MARK),
                Some(Part::Added(_)) => parts.insert(0, Part::Text(MARK.into())),
                None => {}
            }
        }
        let mark = self.token_id("▁");
        for (i, part) in self.settle(parts).into_iter().enumerate() {
            match part {
                Part::Text(text) => self.encode_text(&text, &mut ids)?,
                Part::Added(token) => {
                    let lone = i == 1 && ids.len() == begin + 1 && ids.last().copied() == mark;
                    if lone && self.kind == Kind::Sentencepiece && self.drops_mark.contains(&token.id) {
                        ids.pop();
                    }
                    ids.push(token.id);
                }
            }
        }
        Ok(ids)
    }

    /// Text of an answer: added tokens are left out (of the byte-level kind only those marked special), ids without a piece too.
    /// The sentencepiece kind loses one leading space. Each byte that is not UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = self.stream();
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text.push_str(&stream.finish());
        text
    }

    /// Text of an answer as its tokens arrive; all that it gives, joined, is what [`decode`](Self::decode) gives.
    pub fn stream(&self) -> TextStream {
        TextStream { pieces: Arc::clone(&self.pieces), pending: Vec::new(), strip: self.kind == Kind::Sentencepiece }
    }

    fn measure(&mut self) {
        let lengths: HashSet<usize> = self.added.keys().map(String::len).collect();
        self.lengths = lengths.into_iter().collect();
        self.lengths.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// What the tokenizer puts before a text: a Llama configuration's word counts, else the file's post-processor.
    fn first_ids(&self, config: &Value) -> Result<Vec<u32>, String> {
        let llama = config["tokenizer_class"].as_str().is_some_and(|c| c.starts_with("Llama"));
        let add = config["add_bos_token"].as_bool();
        if self.kind == Kind::Sentencepiece && (llama || add.is_some()) {
            if !add.unwrap_or(true) {
                return Ok(Vec::new());
            }
            let bos = content_of(&config["bos_token"]).unwrap_or("<s>");
            let id = self.token_id(bos);
            return id
                .map(|id| vec![id])
                .ok_or_else(|| format!("tokenizer_config.json: bos_token {bos:?} is not in tokenizer.json"));
        }
        // A token that no vocabulary has shows what is put before and after a text.
        let probe = Encoding::from_tokens(vec![Token::new(u32::MAX, String::new(), (0, 0))], 0);
        let whole = self.model.post_process(probe, None, true);
        let whole = whole.map_err(|e| format!("tokenizer.json: {e}"))?;
        Ok(whole.get_ids().iter().copied().take_while(|&id| id != u32::MAX).collect())
    }

    /// `all_special_tokens` of transformers: the named ones of the configuration; without one, the tokens that it usually names.
    fn special_ids(&self, config: &Value, unk: Option<&str>) -> HashSet<u32> {
        if config.is_null() {
            let usual = self.added.values().filter(|t| t.special && !t.rstrip).map(|t| t.id);
            return usual.collect();
        }
        let named = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
        let more = config["additional_special_tokens"].as_array();
        let named = named.iter().filter_map(|name| content_of(&config[*name]));
        let more = more.into_iter().flatten().filter_map(content_of);
        named.chain(more).chain(unk).filter_map(|content| self.token_id(content)).collect()
    }

    /// Finds the added tokens in template pieces; neighbouring text is joined, whoever wrote it.
    fn split(&self, pieces: &[Piece<'_>]) -> Vec<Part<'_>> {
        let mut parts = Vec::new();
        for piece in pieces {
            match *piece {
                Piece::Template(text) => {
                    // To the slow tokenizer a literal `▁` is a space, which an `rstrip` token swallows.
                    let text = match self.kind {
                        Kind::Sentencepiece => text.replace(MARK, " "),
                        Kind::ByteLevel => text.to_owned(),
                    };
                    self.find(
                        &text,
                        |t| !t.normalized,
                        &mut parts,
                        |this, rest, parts| {
                            this.find_normalized(rest, parts);
                        },
                    );
                }
                Piece::Text(text) => join(&mut parts, text),
            }
        }
        parts
    }

    /// Tokens marked `normalized` are looked for in normalised text (the slow tokenizer knows no such difference).
    fn find_normalized<'a>(&'a self, text: &str, parts: &mut Vec<Part<'a>>) {
        let mut text = text.to_owned();
        if let (Kind::ByteLevel, Some(normalizer)) = (self.kind, self.model.get_normalizer()) {
            let mut normalized = NormalizedString::from(text.as_str());
            if normalizer.normalize(&mut normalized).is_ok() {
                text = normalized.get().to_owned();
            }
        }
        self.find(&text, |t| t.normalized, parts, |_, rest, parts| join(parts, rest));
    }

    /// Leftmost-longest search; what lies between goes to `rest`.
    fn find<'a>(
        &'a self,
        text: &str,
        wanted: impl Fn(&Added) -> bool,
        parts: &mut Vec<Part<'a>>,
        rest: impl Fn(&'a Self, &str, &mut Vec<Part<'a>>),
    ) {
        let (mut done, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next() {
            let found = self.lengths.iter().find_map(|&len| {
                let token = self.added.get(text.get(at..at + len)?)?;
                wanted(token).then_some(token)
            });
            if let Some(token) = found {
                rest(self, &text[done..at], parts);
                parts.push(Part::Added(token));
                at += token.content.len();
                done = at;
            } else {
                at += c.len_utf8();
            }
        }
        rest(self, &text[done..], parts);
    }

    /// Applies the flags of the added tokens to the text beside them.
    fn settle<'a>(&self, parts: Vec<Part<'a>>) -> Vec<Part<'a>> {
        let mut whole: Vec<Part<'a>> = Vec::with_capacity(parts.len());
        let mut parts = parts.into_iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Text(text) => join(&mut whole, &text),
                Part::Added(token) => {
                    let left = match whole.last() {
                        Some(Part::Text(text)) => text.chars().next_back(),
                        _ => None,
                    };
                    let right = match parts.peek() {
                        Some(Part::Text(text)) => text.chars().next(),
                        _ => None,
                    };
                    if token.single_word && [left, right].into_iter().flatten().any(|c| self.kind.is_glue(c)) {
                        join(&mut whole, &token.content);
                    } else {
                        whole.push(Part::Added(token));
                    }
                }
            }
        }
        let strips: Vec<(bool, bool)> = (0..whole.len())
            .map(|i| {
                let after = i.checked_sub(1).and_then(|i| whole.get(i));
                let before = whole.get(i + 1);
                (matches!(after, Some(Part::Added(t)) if t.rstrip), matches!(before, Some(Part::Added(t)) if t.lstrip))
            })
            .collect();
        for (part, (left, right)) in whole.iter_mut().zip(strips) {
            if let Part::Text(text) = part {
                let mut kept = text.as_str();
                if left {
                    kept = kept.trim_start_matches(|c| self.kind.is_space(c));
                }
                if right {
                    kept = kept.trim_end_matches(|c| self.kind.is_space(c));
                }
                if kept.len() < text.len() {
                    *text = kept.to_owned();
                }
            }
        }
        whole
    }

    fn encode_text(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        // The library's message may quote the text, so it is not passed on.
        let encoding = self.model.encode_fast(text, false).map_err(|_| Error::Input {
            what: "text".into(),
            problem: "the tokenizer has no token for a character in it and no unknown token".into(),
        })?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }
}

/// Text of an answer in the making; holds back a character until its last byte is there. See [`Tokenizer::stream`].
#[derive(Clone)]
pub struct TextStream {
    pieces: Arc<Vec<Box<[u8]>>>,
    pending: Vec<u8>,
    /// The first space is still to be left out.
    strip: bool,
}

impl TextStream {
    /// Text that `id` completes; may be empty.
    pub fn push(&mut self, id: u32) -> String {
        let pieces = Arc::clone(&self.pieces);
        let mut bytes: &[u8] = pieces.get(id as usize).map_or(&[], |p| p);
        if self.strip && !bytes.is_empty() {
            self.strip = false;
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.pending.extend_from_slice(bytes);
        self.drain(false)
    }

    /// What was held back: the answer has ended, so an incomplete character is U+FFFD for each of its bytes.
    pub fn finish(&mut self) -> String {
        self.drain(true)
    }

    fn drain(&mut self, last: bool) -> String {
        let mut text = String::new();
        let (mut at, mut held) = (0, 0);
        for chunk in self.pending.utf8_chunks() {
            let bad = chunk.invalid();
            text.push_str(chunk.valid());
            at += chunk.valid().len() + bad.len();
            let incomplete = std::str::from_utf8(bad).is_err_and(|e| e.error_len().is_none());
            if incomplete && !last && at == self.pending.len() {
                held = bad.len();
            } else {
                text.extend(bad.iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
        }
        self.pending.drain(..self.pending.len() - held);
        text
    }
}

fn join(parts: &mut Vec<Part<'_>>, text: &str) {
    if text.is_empty() {
        return;
    }
    match parts.last_mut() {
        Some(Part::Text(before)) => before.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

fn parse(name: &str, bytes: &[u8]) -> Result<Value, String> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(format!("{name} has {} bytes, at most {MAX_FILE_BYTES} are read", bytes.len()));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|e| format!("{name}: {e}"))?;
    if value.is_object() { Ok(value) } else { Err(format!("{name}: not a JSON object")) }
}

/// A special token in `tokenizer_config.json` is a string or an object with `content`.
fn content_of(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// The members of a `Sequence`, or the thing itself.
fn members<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    match value[key].as_array() {
        Some(list) if value["type"] == "Sequence" => list.iter().collect(),
        _ if value.is_null() => Vec::new(),
        _ => vec![value],
    }
}

fn kind_of(file: &Value) -> Result<Kind, String> {
    let model = file["model"]["type"].as_str().unwrap_or("none");
    if model != "BPE" {
        return Err(format!("tokenizer.json: model {model}, only BPE is supported"));
    }
    let normalizers = members(&file["normalizer"], "normalizers");
    let splitters = members(&file["pre_tokenizer"], "pretokenizers");
    if normalizers.iter().any(|n| n["type"] == "Prepend" && n["prepend"] == "▁")
        || splitters.iter().any(|s| s["type"] == "Metaspace")
    {
        Ok(Kind::Sentencepiece)
    } else if splitters.iter().any(|s| s["type"] == "ByteLevel") {
        Ok(Kind::ByteLevel)
    } else {
        Err("tokenizer.json: neither a sentencepiece nor a byte-level BPE".into())
    }
}

fn added_tokens(file: &Value) -> Result<Vec<Added>, String> {
    let vocab = &file["model"]["vocab"];
    let mut added = Vec::new();
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        let (Some(content), Some(id)) = (token["content"].as_str(), token["id"].as_u64()) else {
            return Err("tokenizer.json: an added token lacks its content or id".into());
        };
        if content.is_empty() {
            return Err(format!("tokenizer.json: added token {id} is empty"));
        }
        if vocab[content].as_u64().is_some_and(|base| base != id) {
            return Err(format!("tokenizer.json: added token {content:?} has two ids"));
        }
        let flag = |name: &str| token[name].as_bool().unwrap_or(false);
        added.push(Added {
            id: checked_id(id, content)?,
            content: content.to_owned(),
            lstrip: flag("lstrip"),
            rstrip: flag("rstrip"),
            single_word: flag("single_word"),
            normalized: flag("normalized"),
            special: flag("special"),
        });
    }
    Ok(added)
}

fn checked_id(id: u64, content: &str) -> Result<u32, String> {
    match u32::try_from(id) {
        Ok(id) if (id as usize) < MAX_IDS => Ok(id),
        _ => Err(format!("tokenizer.json: token {content:?} has id {id}, the limit is {MAX_IDS}")),
    }
}

/// Bytes of each id in an answer; empty for a token that is left out.
fn pieces_of(file: &Value, kind: Kind, added: &[Added]) -> Result<Vec<Box<[u8]>>, String> {
    let Some(vocab) = file["model"]["vocab"].as_object() else {
        return Err("tokenizer.json: model.vocab is missing".into());
    };
    let byte_fallback = file["model"]["byte_fallback"].as_bool().unwrap_or(false);
    let bytes = byte_level_bytes();
    let mut pieces: Vec<Option<Box<[u8]>>> = Vec::new();
    let mut put = |id: u32, piece: Vec<u8>| {
        let id = id as usize;
        if pieces.len() <= id {
            pieces.resize(id + 1, None);
        }
        pieces[id] = Some(piece.into());
    };
    for (content, id) in vocab {
        let Some(id) = id.as_u64() else {
            return Err(format!("tokenizer.json: the id of token {content:?} is not a whole number"));
        };
        let piece = match kind {
            Kind::Sentencepiece => match byte_piece(content).filter(|_| byte_fallback) {
                Some(byte) => vec![byte],
                None => content.replace(MARK, " ").into_bytes(),
            },
            // One character that is no byte makes the whole piece literal, as in the library's decoder.
            Kind::ByteLevel => match content.chars().map(|c| bytes.get(&c).copied()).collect() {
                Some(piece) => piece,
                None => content.clone().into_bytes(),
            },
        };
        put(checked_id(id, content)?, piece);
    }
    for token in added {
        let hidden = token.special || kind == Kind::Sentencepiece;
        put(token.id, if hidden { Vec::new() } else { token.content.clone().into_bytes() });
    }
    if pieces.is_empty() {
        return Err("tokenizer.json: the vocabulary is empty".into());
    }
    Ok(pieces.into_iter().map(Option::unwrap_or_default).collect())
}

/// The byte of a piece such as `<0x0A>`.
fn byte_piece(content: &str) -> Option<u8> {
    let hex = content.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() == 2 { u8::from_str_radix(hex, 16).ok() } else { None }
}

/// GPT-2's way of writing any byte as a printable character.
fn byte_level_bytes() -> HashMap<char, u8> {
    let mut next = 256;
    let mut map = HashMap::new();
    for byte in 0..=u8::MAX {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable { u32::from(byte) } else { next };
        if !printable {
            next += 1;
        }
        map.extend(char::from_u32(code).map(|c| (c, byte)));
    }
    map
}

/// Leaves of the file what encodes plain text: no added token can come out of it, and the prefix is put by us.
fn make_plain(file: &mut Value, kind: Kind, added: &[Added], unk: Option<&str>) {
    file["added_tokens"] = json!([]);
    file["truncation"] = Value::Null;
    file["padding"] = Value::Null;
    file["decoder"] = Value::Null;
    file["model"]["dropout"] = Value::Null;
    if kind == Kind::Sentencepiece {
        let to_mark = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let mut normalizers: Vec<Value> = members(&file["normalizer"], "normalizers")
            .into_iter()
            .filter(|n| n["type"] != "Prepend")
            .cloned()
            .collect();
        if !normalizers.contains(&to_mark) {
            normalizers.push(to_mark);
        }
        file["normalizer"] = json!({"type": "Sequence", "normalizers": normalizers});
        let splitters: Vec<Value> = members(&file["pre_tokenizer"], "pretokenizers")
            .into_iter()
            .filter(|s| s["type"] != "Metaspace")
            .cloned()
            .collect();
        file["pre_tokenizer"] = match splitters.is_empty() {
            true => Value::Null,
            false => json!({"type": "Sequence", "pretokenizers": splitters}),
        };
    }
    // A special token that is also a piece of the base vocabulary could be merged together from a user's text.
    let barred: HashSet<&str> = added.iter().map(|t| t.content.as_str()).filter(|&c| Some(c) != unk).collect();
    if let Some(vocab) = file["model"]["vocab"].as_object_mut() {
        vocab.retain(|content, _| !barred.contains(content.as_str()));
    }
    if let Some(merges) = file["model"]["merges"].as_array_mut() {
        // Merges of another form are left for the library to refuse.
        merges.retain(|merge| {
            merge_of(merge).is_none_or(|(a, b)| {
                !(barred.contains(a) || barred.contains(b) || barred.contains(format!("{a}{b}").as_str()))
            })
        });
    }
}

/// The two pieces of a merge, in either form.
fn merge_of(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(both) => both.split_once(' '),
        Value::Array(two) => match two.as_slice() {
            [a, b] => a.as_str().zip(b.as_str()),
            _ => None,
        },
        _ => None,
    }
}

/// The same model without the library's cache of words, in which every thread that ever encoded a text would keep what
/// was asked until the thread ends: that is patients' data.
fn without_cache(model: &ModelWrapper, merges: Vec<(String, String)>) -> tokenizers::Result<ModelWrapper> {
    let ModelWrapper::BPE(bpe) = model else { return Ok(model.clone()) };
    let mut forgetful = BPE::builder()
        .cache_capacity(0)
        .vocab_and_merges(bpe.get_vocab().into_iter().collect::<Vocab>(), merges)
        .fuse_unk(bpe.fuse_unk)
        .byte_fallback(bpe.byte_fallback)
        .ignore_merges(bpe.ignore_merges);
    if let Some(token) = &bpe.unk_token {
        forgetful = forgetful.unk_token(token.clone());
    }
    if let Some(prefix) = &bpe.continuing_subword_prefix {
        forgetful = forgetful.continuing_subword_prefix(prefix.clone());
    }
    if let Some(suffix) = &bpe.end_of_word_suffix {
        forgetful = forgetful.end_of_word_suffix(suffix.clone());
    }
    Ok(forgetful.build()?.into())
}
