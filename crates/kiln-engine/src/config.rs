//! Joins what the language says about an image with the layers its steps made.

use kiln_oci::{Digest, History, ImageConfig};

/// What is known of one layer of the image.
#[derive(Debug, Clone)]
pub(crate) struct LayerFacts {
    /// The digest of its tar.
    pub(crate) diff_id: Digest,
    /// RFC 3339 time it was made, when kiln made it.
    pub(crate) created: Option<String>,
}

/// Completes a config: layers, and the times of steps.
///
/// A step's time is the time its layer was made, not now: a build from cache gives the same bytes again. With an
/// `epoch` every new time is that one.
pub(crate) fn assemble(
    mut config: ImageConfig,
    layers: &[LayerFacts],
    epoch: Option<String>,
    now: &str,
) -> ImageConfig {
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    align(&mut config.history, layers.len());
    let mut times = layers.iter().map(|layer| layer.created.clone());
    // What stands before the first layer has its time, or it would be another image each time.
    let first = || layers.iter().find_map(|layer| layer.created.clone());
    let mut last = config.created.take().or_else(first);
    for entry in &mut config.history {
        let made = if entry.empty_layer { None } else { times.next().flatten() };
        if entry.created.is_none() {
            entry.created = epoch.clone().or(made).or_else(|| last.clone()).or_else(|| Some(now.to_owned()));
        }
        last.clone_from(&entry.created);
    }
    config.created = epoch.or(last).or_else(|| Some(now.to_owned()));
    config
}

/// Makes the entries that claim a layer as many as there are layers. Bases made by simple tools have too few.
fn align(history: &mut Vec<History>, layers: usize) {
    let claimed = history.iter().filter(|entry| !entry.empty_layer).count();
    for _ in claimed..layers {
        history.insert(0, History::default());
    }
    let surplus = claimed.saturating_sub(layers);
    history.iter_mut().filter(|entry| !entry.empty_layer).take(surplus).for_each(|entry| entry.empty_layer = true);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(created: Option<&str>) -> LayerFacts {
        LayerFacts { diff_id: Digest::sha256(created.unwrap_or("")), created: created.map(str::to_owned) }
    }

    fn step(empty_layer: bool) -> History {
        History { created_by: Some("x".into()), empty_layer, ..History::default() }
    }

    fn times(config: &ImageConfig) -> Vec<&str> {
        config.history.iter().map(|entry| entry.created.as_deref().unwrap()).collect()
    }

    #[test]
    fn a_step_has_the_time_of_its_layer_and_an_empty_one_that_of_the_step_before() {
        let base = History { created: Some("0".into()), ..History::default() };
        let config = ImageConfig { history: vec![base, step(true), step(false), step(true)], ..Default::default() };
        let config = assemble(config, &[layer(None), layer(Some("2"))], None, "now");
        assert_eq!(times(&config), ["0", "0", "2", "2"]);
        assert_eq!(config.created.as_deref(), Some("2"));
    }

    #[test]
    fn what_stands_before_the_first_layer_has_its_time() {
        let config = ImageConfig { history: vec![step(true), step(false)], ..Default::default() };
        let config = assemble(config, &[layer(Some("2"))], None, "now");
        assert_eq!((times(&config), config.created.as_deref()), (vec!["2", "2"], Some("2")));
    }

    #[test]
    fn an_epoch_stands_for_every_new_time() {
        let config = ImageConfig { history: vec![step(false), step(true)], ..Default::default() };
        let config = assemble(config, &[layer(Some("2"))], Some("9".into()), "now");
        assert_eq!((times(&config), config.created.as_deref()), (vec!["9", "9"], Some("9")));
    }

    #[test]
    fn history_claims_as_many_layers_as_there_are() {
        for (history, layers) in [(vec![], 2), (vec![step(false), step(false), step(true)], 1)] {
            let config = ImageConfig { history, ..Default::default() };
            let layers: Vec<_> = (0..layers).map(|_| layer(None)).collect();
            let config = assemble(config, &layers, None, "now");
            assert_eq!(config.history.iter().filter(|entry| !entry.empty_layer).count(), layers.len());
        }
    }
}
