//! Appends under `Any` that wait for each other at one stream: they are written together.
//!
//! A store sends one append to a stream at a time, so that a stream to which many callers append
//! would take no more than one append in two round trips. These appends do not care what comes before
//! them: all that wait become one item, and each caller gets its own versions of it.

use std::{collections::VecDeque, sync::Arc};

use annals_core::{Append, Appended, ExpectedVersion::Any, Position, Result, StreamId};
use tokio::{
    runtime::{Handle, Id},
    sync::oneshot,
};

use crate::{
    append::{append_locked, write_after},
    error::{internal, runtime_ended, share},
    shared::Shared,
    waiting::Waiting,
};

/// Writes all the appends, or none.
pub(crate) async fn append(shared: &Arc<Shared>, appends: &[Append]) -> Result<Vec<Appended>> {
    let streams = appends.iter().map(|append| &append.stream);
    let _locks = match (appends, shared.locks.try_lock(streams.clone())) {
        (_, Some(locks)) => locks,
        ([one], None) if one.expected == Any => {
            return append_any(shared, one.clone()).await.map(|answer| vec![answer]);
        }
        _ => shared.locks.lock(streams).await,
    };
    append_locked(shared, appends).await
}

/// Writes an append under `Any` to a stream that is being written to, with the others that wait.
async fn append_any(shared: &Arc<Shared>, append: Append) -> Result<Appended> {
    let key = (append.stream.clone(), Handle::current().id());
    let (reply, answer) = oneshot::channel();
    if shared.waiting.push(&key, Waiting { append, reply }) {
        // A task, since a caller that stops waiting must not take the others with it.
        tokio::spawn(Task { shared: shared.clone(), key, ended: false }.run());
    }
    answer.await.unwrap_or_else(|dropped| Err(runtime_ended(dropped)))
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
            let together = shared.waiting.take(&self.key);
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
            self.shared.waiting.forget(&self.key);
        }
    }
}

/// Writes appends to one stream, and replies to their callers.
async fn write(shared: &Arc<Shared>, mut together: VecDeque<Waiting>) {
    while together.len() > 1 {
        match write_merged(shared, &together).await {
            Ok(Some(answers)) => {
                for (waiting, answer) in together.into_iter().zip(answers) {
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
    waiting.reply(outcome.and_then(only));
}

/// The answer to the only append of a call.
fn only(answers: Vec<Appended>) -> Result<Appended> {
    answers.into_iter().next().ok_or_else(|| internal("an append without an answer"))
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
    let last = only(written)?.position;
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
