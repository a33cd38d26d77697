//! Against a real HTTP server on this machine with scripted answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::*;

const NOW: i64 = 1_700_000_000_000;

fn provider(url: &str) -> Provider {
    let options = BTreeMap::from([
        (METHOD, "OIDC"),
        (CLIENT_ID, "shop:1"),
        (CLIENT_SECRET, "hunter 2"),
        (URL, url),
        (SCOPE, "kafka read"),
        (EXTENSIONS, "logicalCluster=lkc-1, identityPoolId=p=1"),
    ]);
    Provider::of(&options).unwrap().unwrap()
}

/// Answers each request with the next status and body; returns the requests through a channel.
fn server(answers: Vec<(u16, String)>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    thread::spawn(move || {
        for ((status, body), stream) in answers.into_iter().zip(listener.incoming().flatten()) {
            let mut reader = BufReader::new(&stream);
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                reader.read_line(&mut request).unwrap();
            }
            let length = request.to_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            reader.take(length.parse().unwrap()).read_to_string(&mut request).unwrap();
            sender.send(request).unwrap();
            let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            (&stream).write_all((head + &body).as_bytes()).unwrap();
        }
    });
    (url, requests)
}

fn jwt(claims: &str) -> String {
    format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(claims))
}

fn granted(token: &str, expires_in: Option<u32>) -> Granted {
    Granted { access_token: token.to_owned(), expires_in: expires_in.map(Into::into) }
}

#[test]
fn requests_follow_the_standard_and_the_token_names_the_principal() {
    let answer = format!(r#"{{"access_token":"{}","token_type":"Bearer","expires_in":60}}"#, jwt(r#"{"sub":"svc"}"#));
    let (url, requests) = server(vec![(200, answer)]);
    let before = wall_clock().millis();
    let token = fetch(&provider(&url)).unwrap();
    assert_eq!(token.principal, "svc");
    assert!((before + 60_000..=wall_clock().millis() + 60_000).contains(&token.ends));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(token.extensions, [pair("logicalCluster", "lkc-1"), pair("identityPoolId", "p=1")]);
    let request = requests.recv().unwrap();
    assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials&scope=kafka%20read"), "{request}");
    let identity = STANDARD.encode("shop%3A1:hunter%202");
    assert!(request.contains(&format!("authorization: Basic {identity}\r\n")), "{request}");
}

#[test]
fn lifetime_and_owner_come_from_the_token_or_the_answer() {
    let provider = provider("http://x");
    let full = jwt(r#"{"sub":"svc","exp":1700000123.5}"#);
    let by_claims = token(&provider, granted(&full, None), NOW).unwrap();
    assert_eq!((by_claims.principal.as_str(), by_claims.ends), ("svc", NOW + 123_500));
    let by_answer = token(&provider, granted(&full, Some(60)), NOW).unwrap();
    assert_eq!(by_answer.ends, NOW + 60_000, "relative to our own clock");
    let opaque = token(&provider, granted("opaque", Some(60)), NOW).unwrap();
    assert_eq!((opaque.principal.as_str(), opaque.ends), ("shop:1", NOW + 60_000));
    for endless in ["opaque", "a.b.c", "..", &jwt("[]"), &jwt(r#"{"sub":"svc"}"#)] {
        assert!(token(&provider, granted(endless, None), NOW).unwrap_err().contains("expires_in"), "{endless}");
    }
}

#[test]
fn errors_of_the_provider_are_shown_without_the_secret() {
    let denied = r#"{"error":"invalid_client","error_description":"no client with hunter 2"}"#;
    let (url, _requests) = server(vec![(401, denied.to_owned()), (502, "<html>".to_owned()), (200, "{}".to_owned())]);
    let provider = provider(&url);
    let why = fetch(&provider).unwrap_err();
    for part in [url.as_str(), "401", "invalid_client", "no client with ***", CLIENT_SECRET] {
        assert!(why.contains(part), "{part} in {why}");
    }
    assert!(!why.contains("hunter"), "{why}");
    assert!(fetch(&provider).unwrap_err().contains("answers 502"));
    assert!(fetch(&provider).unwrap_err().contains("did not return a token"));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = fetch(&self::provider(&format!("http://{nobody}/"))).unwrap_err();
    assert!(why.contains("does not answer"), "{why}");
    assert!(!format!("{provider:?} {:?}", Tokens::of(provider.clone())).contains("hunter"));
}

#[test]
fn an_endpoint_over_tls_must_have_a_trusted_certificate() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 40\r\nconnection: close\r\n\r\n\
                  {\"access_token\":\"opaque\",\"expires_in\":1}";
    let server = crate::tls::tests::Server::start("localhost", answer);
    let other = crate::tls::tests::Server::start("localhost", answer);
    let dir = tempfile::tempdir().unwrap();
    let fetch_trusting = |authority: &str| {
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, authority).unwrap();
        let mut provider = provider(&format!("https://localhost:{}/", server.address.port()));
        provider.authorities = Some(path.display().to_string());
        fetch(&provider)
    };
    assert_eq!(fetch_trusting(&server.authority).unwrap().value, "opaque");
    let why = fetch_trusting(&other.authority).unwrap_err();
    assert!(why.contains("certificate"), "{why}");
    let why = fetch_trusting("").unwrap_err();
    assert!(why.contains("ca.pem") && why.contains("holds no certificate"), "{why}");
    assert_eq!(server.asked().len(), 1, "the secret was sent to no other server");
}

/// librdkafka requests another token after 80 % of the lifetime; several clients share one.
#[test]
fn a_token_is_shared_for_half_of_its_lifetime_and_a_failure_for_its_pause() {
    let begun = Instant::now();
    let at = |seconds: u64| begun + Duration::from_secs(seconds);
    let fresh = Token { value: "t".into(), principal: "p".into(), ends: NOW + 100_000, extensions: vec![] };
    let mut state = State::default();
    assert_eq!(state.answer(begun), None);
    state.take(Ok(fresh.clone()), begun, NOW).unwrap();
    assert_eq!(state.answer(at(49)), Some(Ok(fresh.clone())));
    assert_eq!(state.answer(at(50)), None);

    let down = || Err("down".to_owned());
    for (asked, pause) in [(50, 1), (60, 2), (70, 4), (80, 8), (90, 16), (110, 30), (200, 30)] {
        assert_eq!(state.answer(at(asked)), None);
        state.take(down(), at(asked), NOW).unwrap_err();
        assert_eq!(state.answer(at(asked + pause - 1)), Some(down()));
    }
    state.take(Ok(fresh.clone()), at(300), NOW).unwrap();
    assert_eq!(state.answer(at(301)), Some(Ok(fresh)));
    state.take(down(), at(400), NOW).unwrap_err();
    assert_eq!(state.answer(at(401)), None, "a success resets the pauses");
}

#[test]
fn clients_with_equal_credentials_share_tokens() {
    let (one, same) = (Tokens::of(provider("http://a")), Tokens::of(provider("http://a")));
    assert!(Arc::ptr_eq(&one, &same));
    assert!(!Arc::ptr_eq(&one, &Tokens::of(provider("http://b"))));
}
