//! How long, how often, and where.

use std::{
    fs::{self, File, Permissions},
    future::Future,
    hint::black_box,
    io::{self, Seek, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::runtime::{EnterGuard, Runtime};

use crate::report::median;

/// How the figures of one run are taken.
pub(crate) struct Plan {
    pub(crate) quick: bool,
    /// How long each contender works in a round.
    pub(crate) slice: Duration,
    pub(crate) rounds: usize,
    /// The program of `benches/peers`.
    pub(crate) peers: Option<PathBuf>,
    dir: TempDir,
    runtime: Runtime,
}

impl Plan {
    pub(crate) fn new(
        quick: bool,
        slice: Option<Duration>,
        rounds: Option<usize>,
        dir: Option<PathBuf>,
        peers: Option<PathBuf>,
    ) -> io::Result<Self> {
        // Not the system's directory for temporary files: where that is in memory, nothing waits
        // for a disk.
        let beside = || Ok::<_, io::Error>(std::env::current_exe()?.with_file_name(""));
        let dir = dir.map_or_else(beside, Ok)?;
        let slice = slice.unwrap_or(Duration::from_millis(if quick { 200 } else { 1_500 }));
        let rounds = rounds.unwrap_or(if quick { 3 } else { 7 }).max(1);
        let dir = tempfile::Builder::new().prefix("annals-benches-").tempdir_in(dir)?;
        Ok(Self { quick, slice, rounds, peers, dir, runtime: Runtime::new()? })
    }

    /// A directory of its own, empty.
    pub(crate) fn place(&self) -> TempDir {
        tempfile::tempdir_in(&self.dir).unwrap()
    }

    /// The directory that holds all of those. Another user can write to it: PostgreSQL does not run
    /// as root, who may run this.
    pub(crate) fn place_of_all(&self) -> &Path {
        let mode = Permissions::from_mode(0o1777);
        fs::set_permissions(self.dir.path(), mode).unwrap();
        self.dir.path()
    }

    /// What is tried first, so that caches and files are what they are while it is measured.
    pub(crate) fn warm_up(&self) -> Duration {
        self.slice / 5
    }

    /// Each contender once for every round, and another one first each time.
    pub(crate) fn turns<T: Copy>(&self, contenders: &[T]) -> Vec<T> {
        let mut contenders = contenders.to_vec();
        let mut turns = Vec::new();
        for _ in 0..self.rounds {
            turns.extend(&contenders);
            contenders.rotate_left(1);
        }
        turns
    }

    /// Runs a future as an application would: as a task, on a thread of the runtime.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let task = self.runtime.spawn(future);
        self.runtime.block_on(task).unwrap()
    }

    /// For as long as this is kept, the main thread may drop what belongs to the runtime.
    pub(crate) fn context(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// How many a second, of something that returns how many it did.
    pub(crate) fn rate(&self, mut work: impl FnMut() -> usize) -> f64 {
        let mut measure = |time: Duration| {
            let (began, mut done) = (Instant::now(), 0);
            while began.elapsed() < time {
                done += work();
            }
            black_box(done) as f64 / began.elapsed().as_secs_f64()
        };
        measure(self.warm_up());
        measure(self.slice)
    }

    /// The same, where the work is a future: run as a task.
    pub(crate) fn rate_of<F>(&self, mut work: impl FnMut() -> F + Send + 'static) -> f64
    where
        F: Future<Output = usize> + Send,
    {
        let times = [self.warm_up(), self.slice];
        self.run(async move {
            let mut rate = 0.0;
            for time in times {
                let (began, mut done) = (Instant::now(), 0);
                while began.elapsed() < time {
                    done += work().await;
                }
                rate = done as f64 / began.elapsed().as_secs_f64();
            }
            rate
        })
    }

    pub(crate) fn introduce(&self) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        println!(
            "{cores} cores; SQLite {}; 4 KiB written in place and synchronised in {:.0} µs; \
             {} rounds of {:?}{}",
            rusqlite::version(),
            disk(self.dir.path()).unwrap(),
            self.rounds,
            self.slice,
            if self.quick { "; quick: no figures to keep" } else { "" },
        );
    }
}

/// What the disk takes to keep a page, in microseconds: what an append alone cannot beat.
fn disk(dir: &Path) -> io::Result<f64> {
    const TIMES: usize = 300;
    const PAGE: [u8; 4096] = [7; 4096];
    let mut file = File::create(dir.join("disk"))?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        file.rewind()?;
        file.write_all(&PAGE)?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&times))
}
