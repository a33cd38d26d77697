//! `[sources.*]` with formats and mappings, and `[schema_registry]`.

use std::io::Write as _;

use super::tests::{load, mistakes};
use super::{Format, Settings};

fn source(format: &str, mapping: &str) -> String {
    format!("[sources.orders]\nformat = \"{format}\"\n[sources.orders.mapping]\n{mapping}")
}

#[test]
fn every_format_is_one_line() {
    for format in Format::ALL {
        let settings = load(&format!("[sources.orders]\nformat = \"{}\"", format.name()));
        assert_eq!(settings.sources["orders"].format, format);
        let again = load(&settings.to_redacted_toml());
        assert_eq!(again, settings, "{}", format.name());
    }
}

#[test]
fn a_mapping_survives_being_printed() {
    let settings = load(&source(
        "custom",
        "amount_unit = \"minor\"\ntime_format = \"epoch_s\"\ntypes = { SALE = \"order\" }\nattributes = {}\n\
         fields = { type = \"a.b\", time = \"/c.d/0\" }\nconstants = { currency = \"EUR\" }\nwhere = { s = [\"paid\"] }",
    ));
    let mapping = &settings.sources["orders"].mapping;
    assert_eq!(mapping.fields.r#type.as_deref(), Some("a.b"));
    assert_eq!(mapping.only["s"].is, ["paid"]);
    assert_eq!(load(&settings.to_redacted_toml()), settings);
    let settings = load(&source("custom", "fields = { time = [\"Date\", \"Time\"], amount = [\"Net\"] }"));
    let mapping = &settings.sources["orders"].mapping;
    assert_eq!(
        mapping.fields.time.as_ref().map(|time| (&**time, time.more())),
        Some(("Date", &["Time".to_owned()][..]))
    );
    assert_eq!(load(&settings.to_redacted_toml()), settings);
}

/// Asserts that each text has exactly one mistake, whose message begins as expected.
fn assert_mistakes<const N: usize>(cases: [(String, &str); N]) {
    for (text, expected) in cases {
        let found = mistakes(&text, &[]);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{text}\n{found:#?}\n{expected}");
    }
}

#[test]
fn an_option_that_the_format_does_not_have_is_named() {
    assert_mistakes([
        ("[sources.orders]\nformat = \"xml\"".to_owned(), "sources.orders.format: \"xml\" is not known; write"),
        (
            source("native", "guests = \"anonymous_id\""),
            "sources.orders.mapping.guests: means nothing to the format \"native\"; its options are nobody, ",
        ),
        (
            source("shopify", "deletes = \"cancel\""),
            "sources.orders.mapping.deletes: means nothing to the format \"shopify\"; its options are nobody, ",
        ),
        (
            source("shopify", "guests = \"anonymous_id\""),
            "sources.orders.mapping.guests: is one that messages of the format \"shopify\" do not tell; write another",
        ),
        (
            source("shopify", "guests = \"email_hash\""),
            "sources.orders.mapping.guests: hashes need a salt, or anyone can try addresses; write salt_file, ",
        ),
        (
            source("shopify", "amount = \"price\""),
            "sources.orders.mapping.amount: \"price\" is no amount of an order; write one of total_price, ",
        ),
        (
            source("shopify", "amount = \"current_total_price\""),
            "sources.orders.mapping.amount: \"current_total_price\" is less refunds, which are events of their own and would be taken off twice; write one of total_price, ",
        ),
        (
            source("segment", "currency = \"euro\""),
            "sources.orders.mapping.currency: \"euro\" is no ISO 4217 code in capitals; write one such as \"EUR\"",
        ),
        (
            source("segment", "types = { X = \"sale\" }"),
            "sources.orders.mapping.types.\"X\": \"sale\" is no type of event; write one of order, ",
        ),
        (
            source("shopify", "where = { test = [] }"),
            "sources.orders.mapping.where.\"test\": names no value; write such as [\"paid\"]",
        ),
        (
            source("native", "delimiter = \";\""),
            "sources.orders.mapping.delimiter: means nothing to the format \"native\"; its options are ",
        ),
        (
            source("cloudevents", "root = \"detail\""),
            "sources.orders.mapping.root: is not for CloudEvents, whose object is data; with data = \"custom\"",
        ),
        (
            source("stripe", "root = \"a.*.b\""),
            "sources.orders.mapping.root: \"a.*.b\" has a *; write the place of the list",
        ),
        (
            source("cloudevents", "data = \"cloudevents\""),
            "sources.orders.mapping.data: \"cloudevents\" is no format of data; write one of native, ",
        ),
        (
            source("cloudevents", "data = \"stripe\"\namount = \"total\""),
            "sources.orders.mapping.amount: means nothing to data of the format \"stripe\"; remove it",
        ),
    ]);
}

#[test]
fn a_wrong_place_in_a_message_is_named() {
    assert_mistakes([
        (
            source("custom", "attributes = { colour = \"a\" }"),
            "sources.orders.mapping.attributes.colour: \"colour\" is not among customers.dimensions; add it there",
        ),
        (
            source("custom", "fields = { time = \"a..b\" }"),
            "sources.orders.mapping.fields.time: \"a..b\" is no place in a message; write names with dots",
        ),
        (
            source("custom", "fields = { order_id = [\"a\", \"b\"] }"),
            "sources.orders.mapping.fields.order_id: is a list; write one place. Only fields.time",
        ),
        (
            source("custom", "fields = { time = [\"Date\", \"$record.time\"] }"),
            "sources.orders.mapping.fields.time: \"$record.time\" cannot be one of several places; write it alone",
        ),
        (
            source("custom", "fields = { tme = \"a\" }"),
            "sources.orders.mapping.fields.tme: is no setting; did you mean \"time\"?",
        ),
        (
            source("native", "fields = { amount = \"total\" }"),
            "sources.orders.mapping.fields.amount: cannot be \"total\": the native format has its own names, ",
        ),
        (
            source("custom", "fields = { time = \"$time\" }"),
            "sources.orders.mapping.fields.time: \"$time\" is nothing that a record has; write \"$record.key\", ",
        ),
        (
            source("custom", "fields = { order_id = \"a.*.id\", amount = \"b.*.total\" }"),
            "sources.orders.mapping.fields.amount: \"b.*.total\" is in another list than the places before it; ",
        ),
    ]);
}

#[test]
fn a_wrong_layout_of_values_and_files_is_named() {
    assert_mistakes([
        (
            source("custom", "time_format = \"pattern\""),
            "sources.orders.mapping.time_pattern: is missing; write one such as",
        ),
        (
            source("custom", "time_format = \"epoch_s\"\ntime_zone = \"Europe/Oslo\""),
            "sources.orders.mapping.time_zone: means nothing to numbers since the epoch; leave it out, ",
        ),
        (
            source("custom", "decimal = \";\""),
            "sources.orders.mapping.decimal: \";\" is not known; write \".\" or \",\"",
        ),
        (
            source("custom", "thousands = \".\""),
            "sources.orders.mapping.thousands: '.' is the decimal separator too; write decimal",
        ),
        (source("custom", "thousands = \"x\""), "sources.orders.mapping.thousands: \"x\" is not known; write"),
        (
            source("custom", "delimiter = \"||\""),
            "sources.orders.mapping.delimiter: must be one character of ASCII, no quote; write such as",
        ),
        (
            source("custom", "lines = \"add\""),
            "sources.orders.mapping.lines: \"add\" is not known; write \"single\" or \"sum\"",
        ),
        (
            source("custom", "encoding = \"ebcdic\""),
            "sources.orders.mapping.encoding: \"ebcdic\" is not known; write \"utf-8\"",
        ),
    ]);
}

#[test]
fn wrong_columns_and_constants_are_named() {
    assert_mistakes([
        (
            source("custom", "constants = { currency = [\"EUR\", \"USD\"] }"),
            "sources.orders.mapping.constants.currency: is a list; write one value",
        ),
        (
            source("debezium", "fields = { amount = [\"net\", \"items.*.tax\"] }"),
            "sources.orders.mapping.fields.amount: \"items.*.tax\" is inside each element of a list",
        ),
        (
            source("custom", "fields = { currency = \"a\" }\nconstants = { currency = \"EUR\" }"),
            "sources.orders.mapping.constants.currency: is in fields too; keep one of the two",
        ),
        (
            source("debezium", "cancelled_values = [\"x\"]"),
            "sources.orders.mapping.cancelled_values: are values of a column; write its name as cancelled",
        ),
        (
            source("debezium", "constants = { type = \"sale\" }"),
            "sources.orders.mapping.constants.type: \"sale\" is not a type of event; write one of order, refund, ",
        ),
        (
            source("custom", "constants = { type = \"sale\" }"),
            "sources.orders.mapping.constants.type: \"sale\" is not a type of event; write one of order, refund, ",
        ),
        (
            source("native", "constants = { type = \"unknown\" }"),
            "sources.orders.mapping.constants.type: \"unknown\" is not a type of event; write one of order, refund, ",
        ),
        (
            source("debezium", "deletes = \"cancel\"\nconstants = { type = \"refund\" }"),
            "sources.orders.mapping.deletes: cancels orders, and constants.type makes every row a refund; remove one",
        ),
        (
            source("debezium", "types = { SALE = \"order\" }"),
            "sources.orders.mapping.types: are values of a column; write its name as fields.type",
        ),
    ]);
}

#[test]
fn a_wrong_schema_registry_is_named() {
    assert_mistakes([
        ("[schema_registry]".to_owned(), "schema_registry.url: is missing; write such as"),
        ("[schema_registry]\nurl = \"ftp://r\"".to_owned(), "schema_registry.url: is no web address; write such as"),
        (
            "[schema_registry]\nurl = \"http://r\"\nca_file = \"ca.pem\"".to_owned(),
            "schema_registry.ca_file: is set, but the url does not begin with https://;",
        ),
        (
            "[schema_registry]\nurl = \"http://r\"\nuser = \"a\"\npassword_file = \"Cargo.toml\"\ntoken_file = \"Cargo.toml\""
                .to_owned(),
            "schema_registry.token_file: is set beside user and password_file; keep one of the two ways",
        ),
        (
            "[schema_registry]\nurl = \"https://r\"\nca_file = \"Cargo.toml\"".to_owned(),
            "schema_registry.ca_file: holds no certificate; write that of the authority",
        ),
        (
            "[schema_registry]\nurl = \"http://a:b@r\"".to_owned(),
            "schema_registry.url: holds a user or password; write user and password_file instead",
        ),
        (
            "[schema_registry]\nurl = \"http://r\"\nuser = \"a\"".to_owned(),
            "schema_registry.user: and password_file belong together; write both or neither",
        ),
        (
            "[schema_registry]\nurl = \"http://r\"\ntimeout = \"0s\"".to_owned(),
            "schema_registry.timeout: is zero; write how long",
        ),
    ]);
}

#[test]
fn salts_and_passwords_are_read_from_files_and_never_shown() {
    let mut salt = tempfile::NamedTempFile::new().unwrap();
    writeln!(salt, "pepper").unwrap();
    let path = salt.path().display();
    let text = format!(
        "{}\n[schema_registry]\nurl = \"http://r:8081\"\nuser = \"ann\"\npassword_file = \"{path}\"",
        source("shopify", &format!("guests = \"email_hash\"\nsalt_file = \"{path}\""))
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let settings = Settings::load(Some(file.path()), std::iter::empty()).unwrap();
    assert!(settings.sources["orders"].mapping.salt.is_some());
    assert_eq!(settings.schema_registry.as_ref().unwrap().password.as_ref().unwrap().reveal(), "pepper");
    assert!(!format!("{settings:?}{}", settings.to_redacted_toml()).contains("pepper"));

    let mut without = Settings::load_without_secrets(Some(file.path()), std::iter::empty()).unwrap();
    assert!(without.sources["orders"].mapping.salt.is_none());
    without.read_salts().unwrap();
    assert_eq!(without.sources["orders"].mapping.salt, settings.sources["orders"].mapping.salt);
    assert!(without.schema_registry.unwrap().password.is_none());
}
