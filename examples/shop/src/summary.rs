//! What a run did, as text.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::{
    commands::BadLine,
    execute::{Counters, Outcome},
    report::Model,
};

/// How many commands had which outcome.
pub type Tally = BTreeMap<Outcome, u64>;

/// What a run did. Its text is the report.
#[derive(Clone, Debug)]
pub struct Summary {
    pub tally: Tally,
    pub bad_lines: Vec<BadLine>,
    pub counters: Arc<Counters>,
    /// The time that the commands took.
    pub elapsed: Duration,
    /// The read model, which was found to agree with the events.
    pub model: Model,
    /// How many events there are, from the beginning.
    pub events: u64,
    /// How many of them the read model read in this run, and after which position.
    pub events_read: u64,
    pub resumed_after: u64,
}

impl Summary {
    pub fn commands(&self) -> u64 {
        self.tally.values().sum()
    }

    pub fn count(&self, outcome: Outcome) -> u64 {
        self.tally.get(&outcome).copied().unwrap_or(0)
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { tally, counters, model, .. } = self;
        let mut count = |label: &str, count: u64| writeln!(f, "{label:<40}{:>11}", grouped(count));
        let (done, already) = (self.count(Outcome::Done), self.count(Outcome::AlreadyDone));
        count("commands", self.commands())?;
        count("  done", done)?;
        count("  already done", already)?;
        count("  rejected", self.commands() - done - already)?;
        for (outcome, number) in tally {
            if let Outcome::Rejected(reason) = outcome {
                count(&format!("    {reason}"), *number)?;
            }
        }
        count("malformed lines", self.bad_lines.len() as u64)?;
        count("appends", counters.appends.load(Relaxed))?;
        count("conflicts retried", counters.conflicts.load(Relaxed))?;
        count("failed calls retried", counters.retries.0.load(Relaxed))?;
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.commands() as f64 / seconds.max(f64::EPSILON);
        writeln!(f, "{seconds:.2} seconds, {} commands a second\n", grouped(rate as u64))?;

        let (read, from) = (grouped(self.events_read), self.resumed_after);
        writeln!(f, "read model read {read} events after position {from}")?;
        writeln!(f, "read model agrees with {} events\n", grouped(self.events))?;

        row(f, "sku", ["received", "on hand", "reserved", "shipped"])?;
        for (sku, stock) in &model.stock {
            let columns = [stock.received, stock.on_hand, stock.reserved, stock.shipped];
            row(f, sku, columns.map(grouped))?;
        }
        writeln!(f)?;
        row(f, "orders", ["placed", "paid", "shipped", "cancelled"])?;
        let orders = &model.orders;
        let columns = [orders.placed, orders.paid, orders.shipped, orders.cancelled];
        row(f, "", columns.map(grouped))?;
        let cents = orders.revenue_cents;
        writeln!(f, "revenue {}.{:02}", grouped(cents / 100), cents % 100)
    }
}

fn row(f: &mut Formatter<'_>, name: &str, columns: [impl Display; 4]) -> fmt::Result {
    let [a, b, c, d] = columns;
    writeln!(f, "{name:<16} {a:>11} {b:>11} {c:>11} {d:>11}")
}

/// `1234567` as `1,234,567`.
fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-123_456, "-123,456"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
