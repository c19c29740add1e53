"""Stores behind Sentinels, in a Cluster and over TLS, on real servers."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from valkeys import (
    LOOPBACK,
    Valkey,
    free_port,
    make_certificate,
    run_cluster_node,
    run_sentinel,
    run_tls,
    run_valkey,
    until,
)

from service.auction.ad import Ad
from service.settings import StoreSettings
from service.store.advertisers import Advertisers
from service.store.catalog import Catalog
from service.store.click_targets import ClickTargets
from service.store.connection import Store, StoreUnavailable, open_store
from service.store.counters import Counters, Served
from service.store.idempotency import Claim, IdempotencyStore, Replay
from service.store.ledger import ChargeRequest, ChargeState, Ledger
from service.store.receipts import Receipts
from service.store.showings import Showings
from service.store.verification import verify

NAMESPACE = "llm-auction"
KEY = f"{{{NAMESPACE}}}:a"
RESPONSE = "resp_" + "0" * 32
AT = datetime(2026, 7, 1, 12, tzinfo=UTC)
MakeAd = Callable[..., Ad]


def settings(url: str, **fields: int) -> StoreSettings:
    return StoreSettings.model_validate({"url": url, "timeout_ms": 2_000, **fields})


@pytest.fixture
async def stack() -> AsyncGenerator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def serve_and_charge(store: Store, ad: Ad) -> None:
    """All that the service does with a store, once around."""
    catalog, ledger = Catalog(store, NAMESPACE), Ledger(store, NAMESPACE)
    receipts, counters = Receipts(store, NAMESPACE, 3_600), Counters(store, NAMESPACE)
    targets, showings = ClickTargets(store, NAMESPACE, 60), Showings(store, NAMESPACE, 60)
    await catalog.import_many([ad])
    assert (await catalog.top_up(ad.ad_id, 1_000_000, "first")) is not None
    assert (await catalog.fetch([ad.ad_id], AT.date(), showings.viewer("u", AT)))[ad.ad_id]
    served = Served(eligible=[ad.ad_id], shown={ad.ad_id: ad.advertiser_id})
    await receipts.save(
        RESPONSE,
        b"{}",
        "u",
        AT,
        lambda pipeline: counters.count(pipeline, AT.date(), served),
        lambda pipeline: showings.command(pipeline, "u", RESPONSE, [ad.ad_id], AT),
        lambda pipeline: targets.write(pipeline, RESPONSE, [ad]),
    )
    target = await targets.find(RESPONSE, ad.ad_id)
    assert target.advertiser_id == ad.advertiser_id
    request = ChargeRequest(
        RESPONSE, ad.ad_id, ad.advertiser_id, "click", 250_000, 250_000, 1, AT, 3_600
    )
    assert (await ledger.charge(request)).state is ChargeState.CHARGED
    assert (await ledger.charge(request)).state is ChargeState.DUPLICATE
    assert (await counters.read(AT.date())).ads[ad.ad_id].clicks == 1
    assert await Advertisers(store, NAMESPACE).page(None, 10) == ((), None)
    found = await verify(store, NAMESPACE)
    assert found.is_sound
    assert found.entries == 1
    assert await receipts.erase_user("u") == 1
    keys = IdempotencyStore(store, NAMESPACE, 60)
    claim = await keys.begin("c", "k", "hash", 1_000)
    assert isinstance(claim, Claim)
    assert await keys.finish(claim, "answer")
    assert await keys.begin("c", "k", "hash", 1_000) == Replay("answer")
    assert await catalog.delete(ad.ad_id)


class TestCluster:
    @pytest.fixture
    async def nodes(self, tmp_path: Path, stack: AsyncExitStack) -> tuple[Valkey, Valkey]:
        """Two nodes that know each other; the first has all slots."""
        first = await run_cluster_node(tmp_path / "first", stack)
        second = await run_cluster_node(tmp_path / "second", stack)
        await first.redis.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
        bus = (await second.redis.config_get("cluster-port"))["cluster-port"]
        await first.redis.execute_command("CLUSTER MEET", LOOPBACK, second.port, bus)

        async def agree() -> bool:
            infos = [await node.redis.execute_command("CLUSTER INFO") for node in (first, second)]
            return all(
                info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "2"
                for info in infos
            )

        await until(agree)
        return first, second

    async def test_does_all_that_one_server_does(
        self, nodes: tuple[Valkey, Valkey], tmp_path: Path, make_ad: MakeAd
    ) -> None:
        # of the node that has no slot, and of one that is not there
        url = f"redis+cluster://{LOOPBACK}:{free_port()},{LOOPBACK}:{nodes[1].port}"
        async with open_store(settings(url), tmp_path, print) as store:
            await serve_and_charge(store, make_ad(budget={"total": 1}))
        assert await nodes[0].redis.execute_command("DBSIZE") > 5

    async def test_follows_its_slot_to_another_node(
        self, nodes: tuple[Valkey, Valkey], tmp_path: Path
    ) -> None:
        first, second = nodes
        url = f"redis+cluster://{LOOPBACK}:{first.port}"
        async with open_store(settings(url), tmp_path, print) as store:
            assert await store.run(lambda redis: redis.exists(KEY)) == 0
            slot = await first.redis.execute_command("CLUSTER KEYSLOT", KEY)
            owner = await second.redis.execute_command("CLUSTER MYID")
            for node in (second, first):
                await node.redis.execute_command("CLUSTER SETSLOT", slot, "NODE", owner)
            await until(lambda: store.run(lambda redis: redis.set(KEY, "b")), within_s=5)
            assert store.is_up
        assert await second.redis.get(KEY) == "b"

    async def test_a_server_alone_is_no_cluster(
        self, tmp_path: Path, stack: AsyncExitStack
    ) -> None:
        server = await stack.enter_async_context(run_valkey(tmp_path / "alone"))
        said: list[str] = []
        url = f"redis+cluster://:secret@{LOOPBACK}:{server.port}"
        async with open_store(settings(url), tmp_path, said.append) as store:
            with pytest.raises(StoreUnavailable):
                await store.ping()
        assert said == [
            f"the ad store at {LOOPBACK}:{server.port} does not answer: no ads until it does"
        ]


class TestSentinel:
    @pytest.fixture
    async def primary(self, tmp_path: Path, stack: AsyncExitStack) -> Valkey:
        return await stack.enter_async_context(run_valkey(tmp_path / "primary"))

    async def test_does_all_that_one_server_does(
        self, primary: Valkey, tmp_path: Path, stack: AsyncExitStack, make_ad: MakeAd
    ) -> None:
        sentinel = await run_sentinel(primary.port, tmp_path / "sentinel", stack)
        # of two Sentinels, the first is not there
        url = f"redis+sentinel://{LOOPBACK}:{free_port()},{LOOPBACK}:{sentinel.port}/shop/3"
        async with open_store(settings(url), tmp_path, print) as store:
            await serve_and_charge(store, make_ad(budget={"total": 1}))
        assert set(await primary.redis.info("keyspace")) == {"db3"}

    async def test_goes_to_the_replica_that_takes_over(
        self, primary: Valkey, tmp_path: Path, stack: AsyncExitStack
    ) -> None:
        replica = await stack.enter_async_context(
            run_valkey(tmp_path / "replica", replicaof=f"{LOOPBACK} {primary.port}")
        )

        await primary.redis.set("key", "kept")
        await until(lambda: primary.redis.wait(1, 100))
        sentinel = await run_sentinel(primary.port, tmp_path / "sentinel", stack)

        async def is_known() -> bool:
            return bool((await sentinel.redis.sentinel_master("shop"))["num-slaves"])

        await until(is_known)
        url = f"redis+sentinel://{LOOPBACK}:{sentinel.port}/shop"
        fast = settings(url, breaker_cooldown_ms=50)
        async with open_store(fast, tmp_path, print) as store:
            assert await store.run(lambda redis: redis.get("key")) == b"kept"
            await primary.kill()
            await until(lambda: store.run(lambda redis: redis.set("key", "new")))
        assert await replica.redis.get("key") == "new"

    async def test_who_does_not_know_the_service_is_no_store(
        self, primary: Valkey, tmp_path: Path, stack: AsyncExitStack
    ) -> None:
        sentinel = await run_sentinel(primary.port, tmp_path / "sentinel", stack)
        url = f"redis+sentinel://{LOOPBACK}:{sentinel.port}/elsewhere"
        async with open_store(settings(url), tmp_path, print) as store:
            with pytest.raises(StoreUnavailable):
                await store.ping()


class TestTls:
    @pytest.fixture
    def ca(self, tmp_path: Path) -> Path:
        return make_certificate(tmp_path / "certificate.pem")

    async def test_with_a_password_and_a_ca(
        self, ca: Path, tmp_path: Path, stack: AsyncExitStack
    ) -> None:
        server = await stack.enter_async_context(
            run_valkey(tmp_path / "server", requirepass="pass word")
        )
        port = await stack.enter_async_context(run_tls(server.port, ca))
        place = f"rediss://:pass%20word@{LOOPBACK}:{port}/1"
        async with open_store(settings(f"{place}?ssl_ca_certs={ca}"), tmp_path, print) as store:
            assert await store.run(lambda redis: redis.set("key", "kept"))
        assert set(await server.redis.info("keyspace")) == {"db1"}
        for refused in (place, f"rediss://:wrong@{LOOPBACK}:{port}?ssl_ca_certs={ca}"):
            async with open_store(settings(refused), tmp_path, print) as store:
                with pytest.raises(StoreUnavailable):
                    await store.ping()

    async def test_in_a_cluster(self, ca: Path, tmp_path: Path, stack: AsyncExitStack) -> None:
        node = await run_cluster_node(tmp_path / "node", stack)
        port = await stack.enter_async_context(run_tls(node.port, ca))
        await node.redis.config_set("cluster-announce-client-port", str(port))
        await node.redis.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
        url = f"rediss+cluster://{LOOPBACK}:{port}?ssl_ca_certs={ca}"
        async with open_store(settings(url), tmp_path, print) as store:
            await until(lambda: store.run(lambda redis: redis.set(KEY, "kept")))
        assert await node.redis.get(KEY) == "kept"

    async def test_behind_a_sentinel(self, ca: Path, tmp_path: Path, stack: AsyncExitStack) -> None:
        server = await stack.enter_async_context(run_valkey(tmp_path / "server"))
        tls_port = await stack.enter_async_context(run_tls(server.port, ca))
        sentinel = await run_sentinel(
            tls_port, tmp_path / "sentinel", stack, down_after_ms=60_000, requirepass="knock"
        )
        port = await stack.enter_async_context(run_tls(sentinel.port, ca))
        url = f"rediss+sentinel://{LOOPBACK}:{port}/shop?ssl_ca_certs={ca}"
        async with open_store(settings(url), tmp_path, print) as store:
            with pytest.raises(StoreUnavailable):
                await store.ping()
        url += "&sentinel_password=knock"
        async with open_store(settings(url), tmp_path, print) as store:
            assert await store.run(lambda redis: redis.set(KEY, "kept"))
        assert await server.redis.get(KEY) == "kept"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs /nowhere/ca.pem is not a file"),
        ("colour=red", "colour"),
        ("db=one", "db"),
        ("max_connections=5", "max_connections is always"),
    ],
)
@pytest.mark.parametrize("url", ["rediss://h", "rediss+cluster://h", "rediss+sentinel://h/shop"])
async def test_a_wrong_option_is_told_before_anything_is_sent(
    url: str, options: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        async with open_store(settings(f"{url}?{options}"), tmp_path, print):
            pass
