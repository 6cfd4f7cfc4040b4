//! What is asked of the steps of all stages, or of some.

use std::collections::BTreeMap;

/// A setting of steps: one for all, and others for those of some stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerStage<T> {
    /// Of all stages that are not named.
    pub all: Option<T>,
    /// Of stages, by their names; one without a name is `stage-` and its number, from 0.
    pub stages: BTreeMap<String, T>,
}

impl<T> Default for PerStage<T> {
    fn default() -> Self {
        Self { all: None, stages: BTreeMap::new() }
    }
}

impl<T: Copy> PerStage<T> {
    /// What is asked of a stage's steps.
    pub(crate) fn of(&self, stage: &str) -> Option<T> {
        let named = self.stages.iter().find(|(named, _)| named.eq_ignore_ascii_case(stage));
        named.map(|(_, setting)| *setting).or(self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_is_named_has_its_own_setting() {
        let stages = [("build".to_owned(), 2), ("stage-0".to_owned(), 3)].into();
        let setting = PerStage { all: Some(1), stages };
        assert_eq!(["Build", "stage-0", "stage-1"].map(|stage| setting.of(stage)), [2, 3, 1].map(Some));
        assert_eq!(PerStage::<u32>::default().of("build"), None);
    }
}
