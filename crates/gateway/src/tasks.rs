//! A request that says `x-fc-invocation-type: Async` becomes a task: its body is taken as a whole, and the answer is 202 once
//! it is on the disk.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use kip_relay::{Answer, Body, Call};
use kip_spec::{Problem, RequestId, code};
use kip_tasks::envelope::Origin;
use kip_tasks::{Error, Submission};

use crate::admission::RequestHandler;

impl RequestHandler {
    /// Takes an admitted request as a task.
    pub(crate) async fn submit(&self, call: Call, request: Request<Incoming>, id: &RequestId) -> Answer {
        match self.accept(call, request, id).await {
            Ok(answer) => answer,
            Err(error) => {
                let retry_after = error.retry_after();
                kip_relay::problem(Problem { retry_after, ..error.into() }, id)
            }
        }
    }

    async fn accept(&self, call: Call, request: Request<Incoming>, id: &RequestId) -> Result<Answer, Error> {
        let what = match () {
            () if kip_relay::is_grpc(request.headers()) => Some("a gRPC call says in trailers what came of it"),
            () if kip_relay::asked_upgrade(&request).is_some() => Some("a WebSocket needs somebody at its other end"),
            () => None,
        };
        if let Some(why) = what {
            return Err(Error::Submission(format!("{why}: call it without x-fc-invocation-type, or send plain HTTP")));
        }
        let (head, mut body) = request.into_parts();
        let limit = self.tasks.largest_payload();
        let refuse = |code, what: &str| {
            Ok(kip_relay::problem(Problem::new(code, format!("the request is not acceptable: {what}")), id))
        };
        let payload = match gather(&mut body, &call.read, limit, call.body_idle).await {
            Ok(payload) => payload,
            Err(BodyError::BrokeOff) => return refuse(code::BAD_REQUEST, "its body broke off"),
            Err(BodyError::Late) => {
                return refuse(code::REQUEST_LATE, "nothing of its body came for limits.body_idle");
            }
            Err(BodyError::TooLarge { bytes }) => {
                kip_relay::take_rest(&mut body).await;
                return Err(Error::TooLarge { bytes, limit });
            }
        };
        let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
        let origin =
            Origin { host: host.map(str::to_owned), peer: call.peer, secure: call.secure, prefix: call.prefix.clone() };
        let submission = Submission {
            function: call.cell.name().to_string(),
            tenant: call.caller.as_ref().map(|caller| caller.tenant.to_string()).filter(|tenant| !tenant.is_empty()),
            key: call.caller.as_ref().map(|caller| caller.key.to_string()),
            call: Some(kip_tasks::envelope::Call::of_request(&head.method, &call.target, &head.headers, origin)),
            payload,
            request: id.as_str().to_owned(),
            ..Submission::of_headers(&head.headers)?
        };
        let receipt = self.tasks.submit(submission).await?;
        let mut answer = Response::new(Body::text(""));
        *answer.status_mut() = StatusCode::ACCEPTED;
        // The first names the task's request, which was another one if the task is known; the second this one.
        for (name, value) in [
            ("x-fc-request-id", receipt.request.as_str()),
            ("x-kip-request-id", id.as_str()),
            ("x-fc-async-task-id", &receipt.id),
        ] {
            answer
                .headers_mut()
                .extend(HeaderValue::from_str(value).map(|value| (http::HeaderName::from_static(name), value)));
        }
        Ok(answer)
    }
}

/// Why a body is not there as a whole.
#[derive(Debug, PartialEq, Eq)]
enum BodyError {
    BrokeOff,
    Late,
    TooLarge { bytes: usize },
}

/// Takes a body of up to `limit` bytes, behind what was read of it already. `idle` is how long nothing of it may come, where the
/// connection does not keep that time itself.
async fn gather<B>(body: &mut B, read: &[u8], limit: usize, idle: Option<Duration>) -> Result<Bytes, BodyError>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let mut payload = BytesMut::from(read);
    loop {
        let frame = match idle {
            Some(idle) => tokio::time::timeout(idle, body.frame()).await.map_err(|_| BodyError::Late)?,
            None => body.frame().await,
        };
        let Some(frame) = frame else { return Ok(payload.freeze()) };
        let Ok(data) = frame.map_err(|_| BodyError::BrokeOff)?.into_data() else { continue };
        payload.extend_from_slice(&data);
        if payload.len() > limit {
            return Err(BodyError::TooLarge { bytes: payload.len() });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    /// A body that gives its bytes and then nothing more, without an end.
    struct StalledBody(Option<Bytes>);

    impl hyper::body::Body for StalledBody {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
        }
    }

    #[tokio::test]
    async fn a_body_of_which_nothing_comes_any_more_is_given_up() {
        kip_host::clock::paused::pause();
        let idle = Some(Duration::from_secs(60));
        let mut body = StalledBody(Some(Bytes::from_static(b"half")));
        assert_eq!(gather(&mut body, b"", 100, idle).await, Err(BodyError::Late));
        let mut body = StalledBody(Some(Bytes::from_static(b"much")));
        assert_eq!(gather(&mut body, b"too ", 7, idle).await, Err(BodyError::TooLarge { bytes: 8 }));
        let mut whole = http_body_util::Full::new(Bytes::from_static(b"done"));
        assert_eq!(gather(&mut whole, b"all ", 100, idle).await, Ok(Bytes::from_static(b"all done")));
    }
}
