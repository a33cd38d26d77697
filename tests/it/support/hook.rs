//! A local endpoint for webhooks: answers as a test wants, and records the requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request, and how it was answered.
#[derive(Clone, Debug)]
pub struct Posted {
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub status: u16,
}

impl Posted {
    /// The value of a header by its lower-case name; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }
}

/// Listens until the process ends.
pub struct Hook {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<Posted>>>,
}

impl Hook {
    /// Answers with the status that `answer` returns for the number of the request, from 0, and its body.
    pub fn start(answer: impl Fn(usize, &str) -> u16 + Send + Sync + 'static) -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let posted = Arc::new(Mutex::new(Vec::new()));
        let (shared, answer) = (Arc::clone(&posted), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (posted, answer) = (Arc::clone(&shared), Arc::clone(&answer));
                thread::spawn(move || serve(&stream, &posted, &*answer));
            }
        });
        Hook { address, posted }
    }

    pub fn url(&self) -> String {
        format!("http://{}/alerts", self.address)
    }

    /// The requests so far.
    pub fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    /// The ids of the accepted requests, in order.
    pub fn taken(&self) -> Vec<String> {
        let posted = self.posted.lock().unwrap();
        posted.iter().filter(|one| one.status == 200).map(|one| one.header("webhook-id").to_owned()).collect()
    }
}

fn serve(stream: &TcpStream, posted: &Mutex<Vec<Posted>>, answer: &dyn Fn(usize, &str) -> u16) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => {
                    headers.extend(line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
                }
            }
        }
        let length =
            headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body = String::from_utf8(body).expect("an alert is text");
        let status = {
            let mut posted = posted.lock().unwrap();
            let status = answer(posted.len(), &body);
            posted.push(Posted { headers, body, status });
            status
        };
        let text = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n");
        if (&*stream).write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}
