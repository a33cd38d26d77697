//! Encoding of a customer's silences in progress, as part of the customer's row.

use super::plain::{Reader, put_number, put_signed};
use crate::engine::inactivity::table::{Open, PendingAlert, PendingAlertKind, WinbackCandidate};

/// Flags of an open silence.
mod bit {
    pub const HELD_OUT: u64 = 1;
    pub const ALERTED: u64 = 2;
    pub const BACK: u64 = 4;
}

/// Kinds of notices.
mod news {
    pub const SILENT: u64 = 0;
    pub const BACK: u64 = 1;
}

pub(super) fn put_comeback(out: &mut Vec<u8>, &WinbackCandidate { at, currency, minor }: &WinbackCandidate) {
    put_signed(out, at);
    put_number(out, u64::from(currency));
    put_signed(out, minor);
}

pub(super) fn take_comeback(reader: &mut Reader<'_>) -> Option<WinbackCandidate> {
    let at = reader.signed()?;
    let currency = u8::try_from(reader.number()?).ok()?;
    Some(WinbackCandidate { at, currency, minor: reader.signed()? })
}

pub(super) fn put_open(out: &mut Vec<u8>, open: &Open) {
    let &Open { rule, since, due, until, held_out, alerted, back } = open;
    put_number(out, u64::from(rule));
    let flag = |set: bool, bit: u64| if set { bit } else { 0 };
    put_number(out, flag(held_out, bit::HELD_OUT) | flag(alerted, bit::ALERTED) | flag(back.is_some(), bit::BACK));
    [since, due, until].into_iter().for_each(|time| put_signed(out, time));
    if let Some(back) = &back {
        put_comeback(out, back);
    }
}

pub(super) fn take_open(reader: &mut Reader<'_>) -> Option<Open> {
    let rule = u16::try_from(reader.number()?).ok()?;
    let bits = reader.number()?;
    let has = |bit: u64| bits & bit != 0;
    Some(Open {
        rule,
        since: reader.signed()?,
        due: reader.signed()?,
        until: reader.signed()?,
        held_out: has(bit::HELD_OUT),
        alerted: has(bit::ALERTED),
        back: if has(bit::BACK) { Some(take_comeback(reader)?) } else { None },
    })
}

pub(super) fn put_notice(out: &mut Vec<u8>, notice: &PendingAlert) {
    let PendingAlert { number, rule, since, due, news } = notice;
    put_number(out, *number);
    put_number(out, u64::from(*rule));
    put_signed(out, *since);
    put_signed(out, *due);
    match news {
        PendingAlertKind::Silent { orders, stage, status, complained, revenue } => {
            let small = [u64::from(*orders), u64::from(*stage), u64::from(*status), u64::from(*complained)];
            put_number(out, news::SILENT);
            small.into_iter().for_each(|number| put_number(out, number));
            put_number(out, revenue.len() as u64);
            for &(currency, minor) in revenue {
                put_number(out, u64::from(currency));
                put_signed(out, minor);
            }
        }
        PendingAlertKind::Back(back) => {
            put_number(out, news::BACK);
            put_comeback(out, back);
        }
    }
}

pub(super) fn take_notice(reader: &mut Reader<'_>) -> Option<PendingAlert> {
    let number = reader.number()?;
    let rule = u16::try_from(reader.number()?).ok()?;
    let (since, due) = (reader.signed()?, reader.signed()?);
    let news = match reader.number()? {
        news::SILENT => PendingAlertKind::Silent {
            orders: u32::try_from(reader.number()?).ok()?,
            stage: u8::try_from(reader.number()?).ok()?,
            status: u8::try_from(reader.number()?).ok()?,
            complained: reader.number()? != 0,
            revenue: {
                let len = reader.len()?;
                let one = |reader: &mut Reader<'_>| Some((u8::try_from(reader.number()?).ok()?, reader.signed()?));
                (0..len).map(|_| one(reader)).collect::<Option<_>>()?
            },
        },
        news::BACK => PendingAlertKind::Back(take_comeback(reader)?),
        _ => return None,
    };
    Some(PendingAlert { number, rule, since, due, news })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::inactivity::table::Silences;

    fn winback_candidate() -> impl Strategy<Value = WinbackCandidate> + Clone {
        any::<(i64, u8, i64)>().prop_map(|(at, currency, minor)| WinbackCandidate { at, currency, minor })
    }

    fn open() -> impl Strategy<Value = Open> {
        let times = any::<(i64, i64, i64)>();
        (any::<(u16, bool, bool)>(), times, prop::option::of(winback_candidate())).prop_map(|(small, times, back)| {
            let ((rule, held_out, alerted), (since, due, until)) = (small, times);
            Open { rule, since, due, until, held_out, alerted, back }
        })
    }

    fn notice() -> impl Strategy<Value = PendingAlert> {
        let silent = (any::<(u32, u8, u8, bool)>(), prop::collection::vec(any::<(u8, i64)>(), 0..3)).prop_map(
            |((orders, stage, status, complained), revenue)| PendingAlertKind::Silent {
                orders,
                stage,
                status,
                complained,
                revenue,
            },
        );
        let news = prop_oneof![silent, winback_candidate().prop_map(PendingAlertKind::Back)];
        (any::<(u64, u16, i64, i64)>(), news).prop_map(|((number, rule, since, due), news)| PendingAlert {
            number,
            rule,
            since,
            due,
            news,
        })
    }

    pub(in crate::engine::state) fn silences() -> impl Strategy<Value = Silences> {
        let winback_candidates = prop::collection::vec(winback_candidate(), 0..3);
        (winback_candidates, prop::collection::vec(open(), 0..3), prop::collection::vec(notice(), 0..3)).prop_map(
            |(winback_candidates, open, notices)| Silences {
                winback_candidates: winback_candidates.into(),
                open,
                notices,
            },
        )
    }
}
