//! A schema registry in this process, which can be made unavailable.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

/// Listens until the process ends.
pub struct Registry {
    address: SocketAddr,
    down: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Registry {
    /// Starts with schemas: the path of each, such as `/schemas/ids/1`, its kind and its text.
    pub fn start(schemas: &[(&str, &str, &str)]) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let answer = |kind: &str, text: &str| json!({"schemaType": kind, "schema": text}).to_string();
        let schemas: BTreeMap<String, String> =
            schemas.iter().map(|(path, kind, text)| ((*path).to_owned(), answer(kind, text))).collect();
        let (down, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_down, count) = (Arc::clone(&down), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                serve(stream, &schemas, is_down.load(Ordering::SeqCst));
            }
        });
        Registry { address, down, asked }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether to answer 503 to all requests.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Number of requests so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, schemas: &BTreeMap<String, String>, is_down: bool) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut lines = BufReader::new(reading).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let (status, body) = match schemas.get(first.split(' ').nth(1).unwrap_or_default()) {
        _ if is_down => ("503 Service Unavailable", ""),
        Some(body) => ("200 OK", body.as_str()),
        None => ("404 Not Found", r#"{"error_code":40403}"#),
    };
    _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
}
