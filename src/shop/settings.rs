//! Settings of a simulated shop.

use super::market::Channel;
use crate::event::Time;

/// All inputs of a [`Shop`](super::Shop). Equal settings produce identical messages within one build; the last digit of
/// `exp` and `ln` depends on the mathematics library.
///
/// A *share* is a probability from 0 to 1. Values outside are clamped; NaN counts as 0.
#[derive(Debug, Clone, PartialEq)]
pub struct ShopSettings {
    /// The seed of every random draw.
    pub seed: u64,
    /// When the shop opens; no event is older.
    pub start: Time,
    /// Average number of newcomers per day; none unless above 0 and finite.
    pub customers_per_day: f64,
    /// Additional newcomers, spread over the first 14 days.
    pub initial_customers: u64,
    /// The process by which customers buy and leave.
    pub buying: Buying,
    /// Share of newcomers who have a few sessions and never order.
    pub window_shoppers: f64,
    /// Share of newcomers whom an existing customer referred.
    pub referrals: f64,
    /// Share of orders that are refunded within 14 days: most in full, some in part, some in two parts.
    pub refunds: f64,
    /// Share of the other orders that are cancelled within a day.
    pub cancellations: f64,
    /// Share of orders with a complaint. Refunds make complaints likelier; customers who complain are likelier to
    /// leave.
    pub complaints: f64,
    /// Share of leaving customers who come back after 100 to 400 days.
    pub win_backs: f64,
    /// Share of permanently leaving customers who request erasure 30 to 60 days later.
    pub erasures: f64,
    /// Share of orders, refunds, cancellations and sessions that are sent a second time, 1 to 30 minutes later.
    ///
    /// Only these have an id for deduplication; a copy of any other event would count.
    pub duplicates: f64,
    /// Share of events that are sent minutes to 6 hours after they happened, one in 30 of them 6 to 20 hours.
    pub late: f64,
    /// Share of events that are sent 25 to 72 hours after they happened: too late for a lateness of a day.
    pub too_late: f64,
    /// Days on which many customers leave at once.
    pub crises: Vec<Crisis>,
}

/// The buying process: BG/NBD as in Fader, Hardie & Lee, "Counting Your Customers the Easy Way", Marketing
/// Science 24(2), 2005, in the variant in which the first order may already be the last (Batislam, Denizel &
/// Filiztekin, "Empirical validation and comparison of models for customer base analysis", International
/// Journal of Research in Marketing 24(3), 2007).
///
/// While alive a customer orders as a Poisson process whose rate is Gamma distributed over the customers;
/// after each order the customer leaves with a probability that is Beta distributed over them. The amounts
/// of one customer are lognormal around a lognormal personal level. A gap of more than two years counts as
/// having left, so that those who hardly ever order need no memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Buying {
    /// Days between two orders of a customer with the average rate; nobody orders twice unless above 0.
    pub days_between_orders: f64,
    /// Shape of the Gamma distribution of the rates; the larger, the more alike the customers are.
    pub rate_shape: f64,
    /// First parameter of the Beta distribution of the dropout probability; above 1, else the shop grows without end.
    pub dropout_alpha: f64,
    /// Second parameter of it.
    pub dropout_beta: f64,
    /// Days between two sessions of a customer that lead to no order.
    pub days_between_browsing: f64,
}

/// A day on which a share of the active customers leave permanently, as after a bad release of the app.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crisis {
    /// When they leave.
    pub at: Time,
    /// The share that leaves, of customers with an order who have not left yet.
    pub share: f64,
    /// Only customers of this channel; all when absent.
    pub channel: Option<Channel>,
}

impl Default for ShopSettings {
    /// A shop of 2025 with 2,000 first customers and 50 newcomers a day: some 1,000 messages a day.
    fn default() -> ShopSettings {
        ShopSettings {
            seed: 1,
            start: Time::clamped(1_735_689_600_000),
            customers_per_day: 50.0,
            initial_customers: 2_000,
            buying: Buying::default(),
            window_shoppers: 0.08,
            referrals: 0.05,
            refunds: 0.05,
            cancellations: 0.01,
            complaints: 0.02,
            win_backs: 0.08,
            erasures: 0.01,
            duplicates: 0.01,
            late: 0.02,
            too_late: 0.000_05,
            crises: Vec::new(),
        }
    }
}

impl ShopSettings {
    /// The same shop with only its first customers, all of whom order and come back after leaving, so that their number
    /// stays constant.
    #[must_use]
    pub fn steady(self) -> ShopSettings {
        ShopSettings { customers_per_day: 0.0, window_shoppers: 0.0, win_backs: 1.0, erasures: 0.0, ..self }
    }
}

impl Default for Buying {
    /// Once in 24 days at the average rate; one in five leaves after an order, at first more, of the loyal fewer.
    fn default() -> Buying {
        Buying {
            days_between_orders: 24.0,
            rate_shape: 1.8,
            dropout_alpha: 1.5,
            dropout_beta: 6.0,
            days_between_browsing: 18.0,
        }
    }
}
