//! Peculiarities of files from spreadsheets, data frames and shops, and their meanings.

use super::files::{CSV, ONE, TWO, case, check, refused};

/// A mapping of `Customer`, `Order`, `Date` and `Total`, with additional fields and options.
macro_rules! mapped {
    ($fields:literal, $options:literal) => {
        concat!(
            "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\ntime_zone = \"UTC\"\n",
            "constants = { currency = \"EUR\" }\n",
            $options,
            "\n[sources.orders.mapping.fields]\ncustomer_id = \"Customer\"\norder_id = \"Order\"\n",
            $fields
        )
    };
}

const MAPPED: &str = mapped!("time = \"Date\"\namount = \"Total\"\n", "");
const HEAD: &str = "Customer,Order,Date,Total\n";

fn table(rows: &str) -> String {
    format!("{HEAD}{rows}")
}

#[test]
fn ids_that_became_numbers_or_formulas_are_what_they_were() {
    // Each file names one customer twice.
    let twice =
        |first: &str, second: &str| table(&format!("{first},o-1,2026-01-05,10.00\n{second},o-2,2026-01-06,20.00\n"));
    let one = (2, 1, "30.00 EUR");
    check(&[
        case("pandas.csv", twice("13085.0", "13085"), one).with(MAPPED),
        case("formula.csv", twice("=\"00123\"", "00123"), one).with(MAPPED),
        case("quoted-formula.csv", twice("\"=\"\"00123\"\"\"", "00123"), one).with(MAPPED),
        case("no-break.csv", twice("\u{a0}17\u{a0}", "17"), one).with(MAPPED),
        case("zero-width.csv", twice("17\u{200b}", "\u{feff}17"), one).with(MAPPED),
        case("comma.csv", twice("13085,0", "13085").replace(',', ";").replace(";0;", ",0;").replace(".00", ",00"), one)
            .with(mapped!("time = \"Date\"\namount = \"Total\"\n", "decimal = \",\"")),
        case("native.csv", CSV.replace(",a,", ",7.0,").replace(",b,", ",\u{a0}7,"), one),
        case("orders.csv", twice("a", "a").replace("o-1", "5.0").replace("o-2", "5"), (1, 1, "10.00 EUR"))
            .with(MAPPED)
            .saying(&["duplicate events were ignored"]),
        case("versions.csv", twice("1.1", "1.2"), (2, 2, "30.00 EUR")).with(MAPPED),
        case("rounded.csv", twice("2.67E+12", "17"), (1, 1, "20.00 EUR")).with(MAPPED).saying(&[
            "line 2: invalid_id",
            "Customer",
            "spreadsheet has rounded",
            "as text",
        ]),
        case("rounded-order.csv", twice("a", "a").replace("o-1", "1e+16"), (1, 1, "20.00 EUR"))
            .with(MAPPED)
            .saying(&["line 2: invalid_id", "Order"]),
        case("failed.csv", twice("#REF!", "17"), (1, 1, "20.00 EUR"))
            .with(MAPPED)
            .saying(&["line 2: invalid_id", "#REF!"]),
        case(
            "numbers.ndjson",
            "{\"Customer\":13085.0,\"Order\":1.0,\"Date\":\"2026-01-05\",\"Total\":10}\n\
             {\"Customer\":1.3085E4,\"Order\":2,\"Date\":\"2026-01-06\",\"Total\":20}\n\
             {\"Customer\":0.0,\"Order\":3,\"Date\":\"2026-01-06\",\"Total\":20}\n",
            one,
        )
        .with(MAPPED)
        .saying(&["1 message(s) were deliberately skipped: nobody"]),
    ]);
}

#[test]
fn missing_values_are_empty_cells() {
    for word in ["NA", "#N/A", "N/A", "<NA>", "NaT", "NaN", "(null)", "[NULL]", "NULL", "\\N"] {
        let good = "a,1,2026-01-05,10.00\n";
        let name = "missing.csv";
        check(&[
            case(name, table(&format!("{good}{word},2,2026-01-05,5.00\n")), ONE)
                .with(MAPPED)
                .saying(&["1 message(s) were deliberately skipped: nobody"]),
            case(name, table(&format!("{good}b,2,{word},5.00\n")), ONE)
                .with(MAPPED)
                .saying(&["line 3: missing_field: time"]),
            case(name, table(&format!("{good}b,2,2026-01-05,{word}\n")), ONE)
                .with(MAPPED)
                .saying(&["line 3: missing_field: amount"]),
            // Orders without an id are not duplicates of each other.
            case(name, table(&format!("a,{word},2026-01-05,10.00\nb,{word},2026-01-06,20.00\n")), TWO).with(MAPPED),
            case(name, format!("{CSV}3,{word},2026-01-05T10:00:00Z,5,EUR\n"), TWO)
                .saying(&["1 message(s) were deliberately skipped: nobody"]),
        ]);
    }
    let typed = "type,customer_id,time,amount,currency\norder,a,2026-01-05T10:00:00Z,10.00,EUR\n";
    check(&[
        case("type.csv", format!("{typed}#N/A,b,2026-01-05T10:00:00Z,1,EUR\n"), ONE)
            .saying(&["line 3: missing_field: type"]),
        // The country code of Namibia.
        case(
            "namibia.csv",
            "customer_id,time,amount,currency,country\na,2026-01-05T10:00:00Z,10.00,EUR,NA\n\
             b,2026-01-06T10:00:00Z,20.00,EUR,NO\n",
            TWO,
        )
        .with("[customers]\ndimensions = [\"country\"]\n"),
        case(
            "jsonlite.ndjson",
            "{\"Customer\":\"NA\",\"Order\":\"1\",\"Date\":\"2026-01-05\",\"Total\":10}\n\
             {\"Customer\":\"a\",\"Order\":\"NA\",\"Date\":\"2026-01-05\",\"Total\":10}\n",
            ONE,
        )
        .with(MAPPED)
        .saying(&["nobody"]),
    ]);
}

const PRICES: &str = mapped!("time = \"Date\"\namount = \"Price\"\nquantity = \"Pieces\"\n", "");

#[test]
fn an_empty_quantity_is_not_one() {
    let rows = |pieces: &str| {
        format!("Customer,Order,Date,Price,Pieces\na,1,2026-01-05,2.50,4\nb,2,2026-01-06,2.50,{pieces}\n")
    };
    let said = &["line 3: missing_field: quantity is missing", "write 1"];
    check(&[
        case("empty.csv", rows(""), ONE).with(PRICES).saying(said),
        case("missing.csv", rows("NaN"), ONE).with(PRICES).saying(said),
        case("two.csv", rows("2"), (2, 2, "15.00 EUR")).with(PRICES),
        case("float.csv", rows("2.0"), (2, 2, "15.00 EUR")).with(PRICES),
        case(
            "absent.ndjson",
            "{\"Customer\":\"a\",\"Order\":\"1\",\"Date\":\"2026-01-05\",\"Price\":2.5,\"Pieces\":4}\n\
             {\"Customer\":\"a\",\"Order\":\"2\",\"Date\":\"2026-01-05\",\"Price\":2.5}\n",
            ONE,
        )
        .with(PRICES)
        .saying(&["line 2: missing_field: quantity is missing"]),
    ]);
}

const SHOPIFY_LINES: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\ntime_format = \"pattern\"\n\
     time_pattern = \"%Y-%m-%d %H:%M:%S %z\"\nlines = \"sum\"\n\
     where = { \"Financial Status\" = [\"paid\"] }\n[sources.orders.mapping.fields]\n\
     order_id = \"Name\"\ncustomer_id = \"Email\"\ntime = \"Paid at\"\ncurrency = \"Currency\"\n\
     amount = \"Lineitem price\"\nquantity = \"Lineitem quantity\"\n";
const SHOPIFY_TOTALS: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\ntime_format = \"pattern\"\n\
     time_pattern = \"%Y-%m-%d %H:%M:%S %z\"\nlines = \"sum\"\n\
     where = { \"Financial Status\" = [\"paid\"] }\n[sources.orders.mapping.fields]\n\
     order_id = \"Name\"\ncustomer_id = \"Email\"\ntime = \"Paid at\"\ncurrency = \"Currency\"\namount = \"Total\"\n";

#[test]
fn lines_leave_to_the_first_line_of_their_order_what_they_do_not_name() {
    let head = "Name,Email,Financial Status,Paid at,Currency,Total,Lineitem quantity,Lineitem price\n";
    let lines = format!(
        "{head}#1,ann@example.com,paid,2026-01-05 10:00:00 +0100,EUR,10.00,1,4.00\n#1,,,,,,2,1.50\n#1,,,,,,1,3.00\n\
         #2,bob@example.com,pending,2026-01-05 10:00:00 +0100,EUR,99.00,1,99.00\n#2,,,,,,1,1.00\n\
         #3,bob@example.com,paid,2026-01-06 10:00:00 +0100,EUR,20.00,2,10.00\n"
    );
    let named = lines.replace("#1,,,,,,2", "#1,ann@example.com,,,,,2");
    let ndjson: String = lines
        .lines()
        .skip(1)
        .map(|line| {
            let members = head.trim().split(',').zip(line.split(',')).filter(|(_, value)| !value.is_empty());
            format!(
                "{{{}}}\n",
                members.map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect::<Vec<_>>().join(",")
            )
        })
        .collect();
    let filtered = &["2 message(s) were deliberately skipped: filtered"];
    check(&[
        case("lines.csv", lines.clone(), TWO).with(SHOPIFY_LINES).saying(filtered),
        case("named.csv", named, TWO).with(SHOPIFY_LINES).saying(filtered),
        case("lines.ndjson", ndjson, TWO).with(SHOPIFY_LINES).saying(filtered),
        case("totals.csv", lines.clone(), TWO).with(SHOPIFY_TOTALS).saying(filtered),
        // One of the lines below lacks a price, while another has one.
        case("hole.csv", lines.replace("1,3.00\n", "1,\n"), (1, 1, "20.00 EUR"))
            .with(SHOPIFY_LINES)
            .saying(&["line 2: missing_field: its order's line 4: amount is missing", "filtered"]),
        // A line of another customer belongs to another order, and so does the line below it.
        case("other.csv", lines.replace("#1,,,,,,2,1.50", "#1,eve@example.com,,,EUR,,2,1.50"), (2, 2, "24.00 EUR"))
            .with(SHOPIFY_LINES)
            .saying(&["4 message(s) were deliberately skipped: filtered"]),
    ]);
}

const SUMS: &str = mapped!("time = \"Date\"\namount = \"Total\"\n", "lines = \"sum\"");

#[test]
fn an_order_counts_with_all_of_its_lines_or_not_at_all() {
    let whole = "a,1,2026-01-05,4.00\na,1,2026-01-05,6.00\n";
    let other = "b,2,2026-01-06,20.00\n";
    check(&[
        case("whole.csv", table(&format!("{whole}{other}")), TWO).with(SUMS),
        // The first line describes the order, the lines below it its articles.
        case("heads.csv", table(&format!("a,1,2026-01-05,\n,1,,4.00\n,1,,6.00\n{other}")), TWO).with(SUMS),
        case("blank-id.csv", table(&format!("a,1,2026-01-05,4.00\n,,,9.00\n,1,,6.00\n{other}")), TWO)
            .with(SUMS)
            .saying(&["1 message(s) were deliberately skipped: guest"]),
        case("far-below.csv", table(&format!("{whole}{other},1,,5.00\n")), (1, 1, "20.00 EUR"))
            .with(SUMS)
            .saying(&["line 2: missing_field: its order's line 5: customer_id is missing", "guest"]),
        case("no-time.csv", table(&format!("{whole}a,1,yesterday,5.00\n{other}")), (1, 1, "20.00 EUR"))
            .with(SUMS)
            .saying(&["line 4: invalid_time", "line 2: invalid_time: its order's line 4"]),
        case("no-price.csv", table(&format!("{whole}a,1,2026-01-05,\n{other}")), (1, 1, "20.00 EUR"))
            .with(SUMS)
            .saying(&["line 2: missing_field: its order's line 4: amount is missing"]),
        case("no-price-alone.csv", table(&format!("a,1,2026-01-05,\n{other}")), (1, 1, "20.00 EUR"))
            .with(SUMS)
            .saying(&["line 2: missing_field: its order's line 2: amount is missing"]),
        case("guests.csv", table(&format!(",1,2026-01-05,4.00\n,1,2026-01-05,6.00\n{other}")), (1, 1, "20.00 EUR"))
            .with(SUMS)
            .saying(&["2 message(s) were deliberately skipped: guest"]),
    ]);
}

const CREDITS: &str = mapped!("time = \"Date\"\namount = \"Total\"\n", "negative = \"refund\"");
const CREDIT_LINES: &str = mapped!(
    "time = \"Date\"\namount = \"Total\"\ntype = \"Kind\"\n",
    "lines = \"sum\"\ntypes = { sale = \"order\", credit = \"refund\" }"
);

#[test]
fn several_credits_of_one_order_are_several_refunds() {
    let order = "a,1,2026-01-05,100.00\n";
    let typed = "Customer,Order,Date,Total,Kind\na,1,2026-01-05,60.00,sale\na,1,2026-01-05,40.00,sale\n";
    check(&[
        case(
            "credits.csv",
            table(&format!("{order}a,1,2026-01-06,-10.00\na,1,2026-01-07,-20.00\n")),
            (1, 1, "70.00 EUR"),
        )
        .with(CREDITS),
        case(
            "same-day.csv",
            table(&format!("{order}a,1,2026-01-06,-10.00\na,1,2026-01-06,-20.00\n")),
            (1, 1, "70.00 EUR"),
        )
        .with(CREDITS),
        case(
            "copies.csv",
            table(&format!("{order}a,1,2026-01-06,-10.00\na,1,2026-01-06,-10.0\n")),
            (1, 1, "90.00 EUR"),
        )
        .with(CREDITS)
        .saying(&["duplicate events were ignored"]),
        case(
            "without-id.csv",
            table(&format!("{order}a,,2026-01-06,-10.00\na,NA,2026-01-06,-10.00\n")),
            (1, 1, "80.00 EUR"),
        )
        .with(CREDITS),
        case(
            "lines.csv",
            format!("{typed}a,1,2026-01-06,5.00,credit\na,1,2026-01-06,5.00,credit\na,1,2026-01-08,20.00,credit\n"),
            (1, 1, "70.00 EUR"),
        )
        .with(CREDIT_LINES),
    ]);
}

const COLUMNS: &str = "[sources.orders]\nformat = \"custom\"\n[sources.orders.mapping]\n\
                       columns = [\"customer_id\", \"order_id\", \"time\", \"amount\", \"currency\"]\n";

#[test]
fn a_header_once_more_is_counted_and_another_one_stops_the_file() {
    let counted = &["1 message(s) were deliberately skipped: header"];
    let rows = CSV.split_once('\n').unwrap().1.replace("1,a", "3,c").replace("2,b", "4,d");
    let again = |header: &str| format!("{CSV}{header}\n{rows}");
    let four = (4, 4, "60.00 EUR");
    let other = &["line 4: a second header names other columns", "split the file"];
    let amounts = table("a,1,2026-01-05,10.00\nDate,Order,Customer,Total\n2026-01-06,2,b,20.00\n");
    check(&[
        case("again.csv", again("order_id,customer_id,time,amount,currency"), four).saying(counted),
        case("marked.csv", again("\u{feff}Order_ID,customer_id,time,amount,currency"), four).saying(counted),
        case("mapped.csv", table(&format!("a,1,2026-01-05,10.00\n{HEAD}b,2,2026-01-06,20.00\n")), TWO)
            .with(MAPPED)
            .saying(counted),
        case("lines.csv", table(&format!("a,1,2026-01-05,10.00\n{HEAD}b,2,2026-01-06,20.00\n")), TWO)
            .with(mapped!("time = \"Date\"\namount = \"Total\"\n", "lines = \"sum\""))
            .saying(counted),
        refused("other-order.csv", again("customer_id,order_id,time,amount,currency"), other),
        refused("more-columns.csv", again("order_id,customer_id,time,amount,currency,note"), other),
        refused("other-columns.csv", again("order_id,customer_id,created_at,amount,total"), other),
        refused("mapped-order.csv", amounts, &["line 3: a second header", "split the file"]).with(MAPPED),
        refused("own-header.csv", CSV, &["line 1: the file has a header", "leave mapping.columns out"]).with(COLUMNS),
        case("value.csv", format!("{CSV}3,time,yesterday,1,EUR\n"), TWO).saying(&["line 4: invalid_time"]),
    ]);
}

const PARTS: &str = mapped!(
    "time = [\"Date\", \"Time\"]\namount = [\"Net\", \"Tax\", \"Shipping\"]\n",
    "time_format = \"pattern\"\ntime_pattern = \"%d/%m/%Y %H:%M:%S\"\nthousands = \",\""
);
const REFUNDED: &str = "[sources.orders]\ntopic = \"shop\"\nformat = \"custom\"\n[sources.orders.mapping]\n\
    time_zone = \"UTC\"\nconstants = { currency = \"EUR\" }\n\
    fields = { customer_id = \"Customer\", order_id = \"Order\", time = \"Date\", amount = \"Total\" }\n\
    [sources.refunds]\ntopic = \"shop\"\nformat = \"custom\"\n[sources.refunds.mapping]\n\
    time_zone = \"UTC\"\nconstants = { type = \"refund\", currency = \"EUR\" }\n\
    where = { \"Refunded Amount\" = { not = [\"\", \"0.00\"] } }\n\
    fields = { customer_id = \"Customer\", refund_id = \"Order\", time = \"Refunded at\", amount = \"Refunded Amount\" }\n";

const REFUNDED_LINES: &str = "[sources.orders]\ntopic = \"shop\"\nformat = \"custom\"\n[sources.orders.mapping]\n\
    lines = \"sum\"\n[sources.refunds]\ntopic = \"shop\"\nformat = \"custom\"\n";

#[test]
fn columns_are_joined_added_up_and_read_twice() {
    let head = "Customer,Order,Date,Time,Net,Tax,Shipping\n";
    let row = "a,1,05/01/2026,10:00:00,7.50,1.50,1.00\n";
    let two = format!("{head}{row}b,2,06/01/2026,11:30:00,\"1,000.00\",,0.5\n");
    let json =
        r#"{"Customer":"a","Order":1,"Date":"05/01/2026","Time":"10:00:00","Net":7.5,"Tax":"1.50","Shipping":1}"#;
    let wrong = |from: &str, to: &str| format!("{head}{row}{}", row.replace("a,1", "b,2").replace(from, to));
    let refunds = "Customer,Order,Date,Total,Refunded Amount,Refunded at\na,1,2026-01-05,10.00,0.00,\n\
                   b,2,2026-01-06,25.00,5.00,2026-01-08\n";
    check(&[
        case("parts.csv", two, (2, 2, "1010.50 EUR")).with(PARTS),
        case("parts.json", json, ONE).with(PARTS),
        case("no-clock.csv", wrong("10:00:00", ""), ONE)
            .with(PARTS)
            .saying(&["line 3: missing_field: time is made up of 2 places, of which 1 are empty"]),
        case("no-net.csv", wrong("7.50", ""), ONE).with(PARTS).saying(&["line 3: missing_field: amount"]),
        case("words.csv", wrong("1.50", "free"), ONE).with(PARTS).saying(&["line 3: invalid_amount"]),
        refused("no-tax.csv", format!("{head}{row}").replace("Tax", "VAT"), &["mapping.fields.amount", "VAT"])
            .with(PARTS),
        case("refunds.csv", refunds, TWO).with(REFUNDED),
        refused("refunds-of-lines.csv", refunds, &["several sources on one topic"]).with(REFUNDED_LINES),
    ]);
}

#[test]
fn layouts_of_data_frames_are_named() {
    for (name, json) in [
        ("split.json", r#"{"columns":["customer_id","amount"],"index":[0,1],"data":[["a",1],["b",2]]}"#),
        ("columns.json", r#"{"customer_id":{"0":"a","1":"b"},"amount":{"0":1,"1":2}}"#),
        ("index.json", r#"{"0":{"customer_id":"a","amount":1},"1":{"customer_id":"b","amount":2}}"#),
        ("values.json", r#"[["a",1],["b",2]]"#),
        ("compact.ndjson", "[\"a\",1]\n[\"b\",2]\n"),
    ] {
        check(&[refused(name, json, &["orient=\"records\"", "lines=True"])]);
    }
    let table =
        r#"{"schema":{"fields":[{"name":"customer_id","type":"string"}]},"data":[{"customer_id":"a","amount":1}]}"#;
    check(&[refused("table.json", table, &["jq -c '.data[]'"])]);
}

#[test]
fn the_first_instant_of_1970_is_no_time() {
    let row = |time: &str| format!("{CSV}3,c,{time},1.00,EUR\n");
    let said = &["line 4: invalid_time", "no time"];
    check(&[
        case("utc.csv", row("1970-01-01 00:00:00 UTC"), TWO).saying(said),
        case("number.csv", row("0"), TWO).saying(said),
        case("pattern.csv", table("a,1,05.01.2026,10.00\nb,2,01.01.1970,1.00\n"), ONE)
            .with(mapped!(
                "time = \"Date\"\namount = \"Total\"\n",
                "time_format = \"pattern\"\ntime_pattern = \"%d.%m.%Y\""
            ))
            .saying(&["line 3: invalid_time", "no time"]),
    ]);
}
