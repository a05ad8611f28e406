"""What the cases of both Python clients share: names, events, deadlines, and running the cases."""

import asyncio
import json
import os
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from uuid import uuid4

from kurrentdbclient import NewEvent, RecordedEvent, StreamState

ANY, NO_STREAM, EXISTS = StreamState.ANY, StreamState.NO_STREAM, StreamState.EXISTS
JSON, BINARY = "application/json", "application/octet-stream"

# How long a case waits for something that must happen, and how long it may take, in seconds.
PATIENCE = 20
CASE = 90

# The names that the running case uses, for the report if it fails.
_taken = []


def name(prefix="order"):
    """A name for a stream, a category, a type or a group that no other case uses."""
    taken = f"{prefix}-{uuid4().hex}"
    _taken.append(taken)
    return taken


def event(type="OrderPlaced", data=None, **more):
    return NewEvent(
        type=type, data=json.dumps({"id": str(uuid4())}).encode() if data is None else data, **more
    )


def events(count, **more):
    return [event(**more) for _ in range(count)]


def ids(items):
    return [item.id for item in items]


def equal(found, expected, what="it"):
    if found != expected:
        raise AssertionError(f"{what} is {found!r}, not {expected!r}")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


class Raised:
    error = None


@contextmanager
def raises(kind, **fields):
    """Fails unless exactly this exception is raised, with these fields."""
    raised = Raised()
    try:
        yield raised
    except Exception as error:
        if type(error) is not kind:
            raise AssertionError(
                f"{type(error).__name__} was raised, not {kind.__name__}: {error}"
            ) from error
        for field, expected in fields.items():
            equal(getattr(error, field), expected, f"{kind.__name__}.{field}")
        raised.error = error
        return
    raise AssertionError(f"{kind.__name__} was not raised")


async def next_of(subscription):
    try:
        return await asyncio.wait_for(anext(subscription), PATIENCE)
    except asyncio.TimeoutError:
        raise AssertionError(f"nothing came in {PATIENCE} seconds") from None


async def take(subscription, count):
    return [await next_of(subscription) for _ in range(count)]


async def take_until(subscription, wanted):
    """The items up to the first one that matches."""
    items, end = [], time.monotonic() + PATIENCE
    while True:
        items.append(await next_of(subscription))
        if wanted(items[-1]):
            return items
        check(time.monotonic() < end, f"what was waited for did not come among {len(items)} items")


async def until(probe, what):
    """Waits until the probe returns a true value. Each attempt is a call to the server."""
    end = time.monotonic() + PATIENCE
    while not (found := await probe()):
        check(time.monotonic() < end, f"in {PATIENCE} seconds not: {what}")
    return found


@asynccontextmanager
async def stopping(subscription):
    """Stops the subscription after the block."""
    subscription = await subscription
    try:
        yield subscription
    finally:
        await asyncio.wait_for(subscription.stop(), PATIENCE)


def is_event(item):
    return type(item) is RecordedEvent


class Threaded:
    """Wraps the synchronous client or one of its subscriptions for asynchronous cases: each call
    runs in a thread."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, method):
        found = getattr(self.inner, method)
        if not callable(found):
            return found

        async def call(*arguments, **more):
            answer = await asyncio.to_thread(found, *arguments, **more)
            return Threaded(answer) if hasattr(answer, "__next__") else answer

        return call

    def __aiter__(self):
        return self

    async def __anext__(self):
        # A future cannot hold StopIteration, so it cannot leave a thread.
        item = await asyncio.to_thread(next, self.inner, Threaded)
        if item is Threaded:
            raise StopAsyncIteration
        return item


# Connects a client of the tested kind.
_connect = []


async def connected(url):
    """Another client of the tested kind."""
    return await _connect[0](url)


async def run(connect, themes):
    """Runs the cases of the themes: all, or those whose names contain one of the arguments."""
    # A call that waits for an event occupies a thread.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
    url, only = sys.argv[1], sys.argv[2:]
    _connect.append(connect)
    client = await connected(url)
    passed = failed = 0
    for theme in themes:
        for case in theme.CASES:
            label = f"{theme.__name__.removeprefix('cases_')}::{case.__name__}"
            if only and not any(part in label for part in only):
                continue
            _taken.clear()
            try:
                await asyncio.wait_for(case(client), CASE)
            except Exception as error:
                failed += 1
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                print(
                    f"FAILED {label}: {why}\n  with {', '.join(_taken)}\n{traceback.format_exc()}",
                    flush=True,
                )
            else:
                passed += 1
                print(f"ok {label}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    # Exit without waiting for threads that still wait for an event.
    os._exit(1 if failed or not passed else 0)
