//! What is wrong with a history.

/// Says what cannot be, and which calls it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) text: String,
    /// The calls, by the time of their begin.
    pub(super) about: Vec<u64>,
}

impl Verdict {
    pub(super) fn new(text: impl Into<String>, about: impl IntoIterator<Item = u64>) -> Self {
        Self { text: text.into(), about: about.into_iter().collect() }
    }
}
