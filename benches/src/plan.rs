//! How long, how often, and in which directory the contenders run.

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

/// The settings of one run of the program.
pub(crate) struct Plan {
    pub(crate) quick: bool,
    /// How long each contender runs in a round.
    pub(crate) slice: Duration,
    pub(crate) rounds: usize,
    /// The program of `benches/peers`.
    pub(crate) peers: Option<PathBuf>,
    /// How many events a filter leaves out before the one that matches.
    pub(crate) sparse: u64,
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
        // Do not use the system's directory for temporary files: it may be in memory, where no
        // write waits for a disk.
        let beside = || Ok::<_, io::Error>(std::env::current_exe()?.with_file_name(""));
        let dir = dir.map_or_else(beside, Ok)?;
        let slice = slice.unwrap_or(Duration::from_millis(if quick { 200 } else { 1_500 }));
        let rounds = rounds.unwrap_or(if quick { 3 } else { 7 }).max(1);
        let dir = tempfile::Builder::new().prefix("annals-benches-").tempdir_in(dir)?;
        let sparse = if quick { 20_000 } else { 300_000 };
        Ok(Self { quick, slice, rounds, peers, sparse, dir, runtime: Runtime::new()? })
    }

    /// A new directory, which is removed when it is dropped.
    pub(crate) fn place(&self) -> TempDir {
        tempfile::tempdir_in(&self.dir).unwrap()
    }

    /// The parent of those directories. Every user may write to it: if root runs this program, the
    /// PostgreSQL server runs as another user.
    pub(crate) fn place_of_all(&self) -> &Path {
        let mode = Permissions::from_mode(0o1777);
        fs::set_permissions(self.dir.path(), mode).unwrap();
        self.dir.path()
    }

    /// How long a contender runs before it is measured, so that caches and files are warm.
    pub(crate) fn warm_up(&self) -> Duration {
        self.slice / 5
    }

    /// Every contender once for each round. Each round begins with another contender.
    pub(crate) fn turns<T: Copy>(&self, contenders: &[T]) -> Vec<T> {
        let mut contenders = contenders.to_vec();
        let mut turns = Vec::new();
        for _ in 0..self.rounds {
            turns.extend(&contenders);
            contenders.rotate_left(1);
        }
        turns
    }

    /// Runs a future as applications do: as a task on a thread of the runtime.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let task = self.runtime.spawn(future);
        self.runtime.block_on(task).unwrap()
    }

    /// While this guard is alive, the main thread can drop values that need the runtime.
    pub(crate) fn context(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Measures `work`, which returns how many operations it did, in operations a second.
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

    /// Like `rate`, for work that is a future. It runs as a task.
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
            if self.quick { "; quick: the figures mean nothing" } else { "" },
        );
    }
}

/// How long the disk takes to write and synchronise a page, in microseconds. No single append can
/// be faster.
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
