//! What clients ask the server itself, in the styles of OpenAI and KServe: which models there are, and whether it is well.
//! These answers wake nobody.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use kip_relay::{Answer, Body};
use serde_json::{Value, json};

use crate::admission::Door;
use crate::authorise::Sight;

impl Door {
    fn seen(&self, sight: &Sight) -> Vec<kip_control::FunctionInfo> {
        let mut all = self.control.functions();
        all.retain(|function| self.control.cell(function.name.as_str()).is_some_and(|cell| sight.sees(&cell)));
        all
    }

    /// `GET /v1/models` and `GET /v1/models/{model}`.
    pub(crate) fn openai_list<B>(&self, request: &Request<B>, sight: &Sight) -> Option<Answer> {
        if request.method() != Method::GET {
            return None;
        }
        let rest = request.uri().path().strip_prefix("/v1/models")?;
        let model = |name: &str| json!({"id": name, "object": "model", "created": 0, "owned_by": "kipwake"});
        match rest {
            "" | "/" => {
                let all: Vec<Value> = self.seen(sight).iter().map(|function| model(function.name.as_str())).collect();
                Some(answer(StatusCode::OK, &json!({"object": "list", "data": all})))
            }
            _ => {
                let name = rest.strip_prefix('/')?;
                self.control.cell(name).filter(|cell| sight.sees(cell)).map(|_| answer(StatusCode::OK, &model(name)))
            }
        }
    }

    /// `/v2`, `/v2/health/live`, `/v2/health/ready` and `/v2/repository/index`.
    pub(crate) fn kserve_server<B>(&self, request: &Request<B>, sight: &Sight) -> Answer {
        match request.uri().path() {
            "/v2/repository/index" => {
                let all = self.seen(sight);
                let entry = |function: &kip_control::FunctionInfo| {
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
