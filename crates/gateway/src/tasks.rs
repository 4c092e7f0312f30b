//! A request that says `x-fc-invocation-type: Async` becomes a task: its body is taken as a whole, and the answer is 202 once
//! it is on the disk.

use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use kip_relay::{Answer, Body, Call};
use kip_spec::{Problem, RequestId, code};
use kip_tasks::envelope::Origin;
use kip_tasks::{Error, ReceiveError, Submission};

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
        let refuse = |code, what: &str| {
            Ok(kip_relay::problem(Problem::new(code, format!("the request is not acceptable: {what}")), id))
        };
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let received = match self.tasks.receive(declared, &call.read, &mut body, call.body_idle).await {
            Ok(received) => received,
            Err(ReceiveError::BrokeOff) => return refuse(code::BAD_REQUEST, "its body broke off"),
            Err(ReceiveError::Late) => {
                return refuse(code::REQUEST_LATE, "nothing of its body came for limits.body_idle");
            }
            Err(ReceiveError::Refused(error)) => {
                if !head.headers.contains_key(EXPECT) {
                    kip_tasks::drain(&mut body).await;
                }
                return Err(error);
            }
        };
        let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
        let origin =
            Origin { host: host.map(str::to_owned), peer: call.peer, secure: call.secure, prefix: call.prefix.clone() };
        let by_header = Submission::of_headers(&head.headers)?;
        let submission = Submission {
            qualifier: call.qualifier.as_ref().map(ToString::to_string).or_else(|| by_header.qualifier.clone()),
            function: call.cell.name().to_string(),
            tenant: call.caller.as_ref().map(|caller| caller.tenant.to_string()).filter(|tenant| !tenant.is_empty()),
            key: call.caller.as_ref().map(|caller| caller.key.to_string()),
            call: Some(kip_tasks::envelope::Call::of_request(&head.method, &call.target, &head.headers, origin)),
            payload: received.payload.clone(),
            request: id.as_str().to_owned(),
            ..by_header
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
