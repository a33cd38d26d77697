//! Countries, currencies and channels of customers.

use super::chance::Chance;

/// A country and its currency; a customer never changes it.
#[derive(Debug)]
pub(super) struct Market {
    /// ISO 3166 code.
    pub country: &'static str,
    /// ISO 4217 code.
    pub currency: &'static str,
    /// Decimals of the currency.
    pub decimals: u32,
    /// Approximate exchange rate to the euro; no figure depends on it.
    pub per_euro: f64,
    /// Weight, about customers per hundred.
    weight: i64,
}

const fn market(country: &'static str, currency: &'static str, decimals: u32, per_euro: f64, weight: i64) -> Market {
    Market { country, currency, decimals, per_euro, weight }
}

pub(super) static MARKETS: [Market; 13] = [
    market("DE", "EUR", 2, 1.0, 24),
    market("US", "USD", 2, 1.1, 18),
    market("FR", "EUR", 2, 1.0, 13),
    market("NO", "NOK", 2, 11.5, 11),
    market("GB", "GBP", 2, 0.85, 10),
    market("JP", "JPY", 0, 160.0, 8),
    market("NL", "EUR", 2, 1.0, 7),
    market("ES", "EUR", 2, 1.0, 6),
    market("SE", "SEK", 2, 11.0, 6),
    market("DK", "DKK", 2, 7.5, 4),
    market("PL", "PLN", 2, 4.3, 4),
    market("CH", "CHF", 2, 0.95, 3),
    market("KW", "KWD", 3, 0.33, 1),
];

impl Market {
    pub fn draw(chance: &mut Chance) -> &'static Market {
        chance.pick(&MARKETS, |market| market.weight).unwrap_or(&MARKETS[0])
    }

    /// An amount in euros, converted to minor units; at least one.
    #[expect(clippy::cast_possible_truncation, reason = "a float too large for the integer saturates")]
    pub fn minor_units(&self, euros: f64) -> i64 {
        let minor = euros * self.per_euro * f64::from(10_u32.pow(self.decimals));
        (minor.round() as i64).max(1)
    }
}

/// The channel through which a customer came to the shop; the attribute `channel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The web shop.
    Web,
    /// The app.
    App,
    /// An advertisement; such a customer has an acquisition cost.
    Ads,
    /// A brick-and-mortar store.
    Store,
    /// A newsletter.
    Email,
    /// A partner's site.
    Partner,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Channel; 6] =
        [Channel::Web, Channel::App, Channel::Ads, Channel::Store, Channel::Email, Channel::Partner];

    /// The value of the attribute.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Channel::Web => "web",
            Channel::App => "app",
            Channel::Ads => "ads",
            Channel::Store => "store",
            Channel::Email => "email",
            Channel::Partner => "partner",
        }
    }

    /// Customers per hundred.
    const fn weight(self) -> i64 {
        match self {
            Channel::Web => 34,
            Channel::App => 27,
            Channel::Ads => 18,
            Channel::Store => 11,
            Channel::Email => 6,
            Channel::Partner => 4,
        }
    }

    pub(super) fn draw(chance: &mut Chance) -> Channel {
        chance.pick(&Channel::ALL, |channel| channel.weight()).copied().unwrap_or(Channel::Web)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Currency, Money, decimal_text};

    #[test]
    fn decimals_are_those_of_iso_4217() {
        for market in &MARKETS {
            let currency = Currency::from_code(market.currency).unwrap();
            assert_eq!(currency.exponent(), market.decimals, "{}", market.currency);
            let minor = market.minor_units(72.12);
            let text = decimal_text(i128::from(minor), currency);
            assert_eq!(Money::parse(&text, currency).unwrap().minor, minor);
        }
    }

    #[test]
    fn nothing_costs_nothing() {
        assert!(MARKETS.iter().all(|market| market.minor_units(1e-9) == 1));
    }

    #[test]
    fn every_market_and_channel_is_drawn() {
        let mut chance = Chance::new(7);
        let countries: std::collections::BTreeSet<_> = (0..5_000).map(|_| Market::draw(&mut chance).country).collect();
        assert_eq!(countries.len(), MARKETS.len());
        for channel in Channel::ALL {
            assert!((0..5_000).any(|_| Channel::draw(&mut chance) == channel), "{}", channel.name());
        }
    }
}
