//! Compressed bodies, as far as they must be read to find out where they go. What is passed on stays as it came.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use ruzstd::decoding::FrameDecoder;

/// Compressed bytes that are decoded at once.
const STEP: usize = 1 << 10;
/// The same of zstd, whose decoder holds what comes of all whole blocks: 4 bytes can be a block of 128 KiB.
const ZSTD_STEP: usize = 128;
/// What a zstd frame may look back on (RFC 8878, section 3.1.1.1.2, recommends decoders to take 8 MiB).
const ZSTD_WINDOW: u64 = 8 << 20;

/// The decoder wants all of a frame's header at once (RFC 8878, section 3.1.1). No request is shorter.
const LONGEST_FRAME_HEADER: usize = 18;

/// A body is compressed in a way that is not known here, or not as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecodeError;

/// Decodes a body as it comes, up to a bound.
#[derive(Debug)]
pub(crate) struct Decoder {
    coding: Coding,
    /// Decoded bytes that are kept.
    most: usize,
}

enum Coding {
    Identity,
    Gzip(MultiGzDecoder<BoundedBuffer>),
    /// With its header, or without it, as some send it: known when the first byte is there.
    Deflate(Option<Deflate>),
    Zstd(Box<Zstd>),
    Brotli(Box<brotli_decompressor::DecompressorWriter<BoundedBuffer>>),
}

enum Deflate {
    Zlib(ZlibDecoder<BoundedBuffer>),
    Raw(DeflateDecoder<BoundedBuffer>),
}

/// Takes decoded bytes up to a bound and fails beyond it, so that no decoder goes on there.
struct BoundedBuffer {
    bytes: Vec<u8>,
    most: usize,
}

impl BoundedBuffer {
    fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most }
    }
}

impl Write for BoundedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.most.saturating_sub(self.bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let taken = &bytes[..bytes.len().min(room)];
        self.bytes.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Zstd {
    decoder: FrameDecoder,
    /// Not decoded yet.
    input: Vec<u8>,
    output: Vec<u8>,
    most: usize,
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
    pub(crate) fn of(headers: &HeaderMap, most: usize) -> Result<Self, DecodeError> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let coding = match codings.next().map(|value| value.to_str()) {
            _ if codings.next().is_some() => return Err(DecodeError),
            None => Coding::Identity,
            Some(Err(_)) => return Err(DecodeError),
            Some(Ok(name)) => match name.trim().to_ascii_lowercase().as_str() {
                "" | "identity" => Coding::Identity,
                "gzip" | "x-gzip" => Coding::Gzip(MultiGzDecoder::new(BoundedBuffer::new(most))),
                "deflate" => Coding::Deflate(None),
                "zstd" => {
                    let mut decoder = FrameDecoder::new();
                    decoder.set_max_window_size(ZSTD_WINDOW);
                    Coding::Zstd(Box::new(Zstd { decoder, input: Vec::new(), output: Vec::new(), most }))
                }
                "br" => {
                    let out = BoundedBuffer::new(most);
                    Coding::Brotli(Box::new(brotli_decompressor::DecompressorWriter::new(out, 4 << 10)))
                }
                _ => return Err(DecodeError),
            },
        };
        Ok(Self { coding, most })
    }

    /// What is decoded so far of what was `read`.
    pub(crate) fn decoded<'a>(&'a self, read: &'a [u8]) -> &'a [u8] {
        match &self.coding {
            Coding::Identity => read,
            Coding::Gzip(decoder) => &decoder.get_ref().bytes,
            Coding::Deflate(None) => &[],
            Coding::Deflate(Some(Deflate::Zlib(decoder))) => &decoder.get_ref().bytes,
            Coding::Deflate(Some(Deflate::Raw(decoder))) => &decoder.get_ref().bytes,
            Coding::Zstd(zstd) => &zstd.output,
            Coding::Brotli(decoder) => &decoder.get_ref().bytes,
        }
    }

    /// Takes the next bytes, and says how many more are kept of them decoded.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        if matches!(self.coding, Coding::Identity) {
            return Ok(0);
        }
        let before = self.decoded(&[]).len();
        let step = if matches!(self.coding, Coding::Zstd(_)) { ZSTD_STEP } else { STEP };
        for piece in bytes.chunks(step) {
            if self.decoded(&[]).len() >= self.most {
                break;
            }
            let written = self.coding.write(piece, self.most);
            // At the bound it is not the body's fault that it does not go on.
            if written.is_err() && self.decoded(&[]).len() < self.most {
                return Err(DecodeError);
            }
        }
        Ok(self.decoded(&[]).len() - before)
    }
}

impl Coding {
    fn write(&mut self, piece: &[u8], most: usize) -> io::Result<()> {
        match self {
            Self::Identity => Ok(()),
            Self::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => {
                // A method of 8 in its low bits is a header (RFC 1950, section 2.2).
                let fresh = || match piece.first() {
                    Some(first) if first & 0x0f == 8 => Deflate::Zlib(ZlibDecoder::new(BoundedBuffer::new(most))),
                    _ => Deflate::Raw(DeflateDecoder::new(BoundedBuffer::new(most))),
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
        while self.output.len() < self.most {
            let rest = self.input.get(used..).unwrap_or_default();
            let (read, written) = self.decoder.decode_from_to(rest, &mut chunk).map_err(io::Error::other)?;
            self.output.extend_from_slice(&chunk[..written]);
            // The decoder counts a checksum that is not there yet.
            let whole = read <= rest.len();
            used += if whole { read } else { 0 };
            if !whole || (read == 0 && written == 0) {
                break;
            }
        }
        self.input.drain(..used.min(self.input.len()));
        Ok(())
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

    fn decoded(coding: &'static str, bytes: &[u8], step: usize) -> Result<Vec<u8>, DecodeError> {
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
        // One frame of 64 MiB: a header without checksum and with a window of 1 MiB, then blocks of one repeated byte.
        let mut zstd = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50];
        for block in 0..512 {
            let header = (128u32 << 10) << 3 | 1 << 1 | u32::from(block == 511);
            zstd.extend_from_slice(&header.to_le_bytes()[..3]);
            zstd.push(b' ');
        }
        for (coding, bomb) in [("gzip", gzip(&vec![b' '; 64 << 20])), ("zstd", zstd)] {
            let mut decoder = Decoder::of(&headers(coding), 1 << 20).unwrap();
            decoder.push(&bomb).unwrap();
            let length = decoder.decoded(&[]).len();
            assert!((1 << 20..=(1 << 20) + (8 << 10)).contains(&length), "{coding}: {length} bytes");
        }
    }

    #[test]
    fn brotli_is_read_up_to_the_bound() {
        // A window of 64 KiB, then one block that is not compressed: "hello".
        let hello = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(decoded("br", &hello, 1).as_deref(), Ok(&b"hello"[..]));
        let mut decoder = Decoder::of(&headers("br"), 3).unwrap();
        decoder.push(&hello).unwrap();
        assert_eq!(decoder.decoded(&[]), b"hel");
    }

    #[test]
    fn what_is_not_as_it_says_is_not_read() {
        assert_eq!(decoded("gzip", TEXT, 4_096), Err(DecodeError));
        assert_eq!(decoded("zstd", TEXT, 4_096), Err(DecodeError));
        assert!(Decoder::of(&headers("compress"), 1).is_err() && Decoder::of(&headers("gzip, br"), 1).is_err());
    }
}
