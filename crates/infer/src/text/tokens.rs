//! Texts as tokens, by the `tokenizer.json` of a model. The tokens that mark the ends of a text are added here, because a text that is
//! too long loses its end and keeps them.

use kitoken::Kitoken;
use kitoken::convert::convert_tokenizers;
use serde_json::{Value, json};

/// A tokenizer.
#[derive(Debug)]
pub(super) struct Tokenizer {
    encoder: Kitoken,
    /// Before each text.
    before: Vec<u32>,
    /// After each text.
    after: Vec<u32>,
    /// The token that fills the rows of a batch.
    pub(super) padding: u32,
    /// One more than the largest token.
    pub(super) vocabulary: u32,
    /// Tokens of a text at most.
    pub(super) max_tokens: usize,
}

/// The tokens of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(super) ids: Vec<u32>,
    /// Whether the text was longer.
    pub(super) truncated: bool,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// What of it is not supported.
    pub(super) fn new(mut definition: Value, max_tokens: usize) -> Result<Self, String> {
        let (before, after) = ends(&definition)?;
        if before.len() + after.len() >= max_tokens {
            return Err(format!("texts may have only {max_tokens} tokens, those of their ends included"));
        }
        let padding = padding(&definition);
        let vocabulary = vocabulary(&definition);
        definition["post_processor"] = without_ends(definition["post_processor"].take());
        for key in ["truncation", "padding"] {
            definition[key] = Value::Null;
        }
        let text = serde_json::to_vec(&definition).map_err(|error| error.to_string())?;
        drop(definition);
        let converted = convert_tokenizers(&text).map_err(|error| error.to_string())?;
        let encoder = Kitoken::try_from(converted).map_err(|error| error.to_string())?;
        Ok(Self { encoder, before, after, padding, vocabulary, max_tokens })
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// A piece of the text that the vocabulary cannot express.
    pub(super) fn encode(&self, text: &str) -> Result<Tokens, String> {
        let mut ids = self.encoder.encode(text, true).map_err(|error| error.to_string())?;
        let room = self.max_tokens.saturating_sub(self.before.len() + self.after.len());
        let truncated = ids.len() > room;
        ids.truncate(room);
        let ids = [self.before.as_slice(), &ids, &self.after].concat();
        Ok(Tokens { ids, truncated })
    }

    /// The same for a text that comes as tokens. They are taken as they are.
    ///
    /// # Errors
    /// A token that the vocabulary does not have.
    pub(super) fn given(&self, mut ids: Vec<u32>) -> Result<Tokens, String> {
        if let Some(unknown) = ids.iter().find(|id| **id >= self.vocabulary) {
            return Err(format!("{unknown} is no token: the vocabulary ends at {}", self.vocabulary.saturating_sub(1)));
        }
        let truncated = ids.len() > self.max_tokens;
        ids.truncate(self.max_tokens);
        Ok(Tokens { ids, truncated })
    }
}

/// The processors of a definition, in order.
fn processors(value: &Value) -> Vec<&Value> {
    match value["type"].as_str() {
        Some("Sequence") => value["processors"].as_array().into_iter().flatten().flat_map(processors).collect(),
        Some(_) => vec![value],
        None => Vec::new(),
    }
}

/// The tokens before and after each text.
fn ends(definition: &Value) -> Result<(Vec<u32>, Vec<u32>), String> {
    let number = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for processor in processors(&definition["post_processor"]) {
        let odd = || format!("its post-processor {} is odd", processor["type"]);
        match processor["type"].as_str().unwrap_or_default() {
            "BertProcessing" | "RobertaProcessing" => {
                before.push(number(&processor["cls"][1]).ok_or_else(odd)?);
                after.push(number(&processor["sep"][1]).ok_or_else(odd)?);
            }
            "TemplateProcessing" => {
                let mut place = &mut before;
                for piece in processor["single"].as_array().ok_or_else(odd)? {
                    if piece.get("Sequence").is_some() {
                        place = &mut after;
                        continue;
                    }
                    let name = piece["SpecialToken"]["id"].as_str().ok_or_else(odd)?;
                    let ids = processor["special_tokens"][name]["ids"].as_array().ok_or_else(odd)?;
                    place.extend(ids.iter().map(number).collect::<Option<Vec<u32>>>().ok_or_else(odd)?);
                }
            }
            "ByteLevel" => {}
            other => return Err(format!("its post-processor {other} is not supported")),
        }
    }
    Ok((before, after))
}

/// A post-processor without those that add tokens.
fn without_ends(value: Value) -> Value {
    let is_byte_level = processors(&value).iter().any(|one| one["type"] == "ByteLevel");
    match is_byte_level {
        true => json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
        false => Value::Null,
    }
}

fn padding(definition: &Value) -> u32 {
    let named = definition.pointer("/padding/pad_id").and_then(Value::as_u64);
    let added = || {
        let tokens = definition["added_tokens"].as_array()?;
        let pad = tokens.iter().find(|token| ["[PAD]", "<pad>"].iter().any(|name| token["content"] == *name))?;
        pad["id"].as_u64()
    };
    named.or_else(added).and_then(|id| u32::try_from(id).ok()).unwrap_or(0)
}

fn vocabulary(definition: &Value) -> u32 {
    let vocabulary = &definition["model"]["vocab"];
    let listed = vocabulary.as_array().map(|pieces| pieces.len() as u64);
    let mapped = vocabulary.as_object().and_then(|pieces| pieces.values().filter_map(Value::as_u64).max());
    let added =
        definition["added_tokens"].as_array().into_iter().flatten().filter_map(|token| token["id"].as_u64()).max();
    let count = [listed, mapped.map(|id| id + 1), added.map(|id| id + 1)].into_iter().flatten().max();
    count.and_then(|count| u32::try_from(count).ok()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        let special = |(id, content): (usize, &&str)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true
            })
        };
        let added: Vec<Value> = ["[UNK]", "[CLS]", "[SEP]"].iter().enumerate().map(special).collect();
        json!({
            "version": "1.0",
            "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 7, "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": added,
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                "pair": [],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}}
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "play": 3, "##ing": 4, "cards": 5, "!": 6, "[PAD]": 7}
            }
        })
    }

    #[test]
    fn a_text_that_is_too_long_keeps_the_marks_of_its_ends() {
        let tokenizer = Tokenizer::new(definition(), 5).unwrap();
        assert_eq!((tokenizer.padding, tokenizer.vocabulary), (7, 8));
        let ids = |text: &str| tokenizer.encode(text).unwrap();
        assert_eq!(ids("Playing"), Tokens { ids: vec![1, 3, 4, 2], truncated: false });
        assert_eq!(ids("playing cards!"), Tokens { ids: vec![1, 3, 4, 5, 2], truncated: true });
        assert_eq!(ids(""), Tokens { ids: vec![1, 2], truncated: false });
        assert_eq!(ids("Tisch").ids, [1, 0, 2]);
        assert_eq!(tokenizer.given(vec![3, 9]).unwrap_err(), "9 is no token: the vocabulary ends at 7");
        assert!(Tokenizer::new(definition(), 2).is_err());
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let mut odd = definition();
        odd["post_processor"] = json!({"type": "Sequence", "processors": [{"type": "Reverse"}]});
        assert!(Tokenizer::new(odd, 5).unwrap_err().contains("Reverse"));
        let mut words = definition();
        words["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
        assert!(Tokenizer::new(words, 5).is_err());
    }
}
