//! Samples real messages before the daemon runs: how they decode, what is wrong with them, and whether every customer
//! is in one partition. Commits nothing and joins no group.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::bus::{
    LogClient, Partition, Polled, RecordBatch, SourceError, Start, TopicIndex, TopicPartition, check_co_partitioning,
};
use crate::config::Settings;
use crate::coordinator::usage::Usage;
use crate::decode::{Decoded, Decoder, Message, Reason, Rejection, Skip};
use crate::event::{EventType, Time, wall_clock};
use crate::kafka::{KafkaAdmin, KafkaClient, KafkaSettings, partition_counts};
use crate::wiring::kafka_settings;
use crate::wiring::worker_config;
use crate::worker::note_type;

/// Timeout for an answer of brokers or registry, and for the next messages.
const WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// What the sample of one source contains.
#[derive(Debug, Default)]
struct Found {
    messages: u64,
    events: BTreeMap<EventType, u64>,
    skipped: BTreeMap<Skip, u64>,
    /// The number of rejections, and position and cause of the first.
    rejected: BTreeMap<Reason, (u64, String)>,
    /// Times of the earliest and the latest event.
    times: Option<(Time, Time)>,
    /// Messages of a customer whose key is missing or not the customer id.
    keyed_otherwise: u64,
    waiting: u64,
    /// Usable and unusable messages.
    usage: Usage,
    /// Position and cause of the first messages that enter no figure.
    examples: Vec<String>,
}

/// How many examples to show per topic.
const EXAMPLES: usize = 3;

impl Found {
    /// Notes a message, or an object in one, that enters no figure.
    fn add_example(&mut self, place: &str, why: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{place}: {}", why()));
        }
    }

    /// Whether more than half of the messages enter no figure.
    fn is_mostly_unused(&self) -> bool {
        self.usage.unused() * 2 > self.usage.messages()
    }
}

/// The result of sampling.
#[derive(Debug)]
pub struct Findings {
    topics: Vec<String>,
    /// The names of the sources.
    names: Vec<String>,
    /// Whether each is routed by customer; then the partitions of its messages do not matter.
    routed: Vec<bool>,
    sources: Vec<Found>,
    /// The first partition of each customer, and whether others followed.
    customers: HashMap<String, (Partition, bool)>,
}

impl Findings {
    fn new(settings: &Settings) -> Findings {
        let sources = settings.sources.values();
        Findings {
            topics: sources.clone().map(|source| source.topic.clone()).collect(),
            names: settings.sources.keys().cloned().collect(),
            routed: sources.clone().map(|source| source.repartition).collect(),
            sources: sources.map(|_| Found::default()).collect(),
            customers: HashMap::new(),
        }
    }

    /// Adds a message.
    fn note(&mut self, at: TopicPartition, offset: i64, message: &Message<'_>, decoder: &Decoder, latest: Time) {
        let topic = usize::from(at.topic.0);
        let place = format!("{} partition {} offset {offset}", self.topics[topic], at.partition.0);
        self.sources[topic].messages += 1;
        let decoded = decoder.decode_message(message, latest);
        match &decoded {
            Ok(Decoded::Batch(parts)) => {
                parts.iter().for_each(|part| self.note_decoded(at, &place, message, &part.decoded, decoder));
            }
            decoded => self.note_decoded(at, &place, message, decoded, decoder),
        }
    }

    /// Adds a decoded message, or a decoded object in one.
    fn note_decoded(
        &mut self,
        at: TopicPartition,
        place: &str,
        message: &Message<'_>,
        decoded: &Result<Decoded<'_>, Rejection>,
        decoder: &Decoder,
    ) {
        let topic = usize::from(at.topic.0);
        let found = &mut self.sources[topic];
        match decoded {
            Err(rejection) => {
                let first = || (0, format!("{}; the first is {place}", rejection.detail));
                found.rejected.entry(rejection.reason).or_insert_with(first).0 += 1;
                *found.usage.rejected.entry(rejection.reason).or_default() += 1;
                found.add_example(place, || rejection.to_string());
            }
            Ok(Decoded::Skipped(skip)) => {
                *found.skipped.entry(*skip).or_default() += 1;
                *found.usage.skipped.entry(*skip).or_default() += 1;
                found.add_example(place, || format!("skipped as {}", skip.label()));
            }
            Ok(Decoded::Unknown(unknown)) => {
                *found.events.entry(EventType::Unknown).or_default() += 1;
                found.usage.unknown += 1;
                note_type(&mut found.usage.types, &unknown.to_string());
                found.add_example(place, || decoder.explain_unknown(unknown));
            }
            Ok(decoded) => {
                for kind in decoded.event_types() {
                    *found.events.entry(kind).or_default() += 1;
                    found.usage.events += 1;
                }
            }
        }
        let events = decoded.as_ref().map_or(Vec::new(), Decoded::events);
        for event in &events {
            let (from, to) = found.times.unwrap_or((event.time, event.time));
            found.times = Some((from.min(event.time), to.max(event.time)));
            if !self.routed[topic] {
                let seen = self.customers.entry(event.customer.clone().into_owned()).or_insert((at.partition, false));
                seen.1 |= seen.0 != at.partition;
            }
        }
        if !self.routed[topic] && events.iter().any(|event| message.key != Some(event.customer.as_bytes())) {
            found.keyed_otherwise += 1;
        }
    }

    /// The number of customers, and how many of them have events in several partitions.
    fn split(&self) -> (usize, usize) {
        (self.customers.len(), self.customers.values().filter(|(_, elsewhere)| *elsewhere).count())
    }

    /// What must be fixed before the daemon runs, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if let (customers, split @ 1..) = self.split() {
            return Some(format!(
                "{split} of {customers} customers have events in several partitions and would be counted once in each. \
                 {}. Otherwise key all source topics by customer id, with the same partitioner and number of \
                 partitions (docs/integrate/formats.md, \"Keys\")",
                self.remedy()
            ));
        }
        None
    }

    /// Describes topics whose messages mostly enter no figure, with examples. This may be intended, so it is not a
    /// configuration error.
    #[must_use]
    pub fn useless(&self) -> Option<String> {
        let mut text = String::new();
        let sources = self.topics.iter().zip(&self.names).zip(&self.sources);
        for ((topic, name), found) in sources.filter(|(_, found)| found.is_mostly_unused()) {
            _ = writeln!(text, "{}", found.usage.warning(topic, name));
            found.examples.iter().for_each(|example| _ = writeln!(text, "  {example}"));
        }
        (!text.is_empty()).then(|| format!("most of the sample enters no figure\n{}", text.trim_end()))
    }

    /// Which sources must be routed by customer.
    fn remedy(&self) -> String {
        let otherwise = self.names.iter().zip(&self.sources).filter(|(_, found)| found.keyed_otherwise > 0);
        let keys: Vec<_> = otherwise.map(|(name, _)| format!("sources.{name}.repartition = true")).collect();
        if keys.is_empty() {
            return "Their messages are keyed by customer id, so the producers use different partitioners".to_owned();
        }
        format!("Set {}, which routes them by customer", keys.join(" and "))
    }

    /// The report as text.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = String::new();
        for (topic, found) in self.topics.iter().zip(&self.sources) {
            _ = writeln!(text, "{topic}: {} message(s)", found.messages);
            for (kind, count) in &found.events {
                let names = if *kind == EventType::Unknown { found.usage.named_types() } else { String::new() };
                _ = writeln!(text, "  {count:>8} {}{names}", kind.name());
            }
            for (skip, count) in &found.skipped {
                _ = writeln!(text, "  {count:>8} skipped: {}", skip.label());
            }
            for (reason, (count, example)) in &found.rejected {
                _ = writeln!(text, "  {count:>8} rejected: {}: {example}", reason.label());
            }
            if found.waiting > 0 {
                _ = writeln!(text, "  {:>8} not read: their schema did not arrive in time", found.waiting);
            }
            if let Some((from, to)) = found.times {
                _ = writeln!(text, "  events from {from} to {to}");
            }
            if found.keyed_otherwise > 0 {
                _ = writeln!(text, "  {:>8} with a key that is not the customer id", found.keyed_otherwise);
            }
        }
        let (customers, split) = self.split();
        _ = writeln!(text, "{customers} customer(s), {split} of them in several partitions");
        text
    }
}

/// An owned copy of a message.
#[cfg_attr(test, derive(Clone))]
struct Kept {
    at: TopicPartition,
    offset: i64,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    time: Option<Time>,
}

impl Kept {
    fn message(&self) -> Message<'_> {
        let headers = self.headers.iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), value.as_deref()));
        Message {
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            headers: headers.collect(),
            time: self.time,
        }
    }
}

/// Reads the newest `count` messages of each source topic, about the same number from each partition.
///
/// # Errors
/// When brokers cannot be reached, or topics are missing or have unequal partition counts.
pub fn sample(settings: &Settings, count: u32) -> Result<Findings, SourceError> {
    let mut kafka = kafka_settings(settings);
    // Sample the original topics rather than the routers' copies.
    kafka.topics = settings.sources.values().map(|source| source.topic.clone()).collect();
    let counts = partitions(settings, &kafka)?;
    let of_topic = |(topic, count): (u16, &i32)| {
        (0..*count).map(move |p| TopicPartition { topic: TopicIndex(topic), partition: Partition(p) })
    };
    let all: Vec<_> = (0..).zip(&counts).flat_map(of_topic).collect();
    let admin = KafkaAdmin::new(&kafka)?;
    let ask = |start| admin.offsets(&all.iter().map(|at| (*at, start)).collect::<Vec<_>>(), WAIT);
    let (begins, ends) = (ask(Start::Earliest)?, ask(Start::Latest)?);
    let each = |at: &TopicPartition| {
        let partitions = counts.get(usize::from(at.topic.0)).map_or(1, |count| count.unsigned_abs().max(1));
        i64::from(count.div_ceil(partitions).max(1))
    };
    let ranges =
        all.iter().zip(begins.iter().zip(&ends)).map(|(at, (begin, end))| (*at, (*begin).max(end - each(at)), *end));
    let ranges: Vec<_> = ranges.filter(|(_, from, end)| from < end).collect();
    let mut client = KafkaClient::look(&kafka)?;
    let kept = read(&mut client, &ranges)?;
    let findings = understand(settings, &kept, || drop(client.poll(POLL)));
    client.close(Duration::from_secs(5));
    Ok(findings)
}

/// The number of partitions of each source topic. Topics that are not routed must have the same number.
fn partitions(settings: &Settings, kafka: &KafkaSettings) -> Result<Vec<i32>, SourceError> {
    let counts = partition_counts(kafka, WAIT)?;
    let named: Vec<_> = kafka.topics.iter().cloned().zip(counts).collect();
    let routed = settings.sources.values().map(|source| source.repartition);
    let keyed: Vec<_> =
        named.iter().zip(routed).filter(|(_, routed)| !routed).map(|(named, _)| named.clone()).collect();
    if !keyed.is_empty() {
        check_co_partitioning(&keyed)?;
    }
    let missing: Vec<_> = named.iter().filter(|(_, count)| count.is_none()).map(|(topic, _)| topic.as_str()).collect();
    if !missing.is_empty() {
        return Err(SourceError::Unavailable(format!("missing topic(s): {}", missing.join(", "))));
    }
    Ok(named.into_iter().map(|(_, count)| i32::try_from(count.unwrap_or(0)).unwrap_or(i32::MAX)).collect())
}

/// Reads the messages in these offset ranges (end exclusive).
fn read(client: &mut KafkaClient, ranges: &[(TopicPartition, i64, i64)]) -> Result<Vec<Kept>, SourceError> {
    client.assign(&ranges.iter().map(|(at, from, _)| (*at, Start::Offset(*from))).collect::<Vec<_>>())?;
    let mut open: BTreeMap<TopicPartition, i64> = ranges.iter().map(|(at, _, end)| (*at, *end)).collect();
    let mut kept = Vec::new();
    let mut progress = Instant::now();
    while !open.is_empty() && progress.elapsed() < WAIT {
        for polled in client.poll(POLL) {
            match polled {
                Polled::Records(at, batch) => {
                    progress = Instant::now();
                    let Some(&end) = open.get(&at) else { continue };
                    kept.extend((0..batch.len()).filter(|&i| batch.get(i).offset < end).map(|i| keep(at, &batch, i)));
                    if batch.get(batch.len() - 1).offset + 1 >= end {
                        open.remove(&at);
                    }
                }
                Polled::End { at, .. } => drop(open.remove(&at)),
                Polled::Fatal(error) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(kept)
}

fn keep<B: RecordBatch>(at: TopicPartition, batch: &B, index: usize) -> Kept {
    let record = batch.get(index);
    let headers = batch.headers(index).into_iter();
    Kept {
        at,
        offset: record.offset,
        key: record.key.map(<[u8]>::to_vec),
        payload: record.payload.map(<[u8]>::to_vec),
        headers: headers.map(|header| (header.name.into_owned(), header.value.map(<[u8]>::to_vec))).collect(),
        time: batch.stamp(index).time.and_then(|time| Time::from_millis(time).ok()),
    }
}

/// Decodes the messages; calls `pause` while waiting for schemas.
fn understand(settings: &Settings, kept: &[Kept], mut pause: impl FnMut()) -> Findings {
    let decoders = worker_config::source_decoders(settings);
    let latest = wall_clock().plus(settings.customers.max_future.get());
    let mut findings = Findings::new(settings);
    let deadline = Instant::now() + WAIT;
    for one in kept {
        let topic = usize::from(one.at.topic.0);
        let (decoder, message) = (&decoders[topic], one.message());
        while !decoder.is_ready_for(&message) && Instant::now() < deadline {
            pause();
        }
        if decoder.is_ready_for(&message) {
            findings.note(one.at, one.offset, &message, decoder, latest);
        } else {
            findings.sources[topic].waiting += 1;
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(topic: u16, partition: i32, key: &str, value: &str) -> Kept {
        Kept {
            at: TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) },
            offset: 7,
            key: Some(key.into()),
            payload: Some(value.into()),
            headers: vec![],
            time: None,
        }
    }

    fn order(customer: &str, time: &str) -> String {
        format!(r#"{{"type":"order","customer_id":"{customer}","time":"{time}","amount":"1.00","currency":"EUR"}}"#)
    }

    fn findings(kept: &[Kept]) -> Findings {
        understand(&Settings::default(), kept, || panic!("nothing to wait for"))
    }

    #[test]
    fn a_report_describes_the_messages_and_names_no_customer() {
        let found = findings(&[
            kept(0, 0, "ann", &order("ann", "2026-01-02T03:04:05Z")),
            kept(0, 1, "bob", &order("bob", "2025-01-02T03:04:05Z")),
            kept(0, 1, "x", &order("bob", "2025-06-02T03:04:05Z")),
            kept(0, 1, "bob", &order("bob", "yesterday")),
            kept(0, 1, "bob", r#"{"type":"wish"}"#),
        ]);
        assert_eq!(found.fault(), None);
        let report = found.report();
        for line in [
            "orders: 5 message(s)",
            "       3 order",
            "       1 unknown (type \"wish\")",
            "rejected: invalid_time: time \"yesterday\" is not",
            "the first is orders partition 1 offset 7",
            "events from 2025-01-02T03:04:05.000Z to 2026-01-02T03:04:05.000Z",
            "       1 with a key that is not the customer id",
            "2 customer(s), 0 of them in several partitions",
        ] {
            assert!(report.contains(line), "{line}\n{report}");
        }
        assert!(!report.contains("ann") && !report.contains("bob"), "{report}");
    }

    #[test]
    fn a_customer_in_two_partitions_is_a_fault_with_a_remedy() {
        let time = "2026-01-02T03:04:05Z";
        let found = findings(&[kept(0, 0, "o-1", &order("ann", time)), kept(0, 1, "o-2", &order("ann", time))]);
        let fault = found.fault().unwrap();
        assert!(fault.starts_with("1 of 1 customers have events in several partitions"), "{fault}");
        assert!(fault.contains("sources.orders.repartition = true"), "{fault}");
        let keyed = [kept(0, 0, "ann", &order("ann", time)), kept(0, 1, "ann", &order("ann", time))];
        let fault = findings(&keyed).fault().unwrap();
        assert!(fault.contains("different partitioners") && !fault.contains("= true"), "{fault}");
        let mut settings = Settings::default();
        settings.sources.values_mut().for_each(|source| source.repartition = true);
        assert_eq!(understand(&settings, &keyed, || panic!("nothing to wait for")).fault(), None, "it is routed");
    }

    #[test]
    fn a_topic_whose_messages_mostly_enter_no_figure_is_named_with_examples() {
        let useless = findings(&vec![kept(0, 0, "a", "<order/>"); 9]).useless().unwrap();
        assert!(
            useless.contains("9 of 9 messages of topic orders enter no figure: 9 rejected for invalid_json"),
            "{useless}"
        );
        assert_eq!(useless.matches("\n  orders partition 0 offset 7: invalid_json: ").count(), EXAMPLES, "{useless}");
        let good = || kept(0, 0, "ann", &order("ann", "2026-01-02T03:04:05Z"));
        let unknown = || kept(0, 0, "a", r#"{"type":"wish"}"#);
        assert_eq!(findings(&[]).useless(), None, "an empty topic is not");
        assert_eq!(findings(&[good(), unknown()]).useless(), None, "half of it is used");
        let useless = findings(&[good(), unknown(), unknown()]).useless().unwrap();
        let warning = "2 of 3 messages of topic orders enter no figure: 2 of unknown types (type \"wish\"). ";
        assert!(useless.starts_with(&format!("most of the sample enters no figure\n{warning}")), "{useless}");
    }
}
