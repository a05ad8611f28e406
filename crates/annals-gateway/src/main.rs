//! The server `annals-gateway`: serves a store. See `annals-gateway --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    annals_gateway::main()
}
