use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::tls::Trust;

/// A registry in this process with its own port; `answer` returns `None` for what it does not have.
struct TestRegistry {
    url: String,
    down: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TestRegistry {
    fn start(answer: impl Fn(&str, &str) -> Option<String> + Send + 'static) -> TestRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (down, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (is_down, log) = (Arc::clone(&down), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                serve(stream, &answer, &is_down, &log);
            }
        });
        TestRegistry { url, down, asked }
    }

    fn registry(&self) -> Registry {
        let trust = || panic!("trust is needed for TLS only");
        Registry::new(Client::new(&self.url, Access::basic("ann", "secret"), Duration::from_secs(5), trust))
    }
}

fn serve(
    stream: TcpStream,
    answer: &impl Fn(&str, &str) -> Option<String>,
    down: &AtomicBool,
    log: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let is_authorization = |line: &&String| line.to_lowercase().starts_with("authorization:");
    let authorization = headers.iter().find(is_authorization).map_or("", |line| line.split_once(':').unwrap().1.trim());
    log.lock().unwrap().push(path.clone());
    let (status, body) = match answer(&path, authorization) {
        _ if down.load(Ordering::SeqCst) => ("503 Service Unavailable", String::new()),
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", r#"{"error_code":40403}"#.to_owned()),
    };
    let mut stream = stream;
    _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
}

/// Waits until the registry has answered.
fn settle(registry: &Registry, id: SchemaId) -> Result<Arc<Schema>, String> {
    wait_until(|| registry.is_settled(id));
    registry.get(id)
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited too long");
        thread::yield_now();
    }
}

fn line_and_order(path: &str, _: &str) -> Option<String> {
    match path {
        "/schemas/ids/7" | "/schemas/guids/00000000-0000-0000-0000-000000000001" => Some(
            r#"{"schema":"{\"type\":\"record\",\"name\":\"O\",\"fields\":[{\"name\":\"line\",\"type\":\"shop.Line\"}]}",
                "references":[{"name":"shop.Line","subject":"shop/line","version":3}]}"#
                .to_owned(),
        ),
        "/subjects/shop%2Fline/versions/3" => Some(
            r#"{"subject":"shop/line","version":3,"id":5,"schema":"{\"type\":\"record\",\"name\":\"Line\",\"namespace\":\"shop\",\"fields\":[{\"name\":\"sku\",\"type\":\"string\"}]}"}"#
                .to_owned(),
        ),
        "/schemas/ids/8" => Some(r#"{"schema":"syntax = \"proto3\"; message M { string a = 1; }","schemaType":"PROTOBUF"}"#.to_owned()),
        "/schemas/ids/9" => Some(r#"{"schema":"<x/>","schemaType":"XML"}"#.to_owned()),
        _ => None,
    }
}

#[test]
fn a_schema_is_fetched_once_with_its_references() {
    let server = TestRegistry::start(line_and_order);
    let registry = server.registry();
    let id = SchemaId::Number(7);
    assert!(!registry.is_settled(id), "it does not block");
    settle(&registry, id).unwrap();
    settle(&registry, id).unwrap();
    assert_eq!(*server.asked.lock().unwrap(), ["/schemas/ids/7", "/subjects/shop%2Fline/versions/3"]);
    let mut guid = [0; 16];
    guid[15] = 1;
    settle(&registry, SchemaId::Guid(guid)).unwrap();
    settle(&registry, SchemaId::Number(8)).unwrap();
    assert_eq!(registry.last_error(), None);
}

#[test]
fn unknown_and_unsupported_schemas_are_refused() {
    let registry = TestRegistry::start(line_and_order).registry();
    assert!(settle(&registry, SchemaId::Number(404)).unwrap_err().contains("does not have it"));
    assert!(settle(&registry, SchemaId::Number(9)).unwrap_err().contains("supported are"));
}

#[test]
fn a_registry_that_is_down_refuses_nothing_and_is_retried() {
    let server = TestRegistry::start(line_and_order);
    server.down.store(true, Ordering::SeqCst);
    let registry = server.registry();
    let id = SchemaId::Number(7);
    assert!(!registry.is_settled(id));
    wait_until(|| registry.last_error().is_some());
    assert!(registry.last_error().unwrap().contains("answers 503"), "{:?}", registry.last_error());
    assert!(!registry.is_settled(id));
    server.down.store(false, Ordering::SeqCst);
    settle(&registry, id).unwrap();
    wait_until(|| registry.last_error().is_none());
}

#[test]
fn user_and_password_are_sent_and_never_shown() {
    let server = TestRegistry::start(|_, authorization| {
        // ann:secret
        (authorization == "Basic YW5uOnNlY3JldA==").then(|| r#"{"schema":"{}","schemaType":"JSON"}"#.to_owned())
    });
    let registry = server.registry();
    settle(&registry, SchemaId::Number(1)).unwrap();
    assert!(!format!("{registry:?}").contains("secret"));
}

#[test]
fn a_registry_over_tls_must_have_a_trusted_certificate_and_gets_the_token() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 35\r\nconnection: close\r\n\r\n\
                  {\"schema\":\"{}\",\"schemaType\":\"JSON\"}";
    let server = crate::tls::tests::Server::start("localhost", answer);
    let other = crate::tls::tests::Server::start("localhost", answer);
    let url = format!("https://localhost:{}", server.address.port());
    let registry = |authority: &str| {
        let trust = Trust::of_pem(authority).unwrap();
        Registry::new(Client::new(&url, Access::bearer("secret"), Duration::from_secs(10), || trust))
    };
    let known = registry(&server.authority);
    settle(&known, SchemaId::Number(1)).unwrap();
    let asked = server.asked();
    assert!(asked.len() == 1 && asked[0].to_lowercase().contains("authorization: bearer secret\r\n"), "{asked:?}");
    assert!(!format!("{known:?}").contains("secret"));

    let unknown = registry(&other.authority);
    assert!(!unknown.is_settled(SchemaId::Number(1)));
    wait_until(|| unknown.last_error().is_some());
    assert!(unknown.last_error().unwrap().contains("certificate"), "{:?}", unknown.last_error());
    assert_eq!(server.asked().len(), 1, "the token was sent to no other server");
}
