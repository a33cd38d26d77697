//! Files as shops, databases and spreadsheets write them, and how `replay` reads them.

use std::io::Write as _;

use crate::support::cli::run;
use crate::support::scratch;

/// A file and its expected meaning: the figures of the year up to its last event, or parts of the error messages.
pub struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    config: &'static str,
    /// Orders, customers, and revenue minus refunds with its currency; `None` if no figures are expected.
    figures: Option<(i64, i64, &'static str)>,
    /// Texts expected on standard error.
    said: &'static [&'static str],
}

pub fn case(name: &'static str, bytes: impl Into<Vec<u8>>, figures: (i64, i64, &'static str)) -> Case {
    Case { name, bytes: bytes.into(), config: "", figures: Some(figures), said: &[] }
}

pub fn refused(name: &'static str, bytes: impl Into<Vec<u8>>, said: &'static [&'static str]) -> Case {
    Case { name, bytes: bytes.into(), config: "", figures: None, said }
}

impl Case {
    pub fn with(self, config: &'static str) -> Case {
        Case { config, ..self }
    }

    pub fn saying(self, said: &'static [&'static str]) -> Case {
        Case { said, ..self }
    }

    /// The difference from the expectation, if any.
    fn fault(&self) -> Option<String> {
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        let (file, config) = (dir.path().join(self.name), dir.path().join("retentiond.toml"));
        std::fs::write(&file, &self.bytes).unwrap();
        std::fs::write(&config, self.config).unwrap();
        let args = ["replay".as_ref(), file.as_os_str(), "--format".as_ref(), "json".as_ref()];
        let mut said = run(args.into_iter().chain(["--config".as_ref(), config.as_os_str()]));
        // Log lines are JSON, which escapes quotes.
        said.stderr = said.stderr.replace("\\\"", "\"");
        let unsaid: Vec<_> = self.said.iter().filter(|word| !said.stderr.contains(**word)).collect();
        if !unsaid.is_empty() || (self.said.is_empty() && !said.stderr.is_empty()) {
            return Some(format!("{}: {unsaid:?} in {}", self.name, said.stderr));
        }
        let Some((orders, customers, money)) = self.figures else {
            return (said.code != Some(1)).then(|| format!("{}: {said:?}", self.name));
        };
        let Ok(summary) = serde_json::from_str::<serde_json::Value>(&said.stdout) else {
            return Some(format!("{}: {said:?}", self.name));
        };
        let year = &summary["windows"][3];
        let (amount, currency) = money.split_once(' ').unwrap();
        let of = |name: &str| cents(year["currencies"][currency][name].as_str().unwrap_or("0"));
        let found = (year["orders"].as_i64(), year["customers_to_date"].as_i64(), of("revenue") - of("refunds"));
        let expected = (Some(orders), Some(customers), cents(amount));
        (found != expected).then(|| format!("{}: {found:?}, not {expected:?}; {}", self.name, said.stderr))
    }
}

fn cents(amount: &str) -> i64 {
    amount.replace('.', "").parse().unwrap()
}

#[track_caller]
pub fn check(cases: &[Case]) {
    let faults: Vec<String> = cases.iter().filter_map(Case::fault).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn utf_16(text: &str) -> Vec<u8> {
    [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

const NDJSON: &str = r#"{"type":"order","order_id":"1","customer_id":"a","time":"2026-01-05T10:00:00Z","amount":"10.00","currency":"EUR"}
{"type":"order","order_id":"2","customer_id":"b","time":"2026-01-06T10:00:00Z","amount":"20.00","currency":"EUR"}
"#;
pub const CSV: &str = "order_id,customer_id,time,amount,currency\n\
                   1,a,2026-01-05T10:00:00Z,10.00,EUR\n2,b,2026-01-06T10:00:00Z,20.00,EUR\n";
pub const TWO: (i64, i64, &str) = (2, 2, "30.00 EUR");
pub const ONE: (i64, i64, &str) = (1, 1, "10.00 EUR");

#[test]
fn json_is_read_in_every_layout_compression_and_encoding() {
    let list = format!("[{}]", NDJSON.trim().replace('\n', ",\n"));
    let pretty = NDJSON.replace("{", "{\n  ").replace(",\"", ",\n  \"").replace('}', "\n}");
    check(&[
        case("bom.ndjson", format!("\u{feff}{NDJSON}"), TWO),
        case("crlf.ndjson", NDJSON.replace('\n', "\r\n"), TWO),
        case("blank.ndjson", NDJSON.replace('\n', "\n\n  \n"), TWO),
        case("padded.ndjson.gz", [gzip(NDJSON.as_bytes()), vec![0; 10_240]].concat(), TWO),
        case(
            "members.ndjson.gz",
            NDJSON.lines().flat_map(|line| gzip(format!("{line}\n").as_bytes())).collect::<Vec<_>>(),
            TWO,
        ),
        case("gzip-without-ending", gzip(NDJSON.as_bytes()), TWO),
        case("not-compressed.ndjson.gz", NDJSON, TWO),
        case("zstd.gz", zstd::encode_all(NDJSON.as_bytes(), 1).unwrap(), TWO),
        case("utf16.ndjson", utf_16(NDJSON), TWO),
        case("list.json", list.clone(), TWO),
        case("list-on-one-line.json", list.replace('\n', ""), TWO),
        case("list.csv", list.clone(), TWO),
        case("pretty-list.json", format!("[\n{}]", pretty.trim().replace("}\n{", "},\n{")), TWO),
        case("pretty.json", pretty, TWO),
        case("joined.json", NDJSON.replace('\n', ""), TWO),
        case("commas.json", NDJSON.replace("}\n", "},\n"), TWO),
        refused("cut.json", &list[..150], &["cut.json", "cut off"]),
        refused("cut.ndjson.gz", &gzip(NDJSON.as_bytes())[..60], &["gzip data end too early"]),
        refused("wrapped.json", format!("{{\"orders\":{list},\"page\":1}}"), &["list \"orders\"", "jq -c '.orders[]'"]),
        refused("columns.json", "{\"customer_id\":{\"0\":\"a\"},\"amount\":{\"0\":1}}", &["orient=\"records\""]),
        refused("empty.ndjson", "", &["empty.ndjson is empty", "no event in 0 line(s)"]),
        case("one-broken.ndjson", format!("{{\"type\":\n{NDJSON}"), TWO)
            .saying(&["line 1: invalid_json", "1 of 3 line(s)"]),
    ]);
}

#[test]
fn lines_of_csv_are_counted_as_an_editor_does() {
    let bad = "3,c,yesterday,1.00,EUR\n";
    check(&[
        case("crlf.csv", CSV.replace('\n', "\r\n"), TWO),
        case("spaces.csv", CSV.replace(',', ", ").replace('\n', "\r\n\r\n"), TWO),
        case("blank.csv", CSV.replacen("EUR\n", &format!("EUR\n\n{bad}"), 1), TWO)
            .saying(&["blank.csv, line 4: invalid_time"]),
        case("bom.csv", format!("\u{feff}{CSV}{bad}"), TWO).saying(&["line 4: invalid_time"]),
        case("crlf-blank.csv", format!("{CSV}\n{bad}").replace('\n', "\r\n"), TWO).saying(&["line 5: invalid_time"]),
        case("mac.csv", format!("{CSV}{bad}").replace('\n', "\r"), TWO).saying(&["line 4: invalid_time"]),
        case("quoted-line-end.csv", format!("{CSV}3,\"c\nd\",yesterday,1.00,EUR\n{bad}"), TWO)
            .saying(&["line 4: invalid_time", "line 6: invalid_time"]),
        case("delimiters-alone.csv", format!("{CSV},,,,\n{bad}"), TWO).saying(&["line 5: invalid_time"]),
        case("utf16.csv", utf_16(&format!("{CSV}{bad}")), TWO).saying(&["line 4: invalid_time"]),
    ]);
}

#[test]
fn rows_that_do_not_fit_their_header_are_named() {
    let head = "order_id,customer_id,time,currency,amount\n";
    let good = "1,a,2026-01-05T10:00:00Z,EUR,10.00\n";
    let with = |row: &str| format!("{head}{row}\n{good}");
    check(&[
        case("thousands.csv", with("2,b,2026-01-05T10:00:00Z,EUR,1,234.50"), ONE).saying(&[
            "line 2: invalid_row",
            "6 cells, the header 5",
            "in quotes",
        ]),
        case("quoted-thousands.csv", with("2,b,2026-01-05T10:00:00Z,EUR,\"1,234.50\""), ONE)
            .saying(&["line 2: invalid_amount", "mapping.thousands"]),
        case("missing.csv", with("2,b,2026-01-05T10:00:00Z,EUR"), ONE).saying(&["line 2: invalid_row", "4 cells"]),
        case("open-quote.csv", with("2,\"b,2026-01-05T10:00:00Z,EUR,1"), ONE)
            .saying(&["line 2: invalid_row", "not closed"]),
        case("text-behind-quote.csv", with("2,\"b\"x,2026-01-05T10:00:00Z,EUR,1"), ONE)
            .saying(&["line 2: invalid_row", "closing quote"]),
        case("stray-quote.csv", with("2,b\"c,2026-01-05T10:00:00Z,EUR,1"), ONE)
            .saying(&["line 2: invalid_row", "customer_id"]),
        case("trailing-delimiters.csv", format!("{head}1,a,2026-01-05T10:00:00Z,EUR,10.00,\n"), ONE),
        case("all-trailing-delimiters.csv", format!("{head}{good}").replace('\n', ",\n"), ONE),
        case("footer.csv", format!("{head}{good}(1 rows)\n"), ONE).saying(&["line 3: invalid_row"]),
        case("joined.csv", format!("{CSV}{CSV}"), TWO).saying(&["duplicate events were ignored"]),
        refused(
            "twice.csv",
            "customer_id,time,amount,currency,amount\n",
            &["line 1", "columns 3 and 5", "named amount"],
        ),
        refused("twice-folded.csv", "customer_id,time,amount,currency,Amount\n", &["columns 3 and 5"]),
        refused("no-header.csv", CSV.split_once('\n').unwrap().1, &["first row holds values", "header row"]),
        refused(
            "other-names.csv",
            "id,when,total\n1,2,3\n",
            &["lacks the column customer_id", "id, when, total", "custom"],
        ),
        refused("header-alone.csv", head, &["no event in 1 line(s)"]),
        case("rounded-id.csv", with("2,2.6741E+12,2026-01-05T10:00:00Z,EUR,1"), ONE)
            .saying(&["line 2: invalid_id", "spreadsheet has rounded"]),
        case(
            "latin-1.csv",
            [head.as_bytes(), good.as_bytes(), b"3,caf\xe9,2026-01-05T10:00:00Z,EUR,1\n"].concat(),
            ONE,
        )
        .saying(&["line 3: not_utf8", "encoding = \"windows-1252\""]),
        case("latin-1-elsewhere.csv", [b"note,", head.as_bytes(), b"caf\xe9 \xa3,", good.as_bytes()].concat(), ONE),
    ]);
}

#[test]
fn delimiters_headers_and_nulls_are_those_of_databases_and_spreadsheets() {
    check(&[
        case("semicolons.csv", CSV.replace(',', ";"), TWO),
        case("tabs.tsv", CSV.replace(',', "\t"), TWO),
        case("pipes.txt", CSV.replace(',', "|"), TWO),
        case("sep.csv", format!("sep=,\n{CSV}"), TWO),
        case("sep-semicolon.csv", format!("\u{feff}sep=;\r\n{}", CSV.replace(',', ";")), TWO),
        case(
            "all-quoted.csv",
            CSV.trim().split('\n').map(|row| format!("\"{}\"\n", row.replace(',', "\",\""))).collect::<String>(),
            TWO,
        ),
        case(
            "snowflake.csv",
            CSV.replace("order_id,customer_id,time,amount,currency", "ORDER_ID,CUSTOMER_ID,TIME,AMOUNT,CURRENCY"),
            TWO,
        ),
        case("spoken.csv", CSV.replace("order_id,customer_id,time,amount", "Order ID,Customer-ID,Time,Amount"), TWO),
        case("nulls.csv", format!("{CSV}\\N,NULL,2026-01-05T10:00:00Z,1,EUR\n"), TWO)
            .saying(&["1 message(s) were deliberately skipped: nobody"]),
        case("null-ids.csv", CSV.replace("\n1,", "\n\\N,").replace("\n2,", "\nNULL,"), TWO),
    ]);
}

const TYPED: &str = "type,order_id,refund_id,customer_id,time,amount,currency,session_id,kind,score\n\
                     order,1,,a,2026-01-05T10:00:00Z,10.00,EUR,,,\n\
                     order,2,,b,2026-01-05T10:00:00Z,20.00,EUR,,,\n\
                     refund,,r,b,2026-01-06T10:00:00Z,5.00,EUR,,,\n\
                     session,,,a,2026-01-06T10:00:00Z,,,s,,\n\
                     feedback,,,a,2026-01-06T10:00:00Z,,,,complaint,1.5\n\
                     customer,,,c,2026-01-06T10:00:00Z,,,,,\n";

#[test]
fn a_type_column_says_what_rows_are() {
    check(&[
        case("typed.csv", TYPED, (2, 2, "25.00 EUR")),
        // Totals to date keep an erased customer.
        case("erased.csv", format!("{TYPED}erase,,,b,,,,,,\n"), (2, 2, "25.00 EUR")),
        case("no-type.csv", format!("{TYPED},3,,a,2026-01-06T10:00:00Z,1,EUR,,,\n"), (2, 2, "25.00 EUR"))
            .saying(&["line 8: missing_field: type"]),
        case("unknown-type.csv", format!("{TYPED}wish,3,,a,2026-01-06T10:00:00Z,1,EUR,,,\n"), (2, 2, "25.00 EUR"))
            .saying(&["unknown types"]),
        case(
            "types-alone.csv",
            "type,customer_id,time,order_id,amount,currency\norder,a,2026-01-05T10:00:00Z,,10.00,EUR\n",
            ONE,
        ),
        // A dimension named "type" takes precedence over the column `type`, which was introduced later.
        case("dimension.csv", "type,customer_id,time,amount,currency\nretail,a,2026-01-05T10:00:00Z,10.00,EUR\n", ONE)
            .with("[customers]\ndimensions = [\"type\"]\n"),
    ]);
}

const UCI: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\ntime_format = \"pattern\"\n\
                   time_pattern = \"%m/%d/%Y %H:%M\"\ntime_zone = \"Europe/London\"\nnegative = \"refund\"\nlines = \"sum\"\n\
                   fields = { order_id = \"InvoiceNo\", customer_id = \"CustomerID\", time = \"InvoiceDate\", amount = \"UnitPrice\", \
                   quantity = \"Quantity\" }\nconstants = { currency = \"GBP\" }\n";
const UCI_ROWS: [[&str; 6]; 6] = [
    ["536365", "85123A", "6", "12/1/2010 8:26", "2.55", "17850"],
    ["536365", "71053", "6", "12/1/2010 8:26", "3.39", "17850"],
    ["536366", "22633", "2", "12/1/2010 9:00", "1.85", "14527"],
    ["C536379", "D", "-1", "12/1/2010 9:41", "27.5", "14527"],
    ["536366", "22632", "1", "12/1/2010 9:00", "0.305", "14527"],
    ["536366", "22631", "1", "12/1/2010 9:00", "0.995", "14527"],
];

#[test]
fn uci_online_retail_is_read_alike_in_csv_and_json() {
    // 6 x 2.55 + 6 x 3.39, 2 x 1.85 + 0.305 + 0.995 = 5.00 exactly, minus 27.50.
    let expected = (2, 2, "13.14 GBP");
    let names = ["InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"];
    let csv: String = [names].iter().chain(&UCI_ROWS).map(|row| row.join(",") + "\r\n").collect();
    let json = UCI_ROWS.map(|row| {
        let members = names.iter().zip(row).map(|(name, value)| format!("\"{name}\":\"{value}\""));
        format!("{{{}}}\n", members.collect::<Vec<_>>().join(","))
    });
    let wrong = |line: &str, price: &str| csv.replace(line, &line.replace(price, "free"));
    check(&[
        case("uci.csv", csv.clone(), expected).with(UCI),
        case("uci.ndjson", json.concat(), expected).with(UCI),
        case("uci.json", format!("[{}]", json.join(",")), expected).with(UCI),
        case("uci-lower.csv", csv.replace("InvoiceNo", "invoiceno"), expected).with(UCI),
        // An order with an invalid line is rejected as a whole; a customer with only a refund has not ordered.
        case("uci-wrong-first.csv", wrong("536366,22633,2,12/1/2010 9:00,1.85", "1.85"), (1, 1, "8.14 GBP"))
            .with(UCI)
            .saying(&["line 4: invalid_amount: its order's line 4: ", "1 of 7"]),
        case("uci-wrong-later.csv", wrong("536366,22632,1,12/1/2010 9:00,0.305", "0.305"), (1, 1, "8.14 GBP"))
            .with(UCI)
            .saying(&["line 4: invalid_amount: its order's line 6: ", "1 of 7"]),
        refused(
            "uci-no-quantity.csv",
            csv.replace("Quantity", "Qty"),
            &["fields.quantity", "InvoiceNo, StockCode, Qty"],
        )
        .with(UCI),
    ]);
}

const OLIST: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\ntime_format = \"pattern\"\n\
                     time_pattern = \"%Y-%m-%d %H:%M:%S\"\ntime_zone = \"America/Sao_Paulo\"\n\
                     fields = { time = \"order_purchase_timestamp\", amount = \"payment_value\" }\n\
                     constants = { currency = \"BRL\" }\nwhere = { order_status = [\"delivered\"] }\n";
const FIVETRAN: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\ntime_format = \"pattern\"\n\
                        time_pattern = \"%Y-%m-%d %H:%M:%S%.f\"\n\
                        fields = { order_id = \"id\", time = \"processed_at\", amount = \"total_price\" }\n";
const NO_TESTS: &str =
    "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\nwhere = { test = [\"false\"] }\n";
const GERMAN: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\ndecimal = \",\"\nthousands = \".\"\n\
                      encoding = \"windows-1252\"\nconstants = { currency = \"EUR\" }\n\
                      fields = { order_id = \"Bestellung\", customer_id = \"Käufer\", time = \"Datum\", amount = \"Betrag\" }\n\
                      time_format = \"pattern\"\ntime_pattern = \"%d.%m.%Y\"\ntime_zone = \"Europe/Berlin\"\n";
const COPY: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\n\
                    columns = [\"order_id\", \"customer_id\", \"time\", \"amount\", \"currency\"]\n";

#[test]
fn a_mapping_reads_tables() {
    let olist = "order_id,customer_id,order_status,order_purchase_timestamp,payment_value\n\
                 e481,9ef4,delivered,2017-10-02 10:56:33,10.00\nb2,c2,canceled,2017-10-03 10:56:33,1.00\n";
    let german = b"Bestellung;K\xe4ufer;Datum;Betrag\r\n1;M\xfcller;05.01.2026;\"1.234,50\"\r\n2;a;06.01.2026;-\r\n";
    let test = "order_id,customer_id,time,amount,currency,test\n1,a,2026-01-05T10:00:00Z,10.00,EUR,false\n\
                2,b,2026-01-05T10:00:00Z,10.00,EUR,true\n";
    check(&[
        case("olist.csv", olist, (1, 1, "10.00 BRL")).with(OLIST).saying(&["1 message(s) were deliberately skipped: filtered"]),
        case(
            "fivetran.csv",
            "\u{feff}id,customer_id,currency,total_price,processed_at\n2674098602081,3589760876641,GBP,2.8,2020-09-11 19:35:42.000\n",
            (1, 1, "2.80 GBP"),
        )
        .with(FIVETRAN),
        case("test.csv", test, ONE).with(NO_TESTS).saying(&["filtered"]),
        refused("no-test-column.csv", CSV, &["where.\"test\"", "columns are order_id"])
            .with("[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\nwhere = { test = [\"false\"] }\nfields = { amount = \"amount\" }\n"),
        case("german.csv", german.to_vec(), (1, 1, "1234.50 EUR")).with(GERMAN).saying(&["line 3: invalid_amount"]),
        case("copy.tsv", CSV.split_once('\n').unwrap().1.replace(',', "\t"), TWO).with(COPY),
        // The history of a mapped topic may have native columns.
        case("native.csv", CSV, TWO).with(FIVETRAN),
        case("negative.csv", CSV.replace("20.00", "-20.00"), ONE)
            .with("[sources.orders]\nformat = \"custom\"\n")
            .saying(&["line 3: invalid_amount", "negative = \"refund\""]),
    ]);
}

const OSLO: &str = "[sources.orders]\nformat = \"native\"\n[sources.orders.mapping]\ntime_zone = \"Europe/Oslo\"\n";
const NATIVE_FILTER: &str =
    "[sources.orders]\nformat = \"native\"\n[sources.orders.mapping]\nwhere = { test = { not = [\"true\"] } }\n";

#[test]
fn what_the_options_say_of_times_ids_and_choice_holds_for_tables() {
    let days = "order_id,customer_id,time,amount,currency\n1,a,2026-01-05,10.00,EUR\n";
    let test = "order_id,customer_id,time,amount,currency,test\n1,a,2026-01-05T10:00:00Z,10.00,EUR,\n\
                2,b,2026-01-05T10:00:00Z,10.00,EUR,true\n";
    check(&[
        case("days.csv", days, ONE).with(OSLO),
        refused("days-nowhere.csv", days, &["line 2: invalid_time", "time_zone = "]),
        case("test-native.csv", test, ONE)
            .with(NATIVE_FILTER)
            .saying(&["1 message(s) were deliberately skipped: filtered"]),
        refused("no-test-native.csv", CSV, &["where.\"test\"", "columns are order_id"]).with(NATIVE_FILTER),
        case("nobody.csv", CSV.replace(",b,", ",0,"), ONE).saying(&["1 message(s) were deliberately skipped: nobody"]),
        case("noise.csv", CSV.replace("20.00", "19.999999999999996"), TWO),
    ]);
}

const SHOPIFY: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\ntime_format = \"pattern\"\n\
                       time_pattern = \"%Y-%m-%d %H:%M:%S %z\"\nfields = { order_id = \"Name\", customer_id = \"Email\", \
                       time = \"Created at\", amount = \"Total\", currency = \"Currency\" }\n\
                       where = { \"Financial Status\" = [\"paid\", \"refunded\"] }\n";
const PAYPAL: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\nthousands = \",\"\nnegative = \"refund\"\n\
                      fields = { type = \"Type\", order_id = \"Transaction ID\", refund_id = \"Transaction ID\", \
                      customer_id = \"From Email Address\", time = \"Time\", amount = \"Gross\", currency = \"Currency\" }\n\
                      types = { \"Express Checkout Payment\" = \"order\", \"Payment Refund\" = \"refund\" }\n";
const STRIPE: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\ntime_format = \"pattern\"\n\
                      time_pattern = \"%Y-%m-%d %H:%M\"\nfields = { order_id = \"id\", customer_id = \"Customer ID\", \
                      time = \"Created (UTC)\", amount = \"Amount\", currency = \"Currency\" }\nwhere = { Status = [\"Paid\"] }\n";
const NORMALIZED: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\n\
                          fields = { customer_id = \"customer.id\", amount = \"/total.amount\" }\n";
const COUNTRIES: &str = "[customers]\ndimensions = [\"country\"]\n[sources.orders]\nformat = \"custom\"\n\
                         [sources.orders.mapping]\nattributes = { country = \"Land\" }\n";

#[test]
fn exports_of_shops_and_tools_are_read() {
    let shopify = "Name,Email,Financial Status,Currency,Total,Created at,Lineitem name\n\
                   #1001,ann@example.com,paid,EUR,10.00,2026-01-05 10:00:00 +0100,Cup\n\
                   #1001,ann@example.com,,,,2026-01-05 10:00:00 +0100,\"Pot, \"\"big\"\"\"\n\
                   #1002,bob@example.com,pending,EUR,5.00,2026-01-05 11:00:00 +0100,Cup\n";
    let paypal = "\u{feff}\"Time\",\"Type\",\"Currency\",\"Gross\",\"From Email Address\",\"Transaction ID\"\r\n\
                  \"2026-01-05T10:00:00Z\",\"Express Checkout Payment\",\"EUR\",\"1,034.50\",\"a@b\",\"T1\"\r\n\
                  \"2026-01-06T10:00:00Z\",\"Payment Refund\",\"EUR\",\"-34.50\",\"a@b\",\"T2\"\r\n\
                  \"2026-01-06T10:00:00Z\",\"General Withdrawal\",\"EUR\",\"-900.00\",\"\",\"T3\"\r\n";
    let stripe = "id,Created (UTC),Amount,Currency,Status,Customer ID\n\
                  ch_1,2026-01-05 10:00,10.00,eur,Paid,cus_1\nch_2,2026-01-05 10:00,99.00,eur,Failed,cus_1\n";
    let pandas =
        CSV.lines().enumerate().map(|(at, row)| if at == 0 { format!(",{row}\n") } else { format!("{at},{row}\n") });
    let normalized = CSV.replace("customer_id", "customer.id").replace("amount", "total.amount");
    check(&[
        case("shopify.csv", shopify, ONE).with(SHOPIFY).saying(&["2 message(s) were deliberately skipped: filtered"]),
        case("paypal.csv", paypal, (1, 1, "1000.00 EUR")).with(PAYPAL).saying(&["unknown types"]),
        case("stripe.csv", stripe, ONE).with(STRIPE).saying(&["1 message(s) were deliberately skipped: filtered"]),
        case("pandas.csv", pandas.collect::<String>(), TWO),
        case("normalized.csv", normalized, TWO).with(NORMALIZED),
        case("excel-unicode.txt", utf_16(&CSV.replace(',', "\t").replace('\n', "\r\n")), TWO),
        case("hive.txt", CSV.replace(',', "\u{1}"), TWO),
        case("redshift.gz", gzip(CSV.split_once('\n').unwrap().1.replace(',', "|").as_bytes()), TWO).with(COPY),
        case("attributes.csv", CSV.replace("currency", "currency,Land").replace("EUR", "EUR,NO"), TWO).with(COUNTRIES),
        refused("no-attribute.csv", CSV, &["attributes.country", "columns are order_id"]).with(COUNTRIES),
        refused("workbook.csv", &b"PK\x03\x04rest"[..], &["cannot be read", "Excel workbook", "CSV UTF-8"]),
        refused("page.csv", "<!DOCTYPE html>", &["HTML", "export the rows"]),
    ]);
}

#[test]
fn a_topic_is_not_read_with_lines_to_be_added_up() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let config = dir.path().join("retentiond.toml");
    std::fs::write(&config, UCI).unwrap();
    let said = run(["run".as_ref(), "--config".as_ref(), config.as_os_str()]);
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(said.stderr.contains("sources.orders.mapping.lines: adds up the lines of an order in a file"), "{said:?}");
}

#[test]
fn explain_tells_what_the_rows_of_a_file_mean() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let explain = |name: &str, bytes: &[u8]| {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        run(["explain".as_ref(), "--event".as_ref(), file.as_os_str(), "--format".as_ref(), "native".as_ref()])
    };
    let said = explain("rows.csv", CSV.replace("b,2026", "b,yesterday").as_bytes());
    assert!(
        said.stdout.contains("line 2: order: customer a") && said.stdout.contains("line 3: rejected: invalid_time"),
        "{said:?}"
    );
    let said = explain("lines.ndjson", &gzip(NDJSON.as_bytes()));
    assert!(
        said.stdout.contains("line 1: order: customer a") && said.stdout.contains("line 2: order: customer b"),
        "{said:?}"
    );
    let line = NDJSON.lines().next().unwrap();
    let said = explain("marked.json", format!("\u{feff}{line}").as_bytes());
    assert!(said.stdout.starts_with("order: customer a") && said.stderr.contains("would be rejected"), "{said:?}");
    let said = explain("plain.json", line.as_bytes());
    assert!(said.stdout.starts_with("order: customer a") && said.stderr.is_empty(), "{said:?}");
}
