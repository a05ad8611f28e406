//! `annals completions` and `annals man`.

use std::process::Command;

use crate::annals;

pub(crate) fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = annals(&["completions", shell]).ended_with(0).stdout;
        assert!(script.contains("conformance") && script.contains("junit"), "{shell}: {script}");
        if shell == "bash" {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("annals.bash");
            std::fs::write(&file, script).unwrap();
            // Where there is a bash.
            if let Ok(status) = Command::new("bash").arg("-n").arg(file).status() {
                assert!(status.success());
            }
        }
    }
    annals(&["completions", "tcsh"]).ended_with(2);
}

pub(crate) fn manual_pages_are_written() {
    let page = annals(&["man"]).ended_with(0).stdout;
    assert!(page.lines().any(|line| line.starts_with(".TH annals 1")), "{page}");
    assert!(page.contains("Exit status"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    annals(&["man", pages.to_str().unwrap()]).ended_with(0);
    for name in ["annals.1", "annals-bench.1", "annals-check.1", "annals-conformance.1"] {
        let page = std::fs::read_to_string(pages.join(name)).unwrap();
        assert!(page.contains(".TH annals"), "{name}: {page}");
    }
}
