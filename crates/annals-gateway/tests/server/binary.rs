//! The program `annals-gateway`, run as a process.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use kurrentdb::{AppendToStreamOptions, EventData, ReadStreamOptions, SubscribeToAllOptions};

use crate::common::{client, soon};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals-gateway"));
    command.env_remove("ANNALS_GATEWAY_STORE").env_remove("RUST_LOG");
    command
}

/// The program exits without an error on SIGTERM, and the next run finds the events of this one.
#[cfg(unix)]
#[tokio::test]
async fn the_program_serves_a_file_until_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}", dir.path().join("shop.db").display());
    for round in 0..2 {
        let arguments = ["--store", &store, "--listen", "127.0.0.1:0", "--insecure"];
        let mut running = program().args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(running.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("address=") {
            line.clear();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "the program has ended: {:?}",
                running.wait()
            );
        }
        let address = line.trim().rsplit_once("address=").unwrap().1;
        let client = client(&format!("esdb://{address}?tls=false"));
        let event = EventData::json("Counted", &round).unwrap();
        let options = AppendToStreamOptions::default();
        soon("an append", client.append_to_stream("order-1", &options, event)).await.unwrap();
        let read = client.read_stream("order-1", &ReadStreamOptions::default()).await;
        let mut read = read.unwrap();
        for expected in 0..=round {
            assert_eq!(read.next().await.unwrap().unwrap().get_original_event().revision, expected);
        }
        let mut live = client.subscribe_to_all(&SubscribeToAllOptions::default()).await;
        soon("an event", live.next()).await.unwrap();
        let term = Command::new("kill").args(["-TERM", &running.id().to_string()]).status();
        assert!(term.unwrap().success());
        let ended = tokio::task::spawn_blocking(move || running.wait().unwrap());
        assert!(soon("the end of the program", ended).await.unwrap().success());
    }
}

#[test]
fn a_program_that_cannot_run_says_why() {
    let insecure = ["--insecure", "--store"];
    for (arguments, code, says) in [
        (&["--insecure"][..], 2, "--store sqlite://shop.db"),
        (&["--store", "memory:"], 2, "--tls-certificate and --tls-key, or --insecure"),
        (&["--store", "memory:", "--insecure", "--tls-key", "k"], 2, "or --insecure"),
        (&["--store", "memory:", "--insecure", "--user", "admin"], 2, "ANNALS_GATEWAY_PASSWORD"),
        (&["--wrong"], 2, "--wrong"),
        (&[insecure[0], insecure[1], "mysql://root:hunter2@db"], 1, "no URLs that begin with"),
        (&["--store", "memory:", "--insecure", "--listen", "nowhere"], 1, "cannot listen on"),
        (&["--store", "memory:", "--tls-certificate", "/none", "--tls-key", "/none"], 1, "/none"),
    ] {
        let output =
            program().args(arguments).env_remove("ANNALS_GATEWAY_PASSWORD").output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(says) && !errors.contains("hunter2"), "{errors}");
    }
    let help = program().arg("--help").output().unwrap();
    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().contains("--store URL"));
}

/// Clients that discover the cluster would be told to connect to 0.0.0.0.
#[test]
fn an_address_that_clients_cannot_reach_is_warned_of() {
    for (advertise, warns) in [(None, true), (Some("db.example.com:2113"), false)] {
        let mut command = program();
        command.args(["--store", "memory:", "--listen", "0.0.0.0:0", "--insecure"]);
        command.args(advertise.into_iter().flat_map(|address| ["--advertise", address]));
        let mut running = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(running.stderr.take().unwrap());
        let mut lines = String::new();
        while !lines.contains("is listening") {
            assert!(log.read_line(&mut lines).unwrap() > 0, "the program has ended: {lines}");
        }
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(lines.contains("--advertise"), warns, "{lines}");
    }
}
