//! A model that is kept in one snapshot with the position that it includes, so that no crash can
//! part them, and no event is counted twice or left out.

use std::sync::{Arc, Mutex, PoisonError};

use annals::{
    Payload, Position, Result, Snapshot, Store, StreamId, SubscriberId, Version,
    domain::projection::Sink,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A model, and what it includes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept<M> {
    pub position: Position,
    pub model: M,
}

/// Keeps the model of the projection that has the name of its stream, which has no events. A clone
/// is the same one.
#[derive(Clone, Debug)]
pub struct SnapshotSink<M> {
    store: Arc<dyn Store>,
    stream: StreamId,
    kept: Arc<Mutex<Kept<M>>>,
}

impl<M: Clone + Default + DeserializeOwned> SnapshotSink<M> {
    /// With the model as it was kept last, or an empty one.
    pub async fn load(store: Arc<dyn Store>, name: &str) -> Result<Self> {
        let stream = StreamId::new(name)?;
        let kept = match store.load_snapshot(&stream).await? {
            Some(snapshot) => snapshot.data.decode()?,
            None => Kept::default(),
        };
        Ok(Self { store, stream, kept: Arc::new(Mutex::new(kept)) })
    }

    pub fn now(&self) -> Kept<M> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<M> Sink for SnapshotSink<M>
where
    M: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Transaction = Kept<M>;

    async fn position(&self, subscriber: &SubscriberId) -> Result<Option<Position>> {
        let position = self.now().position;
        let ours = subscriber.as_str() == self.stream.as_str() && position > Position::START;
        Ok(ours.then_some(position))
    }

    async fn begin(&self) -> Result<Kept<M>> {
        Ok(self.now())
    }

    async fn advance(
        &self,
        transaction: &mut Kept<M>,
        _: &SubscriberId,
        from: Option<Position>,
        to: Position,
    ) -> Result<bool> {
        let is_there = transaction.position == from.unwrap_or_default();
        transaction.position = to;
        Ok(is_there)
    }

    async fn commit(&self, transaction: Kept<M>) -> Result<()> {
        // A store keeps the snapshot with the greatest version: with the position for it, a
        // program that lags behind cannot undo what another has kept.
        let version = Version::new(transaction.position.get());
        let snapshot = Snapshot::new(version, Payload::json(&transaction)?);
        self.store.save_snapshot(&self.stream, snapshot).await?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = transaction;
        Ok(())
    }
}
