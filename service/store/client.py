"""A Redis client for every kind of address: one server, Sentinels, a Cluster.

All of a deployment's keys share one hash slot, so in a Cluster, too, one server at a time has all
of them. The client is therefore the plain one in each case, with transactions and scripts, and what
differs is where its connections go: to the address, to the server that the Sentinels call the
primary, or to the one that serves the slot. Which that is, is asked whenever a connection is made,
and connections that turn out to lead elsewhere are closed. (redis-py's own RedisCluster would send
each command of a transaction from a thread and an event loop of its own.)
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
from redis.asyncio import ConnectionPool, Redis, Sentinel
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, RedisClusterException, RedisError

from service.store_url import StoreKind, StoreUrl, StoreUrlError

MAX_COMMANDS = 128
"""At once; a further one would be an error."""

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
Options = dict[str, Any]


@asynccontextmanager
async def open_client(url: StoreUrl, timeout_s: float, key: str) -> AsyncGenerator[Redis]:
    """A client that never retries by itself, with a connection for each of the commands at once.

    Commands are not bounded in time here, but by whoever awaits them (asyncio.timeout): bounding
    each read and write costs more than they do. timeout_s: that time; `MAX_COMMANDS` at once are
    the most. key: any of the keys that will be used, which must share their hash slot. Connects at
    the first command. Raises StoreUrlError for an option that is unknown or wrong.
    """
    async with AsyncExitStack() as stack:
        try:
            options = _options(url, timeout_s)
            pool = _pool(url, options, timeout_s, key, stack)
            pool.connection_class = _packing_in_c(pool.connection_class)
            pool.make_connection()  # not kept: options are checked when one is made
        except (TypeError, ValueError, RedisError) as wrong:
            raise StoreUrlError(f"an option of the store's address is wrong: {wrong}") from wrong
        redis = Redis.from_pool(pool)
        stack.push_async_callback(redis.aclose)
        yield redis


def _options(url: StoreUrl, timeout_s: float) -> Options:
    """How every connection is made; what the address says comes last."""
    asked = parse_url(url.server_url)
    if "max_connections" in asked:
        raise ValueError(f"max_connections is always {MAX_COMMANDS}")
    options: Options = {
        "max_connections": MAX_COMMANDS,
        "socket_timeout": None,
        "socket_connect_timeout": timeout_s,
        "retry": _no_retry(),
        "protocol": 2,
        **asked,
    }
    for name in _FILES:
        if name in options and not Path(options[name]).is_file():
            raise ValueError(f"{name} {options[name]} is not a file")
    return options


def _packing_in_c(connection: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same kind of connection, but commands are written by hiredis.

    redis-py only reads by it where asyncio is used; a charge has 27 arguments, and writing them in
    Python takes longer than the charge.
    """

    def pack_command(self: AbstractConnection, *args: Any) -> list[bytes]:
        name, *arguments = args
        return [hiredis.pack_command((*name.split(), *arguments))]  # as in CONFIG GET

    return type(connection.__name__, (connection,), {"pack_command": pack_command})


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def _pool(
    url: StoreUrl, options: Options, timeout_s: float, key: str, stack: AsyncExitStack
) -> ConnectionPool:
    if url.kind is StoreKind.SENTINEL:
        return _sentinel_pool(url, options, timeout_s, stack)
    if url.kind is StoreKind.CLUSTER:
        return _cluster_pool(url, options, timeout_s, key, stack)
    return ConnectionPool(**options)


def _sentinel_pool(
    url: StoreUrl, options: Options, timeout_s: float, stack: AsyncExitStack
) -> ConnectionPool:
    is_tls = _take_server(options)
    # one Sentinel that does not answer must leave time for the next, and for the primary
    share_s = timeout_s / (len(url.hosts) + 1)
    sentinel = Sentinel(
        [(host.name, host.port) for host in url.hosts],
        sentinel_kwargs={
            **{name: value for name, value in options.items() if name.startswith("ssl_")},
            **dict(url.sentinel_login),
            "ssl": is_tls,
            "socket_timeout": share_s,
            "socket_connect_timeout": share_s,
            "retry": _no_retry(),
        },
    )
    stack.push_async_callback(sentinel.aclose)
    return SentinelConnectionPool(url.service, sentinel, ssl=is_tls, **options)


def _cluster_pool(
    url: StoreUrl, options: Options, timeout_s: float, key: str, stack: AsyncExitStack
) -> ConnectionPool:
    is_tls = _take_server(options)
    timeouts = {"socket_timeout": timeout_s / 2, "socket_connect_timeout": timeout_s / 2}
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(host.name, host.port) for host in url.hosts],
        ssl=is_tls,
        **{**options, **timeouts},
    )
    stack.push_async_callback(cluster.aclose)
    return ConnectionPool(
        connection_class=_SlotSSLConnection if is_tls else _SlotConnection,
        slot=_Slot(cluster, key),
        **options,
    )


def _take_server(options: Options) -> bool:
    """Take the first host out of `options`, as others may be asked; whether to use TLS."""
    for name in ("host", "port"):
        options.pop(name, None)
    return options.pop("connection_class", None) is SSLConnection


class _Slot:
    """Which server of a Cluster serves a key's slot."""

    def __init__(self, cluster: RedisCluster, key: str) -> None:
        self._cluster = cluster
        self._key = key

    async def find(self) -> tuple[str, int]:
        """Host and port, as they are remembered or else asked for."""
        try:
            await self._cluster.initialize()
            node = self._cluster.get_node_from_key(self._key)
        except RedisClusterException as away:
            raise RedisConnectionError(str(away)) from away
        assert node is not None  # only replicas may be missing
        return node.host, int(node.port)

    async def forget(self) -> None:
        """Ask again next time."""
        await self._cluster.aclose()


class _SlotConnection(Connection):
    """A connection to the server of a slot, wherever that is when it connects."""

    def __init__(self, *, slot: _Slot, **options: Any) -> None:
        super().__init__(**options)
        self._slot = slot

    async def connect(self) -> None:
        if self.is_connected:
            return
        self.host, self.port = await self._slot.find()
        try:
            await super().connect()
        except BaseException:  # a time-out cancels: also then the server may be gone
            await self._slot.forget()
            raise

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except MovedError as moved:
            await self.disconnect()
            await self._slot.forget()
            raise RedisConnectionError("the slot has moved to another server") from moved


class _SlotSSLConnection(_SlotConnection, SSLConnection):
    """The same over TLS."""
