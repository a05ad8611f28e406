//! Histories: random concurrent programs, run on the store, recorded and judged.
//!
//! A program ([`program`]) is a handful of tasks that append, append again, remove and read, on one to
//! three streams, and of subscribers. A seed determines it. Running it ([`play`], [`task`], [`follow`]) gives a
//! history ([`record`]): each call with its answer, and the times of both by one clock. How the
//! calls of the tasks interleave is up to the threads and the store, so a program has many histories.
//!
//! A history is judged twice. The calls on streams have to be linearizable ([`search`]): there is an
//! order of them in which a sequential store ([`model`]) gives all these answers, and in which no call
//! comes before one that was answered before it began. And the positions have to be one order of all
//! events, of which every reader of all and every subscriber saw a part without holes ([`order`]).
//!
//! A program whose history is wrong is run again in ever smaller versions ([`shrink`]), and the
//! smallest that still fails is shown ([`report`]).

mod check;
mod describe;
mod facts;
mod follow;
mod ids;
mod model;
mod order;
mod play;
mod program;
mod record;
mod report;
mod run;
mod search;
mod shrink;
mod task;
#[cfg(test)]
mod tests;
mod trial;
mod verdict;

pub(crate) use self::{check::check, program::Mix};
