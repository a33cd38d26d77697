//! `sources.NAME.repartition`: checks against other settings.

use super::error::{Problems, key_of};
use super::kafka::Delivery;
use super::load::Tables;

/// The target topics of routed sources, with their keys.
pub(super) fn topics(tables: &Tables) -> Vec<(String, String)> {
    let routed = tables.sources.iter().filter(|(_, source)| source.repartition);
    let topic = |(name, source): (&String, &super::Source)| {
        (key_of(&["sources", name, "repartition_topic"]), source.keyed_topic(name, &tables.kafka.group_id))
    };
    routed.map(topic).collect()
}

/// Checks that routing by customer is possible where it is configured.
pub(super) fn check(tables: &Tables, problems: &mut Problems) {
    for (name, source) in &tables.sources {
        let key = |field: &str| key_of(&["sources", name, field]);
        if source.repartition && tables.kafka.delivery == Delivery::AtLeastOnce {
            problems.add_between(
                &[&key("repartition"), "kafka.delivery"],
                "cannot be true with kafka.delivery = \"at_least_once\": without transactions events would be routed \
                 twice; write delivery = \"exactly_once\", or key the topic by customer id",
            );
        }
        if source.repartition_topic.is_some() && !source.repartition {
            problems.add(key("repartition_topic"), "is for repartition = true; write that too, or leave it out");
        }
        if source.repartition && tables.kafka.instance_id.as_ref().is_some_and(|id| *id == format!("{name}-router")) {
            problems.add_between(
                &["kafka.instance_id", &key("repartition")],
                format!("cannot be \"{name}-router\", which is half of the transactional id of that source's router; write another"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    fn mistakes(toml: &str) -> String {
        super::super::tests::mistakes(toml, &[]).join("\n")
    }

    #[test]
    fn a_source_is_routed_to_a_topic_of_its_own() {
        let settings = load("[sources.orders]\nrepartition = true\n[sources.sessions]\nclock = false");
        assert_eq!(settings.keyed_topics(), ["retentiond-orders-by-customer", "sessions"]);
        let named = "[sources.orders]\nrepartition = true\nrepartition_topic = \"keyed\"";
        assert_eq!(load(named).keyed_topics(), ["keyed"]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_remedy() {
        let routed = "[sources.orders]\nrepartition = true\n";
        let text = mistakes(&format!("{routed}[kafka]\ndelivery = \"at_least_once\""));
        assert!(text.contains("sources.orders.repartition") && text.contains("exactly_once"), "{text}");
        let text = mistakes(&format!("{routed}[kafka]\ninstance_id = \"orders-router\""));
        assert!(text.contains("kafka.instance_id") && text.contains("transactional id"), "{text}");
        let text = mistakes("[sources.orders]\nrepartition_topic = \"keyed\"");
        assert!(text.contains("repartition = true"), "{text}");
        let text = mistakes(&format!("{routed}[alerts]\ntopic = \"retentiond-orders-by-customer\""));
        assert!(text.contains("alerts.topic") && text.contains("already"), "{text}");
        let text = mistakes(&format!("{routed}repartition_topic = \"orders\""));
        assert!(text.contains("orders") && text.contains("already"), "{text}");
        let text = mistakes(&format!("{routed}[kafka]\ngroup_id = \"a group\""));
        assert!(text.contains("repartition_topic"), "{text}");
    }
}
