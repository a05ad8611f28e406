//! The command opens the stores of a backend that annals does not know.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Command, Output},
};

/// Runs the command in a directory, and returns what it printed.
#[track_caller]
fn run(directory: &Path, arguments: &[&str], code: i32) -> String {
    let program = env!("CARGO_BIN_EXE_my-annals");
    let ran = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    let Output { status, stdout, stderr } = ran;
    let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert_eq!(status.code(), Some(code), "{arguments:?}: {text}");
    text
}

#[test]
fn events_move_into_the_store_and_out_again_and_the_suite_judges_it() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], code| run(directory.path(), arguments, code);
    let missing = run(&["read", "redb://shop.redb"], 2);
    assert!(missing.contains("does not exist"), "{missing}");
    let append =
        ["append", "redb://shop.redb", "--stream=order-1", "--type=OrderPlaced", "--data={}"];
    run(&append, 0);
    let checked = run(&["check", "redb://shop.redb"], 0);
    assert!(checked.contains("redb"), "{checked}");
    assert!(run(&["copy", "redb://shop.redb", "sqlite://shop.db", "--dry-run"], 0).contains('1'));
    run(&["copy", "redb://shop.redb", "sqlite://shop.db"], 0);
    run(&["copy", "sqlite://shop.db", "redb://again.redb", "--dry-run"], 0);
    run(&["copy", "sqlite://shop.db", "redb://again.redb"], 0);
    run(&["verify", "redb://shop.redb", "redb://again.redb"], 0);
    let suite = ["conformance", "redb://shop.redb", "--filter=append::", "--badge=badge.svg"];
    assert!(run(&suite, 0).contains("no case failed"));
    let badge = std::fs::read_to_string(directory.path().join("badge.svg")).unwrap();
    assert!(badge.contains("cases passed"), "{badge}");
    let files = std::fs::read_dir(directory.path()).unwrap();
    let mut left: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    left.retain(|name| name.to_str().unwrap().contains("annals_tmp_"));
    assert!(left.is_empty(), "{left:?}");
    assert!(run(&["read", "mysql://h"], 2).contains("`redb:`"));
}

#[test]
fn the_gateway_takes_the_same_urls() {
    let directory = tempfile::tempdir().unwrap();
    let help = run(directory.path(), &["gateway", "--help"], 0);
    assert!(help.contains("--store"), "{help}");
    let refused = run(directory.path(), &["gateway", "--store", "redb:", "--insecure"], 1);
    assert!(refused.contains("name a file"), "{refused}");
}
