//! One run of a program, with what is wrong with its history.

use super::{
    order,
    play::Stage,
    program::Program,
    record::{Answer, History},
    search,
    verdict::Verdict,
};

/// A program whose history is wrong.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) program: Program,
    pub(super) attempt: u64,
    pub(super) history: History,
    pub(super) verdict: Verdict,
}

/// Runs a program and judges its history.
pub(super) async fn trial(stage: &Stage, program: Program, attempt: u64) -> Result<(), Failure> {
    let history = stage.play(&program, attempt).await;
    match judge(&history) {
        Ok(()) => Ok(()),
        Err(verdict) => Err(Failure { program, attempt, history, verdict }),
    }
}

pub(super) fn judge(history: &History) -> Result<(), Verdict> {
    for op in &history.ops {
        if let Answer::Wrong(why) = &op.answer {
            return Err(Verdict::new(format!("a call was answered: {why}"), [op.began]));
        }
    }
    search::judge(history)?;
    order::judge(history)
}
