//! Keys of earlier versions without effect: they are accepted with a warning that describes the current behaviour.

use figment::value::Value;

use super::error::{Problems, key_of};

/// Path and current behaviour.
const RETIRED: [(&[&str], &str); 3] = [
    (
        &["kafka", "membership"],
        "does nothing any more: with kafka.protocol = \"classic\" the group knows a replica again by kafka.instance_id \
         (default: the host name), with \"consumer\" it forgets a replica that stops; remove the key",
    ),
    (
        &["kafka", "missing_topics"],
        "does nothing any more: a source topic that does not exist is waited for, and /readyz and the log name it; \
         remove the key",
    ),
    (
        &["dead_letters", "stop_share"],
        "does nothing any more: the daemon stops when nine of ten of dead_letters.stop_after messages cannot be used, \
         and never with dead_letters.stop_after = 0; remove the key",
    ),
];

/// Removes retired keys, with a warning for each.
pub(super) fn take_out(tree: &mut Value, problems: &mut Problems) {
    for (path, now) in RETIRED {
        let Some((key, tables)) = path.split_last() else { continue };
        let table = tables.iter().try_fold(&mut *tree, |value, name| match value {
            Value::Dict(_, dict) => dict.get_mut(*name),
            _ => None,
        });
        if let Some(Value::Dict(_, table)) = table
            && table.remove(*key).is_some()
        {
            problems.warn(key_of(path), now);
        }
    }
}
