"""Addresses of stores: what is understood, and what is told of the rest."""

import pytest

from service.settings import SettingsError, load_settings
from service.store_url import Host, StoreKind, StoreUrl


@pytest.mark.parametrize(
    ("url", "server_url", "hosts"),
    [
        ("redis://h", "redis://h", (Host("h", 6379),)),
        ("rediss://u:p@h:1/2?a=b", "rediss://u:p@h:1/2?a=b", (Host("h", 1),)),
        ("redis://[::1]:7/0", "redis://[::1]:7/0", (Host("::1", 7),)),
        ("unix:///run/valkey.sock?db=1", "unix:///run/valkey.sock?db=1", ()),
    ],
)
def test_one_server(url: str, server_url: str, hosts: tuple[Host, ...]) -> None:
    assert StoreUrl.parse(url) == StoreUrl(StoreKind.SERVER, server_url, hosts)


def test_sentinels() -> None:
    url = (
        "rediss+sentinel://u:p%40@s1,s2:5/my%20master/3"
        "?ssl_ca_certs=/ca.pem&sentinel_username=a&sentinel_password=b"
    )
    found = StoreUrl.parse(url)
    assert found == StoreUrl(
        StoreKind.SENTINEL,
        "rediss://u:p%40@s1:26379/3?ssl_ca_certs=%2Fca.pem",
        (Host("s1", 26379), Host("s2", 5)),
        service="my master",
        sentinel_login=(("username", "a"), ("password", "b")),
    )
    assert str(found) == "my master of s1:26379, s2:5"


def test_a_cluster() -> None:
    found = StoreUrl.parse("redis+cluster://:secret@n1:1,[fe80::1]:2,n3?sentinel_password=x")
    assert found.kind is StoreKind.CLUSTER
    assert found.server_url == "redis://:secret@n1:1/0?sentinel_password=x"
    assert found.hosts == (Host("n1", 1), Host("fe80::1", 2), Host("n3", 6379))
    assert str(found) == "n1:1, [fe80::1]:2, n3:6379"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgres://h/", "redis://"),
        ("redis+proxy://h", "redis://"),
        ("h:6379", "redis://"),
        ("unix://", "path of a socket"),
        ("redis://", "no host"),
        ("redis://:secret@h:x", "'h:x' is no host"),
        ("redis://:secret@h:70000", "'h:70000' is no host"),
        ("redis://:secret@h1,h2", "several hosts"),
        ("redis+sentinel://h1,,h2/m", "'' is no host"),
        ("redis+sentinel://:secret@h", "service's name"),
        ("redis+sentinel://h/m/one", "service's name"),
        ("redis+sentinel://h/m/1/2", "service's name"),
        ("redis+cluster://:secret@h/1", "database 0"),
    ],
)
def test_what_is_wrong_is_told_at_the_start_without_the_password(url: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as wrong:
        load_settings({"store": {"url": url}})
    assert "store.url" in str(wrong.value)
    assert "secret" not in str(wrong.value)
