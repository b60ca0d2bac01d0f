//! The tokenizer and the prompt against the reference's own output.

use runtime::text::{Piece, Slot, Tokenizer, Turn, build};
use serde_json::Value;
use tests::data;

fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(data(path)).unwrap()).unwrap()
}

fn load(dir: &str, config: bool) -> Tokenizer {
    let json = std::fs::read(data(&format!("{dir}/tokenizer.json"))).unwrap();
    let config = config.then(|| std::fs::read(data(&format!("{dir}/tokenizer_config.json"))).unwrap());
    Tokenizer::new(&json, config.as_deref()).unwrap()
}

fn phi3() -> Tokenizer {
    load("phi3-tokenizer", true).with_codes(8192)
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn signed(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

#[test]
fn ids_of_the_codes_follow_the_last_token() {
    let tok = load("phi3-tokenizer", true);
    assert_eq!((tok.len(), tok.len_with_codes(), tok.codes()), (32_011, 32_011, 0));
    assert_eq!((tok.start_index(), tok.first_code(), tok.code_of(32_012)), (None, None, None));
    let tok = tok.with_codes(8192);
    assert_eq!((tok.len(), tok.len_with_codes(), tok.codes()), (32_011, 40_206, 8192));
    assert_eq!(tok.start_index(), Some(32_011));
    assert_eq!(tok.first_code(), Some(32_012));
    assert_eq!(tok.end_index(), Some(40_204));
    assert_eq!(tok.pixel_newline(), Some(40_205));
    assert_eq!(tok.token_id("<idx_8191>"), Some(40_203));
    assert_eq!(tok.token_id("<|end|>"), Some(32_007));
    assert_eq!(tok.token_id("▁What"), Some(1724));
    let codes = [32_011, 32_012, 40_203, 40_204].map(|id| tok.code_of(id));
    assert_eq!(codes, [None, Some(0), Some(8191), None]);
}

#[test]
fn texts_encode_as_the_reference_does() {
    let cases = json("phi3-tokenizer/vectors.json");
    // Without the configuration the special tokens are told by their flags: the same for this tokenizer.
    for tok in [phi3(), load("phi3-tokenizer", false).with_codes(8192)] {
        let cases = cases["texts"].as_array().unwrap();
        assert_eq!(cases.len(), 73);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let found = tok.encode(&[Piece::Template(text)], true).unwrap();
            assert_eq!(found, ids(&case["reference"]["ids"]), "{text:?}");
        }
    }
}

#[test]
fn texts_in_two_pieces_encode_as_one() {
    let tok = phi3();
    for case in json("phi3-tokenizer/vectors.json")["texts"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let whole = tok.encode(&[Piece::Text(text)], true).unwrap();
        for (at, _) in text.char_indices() {
            let (a, b) = text.split_at(at);
            assert_eq!(tok.encode(&[Piece::Text(a), Piece::Text(b)], true).unwrap(), whole);
        }
    }
}

#[test]
fn prompts_encode_as_the_reference_does_chunk_by_chunk() {
    let tok = phi3();
    let cases = json("phi3-tokenizer/vectors.json");
    let cases = cases["prompts"].as_array().unwrap();
    assert_eq!(cases.len(), 11);
    for case in cases {
        let prompt = case["prompt"].as_str().unwrap();
        let chunks = case["reference"]["chunks"].as_array().unwrap();
        for (i, (text, expected)) in prompt.split("<image>").zip(chunks).enumerate() {
            let found = tok.encode(&[Piece::Template(text)], i == 0).unwrap();
            assert_eq!(found, ids(expected), "{text:?}");
        }
        assert_eq!(prompt.split("<image>").count(), chunks.len());
        let question = case["question"].as_str().unwrap();
        if !question.contains("<image>") {
            let turn = Turn { question: question.into(), answer: None };
            let with_image = case["with_image"].as_bool().unwrap();
            let generate = prompt.ends_with("<start_index>");
            let built = build(&tok, &[turn], with_image, generate, None).unwrap();
            assert_eq!(built.text, prompt);
            assert_eq!(built.input_ids(), signed(&case["reference"]["ids"]));
        }
    }
}

#[test]
fn user_text_never_acts_as_a_special_token() {
    let tok = phi3();
    let cases = json("phi3-tokenizer/vectors.json");
    let cases = cases["prompts_user_text_as_text"].as_array().unwrap();
    assert_eq!(cases.len(), 22);
    for case in cases {
        let question = case["question"].as_str().unwrap();
        let turn = Turn { question: question.into(), answer: None };
        let built = build(&tok, &[turn], case["with_image"].as_bool().unwrap(), false, None).unwrap();
        assert_eq!(built.input_ids(), signed(&case["ids"]), "{question:?}");
    }
}

#[test]
fn no_spelling_of_a_special_token_gives_its_id() {
    for tok in [phi3(), load("tiny/checkpoint/phi3", true).with_codes(64)] {
        let special: Vec<u32> = ["<s>", "</s>", "<|endoftext|>", "<|end|>", "<|system|>", "<start_index>", "<idx_5>"]
            .iter()
            .map(|t| tok.token_id(t).unwrap())
            .collect();
        let text = "<s></s> </s><|endoftext|><|end|>▁<|system|>\n<start_index><idx_5>x</s>";
        for pieces in [&[Piece::Text(text)][..], &[Piece::Text("</"), Piece::Text("s>"), Piece::Text("<s>")]] {
            let found = tok.encode(pieces, true).unwrap();
            assert!(found.iter().all(|id| !special.contains(id)));
        }
    }
}

#[test]
fn answers_decode_to_what_a_user_reads_and_stream_to_the_same() {
    let tok = phi3();
    let cases = json("phi3-tokenizer/vectors.json");
    let cases = cases["decode"].as_array().unwrap();
    assert_eq!(cases.len(), 13);
    for case in cases {
        let what = case["what"].as_str().unwrap();
        let ids = ids(&case["ids"]);
        let expected = match what {
            // Each bad byte by itself, as the slow decoder.
            "lone continuation byte" => "\u{fffd}A",
            // `</s>` is an added token, though not marked special.
            "bos, eos, unk inside" => "Hello world",
            _ => case["fast"]["decoded_skip_special"].as_str().unwrap_or(""),
        };
        assert_eq!(tok.decode(&ids), expected, "{what}");
        let mut stream = tok.stream();
        let mut text = String::new();
        for id in ids {
            text += &stream.push(id);
        }
        text += &stream.finish();
        assert_eq!(text, expected, "{what}");
    }
}

#[test]
fn a_stream_holds_back_half_a_character() {
    let tok = phi3();
    let mut stream = tok.stream();
    // "ok 🩻": the emoji is four byte pieces.
    let parts = [3431, 29871, 243, 162, 172, 190].map(|id| stream.push(id));
    assert_eq!(parts, ["ok", " ", "", "", "", "🩻"]);
    assert_eq!(stream.finish(), "");
    // Two of its bytes, then a letter: the bad ones are given up as soon as they are known to be bad.
    let mut stream = tok.stream();
    let parts = [243, 162, 3431].map(|id| stream.push(id));
    assert_eq!(parts, ["", "", "\u{fffd}\u{fffd} ok"]);
}

#[test]
fn plain_texts_survive_encoding_and_decoding() {
    let tok = phi3();
    for case in json("phi3-tokenizer/vectors.json")["texts"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap().replace('▁', " ");
        let ids = tok.encode(&[Piece::Text(&text)], true).unwrap();
        assert_eq!(tok.decode(&ids), text);
    }
}

#[test]
fn golden_prompts_are_equal() {
    for name in ["comprehension", "two_turn", "generation", "text_only"] {
        let case = json(&format!("tiny/{name}.json"));
        let said: Vec<&str> = case["turns"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        let turns: Vec<Turn> =
            said.chunks(2).map(|t| Turn { question: t[0].into(), answer: t.get(1).map(|&a| a.into()) }).collect();
        let generate = case["task"] == "generation";
        let tok = load("tiny/checkpoint/phi3", true);
        let tok = if generate { tok.with_codes(64) } else { tok };
        let picture = !case["image_position"].is_null();
        let prompt = build(&tok, &turns, picture, generate, None).unwrap();
        assert_eq!(prompt.text, case["prompt"].as_str().unwrap(), "{name}");
        assert_eq!(prompt.input_ids(), signed(&case["input_ids"]), "{name}");
        let place = prompt.slots.iter().position(|s| *s == Slot::Picture);
        assert_eq!(place.map(|p| p as u64), case["image_position"].as_u64());
        if let Some(text) = case["text"].as_str() {
            assert_eq!(tok.decode(&ids(&case["generated_ids"])), text, "{name}");
        }
    }
}

#[test]
fn a_conversation_must_end_in_an_open_question() {
    let tok = load("tiny/checkpoint/phi3", true);
    let turn = |answer: Option<&str>| Turn { question: "q".into(), answer: answer.map(Into::into) };
    assert!(build(&tok, &[], false, false, None).is_err());
    assert!(build(&tok, &[turn(Some("a"))], false, false, None).is_err());
    assert!(build(&tok, &[turn(None), turn(None)], false, false, None).is_err());
    assert!(build(&tok, &[turn(None)], false, true, None).is_err());
    assert!(build(&tok, &[turn(Some("a")), turn(None)], false, false, None).is_ok());
}

#[test]
fn a_megabyte_of_text_is_encoded_in_seconds() {
    let tok = phi3();
    let start = std::time::Instant::now();
    for text in ["The liver is normal.\n".repeat(50_000), "<".repeat(1 << 20), " ".repeat(1 << 20)] {
        let ids = tok.encode(&[Piece::Template(&text)], true).unwrap();
        assert!(ids.len() > 1000);
    }
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn a_damaged_file_is_an_error() {
    let file = std::fs::read(data("tiny/checkpoint/phi3/tokenizer.json")).unwrap();
    for cut in (0..file.len() - 1).step_by(97) {
        assert!(Tokenizer::new(&file[..cut], None).is_err(), "{cut}");
    }
    // One byte changed: an error or a tokenizer that works, never a panic.
    for at in (0..file.len()).step_by(61) {
        let mut file = file.clone();
        for byte in [b'9', b'"', b'[', 0xff] {
            file[at] = byte;
            if let Ok(tok) = Tokenizer::new(&file, None) {
                let tok = tok.with_codes(4);
                let ids = tok.encode(&[Piece::Template("<|user|>\nµ liver 5 <idx_3>")], true);
                tok.decode(&ids.unwrap_or_default());
            }
        }
    }
    let far = br#"{"added_tokens":[{"id":4294967295,"content":"<x>"}],"normalizer":{"type":"Prepend","prepend":"\u2581"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}"#;
    assert!(Tokenizer::new(far, None).unwrap_err().contains("limit"));
    assert!(Tokenizer::new("[".repeat(100_000).as_bytes(), None).is_err());
}

/// GPT-2's way, with a Llama-3 style BOS in the post-processor.
fn byte_level() -> Tokenizer {
    let vocab: serde_json::Map<String, Value> = ["Ġ", "h", "i", "l", "Ċ", "hi", "Ġhi", "Ã", "©", "<", "x", ">", "Ġl"]
        .iter()
        .enumerate()
        .map(|(id, t)| (t.to_string(), id.into()))
        .collect();
    let n = vocab.len();
    let added = |id: usize, content: &str, strip: bool, word: bool, normalized: bool, special: bool| {
        serde_json::json!({"id": n + id, "content": content, "lstrip": strip, "rstrip": strip,
            "single_word": word, "normalized": normalized, "special": special})
    };
    let file = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [
            added(0, "<bos>", false, false, false, true),
            added(1, "<s>", true, false, false, true),
            added(2, "ll", false, true, true, false),
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [n], "tokens": ["<bos>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [["h", "i"], ["Ġ", "hi"], ["Ġ", "l"]]},
    });
    Tokenizer::new(file.to_string().as_bytes(), None).unwrap()
}

#[test]
fn a_byte_level_tokenizer_keeps_its_own_rules() {
    let tok = byte_level();
    let encode = |pieces: &[Piece<'_>], first| tok.encode(pieces, first).unwrap();
    assert_eq!(encode(&[Piece::Text("hi hi")], false), [5, 6]);
    assert_eq!(encode(&[Piece::Text("hi")], true), [13, 5]);
    assert_eq!(encode(&[], true), [13]);
    assert_eq!(encode(&[Piece::Template("hi  <s>\n hi")], false), [5, 14, 5]);
    assert_eq!(encode(&[Piece::Text("<s>")], false), [9, 11]); // "s" is in no piece and there is no unknown token
    assert_eq!(encode(&[Piece::Template("h"), Piece::Text("i")], false), [5]);
    assert_eq!(encode(&[Piece::Template("hi ll")], false), [5, 0, 15]);
    assert_eq!(encode(&[Piece::Template("llhi")], false), [3, 3, 5]);
    assert_eq!(encode(&[Piece::Template("ll"), Piece::Text("hi")], false), [3, 3, 5]);
    assert_eq!(encode(&[Piece::Text("é")], false), [7, 8]);
    assert_eq!(tok.decode(&[13, 6, 14, 5, 15, 7, 8, 4, 7]), " hihillé\n\u{fffd}");
    let tok = tok.with_codes(2);
    assert_eq!(tok.len(), 16);
    assert_eq!(tok.encode(&[Piece::Template("<start_index><idx_1>")], false).unwrap(), [16, 18]);
    assert_eq!(tok.decode(&[5, 16, 17, 18, 19, 20, 21]), "hi");
}

#[test]
fn a_llama_configuration_says_whether_a_bos_is_put() {
    let json = std::fs::read(data("tiny/checkpoint/phi3/tokenizer.json")).unwrap();
    let first = |config: &str, first: bool| {
        let tok = Tokenizer::new(&json, Some(config.as_bytes())).unwrap();
        tok.encode(&[Piece::Text("a")], first).unwrap()[0]
    };
    let config = r#"{"tokenizer_class": "LlamaTokenizer", "bos_token": {"content": "<s>"}}"#;
    assert_eq!(first(config, true), 1);
    assert_ne!(first(config, false), 1);
    assert_ne!(first(r#"{"tokenizer_class": "LlamaTokenizer", "add_bos_token": false}"#, true), 1);
    let config = r#"{"add_bos_token": true, "bos_token": "nowhere"}"#;
    assert!(Tokenizer::new(&json, Some(config.as_bytes())).is_err());
}

#[test]
fn a_file_saved_with_the_codes_keeps_them() {
    let path = data("tiny/checkpoint/phi3/tokenizer.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (i, content) in ["<start_index>", "<idx_0>", "<end_index>", "<pixel_newline>"].iter().enumerate() {
        let token = serde_json::json!({"id": 523 + i, "content": content, "lstrip": false, "rstrip": false,
            "single_word": false, "normalized": false, "special": true});
        file["added_tokens"].as_array_mut().unwrap().push(token);
    }
    let load = || Tokenizer::new(file.to_string().as_bytes(), None).unwrap();
    let tok = load().with_codes(1);
    assert_eq!((tok.len(), tok.start_index(), tok.len_with_codes()), (523, Some(523), 527));
    let tok = load().with_codes(2);
    assert_eq!((tok.len(), tok.start_index()), (527, Some(527)));
}
