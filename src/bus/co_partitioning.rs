//! Partition p of every source topic holds the same customers, which is possible only with equal partition counts.

use super::SourceError;

/// What the partition counts of the source topics allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoPartitioning {
    /// Every topic has this many partitions.
    Equal(u32),
    /// These topics do not exist yet, and the others agree.
    Missing(Vec<String>),
}

/// Compares the partition counts of the topics; `None` is a topic that does not exist.
///
/// # Errors
/// [`SourceError::Configuration`] with the count of every topic if they differ, or if there is no topic.
pub fn check_co_partitioning(topics: &[(String, Option<u32>)]) -> Result<CoPartitioning, SourceError> {
    let mut counts = topics.iter().filter_map(|(_, count)| *count);
    let first = counts.next();
    if counts.any(|count| Some(count) != first) {
        let each: Vec<String> =
            topics.iter().filter_map(|(topic, count)| count.map(|count| format!("{topic:?} has {count}"))).collect();
        return Err(SourceError::Configuration(format!(
            "the source topics have unequal numbers of partitions: {}. The events of a customer must have the same \
             partition number in every topic: recreate the topics with equal partition counts, keyed by customer id \
             with the same partitioner",
            each.join(", ")
        )));
    }
    let missing: Vec<String> =
        topics.iter().filter(|(_, count)| count.is_none()).map(|(topic, _)| topic.clone()).collect();
    match first {
        _ if !missing.is_empty() => Ok(CoPartitioning::Missing(missing)),
        Some(count) => Ok(CoPartitioning::Equal(count)),
        None => Err(SourceError::Configuration("no source topic is configured".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(topics: &[(&str, Option<u32>)]) -> Result<CoPartitioning, SourceError> {
        let topics: Vec<_> = topics.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect();
        check_co_partitioning(&topics)
    }

    #[test]
    fn accepts_equal_counts() {
        assert_eq!(check(&[("orders", Some(8))]), Ok(CoPartitioning::Equal(8)));
        assert_eq!(check(&[("orders", Some(8)), ("sessions", Some(8))]), Ok(CoPartitioning::Equal(8)));
    }

    #[test]
    fn lists_missing_topics() {
        let missing = |topics: &[&str]| Ok(CoPartitioning::Missing(topics.iter().map(|t| (*t).to_owned()).collect()));
        assert_eq!(check(&[("orders", None)]), missing(&["orders"]));
        assert_eq!(check(&[("orders", None), ("sessions", Some(8)), ("costs", None)]), missing(&["orders", "costs"]));
    }

    #[test]
    fn names_every_topic_when_counts_differ_even_if_one_is_missing() {
        let Err(SourceError::Configuration(text)) =
            check(&[("orders", Some(8)), ("sessions", Some(4)), ("costs", None)])
        else {
            panic!("not refused")
        };
        assert!(text.contains("\"orders\" has 8, \"sessions\" has 4. "), "{text}");
    }

    #[test]
    fn refuses_an_empty_list() {
        assert!(matches!(check(&[]), Err(SourceError::Configuration(_))));
    }
}
