"""The compose files and manifests name what there is: services, volumes, secrets, settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

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


def test_the_balancer_sends_devices_to_both_coordinators() -> None:
    content = yaml.safe_load((DEPLOY / "compose.database.yaml").read_text())
    balanced = re.findall(r"server \w+ (\w+):8765 check", content["configs"]["balancer"]["content"])
    assert balanced == [name for name, service in content["services"].items() if "build" in service]
    assert len(balanced) == 2


def test_every_selector_finds_the_pods_of_its_manifest() -> None:
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in resources()
        if each["kind"] == "StatefulSet"
    }
    for each in resources():
        selector = each["spec"]["selector"]
        assert selector.get("matchLabels", selector) == pods[each["metadata"]["name"]], each["metadata"]["name"]


def test_every_mount_has_a_volume_and_every_secret_is_made_by_a_command_of_the_page() -> None:
    for each in resources():
        if each["kind"] != "StatefulSet":
            continue
        spec = each["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in each["spec"]["volumeClaimTemplates"]}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, container["name"]
            for variable in container.get("env", []):
                key = variable.get("valueFrom", {}).get("secretKeyRef")
                assert key is None or f"--from-literal={key['key']}=" in PAGE, variable["name"]
        for volume in spec.get("volumes", []):
            made = volume.get("secret", {}).get("secretName") or volume["configMap"]["name"]
            assert re.search(rf"kubectl create (secret \w+|configmap) {made} ", PAGE), made


def test_what_is_set_for_the_coordinator_is_what_it_knows() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.database.yaml").read_text())["services"]["first"]["environment"]
    (pod,) = (each for each in resources() if each["kind"] == "StatefulSet" and each["metadata"]["name"] == "ftte")
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    assert {variable["name"] for variable in container["env"]} == set(compose)
    assert all(f"`{name}`" in PAGE or f"${name}" in PAGE for name in compose)
