//! A headless Chromium, controlled through the pipe of its DevTools protocol: JSON messages, each ended by a zero byte.
//! It ends when the pipe closes, so it cannot outlive the tests.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::scratch;
use crate::support::skip::{Need, Skip, or_skip};

/// Timeout of an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that may fail: optional or protected lists, and a daemon that is not ready.
const EXPECTED_FAILURES: [&str; 4] = ["/api/v1/at-risk", "/api/v1/winback", "/readyz", "/api/v1/series"];

/// Size and color scheme of a screen.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

pub const SCREENS: [Screen; 4] = [
    Screen { width: 1280, height: 900, dark: false },
    Screen { width: 1280, height: 900, dark: true },
    Screen { width: 390, height: 844, dark: false },
    Screen { width: 390, height: 844, dark: true },
];

/// One page in its own browser.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    mistakes: Vec<String>,
    loaded: bool,
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser with an empty page.
    pub fn start() -> Result<Browser, Skip> {
        let program = find()?;
        let profile = tempfile::Builder::new().prefix("browser-").tempdir_in(scratch()).expect("a profile");
        // The protocol uses descriptors 3 and 4, which are connected to the standard streams here.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "browser", &program])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"])
            .args(["--no-first-run", "--lang=en-US", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let to = child.stdin.take().expect("a pipe");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, from) = mpsc::channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let parsed = serde_json::from_slice(&message).expect("the browser speaks JSON");
                if tell.send(parsed).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let (mistakes, session) = (Vec::new(), None);
        let mut browser = Browser { child, to, from, session, calls: 0, mistakes, loaded: false, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &target);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Ok(browser)
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser listens");
        loop {
            let answer = self.next();
            if answer["id"] == json!(self.calls) {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    fn next(&mut self) -> Value {
        let message = self.from.recv_timeout(PATIENCE).expect("the browser answers");
        let params = &message["params"];
        match message["method"].as_str() {
            Some("Page.loadEventFired") => self.loaded = true,
            Some("Runtime.exceptionThrown") => self.mistakes.push(params["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") => self.mistakes.push(params.to_string()),
            Some("Log.entryAdded") => {
                let entry = &params["entry"];
                let url = entry["url"].as_str().unwrap_or_default();
                let expected = entry["source"] == "network" && EXPECTED_FAILURES.iter().any(|path| url.contains(path));
                if !expected {
                    self.mistakes.push(entry.to_string());
                }
            }
            _ => {}
        }
        message
    }

    /// The value of an expression; promises are awaited.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", &params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, expression: &str) {
        let script = format!(
            "new Promise(resolve => {{ const end = Date.now() + 30000; const look = () => ({expression}) ? resolve(true) \
             : Date.now() > end ? resolve(false) : setTimeout(look, 20); look(); }})"
        );
        if self.eval(&script) != true {
            let text = self.eval("document.body.innerText");
            panic!("waited in vain for {expression}; mistakes: {:?}; the page says {text}", self.mistakes);
        }
    }

    /// Opens a page, after a script that runs before the page's own.
    pub fn open(&mut self, url: &str, before: &str) {
        // Via an empty page, because a change of the fragment alone would not load the page.
        self.navigate("about:blank");
        let script = self.call("Page.addScriptToEvaluateOnNewDocument", &json!({"source": before}));
        self.navigate(url);
        self.call("Page.removeScriptToEvaluateOnNewDocument", &script);
    }

    fn navigate(&mut self, url: &str) {
        self.loaded = false;
        let opened = self.call("Page.navigate", &json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        let end = Instant::now() + PATIENCE;
        while !self.loaded {
            assert!(Instant::now() < end, "{url} is not loaded");
            self.next();
        }
    }

    /// Shows the page on another screen.
    pub fn on(&mut self, screen: Screen) {
        let Screen { width, height, dark } = screen;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// Panics if the page threw, logged an error, or had a request refused.
    pub fn assert_no_mistakes(&mut self) {
        // Messages sent before this answer have arrived by then.
        self.eval("0");
        assert!(self.mistakes.is_empty(), "the console says:\n{}", self.mistakes.join("\n"));
    }

    /// Panics if a control or image has no accessible name.
    pub fn assert_named(&mut self) {
        const NAMED: [&str; 9] =
            ["button", "radio", "combobox", "textbox", "link", "image", "img", "region", "heading"];
        let tree = self.call("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().expect("a tree");
        let is_named = |node: &&Value| NAMED.contains(&node["role"]["value"].as_str().unwrap_or_default());
        let shown: Vec<_> = nodes.iter().filter(|node| node["ignored"] != true).filter(is_named).collect();
        assert!(shown.len() > 20, "only {} parts found; does the search still work?", shown.len());
        let unnamed: Vec<_> =
            shown.iter().filter(|node| node["name"]["value"].as_str().is_none_or(str::is_empty)).collect();
        assert!(unnamed.is_empty(), "without a name: {unnamed:?}");
    }

    /// Panics if a text has too little contrast (WCAG 2.1, 1.4.3), or a scrollable part cannot be reached with the
    /// keyboard (2.1.1).
    pub fn assert_readable(&mut self) {
        let found = self.eval(READABLE);
        let found = found.as_str().expect("a report");
        let (looked, mistakes) = found.split_once('\n').expect("a count and mistakes");
        assert!(
            looked.parse::<u32>().expect("a count") > 100,
            "only {looked} texts found; does the search still work?"
        );
        assert!(mistakes.is_empty(), "not readable or not reachable:\n{mistakes}");
    }

    /// Panics if axe-core, if it is installed, finds a violation.
    pub fn assert_axe(&mut self) {
        let Some(axe) = or_skip(axe()) else { return };
        self.eval(&format!("{axe};0"));
        let found = self.eval(
            "axe.run(document, { resultTypes: ['violations'] }).then(found => found.passes.length + found.violations.flatMap(one => \
             one.nodes.map(node => `\\n${one.id} ${node.target}: ${node.failureSummary}`)).join(''))",
        );
        let (passed, mistakes) = found
            .as_str()
            .expect("a report")
            .split_at(found.as_str().map_or(0, |text| text.find('\n').unwrap_or(text.len())));
        assert!(passed.parse::<u32>().expect("a count") > 10, "axe looked at {passed} rules only");
        assert!(mistakes.is_empty(), "axe-core finds:{mistakes}");
    }
}

/// Returns the number of texts, then each text with too little contrast and each scrollable part that takes no focus.
const READABLE: &str = r"(() => {
  const canvas = document.createElement('canvas'), context = canvas.getContext('2d', { willReadFrequently: true });
  [canvas.width, canvas.height] = [1, 1];
  const paint = (...colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(part => part / 255).map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)
    .reduce((sum, part, i) => sum + part * [.2126, .7152, .0722][i], 0);
  const mistakes = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let looked = 0;
  while (walk.nextNode()) {
    const node = walk.currentNode, element = node.parentElement, style = getComputedStyle(element);
    if (!node.data.trim() || !element.checkVisibility({ visibilityProperty: true }) || element.closest('.unseen, .skip, option, svg')) continue;
    const behind = [];
    let opacity = 1;
    for (let one = element; one; one = one.parentElement) { behind.unshift(getComputedStyle(one).backgroundColor); opacity *= getComputedStyle(one).opacity; }
    looked += 1;
    const back = paint('white', ...behind), front = paint('white', ...behind, style.color);
    const seen = front.map((part, i) => opacity * part + (1 - opacity) * back[i]);
    const [low, high] = [light(seen), light(back)].sort((a, b) => a - b), contrast = (high + .05) / (low + .05);
    const size = parseFloat(style.fontSize), isLarge = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
    if (contrast < (isLarge ? 3 : 4.5)) mistakes.push(`contrast ${contrast.toFixed(2)}: ${element.tagName} ${element.className} ${node.data.trim().slice(0, 40)}`);
  }
  for (const one of document.querySelectorAll('body *')) {
    const style = getComputedStyle(one), scrolls = ['auto', 'scroll'].includes(style.overflowX) || ['auto', 'scroll'].includes(style.overflowY);
    if (scrolls && one.checkVisibility() && one.tabIndex < 0 && !one.querySelector('button, a[href], input, select')) mistakes.push(`no focus: ${one.tagName} ${one.id} ${one.className}`);
  }
  return `${looked}\n${mistakes.join('\n')}`;
})()";

/// The script of axe-core: the one that `RETENTIOND_AXE` names, or that of `npm install --prefix target/axe axe-core`.
fn axe() -> Result<String, Skip> {
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/target/axe/node_modules/axe-core/axe.min.js");
    let path = env::var("RETENTIOND_AXE").unwrap_or_else(|_| usual.to_owned());
    fs::read_to_string(&path).map_err(|error| Skip {
        need: "needs axe-core (npm install --prefix target/axe axe-core) to look for barriers",
        because: format!("{path}: {error}"),
        required_as: Need::Axe,
    })
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Fails only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The browser that `RETENTIOND_BROWSER` names, or an installed one.
fn find() -> Result<String, Skip> {
    let named = env::var("RETENTIOND_BROWSER").ok();
    let names = named.iter().map(String::as_str).chain(["chromium", "chromium-browser", "google-chrome"]);
    let works = |name: &&str| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let found = names.into_iter().find(works);
    found.map(str::to_owned).ok_or_else(|| Skip {
        need: "needs Chromium to look at the page",
        because: "no chromium, chromium-browser or google-chrome runs, nor what RETENTIOND_BROWSER names".to_owned(),
        required_as: Need::Browser,
    })
}
