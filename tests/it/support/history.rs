//! Histories for tests: the real orders of CDNOW, and those of a simulated shop.

use std::fs;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retentiond::event::{DAY, Time};
use retentiond::shop::{Published, Shop, ShopSettings};

use super::log::Message;

const MASTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/CDNOW_master.txt");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/CDNOW_sample.txt");

/// A line of the CDNOW data, an order at midnight UTC without an id; see `tests/data/README.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sale {
    pub customer: String,
    /// For example `1997-01-31`.
    pub day: String,
    pub dollars: String,
}

impl Sale {
    /// Time of the order, as in events.
    pub fn time(&self) -> String {
        format!("{}T00:00:00Z", self.day)
    }

    /// The order in the native format.
    pub fn native(&self) -> String {
        let Sale { customer, dollars, .. } = self;
        let time = self.time();
        format!(
            r#"{{"type":"order","customer_id":"{customer}","time":"{time}","amount":"{dollars}","currency":"USD"}}"#
        )
    }
}

/// All 69,659 orders, in file order: by customer, then day.
pub fn cdnow_master() -> Vec<Sale> {
    cdnow(MASTER)
}

/// The 6,919 orders of the sample of a tenth of the customers that is used in the literature.
pub fn cdnow_sample() -> Vec<Sale> {
    cdnow(SAMPLE)
}

/// The first orders of the sample, sorted by day.
pub fn first_sales(count: usize) -> Vec<Sale> {
    let mut sales = cdnow_sample();
    sales.sort_by(|a, b| a.day.cmp(&b.day));
    sales.truncate(count);
    sales
}

fn cdnow(path: &str) -> Vec<Sale> {
    let text = fs::read_to_string(path).expect("the CDNOW data can be read");
    // The second column of the sample is the customer's number within the sample.
    let sale = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [customer, .., date, _disks, dollars] = fields.as_slice() else { return None };
        let number = customer.bytes().all(|byte| byte.is_ascii_digit());
        let day = || format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]);
        number.then(|| Sale { customer: (*customer).to_owned(), day: day(), dollars: (*dollars).to_owned() })
    };
    text.lines().filter_map(sale).collect()
}

/// The orders as CSV with a header row.
pub fn csv(sales: &[Sale]) -> String {
    let row = |sale: &Sale| format!("{},{},{},USD\n", sale.customer, sale.time(), sale.dollars);
    "customer_id,time,amount,currency\n".to_owned() + &sales.iter().map(row).collect::<String>()
}

/// The orders as a log, shifted by `days`, with times of day and order ids, amounts in dollars, yen and dinars, and
/// attributes. Three in ten arrive up to a day late. Three in ten arrive a second time within a day of the event, some
/// with another amount, which must not matter.
pub fn disorder(sales: &[Sale], days: i64) -> Vec<Message> {
    let mut chance = ChaCha8Rng::seed_from_u64(7);
    let mut sent = Vec::new();
    for (number, sale) in sales.iter().enumerate() {
        let midnight = Time::parse(&sale.time()).expect("a day").millis();
        let time = Time::clamped(midnight + days * DAY + chance.random_range(0..DAY));
        let (amount, currency) = match number % 5 {
            0 => (sale.dollars.replace('.', ""), "JPY"),
            1 => (format!("{}{}", sale.dollars, number % 10), "KWD"),
            _ => (sale.dollars.clone(), "USD"),
        };
        let attributes = [
            r#"{"channel":"web","country":"US"}"#,
            r#"{"channel":"app","country":"JP"}"#,
            r#"{"channel":"ads"}"#,
            r#"{"country":"KW"}"#,
            "{}",
        ][chance.random_range(0..5)];
        let message = |amount: &str| Message {
            key: sale.customer.clone(),
            payload: Some(format!(
                r#"{{"type":"order","order_id":"o-{number}","customer_id":"{}","time":"{time}","amount":"{amount}","currency":"{currency}","attributes":{attributes}}}"#,
                sale.customer
            )),
        };
        let late = if chance.random_bool(0.3) { chance.random_range(1..DAY) } else { 0 };
        let at = time.millis() + late;
        sent.push((at, message(&amount)));
        if chance.random_bool(0.3) {
            // Within a day of the event: later it would be rejected as too late before it could be a duplicate.
            let again = chance.random_range(at..time.millis() + DAY);
            sent.push((again, message(if chance.random_bool(0.5) { "999" } else { &amount })));
        }
    }
    sent.sort_by_key(|(at, _)| *at);
    sent.into_iter().map(|(_, message)| message).collect()
}

/// The messages that a simulated shop sends before `end`, in one log.
pub fn shop_log(settings: ShopSettings, end: Time) -> Vec<Message> {
    let messages = Shop::new(settings).take_while(|message| message.emitted_at < end);
    messages.map(|Published { key, payload, .. }| Message { key, payload }).collect()
}

/// The log as a file.
pub fn ndjson(log: &[Message]) -> String {
    log.iter().map(Message::line).collect()
}

/// Writes a file of the history and returns its path.
pub fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).expect("the history is written");
    path
}
