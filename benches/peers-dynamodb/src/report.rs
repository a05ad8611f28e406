//! Tables of the results.

use annals_test_servers::dynamodb::Usage;

/// An append to an aggregate that has one event of the same size.
pub struct Append {
    pub peer: &'static str,
    pub events: usize,
    pub bytes: usize,
    pub usage: Usage,
    /// How many of the events the peer had stored at its first error, and the error.
    pub refused: Option<(usize, String)>,
    pub note: String,
}

/// A read of a stream.
pub struct Read {
    pub peer: &'static str,
    pub how: &'static str,
    pub events: usize,
    /// How many events the peer returned.
    pub found: usize,
    pub usage: Usage,
}

pub fn appends(title: &str, rows: &[Append]) {
    println!("\n### {title}\n");
    println!(
        "| peer | events | bytes each | requests per append (of these, to load) | write units per append \
         | write units per event | read units to load before the append | |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---|");
    for row in rows {
        let Usage { write_units, read_units, .. } = row.usage;
        let refusal = row.refused.as_ref().map(|(stored, error)| {
            format!("**refused: {error}**, with {stored} of {} events stored. ", row.events)
        });
        let per_event = match row.refused {
            None => units(write_units / row.events as f64),
            Some((0, _)) => "–".to_owned(),
            Some((stored, _)) => units(write_units / stored as f64),
        };
        println!(
            "| {} | {} | {} | {} ({}) | {} | {per_event} | {} | {}{} |",
            row.peer,
            row.events,
            grouped(row.bytes),
            row.usage.requests,
            loads(&row.usage),
            units(write_units),
            units(read_units),
            refusal.unwrap_or_default(),
            row.note,
        );
    }
}

pub fn reads(title: &str, rows: &[Read]) {
    println!("\n### {title}\n");
    println!(
        "| peer | by | events | events found | requests | read units | read units per event |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|");
    for row in rows {
        println!(
            "| {} | {} | {} | {} | {} | {} | {:.4} |",
            row.peer,
            row.how,
            grouped(row.events),
            grouped(row.found),
            row.usage.requests,
            units(row.usage.read_units),
            row.usage.read_units / row.found as f64,
        );
    }
}

/// The number of requests that read.
fn loads(usage: &Usage) -> u64 {
    ["Query", "BatchGetItem", "GetItem", "Scan"]
        .iter()
        .filter_map(|name| usage.by_operation.get(*name))
        .sum()
}

fn units(units: f64) -> String {
    if units.fract() == 0.0 { grouped(units as usize) } else { format!("{units:.2}") }
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let ends = digits.len() % 3;
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at % 3 == ends {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
