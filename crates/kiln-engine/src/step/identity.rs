//! Who steps are from build to build: by their instruction's text, so that they stay who they are when another is put
//! above them; and where they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_graph::{Definition, Vertex, VertexId};
use kiln_oci::Digest;

/// Who a step is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    /// Project, stage and text; the number of the same before it.
    pub(crate) name: String,
    /// Project, stage and number.
    pub(crate) place: String,
    /// All of its build.
    pub(crate) around: Arc<BTreeSet<String>>,
}

/// Who the steps of a graph are. What comes of no instruction is nobody.
pub(crate) fn identities(definition: &Definition, project: &str) -> BTreeMap<VertexId, Identity> {
    let mut seen: BTreeMap<(&str, Digest), usize> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for vertex in definition.vertices() {
        let Some(text) = text(definition, vertex) else { continue };
        let (stage, number) = place_of(&vertex.meta.name);
        let text = Digest::sha256(text);
        let count = seen.entry((stage, text.clone())).or_default();
        let name = format!("{project} {stage}] {}.{count}", text.short());
        *count += 1;
        let place = if number.is_empty() { String::new() } else { format!("{project} {stage} {number}") };
        all.insert(vertex.id.clone(), Identity { name, place, around: Arc::default() });
    }
    let around: Arc<BTreeSet<String>> = Arc::new(all.values().map(|identity| identity.name.clone()).collect());
    all.values_mut().for_each(|identity| identity.around = Arc::clone(&around));
    all
}

fn text<'d>(definition: &'d Definition, vertex: &Vertex) -> Option<&'d str> {
    let (index, span) = vertex.meta.source?;
    definition.sources().get(index)?.text().get(span.range())
}

/// Which step of which stage a name says: `[build` and `2` of `[build 2/4] RUN make`. How many there are is left out, so
/// that a step that is added at the end makes none of the others another.
pub(crate) fn place_of(name: &str) -> (&str, &str) {
    let place = name.split(']').next().unwrap_or(name);
    let is_count = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let counted = place.rsplit_once('/').filter(|(_, total)| is_count(total)).map(|(place, _)| place);
    let Some(place) = counted.filter(|_| name.starts_with('[')) else { return (place, "") };
    let number = place.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    let stage = place[..number].trim_end();
    // The only stage is named only where something else is beside it, which may come and go.
    let only = stage.strip_suffix("stage-0").filter(|before| before.ends_with(['[', ' ']));
    (only.unwrap_or(stage).trim_end(), &place[number..])
}

/// The stage that a name says: `build` of `[linux/amd64 build 2/4] RUN make`.
pub(crate) fn stage_of(name: &str) -> &str {
    match place_of(name) {
        (_, "") => "",
        (stage, _) => {
            // What is alone may be a platform.
            let last = stage.trim_start_matches('[').rsplit(' ').next();
            last.filter(|stage| !stage.contains('/')).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{place_of, stage_of};

    #[test]
    fn the_stage_is_the_last_word_before_the_number() {
        assert_eq!(stage_of("[build 2/4] RUN ls"), "build");
        assert_eq!(stage_of("[linux/amd64 build  2/14] RUN ls"), "build");
        assert_eq!(stage_of("[stage-1 2/4] RUN ls"), "stage-1");
        assert_eq!(stage_of("[linux/amd64->arm64 2/4] RUN ls"), "");
        assert_eq!((stage_of("[2/4] RUN ls"), stage_of("[context a/b] load")), ("", ""));
    }

    #[test]
    fn a_step_stands_in_its_stage_at_its_number() {
        assert_eq!(place_of("[build 2/4] RUN ls /a/1]"), ("[build", "2"));
        assert_eq!(place_of("[build  2/14] RUN ls"), ("[build", "2"));
        assert_eq!(place_of("[2/4] RUN ls"), ("[", "2"));
        assert_eq!(place_of("[stage-0 2/4] RUN ls"), ("[", "2"));
        assert_eq!(place_of("[linux/amd64 stage-0 2/4] RUN ls"), place_of("[linux/amd64 2/4] RUN ls"));
        assert_eq!(place_of("[stage-1 2/4] RUN ls"), ("[stage-1", "2"));
        assert_eq!(place_of("[linux/amd64 build 12/13] RUN x"), ("[linux/amd64 build", "12"));
        assert_eq!(place_of("[context a/b] load"), ("[context a/b", ""));
        assert_eq!(place_of("RUN ls /a"), ("RUN ls /a", ""));
    }
}
