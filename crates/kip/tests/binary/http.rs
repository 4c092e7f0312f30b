//! A bare HTTP/1.1 caller, so that tests see the very bytes: pieces as they come, and how an answer ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::LIMIT;

/// An answer's head.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A whole answer.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as HTTP says it must; if not, the connection broke.
    pub(crate) clean: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let beginning: String = self.text().chars().take(600).collect();
        write!(f, "{:?} {beginning} ({} bytes, clean end: {})", self.head, self.body.len(), self.clean)
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The code of a problem, checked to be the same in header and body, with a message and a way out.
    pub(crate) fn code(&self) -> String {
        let error = &self.json()["error"];
        let code = error["code"].as_str().unwrap_or_default().to_owned();
        assert_eq!(self.header("x-kip-error"), Some(code.as_str()), "{self:?}");
        assert!(self.header("x-kip-request-id").is_some(), "{self:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        code
    }

    /// The three sentences of a problem in one.
    pub(crate) fn said(&self) -> String {
        let error = &self.json()["error"];
        ["message", "cause", "hint"].map(|part| error[part].as_str().unwrap_or_default().to_owned()).join(" | ")
    }
}

/// One connection of a caller.
#[derive(Debug)]
pub(crate) struct Caller {
    reader: BufReader<TcpStream>,
}

impl Caller {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway takes connections");
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).expect("the server reads on");
    }

    pub(crate) fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a request without a body.
    pub(crate) fn send(&mut self, method: &str, target: &str, headers: &str) {
        self.write(format!("{method} {target} HTTP/1.1\r\nhost: gateway\r\n{headers}\r\n"));
    }

    /// Sends a request with a body of known length.
    pub(crate) fn send_body(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) {
        self.send(method, target, &format!("{headers}content-length: {}\r\n", body.len()));
        self.write(body);
    }

    pub(crate) fn chunk(&mut self, piece: &[u8]) {
        self.write(format!("{:x}\r\n", piece.len()));
        self.write(piece);
        self.write("\r\n");
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => line.ends_with('\n').then(|| line.trim_end().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer within {LIMIT:?}: {error}"),
        }
    }

    /// The next head, or nothing if the connection ended. Heads of 1xx are answers of their own.
    pub(crate) fn try_head(&mut self) -> Option<Head> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let mut head = Head { status, headers: Vec::new() };
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { return Some(head) };
            head.headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
    }

    pub(crate) fn head(&mut self) -> Head {
        self.try_head().expect("an answer")
    }

    /// The next piece of a chunked body: empty at its end, nothing if it broke off.
    pub(crate) fn piece(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line()?, 16).expect("the length of a chunk");
        let mut piece = vec![0; length];
        self.reader.read_exact(&mut piece).ok()?;
        self.line()?;
        Some(piece)
    }

    /// The rest of an answer to a request of this method.
    pub(crate) fn rest(&mut self, method: &str, head: Head) -> Answer {
        let mut answer = Answer { head, body: Vec::new(), clean: true };
        if method == "HEAD" || matches!(answer.status(), 100..200 | 204 | 304) {
            return answer;
        }
        if answer.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            loop {
                match self.piece() {
                    Some(piece) if piece.is_empty() => return answer,
                    Some(piece) => answer.body.extend(piece),
                    None => {
                        answer.clean = false;
                        return answer;
                    }
                }
            }
        }
        let length: u64 = answer.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let read = self.reader.by_ref().take(length).read_to_end(&mut answer.body);
        answer.clean = read.is_ok() && answer.body.len() as u64 == length;
        answer
    }

    pub(crate) fn answer(&mut self, method: &str) -> Answer {
        let head = self.head();
        self.rest(method, head)
    }

    /// Reads and forgets a body of known length; says how much came.
    pub(crate) fn forget(&mut self, length: u64) -> u64 {
        std::io::copy(&mut self.reader.by_ref().take(length), &mut std::io::sink()).unwrap_or(0)
    }

    pub(crate) fn read_exact(&mut self, bytes: &mut [u8]) {
        self.reader.read_exact(bytes).expect("as many bytes");
    }

    /// All that comes until the server closes the connection.
    pub(crate) fn everything(&mut self) -> String {
        let mut all = Vec::new();
        self.reader.read_to_end(&mut all).expect("an end");
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        let stream = self.reader.get_ref();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let closed = match stream.peek(&mut [0]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        closed
    }

    pub(crate) fn leave(self) {
        let _ = self.reader.get_ref().shutdown(Shutdown::Both);
    }
}

/// One call of a server that may be gone, or go in the midst of it: no answer is an error then, and a hang a failure.
pub(crate) fn try_call(address: SocketAddr, target: &str) -> std::io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    let mut caller = Caller { reader: BufReader::new(stream) };
    caller.try_write(format!("GET {target} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n"))?;
    let head = caller.try_head().ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok(caller.rest("GET", head))
}
