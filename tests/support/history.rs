//! Histories for tests: the real orders of CDNOW, and those of a simulated shop.

use std::fs;
use std::path::Path;

use retentiond::event::Time;
use retentiond::shop::{Published, Shop, ShopSettings};

const MASTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/CDNOW_master.txt");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/CDNOW_sample.txt");

/// A line of the CDNOW data, an order at midnight UTC without an id; see `tests/data/README.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sale {
    pub customer: String,
    /// As in `1997-01-31`.
    pub day: String,
    pub dollars: String,
}

impl Sale {
    /// When it happened, as events write it.
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

/// All 69,659 orders, in the order of the file: by customer, then day.
pub fn cdnow_master() -> Vec<Sale> {
    cdnow(MASTER)
}

/// The 6,919 orders of the tenth of the customers that the literature knows.
pub fn cdnow_sample() -> Vec<Sale> {
    cdnow(SAMPLE)
}

fn cdnow(path: &str) -> Vec<Sale> {
    let text = fs::read_to_string(path).expect("the CDNOW data can be read");
    // The sample has the customer's number within the sample as a second column.
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

/// What a simulated shop puts on the bus before `end`.
pub fn shop(settings: ShopSettings, end: Time) -> Vec<Published> {
    Shop::new(settings).take_while(|message| message.emitted_at < end).collect()
}

/// Messages as NDJSON; a file has no tombstones, so an erasure is spelled out.
pub fn ndjson<'a>(messages: impl IntoIterator<Item = &'a Published>) -> String {
    let line = |message: &Published| match &message.payload {
        Some(payload) => format!("{payload}\n"),
        None => format!("{{\"type\":\"erase\",\"customer_id\":\"{}\"}}\n", message.key),
    };
    messages.into_iter().map(line).collect()
}

/// Writes a file of the history and returns its path.
pub fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).expect("the history is written");
    path
}
