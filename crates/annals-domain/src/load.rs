//! An aggregate as it stands in the store: the fold of its events, or a snapshot and the rest.

use annals_core::{
    Error, ErrorKind, ReadStream, RecordedEvent, Result, StreamId, TryStreamExt, Version,
};

use crate::{CommandHandler, Decider, schema::Decoded, snapshot::Since};

/// An aggregate, as of a version.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded<S> {
    /// The state.
    pub state: S,
    /// The version of the last event that is part of it; 0 where there is none.
    pub version: Version,
    pub(crate) since: Since,
}

impl<D: Decider> CommandHandler<D> {
    /// An aggregate as it stands now.
    ///
    /// # Errors
    /// Those of the store, after the tries of the [policy](crate::RetryPolicy);
    /// [`ErrorKind::Corrupt`] for an event that cannot be read, and where a snapshot that is there
    /// does not reach to the first event that is left, or does not fit any more; [`ErrorKind::Forgotten`] where the
    /// decider cannot do without what was forgotten.
    pub async fn load(&self, id: &str) -> Result<Loaded<D::State>> {
        let stream = self.stream(id)?;
        self.load_stream(&stream).await
    }

    pub(crate) async fn load_stream(&self, stream: &StreamId) -> Result<Loaded<D::State>> {
        let (kept, unfit) = match self.load_snapshot(stream).await? {
            None => (None, None),
            Some(Ok(loaded)) => (Some(loaded), None),
            Some(Err(why)) => (Some(self.initial()), Some(why)),
        };
        let Some(mut loaded) = kept else {
            let mut loaded = self.initial();
            self.catch_up(stream, &mut loaded, false).await?;
            return Ok(loaded);
        };
        let start = loaded.version;
        self.catch_up(stream, &mut loaded, true).await?;
        if loaded.version == start {
            // Nothing after it; or what was there is gone; or the stream is an older one than that
            // of which the snapshot was taken, restored from a backup, say.
            let info = self.retry.run(|| self.store.stream_info(stream)).await?;
            if info.version > start {
                // It may have been written just now.
                self.catch_up(stream, &mut loaded, true).await?;
                if loaded.version == start {
                    return Err(lost(stream));
                }
            }
            if info.version < start {
                tracing::warn!(%stream, "the snapshot is of a later version than the stream");
                loaded = self.initial();
                self.catch_up(stream, &mut loaded, false).await?;
            }
        }
        if let Some(why) = unfit {
            tracing::info!(%stream, why, "a snapshot does not fit: made anew from the events");
            self.save_snapshot(stream, &mut loaded).await;
        }
        Ok(loaded)
    }

    fn initial(&self) -> Loaded<D::State> {
        let (state, version) = (self.decider.initial(), Version::NONE);
        Loaded { state, version, since: Since::default() }
    }

    /// What the snapshot says, or why it does not fit; none where there is none.
    async fn load_snapshot(
        &self,
        stream: &StreamId,
    ) -> Result<Option<Result<Loaded<D::State>, String>>> {
        let Some(snapshots) = &self.snapshots else { return Ok(None) };
        let kept = self.retry.run(|| self.store.load_snapshot(stream)).await?;
        Ok(kept.map(|kept| {
            let (state, taken_at) = snapshots.state(&kept)?;
            let since = Since { began: Some(taken_at), ..Since::default() };
            Ok(Loaded { state, version: kept.version, since })
        }))
    }

    /// Folds what is new in the stream into the state. Where a read fails, what it gave before is
    /// folded, and the next goes on from there. What follows a snapshot has no gap: a deletion,
    /// after which a stream may begin anywhere, takes the snapshot along.
    pub(crate) async fn catch_up(
        &self,
        stream: &StreamId,
        loaded: &mut Loaded<D::State>,
        gapless: bool,
    ) -> Result<()> {
        let mut patience = self.retry.patience();
        while let Err(error) = self.read_new(stream, loaded, gapless).await {
            patience.wait(error).await?;
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
                return Err(lost(stream));
            }
            self.fold(&event, loaded).await?;
        }
        Ok(())
    }

    async fn fold(&self, event: &RecordedEvent, loaded: &mut Loaded<D::State>) -> Result<()> {
        match self.schema.decode(event).await? {
            Decoded::One(decoded) => self.decider.evolve(&mut loaded.state, &decoded),
            Decoded::Many(decoded) => {
                decoded.iter().for_each(|event| self.decider.evolve(&mut loaded.state, event));
            }
            Decoded::Skipped => {}
            Decoded::Forgotten => {
                let event_type = event.event_type.as_str();
                if !self.decider.forgotten(&mut loaded.state, event_type) {
                    let message =
                        format!("event {} of type {event_type:?} is forgotten", event.version);
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

    /// Keeps a snapshot where one is due. Where that fails, the next command tries again: the
    /// events are there all the same.
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
                loaded.since = Since { began: Some(taken_at), ..Since::default() };
            }
            Err(error) => tracing::warn!(%stream, %error, "a snapshot could not be kept"),
        }
    }
}

fn lost(stream: &StreamId) -> Error {
    let message = "events were truncated that no snapshot stands for, or only one that does not \
                   fit any more, which the code that took it can read";
    Error::new(ErrorKind::Corrupt, message).with_stream(stream)
}
