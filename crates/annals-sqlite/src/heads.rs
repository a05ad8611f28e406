//! What the writer remembers of streams.

use std::collections::HashMap;

use annals_core::StreamId;

use crate::rows::Head;

/// How many streams: a few MiB at most, and more than are written to at one time by most.
const CAPACITY: usize = 10_000;

/// The streams that were asked for last, roughly: when half of the room is used up, whatever was
/// not asked for since the last time that happened is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    young: HashMap<StreamId, Head>,
    old: HashMap<StreamId, Head>,
}

impl Heads {
    pub(crate) fn get(&self, stream: &StreamId) -> Option<Head> {
        self.young.get(stream).or_else(|| self.old.get(stream)).copied()
    }

    pub(crate) fn put(&mut self, stream: &StreamId, head: Head) {
        if let Some(known) = self.young.get_mut(stream) {
            *known = head;
            return;
        }
        if self.young.len() >= CAPACITY / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(stream.clone(), head);
    }

    pub(crate) fn forget(&mut self, stream: &StreamId) {
        self.young.remove(stream);
        self.old.remove(stream);
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use annals_core::adapter::StreamHead;

    use super::*;

    #[test]
    fn stays_small_and_keeps_what_is_used() {
        let name = |n: usize| StreamId::new(format!("s-{n}")).unwrap();
        let head = |row| Head { row: Some(row), head: StreamHead::MISSING, last_id: None };
        let mut heads = Heads::default();
        for n in 0..3 * CAPACITY {
            heads.put(&name(0), head(0));
            heads.put(&name(n), head(n as i64));
            assert!(heads.young.len() + heads.old.len() <= CAPACITY);
        }
        assert_eq!(heads.get(&name(0)).unwrap().row, Some(0));
        assert!(heads.get(&name(1)).is_none());
        heads.forget(&name(0));
        assert!(heads.get(&name(0)).is_none());
        heads.clear();
        assert!(heads.get(&name(3 * CAPACITY - 1)).is_none());
    }
}
