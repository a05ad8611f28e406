"""The asynchronous client of the Python package kurrentdbclient.

`python aio.py esdb://… [part of the name of a case]…`
"""

import asyncio

from kurrentdbclient import AsyncKurrentDBClient

import cases_append
import cases_connect
import cases_delete
import cases_groups
import cases_manage
import cases_read
import cases_subscribe
from common import run


async def connect(url):
    client = AsyncKurrentDBClient(url)
    await client.connect()
    return client


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
