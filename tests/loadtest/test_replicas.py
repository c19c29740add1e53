"""What counts as the loss of one replica only, and what a cluster is started with."""

from dataclasses import replace
from pathlib import Path

from loadtest.own_service import OwnService
from loadtest.replicas import Loss, configuration
from loadtest.steady import Tally

LOST = (1.0, "/respond: 503 unavailable")
LOSS = Loss(Tally(seconds=[1.0, 2.0]), running=2, back_after_s=1.0, is_sound=True)


def test_answers_that_the_replica_was_running_may_be_lost_and_no_more() -> None:
    for failures, is_kept in (([], True), ([LOST] * 2, True), ([LOST] * 3, False)):
        assert replace(LOSS, tally=Tally(failures=failures)).is_kept is is_kept


def test_a_failure_without_a_clear_answer_or_an_unsound_ledger_is_not_kept() -> None:
    for what in ("/respond: 500 internal_error", "/v1/clicks: ReadError"):
        assert not replace(LOSS, tally=Tally(failures=[(1.0, what)])).is_kept
    assert not replace(LOSS, is_sound=False).is_kept


def test_the_cluster_is_the_deployed_one_on_loopback_with_one_store(tmp_path: Path) -> None:
    service = OwnService(tmp_path, "http://127.0.0.1:9")
    config = configuration(service, 8123, {"num_replicas": 2}, {"A": "b"})
    (application,) = config["applications"]
    (replica,) = application["deployments"]
    assert config["http_options"] == {"host": "127.0.0.1", "port": 8123}
    assert application["import_path"] == "deploy.ray.application:build"
    assert application["runtime_env"]["env_vars"]["REDIS_URL"] == f"unix://{service.valkey_socket}"
    assert application["runtime_env"]["env_vars"]["A"] == "b"
    assert replica["num_replicas"] == 2
    assert "autoscaling_config" not in replica
