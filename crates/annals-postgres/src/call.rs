//! Calls to append, and the order in which they share a statement.

use std::{collections::HashMap, time::Instant};

use annals_core::{Append, Appended, NewEvent, Result, StreamId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The appends of one call, and the sender of its answer.
#[derive(Debug)]
pub(crate) struct AppendCall {
    /// Several appends are written all or none.
    pub(crate) appends: Vec<Append>,
    pub(crate) since: Instant,
    answer: oneshot::Sender<Result<Vec<Appended>>>,
    /// The memory that the call may take, given back when it is answered.
    _room: OwnedSemaphorePermit,
}

impl AppendCall {
    pub(crate) fn new(
        appends: Vec<Append>,
        room: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Result<Vec<Appended>>>) {
        let (answer, answered) = oneshot::channel();
        (Self { appends, since: Instant::now(), answer, _room: room }, answered)
    }

    pub(crate) fn is_multi(&self) -> bool {
        self.appends.len() > 1
    }

    pub(crate) fn events(&self) -> usize {
        self.appends.iter().map(|append| append.events.len()).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        bytes(&self.appends)
    }

    /// Whether the caller has dropped the future of the append.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.answer.is_closed()
    }

    pub(crate) fn answer(self, answer: Result<Vec<Appended>>) {
        // A dropped receiver means that the caller cancelled the append.
        drop(self.answer.send(answer));
    }
}

/// The bytes of data and metadata of appends.
pub(crate) fn bytes(appends: &[Append]) -> usize {
    appends.iter().flat_map(|append| &append.events).map(NewEvent::size).sum()
}

/// Orders calls of one append each in rounds, and gives the number of calls up to the end of each
/// round. No stream is twice in a round, and appends to one stream keep their order.
pub(crate) fn in_rounds(calls: Vec<AppendCall>) -> (Vec<AppendCall>, Vec<i32>) {
    let mut rounds: HashMap<StreamId, usize> = HashMap::with_capacity(calls.len());
    let mut numbered: Vec<(usize, AppendCall)> = Vec::with_capacity(calls.len());
    for call in calls {
        let round = call.appends.first().map_or(0, |append| {
            let round = rounds.entry(append.stream.clone()).or_default();
            *round += 1;
            *round
        });
        numbered.push((round, call));
    }
    numbered.sort_by_key(|(round, _)| *round);
    let ends = numbered.chunk_by(|(one, _), (next, _)| one == next).scan(0, |end, round| {
        *end += round.len();
        Some(count(*end))
    });
    let ends = ends.collect();
    (numbered.into_iter().map(|(_, call)| call).collect(), ends)
}

/// A number of appends, as the schema's functions take it.
pub(crate) fn count(appends: usize) -> i32 {
    i32::try_from(appends).unwrap_or(i32::MAX)
}
