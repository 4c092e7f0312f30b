//! A body without programs, for tests of the rooms above: its instances are tasks of the test's runtime that answer HTTP over
//! memory, so that time can be paused. What operations do next is scripted; what was called is kept.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kip_host::endpoint::Endpoint;
use kip_host::endpoint::memory::{Listener, listen};
use kip_spec::InstanceId;
use kip_spec::function::Hook;
use kip_spec::sleep::InstanceCall;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::adoption::{Adoption, FoundInstance};
use crate::body::{
    Body, BodyEvent, CallAnswer, Error, Health, InstanceEnd, Liveness, LocalBody, Measure, Order, ReadyInstance,
    StartError, StartProblem, StopOrder, Termination,
};

/// Events that may wait.
const EVENTS: usize = 64;

/// A call of the trait that can be scripted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Body::start`].
    Start,
    /// [`Body::initialize`].
    Initialize,
    /// [`Body::call`]: a failure is the status 500.
    Request,
    /// [`Body::probe`].
    Probe,
    /// [`Body::pause`].
    Pause,
    /// [`Body::resume`].
    Resume,
    /// [`Body::stop`].
    Stop,
    /// [`Body::kill`].
    Kill,
}

/// How a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// At once and well.
    Well,
    /// Well, after so long.
    After(Duration),
    /// It fails.
    Fail,
    /// It fails after so long.
    FailAfter(Duration),
    /// It never returns.
    Hang,
}

/// How an instance answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// 200 with its id, after so long.
    After(Duration),
    /// It closes the connection without an answer.
    BreakOff,
    /// 200 with its id, and closes the connection.
    Close,
    /// Nothing.
    Silence,
}

#[derive(Debug)]
struct Fake {
    life: watch::Sender<Liveness>,
    /// Its listener and connections end when this changes.
    connections: watch::Sender<u64>,
    paused: bool,
    memory: u64,
}

#[derive(Debug, Default)]
struct Scripts {
    instances: HashMap<InstanceId, Fake>,
    courses: HashMap<Call, VecDeque<Script>>,
    replies: VecDeque<Reply>,
    calls: Vec<(Call, InstanceId)>,
    requests: Vec<(InstanceId, String)>,
    /// What [`Body::call`] was asked to send.
    paths: Vec<(InstanceId, String)>,
    /// Bodies of its next answers.
    answers: VecDeque<String>,
    memos: Vec<(InstanceId, String)>,
    found: Vec<FoundInstance>,
    /// CPU time that each instance has used, nanoseconds; none where it cannot be measured.
    cpu_time: Option<u64>,
}

/// The body.
#[derive(Debug)]
pub struct FakeBody {
    scripts: Arc<Mutex<Scripts>>,
    events: mpsc::Sender<BodyEvent>,
}

impl FakeBody {
    /// A body and what it reports.
    pub fn new() -> (Arc<Self>, mpsc::Receiver<BodyEvent>) {
        let (events, received) = mpsc::channel(EVENTS);
        (Arc::new(Self { scripts: Arc::default(), events }), received)
    }

    /// How the next calls of a kind go, in this order; those after them go well at once.
    pub fn script(&self, call: Call, courses: &[Script]) {
        self.scripts.lock().courses.entry(call).or_default().extend(courses);
    }

    /// CPU time that each instance has used from now on, nanoseconds.
    pub fn uses_cpu(&self, time: u64) {
        self.scripts.lock().cpu_time = Some(time);
    }

    /// How the next requests are answered, in this order; those after them at once.
    pub fn reply(&self, replies: &[Reply]) {
        self.scripts.lock().replies.extend(replies);
    }

    /// What the next [`Body::adopt`] finds.
    pub fn leave(&self, found: FoundInstance) {
        self.scripts.lock().found.push(found);
    }

    /// The calls there were of a kind.
    pub fn calls(&self, call: Call) -> Vec<InstanceId> {
        self.scripts.lock().calls.iter().filter(|(other, _)| *other == call).map(|(_, instance)| *instance).collect()
    }

    /// The requests that instances got: which one, and the request's body.
    pub fn requests(&self) -> Vec<(InstanceId, String)> {
        self.scripts.lock().requests.clone()
    }

    /// The paths that the server itself called on instances, in their order.
    pub fn called(&self) -> Vec<(InstanceId, String)> {
        self.scripts.lock().paths.clone()
    }

    /// The bodies of the next answers to such calls; those after them are empty.
    pub fn answer(&self, bodies: &[&str]) {
        self.scripts.lock().answers.extend(bodies.iter().map(|body| (*body).to_owned()));
    }

    /// What the server asked to be told again, in its order.
    pub fn memos(&self) -> Vec<(InstanceId, String)> {
        self.scripts.lock().memos.clone()
    }

    /// The instances that live, in no order.
    pub fn living(&self) -> Vec<InstanceId> {
        self.scripts.lock().instances.keys().copied().collect()
    }

    /// Whether an instance is paused.
    pub fn is_paused(&self, instance: InstanceId) -> bool {
        self.scripts.lock().instances.get(&instance).is_some_and(|fake| fake.paused)
    }

    /// From here on an instance uses so many bytes of memory.
    pub fn uses(&self, instance: InstanceId, memory: u64) {
        if let Some(fake) = self.scripts.lock().instances.get_mut(&instance) {
            fake.memory = memory;
        }
    }

    /// An instance closes its connections, idle ones too.
    pub fn close_connections(&self, instance: InstanceId) {
        if let Some(fake) = self.scripts.lock().instances.get(&instance) {
            fake.connections.send_modify(|number| *number += 1);
        }
    }

    /// The program of an instance ends by itself; its connections close first, and its end is reported after `later`.
    pub async fn die(&self, instance: InstanceId, later: Duration) {
        let Some(fake) = self.scripts.lock().instances.remove(&instance) else { return };
        let life = fake.life.clone();
        drop(fake);
        tokio::time::sleep(later).await;
        life.send_replace(Liveness::Ended);
        let ended = InstanceEnd { instance, code: Some(1), signal: None, out_of_memory: None };
        let _ = self.events.send(BodyEvent::Ended(ended)).await;
    }

    /// The body loses touch with an instance, or is in touch again.
    pub async fn reach(&self, instance: InstanceId, reachable: bool) {
        let (life, event) = match reachable {
            true => (Liveness::Alive, BodyEvent::Reachable(instance)),
            false => (Liveness::Unreachable, BodyEvent::Unreachable(instance)),
        };
        if let Some(fake) = self.scripts.lock().instances.get(&instance) {
            fake.life.send_replace(life);
        }
        let _ = self.events.send(event).await;
    }

    async fn course(&self, call: Call, instance: InstanceId) -> bool {
        let course = {
            let mut scripts = self.scripts.lock();
            scripts.calls.push((call, instance));
            scripts.courses.get_mut(&call).and_then(VecDeque::pop_front).unwrap_or(Script::Well)
        };
        match course {
            Script::Well => true,
            Script::After(time) => {
                tokio::time::sleep(time).await;
                true
            }
            Script::Fail => false,
            Script::FailAfter(time) => {
                tokio::time::sleep(time).await;
                false
            }
            Script::Hang => std::future::pending().await,
        }
    }

    fn make(&self, instance: InstanceId) -> (Endpoint, watch::Receiver<Liveness>) {
        let (dialer, listener) = listen();
        let (life, alive) = watch::channel(Liveness::Alive);
        let connections = watch::Sender::new(0);
        let closing = connections.subscribe();
        let scripts = self.scripts.clone();
        kip_host::tasks::spawn("fake instance", accept(instance, listener, closing, scripts));
        let endpoint = Endpoint::Memory(dialer);
        let fake = Fake { life, connections, paused: false, memory: 0 };
        self.scripts.lock().instances.insert(instance, fake);
        (endpoint, alive)
    }

    fn failed(what: &'static str, instance: InstanceId) -> Error {
        Error::Io { what, instance, source: std::io::Error::other("the test says so") }
    }
}

async fn accept(
    instance: InstanceId,
    mut listener: Listener,
    closing: watch::Receiver<u64>,
    scripts: Arc<Mutex<Scripts>>,
) {
    let mut ended = closing.clone();
    loop {
        let stream = tokio::select! {
            Some(stream) = listener.accept() => stream,
            // An error once the instance is gone: its listener goes with this.
            closed = ended.changed() => match closed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let (scripts, mut closing) = (scripts.clone(), closing.clone());
        closing.mark_unchanged();
        kip_host::tasks::spawn("fake connection", async move {
            let service = hyper::service::service_fn(move |request| answer(instance, request, scripts.clone()));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                _ = closing.changed() => {}
            }
        });
    }
}

async fn answer(
    instance: InstanceId,
    request: http::Request<Incoming>,
    scripts: Arc<Mutex<Scripts>>,
) -> Result<Response<Full<Bytes>>, BrokenConnection> {
    let body = request.into_body().collect().await.map_err(|_| BrokenConnection)?.to_bytes();
    let reply = {
        let mut scripts = scripts.lock();
        scripts.requests.push((instance, String::from_utf8_lossy(&body).into_owned()));
        scripts.replies.pop_front().unwrap_or(Reply::After(Duration::ZERO))
    };
    let mut response = Response::new(Full::from(instance.to_string()));
    match reply {
        Reply::After(time) => tokio::time::sleep(time).await,
        Reply::BreakOff => return Err(BrokenConnection),
        Reply::Close => {
            response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
        }
        Reply::Silence => std::future::pending().await,
    }
    Ok(response)
}

/// Ends a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the test says so")]
struct BrokenConnection;

#[async_trait]
impl Body for FakeBody {
    async fn adopt(&self) -> Adoption {
        Adoption { found: std::mem::take(&mut self.scripts.lock().found), ..Adoption::default() }
    }

    async fn start(&self, order: Order) -> Result<ReadyInstance, StartError> {
        if !self.course(Call::Start, order.instance).await {
            let (problem, detail) = (StartProblem::SpawnFailed, "the test says so".to_owned());
            return Err(StartError { problem, detail, last_lines: Vec::new() });
        }
        let (endpoint, life) = self.make(order.instance);
        Ok(ReadyInstance { endpoint, life, token: None, exposed: None })
    }

    async fn initialize(&self, instance: InstanceId, _: &Hook) -> Result<(), Error> {
        let well = self.course(Call::Initialize, instance).await;
        well.then_some(()).ok_or_else(|| Self::failed("initialize", instance))
    }

    async fn call(&self, instance: InstanceId, what: &'static str, call: &InstanceCall) -> Result<CallAnswer, Error> {
        let asked = async {
            self.scripts.lock().paths.push((instance, call.path.clone()));
            self.course(Call::Request, instance).await
        };
        match tokio::time::timeout(call.timeout.to_std(), asked).await {
            Ok(well) => {
                let answer = self.scripts.lock().answers.pop_front().unwrap_or_default();
                Ok(CallAnswer { status: if well { 200 } else { 500 }, body: answer.into() })
            }
            Err(_) => Err(Error::Slow { what, instance }),
        }
    }

    async fn remember(&self, instance: InstanceId, memo: &str) -> Result<(), Error> {
        self.scripts.lock().memos.push((instance, memo.to_owned()));
        Ok(())
    }

    async fn probe(&self, instance: InstanceId, _: &str, limit: Duration) -> Health {
        match tokio::time::timeout(limit, self.course(Call::Probe, instance)).await {
            Ok(true) => Health::Well,
            Ok(false) => Health::Refused,
            Err(_) => Health::Slow,
        }
    }

    async fn measure(&self, instances: &[InstanceId], what: Measure) -> HashMap<InstanceId, u64> {
        let scripts = self.scripts.lock();
        let measured = |id: &InstanceId| {
            let memory = scripts.instances.get(id)?.memory;
            Some((*id, if what == Measure::CpuTime { scripts.cpu_time? } else { memory }))
        };
        instances.iter().filter_map(measured).collect()
    }

    async fn stacks(&self, _: InstanceId) -> Vec<String> {
        Vec::new()
    }

    async fn settle_logs(&self, _: &str, _: Option<InstanceId>) {}

    async fn pause(&self, instance: InstanceId) -> Result<(), Error> {
        if !self.course(Call::Pause, instance).await {
            return Err(Self::failed("pause", instance));
        }
        self.scripts.lock().instances.get_mut(&instance).ok_or(Error::Unknown(instance))?.paused = true;
        Ok(())
    }

    async fn resume(&self, instance: InstanceId) -> Result<(), Error> {
        if !self.course(Call::Resume, instance).await {
            return Err(Self::failed("resume", instance));
        }
        self.scripts.lock().instances.get_mut(&instance).ok_or(Error::Unknown(instance))?.paused = false;
        Ok(())
    }

    async fn stop(&self, instance: InstanceId, _: StopOrder) -> Result<Termination, Error> {
        if !self.course(Call::Stop, instance).await {
            return Err(Self::failed("stop", instance));
        }
        self.scripts.lock().instances.remove(&instance);
        Ok(Termination::Graceful)
    }

    async fn kill(&self, instance: InstanceId) -> Result<(), Error> {
        if !self.course(Call::Kill, instance).await {
            return Err(Self::failed("kill", instance));
        }
        if let Some(fake) = self.scripts.lock().instances.remove(&instance) {
            fake.life.send_replace(Liveness::Ended);
        }
        Ok(())
    }

    async fn clean_up(&self) {}

    fn local(&self) -> Option<&dyn LocalBody> {
        None
    }
}
