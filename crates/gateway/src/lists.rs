//! What clients ask the server itself, in the styles of OpenAI, Ollama and KServe: which models there are, and whether it is well.
//! These answers wake nobody.

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use kip_relay::{Answer, Body};
use kip_spec::{Problem, QualifierName, RequestId, code};
use serde_json::{Value, json};

use crate::admission::RequestHandler;
use crate::authorise::Visibility;
use crate::model_names::decoded;

impl RequestHandler {
    fn seen(&self, sight: &Visibility) -> Vec<kip_wire::FunctionInfo> {
        let mut all = self.control.functions();
        all.retain(|function| self.control.cell(function.name.as_str()).is_some_and(|cell| sight.sees(&cell)));
        all
    }

    /// The names by which models can be called, each in the form of a list.
    fn model_names(&self, sight: &Visibility, form: impl Fn(&str) -> Value) -> Vec<Value> {
        let names = |function: &kip_wire::FunctionInfo| -> Vec<Value> {
            let further = function.spec.names.iter().map(kip_spec::ModelName::as_str);
            std::iter::once(function.name.as_str()).chain(further).map(&form).collect()
        };
        self.seen(sight).iter().flat_map(names).collect()
    }

    /// `GET /v1/models` and `GET /v1/models/{model}`, Ollama's `GET /api/tags` and `GET /api/version`; the name of a model that there is
    /// not, in place of an answer.
    pub(crate) fn model_list<B>(&self, request: &Request<B>, sight: &Visibility) -> Option<Result<Answer, String>> {
        if request.method() != Method::GET {
            return None;
        }
        match request.uri().path() {
            "/api/tags" => {
                let details = json!({"format": "", "family": "", "parameter_size": "", "quantization_level": ""});
                // What is not known of a function: clients want the fields.
                let model = |name: &str| {
                    json!({"name": name, "model": name, "modified_at": "1970-01-01T00:00:00Z", "size": 0, "digest": "",
                        "details": details})
                };
                return Some(Ok(answer(StatusCode::OK, &json!({"models": self.model_names(sight, model)}))));
            }
            "/api/version" => {
                return Some(Ok(answer(StatusCode::OK, &json!({"version": env!("CARGO_PKG_VERSION")}))));
            }
            _ => {}
        }
        let rest = request.uri().path().strip_prefix("/v1/models")?;
        let model = |name: &str| json!({"id": name, "object": "model", "created": 0, "owned_by": "kipwake"});
        match rest {
            "" | "/" => {
                let all = self.model_names(sight, model);
                Some(Ok(answer(StatusCode::OK, &json!({"object": "list", "data": all}))))
            }
            _ => {
                let name = decoded(rest.strip_prefix('/')?);
                let found = self.served(&name, sight).and_then(Result::ok).filter(|(cell, _)| sight.sees(cell));
                let is_there = |cell: &kip_control::Cell, qualifier: &Option<QualifierName>| match qualifier {
                    Some(QualifierName::Alias(alias)) => {
                        self.control.alias(cell.name().as_str(), alias.as_str()).is_ok()
                    }
                    _ => true,
                };
                let known = found.filter(|(cell, qualifier)| is_there(cell, qualifier));
                Some(known.map(|_| answer(StatusCode::OK, &model(&name))).ok_or(name))
            }
        }
    }

    /// `/v2`, `/v2/health/live`, `/v2/health/ready` and `/v2/repository/index`.
    pub(crate) fn kserve_server<B>(&self, request: &Request<B>, sight: &Visibility, id: &RequestId) -> Answer {
        let path = request.uri().path();
        // The list is asked for with POST as well (the protocol's extension of model repositories).
        let allowed = if path == "/v2/repository/index" { "GET, HEAD, POST" } else { "GET, HEAD" };
        if !allowed.split(", ").any(|method| method == request.method().as_str()) {
            let problem = Problem::new(code::ROUTE_METHOD, format!("{path} does not take {}", request.method()));
            let mut refused = kip_relay::problem(problem.hint(format!("it takes {allowed}")), id);
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return refused;
        }
        match request.uri().path() {
            "/v2/repository/index" => {
                let all = self.seen(sight);
                let entry = |function: &kip_wire::FunctionInfo| {
                    // One that sleeps or was never started is woken by its first request.
                    json!({"name": function.name.as_str(), "version": function.version.to_string(), "state": "READY"})
                };
                answer(StatusCode::OK, &Value::Array(all.iter().map(entry).collect()))
            }
            "/v2/health/live" | "/v2/health/ready" => Response::new(Body::text("")),
            _ => {
                let about = json!({"name": "kipwake", "version": env!("CARGO_PKG_VERSION"), "extensions": []});
                answer(StatusCode::OK, &about)
            }
        }
    }
}

fn answer(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(Body::text(format!("{value}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
