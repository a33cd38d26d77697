//! Tests against a real HTTP server on this machine with scripted answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const BODY: &str = r#"{"specversion":"1.0","id":"e-1","data":{}}"#;

/// A request that the server received: head and body.
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

struct Server {
    address: SocketAddr,
    requests: Receiver<Request>,
    connections: Receiver<()>,
}

/// Answers requests in turn with these texts; never answers for an empty one.
fn server(answers: &'static [&'static str]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    let (connected, connections) = channel();
    thread::spawn(move || {
        let mut answers = answers.iter();
        for stream in listener.incoming() {
            _ = connected.send(());
            serve(&stream.unwrap(), &sender, &mut answers);
        }
    });
    Server { address, requests, connections }
}

fn serve(stream: &TcpStream, requests: &Sender<Request>, answers: &mut std::slice::Iter<'_, &str>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let mut request = Request { head, body: String::new() };
        let length: u64 = request.header("content-length").unwrap().parse().unwrap();
        reader.by_ref().take(length).read_to_string(&mut request.body).unwrap();
        _ = requests.send(request);
        match answers.next() {
            Some(answer) if !answer.is_empty() => (&*stream).write_all(answer.as_bytes()).unwrap(),
            // Until the client gives up.
            _ => drop(reader.read_line(&mut String::new())),
        }
    }
}

fn endpoint(server: &Server, timeout: Duration) -> Endpoint {
    let url = format!("http://{}/hook?key=1", server.address);
    Endpoint::new(&url, Keys::parse(SECRET).unwrap(), timeout, true)
}

fn post(endpoint: &Endpoint) -> Outcome {
    endpoint.post(&Post { id: "e-1", content_type: None, body: BODY.as_bytes() })
}

fn answered(status: u16, retry_after: Option<u64>) -> Outcome {
    Outcome::Answered { status, retry_after: retry_after.map(Duration::from_secs) }
}

#[test]
fn posts_unchanged_messages_over_one_connection_with_a_signature_that_others_verify() {
    let server = server(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\noops",
        "HTTP/1.1 204 Fine\r\n\r\n",
    ]);
    let endpoint = endpoint(&server, Duration::from_secs(10));
    assert_eq!(post(&endpoint), answered(200, None));
    assert_eq!(post(&endpoint), answered(500, None));
    assert_eq!(post(&endpoint), answered(204, None));
    assert_eq!(server.connections.try_iter().count(), 1, "connections are used again");

    let request = server.requests.recv().unwrap();
    assert!(request.head.starts_with("POST /hook?key=1 HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.body, BODY);
    let header = |name| request.header(name).unwrap_or_else(|| panic!("no {name} in {}", request.head));
    assert_eq!((header("content-type"), header("webhook-id")), ("application/cloudevents+json", "e-1"));
    let timestamp: i64 = header("webhook-timestamp").parse().unwrap();
    assert!((wall_clock().millis() / 1000 - timestamp).abs() < 60, "{timestamp}");
    let reference = standardwebhooks::Webhook::new(SECRET).unwrap();
    let mut headers = ureq::http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, header(name).parse().unwrap());
    }
    reference.verify(BODY.as_bytes(), &headers).unwrap();
    reference.verify(b"{}", &headers).unwrap_err();
}

#[test]
fn reports_the_status_and_retry_after_and_follows_no_redirect() {
    let server = server(&[
        "HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 503 Slow\r\nretry-after: Thu, 01 Jan 1970 00:00:07 GMT\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 There\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 307 There\r\nlocation: http://localhost:1/\r\ncontent-length: 0\r\n\r\n",
    ]);
    let endpoint = endpoint(&server, Duration::from_secs(10));
    let expected =
        [answered(429, Some(7)), answered(503, Some(0)), answered(410, None), answered(302, None), answered(307, None)];
    for expected in expected {
        assert_eq!(post(&endpoint), expected);
    }
    assert_eq!(server.requests.try_iter().count(), 5, "nobody went elsewhere");
}

#[test]
fn an_endpoint_that_hangs_or_is_absent_times_out_or_fails() {
    let hanging = server(&[""]);
    assert_eq!(post(&endpoint(&hanging, Duration::from_millis(300))), Outcome::TimedOut);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = Server { address, requests: channel().1, connections: channel().1 };
    assert!(matches!(post(&endpoint(&nobody, Duration::from_secs(5))), Outcome::Failed(_)));
}

/// However the host is written, the address that would be connected to decides.
#[test]
fn connects_to_no_private_address() {
    let server = server(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]);
    let port = server.address.port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "2130706433"] {
        let url = format!("http://{host}:{port}/");
        let endpoint = Endpoint::new(&url, Keys::parse(SECRET).unwrap(), Duration::from_secs(5), false);
        let outcome = post(&endpoint);
        assert!(matches!(&outcome, Outcome::Forbidden(why) if why.contains("allow_private")), "{host}: {outcome:?}");
    }
    let named = |resolve_to| {
        let guard = Guard { allow_private: false, resolve_to: Some(resolve_to) };
        Endpoint::guarded(
            "http://hooks.example.com/",
            Keys::parse(SECRET).unwrap(),
            Duration::from_secs(5),
            guard,
            Trust::of_system,
        )
    };
    let outcome = post(&named(server.address));
    assert!(matches!(outcome, Outcome::Forbidden(_)), "a name that leads here: {outcome:?}");
    assert_eq!((server.requests.try_iter().count(), server.connections.try_iter().count()), (0, 0));
}

/// The guard resolves all names to the test server; the certificate is checked against the name in the URL.
#[test]
fn a_certificate_must_have_a_trusted_issuer_and_the_right_name() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let server = crate::tls::tests::Server::start("hooks.example.com", OK);
    let other = crate::tls::tests::Server::start("hooks.example.com", OK);
    let outcome = |name: &str, authority: &str| {
        let guard = Guard { allow_private: true, resolve_to: Some(server.address) };
        let (url, trust) = (format!("https://{name}/hook"), Trust::of_pem(authority).unwrap());
        post(&Endpoint::guarded(&url, Keys::parse(SECRET).unwrap(), Duration::from_secs(10), guard, || trust))
    };
    assert_eq!(outcome("hooks.example.com", &server.authority), answered(200, None));
    assert_eq!(server.asked().len(), 1);
    let wrong_name = outcome("evil.example.com", &server.authority);
    assert!(matches!(&wrong_name, Outcome::Failed(why) if why.contains("certificate")), "{wrong_name:?}");
    let unknown = outcome("hooks.example.com", &other.authority);
    assert!(matches!(&unknown, Outcome::Failed(why) if why.contains("certificate")), "{unknown:?}");
    assert_eq!(server.asked().len(), 1, "nothing was posted to either");
}
