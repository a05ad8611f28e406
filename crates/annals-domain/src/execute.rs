//! Running commands: load, decide, append, and start again if another writer was faster.

use annals_core::{Append, Appended, NewEvent, Result, StreamId, Version};
use chrono::Utc;
use tracing::Instrument;

use crate::{CommandHandler, Context, Decider, ExecuteError, Executed, load::Loaded};

impl<D: Decider> CommandHandler<D> {
    /// Executes a command: loads the aggregate, lets it decide, and appends its events on condition
    /// that nobody else has appended to the stream since. If somebody has, the handler reads the new
    /// events and decides again. If the answer to an append is lost, the handler sends the same
    /// events with the same ids again, so that the store recognises them.
    ///
    /// If the future is dropped, either all of the events are written or none.
    ///
    /// # Errors
    /// [`ExecuteError`].
    pub async fn execute(
        &self,
        id: &str,
        command: &D::Command,
        context: &Context,
    ) -> Result<Executed<D::Event>, ExecuteError<D::Rejection>> {
        let stream = self.stream(id)?;
        let span = tracing::debug_span!(
            "execute",
            otel.name = %format_args!("execute {}", D::CATEGORY),
            annals.stream = %stream,
            annals.correlation_id = context.correlation_id,
        );
        self.execute_on(stream, command, context).instrument(span).await
    }

    async fn execute_on(
        &self,
        stream: StreamId,
        command: &D::Command,
        context: &Context,
    ) -> Result<Executed<D::Event>, ExecuteError<D::Rejection>> {
        let Some(cache) = &self.cache else {
            let mut loaded = self.load_stream(&stream).await?;
            return self.decide_and_append(stream, &mut loaded, true, command, context).await;
        };
        let slot = cache.slot(&stream);
        let mut slot = slot.lock().await;
        let is_fresh = slot.is_none();
        let loaded = match &mut *slot {
            Some(loaded) => loaded,
            empty => empty.insert(self.load_stream(&stream).await?),
        };
        self.decide_and_append(stream, loaded, is_fresh, command, context).await
    }

    /// Decides on a state that was just read (`is_fresh`), or on a cached one that may be old.
    async fn decide_and_append(
        &self,
        stream: StreamId,
        loaded: &mut Loaded<D::State>,
        mut is_fresh: bool,
        command: &D::Command,
        context: &Context,
    ) -> Result<Executed<D::Event>, ExecuteError<D::Rejection>> {
        let mut conflicts = self.retry.conflicts();
        loop {
            let decided = self.decider.decide(command, &loaded.state);
            if decided.as_ref().map_or(true, Vec::is_empty) {
                // There is no append that would conflict, so read whether the state is old, or whether
                // the events that it lacks were truncated.
                let before = loaded.version;
                if !is_fresh {
                    self.catch_up(&stream, loaded).await?;
                    is_fresh = true;
                }
                self.check_nothing_is_missing(&stream, loaded).await?;
                if loaded.version != before {
                    continue;
                }
            }
            let events = decided.map_err(ExecuteError::Rejected)?;
            if events.is_empty() {
                self.locate(&stream, loaded).await?;
                let (version, as_of, conflicts) =
                    (loaded.version, loaded.position, conflicts.count);
                return Ok(Executed { stream, events, version, position: None, as_of, conflicts });
            }
            let append = self.prepare(&stream, loaded.version, &events, context).await?;
            let bytes = size(&append);
            match self.append(append).await {
                Ok(appended) => {
                    self.appended(&stream, loaded, &events, bytes, &appended).await;
                    let (version, position) = (loaded.version, Some(appended.position));
                    let (as_of, conflicts) = (position, conflicts.count);
                    return Ok(Executed { stream, events, version, position, as_of, conflicts });
                }
                Err(error) => {
                    conflicts.pause_after(error).await?;
                    self.catch_up(&stream, loaded).await?;
                    self.check_nothing_is_missing(&stream, loaded).await?;
                    is_fresh = true;
                }
            }
        }
    }

    pub(crate) async fn prepare(
        &self,
        stream: &StreamId,
        version: Version,
        events: &[D::Event],
        context: &Context,
    ) -> Result<Append> {
        let mut new: Vec<NewEvent> = Vec::with_capacity(events.len());
        for event in events {
            new.push(self.schema.encode(stream, event, context).await?);
        }
        Ok(Append::new(stream.clone(), version, new))
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        // Each try sends the same event ids, by which the store recognises a retry.
        self.retry.write(|| self.store.append(append.clone())).await
    }

    /// Applies the appended events to the state.
    pub(crate) async fn appended(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded<D::State>,
        events: &[D::Event],
        bytes: u64,
        appended: &Appended,
    ) {
        events.iter().for_each(|event| self.decider.evolve(&mut loaded.state, event));
        (loaded.version, loaded.position) = (appended.last_version, Some(appended.position));
        loaded.since.began.get_or_insert_with(Utc::now);
        loaded.since.events += events.len() as u64;
        loaded.since.bytes += bytes;
        self.snapshot_if_due(stream, loaded).await;
    }
}

/// The bytes of data and metadata in an append.
pub(crate) fn size(append: &Append) -> u64 {
    append.events.iter().map(NewEvent::size).sum::<usize>() as u64
}
