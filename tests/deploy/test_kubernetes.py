"""The manifests, rendered: they keep to the schemas, and their parts find one another."""

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from promql import check, own_series

from service.api import operations
from service.settings import Settings
from service.signing import load_secrets
from service.store_url import StoreUrl

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu")
SCHEMAS = ("1.30", "1.33", "1.37")
"""From the first release with a sleep before a stop to the last one known here."""

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is missing")
Manifest = dict[str, Any]


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    """What an overlay applies, by kind."""
    command = ["kubectl", "kustomize", str(KUBERNETES / "overlays" / request.param)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    found = list(yaml.safe_load_all(run.stdout))
    assert len({manifest["kind"] for manifest in found}) == len(found)
    return {manifest["kind"]: manifest for manifest in found}


def pod(manifests: Mapping[str, Manifest]) -> Manifest:
    return dict(manifests["Deployment"]["spec"]["template"])


def container(manifests: Mapping[str, Manifest]) -> Manifest:
    [only] = pod(manifests)["spec"]["containers"]
    return dict(only)


def environment(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    held = {entry["name"]: entry["value"] for entry in container(manifests)["env"]}
    return manifests["ConfigMap"]["data"] | held


@pytest.mark.parametrize("version", SCHEMAS)
def test_each_keeps_to_its_schema(manifests: dict[str, Manifest], version: str) -> None:
    schemas = pytest.importorskip("kubernetes_validate")
    for kind, manifest in manifests.items():
        if kind != "ServiceMonitor":  # Prometheus's operator brings this one
            schemas.validate(manifest, version, strict=True)


class TestPod:
    def test_its_settings_and_secrets_are_understood(
        self,
        manifests: dict[str, Manifest],
        settings_of: Callable[[Mapping[str, str]], Settings],
        tmp_path: Path,
    ) -> None:
        settings = settings_of(environment(manifests))
        assert settings.store.url is not None
        assert settings.auth.keys_file is not None
        signing = settings.signing
        assert len(load_secrets(tmp_path, signing.keys_file, signing.secret_file).deployment) == 32

    def test_its_services_add_no_settings(self, manifests: dict[str, Manifest]) -> None:
        assert pod(manifests)["spec"]["enableServiceLinks"] is False

    def test_its_secret_is_what_is_made(
        self, manifests: dict[str, Manifest], secrets_dir: Path
    ) -> None:
        [volume] = [volume for volume in pod(manifests)["spec"]["volumes"] if "secret" in volume]
        assert all((secrets_dir / item["key"]).is_file() for item in volume["secret"]["items"])
        [endpoint] = manifests["ServiceMonitor"]["spec"]["endpoints"]
        key = endpoint["authorization"]["credentials"]
        assert (secrets_dir / key["key"]).is_file()
        assert key["name"] == volume["secret"]["secretName"]

    def test_a_stop_outlasts_the_pause_and_the_drain(self, manifests: dict[str, Manifest]) -> None:
        drain_s = int(manifests["ConfigMap"]["data"]["LLM_AUCTION_HTTP__DRAIN_S"])
        pause_s = container(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace_s = pod(manifests)["spec"]["terminationGracePeriodSeconds"]
        assert pause_s >= 5
        assert grace_s >= pause_s + drain_s + 10

    def test_has_no_root_and_a_read_only_file_system(self, manifests: dict[str, Manifest]) -> None:
        security = container(manifests)["securityContext"]
        assert pod(manifests)["spec"]["securityContext"]["runAsNonRoot"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["mountPath"] for mount in container(manifests)["volumeMounts"]}
        assert {"/state", "/tmp", "/dev/shm"} <= mounted

    def test_probes_ask_what_the_service_answers(self, manifests: dict[str, Manifest]) -> None:
        answered = {route.path for route in operations.router().routes}  # type: ignore[attr-defined]
        [port] = container(manifests)["ports"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container(manifests)[probe]["httpGet"]
            assert asked["path"] in answered
            assert asked["port"] == port["name"]


class TestParts:
    def test_selectors_find_the_pod(self, manifests: dict[str, Manifest]) -> None:
        labels = pod(manifests)["metadata"]["labels"].items()
        for selector in (
            manifests["Service"]["spec"]["selector"],
            manifests["Deployment"]["spec"]["selector"]["matchLabels"],
            manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
            manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        ):
            assert selector
            assert selector.items() <= labels

    def test_the_monitor_finds_the_service(self, manifests: dict[str, Manifest]) -> None:
        monitor, service = manifests["ServiceMonitor"]["spec"], manifests["Service"]
        labels = service["metadata"]["labels"]
        assert monitor["selector"]["matchLabels"].items() <= labels.items()
        assert labels[monitor["jobLabel"]] == "llm-auction"  # the job that alerts ask for
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= ports

    def test_the_autoscaler_follows_a_metric_that_there_is(
        self, manifests: dict[str, Manifest]
    ) -> None:
        scaler, adapter = manifests["HorizontalPodAutoscaler"]["spec"], KUBERNETES
        assert scaler["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
        assert "replicas" not in manifests["Deployment"]["spec"]
        [metric] = scaler["metrics"]
        rules = yaml.safe_load((adapter / "prometheus-adapter.yaml").read_text())
        [rule] = rules["rules"]["custom"]
        assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
        query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod")
        targets = {"pod", "namespace"}
        measured = {name: labels | targets for name, labels in own_series().items()}
        check(query.replace("<<.LabelMatchers>>", 'namespace="x"'), measured)

    def test_the_network_lets_in_what_the_service_listens_on(
        self, manifests: dict[str, Manifest]
    ) -> None:
        [port] = container(manifests)["ports"]
        [rule] = manifests["NetworkPolicy"]["spec"]["ingress"]
        assert [entry["port"] for entry in rule["ports"]] == [port["name"]]

    @pytest.mark.parametrize("url", ["redis://a", "redis+cluster://a", "redis+sentinel://a/main"])
    def test_the_network_lets_out_to_any_kind_of_store(
        self, manifests: dict[str, Manifest], url: str
    ) -> None:
        rules = manifests["NetworkPolicy"]["spec"]["egress"]
        opened = {entry["port"] for rule in rules for entry in rule["ports"] if "to" not in rule}
        used = {host.port for host in StoreUrl.parse(url).hosts}
        configured = StoreUrl.parse(manifests["ConfigMap"]["data"]["REDIS_URL"])
        assert used | {host.port for host in configured.hosts} <= opened
