//! A local token provider for clients that log in with OAUTHBEARER. Its tokens are unsigned, which a broker accepts by
//! default.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

const CLIENT: &str = "retentiond";
const SECRET: &str = "client-Secr3t";

/// Listens until the process ends.
pub struct Provider {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    subject: String,
    life: Duration,
    is_down: AtomicBool,
    issued: AtomicUsize,
}

impl Provider {
    /// Issues tokens for one subject with this lifetime.
    pub fn start(subject: &str, life: Duration) -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let subject = subject.to_owned();
        let state = Arc::new(State { subject, life, is_down: AtomicBool::new(false), issued: AtomicUsize::new(0) });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Errors of a client that disconnects do not matter.
                _ = serve(&stream, &shared);
            }
        });
        Provider { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The client secret.
    pub fn secret(&self) -> &'static str {
        SECRET
    }

    /// Whether to answer 503 from now on.
    pub fn set_down(&self, is_down: bool) {
        self.state.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Number of issued tokens.
    pub fn issued(&self) -> usize {
        self.state.issued.load(Ordering::SeqCst)
    }
}

fn serve(stream: &TcpStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
    }
    let length = request.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    reader.take(length.unwrap_or(0)).read_to_string(&mut request)?;
    let proof = STANDARD.encode(format!("{CLIENT}:{SECRET}"));
    let is_known = request.contains(&format!("Basic {proof}\r\n")) && request.contains("grant_type=client_credentials");
    let (status, body) = match (state.is_down.load(Ordering::SeqCst), is_known) {
        (true, _) => (503, String::new()),
        (false, false) => (401, r#"{"error":"invalid_client"}"#.to_owned()),
        (false, true) => {
            state.issued.fetch_add(1, Ordering::SeqCst);
            (200, granted(&state.subject, state.life))
        }
    };
    let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let mut stream = stream;
    stream.write_all((head + &body).as_bytes())
}

fn granted(subject: &str, life: Duration) -> String {
    let now = UNIX_EPOCH.elapsed().expect("a clock behind 1970").as_secs_f64();
    let claims = serde_json::json!({"sub": subject, "iat": now, "exp": now + life.as_secs_f64(), "scope": "kafka"});
    let [head, claims] = [r#"{"alg":"none"}"#.to_owned(), claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
    serde_json::json!({"access_token": format!("{head}.{claims}."), "token_type": "Bearer"}).to_string()
}
