"""Tailing readers, one for each way to order events."""

import time

PAGE = 1000
COLUMNS = "position, stream, version"


class Reader:
    """Remembers the greatest position seen. Safe only if positions appear in their order."""

    def __init__(self, connection, key):
        self.connection = connection
        self.key = key
        self.questions = 0
        self.last = self.value("select coalesce(max(position), 0) from events")

    def value(self, query, *arguments):
        return self.connection.execute(query, arguments).fetchone()[0]

    def rows(self):
        query = f"select {COLUMNS} from events where position > %s order by position limit {PAGE}"
        return self.connection.execute(query, (self.last,)).fetchall()

    def poll(self):
        """The next events, and whether there are committed events that may not be returned yet."""
        rows = self.rows()
        if rows:
            self.last = rows[-1][0]
        return rows, False


class Sequenced(Reader):
    """Contender 7: like the class above, but events wait in another table."""

    def poll(self):
        rows, _ = super().poll()
        return rows, not rows and self.value("select exists (select from pending)")


class GapProof(Reader):
    """At a gap, asks which appends are in flight, and passes the gap when those have ended."""

    IN_FLIGHT = """select distinct virtualtransaction from pg_locks
        where locktype = 'advisory' and classid = %s and granted
        and database = (select oid from pg_database where datname = current_database())"""

    def __init__(self, connection, key):
        super().__init__(connection, key)
        self.settled = self.last
        self.awaited = None

    def in_flight(self):
        self.questions += 1
        return {row[0] for row in self.connection.execute(self.IN_FLIGHT, (self.key,))}

    def contiguous(self, rows):
        """How many of these events may be returned."""
        ready = 0
        for position, _, _ in rows:
            if position != self.last + 1 and position > self.settled:
                break
            self.last = position
            ready += 1
        return ready

    def poll(self):
        rows = self.rows()
        ready = self.contiguous(rows)
        if ready == len(rows):
            self.awaited = None
        elif ready == 0 and self.awaited is not None:
            self.awaited &= self.in_flight()
            if not self.awaited:
                # Every event at or below `asked` that will ever appear is visible to the next statement.
                self.settled, self.awaited = self.asked, None
                rows = self.rows()
                ready = self.contiguous(rows)
        if ready < len(rows) and (self.awaited is None or self.last >= self.asked):
            self.asked = rows[-1][0]
            self.awaited = self.in_flight()
        return rows[:ready], ready < len(rows)


class TableLock(GapProof):
    """The same, by the lock that every insert takes on its table anyway."""

    IN_FLIGHT = """select distinct virtualtransaction from pg_locks
        where locktype = 'relation' and relation = 'events'::regclass and mode = 'RowExclusiveLock' and granted
        and database = (select oid from pg_database where datname = current_database()) and %s > 0"""


class Xid(Reader):
    """Contender 6: events below every running transaction, in the order of (xid, position)."""

    def __init__(self, connection, key):
        super().__init__(connection, key)
        self.xid = self.value("select coalesce(max(xid), '0'::xid8)::text from events")

    def poll(self):
        query = f"""select {COLUMNS}, xid::text from events
            where (xid, position) > (%s::xid8, %s) and xid < pg_snapshot_xmin(pg_current_snapshot())
            order by xid, position limit {PAGE}"""
        rows = self.connection.execute(query, (self.xid, self.last)).fetchall()
        if rows:
            self.last, self.xid = rows[-1][0], rows[-1][3]
            return [row[:3] for row in rows], False
        query = "select exists (select from events where (xid, position) > (%s::xid8, %s))"
        return [], self.value(query, self.xid, self.last)


READERS = {1: Reader, 2: GapProof, 3: GapProof, 4: Reader, 5: Reader, 6: Xid, 7: Sequenced, 8: TableLock, 9: TableLock}


class Tail:
    """Reads until the writers are done and no event is left."""

    def __init__(self, contender, connection, key):
        self.reader = READERS[contender](connection, key)
        self.seen = set()
        self.again = 0
        self.late = 0
        self.versions_late = 0
        self.stall = 0.0
        self.done = False

    def run(self):
        greatest, versions = 0, {}
        progress = time.monotonic()
        while True:
            finishing = self.done
            events, unseen = self.reader.poll()
            now = time.monotonic()
            for position, stream, version in events:
                self.again += position in self.seen
                self.seen.add(position)
                self.late += position < greatest
                greatest = max(greatest, position)
                self.versions_late += version < versions.get(stream, -1)
                versions[stream] = max(version, versions.get(stream, -1))
            if events or not unseen:
                progress = now
            else:
                self.stall = max(self.stall, now - progress)
            if finishing and not events and not unseen:
                return
            if not events:
                time.sleep(0.001)
