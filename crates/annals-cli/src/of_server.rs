//! What a server keeps in streams of its own, whose names begin with `$`: no store takes such names. What
//! the server makes by itself is counted. What users have put there would be missed elsewhere, so it is
//! listed among the events that stay behind.

use std::collections::HashSet;

use indicatif::HumanCount;

use crate::{carry::Left, failure::Failure, interrupt::Interrupt, select::Select, source::Source};

#[derive(Debug, Default)]
pub(crate) struct OfServer {
    /// The events that the server has made by itself, and their streams.
    events: u64,
    streams: HashSet<String>,
    /// What users of the server have put there.
    pub(crate) left: Left,
}

impl OfServer {
    /// Reads the streams of the server's own. If streams are selected, looks for their settings only.
    pub(crate) async fn look(
        source: &Source,
        select: &Select,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let mut found = Self::default();
        #[cfg(feature = "eventstoredb")]
        if let Some(exporter) = source.exporter() {
            use futures::TryStreamExt;
            let prefix = if select.streams.is_everything() { "$" } else { "$$" };
            let mut events = exporter.read_system(prefix)?;
            while let Some(event) =
                events.try_next().await.map_err(|e| Failure::from(e).at("the source"))?
            {
                if interrupt.is_set() {
                    return Err(Failure::interrupted());
                }
                found.take(event, select);
            }
        }
        let _ = (source, select, interrupt, &mut found);
        Ok(found)
    }

    #[cfg(feature = "eventstoredb")]
    fn take(&mut self, event: crate::foreign::SystemEvent, select: &Select) {
        use annals::{StreamId, eventstoredb::SystemStream};
        match &event.holds {
            SystemStream::SettingsOf(stream) => {
                let id = StreamId::new(stream.as_str());
                // A name that annals does not take is in no selection but that of everything.
                if id.map_or(select.streams.is_everything(), |id| select.streams.matches(&id)) {
                    self.left.set_settings(stream, settings(&event.data));
                }
            }
            _ if !select.streams.is_everything() => {}
            SystemStream::OfUsers if select.times.matches(event.recorded_at) => {
                self.left.add_of_users(&event.stream, event.version);
            }
            SystemStream::OfUsers | SystemStream::Record => {}
            // Also kinds of streams that a newer version of the store's crate knows.
            _ => {
                self.events += 1;
                if !self.streams.contains(&event.stream) {
                    self.streams.insert(event.stream);
                }
            }
        }
    }

    /// Says what the server has made by itself, which is not copied.
    pub(crate) fn note(&self) -> Option<String> {
        (self.events > 0).then(|| {
            format!(
                "{} events in {} streams that the server makes by itself, such as statistics and the \
                 links of its projections, are not copied",
                HumanCount(self.events),
                HumanCount(self.streams.len() as u64)
            )
        })
    }
}

/// The names of the properties in a stream's metadata but for `$tb`: a copy truncates and deletes what the
/// source has.
#[cfg(feature = "eventstoredb")]
fn settings(data: &annals::Payload) -> Vec<String> {
    let properties = data.decode::<serde_json::Map<String, serde_json::Value>>();
    let names = properties.unwrap_or_default().into_iter().map(|(name, _)| name);
    names.filter(|name| name != "$tb").collect()
}
