"""The synchronous client of the Python package kurrentdbclient.

`python sync.py esdb://… [part of the name of a case]…`
"""

import asyncio

from kurrentdbclient import KurrentDBClient

import cases_append
import cases_connect
import cases_delete
import cases_groups
import cases_manage
import cases_read
import cases_subscribe
from common import Threaded, run


async def connect(url):
    return Threaded(await asyncio.to_thread(KurrentDBClient, url))


THEMES = [
    cases_connect,
    cases_append,
    cases_read,
    cases_delete,
    cases_subscribe,
    cases_groups,
    cases_manage,
]
asyncio.run(run(connect, THEMES))
