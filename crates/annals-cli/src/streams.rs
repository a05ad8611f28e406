//! `annals streams` and `annals info`.

use std::{collections::BTreeMap, io::Write, process::ExitCode, sync::Arc};

use annals::{
    Position, ReadAll, RecordedEvent, Store, StoreUrl, StreamId, StreamInfo, TryStreamExt,
};
use clap::Args;
use indicatif::HumanCount;
use serde_json::json;

use crate::{
    failure::Failure,
    lines,
    listing::Listing,
    output,
    select::{Select, SelectStreams, stream},
    show::{described, printable},
    source::{Source, open_existing},
};

/// Lists streams with their state and versions, sorted by the bytes of their ids.
///
/// A store that cannot list its streams is read completely. This takes memory for each stream, and
/// does not find streams without events.
#[derive(Args, Debug)]
pub(crate) struct Streams {
    /// A store, or a file: jsonl:FILE, cloudevents:FILE.
    #[arg(env = "ANNALS_URL", hide_env_values = true)]
    url: String,
    #[command(flatten)]
    streams: SelectStreams,
    /// Print each stream as a JSON object on a line.
    #[arg(long)]
    json: bool,
}

impl Streams {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        tokio::select! {
            listed = self.list() => listed,
            () = output::reader_gone() => Ok(ExitCode::SUCCESS),
        }
    }

    async fn list(&self) -> Result<ExitCode, Failure> {
        let source = Source::open(&self.url).await?;
        let mut out = output::stdout();
        match source.store() {
            Some(store) if store.capabilities().list_streams => {
                let mut listing = Listing::of(store);
                while let Some((stream, info)) = listing.next(&self.streams).await? {
                    if !self.print(&mut out, &stream, &info)? {
                        break;
                    }
                }
            }
            _ => {
                for (stream, info) in read(&source, &self.streams).await? {
                    if !self.print(&mut out, &stream, &info)? {
                        break;
                    }
                }
            }
        }
        output::written(out.flush())?;
        Ok(ExitCode::SUCCESS)
    }

    /// `false` means that the output is no longer read.
    fn print(
        &self,
        out: &mut impl Write,
        stream: &StreamId,
        info: &StreamInfo,
    ) -> Result<bool, Failure> {
        output::taken(if self.json {
            writeln!(out, "{}", as_json(stream, info))
        } else {
            let name = format!("{:<40}", printable(stream.as_str()));
            writeln!(out, "{}  {}", output::styled(output::NAME, name), described(info))
        })
    }
}

fn as_json(stream: &StreamId, info: &StreamInfo) -> serde_json::Value {
    json!({
        "stream": stream.as_str(),
        "state": format!("{:?}", info.state).to_lowercase(),
        "version": info.version.get(),
        "first_version": info.first_version.map(annals::Version::get),
    })
}

/// The streams that have events, found by reading all of them.
async fn read(
    source: &Source,
    streams: &SelectStreams,
) -> Result<Vec<(StreamId, StreamInfo)>, Failure> {
    let select = Select { streams: streams.clone(), ..Select::default() };
    let mut found: BTreeMap<String, (StreamId, StreamInfo)> = BTreeMap::new();
    let mut chunks = source.read(Position::START, &select);
    while let Some(chunk) = chunks.recv().await {
        for event in chunk?.events {
            let live = annals::StreamState::Live;
            let info = StreamInfo::new(live, event.version, Some(event.version));
            let entry = found.entry(event.stream.as_str().to_owned());
            entry.or_insert((event.stream, info)).1.version = event.version;
        }
    }
    Ok(found.into_values().collect())
}

/// Describes a store or a stream: state, versions, last event.
#[derive(Args, Debug)]
pub(crate) struct Info {
    /// The store.
    #[arg(env = "ANNALS_URL", hide_env_values = true)]
    url: String,
    /// Describe this stream instead of the store.
    #[arg(long, value_name = "ID", value_parser = stream)]
    stream: Option<StreamId>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let store = open_existing(&self.url).await?;
        let rows = match &self.stream {
            Some(stream) => of_stream(&store, stream).await?,
            None => of_store(&self.url, &store).await?,
        };
        let mut out = output::stdout();
        let printed = if self.json {
            let object: serde_json::Map<_, _> =
                rows.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
            writeln!(out, "{}", serde_json::Value::Object(object))
        } else {
            output::pairs(&mut out, &rows)
        };
        output::written(printed.and_then(|()| out.flush()))?;
        Ok(ExitCode::SUCCESS)
    }
}

type Rows = Vec<(&'static str, String)>;

async fn of_store(url: &str, store: &Arc<dyn Store>) -> Result<Rows, Failure> {
    let mut rows = vec![
        ("store", StoreUrl::parse(url)?.to_string()),
        ("backend", store.capabilities().backend.to_owned()),
    ];
    if store.capabilities().global_order {
        let first = store.read_all(ReadAll::default().with_limit(1)).try_next().await?;
        let last = store.read_all(ReadAll::default().backwards().with_limit(1)).try_next().await?;
        rows.push(("first event", summary(first.as_ref())));
        rows.push(("last event", summary(last.as_ref())));
        let position = last.map_or(Position::START, |event| event.position);
        rows.push(("last position", position.to_string()));
    }
    if store.capabilities().list_streams {
        let (mut listing, mut count) = (Listing::of(store), 0);
        while listing.next(&SelectStreams::default()).await?.is_some() {
            count += 1;
        }
        rows.push(("streams", HumanCount(count).to_string()));
    }
    Ok(rows)
}

async fn of_stream(store: &Arc<dyn Store>, stream: &StreamId) -> Result<Rows, Failure> {
    let info = store.stream_info(stream).await?;
    if info.state == annals::StreamState::Missing {
        return Err(Failure::usage(format!("there is no stream {}", printable(stream.as_str()))));
    }
    let options = annals::ReadStream::default().backwards().with_limit(1);
    let last = store.read_stream(stream, options).try_next().await?;
    let mut rows = vec![("stream", stream.to_string()), ("state", described(&info))];
    rows.push(("version", info.version.to_string()));
    rows.push(("last event", summary(last.as_ref())));
    if store.capabilities().snapshots {
        let snapshot = store.load_snapshot(stream).await?;
        let version = snapshot.map(|snapshot| format!("of version {}", snapshot.version));
        rows.push(("snapshot", version.unwrap_or_else(|| "none".to_owned())));
    }
    Ok(rows)
}

fn summary(event: Option<&RecordedEvent>) -> String {
    let Some(event) = event else { return "none".to_owned() };
    let (time, at) = (lines::time(event.recorded_at), event.position);
    format!("{time}, position {at}, {} of {}", event.event_type, event.stream)
}
