//! Commands as text, one a line: `place o-17 mug 2 1800`.

use annals::{StreamId, domain::Decider};

use crate::domain::{Order, Stock};

/// As much of a bad line as helps to recognise it.
const SHOWN: usize = 60;

/// What the shop can be told to do. Each command has a natural key, the delivery or the order, by
/// which the domain knows that it was done before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Receive {
        delivery: String,
        sku: String,
        quantity: u32,
    },
    /// Reserves the stock, and places the order. The cents are for all of it.
    Place {
        order: String,
        sku: String,
        quantity: u32,
        cents: u32,
    },
    Pay {
        order: String,
        cents: u32,
    },
    Ship {
        order: String,
    },
    /// Gives the stock back, and the money.
    Cancel {
        order: String,
    },
}

/// A line that is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub number: u64,
    /// What was expected, and what was found.
    pub fault: String,
}

impl Command {
    /// What it is called, and its natural key.
    pub fn id(&self) -> (&'static str, &str) {
        match self {
            Self::Receive { delivery, .. } => ("receive", delivery),
            Self::Place { order, .. } => ("place", order),
            Self::Pay { order, .. } => ("pay", order),
            Self::Ship { order } => ("ship", order),
            Self::Cancel { order } => ("cancel", order),
        }
    }

    /// What one line says: nothing where it is blank, or a comment. The error is what was expected
    /// instead, and what was found.
    pub fn parse(line: &[u8]) -> Result<Option<Self>, String> {
        let line = str::from_utf8(line).map_err(|_| "expected a line of UTF-8".to_owned())?;
        let words: Vec<_> =
            line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        match *words.as_slice() {
            [] => Ok(None),
            ["receive", delivery, sku, quantity] => Ok(Some(Self::Receive {
                // Not part of a stream id, but held to the same rules.
                delivery: name::<Order>("<delivery>", delivery)?,
                sku: name::<Stock>("<sku>", sku)?,
                quantity: number("<quantity>", quantity)?,
            })),
            ["place", order, sku, quantity, cents] => Ok(Some(Self::Place {
                order: name::<Order>("<order>", order)?,
                sku: name::<Stock>("<sku>", sku)?,
                quantity: number("<quantity>", quantity)?,
                cents: number("<cents>", cents)?,
            })),
            ["pay", order, cents] => Ok(Some(Self::Pay {
                order: name::<Order>("<order>", order)?,
                cents: number("<cents>", cents)?,
            })),
            ["ship", order] => Ok(Some(Self::Ship { order: name::<Order>("<order>", order)? })),
            ["cancel", order] => Ok(Some(Self::Cancel { order: name::<Order>("<order>", order)? })),
            [verb, ..] => {
                let found: String = words.join(" ").chars().take(SHOWN).collect();
                Err(format!("expected {}, found {found:?}", expected(verb)))
            }
        }
    }
}

fn expected(verb: &str) -> &'static str {
    match verb {
        "receive" => "`receive <delivery> <sku> <quantity>`",
        "place" => "`place <order> <sku> <quantity> <cents>`",
        "pay" => "`pay <order> <cents>`",
        "ship" => "`ship <order>`",
        "cancel" => "`cancel <order>`",
        _ => "`receive`, `place`, `pay`, `ship` or `cancel`",
    }
}

/// Refuses a name that is too long for a stream id, or holds control characters.
fn name<D: Decider>(what: &str, word: &str) -> Result<String, String> {
    match StreamId::new(format!("{}-{word}", D::CATEGORY)) {
        Ok(_) => Ok(word.to_owned()),
        Err(error) => Err(format!("expected {what} to be part of a stream id: {error}")),
    }
}

fn number(what: &str, word: &str) -> Result<u32, String> {
    word.parse().ok().filter(|number| *number > 0).ok_or_else(|| {
        format!("expected {what} to be a whole number from 1 to {}, found {word:?}", u32::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_understood() {
        let parse = |line: &str| Command::parse(line.as_bytes()).unwrap();
        let (order, sku) = (String::from("o1"), String::from("mug"));
        assert_eq!(
            parse("receive d1 mug 12\r"),
            Some(Command::Receive { delivery: "d1".into(), sku: sku.clone(), quantity: 12 })
        );
        assert_eq!(
            parse("\tplace  o1 mug 2 1800 # a gift"),
            Some(Command::Place { order: order.clone(), sku, quantity: 2, cents: 1800 })
        );
        assert_eq!(parse("pay o1 1800"), Some(Command::Pay { order: order.clone(), cents: 1800 }));
        assert_eq!(parse("ship o1"), Some(Command::Ship { order: order.clone() }));
        assert_eq!(parse("cancel o1"), Some(Command::Cancel { order }));
        for nothing in ["", "  ", "# ship o1", "#ship o1"] {
            assert_eq!(parse(nothing), None);
        }
    }

    #[test]
    fn a_fault_says_what_was_expected() {
        for (line, expected) in [
            ("sell o1", "`receive`, `place`, `pay`, `ship` or `cancel`, found \"sell o1\""),
            ("SHIP o1", "`receive`, `place`"),
            (
                "place o1 mug 2",
                "`place <order> <sku> <quantity> <cents>`, found \"place o1 mug 2\"",
            ),
            ("ship o1 o2", "`ship <order>`"),
            ("pay o1 18.00", "<cents> to be a whole number from 1 to 4294967295, found \"18.00\""),
            ("pay o1 -1", "<cents> to be a whole number"),
            ("pay o1 4294967296", "<cents> to be a whole number"),
            ("receive d1 mug 0", "<quantity> to be a whole number from 1"),
            ("ship o\u{7}1", "<order> to be part of a stream id"),
        ] {
            let fault = Command::parse(line.as_bytes()).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
        let long = format!("ship {}", "x".repeat(250));
        assert!(Command::parse(long.as_bytes()).unwrap_err().contains("1 to 255 bytes"));
        assert_eq!(Command::parse(b"ship \xff").unwrap_err(), "expected a line of UTF-8");
    }
}
