//! What differs from the recording.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::PathBuf,
};

/// What the real server answered, with its requests: a text of 1 MB, compressed with Brotli.
const RECORDED: &[u8] = include_bytes!("recorded.txt.br");
/// The kind of a difference that nobody has looked at.
const UNKNOWN: &str = "?";

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// The real server's answers, by the names of the scenarios.
pub(crate) struct Recording(BTreeMap<String, Vec<String>>);

impl Recording {
    pub(crate) fn load() -> Self {
        let mut text = Vec::new();
        brotli::BrotliDecompress(&mut &*RECORDED, &mut text).unwrap();
        let mut scenarios: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for part in format!("\n{}", String::from_utf8(text).unwrap()).split("\n=== ").skip(1) {
            let (name, body) = part.split_once('\n').unwrap();
            scenarios.insert(name.to_owned(), lines(name, body));
        }
        Self(scenarios)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The lines that differ, `-` before those of the real server and `+` before the gateway's.
    pub(crate) fn difference(&self, name: &str, text: &str) -> String {
        difference(&self.0[name], &lines(name, text))
    }
}

fn lines(name: &str, text: &str) -> Vec<String> {
    let lines = text.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines = lines.map(|line| {
        // Whether the real server ends a batch that its client has closed is chance.
        let hangs = name.starts_with("batch/") && line.starts_with("<- DEADLINE after 5000");
        // Texts of errors begin with the store's name.
        if hangs { "<- Ok".to_owned() } else { line.replace("\"sqlite ", "\"memory ") }
    });
    lines.collect()
}

/// The difference by the longest common subsequence of lines.
fn difference(real: &[String], ours: &[String]) -> String {
    let (rows, columns) = (real.len(), ours.len());
    let mut common = vec![vec![0_usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = if real[row] == ours[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    let (mut row, mut column, mut out) = (0, 0, String::new());
    while row < rows || column < columns {
        if row < rows && column < columns && real[row] == ours[column] {
            (row, column) = (row + 1, column + 1);
        } else if column == columns
            || row < rows && common[row + 1][column] >= common[row][column + 1]
        {
            let _ = writeln!(out, "- {}", real[row]);
            row += 1;
        } else {
            let _ = writeln!(out, "+ {}", ours[column]);
            column += 1;
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// The differences that are known: `=== name | kind`, then the lines that differ.
pub(crate) struct Known(BTreeMap<String, (String, String)>);

impl Known {
    const FILE: &str = "tests/recording/differences.txt";

    pub(crate) fn load() -> Self {
        let text = fs::read_to_string(path(Self::FILE)).unwrap_or_default();
        let parts = format!("\n{text}");
        let entry = |part: &str| {
            let (head, body) = part.split_once('\n').unwrap_or((part, ""));
            let (name, kind) = head.split_once(" | ").unwrap();
            (name.to_owned(), (kind.to_owned(), body.trim_end().to_owned()))
        };
        Self(parts.split("\n=== ").skip(1).map(entry).collect())
    }

    /// What is wrong if a scenario differs in this way.
    pub(crate) fn check(&self, name: &str, difference: &str) -> Option<String> {
        match self.0.get(name) {
            None if difference.is_empty() => None,
            None => Some(format!("=== {name} differs from the recording\n{difference}")),
            Some(_) if difference.is_empty() => {
                Some(format!("=== {name} does not differ any more: remove it from {}", Self::FILE))
            }
            Some((_, known)) if known == difference => None,
            Some((kind, known)) => Some(format!(
                "=== {name} ({kind}) differs in another way\n{difference}\nknown:\n{known}"
            )),
        }
    }

    /// Writes the file anew. Scenarios that are in it keep their kinds.
    pub(crate) fn update(&self, found: BTreeMap<String, String>) {
        let mut text = String::new();
        for (name, difference) in found {
            let kind = self.0.get(&name).map_or(UNKNOWN, |(kind, _)| kind);
            let _ = writeln!(text, "=== {name} | {kind}\n{difference}\n");
        }
        fs::write(path(Self::FILE), text).unwrap();
    }
}

/// Compares the kinds of the known differences with the first column of the table in the book.
pub(crate) fn check_book(known: &Known) -> Result<(), String> {
    const PAGE: &str = "../../docs/book/src/gateway.md";
    let page = fs::read_to_string(path(PAGE)).map_err(|error| format!("{PAGE}: {error}"))?;
    let (_, table) = page.split_once("| kind |").ok_or("the page has no table of kinds")?;
    let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("| `")?.split_once("` |"));
    let described: BTreeSet<&str> = rows.map(|(kind, _)| kind).collect();
    let used: BTreeSet<&str> = known.0.values().flat_map(|(kinds, _)| kinds.split(", ")).collect();
    match described == used {
        true => Ok(()),
        false => Err(format!(
            "not in the book: {:?}; only in the book: {:?}",
            used.difference(&described).collect::<Vec<_>>(),
            described.difference(&used).collect::<Vec<_>>()
        )),
    }
}
