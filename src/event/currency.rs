//! The currencies of ISO 4217: current ones, and historic ones that still occur in old orders.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use super::money::MoneyError;

/// The code of the reporting currency, in which all amounts are shown in addition.
pub const REPORTING: &str = "reporting";

/// An ISO 4217 currency that has minor units (so no metals and no testing codes). The reporting currency is a separate
/// value even if it has the same code, see [`Currency::as_reporting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency {
    // First, so that converted amounts sort after paid ones.
    is_reporting: bool,
    /// Index among all words of three letters, so that currencies sort by code.
    place: u16,
    exponent: u8,
}

/// Number of letters.
const LETTERS: usize = 26;

/// The currencies of ISO 4217 table A.3 (historic denominations) with two decimals.
const HISTORIC: [&str; 114] = [
    "AFA", "ALK", "ANG", "AOK", "AON", "AOR", "ARA", "ARP", "ARY", "ATS", "AYM", "AZM", "BAD", "BEC", "BEL", "BGJ",
    "BGK", "BGL", "BGN", "BOP", "BRB", "BRC", "BRE", "BRN", "BRR", "BUK", "CHC", "CSD", "CSJ", "CSK", "CUC", "CYP",
    "DDM", "DEM", "ECS", "ECV", "EEK", "ESA", "ESB", "FIM", "FRF", "GEK", "GHC", "GHP", "GNE", "GNS", "GQE", "GWE",
    "GWP", "HRD", "HRK", "IEP", "ILP", "ILR", "ISJ", "LAJ", "LSM", "LTL", "LTT", "LUC", "LUL", "LVL", "LVR", "MAF",
    "MLF", "MRO", "MTL", "MTP", "MVQ", "MXP", "MZE", "MZM", "NIC", "NLG", "PEH", "PEI", "PES", "PLZ", "RHD", "ROK",
    "ROL", "RUR", "SDD", "SDP", "SIT", "SKK", "SLL", "SRG", "STD", "SUR", "TJR", "TMM", "UAK", "UGS", "UGW", "UYN",
    "UYP", "VEB", "VEF", "VNC", "XEU", "YDD", "YUD", "YUM", "YUN", "ZAL", "ZMK", "ZRN", "ZRZ", "ZWC", "ZWD", "ZWL",
    "ZWN", "ZWR",
];

/// The same, without decimals.
const HISTORIC_WHOLE: [&str; 12] = ["ADP", "BEF", "BYB", "BYR", "ESP", "GRD", "ITL", "LUF", "MGF", "PTE", "TPE", "TRL"];

#[derive(Debug, Clone, Copy)]
struct Known {
    code: &'static str,
    exponent: u8,
}

/// The currency of each word of three letters. Looked up for every amount; `iso_currency` would compare code by code.
static KNOWN: LazyLock<Box<[Option<Known>]>> = LazyLock::new(|| {
    let letters = || 'A'..='Z';
    let words =
        letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| String::from_iter([a, b, c]))));
    let current = |word: &str| {
        let iso = iso_currency::Currency::from_code(word)?;
        Some(Known { code: iso.code(), exponent: u8::try_from(iso.exponent()?).ok()? })
    };
    let historic = |word: &str| {
        let of = |codes: &'static [&'static str], exponent| {
            codes.iter().find(|code| **code == word).map(|code| Known { code, exponent })
        };
        of(&HISTORIC, 2).or_else(|| of(&HISTORIC_WHOLE, 0))
    };
    words.map(|word| current(&word).or_else(|| historic(&word))).collect()
});

/// The index of a word of three capitals among all of them.
fn place_of(code: &str) -> Option<usize> {
    let letters: &[u8; 3] = code.as_bytes().try_into().ok()?;
    letters.iter().try_fold(0, |place, letter| {
        let number = usize::from(letter.wrapping_sub(b'A'));
        (number < LETTERS).then_some(place * LETTERS + number)
    })
}

impl Currency {
    /// From the three-letter code in capitals.
    ///
    /// # Errors
    /// [`MoneyError::UnknownCurrency`].
    pub fn from_code(code: &str) -> Result<Currency, MoneyError> {
        let place = place_of(code).ok_or(MoneyError::UnknownCurrency)?;
        let known = KNOWN[place].ok_or(MoneyError::UnknownCurrency)?;
        let place = u16::try_from(place).map_err(|_| MoneyError::UnknownCurrency)?;
        Ok(Currency { is_reporting: false, place, exponent: known.exponent })
    }

    /// This currency as the reporting currency: same decimals, code [`REPORTING`].
    #[must_use]
    pub fn as_reporting(self) -> Currency {
        Currency { is_reporting: true, ..self }
    }

    /// Whether this is the reporting currency, whose amounts are converted, not paid.
    #[must_use]
    pub fn is_reporting(self) -> bool {
        self.is_reporting
    }

    /// The displayed code: three letters, or [`REPORTING`].
    #[must_use]
    pub fn code(self) -> &'static str {
        if self.is_reporting { REPORTING } else { self.iso_code() }
    }

    /// The three-letter code, even of the reporting currency.
    #[must_use]
    pub fn iso_code(self) -> &'static str {
        KNOWN[usize::from(self.place)].map_or("", |known| known.code)
    }

    /// Number of decimals: 2 for EUR, 0 for JPY, 3 for KWD.
    #[must_use]
    pub fn exponent(self) -> u32 {
        u32::from(self.exponent)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl serde::Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl FromStr for Currency {
    type Err = MoneyError;
    fn from_str(code: &str) -> Result<Currency, MoneyError> {
        Currency::from_code(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_three_capitals_of_iso_4217() {
        let exact = |code: &str| Currency::from_code(code).ok().map(Currency::code);
        assert_eq!(["EUR", "JPY", "KWD", "ZWL"].map(exact), [Some("EUR"), Some("JPY"), Some("KWD"), Some("ZWL")]);
        for wrong in ["", "EU", "eur", "EURO", "E[R", "\u{e9}R", "AAA", "ZZZ", "XAU", "XTS"] {
            assert_eq!(Currency::from_code(wrong), Err(MoneyError::UnknownCurrency), "{wrong}");
        }
        let known = KNOWN.iter().flatten();
        assert!(known.clone().count() > 280);
        known.for_each(|known| assert_eq!(Currency::from_code(known.code).map(Currency::code), Ok(known.code)));
    }

    #[test]
    fn historic_currencies_are_known_with_their_decimals() {
        for (code, exponent) in [
            ("ANG", 2),
            ("VEF", 2),
            ("LTL", 2),
            ("BYR", 0),
            ("DEM", 2),
            ("ITL", 0),
            ("TRL", 0),
            ("HRK", 2),
            ("BGN", 2),
            ("MRO", 2),
            ("SLL", 2),
            ("CUC", 2),
            ("ZWR", 2),
        ] {
            assert_eq!(Currency::from_code(code).map(Currency::exponent), Ok(exponent), "{code}");
        }
        let mut listed: Vec<_> = HISTORIC.iter().chain(&HISTORIC_WHOLE).collect();
        listed.sort_unstable();
        let count = listed.len();
        listed.dedup();
        assert_eq!(listed.len(), count, "no code is listed twice");
    }

    #[test]
    fn currencies_sort_by_code_and_the_reporting_currency_last() {
        let of = |code: &str| Currency::from_code(code).unwrap();
        assert!(of("ANG") < of("EUR") && of("EUR") < of("JPY") && of("ZWR") < of("AED").as_reporting());
    }
}
