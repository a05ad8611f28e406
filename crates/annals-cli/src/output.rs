//! Printing: in colours on a terminal, plain in a pipe.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use indicatif::ProgressStyle;

use crate::failure::Failure;

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const NAME: Style = AnsiColor::Cyan.on_default();

/// A text in a style. `anstream` removes the style if the output is no terminal, or if `NO_COLOR` is
/// set.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Buffered standard output, with colours on a terminal only.
pub(crate) fn stdout() -> io::BufWriter<anstream::AutoStream<io::Stdout>> {
    io::BufWriter::new(anstream::AutoStream::auto(io::stdout()))
}

/// Prints a line to standard error. Unlike `eprintln!`, it does not panic if nobody reads standard
/// error any more: then there is nobody to tell.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Whether the output is still read. A closed pipe, as of `annals read … | head`, is no failure.
pub(crate) fn taken(result: io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::from(error).at("standard output")),
    }
}

/// Resolves when nobody reads standard output any more, as after `annals tail --follow … | head -1`.
/// A command that writes rarely would notice that late, or never.
pub(crate) async fn reader_gone() {
    #[cfg(unix)]
    {
        use tokio::io::{Interest, unix::AsyncFd};
        // A file cannot be watched: it always takes what is written.
        #[allow(deprecated, reason = "the other way is unsafe code; standard output stays open")]
        if let Ok(out) = AsyncFd::with_interest(io::stdout(), Interest::ERROR)
            && out.ready(Interest::ERROR).await.is_ok()
        {
            return;
        }
    }
    std::future::pending().await
}

/// [`taken`], for the last output of a command.
pub(crate) fn written(result: io::Result<()>) -> Result<(), Failure> {
    taken(result).map(|_| ())
}

/// The style of a progress bar.
pub(crate) fn bar(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Prints names and values, with the values aligned.
pub(crate) fn pairs(out: &mut impl Write, rows: &[(&str, String)]) -> io::Result<()> {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in rows {
        let pad = " ".repeat(width - name.chars().count());
        writeln!(out, "{}{pad}  {value}", styled(NAME, name))?;
    }
    Ok(())
}
