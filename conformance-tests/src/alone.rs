//! One case in a process of its own: the suite's program, which runs itself once more.

use std::process::{Command, Stdio};

use crate::{
    BoxError,
    case::{CaseResult, Stop},
};

/// The environment variable that says that this process runs one case alone.
const ALONE: &str = "ANNALS_CONFORMANCE_ALONE";

/// Whether this process was started for one case.
pub(crate) fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Runs the case of this name, and says how it ended. Blocks.
pub(crate) fn run(environment: &[(String, String)], name: &str) -> Result<CaseResult, BoxError> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", name])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Ok(Err(Stop::Failed(format!("in a process of its own: {said}{errors}"))));
    }
    if said.contains("1 passed") {
        return Ok(Ok(()));
    }
    let reason = "the program does not run one case by its name, as a test program does";
    Ok(Err(Stop::Ignored(reason.to_owned())))
}
