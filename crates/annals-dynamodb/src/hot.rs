//! Appends under `Any` that wait for each other at one stream: they are written together.
//!
//! A store sends one append to a stream at a time, so that a stream to which many callers append
//! would take no more than one append in two round trips. These appends do not care what comes before
//! them: all that wait become one item, and each caller gets its own versions of it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use annals_core::{Append, Appended, Error, ErrorKind, NewEvent, Position, Result, StreamId};
use tokio::{
    runtime::{Handle, Id},
    sync::oneshot,
};

use crate::{
    append::{append_locked, write_after},
    error::{internal, share},
    shared::{CAPABILITIES, Shared},
};

/// The most bytes of events that are written together. In nearly all cases they fit into one item.
const MOST_BYTES: usize = 300_000;

/// A caller's append, and where its answer goes.
#[derive(Debug)]
struct Waiting {
    append: Append,
    reply: oneshot::Sender<Result<Appended>>,
}

impl Waiting {
    /// Replies to the caller. A dropped receiver means that the caller cancelled the append.
    fn reply(self, outcome: Result<Appended>) {
        drop(self.reply.send(outcome));
    }
}

/// The appends that wait, by their stream and the runtime of their callers: a runtime that nobody
/// drives any more must not hold up the callers of another.
#[derive(Debug, Default)]
pub(crate) struct HotStreams(Mutex<HashMap<(StreamId, Id), VecDeque<Waiting>>>);

impl HotStreams {
    fn waiting(&self) -> MutexGuard<'_, HashMap<(StreamId, Id), VecDeque<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an append. If this returns true, the caller has to start a task that writes it.
    fn push(&self, key: &(StreamId, Id), waiting: Waiting) -> bool {
        let mut all = self.waiting();
        let starts = !all.contains_key(key);
        all.entry(key.clone()).or_default().push_back(waiting);
        starts
    }

    /// Takes appends that can be written together, but none whose caller has cancelled it. If none
    /// waits, the calling task has to end: the next append starts another.
    fn take(&self, key: &(StreamId, Id)) -> Vec<Waiting> {
        let mut all = self.waiting();
        let mut taken: Vec<Waiting> = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        if let Some(queue) = all.get_mut(key) {
            while let Some(next) = queue.pop_front() {
                if next.reply.is_closed() {
                    continue;
                }
                events += next.append.events.len();
                bytes += next.append.events.iter().map(NewEvent::size).sum::<usize>();
                let fits = events <= CAPABILITIES.max_append_events && bytes <= MOST_BYTES;
                // The second try of an append is recognised once the first is the stream's end.
                let again =
                    taken.last().is_some_and(|last| last_id(&last.append) == last_id(&next.append));
                if !taken.is_empty() && (again || !fits) {
                    queue.push_front(next);
                    break;
                }
                taken.push(next);
            }
        }
        if taken.is_empty() {
            all.remove(key);
        }
        taken
    }
}

fn last_id(append: &Append) -> Option<uuid::Uuid> {
    append.events.last().map(NewEvent::id)
}

/// Writes an append under `Any` to a stream that is being written to, with the others that wait.
pub(crate) async fn append(shared: &Arc<Shared>, append: Append) -> Result<Appended> {
    let key = (append.stream.clone(), Handle::current().id());
    let (reply, answer) = oneshot::channel();
    if shared.hot.push(&key, Waiting { append, reply }) {
        // A task, since a caller that stops waiting must not take the others with it.
        tokio::spawn(Task { shared: shared.clone(), key, ended: false }.run());
    }
    answer.await.unwrap_or_else(|dropped| {
        let message = "the runtime that wrote the append has shut down";
        let error = Error::new(ErrorKind::Unavailable, message).with_source(dropped);
        Err(error.with_outcome_unknown())
    })
}

/// Writes the appends to one stream until none waits.
struct Task {
    shared: Arc<Shared>,
    key: (StreamId, Id),
    /// Whether the task has found that none waits.
    ended: bool,
}

impl Task {
    async fn run(mut self) {
        loop {
            let shared = self.shared.clone();
            let _lock = shared.locks.lock([&self.key.0]).await;
            let together = shared.hot.take(&self.key);
            if together.is_empty() {
                self.ended = true;
                return;
            }
            write(&shared, together).await;
        }
    }
}

impl Drop for Task {
    /// If the runtime shuts down, tells the callers that wait; the next append starts another task.
    fn drop(&mut self) {
        if !self.ended {
            self.shared.hot.waiting().remove(&self.key);
        }
    }
}

/// Writes appends to one stream, and replies to their callers.
async fn write(shared: &Arc<Shared>, together: Vec<Waiting>) {
    let mut together = VecDeque::from(together);
    while together.len() > 1 {
        match write_merged(shared, &together).await {
            Ok(Some(answers)) => {
                for (waiting, answer) in together.drain(..).zip(answers) {
                    waiting.reply(Ok(answer));
                }
                return;
            }
            Ok(None) => {
                if let Some(first) = together.pop_front() {
                    write_alone(shared, first).await;
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for waiting in together {
                    waiting.reply(Err(share(&error)));
                }
                return;
            }
        }
    }
    for last in together {
        write_alone(shared, last).await;
    }
}

async fn write_alone(shared: &Arc<Shared>, waiting: Waiting) {
    let outcome = append_locked(shared, std::slice::from_ref(&waiting.append)).await;
    let nothing = || internal("an append without an answer");
    waiting.reply(outcome.and_then(|answers| answers.into_iter().next().ok_or_else(nothing)));
}

/// Writes the appends as one, behind the end of the stream that the store remembers. `None` if none is
/// written, because the first has to be written alone: it finds the end of the stream, and whether it is
/// the second try of the append there.
async fn write_merged(
    shared: &Arc<Shared>,
    together: &VecDeque<Waiting>,
) -> Result<Option<Vec<Appended>>> {
    let Some(first) = together.front().map(|waiting| &waiting.append) else { return Ok(None) };
    let Some(head) = shared.heads.presume(first) else { return Ok(None) };
    let events = together.iter().flat_map(|waiting| waiting.append.events.iter().cloned());
    let merged = Append::new(first.stream.clone(), first.expected, events.collect::<Vec<_>>());
    let Some(written) = write_after(shared, std::slice::from_ref(&merged), &[head]).await? else {
        shared.heads.forget(&first.stream);
        return Ok(None);
    };
    let last = written.first().ok_or_else(|| internal("an append without an answer"))?.position;
    let mut base = head.stream.version;
    let mut left = merged.count();
    let answers = together.iter().map(|Waiting { append, .. }| {
        left -= append.count();
        // The positions of the events follow each other; without an order there are none.
        let position = if last == Position::START { last } else { last.minus(left) };
        let answer = Appended::after(base, append.count(), position, false);
        base = base.plus(append.count());
        answer
    });
    answers.collect::<Result<_>>().map(Some)
}
