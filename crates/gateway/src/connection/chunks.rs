//! Chunks of a request's body, followed byte by byte so that its end is known. Pure; data is skipped, not looked at.

use super::fault::Fault;

/// Bytes of extensions that one chunk may have; nobody is known to send any.
const EXTENSION: usize = 256;
/// Bytes of trailers.
const TRAILERS: usize = 8 << 10;
/// Hexadecimal digits of a chunk's size: 64 PiB and more are refused.
const DIGITS: u8 = 14;

/// How far a body has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunks {
    at: ChunkState,
    /// Bytes of data, framing apart, that may still be announced.
    left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        size: u64,
        length: usize,
    },
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataEnd,
    DataEndFeed,
    /// At the start of a trailer line, or of the empty one.
    Trailer {
        length: usize,
    },
    TrailerLine {
        length: usize,
    },
    TrailerFeed {
        length: usize,
    },
    LastFeed,
    Over,
}

/// What was found in a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkPart {
    /// All of the piece belongs to the body, and more of it follows.
    More,
    /// The body ends behind so many bytes.
    End(usize),
    /// At this byte something is wrong.
    Wrong(usize, Fault),
}

impl Chunks {
    /// Those of a body of which so many bytes are taken.
    pub(crate) fn new(most: u64) -> Self {
        Self { at: ChunkState::Size { digits: 0, size: 0 }, left: most }
    }

    /// Follows the body through its next piece.
    pub(crate) fn follow(&mut self, piece: &[u8]) -> ChunkPart {
        let mut place = 0;
        while let Some(byte) = piece.get(place).copied() {
            if let ChunkState::Data { left } = self.at {
                let here = (piece.len() - place) as u64;
                let taken = left.min(here);
                self.at = if taken == left { ChunkState::DataEnd } else { ChunkState::Data { left: left - taken } };
                place += usize::try_from(taken).unwrap_or(piece.len() - place);
                continue;
            }
            match self.step(byte) {
                Ok(true) => return ChunkPart::End(place + 1),
                Ok(false) => place += 1,
                Err(fault) => return ChunkPart::Wrong(place, fault),
            }
        }
        ChunkPart::More
    }

    /// Whether the last byte was seen.
    pub(crate) fn is_over(&self) -> bool {
        self.at == ChunkState::Over
    }

    /// Takes one byte that is not data: whether it was the last.
    fn step(&mut self, byte: u8) -> Result<bool, Fault> {
        self.at = match (self.at, byte) {
            (ChunkState::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < DIGITS => {
                let digit = char::from(byte).to_digit(16).ok_or(Fault::Chunk)?;
                ChunkState::Size { digits: digits + 1, size: size * 16 + u64::from(digit) }
            }
            (ChunkState::Size { digits: 1.., size }, b';') => ChunkState::Extension { size, length: 0 },
            (ChunkState::Size { digits: 1.., size }, b'\r') => ChunkState::SizeEnd { size },
            (ChunkState::Extension { size, .. }, b'\r') => ChunkState::SizeEnd { size },
            (ChunkState::Extension { size, length }, 0x20..=0x7e | b'\t') if length < EXTENSION => {
                ChunkState::Extension { size, length: length + 1 }
            }
            (ChunkState::SizeEnd { size: 0 }, b'\n') => ChunkState::Trailer { length: 0 },
            (ChunkState::SizeEnd { size }, b'\n') => {
                self.left = self.left.checked_sub(size).ok_or(Fault::BodyTooLarge)?;
                ChunkState::Data { left: size }
            }
            (ChunkState::DataEnd, b'\r') => ChunkState::DataEndFeed,
            (ChunkState::DataEndFeed, b'\n') => ChunkState::Size { digits: 0, size: 0 },
            (ChunkState::Trailer { .. }, b'\r') => ChunkState::LastFeed,
            (ChunkState::LastFeed, b'\n') => {
                self.at = ChunkState::Over;
                return Ok(true);
            }
            // A line that begins with a blank would be a folded one.
            (ChunkState::Trailer { length }, 0x21..=0x7e) => ChunkState::TrailerLine { length: length + 1 },
            (ChunkState::TrailerLine { length }, b'\r') => ChunkState::TrailerFeed { length },
            (ChunkState::TrailerLine { length }, b'\t' | 0x20..=0x7e | 0x80..) if length < TRAILERS => {
                ChunkState::TrailerLine { length: length + 1 }
            }
            (ChunkState::TrailerFeed { length }, b'\n') => ChunkState::Trailer { length },
            _ => return Err(Fault::Chunk),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_end_where_they_end_however_they_are_cut() {
        for (body, end) in [
            ("0\r\n\r\nGET", 5),
            ("3\r\nabc\r\n0\r\n\r\n", 13),
            ("A;name=value\r\n0123456789\r\n00\r\nx: 1\r\n\r\nrest", 38),
        ] {
            assert_eq!(Chunks::new(1 << 20).follow(body.as_bytes()), ChunkPart::End(end), "{body:?}");
            let mut chunks = Chunks::new(1 << 20);
            let found = body.bytes().enumerate().find_map(|(place, byte)| match chunks.follow(&[byte]) {
                ChunkPart::More => None,
                other => Some((place, other)),
            });
            assert_eq!(found, Some((end - 1, ChunkPart::End(1))), "{body:?}");
        }
    }

    #[test]
    fn too_much_is_found_where_it_is_announced() {
        let body = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
        let too_much = ChunkPart::Wrong(10, Fault::BodyTooLarge);
        assert_eq!(Chunks::new(6).follow(body), too_much);
        assert_eq!(Chunks::new(7).follow(body), ChunkPart::End(body.len()));
        let mut chunks = Chunks::new(6);
        assert_eq!(
            (chunks.follow(&body[..9]), chunks.follow(&body[9..])),
            (ChunkPart::More, ChunkPart::Wrong(1, Fault::BodyTooLarge))
        );
    }

    #[test]
    fn what_is_not_a_chunk_is_found() {
        let long = format!("1;{}\r\nx", "e".repeat(300));
        for body in [
            "\r\n",
            "x\r\n",
            "3\nabc",
            "3 \r\nabc",
            "3\r\nabcd",
            "3\r\nabc\n",
            "-1\r\n",
            "0x1\r\n",
            "0\r\n x: 1\r\n\r\n",
            "0\r\nx: 1\n\r\n",
            "fffffffffffffff\r\n",
            "1;\n",
            "1;\0\r\n",
            &long,
        ] {
            assert!(
                matches!(Chunks::new(1 << 20).follow(body.as_bytes()), ChunkPart::Wrong(_, Fault::Chunk)),
                "{body:?}"
            );
        }
    }
}
