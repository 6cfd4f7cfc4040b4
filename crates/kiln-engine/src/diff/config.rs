//! Differences of configs: field by field, step by step, layer by layer.

use std::collections::{BTreeMap, BTreeSet};

use kiln_oci::{Digest, History, ImageConfig};
use serde_json::Value;

use super::{FieldChange, HistoryChange, LayerChange};

/// Fields whose values differ: variables, labels, ports and volumes one by one.
pub(crate) fn fields(one: &ImageConfig, other: &ImageConfig, counts_created: bool) -> Vec<FieldChange> {
    let (mut one, mut other) = (flat(one), flat(other));
    let names: BTreeSet<String> = one.keys().chain(other.keys()).cloned().collect();
    let change = |field: String| {
        let (before, after) = (one.remove(&field), other.remove(&field));
        let counts = before != after && (counts_created || field != "created");
        counts.then_some(FieldChange { field, before, after })
    };
    names.into_iter().filter_map(change).collect()
}

/// A config as names and values.
fn flat(config: &ImageConfig) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Ok(Value::Object(fields)) = serde_json::to_value(config) else { return found };
    for (name, value) in fields {
        match (name.as_str(), value) {
            // Those are compared by themselves; a cache says nothing about the image.
            ("rootfs" | "history" | "moby.buildkit.cache.v0", _) => {}
            ("config", Value::Object(fields)) => {
                fields.into_iter().for_each(|(name, value)| add(&mut found, name, value))
            }
            (_, value) => add(&mut found, name, value),
        }
    }
    found
}

fn add(found: &mut BTreeMap<String, String>, name: String, value: Value) {
    match (name.as_str(), value) {
        ("Env", Value::Array(variables)) => {
            for variable in variables.iter().filter_map(Value::as_str) {
                let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
                found.insert(format!("Env.{key}"), value.to_owned());
            }
        }
        ("Labels" | "ExposedPorts" | "Volumes", Value::Object(entries)) => {
            for (key, value) in entries {
                found.insert(format!("{name}.{key}"), value.as_str().unwrap_or_default().to_owned());
            }
        }
        (_, Value::String(text)) => drop(found.insert(name, text)),
        (_, value) => drop(found.insert(name, value.to_string())),
    }
}

/// Steps that only one image has, and those that were done at another time.
pub(crate) fn history(ones: &[History], others: &[History], counts_created: bool) -> Vec<HistoryChange> {
    let name = |step: &History| step.created_by.clone().or_else(|| step.comment.clone()).unwrap_or_default();
    let mut changes = Vec::new();
    for (before, after) in aligned(ones, others, |one, other| untimed(one) == untimed(other)) {
        let [one, other] = [before.map(|at| &ones[at]), after.map(|at| &others[at])];
        let Some(step) = one.or(other) else { continue };
        let created = match (one, other) {
            (Some(one), Some(other)) if one.created == other.created || !counts_created => continue,
            (Some(one), Some(other)) => Some([one.created.clone(), other.created.clone()]),
            _ => None,
        };
        changes.push(HistoryChange { step: name(step), before, after, created });
    }
    changes
}

fn untimed(step: &History) -> History {
    History { created: None, ..step.clone() }
}

/// Pairs what two lists have in common, in order; what only one has stands alone at its place.
fn aligned<T>(ones: &[T], others: &[T], is_same: impl Fn(&T, &T) -> bool) -> Vec<(Option<usize>, Option<usize>)> {
    // How much the rests of both lists have in common, by where the rests begin.
    let mut common = vec![vec![0_usize; others.len() + 1]; ones.len() + 1];
    for at in (0..ones.len()).rev() {
        for other in (0..others.len()).rev() {
            common[at][other] = match is_same(&ones[at], &others[other]) {
                true => common[at + 1][other + 1] + 1,
                false => common[at + 1][other].max(common[at][other + 1]),
            };
        }
    }
    let (mut at, mut other) = (0, 0);
    let mut pairs = Vec::with_capacity(ones.len().max(others.len()));
    while at < ones.len() || other < others.len() {
        let is_pair = at < ones.len() && other < others.len() && is_same(&ones[at], &others[other]);
        let takes_first = at < ones.len() && (other == others.len() || common[at + 1][other] >= common[at][other + 1]);
        let (before, after) = (is_pair || takes_first, is_pair || !takes_first);
        pairs.push((before.then_some(at), after.then_some(other)));
        at += usize::from(before);
        other += usize::from(after);
    }
    pairs
}

/// Layers that only one image has, or that lie elsewhere in the other.
pub(crate) fn layers(ones: &[Digest], others: &[Digest]) -> Vec<LayerChange> {
    let place = |list: &[Digest], diff_id: &Digest| list.iter().position(|other| other == diff_id);
    let mut changes = Vec::new();
    for diff_id in ones.iter().chain(others) {
        let (before, after) = (place(ones, diff_id), place(others, diff_id));
        if before != after && !changes.iter().any(|change: &LayerChange| change.diff_id == *diff_id) {
            changes.push(LayerChange { diff_id: diff_id.clone(), before, after });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use kiln_oci::ContainerConfig;

    use super::*;

    fn step(name: &str, created: &str) -> History {
        History { created_by: Some(name.into()), created: Some(created.into()), ..History::default() }
    }

    #[test]
    fn fields_are_told_one_by_one() {
        let config = |env: &[&str], cmd: &str, label: Option<&str>, created: &str| ImageConfig {
            created: Some(created.into()),
            config: ContainerConfig {
                env: env.iter().map(|text| (*text).to_owned()).collect(),
                cmd: Some(vec![cmd.into()]),
                labels: label.map(|value| ("a.b".to_owned(), value.to_owned())).into_iter().collect(),
                ..ContainerConfig::default()
            },
            ..ImageConfig::default()
        };
        let (one, other) =
            (config(&["A=1", "B=x=y"], "sh", None, "t"), config(&["A=2", "B=x=y"], "ls", Some("c"), "u"));
        let told = |counts| {
            let changes = fields(&one, &other, counts);
            changes.into_iter().map(|c| (c.field, c.before, c.after)).collect::<Vec<_>>()
        };
        let text = |text: &str| Some(text.to_owned());
        let expected = [
            ("Cmd".to_owned(), text("[\"sh\"]"), text("[\"ls\"]")),
            ("Env.A".to_owned(), text("1"), text("2")),
            ("Labels.a.b".to_owned(), None, text("c")),
        ];
        assert_eq!(told(false), expected);
        assert_eq!(told(true).len(), 4);
        assert_eq!(fields(&one, &one, true), []);
    }

    #[test]
    fn steps_are_matched_in_order() {
        let ones = [step("a", "1"), step("b", "1"), step("c", "1")];
        let others = [step("a", "1"), step("x", "1"), step("c", "2")];
        let told = |counts| {
            let changes = history(&ones, &others, counts);
            changes.into_iter().map(|c| (c.step, c.before, c.after)).collect::<Vec<_>>()
        };
        let [b, x, c] = ["b", "x", "c"].map(str::to_owned);
        assert_eq!(told(true), [(b.clone(), Some(1), None), (x.clone(), None, Some(1)), (c, Some(2), Some(2))]);
        assert_eq!(told(false), [(b, Some(1), None), (x, None, Some(1))]);
    }

    #[test]
    fn a_layer_that_moved_is_told_once() {
        let [a, b, c] = ["a", "b", "c"].map(Digest::sha256);
        let changes = layers(&[a.clone(), b.clone()], &[b.clone(), a.clone(), c.clone()]);
        let places: Vec<_> = changes.iter().map(|change| (&change.diff_id, change.before, change.after)).collect();
        assert_eq!(places, [(&a, Some(0), Some(1)), (&b, Some(1), Some(0)), (&c, None, Some(2))]);
        assert_eq!(layers(&[a.clone(), b.clone()], &[a, b]), []);
    }
}
