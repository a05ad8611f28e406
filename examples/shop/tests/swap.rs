//! The commands by which the README moves a shop from SQLite to PostgreSQL while it runs: just those,
//! on a shop that runs.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, ExitCode, Output, Stdio},
};

use annals::{EventStore, ReadAll, TryStreamExt};
use annals_test_servers::postgres;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Set where this program is to be the command `annals`.
const ACT: &str = "ANNALS_SWAP_IS_ANNALS";

fn main() -> ExitCode {
    if std::env::var_os(ACT).is_some() {
        return annals_cli::main();
    }
    let name = "postgres::the_readme_moves_a_shop_that_runs";
    let trial = Trial::ignorable_test(name, || match postgres::Source::find() {
        Ok(_) => swap().map(|()| Completion::Completed).map_err(Failed::from),
        Err(reason) if is_required() => Err(Failed::from(reason)),
        Err(reason) => Ok(Completion::ignored_with(reason)),
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn is_required() -> bool {
    let required = std::env::var("ANNALS_REQUIRE").unwrap_or_default();
    required.split(',').any(|name| name.trim() == "postgres")
}

/// The commands, as they stand in the README.
fn commands() -> Vec<String> {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("<!-- swap: begin -->").unwrap();
    let (block, _) = rest.split_once("<!-- swap: end -->").unwrap();
    let lines = block.lines().filter(|line| !line.is_empty() && !line.starts_with("```"));
    lines.map(str::to_owned).collect()
}

/// A directory in which the commands work: with `annals` as this program, and `cargo run -p shop` as
/// the shop that was built for the tests.
struct Place {
    dir: TempDir,
    postgres: String,
}

impl Place {
    fn new(postgres: String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let here = std::env::current_exe().unwrap();
        let script = |name: &str, text: String| {
            let path = dir.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        script("annals", format!("{ACT}=1 exec '{}' \"$@\"", here.display()));
        let shop = env!("CARGO_BIN_EXE_shop");
        script(
            "cargo",
            format!(
                "[ \"$*\" != \"${{*#run -p shop}}\" ] || exit 99\nshift 3\n[ \"$1\" != --features ] || shift 2\n[ \"$1\" != -- ] || shift\nexec '{shop}' \"$@\""
            ),
        );
        Self { dir, postgres }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        let path = std::env::var("PATH").unwrap();
        command.args(["-c", &format!("exec {line}")]).current_dir(self.path());
        command.env("PATH", format!("{}:{path}", self.path().display()));
        command.env("POSTGRES", &self.postgres).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        let output = self.shell(line).output().unwrap();
        let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success(), "{line}: {}{}", said[0], said[1]);
        output
    }
}

fn swap() -> Result<(), String> {
    let commands = commands();
    let [survey, copy, verify, go_on] = commands.as_slice() else {
        return Err(format!("four commands were due: {commands:#?}"));
    };
    let runtime = Runtime::new().unwrap();
    let url = runtime.block_on(async { postgres::shared().await.unwrap().url() });
    let schema = format!("swap_{}", std::process::id());
    let join = if url.contains('?') { '&' } else { '?' };
    let place = Place::new(format!("{url}{join}schema={schema}"));

    // A shop that runs, with much to do.
    let shop = place.shell("cargo run -p shop").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut shop = shop.unwrap();
    let file = format!("sqlite://{}?create=false", place.path().join("shop.db").display());
    runtime.block_on(first_event(&file, &mut shop));

    place.run(survey);
    let mut following = place.shell(copy).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(following.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("in step") {
        line.clear();
        let read = said.read_line(&mut line).unwrap();
        assert!(read > 0, "the copy ended before it was in step");
    }
    let ran_meanwhile = shop.try_wait().unwrap().is_none();
    assert!(shop.wait().unwrap().success());
    let interrupted = Command::new("kill").args(["-INT", &following.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(following.wait().unwrap().success(), "{rest}");
    println!("the shop was still running when the copy was in step: {ran_meanwhile}");

    place.run(verify);
    let before = runtime.block_on(count(&place.postgres));
    place.run(go_on);
    // It found everything done, and went on from there.
    assert_eq!(runtime.block_on(count(&place.postgres)), before);
    assert_eq!(runtime.block_on(count(&file)), before);
    Ok(())
}

/// Waits until the shop has written something.
async fn first_event(url: &str, shop: &mut Child) {
    loop {
        if let Ok(store) = annals::connect(url).await {
            let first = store.read_all(ReadAll::default().with_limit(1)).try_next().await;
            if first.unwrap().is_some() {
                return;
            }
        }
        assert!(shop.try_wait().unwrap().is_none_or(|status| status.success()));
        tokio::task::yield_now().await;
    }
}

async fn count(url: &str) -> usize {
    let store = annals::connect(url).await.unwrap();
    let all: Vec<_> = store.read_all(ReadAll::default()).try_collect().await.unwrap();
    all.len()
}
