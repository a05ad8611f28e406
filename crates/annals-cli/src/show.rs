//! Events as `read` and `tail` print them, one on a line.

use std::io::Write;

use annals::{ContentKind, Payload, RecordedEvent, StreamInfo};

use crate::{
    failure::Failure,
    file::Format,
    output::{self, DIM, NAME, styled},
};

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    Json,
}

impl Shape {
    pub(crate) fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Prints events. `false` means that the output is no longer read.
pub(crate) fn print(
    out: &mut impl Write,
    shape: Shape,
    events: &[RecordedEvent],
) -> Result<bool, Failure> {
    let mut buffer = Vec::new();
    for event in events {
        match shape {
            Shape::Json => Format::Lines.write(event, None, &mut buffer)?,
            Shape::Text => buffer.extend_from_slice(text(event).as_bytes()),
        }
    }
    output::taken(out.write_all(&buffer).and_then(|()| out.flush()))
}

/// The columns fit most values. A wider value moves the rest of its line to the right.
fn text(event: &RecordedEvent) -> String {
    let time = event.recorded_at.format("%Y-%m-%d %H:%M:%S%.6f");
    let position = format!("{:>8}", event.position.get());
    let version = format!("{:<5}", event.version.get());
    let stream = format!("{:<24}", printable(event.stream.as_str()));
    let event_type = format!("{:<20}", printable(event.event_type.as_str()));
    let mut line = format!(
        "{} {time} {} {version} {} {}",
        styled(DIM, position),
        styled(NAME, stream),
        styled(anstyle::Style::new().bold(), event_type),
        payload(&event.data)
    );
    if !event.metadata.is_empty() {
        line.push_str(&styled(DIM, format!("  {}", payload(&event.metadata))));
    }
    line.push('\n');
    line
}

fn payload(payload: &Payload) -> String {
    match (payload.kind(), std::str::from_utf8(payload.bytes())) {
        (ContentKind::Json, Ok(text)) => printable(text),
        _ if payload.is_empty() => String::new(),
        _ => format!("({} bytes)", payload.len()),
    }
}

/// The state and the versions of a stream, in words.
pub(crate) fn described(info: &StreamInfo) -> String {
    let state = format!("{:?}", info.state).to_lowercase();
    match info.first_version {
        Some(first) => format!("{state} with versions {first} to {}", info.version),
        None => format!("{state} at version {} without events", info.version),
    }
}

/// Replaces control characters, which could move the cursor of the terminal, or colour it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
