import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from service.settings import StoreSettings
from service.store import embedded
from service.store.connection import Store, StoreUnavailable, open_store
from service.store.embedded import EmbeddedError, run_embedded

Eventually = Callable[..., Awaitable[None]]
ValkeyPid = Callable[[Store], Awaitable[int]]
SETTINGS = StoreSettings(timeout_ms=5_000, breaker_cooldown_ms=50)

# A service in short: opens the store, writes, says so, and waits to be killed.
SERVICE = """
import asyncio, sys
from pathlib import Path
from service.settings import StoreSettings
from service.store.connection import open_store

async def main():
    settings = StoreSettings(timeout_ms=5_000)
    async with open_store(settings, Path(sys.argv[1]), lambda line: None) as store:
        await store.run(lambda redis: redis.set("key", "kept"))
        print((await store.run(lambda redis: redis.info("server")))["process_id"], flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def get(store: Store, key: str) -> bytes | str | None:
    return await store.run(lambda redis: redis.get(key))


async def put(store: Store, key: str, value: str) -> None:
    await store.run(lambda redis: redis.set(key, value))


async def test_data_outlives_a_restart(tmp_path: Path) -> None:
    async with open_store(SETTINGS, tmp_path, print) as store:
        await put(store, "key", "kept")
    async with open_store(SETTINGS, tmp_path, print) as store:
        assert await get(store, "key") == b"kept"


async def test_nobody_else_can_connect(tmp_path: Path) -> None:
    async with open_store(SETTINGS, tmp_path, print) as store:
        listening = await store.run(lambda redis: redis.config_get("port"))
        assert listening == {"port": "0"}
        mode = (tmp_path / "valkey" / "valkey.sock").stat().st_mode
        assert stat.S_IMODE(mode) == 0o700


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_writes_are_appended_to_a_file(tmp_path: Path, fsync: str) -> None:
    settings = StoreSettings.model_validate({"timeout_ms": 5_000, "fsync": fsync})
    async with open_store(settings, tmp_path, print) as store:
        found = await store.run(lambda redis: redis.config_get("append*"))
        assert found["appendonly"] == "yes"
        assert found["appendfsync"] == fsync


async def test_a_server_that_dies_is_started_again_with_its_data(
    own_store: Store, valkey_pid: ValkeyPid
) -> None:
    async def restarted(dead: int) -> int:
        while True:
            with contextlib.suppress(StoreUnavailable):
                if (pid := await valkey_pid(own_store)) != dead:
                    return pid
            await asyncio.sleep(0.01)

    pid = await valkey_pid(own_store)
    for number in range(3):
        await put(own_store, f"key-{number}", "kept")
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            pid = await restarted(pid)
    assert [await get(own_store, f"key-{number}") for number in range(3)] == [b"kept"] * 3


async def test_a_killed_service_takes_its_server_along_and_the_next_finds_the_data(
    tmp_path: Path, eventually: Eventually
) -> None:
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert service.stdout is not None
    server = psutil.Process(int(await service.stdout.readline()))
    try:
        service.send_signal(signal.SIGKILL)
        await service.wait()
        # at once, while the old server is still stopping
        async with open_store(SETTINGS, tmp_path, print) as store:
            assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
            assert await get(store, "key") == b"kept"
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            server.kill()


async def test_a_second_service_on_the_same_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_LOCK_S", 0.05)
    async with open_store(SETTINGS, tmp_path, print) as store:
        with pytest.raises(EmbeddedError, match="in use by another running service"):
            async with open_store(SETTINGS, tmp_path, print):
                pass
        assert await store.run(lambda redis: redis.ping())


async def test_a_directory_with_a_long_path_will_do(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    async with run_embedded(deep, "everysec") as url:
        socket = url.removeprefix("unix://")
        assert stat.S_ISSOCK(os.stat(socket).st_mode)
        assert len(os.fsencode(socket)) < 108
    assert not os.access(os.path.dirname(socket), os.F_OK)
    assert "appendonlydir" in os.listdir(deep)


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    directory = tmp_path / "valkey"
    async with run_embedded(directory, "everysec"):
        pass
    manifest = directory / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("nonsense\n")
    with pytest.raises(EmbeddedError, match=r"ended at start[\s\S]*manifest"):
        async with run_embedded(directory, "everysec"):
            pass


async def test_a_ctrl_c_in_the_terminal_is_for_the_service_alone(
    own_store: Store, valkey_pid: ValkeyPid
) -> None:
    assert os.getpgid(await valkey_pid(own_store)) != os.getpgid(0)
