"""Runs the contenders and prints Markdown. Started by `run`, which starts the server."""

import os
import re
import statistics
import subprocess
import sys
import threading
import time

import psycopg

from reader import Tail

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ["PGBIN"]
NAMES = {
    1: "1 no order (unsafe)",
    2: "2 gap-proof, lock of the stream",
    3: "3 gap-proof, shared lock, unique violation",
    4: "4 lock of the store",
    5: "5 counter row",
    6: "6 `xid8`, below `xmin`",
    7: "7 sequencer after commit",
    8: "8 gap-proof, table lock as mark, unique violation",
    9: "9 gap-proof, table lock as mark, row lock of the stream",
}
DATA = "\\x" + "61" * 200
run_number = 0


def key(contender):
    return 4200 + contender


def environment(contender):
    return {**os.environ, "PGOPTIONS": f"-c search_path=c{contender}"}


def connect(contender=None, database="postgres"):
    options = f"-c search_path=c{contender}" if contender else None
    return psycopg.connect(dbname=database, options=options, autocommit=True)


def server(sync_us):
    """Restarts the server. Returns the time of a synchronisation."""
    command = [os.environ["START"], str(sync_us)]
    if os.getuid() == 0:
        command = ["su", "postgres", "-s", "/bin/sh", "-c", " ".join(command)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def schema():
    lines = open(f"{HERE}/schema.sql").read().splitlines()
    for contender in NAMES:
        chosen = []
        for line in lines:
            text, _, only = line.partition("--@")
            if not only or str(contender) in only.split():
                chosen.append(text.rstrip())
        sql = "\n".join(chosen).replace("@KEY@", str(key(contender)))
        with connect() as connection:
            connection.execute(f"create schema c{contender}")
        command = [f"{BIN}/psql", "-qX", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        subprocess.run(command, input=sql, text=True, check=True, env=environment(contender), stdout=subprocess.DEVNULL)
    with connect() as connection:
        connection.execute("create database elsewhere")
    with connect(database="elsewhere") as connection:
        connection.execute("create table notes (note text)")


def pgbench(contender, script, clients, seconds):
    global run_number
    run_number += 1
    command = [f"{BIN}/pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2))]
    command += ["-T", str(seconds), "-D", f"run={run_number}", "-D", "version=-1", "-D", f"data={DATA}"]
    command += ["-f", f"{HERE}/{script}.sql"]
    return subprocess.Popen(command, env=environment(contender), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process):
    """The transactions done, and how many a second, without those that failed with a conflict."""
    out, err = process.communicate()
    if process.returncode:
        sys.exit(out + err)
    return int(re.search(r"actually processed: (\d+)", out)[1]), float(re.search(r"tps = ([\d.]+)", out)[1])


def synchronised():
    """How often the server has synchronised its log, and how many µs that took."""
    with connect() as connection:
        return connection.execute("select wal_sync, wal_sync_time * 1000 from pg_stat_wal").fetchone()


class Synchronised:
    """The same for the block inside. Sessions report when they end."""

    def __enter__(self):
        time.sleep(0.1)
        self.before = synchronised()
        return self

    def __exit__(self, *_):
        time.sleep(0.1)
        after = synchronised()
        self.count = after[0] - self.before[0]
        self.each = float(after[1] - self.before[1]) / max(self.count, 1)


class Mover:
    """Runs contender 7's session that moves pending events."""

    def __init__(self, contender):
        self.stopped = False
        self.thread = None
        if contender == 7:
            self.connection = connect(7)
            self.thread = threading.Thread(target=self.move)
            self.thread.start()

    def move(self):
        while True:
            stopping = self.stopped
            if self.connection.execute("select move()").fetchone()[0] == 0:
                if stopping:
                    return
                time.sleep(0.001)

    def drain(self):
        """Returns the seconds that it took to move the remaining events."""
        start = time.monotonic()
        self.stopped = True
        if self.thread:
            self.thread.join()
            self.connection.close()
        return time.monotonic() - start


def appends(contender, script, clients, seconds):
    mover = Mover(contender)
    count, rate = result(pgbench(contender, script, clients, seconds))
    behind = mover.drain() if contender == 7 else 0
    return count / (count / rate + behind)


def part_a(sync_us, rounds, seconds):
    idle = server(sync_us)
    print(f"\n### Appends; `SYNC_US={sync_us}`, pg_test_fsync before: {idle} µs\n")
    print(f"Calls per second, and the ratio to contender 1 in the same round: medians of {rounds} rounds of {seconds} s.\n")
    each = {}
    chosen = [int(c) for c in os.environ.get("CONTENDERS", "").split()] or list(NAMES)
    shapes = [("one", 1), ("one", 8), ("one", 32), ("one", 128), ("ten", 1), ("ten", 32)]
    rates = {(c, shape): [] for c in chosen for shape in shapes}
    for shape in shapes:
        for turn in range(rounds):
            order = list(chosen)
            order = order[turn * 2 % len(order) :] + order[: turn * 2 % len(order)]
            for contender in order:
                with Synchronised() as sync:
                    rates[contender, shape].append(appends(contender, *shape, seconds))
                each.setdefault(shape, []).append(sync.each)
        print(".", end="", file=sys.stderr, flush=True)
    print("| | " + " | ".join(f"{'1 event' if s == 'one' else '10 events'}, {n} client{'s' * (n > 1)}" for s, n in shapes) + " |")
    print("|---|" + "---|" * len(shapes))
    for contender in chosen:
        cells = []
        for shape in shapes:
            ratios = [a / b for a, b in zip(rates[contender, shape], rates[1, shape])]
            cell = f"{statistics.median(rates[contender, shape]):,.0f}"
            if contender != 1:
                cell += f" · **{statistics.median(ratios):.2f}** ({min(ratios):.2f}–{max(ratios):.2f})"
            cells.append(cell)
        print(f"| {NAMES[contender]} | " + " | ".join(cells) + " |", flush=True)
    cells = [f"{statistics.median(each[s]):,.0f} ({min(each[s]):,.0f}–{max(each[s]):,.0f})" for s in shapes]
    print("| µs per synchronisation of the log, all contenders | " + " | ".join(cells) + " |", flush=True)


def safety(contender, idle, seconds):
    connection = connect(contender)
    before = connection.execute("select coalesce(max(position), 0) from events").fetchone()[0]
    other = None
    if idle:
        other = connect(contender if idle == "same" else None, "postgres" if idle == "same" else "elsewhere")
        other.autocommit = False
        other.execute("insert into notes values ('idle in transaction')")
    tail = Tail(contender, connect(contender), key(contender))
    mover = Mover(contender)
    thread = threading.Thread(target=tail.run)
    thread.start()
    result(pgbench(contender, "hesitant", 16, seconds))
    time.sleep(0.5)
    if other:
        other.rollback()
        other.close()
    mover.drain()
    time.sleep(0.1)
    tail.done = True
    thread.join()
    committed = {row[0] for row in connection.execute("select position from events where position > %s", (before,))}
    connection.close()
    return tail, committed


def part_b(seconds):
    server(0)
    print("\n### Safety\n")
    print(f"16 writers that sleep 0 to 6 ms before they commit or (one in ten) roll back; every run {seconds} s.\n")
    print("| | idle transaction | committed | missed | twice | position after a greater one | version after a greater one | questions per event | longest stall, ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for contender in [1, 2, 3, 6, 7, 8, 9]:
        for idle in [None, "same", "other"]:
            tail, committed = safety(contender, idle, seconds)
            where = {None: "none", "same": "same database", "other": "another database"}[idle]
            assert tail.seen <= committed, "an event was read that was not committed"
            cells = [NAMES[contender], where, f"{len(committed):,}", f"{len(committed - tail.seen):,}", f"{tail.again:,}"]
            cells += [f"{tail.late:,}", f"{tail.versions_late:,}", f"{tail.reader.questions / len(committed):.3f}", f"{tail.stall * 1000:,.0f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


def timed(connection, query, arguments, rounds):
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        connection.execute(query, arguments, prepare=True).fetchall()
        took.append((time.perf_counter() - start) * 1e6)
    return statistics.median(took), sorted(took)[int(len(took) * 0.99)]


def part_c(rounds, turns, seconds):
    server(0)
    from reader import GapProof, TableLock

    asking = connect(2)
    holder = connect(2)
    holder.autocommit = False
    print("\n### What a question costs\n")
    print("One connection, round trip included, µs: median (99th percentile).\n")
    print("| locks held in the server | question by stream lock (2) | question by table lock (8, 9) | `select 1` |\n|---|---|---|---|")
    for locks in [1, 50, 1000]:
        holder.execute("select pg_advisory_xact_lock(%s, n) from generate_series(1, %s) n", (key(2), locks))
        cells = []
        for query, arguments in [(GapProof.IN_FLIGHT, (key(2),)), (TableLock.IN_FLIGHT, (1,)), ("select 1", ())]:
            middle, high = timed(asking, query, arguments, rounds)
            cells.append(f"{middle:,.0f} ({high:,.0f})")
        holder.rollback()
        print(f"| {locks:,} | " + " | ".join(cells) + " |", flush=True)

    check = """select count(*) = max(position) - min(position) + 1 from
        (select position from events order by position desc limit 1000) e"""
    fresh = connect(2)
    fresh.execute("""select append('fresh-' || clock_timestamp(), 'order', null, array_fill(gen_random_uuid(), array[2000]),
        array_fill('Placed'::text, array[2000]), array_fill('x'::bytea, array[2000]), array_fill(null::bytea, array[2000]))""")
    print("\n| contiguity of the last 1,000 positions | µs |\n|---|---|")
    for what in ["just written", "after vacuum"]:
        if what == "after vacuum":
            fresh.execute("vacuum events")
        middle, high = timed(asking, check, (), rounds)
        print(f"| {what} | {middle:,.0f} ({high:,.0f}) |", flush=True)

    ratios, asked = [], []
    for turn in range(turns):
        rates = {}
        for with_questions in [turn % 2 == 0, turn % 2 == 1]:
            process = pgbench(2, "one", 32, seconds)
            count = 0
            while with_questions and process.poll() is None:
                asking.execute(GapProof.IN_FLIGHT, (key(2),), prepare=True).fetchall()
                count += 1
                time.sleep(0.001)
            rates[with_questions] = result(process)[1]
            if with_questions:
                asked.append(count / seconds)
        ratios.append(rates[True] / rates[False])
    print(f"\nAppends of contender 2, 32 clients, beside a session that asks {statistics.median(asked):,.0f} times a second: "
          f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) of those without.", flush=True)


def part_d(sync_us, rounds, seconds):
    idle = server(sync_us)
    contenders = [1, 2, 4, 9]
    seen = {contender: [] for contender in contenders}
    for turn in range(rounds):
        for contender in contenders[turn % 4 :] + contenders[: turn % 4]:
            with Synchronised() as sync:
                process = pgbench(contender, "hot", 16, seconds)
                out, err = process.communicate()
            if process.returncode:
                sys.exit(out + err)
            rate = float(re.search(r"tps = ([\d.]+)", out)[1])
            count = int(re.search(r"actually processed: (\d+)", out)[1])
            share = re.search(r"failed transactions: \d+ \(([\d.]+)%\)", out)
            seen[contender].append((rate, float(share[1]) if share else 0, sync.count / count, sync.each))
    print(f"\n### One stream, 16 clients, any version; `SYNC_US={sync_us}`, pg_test_fsync before: {idle} µs\n")
    print("| | appended per second (least–most) | calls failed with a conflict | synchronisations per append | µs each (least–most) |\n|---|---|---|---|---|")
    for contender in contenders:
        rate, failed, syncs, each = zip(*seen[contender])
        cells = [f"{statistics.median(rate):,.0f} ({min(rate):,.0f}–{max(rate):,.0f})", f"{statistics.median(failed):.0f} %"]
        cells += [f"{statistics.median(syncs):.2f}", f"{statistics.median(each):,.0f} ({min(each):,.0f}–{max(each):,.0f})"]
        print(f"| {NAMES[contender]} | " + " | ".join(cells) + " |", flush=True)


def main():
    quick = "--quick" in sys.argv
    parts = [part for part in "abcd" if part in sys.argv[1:]] or list("abcd")
    server(0)
    schema()
    version = subprocess.run([f"{BIN}/postgres", "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    print(f"{version}, {os.cpu_count()} cores")
    rounds, seconds = (1, 1) if quick else (int(os.environ.get("ROUNDS", 5)), 2)
    disks = [int(us) for us in os.environ["SYNC_US"].split()]
    if "b" in parts:
        part_b(2 if quick else 6)
    if "c" in parts:
        part_c(200 if quick else 3000, 1 if quick else 5, seconds)
    if "d" in parts:
        for sync_us in disks:
            part_d(sync_us, rounds, seconds)
    if "a" in parts:
        for sync_us in disks:
            part_a(sync_us, rounds, seconds)


main()
