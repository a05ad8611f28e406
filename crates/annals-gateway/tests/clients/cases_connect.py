"""Connections: one node, found by its address or by gossip."""

from kurrentdbclient.exceptions import FollowerNotFoundError, GrpcError

from common import NO_STREAM, connected, equal, event, ids, name, raises


async def one_node_that_leads(client):
    # The asynchronous client cannot read gossip.
    if not hasattr(client, "inner"):
        return
    members = await client.read_gossip()
    equal([it.state for it in members], ["NODE_STATE_LEADER"])
    equal([f"{it.address}:{it.port}" for it in members], [client.connection_target])


async def found_by_gossip(client):
    address, stream, one = client.connection_target, name(), event()
    for preference in ("leader", "random"):
        options = f"tls=false&nodePreference={preference}"
        other = await connected(f"esdb://{address},{address}?{options}")
        equal(other.connection_target, address)
        await other.append_to_stream(stream, current_version=NO_STREAM, events=one)
        equal(ids(await other.get_stream(stream)), [one.id])
        await other.close()


async def there_is_no_follower(client):
    address = client.connection_target
    options = "tls=false&nodePreference=follower&maxDiscoverAttempts=1"
    with raises(FollowerNotFoundError):
        await connected(f"esdb://{address},{address}?{options}")


async def what_is_not_served(client):
    """A call that the gateway does not serve is refused, and the connection stays usable."""
    with raises(GrpcError) as raised:
        await client.create_projection(name="mine", query="fromAll()")
    equal("UNIMPLEMENTED" in str(raised.error), True)
    await client.append_to_stream(name(), current_version=NO_STREAM, events=event())


async def system_projections_are_running(client):
    await client.enable_projection("$by_category")
    found = await client.list_continuous_projection_statistics()
    equal({(one.name, one.status) for one in found} >= {("$by_category", "Running")}, True)


CASES = [one_node_that_leads, found_by_gossip, there_is_no_follower, what_is_not_served, system_projections_are_running]
