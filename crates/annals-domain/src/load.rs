//! Loading an aggregate: from all its events, or from a snapshot and the events after it.

use annals_core::{
    Error, ErrorKind, ReadStream, RecordedEvent, Result, StreamId, TryStreamExt, Version,
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
    pub(crate) since: SinceSnapshot,
}

impl<D: Decider> CommandHandler<D> {
    /// Loads the current state of an aggregate from the store.
    ///
    /// # Errors
    /// Those of the store, after the retries of the [policy](crate::RetryPolicy);
    /// [`ErrorKind::Corrupt`] for an event that cannot be read, and if events were truncated that no
    /// usable snapshot covers; [`ErrorKind::Forgotten`] if the decider
    /// [needs](Decider::forgotten) data that was forgotten.
    pub async fn load(&self, id: &str) -> Result<Loaded<D::State>> {
        let stream = self.stream(id)?;
        self.load_stream(&stream).await
    }

    pub(crate) async fn load_stream(&self, stream: &StreamId) -> Result<Loaded<D::State>> {
        let (snapshot, unusable) = match self.load_snapshot(stream).await? {
            None => (None, None),
            Some(Ok(loaded)) => (Some(loaded), None),
            Some(Err(why)) => (Some(self.initial()), Some(why)),
        };
        let Some(mut loaded) = snapshot else {
            let mut loaded = self.initial();
            self.catch_up(stream, &mut loaded, false).await?;
            return Ok(loaded);
        };
        let start = loaded.version;
        self.catch_up(stream, &mut loaded, true).await?;
        if loaded.version == start {
            // No event follows the snapshot. Either that is simply so, or later events were
            // removed, or the stream was restored from a backup older than the snapshot.
            let info = self.retry.run(|| self.store.stream_info(stream)).await?;
            if info.version > start {
                // Another writer may have appended since the read.
                self.catch_up(stream, &mut loaded, true).await?;
                if loaded.version == start {
                    return Err(events_missing(stream));
                }
            }
            if info.version < start {
                tracing::warn!(%stream, "the snapshot is newer than the stream: it is ignored");
                loaded = self.initial();
                self.catch_up(stream, &mut loaded, false).await?;
            }
        }
        if let Some(why) = unusable {
            tracing::info!(%stream, why, "the snapshot cannot be used: a new one is taken");
            self.save_snapshot(stream, &mut loaded).await;
        }
        Ok(loaded)
    }

    fn initial(&self) -> Loaded<D::State> {
        let (state, version) = (self.decider.initial(), Version::NONE);
        Loaded { state, version, since: SinceSnapshot::default() }
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
            Ok(Loaded { state, version: snapshot.version, since })
        }))
    }

    /// Applies the new events of the stream to the state. If a read fails half-way, the events that
    /// it returned are applied, and the next read goes on after them. With `gapless`, a missing
    /// version is an error: after a snapshot there is none, since deleting a stream, after which it
    /// may begin at any version, deletes its snapshot too.
    pub(crate) async fn catch_up(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded<D::State>,
        gapless: bool,
    ) -> Result<()> {
        let mut attempts = self.retry.attempts();
        while let Err(error) = self.read_new(stream, loaded, gapless).await {
            attempts.pause_after(error).await?;
        }
        Ok(())
    }

    async fn read_new(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded<D::State>,
        gapless: bool,
    ) -> Result<()> {
        let new = ReadStream::default().with_from(loaded.version.plus(1));
        let mut events = self.store.read_stream(stream, new);
        while let Some(event) = events.try_next().await? {
            if gapless && event.version != loaded.version.plus(1) {
                return Err(events_missing(stream));
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
        loaded.version = event.version;
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

fn events_missing(stream: &StreamId) -> Error {
    let message = "events were truncated, and no snapshot that this program can use covers them; \
                   the program that took the last snapshot can still read it";
    Error::new(ErrorKind::Corrupt, message).with_stream(stream)
}
