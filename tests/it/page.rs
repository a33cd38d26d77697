//! The page in a real browser: it shows the figures of the API, whatever the data contain, on every screen.

mod browser;
mod shop;

use std::time::Duration;

use crate::support::daemon::Launch;
use crate::support::free_port;
use crate::support::skip::or_skip;
use browser::{Browser, SCREENS, Screen};
use retentiond::bus::{Partition, TopicIndex, TopicPartition};
use retentiond::status::ReadPosition;
use serde_json::{Value, json};
use shop::{HOSTILE, Shop, USUAL};

const DRAWN: &str = "document.body.dataset.trends !== undefined";

/// A script that answers requests for `path` with this status and body.
fn instead(path: &str, status: u16, body: &Value) -> String {
    format!(
        "{{ const ask = window.fetch; window.fetch = (path, options) => String(path).startsWith({path}) \
         ? (window.asked ??= [], window.asked.push(options?.headers ?? {{}}), \
            Promise.resolve(new Response({body}, {{ status: {status} }}))) : ask(path, options); }}",
        path = json!(path),
        body = json!(body.to_string()),
    )
}

/// The number in a text such as `€1,234.50` or `-12.5%`; `–` is none.
fn number(text: &str) -> Option<f64> {
    let kept: String = text.chars().filter(|c| c.is_ascii_digit() || *c == '.' || *c == '-').collect();
    kept.parse().ok()
}

/// Panics unless `shown` is `exact`, rounded as on the page.
fn assert_shows(what: &str, shown: &str, exact: &Value) {
    let percent = shown.ends_with('%');
    let exact = match exact {
        Value::String(decimal) => decimal.parse().ok(),
        Value::Bool(flag) => return assert_eq!(shown, if *flag { "yes" } else { "no" }, "{what}"),
        other => other.as_f64(),
    };
    let exact = if what.contains("lifespan") { exact.map(|seconds| seconds / 86_400.0) } else { exact };
    let exact = exact.map(|exact: f64| if percent { 100.0 * exact } else { exact });
    let decimals =
        number(shown).map_or(0, |_| shown.split_once('.').map_or(0, |(_, d)| d.matches(char::is_numeric).count()));
    let rounding = 0.5 / 10_f64.powi(i32::try_from(decimals).unwrap()) + 1e-9;
    // Trailing zeros may be missing, and everything except counts is shown with at most two decimals.
    match (number(shown), exact) {
        (None, None) => {}
        (Some(shown_number), Some(exact)) if (shown_number - exact).abs() <= rounding => {}
        (_, exact) => panic!("{what}: the page shows {shown:?}, the API says {exact:?}"),
    }
}

#[test]
fn every_figure_on_the_page_is_that_of_the_summary() {
    let Some(mut browser) = or_skip(Browser::start()) else { return };
    let shop = Shop::open(USUAL);
    shop.fill();
    browser.on(SCREENS[0]);
    browser.open(&shop.url("#30d"), "");
    browser.wait(DRAWN);
    browser.eval("document.getElementById('all').open = true");
    browser.wait("document.querySelectorAll('#all-rows tr').length > 0");

    let (summary, definitions) = (shop.get("api/v1/summary"), shop.get("api/v1/definitions"));
    let table = browser.eval("[...document.querySelectorAll('#all-rows tr')].map(row => [...row.querySelectorAll('td')].map(cell => cell.innerText))");
    let calendar = summary["calendar"].as_array().unwrap();
    let open = |name: &str| calendar.iter().rfind(|period| period["window"] == name).unwrap();
    let mut windows: Vec<&Value> = summary["windows"].as_array().unwrap().iter().collect();
    windows.extend(["month", "quarter", "year"].map(open));
    let mut rows = table.as_array().unwrap().iter();
    let mut compared = 0;
    for figure in definitions["figures"].as_array().unwrap() {
        let name = figure["figure"].as_str().unwrap();
        let currencies: &[Option<&str>] =
            if figure["per_currency"] == true { &[Some("EUR"), Some("USD")] } else { &[None] };
        for currency in currencies {
            let cells = rows.next().unwrap().as_array().unwrap();
            assert_eq!(cells.len(), windows.len(), "{name}");
            for (cell, window) in cells.iter().zip(&windows) {
                let of = currency.map_or(*window, |currency| &window["currencies"][currency]);
                let what = format!("{name} {currency:?} of {}", window["window"]);
                assert_shows(&what, cell.as_str().unwrap(), &of[name]);
                compared += 1;
            }
        }
    }
    assert!(compared > 250 && rows.next().is_none(), "{compared} figures compared");

    for window in &windows {
        let name = window["window"].as_str().unwrap();
        browser.eval(&format!("document.querySelector('#windows input[value=\"{name}\"]').click()"));
        browser.wait(&format!("document.querySelector('#windows input:checked').value === '{name}'"));
        browser.wait("page.trends !== null");
        let tiles = browser.eval("Object.fromEntries([...document.querySelectorAll('.tile')].map(tile => [tile.dataset.figure, tile.querySelector('.value').innerText]))");
        for (figure, shown) in tiles.as_object().unwrap() {
            // Revenue is shown for one of two currencies, so orders are those in that currency.
            let is_of_all = figure != "orders" && window.get(figure).is_some();
            let of = if is_of_all { *window } else { &window["currencies"]["EUR"] };
            assert_shows(&format!("the tile {figure} of {name}"), shown.as_str().unwrap(), &of[figure]);
        }
        assert!(tiles.as_object().unwrap().len() >= 9, "{tiles}");
        if window["complete"] == true {
            let headline = browser.eval("document.getElementById('headline').innerText");
            assert_shows("lost", headline.as_str().unwrap().split(" of ").next().unwrap(), &window["lost_customers"]);
        }
    }
    let cells = browser.eval("document.querySelectorAll('#cohorts td:not(.size)').length");
    assert!(cells.as_u64().unwrap() > 200, "{cells} cells of the cohorts");
    let stages = browser
        .eval("[...document.querySelectorAll('#stage-rows td:not(.line)')].map(cell => cell.innerText.split(' ')[0])");
    let expected: Vec<&Value> = summary["stages"].as_array().unwrap().iter().map(|stage| &stage["customers"]).collect();
    for (shown, exact) in stages.as_array().unwrap().iter().zip(expected) {
        assert_shows("a stage", shown.as_str().unwrap(), exact);
    }
    browser.assert_named();
    browser.assert_no_mistakes();
}

#[test]
fn changes_and_curves_are_those_of_the_series() {
    let Some(mut browser) = or_skip(Browser::start()) else { return };
    let shop = Shop::open(USUAL);
    shop.fill();
    browser.on(SCREENS[0]);
    let summary = shop.get("api/v1/summary");
    let as_of = summary["as_of"].as_str().unwrap();
    for (name, figure, before) in [("30d", "repeat_ratio", 30 * 86_400_000_i64), ("month", "orders", 0)] {
        browser.open(&shop.url(&format!("#{name}")), "");
        browser.wait(DRAWN);
        let now = retentiond::event::Time::parse(as_of).unwrap().millis();
        // The last order is on 9 April 2026, so the same day of the previous month is 9 March.
        let then = if before > 0 { json!(now - before) } else { json!("2026-03-09T12:00:00Z") };
        let then = then.as_str().map_or_else(|| then.to_string(), str::to_owned);
        let point = |at: &str| {
            let currency = if figure == "orders" { "&currency=EUR" } else { "" };
            let path = format!("api/v1/series?window={name}&figure={figure}&from={at}&to={at}{currency}");
            shop.get(&path)["points"][0][1].as_f64().unwrap()
        };
        let (now, then) = (point(&now.to_string()), point(&then));
        let change = browser.eval(&format!("document.querySelector('[data-figure={figure}] .change').innerText"));
        let change = change.as_str().unwrap();
        assert!(now != then && (now > then) == change.contains('▲'), "{name}: {change:?}, {then} to {now}");
        let size = number(change).unwrap();
        // Changes of ratios are in points, those of counts in percent of the previous value.
        let exact = 100.0 * (now - then).abs() / if figure == "orders" { then } else { 1.0 };
        assert!((size - exact).abs() <= 0.051, "{name}: {change:?}, {then} to {now}");
    }
    browser.eval("document.querySelector('[data-figure=orders]').click()");
    let bars = browser.eval("document.querySelectorAll('#curve .column').length");
    assert_eq!(bars, 24, "two years of months");
    browser.eval("document.querySelector('#curve svg').focus()");
    for key in ["ArrowLeft", "ArrowLeft"] {
        browser.call("Input.dispatchKeyEvent", &json!({"type": "keyDown", "key": key, "code": key}));
    }
    let readout = browser.eval("document.getElementById('readout').innerText");
    let february =
        summary["calendar"].as_array().unwrap().iter().find(|p| p["window"] == "month" && p["from"] == "2026-02-01");
    let shown = readout.as_str().unwrap().split(" · ").next().unwrap();
    assert_shows("the orders two months back", shown, &february.unwrap()["currencies"]["EUR"]["orders"]);
    browser.assert_no_mistakes();
}

#[test]
fn nothing_that_customers_send_is_taken_for_markup() {
    let Some(mut browser) = or_skip(Browser::start()) else { return };
    let shop = Shop::open(USUAL);
    shop.fill();
    let customers: Vec<Value> = HOSTILE
        .iter()
        .map(|id| {
            json!({"customer_id": id, "stage": id, "orders": 3, "last_order": "2026-03-01T00:00:00Z",
            "at_risk_since": null, "lapses_at": "2026-05-01T00:00:00Z", "revenue": {"EUR": "12.50", "USD": "1.00"}})
        })
        .collect();
    let risks = instead("api/v1/at-risk", 200, &json!({"customers": customers, "total_at_risk": 77}));
    let holdout = json!({"due": 3, "sent": 0, "won_back": 0, "winback_ratio": 0.0, "currencies": {}});
    let treated =
        json!({"due": 4, "sent": 4, "won_back": 1, "winback_ratio": 0.25, "currencies": {"EUR": {"revenue": "9.50"}}});
    let rules = json!([{"rule": HOSTILE[0], "treated": treated, "holdout": holdout, "uplift": 0.25, "uplift_interval": [-0.031, 0.5]}]);
    let winbacks = instead("api/v1/winback", 200, &json!({ "rules": rules }));
    for screen in SCREENS {
        browser.on(screen);
        browser.open(&shop.url(""), &(risks.clone() + &winbacks));
        browser.wait(DRAWN);
        browser.wait("document.querySelectorAll('#risks tr').length === 5 && document.querySelectorAll('#winbacks tr').length === 2");
        let text = browser.eval("document.getElementById('main').textContent");
        for hostile in HOSTILE {
            let times = text.as_str().unwrap().matches(hostile).count();
            assert!(times >= 3, "{hostile} is shown as it is, {times} times: {text}");
        }
        assert_eq!(browser.eval("window.hacked ?? null"), Value::Null);
        assert_eq!(
            browser
                .eval("document.querySelectorAll('main img, main script, main b b, [onerror], [onmouseover]').length"),
            0
        );
        for words in ["5 of 77", "25.0%", "+25.0 points", "−3.1 to +50.0", "€9.50"] {
            assert!(text.as_str().unwrap().contains(words), "{words} in {text}");
        }
    }
    browser.assert_named();
    browser.assert_no_mistakes();
}

#[test]
fn a_token_opens_the_list_of_customers_and_stays_in_the_tab() {
    let Some(mut browser) = or_skip(Browser::start()) else { return };
    let shop = Shop::open(USUAL);
    shop.fill();
    let hidden = |browser: &mut Browser, id: &str| browser.eval(&format!("document.getElementById('{id}').hidden"));
    for (status, shown) in [(404, false), (403, true), (401, true)] {
        browser.open(&shop.url(""), &instead("api/v1/at-risk", status, &json!({"error": "no"})));
        browser.wait("window.asked !== undefined && document.body.dataset.trends !== undefined");
        browser.wait("document.getElementById('no-rules').hidden === false");
        assert_eq!(hidden(&mut browser, "risk-section"), !shown, "{status}");
        // A closed list names the setting that opens it; without alerts, the page names the one that enables them.
        assert_eq!(hidden(&mut browser, "closed"), status != 403, "{status}");
        assert_eq!(hidden(&mut browser, "winback-section"), true, "there are no alerts");
    }
    assert_eq!(hidden(&mut browser, "token-form"), false);
    browser.eval("document.getElementById('token').value = ' open sesame '; document.querySelector('#token-form button').click()");
    browser.wait("window.asked.length === 2 && document.getElementById('token-note').innerText.includes('not valid')");
    assert_eq!(browser.eval("window.asked[1].authorization"), "Bearer open sesame");
    assert_eq!(browser.eval("document.getElementById('token').value + localStorage.length + document.cookie"), "0");
    assert_eq!(browser.eval("sessionStorage.getItem('token')"), Value::Null, "a token that is refused is forgotten");
    browser.assert_no_mistakes();
}

#[test]
fn says_what_is_missing_and_fits_every_screen() {
    let Some(mut browser) = or_skip(Browser::start()) else { return };
    let fits = |browser: &mut Browser, what: &str, screen: Screen| {
        let wide = browser.eval("document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(wide <= u64::from(screen.width), "{what}: {wide} pixels on {screen:?}");
    };
    let text = |browser: &mut Browser| browser.eval("document.body.innerText").as_str().unwrap().to_owned();
    let shop = Shop::open(USUAL);
    browser.open(&shop.url(""), "");
    browser.wait("document.body.dataset.asOf === 'never'");
    let said = text(&mut browser);
    assert!(
        said.contains("No orders yet") && said.contains("Waiting for orders") && !said.contains("Up to date"),
        "{said}"
    );
    let topics = json!([{"topic": "orders", "lagging": false, "lag_events": 0, "lag_seconds": 0.0}]);
    let ready = json!({"ready": true, "reasons": [], "lag_events": 0, "topics": topics});
    browser.open(&shop.url(""), &instead("readyz", 200, &ready));
    browser.wait("document.body.dataset.asOf === 'never'");
    let said = text(&mut browser);
    for words in ["orders: read to its end", "none of them was an order", "retentiond validate --sample 10"] {
        assert!(said.contains(words), "{words:?} in {said}");
    }

    shop.fill();
    let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
    shop.source.send_modify(|source| {
        source.partition_counts = vec![Some(4)];
        source.positions.insert(at, ReadPosition { applied: Some(5), end: Some(12_350), last_at_end: None });
    });
    for screen in SCREENS {
        browser.on(screen);
        browser.open(&shop.url("#7d"), "");
        browser.wait(DRAWN);
        let said = text(&mut browser);
        for words in
            ["Catching up", "12,345 messages are still to be read", "orders/0 is 12345 behind", "1 of 4 partitions"]
        {
            assert!(said.contains(words), "{words:?} in {said}");
        }
        fits(&mut browser, "catching up", screen);
    }
    let many = Shop::open(&shop::many_windows());
    many.fill();
    for screen in SCREENS {
        browser.on(screen);
        browser.open(&many.url("#an_unusually_long_name_16"), "");
        browser.wait(DRAWN);
        browser.eval("document.getElementById('all').open = true");
        fits(&mut browser, "many windows", screen);
    }
    let young = Shop::open("[time]\ndata_begin = \"2026-01-01T00:00:00Z\"\n");
    young.fill();
    browser.open(&young.url("#90d"), "");
    browser.wait(DRAWN);
    let said = text(&mut browser);
    assert!(said.contains("The data begin on Jan 1, 2026: right from Jun 30, 2026 on."), "{said}");
    assert!(browser.eval("document.querySelectorAll('.tile .unsure').length").as_u64().unwrap() >= 4);
    browser.eval("window.fetch = () => Promise.reject(new Error('the line is dead'))");
    browser.wait("document.getElementById('health').innerText === 'No answer'");
    assert!(text(&mut browser).contains("the line is dead"));
    browser.assert_no_mistakes();
}

#[test]
fn a_source_that_lags_is_not_up_to_date() {
    let Some(mut browser) = or_skip(Browser::start()) else { return };
    let shop = Shop::open(USUAL);
    shop.fill();
    let topic = |name: &str, events: i64, seconds: f64, lagging: bool| json!({"topic": name, "lagging": lagging, "lag_events": events, "lag_seconds": seconds});
    for (lagging, pill) in [(false, "Up to date"), (true, "Catching up")] {
        let topics = json!([topic("orders", 3, 0.2, false), topic("sessions", 15_838, 190.0, lagging)]);
        let notes = json!(["topic sessions lags: 15838 record(s) behind", "the webhook answered 410 Gone"]);
        let ready = json!({"ready": true, "reasons": [], "notes": notes, "lag_events": 15_841, "topics": topics});
        browser.open(&shop.url(""), &instead("readyz", 200, &ready));
        browser.wait(DRAWN);
        assert_eq!(browser.eval("document.getElementById('health').innerText"), pill);
        let notices = browser.eval("document.getElementById('notices').innerText");
        let told =
            notices.as_str().unwrap().contains("sessions: 15,838 messages behind, last read to its end 3 minutes ago");
        assert_eq!(told, lagging, "{notices}");
        assert!(notices.as_str().unwrap().contains("410 Gone"), "{notices}");
    }
    browser.assert_no_mistakes();
}

#[test]
fn customers_by_name_are_paged_through_and_downloaded() {
    let Some(mut browser) = or_skip(Browser::start()) else { return };
    let shop = Shop::open(USUAL);
    shop.fill();
    browser.on(SCREENS[0]);
    let made = "window.made = []; URL.createObjectURL = blob => { window.made.push(blob); return '#'; };";
    browser.open(&shop.url(""), &format!("sessionStorage.setItem('token', 'open sesame'); {made}"));
    browser.wait("document.getElementById('risk-section').hidden === false");
    browser.eval("document.querySelector('#lists input[value=lapsed]').click()");
    browser.wait("document.getElementById('risk-head').innerText.includes('Lapsed')");
    let shown = "document.querySelectorAll('#risks tr').length";
    assert_eq!(browser.eval(shown), 25);
    let total: u64 =
        browser.eval("Number(document.getElementById('risk-note').innerText.split(' of ')[1])").as_u64().unwrap();
    assert!(total > 25, "{total}");
    while browser.eval("document.getElementById('list-more').hidden") == false {
        let before = browser.eval(shown).as_u64().unwrap();
        browser.eval("document.getElementById('list-more').click()");
        browser.wait(&format!("{shown} > {before}"));
    }
    let ids = "JSON.stringify([...document.querySelectorAll('#risks th')].map(cell => cell.innerText))";
    let listed: Vec<String> = serde_json::from_str(browser.eval(ids).as_str().unwrap()).unwrap();
    let mut once = listed.clone();
    once.sort();
    once.dedup();
    assert_eq!((listed.len() as u64, once.len() as u64), (total, total), "everybody once");
    browser.eval("document.getElementById('list-csv').click()");
    browser.wait("window.made.length === 1");
    let csv = browser.eval("window.made[0].text()");
    let rows: Vec<&str> = csv.as_str().unwrap().lines().skip(1).map(|row| row.split(',').next().unwrap()).collect();
    assert_eq!(rows, listed, "the file holds all of the list, in its order");
    browser.eval("document.querySelector('#risks button').click()");
    browser.wait("document.getElementById('customer').open");
    let told = browser.eval("document.getElementById('customer').innerText");
    assert!(told.as_str().unwrap().contains(&listed[0]) && told.as_str().unwrap().contains("Brought so far"), "{told}");
    browser.eval("document.querySelector('#customer button').click()");
    browser.eval("document.querySelector('#lists input[value=alerts]').click()");
    browser.wait("document.getElementById('list-what').innerText.includes('No alert has been sent')");
    browser.assert_named();
    browser.assert_no_mistakes();
}

#[test]
fn every_part_can_be_read_and_reached() {
    let Some(mut browser) = or_skip(Browser::start()) else { return };
    let shop = Shop::open(
        "[time]\nzone = \"Europe/Oslo\"\ndata_begin = \"2026-01-01T00:00:00Z\"\n[customers]\ndimensions = [\"channel\"]\n",
    );
    shop.fill();
    shop.source.send_modify(|source| source.partition_counts = vec![Some(4)]);
    for screen in SCREENS {
        browser.on(screen);
        browser.open(&shop.url("#90d"), "sessionStorage.setItem('token', 'open sesame')");
        browser.wait(DRAWN);
        browser.wait("document.getElementById('risk-section').hidden === false");
        browser.eval("document.querySelector('[data-figure=repeat_ratio]').click()");
        browser.eval("for (const part of document.querySelectorAll('details')) part.open = true");
        browser.wait("document.querySelectorAll('#all-rows tr').length > 0 && document.querySelectorAll('#curve-rows tr').length > 0");
        let link = browser.eval("document.querySelector('#part a').href");
        assert_eq!(link, "https://grafana.example.com/");
        browser.assert_readable();
        browser.assert_axe();
    }
    // Large amounts stay on one line, whatever the width of a tile.
    for width in [320, 390, 768, 1024, 1280, 1440, 1920] {
        browser.on(Screen { width, height: 900, dark: false });
        browser.open(&shop.url("#90d"), "");
        browser.wait(DRAWN);
        let broken = browser.eval(
            "[...document.querySelectorAll('.tile .value')].flatMap(value => ['€1,234,567', 'IDR 1,234,567,890,123'].map(text => { \
             value.textContent = text; value.style.setProperty('--characters', text.length); \
             return value.getClientRects().length === 1 && value.scrollWidth <= value.parentElement.clientWidth + 1 ? null : text; \
             })).filter(Boolean)",
        );
        assert_eq!(broken, json!([]), "{width} pixels");
    }
    browser.assert_no_mistakes();
}

#[test]
fn the_demo_has_a_page_without_mistakes() {
    let Some(mut browser) = or_skip(Browser::start()) else { return };
    let port = free_port();
    let mut demo = Launch::verb("demo").arg("--listen").arg(format!("127.0.0.1:{port}")).http_port(port).start();
    demo.wait_ready(Duration::from_secs(60));
    browser.on(SCREENS[0]);
    browser.open(&format!("http://127.0.0.1:{port}/"), "");
    browser.wait("document.body.dataset.trends !== undefined && document.querySelectorAll('.tile').length > 8");
    browser.wait(
        "document.querySelector('#segments tr') !== null && document.getElementById('currency').value === 'reporting'",
    );
    let revenue = browser.eval("document.querySelector('[data-figure=revenue] .value').innerText");
    assert!(revenue.as_str().unwrap().starts_with('€'), "the reporting currency has its sign: {revenue}");
    browser.assert_named();
    browser.assert_no_mistakes();
    demo.terminate();
    assert!(demo.wait_exit(Duration::from_secs(30)).success());
}
