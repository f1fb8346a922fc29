"""The compose files and manifests name what there is: services, volumes, secrets, settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from coordinator.cli.main import _parser

DEPLOY = Path(__file__).parents[2] / "deploy"
PAGE = (DEPLOY.parent / "docs" / "how-to" / "scaling.md").read_text()
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
FOLDER = DEPLOY / "kubernetes"


def resources() -> list[dict[str, Any]]:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in FOLDER.iterdir())
    return [each for name in listed for each in yaml.safe_load_all((FOLDER / name).read_text())]


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_a_compose_file_names_services_volumes_and_files_that_there_are(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    services = content["services"]
    for name, service in services.items():
        waited = service.get("depends_on", [])
        assert set(waited) <= set(services), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./monitoring"):
                assert (DEPLOY / source).exists(), source
            elif not source.startswith("."):
                assert source in content["volumes"], source
        for config in service.get("configs", []):
            assert config["source"] in content["configs"]
        if "build" in service:
            assert (DEPLOY.parent / service["build"]["dockerfile"]).exists()


def test_the_balancer_sends_devices_to_gateways_that_are_ready_with_their_addresses(tmp_path: Path) -> None:
    text = (DEPLOY / "compose.database.yaml").read_text()
    content = yaml.safe_load(text)
    balancer = content["services"]["balancer"]
    config = content["configs"]["balancer"]["content"]
    assert re.search(r"server-template gateway \d+ gateway:8765 check port 8771 .*send-proxy-v2", config)
    assert "gateway" in content["services"]
    address = balancer["networks"]["default"]["ipv4_address"]
    assert f'proxies = ["{address}"]' in text, "gateways believe it, and nobody else"
    found = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if found is None:
        pytest.skip("HAProxy is not installed: apt-get install haproxy")
    file = tmp_path / "haproxy.cfg"
    file.write_text(config)
    done = subprocess.run([found, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


WORKLOADS = ("StatefulSet", "Deployment")


@pytest.mark.parametrize("name", ["conductors", "gateways"])
def test_a_manifest_starts_a_command_with_options_that_it_has(name: str) -> None:
    (workload,) = (each for each in resources() if each["kind"] in WORKLOADS and each["metadata"]["name"] == name)
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    options = _parser().parse_args(container["args"])
    assert options.health == "0.0.0.0:8771"
    assert {"name": "health", "containerPort": 8771} in container["ports"]
    assert {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} == {"health"}
    compose = yaml.safe_load((DEPLOY / "compose.database.yaml").read_text())["services"]
    service = compose["gateway" if name == "gateways" else "first"]
    command = [word for part in service["entrypoint"] for word in part.partition("exec ftte ")[2].split()]
    options = _parser().parse_args(command or service["entrypoint"][1:])
    assert options.health == "0.0.0.0:8771"


def test_gateways_have_no_key_of_a_run_and_no_access_to_its_objects() -> None:
    (gateways,) = (each for each in resources() if each["kind"] == "Deployment")
    spec = gateways["spec"]["template"]["spec"]
    assert "ftte-keys" not in str(spec)
    assert "AWS" not in str(spec)
    service = yaml.safe_load((DEPLOY / "compose.database.yaml").read_text())["services"]["gateway"]
    assert "keys" not in str(service["volumes"])
    assert "AWS" not in str(service["environment"])


def test_every_selector_finds_the_pods_of_its_manifest() -> None:
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in resources()
        if each["kind"] in WORKLOADS
    }
    for each in resources():
        selector = each["spec"]["selector"]
        assert selector.get("matchLabels", selector) == pods[each["metadata"]["name"]], each["metadata"]["name"]


def test_every_mount_has_a_volume_and_every_secret_is_made_by_a_command_of_the_page() -> None:
    for each in resources():
        if each["kind"] not in WORKLOADS:
            continue
        spec = each["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, container["name"]
            for variable in container.get("env", []):
                key = variable.get("valueFrom", {}).get("secretKeyRef")
                assert key is None or f"--from-literal={key['key']}=" in PAGE, variable["name"]
        for volume in spec.get("volumes", []):
            if "emptyDir" in volume:
                continue
            made = volume.get("secret", {}).get("secretName") or volume["configMap"]["name"]
            assert re.search(rf"kubectl create (secret \w+|configmap) {made} ", PAGE), made


def test_what_is_set_for_the_coordinator_is_what_it_knows() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.database.yaml").read_text())["services"]["first"]["environment"]
    (pod,) = (
        each for each in resources() if each["metadata"]["name"] == "conductors" and each["kind"] == "StatefulSet"
    )
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    assert {variable["name"] for variable in container["env"]} - {"POD"} == set(compose)
    assert all(f"`{name}`" in PAGE or f"${name}" in PAGE for name in compose)
