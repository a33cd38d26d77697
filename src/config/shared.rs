//! Sources that share a topic. It is consumed once, by the first of them by name, which also knows how the others
//! decode it.

use std::collections::BTreeMap;

use serde::ser::{SerializeMap as _, Serializer};

use super::error::{Problems, key_of};
use super::kafka::{Format, Mapping, Source};

/// How another source reads the messages of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Also {
    /// Its format.
    pub format: Format,
    /// Its options of the format.
    pub mapping: Mapping,
}

/// Each topic once.
pub(super) fn merged(sources: BTreeMap<String, Source>) -> BTreeMap<String, Source> {
    let mut merged: BTreeMap<String, Source> = BTreeMap::new();
    for (name, source) in sources {
        match merged.values_mut().find(|known| known.topic == source.topic) {
            Some(first) => {
                first.also.insert(name, Also { format: source.format, mapping: source.mapping });
            }
            None => {
                merged.insert(name, source);
            }
        }
    }
    merged
}

/// The sources as configured, each under its own name.
pub(super) fn apart<S: Serializer>(sources: &BTreeMap<String, Source>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut table = serializer.serialize_map(None)?;
    for (name, source) in sources {
        table.serialize_entry(name, source)?;
        for (other, Also { format, mapping }) in &source.also {
            let alone = Source { format: *format, mapping: mapping.clone(), also: BTreeMap::new(), ..source.clone() };
            table.serialize_entry(other, &alone)?;
        }
    }
    table.end()
}

/// Reports settings of the topic on which two of its sources disagree.
pub(super) fn check(name: &str, source: &Source, first_name: &str, first: &Source, problems: &mut Problems) {
    let fields: [(&str, bool, String); 3] = [
        ("clock", source.clock != first.clock, first.clock.to_string()),
        ("repartition", source.repartition != first.repartition, first.repartition.to_string()),
        (
            "repartition_topic",
            source.repartition_topic != first.repartition_topic,
            first.repartition_topic.as_ref().map_or("nothing".to_owned(), |topic| format!("{topic:?}")),
        ),
    ];
    for (field, differs, value) in fields {
        if differs {
            problems.add(
                key_of(&["sources", name, field]),
                format!(
                    "differs from sources.{first_name}.{field}, and both read the same topic; write {value} in both"
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{load, mistakes};

    const TWO: &str = "[sources.a]\ntopic = \"t\"\nformat = \"custom\"\nmapping.where.kind = [\"sale\"]\n\
                       [sources.b]\ntopic = \"t\"\nmapping.where.kind = { not = [\"sale\"] }\n[sources.c]\nclock = false";

    #[test]
    fn a_topic_of_two_sources_is_consumed_once_and_printed_as_it_was_written() {
        let settings = load(TWO);
        assert_eq!(settings.keyed_topics(), ["t", "c"]);
        assert_eq!(settings.sources["a"].also.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(settings.sources["a"].also["b"].mapping.only["kind"].not, ["sale"]);
        let printed = settings.to_redacted_toml();
        assert!(printed.contains("[sources.b"), "{printed}");
        assert_eq!(load(&printed), settings);
        let (found, _) = settings.source("b").unwrap();
        assert_eq!(found, "a", "which reads for both");
        assert!(settings.source("d").is_none());
    }

    #[test]
    fn what_belongs_to_the_topic_must_be_the_same_in_both() {
        let text = mistakes(&format!("{TWO}\n[sources.d]\ntopic = \"t\"\nclock = false"), &[]).join("\n");
        let expected =
            "sources.d.clock: differs from sources.a.clock, and both read the same topic; write true in both";
        assert_eq!(text, expected);
        let text = mistakes(&format!("{TWO}\n[alerts]\ntopic = \"t\""), &[]).join("\n");
        assert!(text.contains("alerts.topic") && text.contains("already"), "{text}");
    }
}
