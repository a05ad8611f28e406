//! From an event of an enum to the event that is appended.

use annals_core::{Error, ErrorKind, EventType, NewEvent, Payload, Result, StreamId};
use serde::{Serialize, de::DeserializeOwned};

use super::Schema;
use crate::{
    Context,
    codec::{self, Unreadable},
};

impl<E: Serialize + DeserializeOwned> Schema<E> {
    /// Makes the event to append to a stream. The event is decoded again and compared with what was
    /// encoded, so that no event is written that could not be read, or would be read as another one.
    /// This costs about as much as encoding it twice and decoding it once, which is little beside an
    /// append.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the event cannot be serialised, or would not be read as it is
    /// written: a number that is infinite or NaN, `Some(None)`, a structure more than 127 levels deep,
    /// a field that is written but not read, or an attribute of `serde` that differs for the two. For
    /// personal data also those of the key store.
    pub async fn encode(
        &self,
        stream: &StreamId,
        event: &E,
        context: &Context,
    ) -> Result<NewEvent> {
        let unwritable = |why: String| {
            let message = format!("an event of {} {why}", std::any::type_name::<E>());
            Error::new(ErrorKind::InvalidInput, message).with_stream(stream)
        };
        let (name, data) = codec::encode(event)
            .map_err(|e| unwritable(format!("cannot be written: {e}")).with_source(e))?;
        if !self.names.contains(&name.as_str()) {
            let why = format!("is written as {name:?}, which none of its variants would read");
            return Err(unwritable(why));
        }
        self.check_readable(&name, &data).map_err(|(why, cause)| match cause {
            Some(cause) => unwritable(why.to_owned()).with_source(cause),
            None => unwritable(why.to_owned()),
        })?;
        let new = context.attach(NewEvent::new(EventType::new(name)?, data))?;
        #[cfg(feature = "personal")]
        if let Some(personal) = &self.personal
            && let Some(subject) = (personal.subject)(event)?
        {
            let marks = self.marks.as_deref();
            return personal.data.seal_for(marks, stream, new, &subject).await;
        }
        Ok(new)
    }

    fn check_readable(&self, name: &str, data: &Payload) -> Result<(), Unreadable> {
        if !self.upcasters.has(name) {
            return codec::check_readable::<E>(name, data);
        }
        // The type is an old one, too: what is read is what its upcaster makes.
        let read = self.read_type(name, data).map(drop);
        read.map_err(|e| ("could not be read again by the upcaster of its type", Some(e.into())))
    }
}
