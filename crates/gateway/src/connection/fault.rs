//! What may be wrong with how a request comes in, and what its sender is told.

use std::time::Duration;

use kip_spec::{Bytes, Code, Millis, Problem, code};

use super::guard::Bounds;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident $code:ident $text:literal;)*) => {
        /// Something wrong with a request's bytes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// Every fault there is, in order.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its stable code.
            pub(crate) fn code(self) -> Code {
                match self { $(Self::$name => code::$code,)* }
            }

            /// In a sentence without a subject: the request …
            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

faults! {
    /// A line ends with LF alone.
    BareLineFeed BAD_REQUEST "has a line that ends with a bare line feed";
    /// A header goes on in a second line.
    Folded BAD_REQUEST "has a header folded over two lines";
    /// A header's name is none.
    HeaderName BAD_REQUEST "has a header whose name is not a token directly followed by a colon";
    /// A header's value has control characters.
    HeaderValue BAD_REQUEST "has a header with control characters in its value";
    /// No Host where there must be one.
    NoHost BAD_REQUEST "has no Host header";
    /// Two of them.
    TwoHosts BAD_REQUEST "has two Host headers";
    /// Not a host.
    Host BAD_REQUEST "has a Host header that is not a host and a port";
    /// Not three words.
    RequestLine BAD_REQUEST "does not begin with a method, a target and a version";
    /// No function takes it, and what follows would not be HTTP.
    Connect BAD_REQUEST "asks for CONNECT, which is not taken here";
    /// Not a target.
    Target BAD_REQUEST "has a target that is not a path or an http address";
    /// Not a version that is spoken.
    Version VERSION_UNKNOWN "is of a version of HTTP that is not spoken here";
    /// A length besides chunks.
    LengthAndChunks FRAMING "has both Content-Length and Transfer-Encoding";
    /// Two lengths, even equal ones.
    TwoLengths FRAMING "has two Content-Length headers";
    /// Not a number.
    Length FRAMING "has a Content-Length that is not one number";
    /// Not `chunked` alone.
    Coding FRAMING "has a Transfer-Encoding other than `chunked`";
    /// HTTP/1.0 has no chunks.
    CodingInOldVersion FRAMING "is HTTP/1.0 and has a Transfer-Encoding";
    /// A chunk that is none.
    Chunk FRAMING "has a body that is not well-formed chunks";
    /// Another protocol is asked for while an answer is under way.
    EarlyUpgrade BAD_REQUEST "asks for another protocol before the answers to earlier requests are over";
    /// Too many bytes.
    HeadTooLarge HEAD_TOO_LARGE "has a head larger than limits.head allows";
    /// Too many lines.
    TooManyHeaders HEAD_TOO_LARGE "has more headers than limits.headers allows";
    /// Too long a target.
    TargetTooLong TARGET_TOO_LONG "has a target longer than limits.target allows";
    /// The head did not come in time.
    HeadLate REQUEST_LATE "did not send its head within limits.head_time";
    /// The body stopped coming.
    BodyLate REQUEST_LATE "sent nothing of its body for limits.body_idle";
    /// The body is larger than the gateway takes.
    BodyTooLarge BODY_TOO_LARGE "has a body larger than limits.body allows";
}

impl Fault {
    /// What its sender is told.
    pub(crate) fn problem(self, bounds: &Bounds) -> Problem {
        let problem = Problem::new(self.code(), format!("the request {}", self.text()));
        match self.limit(bounds) {
            Some(limit) => problem.cause(limit).hint("the limits are set in kipwake.toml, see docs/limits.md"),
            None => problem.hint("docs/protocols.md lists what is refused and why"),
        }
    }

    /// The limit that was passed.
    fn limit(self, bounds: &Bounds) -> Option<String> {
        let time = |time: Duration| Millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Some(match self {
            Self::HeadTooLarge => format!("limits.head is {}", Bytes(bounds.head.head as u64)),
            Self::TooManyHeaders => format!("limits.headers is {}", bounds.head.headers),
            Self::TargetTooLong => format!("limits.target is {}", Bytes(bounds.head.target as u64)),
            Self::HeadLate => format!("limits.head_time is {}", time(bounds.head_time)),
            Self::BodyLate => format!("limits.body_idle is {}", time(bounds.body_idle)),
            Self::BodyTooLarge => format!("limits.body is {}", Bytes(bounds.body)),
            _ => return None,
        })
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}
