//! How callers read errors. An error is a value until here; each dialect has one renderer, and none reads what another wrote.

mod fc;
mod grpc;
mod kserve;
mod native;
mod openai;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use kip_relay::{Answer, Body};

use crate::route::is_ollama;

/// The words in which a caller reads errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Our own JSON, as the API has it.
    Native,
    /// A status in the head of an answer without a body.
    Grpc,
    /// JSON whose `error` is one text. Ollama's clients read the same.
    KServe,
    /// JSON of Function Compute.
    Fc {
        /// With the names of version 2.0.
        legacy: bool,
    },
    /// JSON whose `error` has `message`, `type`, `param` and `code`.
    OpenAi,
}

impl Dialect {
    /// The dialect of whoever sends this request.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let path = request.uri().path();
        let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match () {
            () if kip_relay::is_grpc(request.headers()) => Self::Grpc,
            () if signed(request, "ACS3-HMAC-SHA256 ") => Self::Fc { legacy: false },
            () if signed(request, "FC ") => Self::Fc { legacy: true },
            () if below("/v2") || is_ollama(path) => Self::KServe,
            () if below("/v1") => Self::OpenAi,
            () => Self::Native,
        }
    }

    /// Gives an error its bytes. The answer of an instance stays as it is.
    pub(crate) fn render(self, answer: Answer) -> Answer {
        let (mut head, body) = answer.into_parts();
        let Body::Problem(problem) = body else { return Response::from_parts(head, body) };
        let text = match self {
            Self::Grpc => {
                grpc::render(&mut head, &problem);
                return Response::from_parts(head, Body::Text(None));
            }
            Self::Fc { legacy } => fc::render(&mut head, *problem, legacy),
            Self::Native => native::render(*problem),
            Self::KServe => kserve::render(&problem),
            Self::OpenAi => openai::render(&problem),
        };
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Response::from_parts(head, Body::text(text + "\n"))
    }
}

/// Whether a request is signed by a scheme of Function Compute.
fn signed<B>(request: &Request<B>, scheme: &str) -> bool {
    request.headers().get(AUTHORIZATION).is_some_and(|sent| sent.as_bytes().starts_with(scheme.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_spec::{Problem, RequestId, code};
    use serde_json::{Value, json};

    fn rendered(dialect: Dialect, problem: Problem) -> (http::response::Parts, Value) {
        let answer = dialect.render(kip_relay::problem(problem, &RequestId::from_bits(7)));
        let (head, body) = answer.into_parts();
        let text = match body {
            Body::Text(text) => text.unwrap_or_default(),
            other => panic!("{other:?}"),
        };
        (head, serde_json::from_slice(&text).unwrap_or(Value::Null))
    }

    fn full() -> Problem {
        let mut problem = Problem::new(code::QUEUE_FULL, "100 % full").cause("many callers").hint("wait");
        problem.retry_after = Some(3);
        problem
    }

    #[test]
    fn one_error_in_each_dialect() {
        let (head, text) = rendered(Dialect::Native, full());
        assert_eq!((head.status.as_u16(), &head.headers["retry-after"]), (429, &HeaderValue::from(3)));
        assert_eq!(text["error"]["code"], "KW-2004");
        assert_eq!(text["error"]["hint"], "wait");

        let (head, text) = rendered(Dialect::KServe, full());
        assert_eq!(head.status.as_u16(), 429);
        assert_eq!(text, json!({"error": "[KW-2004] 100 % full: many callers; wait"}));

        let (head, text) = rendered(Dialect::OpenAi, full());
        assert_eq!(head.headers["x-kip-error"], "KW-2004");
        assert_eq!(text["error"]["type"], "rate_limit_error");
        assert_eq!(text["error"]["code"], "KW-2004");
        assert_eq!(text["error"]["param"], Value::Null);

        let (head, text) = rendered(Dialect::Grpc, full());
        assert_eq!((head.status.as_u16(), text), (200, Value::Null));
        assert_eq!(head.headers["grpc-status"], "8");
        assert_eq!(head.headers["grpc-message"], "KW-2004 100 %25 full");
        assert_eq!(head.headers["grpc-retry-pushback-ms"], "3000");
    }

    #[test]
    fn callers_who_sign_read_errors_of_function_compute() {
        let missing = || Problem::new(code::KEY_EXPIRED, "the key has expired");
        let (head, text) = rendered(Dialect::Fc { legacy: false }, missing());
        assert_eq!(
            (head.status.as_u16(), &head.headers["x-fc-error-type"]),
            (403, &HeaderValue::from_static("FcCommonError"))
        );
        assert_eq!((&text["Code"], &text["Message"]), (&json!("AccessDenied"), &json!("the key has expired")));
        assert!(text["RequestId"].as_str().is_some_and(|id| head.headers["x-fc-request-id"] == id));
        let (_, text) = rendered(Dialect::Fc { legacy: true }, Problem::new(code::SIGNATURE_MISMATCH, "no"));
        assert_eq!((&text["ErrorCode"], &text["ErrorMessage"]), (&json!("SignatureNotMatch"), &json!("no")));
        let of =
            |sent: &str| Dialect::of(&Request::builder().uri("/f/x/").header("authorization", sent).body(()).unwrap());
        assert_eq!(of("ACS3-HMAC-SHA256 Credential=a"), Dialect::Fc { legacy: false });
        assert_eq!(of("FC a:b"), Dialect::Fc { legacy: true });
        assert_eq!(of("Bearer FC"), Dialect::Native);
    }

    #[test]
    fn an_unknown_model_is_said_as_clients_of_openai_know_it() {
        let (head, text) =
            rendered(Dialect::OpenAi, Problem::new(code::MODEL_UNKNOWN, "no function serves a model `x`"));
        assert_eq!(head.status.as_u16(), 404);
        assert_eq!(text["error"]["code"], "model_not_found");
        assert_eq!(
            (&text["error"]["param"], &text["error"]["type"]),
            (&json!("model"), &json!("invalid_request_error"))
        );
    }

    #[test]
    fn a_path_says_which_dialect() {
        let of = |path: &str, kind: &str| {
            Dialect::of(&Request::builder().uri(path).header("content-type", kind).body(()).unwrap())
        };
        assert_eq!(of("/v1/chat/completions", "application/json"), Dialect::OpenAi);
        assert_eq!(of("/v2/models/x/infer", "application/json"), Dialect::KServe);
        assert_eq!(of("/v2", ""), Dialect::KServe);
        assert_eq!((of("/api/chat", ""), of("/api/v1/status", "")), (Dialect::KServe, Dialect::Native));
        assert_eq!(of("/v10", ""), Dialect::Native);
        assert_eq!(of("/f/x/v1/models", ""), Dialect::Native);
        assert_eq!(of("/v2/x", "application/grpc"), Dialect::Grpc);
    }

    #[test]
    fn what_an_instance_answers_is_left_alone() {
        let own = Response::new(Body::text("x"));
        assert!(matches!(Dialect::Grpc.render(own).into_body(), Body::Text(Some(_))));
    }
}
