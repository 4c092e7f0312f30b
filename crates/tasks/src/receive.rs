//! The bodies of submissions on their way in: held in memory until they are stored, so what all of them hold together is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::error::Error;

/// Bytes of bodies in memory, of all submissions under way.
#[derive(Debug)]
pub(crate) struct Memory {
    most: u64,
    taken: AtomicU64,
}

/// Part of that memory, given back when it is dropped.
#[derive(Debug)]
struct MemoryPart {
    memory: Arc<Memory>,
    bytes: u64,
}

/// A body that was received, with its part of the memory. Hold it until the task is stored.
#[derive(Debug)]
pub struct Received {
    /// The body.
    pub payload: Bytes,
    _held: MemoryPart,
}

/// Why a body is not there as a whole.
#[derive(Debug)]
pub enum ReceiveError {
    /// The caller broke off.
    BrokeOff,
    /// Nothing of it came for too long.
    Late,
    /// It is too large, or there is no memory for it now.
    Refused(Error),
}

impl Memory {
    /// Room for a few of the largest payloads, and never less than 256 MiB.
    pub(crate) fn for_payloads(largest: usize) -> Self {
        Self { most: (largest as u64).saturating_mul(4).max(256 << 20), taken: AtomicU64::new(0) }
    }
}

impl MemoryPart {
    fn none(memory: &Arc<Memory>) -> Self {
        Self { memory: memory.clone(), bytes: 0 }
    }

    /// Takes more. Nothing is taken if there is not enough.
    fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        let most = self.memory.most;
        let fits = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= most);
        let update = self.memory.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        update.map_err(|_| Error::TooManyBodies)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for MemoryPart {
    fn drop(&mut self) {
        self.memory.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads what still comes of a body that was refused, for a while: a caller that is still sending would lose the answer with the
/// connection.
pub async fn drain<B>(body: &mut B)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    const LONGEST: Duration = Duration::from_secs(2);
    const MOST: usize = 64 << 20;
    let all = async {
        let mut read = 0;
        while read < MOST
            && let Some(Ok(frame)) = body.frame().await
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = tokio::time::timeout(LONGEST, all).await;
}

pub(crate) async fn gather<B>(
    memory: &Arc<Memory>,
    limit: usize,
    (declared, read): (Option<u64>, &[u8]),
    body: &mut B,
    idle: Option<Duration>,
) -> Result<Received, ReceiveError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let too_large = |bytes| Err(ReceiveError::Refused(Error::TooLarge { bytes, limit }));
    if let Some(bytes) = declared.filter(|bytes| *bytes > limit as u64) {
        return too_large(Some(bytes));
    }
    let mut held = MemoryPart::none(memory);
    held.grow(declared.unwrap_or_default().max(read.len() as u64)).map_err(ReceiveError::Refused)?;
    let mut payload = BytesMut::from(read);
    loop {
        let frame = match idle {
            Some(idle) => tokio::time::timeout(idle, body.frame()).await.map_err(|_| ReceiveError::Late)?,
            None => body.frame().await,
        };
        let Some(frame) = frame else { return Ok(Received { payload: payload.freeze(), _held: held }) };
        let Ok(data) = frame.map_err(|_| ReceiveError::BrokeOff)?.into_data() else { continue };
        let bytes = payload.len() + data.len();
        if bytes > limit {
            return too_large(None);
        }
        let more = (bytes as u64).saturating_sub(held.bytes);
        held.grow(more).map_err(ReceiveError::Refused)?;
        payload.extend_from_slice(&data);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;

    /// A body that gives its bytes and then nothing more, without an end.
    struct StalledBody(Option<Bytes>);

    impl http_body::Body for StalledBody {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
        }
    }

    fn memory(most: u64) -> Arc<Memory> {
        Arc::new(Memory { most, taken: AtomicU64::new(0) })
    }

    fn taken(memory: &Memory) -> u64 {
        memory.taken.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_body_of_which_nothing_comes_any_more_is_given_up() {
        kip_host::clock::paused::pause();
        let (idle, memory) = (Some(Duration::from_secs(60)), memory(1_000));
        let mut body = StalledBody(Some(Bytes::from_static(b"half")));
        let late = gather(&memory, 100, (None, b""), &mut body, idle).await;
        assert!(matches!(late, Err(ReceiveError::Late)), "{late:?}");
        let mut whole = http_body_util::Full::new(Bytes::from_static(b"done"));
        let received = gather(&memory, 100, (None, b"all "), &mut whole, idle).await.unwrap();
        assert_eq!(received.payload, "all done");
        assert_eq!(taken(&memory), 8);
        drop(received);
        assert_eq!(taken(&memory), 0);
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused_with_its_size_where_that_is_known() {
        kip_host::clock::paused::pause();
        let memory = memory(1_000);
        let size = |result| match result {
            Err(ReceiveError::Refused(Error::TooLarge { bytes, limit: 7 })) => bytes,
            other => panic!("{other:?}"),
        };
        // Nothing of it is read: there is nothing that could be.
        let declared = gather(&memory, 7, (Some(200_000), b""), &mut StalledBody(None), None).await;
        assert_eq!(size(declared), Some(200_000));
        let mut body = StalledBody(Some(Bytes::from_static(b"much")));
        assert_eq!(size(gather(&memory, 7, (None, b"too "), &mut body, None).await), None);
        assert_eq!(taken(&memory), 0);
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let memory = memory(10);
        let full = |text: &'static str| http_body_util::Full::new(Bytes::from_static(text.as_bytes()));
        let first = gather(&memory, 8, (Some(8), b""), &mut full("12345678"), None).await.unwrap();
        let second = gather(&memory, 8, (None, b""), &mut full("abc"), None).await;
        assert!(matches!(second, Err(ReceiveError::Refused(Error::TooManyBodies))), "{second:?}");
        drop(first);
        gather(&memory, 8, (None, b""), &mut full("abc"), None).await.unwrap();
        assert_eq!(taken(&memory), 0);
    }
}
