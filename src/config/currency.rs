//! `[currency]`: the reporting currency and the file of exchange rates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};

use super::error::Problems;
use crate::event::Currency;

/// The header row of the file.
const HEADER: [&str; 3] = ["date", "currency", "rate"];

/// Maximum number of mistakes to report per file.
const SHOWN_MISTAKES: usize = 10;

/// A rate has at most this many digits ...
const MAX_DIGITS: u32 = 20;

/// `[currency]`: either both keys or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportingCurrency {
    /// The reporting currency.
    #[serde(deserialize_with = "currency", skip_serializing_if = "Option::is_none")]
    pub reporting: Option<Currency>,
    /// CSV with the header `date,currency,rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates_file: Option<PathBuf>,
    /// The content of the file.
    #[serde(skip)]
    pub rates: Vec<RateLine>,
}

/// A line of the file: one unit of `currency` is worth `rate` units of the reporting currency from `date` until the
/// currency's next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLine {
    /// A civil day in `time.zone`.
    pub date: Date,
    /// The currency to convert.
    pub currency: Currency,
    /// Above zero, with at most 20 digits.
    pub rate: Decimal,
}

fn currency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Currency>, D::Error> {
    let code = String::deserialize(deserializer)?;
    Currency::from_code(&code)
        .map(Some)
        .map_err(|error| serde::de::Error::custom(format!("{code:?} is {error}; write such as \"EUR\"")))
}

impl ReportingCurrency {
    /// Adds every mistake of the two keys to `problems`.
    pub(super) fn check(&self, problems: &mut Problems) {
        match (self.reporting, &self.rates_file) {
            (Some(reporting), None) if !problems.is_wrong("currency.rates_file") => problems.add(
                "currency.rates_file",
                format!(
                    "is missing; write the CSV file (date,currency,rate) that says what other currencies are worth in \
                     {reporting}, or remove currency.reporting"
                ),
            ),
            (None, Some(_)) if !problems.is_wrong("currency.reporting") => problems.add(
                "currency.reporting",
                "is missing; write the currency that currency.rates_file converts into, such as \"EUR\", or remove the file",
            ),
            _ => {}
        }
    }

    /// Reads the file, even if the other key is missing or wrong; reports its mistakes by file and line.
    pub(super) fn read_rates(&mut self, problems: &mut Problems) {
        let Some(path) = &self.rates_file else { return };
        match std::fs::read(path) {
            Ok(bytes) => {
                let (rates, mistakes) = parse(&bytes, self.reporting);
                self.rates = rates;
                report(path, &mistakes, problems);
            }
            Err(error) => problems.add(
                "currency.rates_file",
                format!("cannot read {path:?} ({error}); write a CSV file that is readable for this user"),
            ),
        }
    }
}

/// A mistake and its line, counted from 1.
type Mistake = (u64, String);

fn report(path: &Path, mistakes: &[Mistake], problems: &mut Problems) {
    for (line, what) in mistakes.iter().take(SHOWN_MISTAKES) {
        problems.add(format!("{}, line {line}", path.display()), what);
    }
    if let Some(more) = mistakes.len().checked_sub(SHOWN_MISTAKES).filter(|&more| more > 0) {
        problems.add(path.display().to_string(), format!("has {more} more mistake(s); mend those above first"));
    }
}

fn parse(bytes: &[u8], reporting: Option<Currency>) -> (Vec<RateLine>, Vec<Mistake>) {
    let mut table = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(bytes);
    let (mut rates, mut mistakes) = (Vec::new(), Vec::new());
    let mut lines = BTreeMap::new();
    let mut row = csv::ByteRecord::new();
    let mut has_header = false;
    let mut line = 1;
    let mut begin = 0;
    while matches!(table.read_byte_record(&mut row), Ok(true)) {
        // The position of a row is that of empty lines before it, if any.
        let at = row.position().map_or(begin, |position| usize::try_from(position.byte()).unwrap_or(begin));
        let empty = bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        line += bytes[begin..at + empty].iter().filter(|byte| **byte == b'\n').count() as u64;
        begin = at + empty;
        let fields: Vec<_> = row.iter().map(String::from_utf8_lossy).collect();
        let fields: Vec<&str> = fields.iter().map(AsRef::as_ref).collect();
        if !has_header {
            if fields != HEADER {
                return (rates, vec![(line, no_header(&fields))]);
            }
            has_header = true;
            continue;
        }
        match rate_line(&fields, reporting) {
            Ok(rate) => match lines.insert((rate.date, rate.currency), line) {
                None => rates.push(rate),
                Some(earlier) => mistakes.push((
                    line,
                    format!("{} of {} stands on line {earlier} already; remove one", rate.currency, rate.date),
                )),
            },
            Err(what) => mistakes.push((line, what)),
        }
    }
    if !has_header {
        mistakes.push((1, no_header(&[])));
    }
    (rates, mistakes)
}

fn no_header(found: &[&str]) -> String {
    format!(
        "{:?} is not the header; write \"date,currency,rate\" there, and a line for each change of a rate below",
        found.join(",")
    )
}

fn rate_line(fields: &[&str], reporting: Option<Currency>) -> Result<RateLine, String> {
    let &[date, code, rate] = fields else {
        return Err(format!("has {} field(s); write three, such as \"2026-01-01,USD,0.92\"", fields.len()));
    };
    let day = (date.len() == "2026-01-01".len()).then(|| Date::from_str(date).ok()).flatten();
    let day = day.ok_or_else(|| format!("date {date:?} is no day; write such as \"2026-01-01\""))?;
    let currency =
        Currency::from_code(code).map_err(|error| format!("currency {code:?} is {error}; write such as \"USD\""))?;
    let worth = |what: &str| {
        let unit = reporting.map_or("units of currency.reporting".to_owned(), |reporting| reporting.to_string());
        format!("rate {rate:?} {what}; write how many {unit} one {currency} is worth, such as 0.92")
    };
    let plain = rate.bytes().all(|byte| byte.is_ascii_digit() || b".-".contains(&byte));
    let value = plain.then(|| Decimal::from_str_exact(rate).ok()).flatten().map(|value| value.normalize());
    let value = value.ok_or_else(|| worth("is no decimal number"))?;
    if value <= Decimal::ZERO {
        return Err(worth("is not above 0"));
    }
    if value.mantissa() >= 10_i128.pow(MAX_DIGITS) {
        return Err(worth(&format!("has more than {MAX_DIGITS} digits")));
    }
    if let Some(reporting) = reporting.filter(|reporting| *reporting == currency && value != Decimal::ONE) {
        return Err(format!(
            "one {reporting} is one {reporting}, not {rate}; remove the line, for {reporting} needs none"
        ));
    }
    Ok(RateLine { date: day, currency, rate: value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> (Vec<RateLine>, Vec<Mistake>) {
        parse(text.as_bytes(), Some(Currency::from_code("EUR").unwrap()))
    }

    #[test]
    fn every_line_is_a_rate() {
        let (rates, mistakes) = parse_text(
            "\u{feff}date, currency ,rate\r\n2026-01-02,USD,0.9200\r\n\r\n2026-01-01,USD,1\n2024-02-29,JPY,0.00612\n2026-01-01,EUR,1.0\n",
        );
        assert_eq!(mistakes, []);
        let found: Vec<_> = rates.iter().map(|line| format!("{} {} {}", line.date, line.currency, line.rate)).collect();
        assert_eq!(found, ["2026-01-02 USD 0.92", "2026-01-01 USD 1", "2024-02-29 JPY 0.00612", "2026-01-01 EUR 1"]);
        assert_eq!(parse_text("date,currency,rate"), (vec![], vec![]), "a shop with one currency needs no line");
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_the_remedy() {
        let remedy = "write how many EUR one USD is worth, such as 0.92";
        let day = "write such as \"2026-01-01\"";
        for (line, expected) in [
            ("2026-01-01,USD", "has 2 field(s); write three, such as \"2026-01-01,USD,0.92\"".to_owned()),
            ("2026-01-01,USD,0,92", "has 4 field(s); write three, such as \"2026-01-01,USD,0.92\"".to_owned()),
            ("2026-02-30,USD,1", format!("date \"2026-02-30\" is no day; {day}")),
            ("20260201,USD,1", format!("date \"20260201\" is no day; {day}")),
            ("2026-01-01T00:00:00Z,USD,1", format!("date \"2026-01-01T00:00:00Z\" is no day; {day}")),
            (
                "2026-01-01,usd,1",
                "currency \"usd\" is not a three-letter ISO 4217 currency code in capitals; write such as \"USD\"".to_owned(),
            ),
            (
                "2026-01-01,reporting,1",
                "currency \"reporting\" is not a three-letter ISO 4217 currency code in capitals; write such as \"USD\""
                    .to_owned(),
            ),
            ("2026-01-01,USD,0", format!("rate \"0\" is not above 0; {remedy}")),
            ("2026-01-01,USD,-0.92", format!("rate \"-0.92\" is not above 0; {remedy}")),
            ("2026-01-01,USD,", format!("rate \"\" is no decimal number; {remedy}")),
            ("2026-01-01,USD,9.2e-1", format!("rate \"9.2e-1\" is no decimal number; {remedy}")),
            ("2026-01-01,USD,1_0", format!("rate \"1_0\" is no decimal number; {remedy}")),
            ("2026-01-01,USD,0.123456789012345678901", format!(
                "rate \"0.123456789012345678901\" has more than 20 digits; {remedy}"
            )),
            ("2026-01-01,EUR,1.1", "one EUR is one EUR, not 1.1; remove the line, for EUR needs none".to_owned()),
            ("2026-01-03,USD,1", "USD of 2026-01-03 stands on line 2 already; remove one".to_owned()),
        ] {
            let (rates, mistakes) = parse_text(&format!("date,currency,rate\n2026-01-03,USD,2\n\n{line}\n2026-01-04,USD,3"));
            assert_eq!(mistakes, [(4, expected)], "{line}");
            assert_eq!(rates.len(), 2, "{line}");
        }
        for (text, found) in
            [("", ""), ("day,currency,rate\n", "day,currency,rate"), ("2026-01-01,USD,1", "2026-01-01,USD,1")]
        {
            let what =
                "is not the header; write \"date,currency,rate\" there, and a line for each change of a rate below";
            assert_eq!(parse_text(text).1, [(1, format!("{found:?} {what}"))]);
        }
    }
}
