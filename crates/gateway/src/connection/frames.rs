//! Frames of HTTP/2 as they come, by their headers alone: a caller that sends far more frames of control than requests and data is to be stopped.
//! Pure, and nothing is allocated.
//!
//! A connection has credit. Each frame that asks for work and brings nothing (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, RST_STREAM, CONTINUATION, unknown
//! types, DATA without content) costs some; time, requests, data, and what is sent to the caller earn some. Callers that take much of a stream send many
//! WINDOW_UPDATEs, callers that measure the way send a PING with much of their data: both earn what they spend.

/// Bytes of a frame's header (RFC 9113, section 4.1).
const HEADER: usize = 9;
/// What a connection begins with, before its first frame.
pub(super) const PREFACE: usize = 24;
/// Credit of a new connection, and the most that one can have.
const MOST: u32 = 4_000;
/// Credit that a second earns.
const PER_SECOND: u64 = 200;
/// Credit that a frame of data earns: a caller may send a PING or a WINDOW_UPDATE with each, and one more.
const PER_DATA: u32 = 2;
/// Credit that a request earns: it may be cancelled, and its stream may be given a priority and a window.
const PER_REQUEST: u32 = 6;
/// Bytes sent to the caller that earn one.
const SENT: u64 = 4 << 10;
/// Padded DATA up to this length may have no content.
const PADDED: u32 = 257;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const WITH_PADDING: u8 = 8;

/// Where the bytes of a caller are to be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flood {
    /// So many bytes of the piece may pass.
    pub(super) passes: usize,
    /// The header of a frame is among them, because it began in an earlier piece: so many bytes of content belong to it.
    pub(super) content: usize,
}

/// The frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes that belong to what began already: the preface, or a frame's content.
    left: usize,
    header: [u8; HEADER],
    /// Bytes of the next header that have come.
    read: usize,
    credit: u32,
    /// When time last earned credit, boot time.
    earned: u64,
    /// Bytes sent that have not earned yet.
    sent: u64,
}

impl Frames {
    pub(super) fn new(now: u64) -> Self {
        Self { left: PREFACE, header: [0; HEADER], read: 0, credit: MOST, earned: now, sent: 0 }
    }

    /// So many bytes were sent to the caller.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if self.sent >= SENT {
            self.earn(u32::try_from(self.sent / SENT).unwrap_or(u32::MAX));
            self.sent %= SENT;
        }
    }

    fn earn(&mut self, credit: u32) {
        self.credit = self.credit.saturating_add(credit).min(MOST);
    }

    /// Looks at the next bytes. If a frame among them is too much, they are to be cut off before it.
    pub(super) fn follow(&mut self, piece: &[u8], now: impl Fn() -> u64) -> Option<Flood> {
        let mut at = 0;
        loop {
            let skipped = self.left.min(piece.len() - at);
            self.left -= skipped;
            at += skipped;
            if at == piece.len() {
                return None;
            }
            let (begins, before) = (at, self.read);
            let taken = (HEADER - self.read).min(piece.len() - at);
            self.header[self.read..self.read + taken].copy_from_slice(&piece[at..at + taken]);
            self.read += taken;
            at += taken;
            if self.read < HEADER {
                return None;
            }
            self.read = 0;
            let [high, middle, low, ..] = self.header;
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if !self.is_paid(&now) {
                return Some(match before {
                    0 => Flood { passes: begins, content: 0 },
                    _ => Flood { passes: at, content: length },
                });
            }
            self.left = length;
        }
    }

    /// Takes what the frame with this header costs.
    fn is_paid(&mut self, now: impl Fn() -> u64) -> bool {
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]);
        match kind {
            DATA if length == 0 && flags & END_STREAM == 0 => {}
            DATA if flags & WITH_PADDING != 0 && length < PADDED && flags & END_STREAM == 0 => {}
            DATA => {
                self.earn(PER_DATA);
                return true;
            }
            HEADERS => {
                self.earn(PER_REQUEST);
                return true;
            }
            _ => {}
        }
        if self.credit == 0 {
            let (now, before) = (now(), self.earned);
            let earned = now.saturating_sub(before).saturating_mul(PER_SECOND) / 1_000;
            if earned == 0 {
                return false;
            }
            self.earned = now;
            self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
        }
        self.credit -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(content);
        bytes
    }

    fn begun() -> Frames {
        let mut frames = Frames::new(0);
        assert_eq!(frames.follow(&[b'p'; PREFACE], || 0), None);
        frames
    }

    /// How many frames pass until one is too much.
    fn stopped_after(one: &[u8], cut: usize) -> Option<usize> {
        let mut frames = begun();
        let bytes = one.repeat(20_000);
        let mut before = 0;
        for piece in bytes.chunks(cut) {
            if let Some(Flood { passes, content }) = frames.follow(piece, || 0) {
                let cut_off = before + passes;
                let whole = [0, HEADER].contains(&(cut_off % one.len()));
                assert!(whole && (content == 0 || content == one.len() - HEADER), "{cut_off} {content}");
                return Some(cut_off / one.len());
            }
            before += piece.len();
        }
        None
    }

    #[test]
    fn floods_are_stopped_at_the_same_frame_however_they_are_cut() {
        for (what, one) in [
            ("SETTINGS", frame(4, 0, &[0, 3, 0, 0, 1, 0])),
            ("PING", frame(6, 0, b"12345678")),
            ("PRIORITY", frame(2, 0, &[0; 5])),
            ("WINDOW_UPDATE", frame(8, 0, &[0, 0, 0, 1])),
            ("RST_STREAM", frame(3, 0, &[0; 4])),
            ("CONTINUATION", frame(9, 0, b"")),
            ("unknown", frame(0x42, 0, &[b'z'; 100])),
            ("empty DATA", frame(0, 0, b"")),
            ("padded empty DATA", frame(0, 8, &[255; 256])),
        ] {
            for cut in [1, 7, 9, 10, 1_000, 1 << 20] {
                // Of a frame without content, nothing is left where its header began in an earlier piece.
                let passed = stopped_after(&one, cut).expect("an end");
                let whole = passed - usize::from(one.len() == HEADER && passed > MOST as usize);
                assert_eq!(whole, MOST as usize, "{what}, in pieces of {cut}");
            }
        }
    }

    #[test]
    fn data_requests_and_their_control_frames_go_on_for_ever() {
        let (data, ping, window) = (frame(0, 0, &[1; 100]), frame(6, 0, b"12345678"), frame(8, 0, &[0, 0, 0, 1]));
        let (request, reset, last) = (frame(1, 4, &[0; 30]), frame(3, 0, &[0; 4]), frame(0, 1, b""));
        for one in [
            data.clone(),
            [data, ping, window.clone()].concat(),
            [request.clone(), last].concat(),
            [request, frame(2, 0, &[0; 5]), window.clone(), reset].concat(),
        ] {
            assert_eq!(stopped_after(&one, 333), None);
        }
        // Each WINDOW_UPDATE says that something was taken.
        let mut frames = begun();
        for _ in 0..50_000 {
            frames.sent(8 << 10);
            assert_eq!(frames.follow(&window, || 0), None);
        }
    }

    #[test]
    fn time_earns_as_well() {
        let mut frames = begun();
        let ping = frame(6, 0, b"12345678");
        // 100 a second, for an hour.
        for at in 0..360_000_u64 {
            assert_eq!(frames.follow(&ping, || at * 10), None);
        }
        let flood = ping.repeat(30_000);
        assert!(frames.follow(&flood, || 3_600_000).is_some());
    }
}
