//! The report of `annals check`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use annals::{Backend, Capabilities, Error, ErrorKind};
use serde_json::{Map, Value, json};

use crate::{
    failure::{Code, Failure},
    output::{self, BAD, BOLD, GOOD, styled},
};

pub(crate) struct CheckReport {
    backend: Backend,
    /// The name and version of the server or library.
    pub(crate) server: Option<String>,
    /// Further rows of the report.
    pub(crate) facts: Vec<(&'static str, String)>,
    schema: Option<Schema>,
    pub(crate) capabilities: Option<Capabilities>,
    problems: Vec<Problem>,
    is_unreachable: bool,
    /// Why the store cannot be written to, if so.
    pub(crate) unwritable: Option<String>,
}

/// The version of the schema that exists, if one does, and the version that this build needs.
struct Schema {
    found: Option<i64>,
    needed: i64,
}

struct Problem {
    what: String,
    /// How to fix the problem, if `what` does not say so.
    fix: Option<&'static str>,
}

const CREATE: &str = "a program creates it when it first opens the store; `annals check --create URL` \
                      creates it now";
const MIGRATE: &str = "a program migrates it when it next opens the store, and then older versions of \
                       annals refuse the store; `annals check --create URL` migrates it now";

impl CheckReport {
    pub(crate) fn new(backend: Backend) -> Self {
        let (server, schema, capabilities) = (None, None, None);
        let (facts, problems) = (Vec::new(), Vec::new());
        let (is_unreachable, unwritable) = (false, None);
        Self { backend, server, facts, schema, capabilities, problems, is_unreachable, unwritable }
    }

    pub(crate) fn problem(&mut self, what: impl Into<String>, fix: &'static str) {
        self.problems.push(Problem { what: what.into(), fix: Some(fix) });
    }

    /// Reports the version of the schema that exists, if one does, and returns whether it is the
    /// version that this build needs. `what` names the schema.
    pub(crate) fn schema(&mut self, found: Option<i64>, needed: i64, what: &str) -> bool {
        self.schema = Some(Schema { found, needed });
        match found {
            None => self.problem(format!("{what} is missing"), CREATE),
            Some(found) if found < needed => {
                let what = format!("{what} has version {found}, older than this build");
                self.problem(what, MIGRATE);
            }
            Some(found) if found > needed => self.problem(
                format!("a newer version of annals has created {what}: version {found}"),
                "upgrade annals; nothing was changed",
            ),
            Some(_) => return true,
        }
        false
    }

    /// Whether the only problem is that the schema is missing or older than this build.
    pub(crate) fn lacks_only_schema(&self) -> bool {
        let is_behind = |schema: &Schema| schema.found.is_none_or(|found| found < schema.needed);
        self.schema.as_ref().is_some_and(is_behind) && self.problems.len() == 1
    }

    /// Reports an error of the store.
    pub(crate) fn error(&mut self, error: Error) {
        self.is_unreachable |= matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Busy);
        let fix = match error.kind() {
            ErrorKind::Unavailable if self.backend == Backend::Sqlite => Some(
                "see that this user may read the file and its directory, and that the disk is well",
            ),
            ErrorKind::Unavailable => {
                Some("see that it runs, and that host, port and TLS in the URL are right")
            }
            ErrorKind::Denied => Some("look at user, password and privileges"),
            _ => None,
        };
        self.problems.push(Problem { what: Failure::from(error).into_message(), fix });
    }

    /// Reports why `--create` failed, unless the store cannot be reached, which is reported already.
    pub(crate) fn could_not_create(&mut self, error: Error) {
        if !self.is_unreachable {
            let what = format!("not created: {}", Failure::from(error).into_message());
            self.problems.push(Problem { what, fix: None });
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
            ("backend", self.backend.to_string()),
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
        for Problem { what, fix } in &self.problems {
            // Drivers report errors of several lines. A problem is one line.
            let what = what.replace(['\n', '\r'], " ");
            writeln!(out, "{} {what}", styled(BAD, "to fix:"))?;
            if let Some(fix) = fix {
                writeln!(out, "  {fix}")?;
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
        let problem = |Problem { what, fix }: &Problem| json!({ "what": what, "fix": fix });
        let problems: Vec<_> = self.problems.iter().map(problem).collect();
        let schema = self
            .schema
            .as_ref()
            .map(|Schema { found, needed }| json!({ "found": found, "needed": needed }));
        let capabilities = self.capabilities.as_ref().map(|can| text(&can.rows()));
        let found = json!({
            "store": store,
            "annals": env!("CARGO_PKG_VERSION"),
            "backend": self.backend.name(),
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
            Some(found) if found == needed => write!(f, "version {found}, which this build needs"),
            Some(found) => write!(f, "version {found}; this build needs {needed}"),
            None => write!(f, "none; this build needs {needed}"),
        }
    }
}
