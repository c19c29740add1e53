"""Where the store is: one address that covers a single server, Sentinels and a Cluster.

Pure, and checked at start with the other settings. An address is one of

    redis://[user:password@]host[:6379][/db]
    unix:///path/to/socket
    redis+sentinel://[user:password@]host[:26379][,host…]/service[/db]
    redis+cluster://[user:password@]host[:6379][,host…]

with `rediss` for TLS. Options of redis-py follow as a query, for example
`?ssl_ca_certs=/etc/ssl/ca.pem`; user and password are the servers', and
`?sentinel_username=…&sentinel_password=…` those of the Sentinels.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

_SENTINEL_OPTIONS = {"sentinel_username": "username", "sentinel_password": "password"}


class StoreUrlError(ValueError):
    """The address, or an option in it, is wrong; the message holds no password."""


class StoreKind(StrEnum):
    """Who knows which server to ask."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Host:
    """One server of several."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """An address, taken apart.

    server_url: user, password, database, TLS and options as `redis://`, `rediss://` or `unix://`,
    at the first host. hosts: all that were named, none for a socket. service: what the Sentinels
    call the servers, "" elsewhere. sentinel_login: `username` and `password` where given.
    """

    kind: StoreKind
    server_url: str
    hosts: tuple[Host, ...]
    service: str = ""
    sentinel_login: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take `url` apart. Raises StoreUrlError that says what is wrong, without the password."""
        parts = urlsplit(url)
        protocol, _, topology = parts.scheme.partition("+")
        if parts.scheme == "unix":
            if not parts.path:
                raise StoreUrlError(
                    "unix:// needs the path of a socket, like unix:///run/valkey.sock"
                )
            return cls(StoreKind.SERVER, url, ())
        if protocol not in {"redis", "rediss"} or topology not in {"", "sentinel", "cluster"}:
            raise StoreUrlError(
                "must begin with redis://, redis+sentinel:// or redis+cluster:// (rediss for TLS),"
                " or unix://"
            )
        kind = StoreKind(topology or "server")
        hosts = _hosts(parts, 26379 if kind is StoreKind.SENTINEL else 6379)
        if kind is StoreKind.SERVER:
            if len(hosts) > 1:
                raise StoreUrlError(
                    "names several hosts: say redis+sentinel:// or redis+cluster://"
                )
            return cls(kind, url, hosts)
        service, database = _path(parts.path, kind)
        options, login = _options(parts.query, kind)
        credentials, at, _ = parts.netloc.rpartition("@")
        netloc = f"{credentials}{at}{hosts[0]}"
        server = urlunsplit((protocol, netloc, f"/{database}", options, ""))
        return cls(kind, server, hosts, service, login)

    def __str__(self) -> str:
        """Where it points, without user and password."""
        if not self.hosts:
            return urlsplit(self.server_url).path
        places = ", ".join(map(str, self.hosts))
        return f"{self.service} of {places}" if self.service else places


def _hosts(parts: SplitResult, default_port: int) -> tuple[Host, ...]:
    return tuple(_host(text, default_port) for text in parts.netloc.rpartition("@")[2].split(","))


def _host(text: str, default_port: int) -> Host:
    try:
        parts = urlsplit(f"//{text}")
        name, port = parts.hostname, parts.port
    except ValueError as wrong:
        raise StoreUrlError(f"{text!r} is no host or host:port ({wrong})") from wrong
    if not name or port == 0:
        raise StoreUrlError(f"{text!r} is no host or host:port")
    return Host(name, port or default_port)


def _path(path: str, kind: StoreKind) -> tuple[str, str]:
    """Service name and database of a path."""
    names = [unquote(part) for part in path.split("/") if part]
    if kind is StoreKind.CLUSTER:
        if names not in ([], ["0"]):
            raise StoreUrlError(f"a Cluster has the database 0 alone, not {path}")
        return "", "0"
    if len(names) not in {1, 2} or not (names[1:] or ["0"])[0].isdecimal():
        raise StoreUrlError(
            "needs the service's name and perhaps a database: …host:26379/mymaster/0"
        )
    return names[0], (names[1:] or ["0"])[0]


def _options(query: str, kind: StoreKind) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The servers' options as a query, and the Sentinels' login."""
    options = parse_qsl(query, keep_blank_values=True)
    is_sentinel = kind is StoreKind.SENTINEL
    login = [
        (_SENTINEL_OPTIONS[n], v) for n, v in options if is_sentinel and n in _SENTINEL_OPTIONS
    ]
    rest = [(n, v) for n, v in options if not is_sentinel or n not in _SENTINEL_OPTIONS]
    return urlencode(rest), tuple(login)
