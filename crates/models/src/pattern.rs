//! Patterns of file names with `*`, which stands for any characters, slashes included. Pure.

/// Whether a pattern means a path. A pattern that ends with a slash means all that is below.
pub(crate) fn fits(pattern: &str, path: &str) -> bool {
    if pattern.ends_with('/') {
        return path.starts_with(pattern);
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, path) in [
            ("*", "a/b"),
            ("*.json", "x/y.json"),
            ("onnx/*", "onnx/m"),
            ("onnx/", "onnx/a/b"),
            ("a*b*c", "a-b-b-c"),
            ("a", "a"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in
            [("a", "ab"), ("*.json", "y.jsonl"), ("a*a", "a"), ("onnx/", "onnx"), ("", "a"), ("a*b*c", "a-c-b")]
        {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
    }
}
