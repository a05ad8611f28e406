//! `pgbench`, PostgreSQL's own load program, with inserts of the same rows.

use std::{
    fmt::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use annals_benches::{STREAM_EVENTS, data, metadata};
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use super::{Database, Server, bare};
use crate::plan::Plan;

/// How long `pgbench` may take until its first insert.
const START_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Pgbench(PathBuf);

impl Pgbench {
    /// `None` if `pgbench` is not installed, which packages of the server may lack.
    pub(crate) fn find(server: &Server<'_>) -> Option<Self> {
        let program = server.program("pgbench");
        let found = Command::new(&program).arg("--version").stdout(Stdio::null()).status();
        if found.is_err() {
            eprintln!("pgbench is not installed; its figures are left out");
        }
        found.ok().map(|_| Self(program))
    }

    /// Measures `pgbench` in rows a second, by the sequence of the positions, so that the time is
    /// the same as for the other contenders.
    pub(crate) fn rate(
        &self,
        plan: &Plan,
        database: &Database<'_>,
        clients: usize,
        events: usize,
    ) -> f64 {
        database.execute(bare::TABLE);
        let place = plan.place();
        let script = place.path().join("insert.sql");
        std::fs::write(&script, insert(events)).unwrap();
        let most = (START_TIMEOUT + plan.warm_up() + plan.slice).as_secs() + 1;
        let child = Command::new(&self.0)
            .args(["-M", "prepared", "-n", "-j", "2"])
            .args(["-D", "turn=0", "-D", &format!("id={}", uuid::Uuid::now_v7())])
            .args(["-D", &format!("data={}", data())])
            .args(["-D", &format!("metadata={}", metadata())])
            .args(["-c", &clients.to_string(), "-T", &most.to_string()])
            .arg("-f")
            .arg(script)
            .arg(&database.url)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let running = Running(child);
        let (warm_up, slice) = (plan.warm_up(), plan.slice);
        let url = database.url.clone();
        let (rate, taken) = plan.run(async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let begin = Instant::now();
            while taken(&mut connection).await == 0 {
                assert!(begin.elapsed() < START_TIMEOUT, "pgbench inserts nothing");
                sleep(Duration::from_millis(5)).await;
            }
            sleep(warm_up).await;
            let (before, began) = (taken(&mut connection).await, Instant::now());
            sleep(slice).await;
            let after = taken(&mut connection).await;
            ((after - before) as f64 / began.elapsed().as_secs_f64(), after)
        });
        drop(running);
        let rows: i64 = sqlx::Row::get(&database.one("SELECT count(*) FROM bare"), 0);
        assert!(
            rows + (clients * events) as i64 >= taken,
            "pgbench took positions, and inserted nothing"
        );
        rate
    }
}

/// How many positions the sequence has given.
async fn taken(connection: &mut PgConnection) -> i64 {
    const TAKEN: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END \
                         FROM bare_position_seq";
    sqlx::query_scalar(TAKEN).fetch_one(connection).await.unwrap()
}

/// The script of `pgbench`. Each client inserts into its own streams, as the writers of annals do.
fn insert(events: usize) -> String {
    let mut script = format!(
        "\\set stream :turn * {events} / {STREAM_EVENTS} * 1000 + :client_id\n\
         \\set version :turn * {events} % {STREAM_EVENTS} + 1\n\
         \\set turn :turn + 1\n\
         INSERT INTO bare (stream, version, recorded_at, id, flags, category, type, data, metadata) \
         VALUES "
    );
    for event in 0..events {
        let comma = if event == 0 { "" } else { ", " };
        write!(
            script,
            "{comma}(:stream, :version + {event}, clock_timestamp(), :id, 3, 'cart', \
             'OrderChanged1', :data, :metadata)"
        )
        .unwrap();
    }
    script + ";\n"
}

/// Kills `pgbench` when it is dropped: `pgbench` was told to run longer than it is needed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
