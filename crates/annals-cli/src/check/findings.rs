//! What a look at a store has found.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use annals::{Capabilities, Error, ErrorKind};
use serde_json::{Map, Value, json};

use crate::{
    failure::{Code, Failure},
    output::{self, BAD, BOLD, GOOD, styled},
};

pub(crate) struct Findings {
    backend: &'static str,
    /// What server or library it is.
    pub(crate) server: Option<String>,
    /// More that is worth to know.
    pub(crate) facts: Vec<(&'static str, String)>,
    schema: Option<Schema>,
    pub(crate) capabilities: Option<Capabilities>,
    problems: Vec<Problem>,
    is_unreachable: bool,
}

/// The versions of the schema: that which is there, where one is, and that which this build has.
struct Schema {
    found: Option<i64>,
    needed: i64,
}

struct Problem {
    what: String,
    /// How to mend it, where `what` does not say so.
    mend: Option<&'static str>,
}

const CREATE: &str = "it is created when a store is first opened there; `annals check --create \
                      URL` does it now";
const MIGRATE: &str = "it is migrated when a store is next opened there, after which older versions \
                       of annals refuse it; `annals check --create URL` does it now";

impl Findings {
    pub(crate) fn new(backend: &'static str) -> Self {
        let (server, schema, capabilities) = (None, None, None);
        let (facts, problems) = (Vec::new(), Vec::new());
        Self { backend, server, facts, schema, capabilities, problems, is_unreachable: false }
    }

    pub(crate) fn problem(&mut self, what: impl Into<String>, mend: &'static str) {
        self.problems.push(Problem { what: what.into(), mend: Some(mend) });
    }

    /// Notes the version that is there, if one is; whether it is the one that this build has.
    /// `what` is where it should be.
    pub(crate) fn schema(&mut self, found: Option<i64>, needed: i64, what: &str) -> bool {
        self.schema = Some(Schema { found, needed });
        match found {
            None => self.problem(format!("{what} is missing"), CREATE),
            Some(found) if found < needed => {
                let what = format!("{what} has version {found}, older than this build");
                self.problem(what, MIGRATE);
            }
            Some(found) if found > needed => self.problem(
                format!("a newer annals has created {what}: version {found}"),
                "upgrade annals; nothing was changed",
            ),
            Some(_) => return true,
        }
        false
    }

    /// An error of the store, whose message says what to do.
    pub(crate) fn error(&mut self, error: Error) {
        self.is_unreachable |= matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Busy);
        let mend = match error.kind() {
            ErrorKind::Unavailable => {
                Some("see that it runs, and that host, port and TLS in the URL are right")
            }
            ErrorKind::Denied => Some("look at user, password and privileges"),
            _ => None,
        };
        self.problems.push(Problem { what: Failure::from(error).into_message(), mend });
    }

    /// Why `--create` did nothing, unless what was found says so already.
    pub(crate) fn could_not_create(&mut self, error: Error) {
        if !self.is_unreachable {
            let what = format!("not created: {}", Failure::from(error).into_message());
            self.problems.push(Problem { what, mend: None });
        }
    }

    pub(crate) fn code(&self) -> ExitCode {
        match self.problems.as_slice() {
            [] => ExitCode::SUCCESS,
            _ if self.is_unreachable => Code::Failed.into(),
            _ => Code::Found.into(),
        }
    }

    pub(crate) fn write(&self, out: &mut impl Write, store: &str) -> io::Result<()> {
        let mut rows = vec![
            ("store", store.to_owned()),
            ("annals", env!("CARGO_PKG_VERSION").to_owned()),
            ("backend", self.backend.to_owned()),
        ];
        rows.extend(self.server.iter().map(|server| ("server", server.clone())));
        rows.extend(self.facts.iter().cloned());
        rows.extend(self.schema.iter().map(|schema| ("schema", schema.to_string())));
        output::pairs(out, &rows)?;
        if let Some(capabilities) = &self.capabilities {
            writeln!(out, "\n{}", styled(BOLD, "what it can do"))?;
            output::pairs(out, &capabilities.rows())?;
        }
        writeln!(out)?;
        for Problem { what, mend } in &self.problems {
            // A line each, whatever a driver says.
            let what = what.replace(['\n', '\r'], " ");
            writeln!(out, "{} {what}", styled(BAD, "to mend:"))?;
            if let Some(mend) = mend {
                writeln!(out, "  {mend}")?;
            }
        }
        if self.problems.is_empty() {
            writeln!(out, "{}", styled(GOOD, "all is well"))?;
        }
        out.flush()
    }

    pub(crate) fn write_json(&self, out: &mut impl Write, store: &str) -> io::Result<()> {
        let text = |rows: &[(&'static str, String)]| -> Map<String, Value> {
            rows.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
        };
        let problem = |Problem { what, mend }: &Problem| json!({ "what": what, "mend": mend });
        let problems: Vec<_> = self.problems.iter().map(problem).collect();
        let schema = self
            .schema
            .as_ref()
            .map(|Schema { found, needed }| json!({ "found": found, "needed": needed }));
        let capabilities = self.capabilities.as_ref().map(|can| text(&can.rows()));
        let found = json!({
            "store": store,
            "annals": env!("CARGO_PKG_VERSION"),
            "backend": self.backend,
            "server": self.server,
            "facts": text(&self.facts),
            "schema": schema,
            "capabilities": capabilities,
            "problems": problems,
            "reachable": !self.is_unreachable,
            "ok": self.problems.is_empty(),
        });
        writeln!(out, "{found:#}")?;
        out.flush()
    }
}

impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { found, needed } = self;
        match found {
            Some(found) if found == needed => write!(f, "version {found}, as this build has it"),
            Some(found) => write!(f, "version {found}; this build has {needed}"),
            None => write!(f, "none; this build has {needed}"),
        }
    }
}
