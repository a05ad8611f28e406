//! Loading an aggregate: from all its events, or from a snapshot and the events after it.

use annals_core::{
    Error, ErrorKind, EventStoreExt, Position, ReadStream, RecordedEvent, Result, StreamId,
    TryStreamExt, Version,
};

use crate::{CommandHandler, Decider, schema::Decoded, snapshot::SinceSnapshot};

/// The state of an aggregate at a version.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded<S> {
    /// The state.
    pub state: S,
    /// The version of the last event that the state includes, or 0 if there is no event.
    pub version: Version,
    /// The position of that event, or `None` if there is no event. A read model that has
    /// [reached](crate::projection::ProjectionHandle::reached) it includes all that the state does.
    pub position: Option<Position>,
    pub(crate) since: SinceSnapshot,
}

impl<D: Decider> CommandHandler<D> {
    /// Loads the current state of an aggregate from the store.
    ///
    /// # Errors
    /// Those of the store, after the retries of the [policy](crate::RetryPolicy);
    /// [`ErrorKind::Corrupt`] for an event that cannot be read, and if events were truncated that no
    /// usable snapshot covers: the error says which versions are missing; [`ErrorKind::Forgotten`] if
    /// the decider [needs](Decider::forgotten) data that was forgotten.
    pub async fn load(&self, id: &str) -> Result<Loaded<D::State>> {
        let stream = self.stream(id)?;
        let mut loaded = self.load_stream(&stream).await?;
        self.check_nothing_is_missing(&stream, &mut loaded).await?;
        self.locate(&stream, &mut loaded).await?;
        Ok(loaded)
    }

    /// Loads an aggregate. If nothing can be read, the caller has to make sure that
    /// [nothing is missing](Self::check_nothing_is_missing), unless an append does.
    pub(crate) async fn load_stream(&self, stream: &StreamId) -> Result<Loaded<D::State>> {
        let (snapshot, unusable) = match self.load_snapshot(stream).await? {
            None => (None, None),
            Some(Ok(loaded)) => (Some(loaded), None),
            Some(Err(why)) => (Some(self.initial()), Some(why)),
        };
        let Some(mut loaded) = snapshot else {
            let mut loaded = self.initial();
            self.catch_up(stream, &mut loaded).await?;
            return Ok(loaded);
        };
        let start = loaded.version;
        self.catch_up(stream, &mut loaded).await?;
        if loaded.version == start {
            // No event follows the snapshot. Either that is simply so, or later events were
            // removed, or the stream was restored from a backup older than the snapshot.
            let info = self.retry.run(|| self.store.stream_info(stream)).await?;
            if info.version < start {
                tracing::warn!(%stream, "the snapshot is newer than the stream: it is ignored");
                loaded = self.initial();
                self.catch_up(stream, &mut loaded).await?;
            } else if info.version > info.deleted_at.max(start) {
                // Another writer may have appended since the read.
                self.catch_up(stream, &mut loaded).await?;
                if loaded.version == start {
                    return Err(events_missing(stream, start.max(info.deleted_at), info.version));
                }
            } else if info.deleted_at > start {
                loaded = self.initial();
            }
        }
        if let Some(why) = unusable {
            tracing::info!(%stream, why, "the snapshot cannot be used: a new one is taken");
            self.save_snapshot(stream, &mut loaded).await;
        }
        Ok(loaded)
    }

    /// If no event was read, makes sure that there is none: all events of the stream may have been
    /// truncated.
    pub(crate) async fn check_nothing_is_missing(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded<D::State>,
    ) -> Result<()> {
        if loaded.version > Version::NONE {
            return Ok(());
        }
        let info = self.retry.run(|| self.store.stream_info(stream)).await?;
        if !info.exists() {
            return Ok(());
        }
        // Another writer may have appended since the read.
        self.catch_up(stream, loaded).await?;
        if loaded.version == Version::NONE {
            return Err(events_missing(stream, info.deleted_at, info.version));
        }
        Ok(())
    }

    /// Finds out the position of a state that comes from a snapshot.
    pub(crate) async fn locate(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded<D::State>,
    ) -> Result<()> {
        if loaded.position.is_some() || loaded.version == Version::NONE {
            return Ok(());
        }
        let last = ReadStream::default().backwards().with_from(loaded.version).with_limit(1);
        let read = || {
            let mut events = self.store.read_stream(stream, last.clone());
            async move { events.try_next().await }
        };
        loaded.position = match self.retry.run(read).await? {
            Some(event) => Some(event.position),
            // The event was truncated. It stands before the end of the store in any case.
            None if self.store.capabilities().global_order => {
                Some(self.retry.run(|| self.store.last_position()).await?)
            }
            None => None,
        };
        Ok(())
    }

    fn initial(&self) -> Loaded<D::State> {
        let (state, version) = (self.decider.initial(), Version::NONE);
        Loaded { state, version, position: None, since: SinceSnapshot::default() }
    }

    /// The state in the snapshot, or why the snapshot cannot be used; `None` if there is none.
    async fn load_snapshot(
        &self,
        stream: &StreamId,
    ) -> Result<Option<Result<Loaded<D::State>, String>>> {
        let Some(snapshots) = &self.snapshots else { return Ok(None) };
        let snapshot = self.retry.run(|| self.store.load_snapshot(stream)).await?;
        Ok(snapshot.map(|snapshot| {
            let (state, taken_at) = snapshots.state(&snapshot)?;
            let since = SinceSnapshot { began: Some(taken_at), ..SinceSnapshot::default() };
            Ok(Loaded { state, version: snapshot.version, position: None, since })
        }))
    }

    /// Applies the new events of the stream to the state. If a read fails half-way, the events that
    /// it returned are applied, and the next read goes on after them. If versions are missing, either
    /// the stream was deleted, and the state begins anew after that, or this is an error.
    pub(crate) async fn catch_up(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded<D::State>,
    ) -> Result<()> {
        let mut attempts = self.retry.attempts();
        while let Err(error) = attempts.within_deadline(self.read_new(stream, loaded)).await {
            attempts.pause_after(error).await?;
        }
        Ok(())
    }

    async fn read_new(&self, stream: &StreamId, loaded: &mut Loaded<D::State>) -> Result<()> {
        let new = ReadStream::default().with_from(loaded.version.plus(1));
        let mut events = self.store.read_stream(stream, new);
        while let Some(event) = events.try_next().await? {
            if event.version > loaded.version.plus(1) {
                let deleted_at = self.store.stream_info(stream).await?.deleted_at;
                let last_gone = event.version.minus(1);
                if deleted_at < last_gone {
                    let known = loaded.version.max(deleted_at);
                    return Err(events_missing(stream, known, last_gone));
                }
                *loaded = self.initial();
            }
            self.apply(&event, loaded).await?;
        }
        Ok(())
    }

    async fn apply(&self, event: &RecordedEvent, loaded: &mut Loaded<D::State>) -> Result<()> {
        match self.schema.decode(event).await? {
            Decoded::One(decoded) => self.decider.evolve(&mut loaded.state, &decoded),
            Decoded::Many(decoded) => {
                decoded.iter().for_each(|event| self.decider.evolve(&mut loaded.state, event));
            }
            Decoded::Skipped => {}
            Decoded::Forgotten => {
                let event_type = event.event_type.as_str();
                if !self.decider.forgotten(&mut loaded.state, event_type) {
                    let message = format!(
                        "the data of event {} of type {event_type:?} is forgotten, and the decider \
                         needs it",
                        event.version
                    );
                    return Err(
                        Error::new(ErrorKind::Forgotten, message).with_stream(&event.stream)
                    );
                }
            }
        }
        (loaded.version, loaded.position) = (event.version, Some(event.position));
        loaded.since.began.get_or_insert(event.recorded_at);
        loaded.since.events += 1;
        loaded.since.bytes += (event.data.len() + event.metadata.len()) as u64;
        Ok(())
    }

    /// Saves a snapshot if one is due. If that fails, the next command tries again: nothing is lost,
    /// since the events are in the store.
    pub(crate) async fn snapshot_if_due(&self, stream: &StreamId, loaded: &mut Loaded<D::State>) {
        if self.snapshots.as_ref().is_some_and(|snapshots| snapshots.is_due(&loaded.since)) {
            self.save_snapshot(stream, loaded).await;
        }
    }

    async fn save_snapshot(&self, stream: &StreamId, loaded: &mut Loaded<D::State>) {
        let Some(snapshots) = &self.snapshots else { return };
        let saved = async {
            let (snapshot, taken_at) = snapshots.take(&loaded.state, loaded.version)?;
            self.store.save_snapshot(stream, snapshot).await?;
            Ok::<_, Error>(taken_at)
        };
        match saved.await {
            Ok(taken_at) => {
                loaded.since = SinceSnapshot { began: Some(taken_at), ..SinceSnapshot::default() };
            }
            Err(error) => tracing::warn!(%stream, %error, "a snapshot could not be saved"),
        }
    }
}

/// The error for events that cannot be read any more: those after the version `known` up to `last`.
fn events_missing(stream: &StreamId, known: Version, last: Version) -> Error {
    let first = known.plus(1);
    let versions = if first == last {
        format!("version {last}")
    } else {
        format!("the versions {first} to {last}")
    };
    let message = format!(
        "{versions} cannot be read any more, and no snapshot that this program can use covers them; \
         the program that took the last snapshot may still read it; restore the events or a snapshot, \
         or delete the stream, so that it begins anew"
    );
    Error::new(ErrorKind::Corrupt, message).with_stream(stream)
}
