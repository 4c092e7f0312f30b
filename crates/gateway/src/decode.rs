//! Compressed bodies, as far as they must be read to find out where they go. What is passed on stays as it came.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use ruzstd::decoding::FrameDecoder;

/// Compressed bytes that are decoded at once: a thousandfold of them is all that may come beyond the bound.
const STEP: usize = 1 << 10;

/// The decoder wants all of a frame's header at once (RFC 8878, section 3.1.1). No request is shorter.
const LONGEST_FRAME_HEADER: usize = 18;

/// A body is compressed in a way that is not known here, or not as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Decodes a body as it comes, up to a bound.
#[derive(Debug)]
pub(crate) struct Decoder {
    coding: Coding,
    /// Decoded bytes that are kept.
    most: usize,
}

enum Coding {
    Identity,
    Gzip(MultiGzDecoder<Vec<u8>>),
    /// With its header, or without it, as some send it: known when the first byte is there.
    Deflate(Option<Deflate>),
    Zstd(Box<Zstd>),
    Brotli(Box<brotli_decompressor::DecompressorWriter<Vec<u8>>>),
}

enum Deflate {
    Zlib(ZlibDecoder<Vec<u8>>),
    Raw(DeflateDecoder<Vec<u8>>),
}

struct Zstd {
    decoder: FrameDecoder,
    /// Not decoded yet.
    input: Vec<u8>,
    output: Vec<u8>,
}

impl std::fmt::Debug for Coding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Gzip(_) => "gzip",
            Self::Deflate(_) => "deflate",
            Self::Zstd(_) => "zstd",
            Self::Brotli(_) => "br",
        })
    }
}

impl Decoder {
    /// For a body with these headers.
    pub(crate) fn of(headers: &HeaderMap, most: usize) -> Result<Self, Unreadable> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let coding = match codings.next().map(|value| value.to_str()) {
            _ if codings.next().is_some() => return Err(Unreadable),
            None => Coding::Identity,
            Some(Err(_)) => return Err(Unreadable),
            Some(Ok(name)) => match name.trim().to_ascii_lowercase().as_str() {
                "" | "identity" => Coding::Identity,
                "gzip" | "x-gzip" => Coding::Gzip(MultiGzDecoder::new(Vec::new())),
                "deflate" => Coding::Deflate(None),
                "zstd" => {
                    Coding::Zstd(Box::new(Zstd { decoder: FrameDecoder::new(), input: Vec::new(), output: Vec::new() }))
                }
                "br" => Coding::Brotli(Box::new(brotli_decompressor::DecompressorWriter::new(Vec::new(), 4 << 10))),
                _ => return Err(Unreadable),
            },
        };
        Ok(Self { coding, most })
    }

    /// What is decoded so far of what was `read`.
    pub(crate) fn decoded<'a>(&'a self, read: &'a [u8]) -> &'a [u8] {
        match &self.coding {
            Coding::Identity => read,
            Coding::Gzip(decoder) => decoder.get_ref(),
            Coding::Deflate(None) => &[],
            Coding::Deflate(Some(Deflate::Zlib(decoder))) => decoder.get_ref(),
            Coding::Deflate(Some(Deflate::Raw(decoder))) => decoder.get_ref(),
            Coding::Zstd(zstd) => &zstd.output,
            Coding::Brotli(decoder) => decoder.get_ref(),
        }
    }

    /// Takes the next bytes, and says how many more are kept of them decoded.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<usize, Unreadable> {
        if matches!(self.coding, Coding::Identity) {
            return Ok(0);
        }
        let before = self.decoded(&[]).len();
        for piece in bytes.chunks(STEP) {
            if self.decoded(&[]).len() >= self.most {
                break;
            }
            self.coding.write(piece).map_err(|_| Unreadable)?;
        }
        Ok(self.decoded(&[]).len() - before)
    }
}

impl Coding {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Identity => Ok(()),
            Self::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => {
                // A method of 8 in its low bits is a header (RFC 1950, section 2.2).
                let fresh = || match piece.first() {
                    Some(first) if first & 0x0f == 8 => Deflate::Zlib(ZlibDecoder::new(Vec::new())),
                    _ => Deflate::Raw(DeflateDecoder::new(Vec::new())),
                };
                match decoder.get_or_insert_with(fresh) {
                    Deflate::Zlib(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
                    Deflate::Raw(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
                }
            }
            Self::Zstd(zstd) => zstd.write(piece),
            Self::Brotli(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
        }
    }
}

impl Zstd {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.input.extend_from_slice(piece);
        if self.output.is_empty() && self.input.len() < LONGEST_FRAME_HEADER {
            return Ok(());
        }
        let mut chunk = [0; 8 << 10];
        let mut used = 0;
        loop {
            let (read, written) =
                self.decoder.decode_from_to(&self.input[used..], &mut chunk).map_err(io::Error::other)?;
            used += read;
            self.output.extend_from_slice(&chunk[..written]);
            if read == 0 && written == 0 {
                self.input.drain(..used);
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;

    const TEXT: &[u8] = br#"{"messages": [{"role": "user", "content": "hello hello hello"}], "model": "m"}"#;

    fn headers(coding: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static(coding));
        headers
    }

    fn decoded(coding: &'static str, bytes: &[u8], step: usize) -> Result<Vec<u8>, Unreadable> {
        let mut decoder = Decoder::of(&headers(coding), 1 << 20)?;
        for piece in bytes.chunks(step) {
            decoder.push(piece)?;
        }
        Ok(decoder.decoded(&[]).to_vec())
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn codings_are_read_however_they_are_cut() {
        let zlib = {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(TEXT).unwrap();
            encoder.finish().unwrap()
        };
        let raw = {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(TEXT).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = ruzstd::encoding::compress_to_vec(TEXT, ruzstd::encoding::CompressionLevel::Fastest);
        for (coding, bytes) in [("gzip", gzip(TEXT)), ("deflate", zlib), ("deflate", raw), ("zstd", zstd)] {
            for step in [1, 5, 4_096] {
                assert_eq!(decoded(coding, &bytes, step).as_deref(), Ok(TEXT), "{coding} in pieces of {step}");
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let bomb = gzip(&vec![b' '; 64 << 20]);
        let mut decoder = Decoder::of(&headers("gzip"), 1 << 20).unwrap();
        decoder.push(&bomb).unwrap();
        assert!(decoder.decoded(&[]).len() < 4 << 20, "{} bytes", decoder.decoded(&[]).len());
    }

    #[test]
    fn what_is_not_as_it_says_is_not_read() {
        assert_eq!(decoded("gzip", TEXT, 4_096), Err(Unreadable));
        assert_eq!(decoded("zstd", TEXT, 4_096), Err(Unreadable));
        assert!(Decoder::of(&headers("compress"), 1).is_err() && Decoder::of(&headers("gzip, br"), 1).is_err());
    }
}
