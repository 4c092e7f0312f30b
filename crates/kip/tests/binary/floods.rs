//! Floods of HTTP/2's frames of control, sent raw: each ends its connection with GOAWAY and ENHANCE_YOUR_CALM, and the gateway goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Server, apart};

const GOAWAY: u8 = 7;
const PONG: (u8, u8) = (6, 1);
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// The head of `POST path`, without an index.
fn head(path: &str) -> Vec<u8> {
    let field = |(name, value): (&str, &str)| {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [vec![0], text(name), text(value)].concat()
    };
    [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        .into_iter()
        .flat_map(field)
        .collect()
}

fn open(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.gateway).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(4, 0, 0, b"")).unwrap();
    stream
}

/// The next frame: its kind, flags and content; none at the end.
fn next(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).ok()?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    let mut content = vec![0; length];
    stream.read_exact(&mut content).ok()?;
    Some((header[3], header[4], content))
}

/// Sends a frame again and again, and reads what comes: the code of the GOAWAY that ends the connection.
fn flooded(server: &Server, first: &[u8], flood: &[u8]) -> Option<u32> {
    let mut stream = open(server);
    stream.write_all(first).unwrap();
    let mut writer = stream.try_clone().unwrap();
    // An odd number of bytes, so that frames are cut anywhere.
    let bytes = flood.repeat(20_000);
    let writing = apart(move || bytes.chunks(4_097).all(|piece| writer.write_all(piece).is_ok()));
    let mut code = None;
    while let Some((kind, _, content)) = next(&mut stream) {
        if kind == GOAWAY {
            code = Some(u32::from_be_bytes(content[4..8].try_into().unwrap()));
        }
    }
    drop(stream);
    writing.join().unwrap();
    code
}

#[test]
fn floods_of_control_frames_end_their_connection() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let waits = frame(1, 4, 1, &head("/f/f/hang"));
    for (what, first, flood) in [
        ("SETTINGS", Vec::new(), frame(4, 0, 0, &[0, 3, 0, 0, 1, 0])),
        ("PING", Vec::new(), frame(6, 0, 0, b"12345678")),
        ("PRIORITY", Vec::new(), frame(2, 0, 5, &[0, 0, 0, 0, 16])),
        ("WINDOW_UPDATE", Vec::new(), frame(8, 0, 0, &[0, 0, 0, 1])),
        ("unknown frames", Vec::new(), frame(0x42, 0, 0, &[b'z'; 100])),
        ("empty DATA", waits.clone(), frame(0, 0, 1, b"")),
        ("padded empty DATA", waits, frame(0, 8, 1, &[[255].as_slice(), &[0; 255]].concat())),
    ] {
        assert_eq!(flooded(&server, &first, &flood), Some(ENHANCE_YOUR_CALM), "{what}");
    }
    assert_eq!(server.get("/f/f/").status(), 200);
}

#[test]
fn control_frames_of_an_ordinary_caller_are_answered() {
    let server = Server::start();
    let mut stream = open(&server);
    for _ in 0..3_000 {
        stream.write_all(&frame(6, 0, 0, b"12345678")).unwrap();
        let pong = std::iter::from_fn(|| next(&mut stream)).find(|(kind, flags, _)| (*kind, *flags) == PONG);
        assert_eq!(pong.map(|(.., content)| content).as_deref(), Some(b"12345678".as_slice()));
    }
}
