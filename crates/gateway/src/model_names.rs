//! Functions by the further names of their models, such as `Qwen/Qwen3-8B`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use kip_control::{Cell, Control};
use kip_spec::ModelName;

/// Names that a thread remembers at most; beyond, it begins anew.
const MOST: usize = 10_000;
/// Parts of a path that can be one name.
const PARTS: usize = 6;

/// What a thread remembers of the names that were asked for: a hint, which is checked against the function each time.
#[derive(Debug, Default)]
pub(crate) struct ModelNames(RefCell<HashMap<String, String>>);

impl ModelNames {
    /// The function whose serving version has this name.
    pub(crate) fn find(&self, control: &Control, name: &str) -> Option<Arc<Cell>> {
        let has = |cell: &Cell| cell.serving().spec.names.iter().any(|known| known.as_str() == name);
        let hint = self.0.borrow().get(name).and_then(|function| control.cell(function));
        if let Some(cell) = hint.filter(|cell| has(cell)) {
            return Some(cell);
        }
        name.parse::<ModelName>().ok()?;
        // Deployments keep names unique; were one there twice all the same, the choice would not change from request to request.
        let first: RefCell<Option<String>> = RefCell::default();
        control.any(|cell| {
            let mut first = first.borrow_mut();
            if first.as_deref().is_none_or(|known| cell.name().as_str() < known) && has(cell) {
                *first = Some(cell.name().to_string());
            }
            false
        });
        let function = first.into_inner()?;
        let mut known = self.0.borrow_mut();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(name.to_owned(), function.clone());
        drop(known);
        control.cell(&function)
    }
}

/// What may be the model's name at the beginning of a path: its first part, and more of them, the longest last.
pub(crate) fn candidates(rest: &str) -> impl Iterator<Item = &str> {
    let ends = rest.match_indices('/').map(|(at, _)| at).chain(std::iter::once(rest.len()));
    ends.take(PARTS).map(|end| &rest[..end])
}

/// A name as it was before a client escaped it. What is no text then stays as it is.
pub(crate) fn decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    String::from_utf8(kip_spec::escape::unescaped(text)).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        for (text, name) in [
            ("Qwen%2FQwen3-8B", "Qwen/Qwen3-8B"),
            ("ocr%40prod", "ocr@prod"),
            ("qwen2.5:7b", "qwen2.5:7b"),
            ("a%252Fb", "a%2Fb"),
            ("a%2", "a%2"),
            ("%ff", "%ff"),
            ("%+1", "%+1"),
        ] {
            assert_eq!(decoded(text), name, "{text}");
        }
    }

    #[test]
    fn a_name_may_have_slashes() {
        let all: Vec<&str> = candidates("Qwen/Qwen3-8B/infer").collect();
        assert_eq!(all, ["Qwen", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B/infer"]);
        assert_eq!(candidates("digits").collect::<Vec<_>>(), ["digits"]);
        assert_eq!(candidates(&"a/".repeat(50)).count(), PARTS);
    }
}
