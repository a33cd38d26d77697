//! Column names: the native ones, or those of a mapping.

use std::fmt::Write as _;

use super::cells::{self, Role};
use crate::decode::Decoder;
use crate::decode::conditions::Filter;
use crate::decode::fields::excerpt;
use crate::decode::native::Native;
use crate::decode::paths::segments;
use crate::decode::presets::Custom;
use crate::event::EventType;

/// Column names without a mapping.
const NATIVE: &str = "customer_id, time, amount, currency, optionally type, order_id, refund_id, session_id, \
                      referred_by, kind, score, and dimensions";
/// Columns that an order needs; the first is needed by every event.
pub(super) const NEEDED: [Column; 4] = [Column::CustomerId, Column::Time, Column::Amount, Column::Currency];
/// Maximum number of columns that an error lists.
const SHOWN_COLUMNS: usize = 20;

/// An unusable header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A required column is missing.
    #[error("the header lacks the column {missing}; {remedy} (the columns are {columns})")]
    Missing {
        /// Name of the column.
        missing: String,
        /// What to do.
        remedy: String,
        /// The columns of the file.
        columns: String,
    },
    /// Two columns have the same name.
    #[error("the columns {first} and {second} are both named {name}; rename or remove one")]
    Twice {
        /// The name.
        name: String,
        /// Position, counted from 1.
        first: usize,
        /// Position, counted from 1.
        second: usize,
    },
    /// The mapping names a column that does not exist.
    #[error("mapping.{option} names a column that is not in the header; the columns are {columns}")]
    Unmapped {
        /// Name of the option.
        option: String,
        /// The columns of the file.
        columns: String,
    },
    /// The first row contains values instead of names.
    #[error(
        "the first row holds values, not names of columns; add a header row, or name the columns with mapping.columns \
         (format = \"custom\")"
    )]
    NoHeader,
}

/// A column of the native format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Type,
    OrderId,
    RefundId,
    SessionId,
    CustomerId,
    Time,
    Amount,
    Currency,
    ReferredBy,
    Kind,
    Score,
    /// The attribute of a configured dimension.
    Dimension(usize),
}

impl Column {
    pub(super) fn role(self) -> Role {
        match self {
            Column::OrderId | Column::RefundId | Column::SessionId | Column::CustomerId | Column::ReferredBy => {
                Role::Id { has_comma: false }
            }
            Column::Type | Column::Time | Column::Amount | Column::Currency | Column::Kind | Column::Score => {
                Role::Value
            }
            Column::Dimension(_) => Role::Text,
        }
    }
}

const NAMES: [(&str, Column); 11] = [
    ("type", Column::Type),
    ("order_id", Column::OrderId),
    ("refund_id", Column::RefundId),
    ("session_id", Column::SessionId),
    ("customer_id", Column::CustomerId),
    ("time", Column::Time),
    ("amount", Column::Amount),
    ("currency", Column::Currency),
    ("referred_by", Column::ReferredBy),
    ("kind", Column::Kind),
    ("score", Column::Score),
];

/// The columns that are read.
#[derive(Debug, Clone)]
pub(super) enum Columns {
    /// Native columns by position, whether one of them is the type, and the columns of conditions.
    Native { columns: Vec<(usize, Column)>, has_type: bool, conditions: Vec<Filled> },
    /// Columns that fill slots, and columns named after a dimension.
    Mapped { slots: Vec<Filled>, dimensions: Vec<(usize, usize)> },
}

/// A slot that is filled from a column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    pub column: usize,
    pub slot: usize,
    pub role: Role,
}

/// A name in the style of the native format: `Customer ID` becomes `customer_id`.
fn folded(name: &str) -> String {
    name.to_lowercase().replace([' ', '-'], "_")
}

fn shown(names: &[String]) -> String {
    let mut text = String::new();
    for (place, name) in names.iter().take(SHOWN_COLUMNS).enumerate() {
        _ = write!(text, "{}{}", if place > 0 { ", " } else { "" }, excerpt(name));
    }
    if names.len() > SHOWN_COLUMNS {
        _ = write!(text, " and {} more", names.len() - SHOWN_COLUMNS);
    }
    text
}

fn native_column(name: &str, dimensions: &[String]) -> Option<Column> {
    // A dimension may have the name of a native column that was added to the format later.
    if let Some(dimension) = dimensions.iter().position(|dimension| dimension == name) {
        let is_old = ["order_id", "customer_id", "time", "amount", "currency"].contains(&name);
        if !is_old {
            return Some(Column::Dimension(dimension));
        }
    }
    let folded = folded(name);
    NAMES.iter().find(|(known, _)| *known == folded).map(|(_, column)| *column)
}

pub(super) fn native(dimensions: &[String], names: &[String], needed: &[Column]) -> Result<Columns, HeaderError> {
    let mut columns: Vec<(usize, Column)> = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let Some(column) = native_column(name, dimensions) else { continue };
        if let Some((first, _)) = columns.iter().find(|(_, known)| *known == column) {
            return Err(HeaderError::Twice { name: name.clone(), first: first + 1, second: place + 1 });
        }
        columns.push((place, column));
    }
    let has = |column| columns.iter().any(|(_, known)| *known == column);
    let has_type = has(Column::Type);
    // If rows have a type, the columns that an event needs depend on it.
    let needed = &needed[..if has_type { 1 } else { needed.len() }];
    if let Some(missing) = needed.iter().find(|column| !has(**column)) {
        if columns.is_empty() && names.iter().any(|name| name.starts_with(|c: char| c.is_ascii_digit())) {
            return Err(HeaderError::NoHeader);
        }
        let name = NAMES.iter().find(|(_, column)| column == missing).map_or("", |(name, _)| name);
        let remedy = format!("expected are {NATIVE}; map other names with format = \"custom\"");
        return Err(HeaderError::Missing { missing: name.to_owned(), remedy, columns: shown(names) });
    }
    Ok(Columns::Native { columns, has_type, conditions: Vec::new() })
}

/// Whether a file has the native columns although the source has a mapping: no path of the mapping is a column.
pub(super) fn is_native_instead(custom: &Custom, decoder: &Decoder, names: &[String]) -> bool {
    let row = custom.row();
    let is_column = |slot: usize| {
        row.places().any(|(known, place)| known == slot && matches!(column_of(place, names), Ok(Some(_))))
    };
    row.explicit().iter().any(|(option, _)| option.starts_with("fields."))
        && !row.explicit().iter().any(|(_, slot)| is_column(*slot))
        && native(decoder.dimensions(), names, &NEEDED).is_ok()
}

/// Whether a row repeats the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It is not a header.
    No,
    /// The same header.
    Same,
    /// A header with other columns, or in another order.
    Other,
}

/// Compares a row of `count` cells with the column names, some of which are used.
pub(super) fn again<'a>(names: &[String], is_used: &[bool], count: usize, cell: impl Fn(usize) -> &'a [u8]) -> Again {
    let text = |place: usize| std::str::from_utf8(cell(place)).map_or("", cells::plain);
    // The length or the first byte distinguishes most cells from a name.
    let is = |place: usize, name: &String| match cell(place) {
        bytes if bytes.len() == name.len() => !name.is_empty() && bytes.eq_ignore_ascii_case(name.as_bytes()),
        [first, ..] if first.is_ascii_alphanumeric() => false,
        _ => !name.is_empty() && text(place).eq_ignore_ascii_case(name),
    };
    let used = || (0..names.len()).filter(|place| is_used[*place]);
    let fits = count >= names.len() && (names.len()..count).all(|place| text(place).is_empty());
    if fits && used().all(|place| is(place, &names[place])) {
        return Again::Same;
    }
    let all = used().count();
    let found = used().filter(|&name| (0..count).any(|place| is(place, &names[name]))).count();
    // One name may be a value; several column names make a header.
    if found >= 2 && found * 2 >= all { Again::Other } else { Again::No }
}

impl Columns {
    /// Native columns, with those of the conditions.
    pub(super) fn of_native(own: &Native, dimensions: &[String], names: &[String]) -> Result<Columns, HeaderError> {
        let (event_type, currency) = own.constants();
        let mut columns = match event_type {
            Some(name) if name != EventType::Order.name() => native(dimensions, names, &NEEDED[..2])?,
            _ if currency.is_some() => native(dimensions, names, &NEEDED[..3])?,
            _ => native(dimensions, names, &NEEDED)?,
        };
        if let Columns::Native { conditions, .. } = &mut columns {
            for (slot, place) in own.filter().into_iter().flat_map(Filter::places) {
                let column = column_of(place, names)?.ok_or_else(|| HeaderError::Unmapped {
                    option: format!("where.{place:?}"),
                    columns: shown(names),
                })?;
                conditions.push(Filled { column, slot, role: Role::Text });
            }
        }
        Ok(columns)
    }
}

/// The column of a path: the one with exactly that name, otherwise the one that differs only in case or separators.
fn column_of(place: &str, names: &[String]) -> Result<Option<usize>, HeaderError> {
    let pointed = segments(place);
    let is_exact = |name: &str| name == place || (pointed.len() == 1 && pointed[0] == name);
    let is_alike = |name: &str| folded(name) == folded(place);
    let only = |is_same: &dyn Fn(&str) -> bool| {
        let mut found = (0..names.len()).filter(|at| is_same(&names[*at]));
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => {
                Err(HeaderError::Twice { name: names[first].clone(), first: first + 1, second: second + 1 })
            }
            (found, _) => Ok(found),
        }
    };
    Ok(match only(&is_exact)? {
        Some(column) => Some(column),
        None => only(&is_alike)?,
    })
}

pub(super) fn mapped(custom: &Custom, decoder: &Decoder, names: &[String]) -> Result<Columns, HeaderError> {
    let row = custom.row();
    let mut slots = Vec::new();
    for (slot, place) in row.places() {
        if let Some(column) = column_of(place, names)? {
            let role = match (row.is_id(slot), row.is_exact(slot)) {
                (true, _) => Role::Id { has_comma: custom.amounts().has_decimal_comma() },
                (false, true) => Role::Value,
                (false, false) => Role::Text,
            };
            slots.push(Filled { column, slot, role });
        }
    }
    let has = |wanted: usize| slots.iter().any(|filled: &Filled| filled.slot == wanted);
    if let Some((option, _)) = row.explicit().iter().find(|(_, slot)| !has(*slot)) {
        return Err(HeaderError::Unmapped { option: option.clone(), columns: shown(names) });
    }
    let is_order = row.slot_of("type").is_none_or(|slot| !has(slot)) && custom.has_orders_alone();
    let mut needed = Vec::new();
    if row.common.drops_guests() {
        needed.push("customer_id");
    }
    if is_order {
        needed.extend(["time", "amount", "currency"]);
    }
    for name in needed {
        if row.slot_of(name).is_some_and(|slot| !has(slot)) {
            let remedy = format!("name another with mapping.fields.{name}, or a value with mapping.constants.{name}");
            return Err(HeaderError::Missing { missing: name.to_owned(), remedy, columns: shown(names) });
        }
    }
    let mut dimensions = Vec::new();
    for (dimension, name) in decoder.dimensions().iter().enumerate() {
        let is_mapped = row.common.reads_attribute(dimension);
        if let Some(column) = names.iter().position(|column| column == name).filter(|_| !is_mapped) {
            dimensions.push((column, dimension));
        }
    }
    Ok(Columns::Mapped { slots, dimensions })
}
