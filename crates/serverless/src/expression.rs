//! What stands between `${` and `}`: a reference, a call, or a text.

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    /// `vars.region`, `resources.web.output.url[0]`.
    Reference(Vec<String>),
    /// `env('X', 'default')`.
    Call(String, Vec<Expression>),
    /// A text between quotes, or a number.
    Literal(String),
}

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// As it is.
    Text(&'a str),
    /// Between `${` and `}`.
    Expression(&'a str),
}

/// The pieces of a text. A `${` without its end is text.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find("${") {
        let Some(length) = end(&rest[begin + 2..]) else { break };
        if begin > 0 {
            pieces.push(Piece::Text(&rest[..begin]));
        }
        pieces.push(Piece::Expression(&rest[begin + 2..begin + 2 + length]));
        rest = &rest[begin + 3 + length..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// Where the brace is that ends an expression; quotes and inner braces are passed over.
fn end(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0usize, None);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

/// Reads an expression; `None` for anything else, such as an operator.
pub(crate) fn parse(text: &str) -> Option<Expression> {
    let mut reader = Reader { rest: text.trim() };
    let read = reader.expression(0)?;
    reader.rest.trim().is_empty().then_some(read)
}

/// Calls within calls; nobody writes more.
const DEEPEST: usize = 8;

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn expression(&mut self, depth: usize) -> Option<Expression> {
        self.rest = self.rest.trim_start();
        if depth > DEEPEST {
            return None;
        }
        if let Some(quote) = self.rest.chars().next().filter(|letter| matches!(letter, '\'' | '"' | '`')) {
            let (text, rest) = self.rest[1..].split_once(quote)?;
            self.rest = rest;
            return Some(Expression::Literal(text.to_owned()));
        }
        let name = self.name()?;
        if self.rest.starts_with('(') {
            self.rest = &self.rest[1..];
            return Some(Expression::Call(name, self.arguments(depth)?));
        }
        if name.parse::<f64>().is_ok() {
            return Some(Expression::Literal(name));
        }
        let mut way = vec![name];
        loop {
            if let Some(rest) = self.rest.strip_prefix('.') {
                self.rest = rest;
                way.push(self.name()?);
            } else if let Some(rest) = self.rest.strip_prefix('[') {
                let (inner, rest) = rest.split_once(']')?;
                way.push(inner.trim().trim_matches(['\'', '"']).to_owned());
                self.rest = rest;
            } else {
                return Some(Expression::Reference(way));
            }
        }
    }

    fn arguments(&mut self, depth: usize) -> Option<Vec<Expression>> {
        let mut all = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix(')') {
                self.rest = rest;
                return Some(all);
            }
            if !all.is_empty() {
                self.rest = self.rest.strip_prefix(',')?;
            }
            all.push(self.expression(depth + 1)?);
        }
    }

    fn name(&mut self) -> Option<String> {
        let length = self.rest.find(|c: char| !(c.is_alphanumeric() || "_-$@".contains(c))).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        (!name.is_empty()).then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_calls_and_texts() {
        let way = |words: &[&str]| Expression::Reference(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(parse(" vars.chat-server.name "), Some(way(&["vars", "chat-server", "name"])));
        assert_eq!(parse("a.url.custom_domain[0].domain"), Some(way(&["a", "url", "custom_domain", "0", "domain"])));
        let call = Expression::Call("path".to_owned(), vec![Expression::Literal("../".to_owned())]);
        let env = Expression::Call("env".to_owned(), vec![Expression::Literal("X".to_owned()), call]);
        assert_eq!(parse("env('X', path(\"../\"))"), Some(env));
        for other in ["", "a ||", "a == b", "env(", "env('x'", "'x", ".a", "a."] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_text_is_cut_into_pieces() {
        use Piece::{Expression as E, Text as T};
        assert_eq!(pieces("a${vars.x}-${env('}')}b"), [T("a"), E("vars.x"), T("-"), E("env('}')"), T("b")]);
        assert_eq!(pieces("${a"), [T("${a")]);
        assert_eq!(pieces("$a {b}"), [T("$a {b}")]);
    }
}
