//! Tables of counts, with the same columns as those of the peers' program.

use annals_test_servers::dynamodb::Usage;

use crate::report::Target;

/// What several appends of the same size consumed together.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) events: usize,
    pub(super) bytes: usize,
    /// The number of appends. An append that had to be made in parts counts once.
    pub(super) appends: usize,
    pub(super) usage: Usage,
    pub(super) refused: Option<String>,
    pub(super) note: String,
}

impl Row {
    pub(super) fn requests(&self) -> f64 {
        self.usage.requests as f64 / self.appends as f64
    }

    pub(super) fn write_units(&self) -> f64 {
        self.usage.write_units / self.appends as f64
    }

    pub(super) fn units(&self) -> f64 {
        self.write_units() + self.usage.read_units / self.appends as f64
    }
}

pub(super) fn appends(title: &str, rows: &[Row]) {
    println!("\n### {title}\n");
    println!(
        "| store | events | bytes each | requests per append (of these, to load) | write units per append \
         | write units per event | read units to load before the append | |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---|");
    for row in rows {
        let per_append = |count: f64| number(count / row.appends as f64);
        let refusal = row
            .refused
            .as_ref()
            .map(|error| format!("**refused: {error}**, with 0 of {} events stored. ", row.events));
        let per_event = match row.refused {
            None => number(row.write_units() / row.events as f64),
            Some(_) => "–".to_owned(),
        };
        println!(
            "| {} | {} | {} | {} ({}) | {} | {per_event} | {} | {}{} |",
            row.name,
            row.events,
            number(row.bytes as f64),
            number(row.requests()),
            per_append(loads(&row.usage) as f64),
            number(row.write_units()),
            per_append(row.usage.read_units),
            refusal.unwrap_or_default(),
            row.note,
        );
    }
}

/// The figures that have a target.
pub(super) fn targets(title: &str, rows: &[(String, f64, Target)]) {
    println!("\n### {title}\n");
    println!("| | | target | |\n|---|---:|---:|---|");
    for (name, value, target) in rows {
        let (target, verdict) = target.judge(*value);
        println!("| {name} | {} | {target} | {verdict} |", number(*value));
    }
}

/// The number of requests that read.
fn loads(usage: &Usage) -> u64 {
    ["Query", "BatchGetItem", "GetItem", "Scan"]
        .iter()
        .filter_map(|name| usage.by_operation.get(*name))
        .sum()
}

/// A number with groups of three digits, and two decimals if it is small and not whole.
pub(super) fn number(value: f64) -> String {
    if value.fract() != 0.0 && value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
