//! The model of the store: the writer of annals-dynamodb's log, and the retries of its requests.

use std::collections::VecDeque;

use fastrand::Rng;

use super::{
    Event,
    reader::{Look, Reader},
    service::{Agenda, MILLISECOND, SECOND, Service, Time, Write, latency},
};
use crate::report::percentile;

const SEED: u64 = 7;
/// These are the store's constants.
const MOST_SHARING: usize = 32;
const PAUSE: (Time, Time) = (10 * MILLISECOND, SECOND);
const RETRY_FOR: Time = 15 * SECOND;
/// The bytes of a slot besides its entries.
const AROUND_SLOT: usize = 15;
/// The longest pause of an application between two appends.
const THINKS: Time = MILLISECOND;
/// The time until the queues and limits are in a steady state.
const WARM_UP: Time = 10 * SECOND;
/// The number of the counter's partition. The stripes have the numbers before it.
const fn counter(stripes: usize) -> usize {
    stripes
}

/// The load on the store.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) processes: usize,
    /// The number of appenders in each process. Each appends to its own stream, one append after
    /// the other.
    pub(super) appenders: usize,
    /// `None` if the store keeps no order.
    pub(super) stripes: Option<usize>,
    /// The most transactions that a process runs at the same time.
    pub(super) writers: usize,
    pub(super) event: Event,
    /// True if there is a subscriber.
    pub(super) reader: bool,
    /// True if a limit refuses a request that needs more units than are left.
    pub(super) strict: bool,
    pub(super) seconds: u64,
}

/// The counts after the warm-up.
#[derive(Default)]
pub(super) struct Figures {
    seconds: f64,
    pub(super) appends: u64,
    /// The number of slots that were written.
    pub(super) slots: u64,
    closed: u64,
    failed: u64,
    requests: u64,
    throttled: u64,
    units: f64,
    latencies: Vec<f64>,
    /// The times between writing a slot and reading it.
    delays: Vec<f64>,
}

impl Figures {
    pub(super) fn a_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds
    }

    pub(super) fn units_per_append(&self) -> f64 {
        self.units / self.appends as f64
    }

    pub(super) fn throttled_share(&self) -> f64 {
        self.throttled as f64 / self.requests as f64
    }

    /// The number of closed slots in 1,000.
    pub(super) fn closed_slots(&self) -> f64 {
        self.closed as f64 * 1_000.0 / (self.slots + self.closed) as f64
    }

    pub(super) fn failed_share(&self) -> f64 {
        self.failed as f64 / (self.appends + self.failed) as f64
    }

    /// In milliseconds.
    pub(super) fn latency(&self, share: f64) -> f64 {
        percentile(&self.latencies, share)
    }

    /// In milliseconds.
    pub(super) fn delay(&self, share: f64) -> f64 {
        percentile(&self.delays, share)
    }
}

/// A planned event of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// An appender, by its number, begins an append. The next two have the number of a task.
    Begins(usize),
    Sends(usize),
    IsDone(usize),
    Looks(Look),
    Closes,
    /// The warm-up ends, and the counts begin.
    Counts,
}

/// The state of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    GivenOut,
    Written(Time),
    Closed,
}

/// A task that retries its requests: a writer of the log, or, without an order, an appender.
#[derive(Clone, Default)]
struct Task {
    works: bool,
    appenders: Vec<usize>,
    slot: Option<usize>,
    began: Time,
    pause: Time,
}

pub(super) struct Model {
    pub(super) load: Load,
    pub(super) agenda: Agenda<Step>,
    pub(super) rng: Rng,
    pub(super) service: Service,
    reader: Reader,
    /// The slot with number n is at index n - 1.
    slots: Vec<Slot>,
    /// The waiting appenders of each process.
    waiting: Vec<VecDeque<usize>>,
    tasks: Vec<Task>,
    /// When each appender began its append.
    began: Vec<Time>,
    figures: Figures,
}

impl Model {
    pub(super) fn new(load: Load) -> Self {
        let appenders = load.processes * load.appenders;
        let tasks = match load.stripes {
            Some(_) => load.processes * load.writers,
            None => appenders,
        };
        Self {
            load,
            agenda: Agenda::new(),
            rng: Rng::with_seed(SEED),
            service: Service::new(load.stripes.map_or(0, |stripes| stripes + 1), load.strict),
            reader: Reader::new(),
            slots: Vec::new(),
            waiting: vec![VecDeque::new(); load.processes],
            tasks: vec![Task::default(); tasks],
            began: vec![0; appenders],
            figures: Figures::default(),
        }
    }

    pub(super) fn run(mut self) -> Figures {
        for appender in 0..self.began.len() {
            let time = self.rng.u64(0..SECOND);
            self.agenda.after(time, Step::Begins(appender));
        }
        if self.load.reader && self.load.stripes.is_some() {
            self.agenda.after(0, Step::Looks(Look::Counter));
        }
        self.agenda.after(WARM_UP, Step::Counts);
        let end = WARM_UP + self.load.seconds * SECOND;
        while let Some(step) = self.agenda.next(end) {
            match step {
                Step::Begins(appender) => self.begin(appender),
                Step::Sends(task) => self.send(task),
                Step::IsDone(task) => self.done(task),
                Step::Looks(look) => self.look(look),
                Step::Closes => self.close(),
                Step::Counts => {
                    self.figures = Figures::default();
                    let service = &mut self.service;
                    (service.requests, service.throttled, service.units) = (0, 0, 0.0);
                }
            }
        }
        self.figures.seconds = self.load.seconds as f64;
        self.figures.requests = self.service.requests;
        self.figures.throttled = self.service.throttled;
        self.figures.units = self.service.units;
        self.figures
    }

    fn begin(&mut self, appender: usize) {
        self.began[appender] = self.agenda.now;
        if self.load.stripes.is_none() {
            self.tasks[appender].appenders = vec![appender];
            return self.try_for(appender);
        }
        let process = appender / self.load.appenders;
        self.waiting[process].push_back(appender);
        let mut of_process = process * self.load.writers..(process + 1) * self.load.writers;
        if let Some(task) = of_process.find(|task| !self.tasks[*task].works) {
            self.take(task);
        }
    }

    /// Takes waiting appends for one slot.
    fn take(&mut self, task: usize) {
        let waiting = &mut self.waiting[task / self.load.writers];
        let group: Vec<_> = waiting.drain(..waiting.len().min(MOST_SHARING)).collect();
        self.tasks[task].works = !group.is_empty();
        self.tasks[task].slot = None;
        self.tasks[task].appenders = group;
        if self.tasks[task].works {
            self.try_for(task);
        }
    }

    /// Sends a request for the first time.
    fn try_for(&mut self, task: usize) {
        (self.tasks[task].began, self.tasks[task].pause) = (self.agenda.now, PAUSE.0);
        self.send(task);
    }

    fn send(&mut self, number: usize) {
        let write = self.write(number);
        let task = &mut self.tasks[number];
        if self.service.admits(self.agenda.now, write) {
            let time = latency(&mut self.rng, write.transaction);
            return self.agenda.after(time, Step::IsDone(number));
        }
        let refused = latency(&mut self.rng, false);
        if self.agenda.now + refused - task.began >= RETRY_FOR {
            return self.fail(number);
        }
        let pause = self.rng.u64(0..=task.pause);
        task.pause = (task.pause * 2).min(PAUSE.1);
        self.agenda.after(refused + pause, Step::Sends(number));
    }

    fn write(&self, number: usize) -> Write {
        let task = &self.tasks[number];
        let event = self.load.event;
        let Some(stripes) = self.load.stripes else {
            // A single appender cannot reach the limit of its stream's partition.
            return Write { key: None, others: event.kilobytes as f64, transaction: false };
        };
        let Some(slot) = task.slot else {
            return Write { key: Some((counter(stripes), 1.0)), others: 0.0, transaction: false };
        };
        /// The units for a kilobyte in a transaction.
        const TWICE: usize = 2;
        let count = task.appenders.len();
        let in_log = (AROUND_SLOT + count * event.in_log).div_ceil(1024);
        Write {
            key: Some((slot % stripes, (TWICE * in_log) as f64)),
            others: (TWICE * count * event.kilobytes) as f64,
            transaction: true,
        }
    }

    fn done(&mut self, number: usize) {
        if self.load.stripes.is_none() {
            return self.reply(number);
        }
        match self.tasks[number].slot {
            None => {
                self.slots.push(Slot::GivenOut);
                self.tasks[number].slot = Some(self.slots.len());
                self.try_for(number);
            }
            Some(slot) if self.slots[slot - 1] == Slot::Closed => {
                self.tasks[number].slot = None;
                self.try_for(number);
            }
            Some(slot) => {
                self.slots[slot - 1] = Slot::Written(self.agenda.now);
                self.figures.slots += 1;
                self.reply(number);
                self.take(number);
            }
        }
    }

    fn reply(&mut self, number: usize) {
        for appender in std::mem::take(&mut self.tasks[number].appenders) {
            let time = self.agenda.now - self.began[appender];
            self.figures.latencies.push(time as f64 / MILLISECOND as f64);
            self.figures.appends += 1;
            self.go_on(appender);
        }
    }

    /// The append fails. Its appender goes on with the next append.
    fn fail(&mut self, number: usize) {
        for appender in std::mem::take(&mut self.tasks[number].appenders) {
            self.figures.failed += 1;
            self.go_on(appender);
        }
        if let Some(slot) = self.tasks[number].slot
            && self.slots[slot - 1] == Slot::GivenOut
        {
            self.slots[slot - 1] = Slot::Closed;
            self.figures.closed += 1;
        }
        if self.load.stripes.is_some() {
            self.take(number);
        }
    }

    fn go_on(&mut self, appender: usize) {
        let thinks = self.rng.u64(0..=THINKS);
        self.agenda.after(thinks, Step::Begins(appender));
    }

    fn look(&mut self, look: Look) {
        let slots = &self.slots;
        let is_known = |slot: usize| slots.get(slot - 1).is_some_and(|s| *s != Slot::GivenOut);
        let (from, now) = (self.reader.next, self.agenda.now);
        let next = self.reader.after(look, now, slots.len(), is_known);
        for slot in &slots[from - 1..self.reader.next - 1] {
            if let Slot::Written(at) = slot {
                self.figures.delays.push((now - at) as f64 / MILLISECOND as f64);
            }
        }
        match next {
            Some((pause, look)) => {
                let time = pause + latency(&mut self.rng, false);
                self.agenda.after(time, Step::Looks(look));
            }
            None => self.close(),
        }
    }

    /// The reader tries to close the slot that it waits for.
    fn close(&mut self) {
        let slot = self.reader.next;
        let stripe = self.load.stripes.map(|stripes| (slot % stripes, 1.0));
        let write = Write { key: stripe, others: 0.0, transaction: false };
        if !self.service.admits(self.agenda.now, write) {
            let pause = self.reader.pause_before_close(&mut self.rng, PAUSE);
            return self.agenda.after(pause, Step::Closes);
        }
        if self.slots[slot - 1] == Slot::GivenOut {
            self.slots[slot - 1] = Slot::Closed;
            self.figures.closed += 1;
        }
        let time = latency(&mut self.rng, false);
        self.agenda.after(time, Step::Looks(Look::Closed));
    }
}
