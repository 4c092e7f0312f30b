//! The exchange in paused time: a caller and instances over memory, the function's own core between them.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kip_control::testing::Room;
use kip_control::testing::fake::{Call as Operation, Reply, Script};
use kip_host::clock::boot_millis;
use kip_spec::function::FunctionSpec;
use kip_spec::{Millis, RequestId, code};
use tokio::task::LocalSet;

use crate::exchange::Call;
use crate::{Answer, Relay};
use kip_records::metrics::Metrics;

/// A room, a relay, and a caller on one connection.
struct Bench {
    room: Room,
    relay: Relay,
    caller: SendRequest<Full<Bytes>>,
}

struct TestAnswer {
    status: StatusCode,
    code: Option<String>,
    text: String,
    took: u64,
}

impl Bench {
    async fn open(change: impl FnOnce(&mut FunctionSpec)) -> Self {
        let room = Room::open(change).await;
        let relay = Relay::new(room.control.clone(), &Metrics::new(10));
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (serving, control) = (relay.clone(), room.control.clone());
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (relay, cell) = (serving.clone(), control.cell("f").unwrap());
            async move {
                let call = Call {
                    cell,
                    qualifier: None,
                    target: request.uri().path_and_query().map_or_else(Uri::default, |path| path.clone().into()),
                    prefix: None,
                    read: Bytes::new(),
                    request: RequestId::parse("test-7").unwrap(),
                    peer: None,
                    secure: false,
                    blame: None,
                    largest_body: u64::MAX,
                    body_idle: None,
                    caller: None,
                    exempt: false,
                };
                let answer: Answer = relay.exchange(call, request).await;
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        drop(kip_host::tasks::spawn_local("server", async move {
            let server = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
            drop(server.await);
        }));
        let (caller, connection) = handshake(TokioIo::new(ours)).await.unwrap();
        drop(kip_host::tasks::spawn_local("caller", connection));
        Self { room, relay, caller }
    }

    async fn call(&mut self, method: Method, body: &'static str) -> TestAnswer {
        let request = Request::builder().method(method).uri("/x").header("host", "f").body(Full::from(body)).unwrap();
        let began = boot_millis();
        self.caller.ready().await.unwrap();
        let (head, body) = self.caller.send_request(request).await.unwrap().into_parts();
        let text = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
        let code = head.headers.get("x-kip-error").map(|code| code.to_str().unwrap().to_owned());
        TestAnswer { status: head.status, code, text, took: boot_millis() - began }
    }

    async fn get(&mut self) -> TestAnswer {
        self.call(Method::GET, "").await
    }

    fn instance(&self) -> kip_spec::InstanceId {
        self.room.body.living()[0]
    }
}

/// Runs a test on one thread whose tasks stay on it.
async fn on_one_thread(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_request_goes_to_an_instance_and_its_answer_comes_back() {
    on_one_thread(async {
        let mut bench = Bench::open(|_| {}).await;
        bench.room.body.script(Operation::Start, &[Script::After(Duration::from_secs(2))]);
        let cold = bench.call(Method::POST, "hello").await;
        assert_eq!((cold.status, cold.text), (StatusCode::OK, bench.instance().to_string()));
        assert!((2_000..2_010).contains(&cold.took), "{}", cold.took);
        assert_eq!(bench.room.body.requests(), [(bench.instance(), "hello".to_owned())]);
        assert!(bench.get().await.took <= 3);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_kept_of_an_instance_that_closed_its_connections() {
    on_one_thread(async {
        let mut bench = Bench::open(|_| {}).await;
        bench.get().await;
        let instance = bench.instance();
        assert_eq!(bench.relay.pool.instances(), [instance]);
        bench.room.body.close_connections(instance);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(bench.relay.pool.instances().is_empty(), "an entry without a connection");
        assert_eq!(bench.get().await.status, StatusCode::OK);
        assert_eq!(bench.relay.pool.instances(), [instance]);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_may_be_repeated_is_sent_once_more() {
    on_one_thread(async {
        let mut bench = Bench::open(|_| {}).await;
        bench.room.body.reply(&[Reply::BreakOff]);
        assert_eq!(bench.get().await.status, StatusCode::OK);
        assert_eq!(bench.room.body.requests().len(), 2);
        bench.room.body.reply(&[Reply::BreakOff, Reply::BreakOff]);
        let answered = bench.get().await;
        assert_eq!(
            (answered.status, answered.code),
            (StatusCode::BAD_GATEWAY, Some(code::INSTANCE_BROKE_OFF.to_string()))
        );
        assert_eq!(bench.room.body.requests().len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_may_not_be_repeated_is_not() {
    on_one_thread(async {
        let mut bench = Bench::open(|_| {}).await;
        bench.get().await;
        bench.room.body.reply(&[Reply::BreakOff]);
        assert_eq!(bench.call(Method::POST, "once").await.status, StatusCode::BAD_GATEWAY);
        let posts = bench.room.body.requests().iter().filter(|(_, body)| body == "once").count();
        assert_eq!(posts, 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_meets_a_program_that_listens_no_more_gets_another_instance() {
    on_one_thread(async {
        let mut bench = Bench::open(|spec| spec.instances.max = 1).await;
        bench.get().await;
        let first = bench.instance();
        // Its sockets are closed; its end is reported a long while later.
        let body = bench.room.body.clone();
        drop(kip_host::tasks::spawn("death", async move { body.die(first, Duration::from_secs(15)).await }));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let answered = bench.call(Method::POST, "work").await;
        assert_eq!(answered.status, StatusCode::OK, "{}", answered.text);
        assert_ne!(answered.text, first.to_string());
        assert!(answered.took < 1_000, "{} ms", answered.took);
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_does_not_begin_in_time_is_given_up() {
    on_one_thread(async {
        let mut bench = Bench::open(|spec| spec.timeouts.first_byte = Millis::from_secs(4)).await;
        bench.get().await;
        bench.room.body.reply(&[Reply::Silence]);
        let answered = bench.get().await;
        assert_eq!(answered.code, Some(code::FIRST_BYTE_TIMEOUT.to_string()));
        assert!((4_000..4_010).contains(&answered.took), "{}", answered.took);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(bench.room.control.functions()[0].in_flight, 0, "its place is free");
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_closes_after_each_answer_costs_no_request() {
    on_one_thread(async {
        let mut bench = Bench::open(|_| {}).await;
        bench.room.body.reply(&[Reply::Close; 5]);
        for _ in 0..5 {
            assert_eq!(bench.call(Method::POST, "x").await.status, StatusCode::OK);
        }
        assert_eq!(bench.room.body.requests().len(), 5);
    })
    .await;
}
