"""A Redis client that goes straight to its connections.

redis-py's own looks after retries, listeners and telemetry at each command, which nobody here asks
for, writes commands in Python, and waits for and looks at every reply by itself. That takes this
process three times as long as the rest. Its connections are used as they are: their logins, TLS,
ways to a server, and what they make of a refusal.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import hiredis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

_MULTI, _EXEC = ("MULTI",), ("EXEC",)
_MORE = object()


class DirectPool(ConnectionPool):
    """Part of a pool: its connections have `exchange`, and come back without ceremony."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        kind = self.connection_class
        self.connection_class = type(kind.__name__, (_Exchanging, kind), {})

    def put_back(self, connection: AbstractConnection) -> None:
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)


class DirectSentinelPool(DirectPool, SentinelConnectionPool):
    """The same for what Sentinels name."""


class DirectRedis(Redis):
    """A client of a `DirectPool`."""

    connection_pool: DirectPool

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        (reply,) = await _replies(self.connection_pool, [args])
        return _read(reply, self.response_callbacks.get(args[0]), options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _DirectPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class _DirectPipeline(Pipeline):
    """Commands that travel together, in a transaction where that is asked; none is watched."""

    connection_pool: DirectPool

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack, self.command_stack = self.command_stack, []
        if not stack:
            return []
        commands = [args for args, _ in stack]
        if self.is_transaction:
            replies = (await _replies(self.connection_pool, [_MULTI, *commands, _EXEC]))[-1]
        else:
            replies = await _replies(self.connection_pool, commands)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        callbacks = self.response_callbacks
        return [
            _read(reply, callbacks.get(args[0]), options)
            for reply, (args, options) in zip(replies, stack, strict=True)
        ]


async def _replies(pool: DirectPool, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """What the server says to `commands`, in their order. Raises RedisError at the first refusal;
    one inside of a transaction is among the replies."""
    packed = b"".join([_packed(command) for command in commands])
    connection = pool.get_available_connection()
    try:
        replies: list[Any] = await connection.exchange(
            packed, len(commands), pool.ensure_connection
        )
        return replies
    except BaseException:  # there may be replies to come, which the next must not take for its own
        await connection.disconnect(nowait=True)
        raise
    finally:
        pool.put_back(connection)


class _Exchanging(AbstractConnection):
    """Part of a connection: all replies of an exchange are read as they come, and waited for
    once."""

    _wire: "_Wire | None" = None
    _refusal: RedisError | None = None

    async def exchange(
        self,
        packed: bytes,
        count: int,
        connect: Callable[[AbstractConnection], Awaitable[None]],
    ) -> list[Any]:
        """The `count` replies to the commands in `packed`. Raises RedisError at a refusal."""
        wire = self._wire
        if wire is None or wire.is_lost or self._writer is None:
            await connect(self)
            assert self._writer is not None
            wire = self._wire = _Wire(self._writer.transport, self._parser.parse_error)
        replies = await wire.exchange(packed, count)
        for reply in replies:
            if isinstance(reply, RedisError):
                self._refusal = reply
                await self.read_response()
        return replies

    async def _read_response_from_parser(self, *args: Any, **options: Any) -> Any:
        """A refusal goes the way of redis-py's responses: each kind of connection has its own."""
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal
        return await super()._read_response_from_parser(*args, **options)


class _Wire(asyncio.Protocol):
    """Takes what a connection receives, once it is made; all else goes on to its own protocol."""

    def __init__(self, transport: Any, as_error: Callable[[str], Exception]) -> None:
        self.is_lost = False
        self._transport = transport
        self._protocol = transport.get_protocol()
        self._reader = hiredis.Reader(replyError=as_error, notEnoughData=_MORE)
        self._replies: list[Any] = []
        self._awaited = 0
        self._done: asyncio.Future[list[Any]] | None = None
        transport.set_protocol(self)

    async def exchange(self, packed: bytes, count: int) -> list[Any]:
        if self._reader.has_data():
            raise RedisConnectionError("the server said more than it was asked")
        self._replies, self._awaited = [], count
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(packed)
        return await self._done

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        replies, reader = self._replies, self._reader
        while len(replies) < self._awaited and (reply := reader.gets()) is not _MORE:
            replies.append(reply)
        if len(replies) == self._awaited and self._done is not None and not self._done.done():
            self._done.set_result(replies)

    def eof_received(self) -> bool:
        self._lose()
        return bool(self._protocol.eof_received())

    def connection_lost(self, error: Exception | None) -> None:
        self._lose()
        self._protocol.connection_lost(error)

    def _lose(self) -> None:
        self.is_lost = True
        if self._done is not None and not self._done.done():
            self._done.set_exception(RedisConnectionError("the server closed the connection"))

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


def _packed(command: tuple[Any, ...]) -> bytes:
    name, *arguments = command
    packed: bytes = hiredis.pack_command((*name.split(), *arguments))  # as in CONFIG GET
    return packed


def _read(reply: Any, callback: Callable[..., Any] | None, options: Mapping[str, Any]) -> Any:
    """`reply` as the client's method for the command gives it."""
    if callback is None:
        return reply
    return callback(reply, **{name: given for name, given in options.items() if name != "keys"})
