//! The program as it is called: arguments, messages and exit status.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use annals::domain::projection::sqlite::rusqlite::Connection;

fn shop(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_shop"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Where the program ends without reading it, this fails, and should.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn bad_lines_are_reported_by_number_and_the_rest_goes_on() {
    let input = b"# a day\nreceive d1 mug 5\n\nrecieve d2 mug 5\nplace o1 mug 2\n\
        place o1 mug 2 900\npay o1 9.00\r\n\xff\xfe\npay o1 900\r\nship o1";
    let output = shop(&["--store", "memory:", "-"], input);
    assert_eq!(output.status.code(), Some(2));
    let errors = text(&output.stderr);
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 4, "{errors}");
    for (line, start) in lines.iter().zip([
        "line 4: expected `receive`, `place`, `pay`, `ship` or `cancel`, found \"recieve d2 mug 5\"",
        "line 5: expected `place <order> <sku> <quantity> <cents>`, found \"place o1 mug 2\"",
        "line 7: expected <cents> to be a whole number from 1 to 4294967295, found \"9.00\"",
        "line 8: expected a line of UTF-8",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
    let report = text(&output.stdout);
    let words: Vec<_> = report.split_whitespace().collect();
    let report = words.join(" ");
    for part in [
        "commands 4 done 4 already done 0 rejected 0 malformed lines 4 appends 6",
        "read model agrees with 6 events",
        "mug 5 3 0 2",
        "placed paid shipped cancelled 0 0 1 0 revenue 9.00",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
}

#[test]
fn the_shipped_commands_run_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let run = || Command::new(env!("CARGO_BIN_EXE_shop")).current_dir(dir.path()).output().unwrap();
    let (first, second) = (run(), run());
    for output in [&first, &second] {
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
    }
    assert!(dir.path().join("shop.db").exists());
    assert!(text(&first.stdout).contains("read model read 7,780 events after position 0\n"));
    assert!(text(&second.stdout).contains("read model read 0 events after position "));
    let totals = |output: &Output| text(&output.stdout).split_once("\nsku").unwrap().1.to_owned();
    assert_eq!(totals(&first), totals(&second));
}

#[test]
fn what_is_not_paid_in_time_is_cancelled_and_a_table_kept() {
    let dir = tempfile::tempdir().unwrap();
    let view = dir.path().join("view.db");
    let arguments =
        ["--store=memory:", "--payment-within=0", "--view", view.to_str().unwrap(), "-"];
    let output = shop(&arguments, b"receive d1 mug 5\nplace o1 mug 2 900\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["commands 2 done 2", "mug 5 5 0 0", "cancelled 0 0 0 1 revenue 0.00"] {
        assert!(report.contains(part), "{part} in {report}");
    }
    let view = Connection::open(view).unwrap();
    let state = view.query_row("SELECT state FROM shop_orders", [], |row| row.get::<_, String>(0));
    assert_eq!(state.unwrap(), "cancelled");
}

#[test]
fn what_cannot_run_says_why_in_one_line() {
    for (arguments, reason) in [
        (
            ["--store", "mysql://root:hunter2@db/shop"],
            "annals knows no URLs that begin with `mysql:`",
        ),
        (["--store", "esdb://shop:hunter2@127.0.0.1:1?tls=perhaps"], "tls"),
        (["--store", "dynamodb://shop:hunter2@db/shop"], "credentials are those of the"),
        (["--store", "postgres://shop:hunter2@127.0.0.1:1/shop"], "cannot be reached"),
        (["--store", "shop.db"], "did you mean sqlite://shop.db?"),
        (["--store", "sqlite:///no/such/directory/shop.db"], "sqlite"),
        (["--store", "memory:?workers=1"], "takes no options"),
        (["--workers", "0"], "--workers takes 1 to 1024"),
        (["--workers", "many"], "many"),
        (["--wrokers", "1"], "--wrokers"),
        (["--payment-within", "soon"], "soon"),
        (["--store=memory:", "--view=/no/such/directory/view.db"], "sqlite"),
        (["--store=memory:", "--view=postgres://shop:hunter2@127.0.0.1:1/shop"], ""),
        (["/no/such/file", "--store=memory:"], "/no/such/file: "),
    ] {
        let output = shop(&arguments, b"");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let errors = text(&output.stderr);
        assert!(errors.starts_with("shop: ") && errors.contains(reason), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn help_is_no_failure() {
    let output = shop(&["--help"], b"");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("place <order> <sku> <quantity> <cents>"));
}
