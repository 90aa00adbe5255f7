"""The files of examples/ for those who run workers: they say what greenq has, and their times fit together."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess

import pytest

from greenq.exit_codes import ExitCode
from greenq.units import host_and_port
from tests.image.deployment import COMPOSE, SYSTEMD, asked_for, compose, kubernetes, milliseconds
from tests.support.processes import ROOT

PAGE = ROOT / "docs/container.md"

# -- compose


def test_the_worker_of_the_compose_file_is_a_command_that_there_is():
    worker = compose()["worker"]

    options = asked_for(worker["command"], worker["environment"])

    assert (options.broker, options.concurrency) == ("shop", 1000)
    assert milliseconds(worker["stop_grace_period"]) > options.worker_shutdown_timeout


def test_the_compose_file_publishes_on_loopback_what_is_served_on_all_addresses():
    worker = compose()["worker"]

    published = [each.split(":") for each in worker["ports"]]

    health, metrics = "8080", "9191"
    assert published == [["127.0.0.1", each, each] for each in (health, metrics)]
    assert worker["environment"]["GREENQ_HEALTH"] == f"0.0.0.0:{health}"
    assert worker["environment"]["GREENQ_PROM_HOST"] == "0.0.0.0"


def test_the_services_of_the_compose_file_name_what_there_is():
    services = compose()

    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
    assert {services[each]["environment"]["GREENQ_BROKER_URL"] for each in ("worker", "producer")} == {
        "redis://redis:6379/0"
    }
    assert services["producer"]["image"] == services["worker"]["image"]
    assert (COMPOSE.parent / services["worker"]["build"] / "Dockerfile").is_file()


# -- the page


def test_the_dockerfile_of_the_page_is_that_of_the_example():
    (shown,) = re.findall(r"```dockerfile\n(.*?)```", PAGE.read_text(), re.DOTALL)

    example = (COMPOSE.parent / "Dockerfile").read_text()

    assert shown == re.sub(r"^#.*\n", "", example, flags=re.MULTILINE)


# -- Kubernetes


@pytest.fixture
def pod():
    return kubernetes()["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    (container,) = pod["containers"]
    return container


def environment(container):
    values = {each["name"]: each.get("value") for each in container["env"]}
    (from_secret,) = [each for each in container["env"] if "valueFrom" in each]
    name = from_secret["valueFrom"]["secretKeyRef"]
    secret = kubernetes()["Secret"]
    assert secret["metadata"]["name"] == name["name"]
    return {**values, from_secret["name"]: secret["stringData"][name["key"]]}


def test_the_worker_of_the_manifest_is_a_command_that_there_is_and_has_time_to_stop(pod, container):
    options = asked_for(container["args"], environment(container))

    assert options.processes == 1
    # It has ended a second later, and is killed at the end of this.
    assert pod["terminationGracePeriodSeconds"] * 1000 >= options.worker_shutdown_timeout + 5000


def test_the_probes_of_the_manifest_ask_what_is_served_where_it_is(container):
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    served = host_and_port(asked_for(container["args"], environment(container)).health)
    annotations = kubernetes()["Deployment"]["spec"]["template"]["metadata"]["annotations"]

    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}

    assert {name: each["path"] for name, each in asked.items()} == {
        "startup": "/ready",
        "liveness": "/health",
        "readiness": "/ready",
    }
    assert {("0.0.0.0", ports[each["port"]]) for each in asked.values()} == {served}
    assert annotations["prometheus.io/port"] == str(ports["metrics"])
    assert environment(container)["GREENQ_PROM_HOST"] == "0.0.0.0"


def test_the_startup_probe_outlasts_the_wait_for_the_broker(container):
    options = asked_for(container["args"], environment(container))
    probe = container["startupProbe"]

    assert probe["periodSeconds"] * probe["failureThreshold"] * 1000 > options.wait_for_broker


def test_the_pod_of_the_manifest_runs_as_the_images_user_and_writes_to_tmp_alone(pod, container):
    (user,) = set(re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    security = pod["securityContext"]

    assert {str(security[each]) for each in ("runAsUser", "runAsGroup")} == {user}
    assert security["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert [each["mountPath"] for each in container["volumeMounts"]] == ["/tmp"]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert pod["enableServiceLinks"] is False


def test_what_belongs_to_the_pods_of_the_manifest_selects_them():
    documents = kubernetes()
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]

    for kind in ("Deployment", "PodDisruptionBudget"):
        assert documents[kind]["spec"]["selector"]["matchLabels"] == labels


# -- systemd

UNIT = SYSTEMD / "greenq-worker@.service"


@pytest.fixture
def service():
    """The settings of the unit, for the application shop."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str
    parser.read_string(UNIT.read_text().replace("%i", "shop"))
    return parser["Service"]


def settings_file():
    lines = (SYSTEMD / "shop.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_service_is_a_command_that_there_is_and_has_time_to_stop(service):
    options = asked_for(service["ExecStart"].split(), settings_file())

    assert options.broker == "shop"
    assert service["Type"] == "notify"
    assert milliseconds(service["TimeoutStopSec"]) > options.worker_shutdown_timeout
    assert milliseconds(service["TimeoutStartSec"]) > options.wait_for_broker


def test_the_control_socket_of_the_service_is_in_its_own_directory(service):
    options = asked_for(service["ExecStart"].split(), settings_file())

    assert options.control == f"/run/{service['RuntimeDirectory']}/control.sock"
    assert service["EnvironmentFile"] == "/etc/greenq/shop.env"


def test_the_exit_codes_of_the_service_are_those_of_the_command(service):
    assert int(service["SuccessExitStatus"]) == ExitCode.GIVEN_BACK
    assert int(service["RestartPreventExitStatus"]) == ExitCode.USAGE


def test_systemd_understands_the_unit(tmp_path):
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed, so systemd cannot be asked; the other tests read the unit")
    # What it starts has to be there.
    program = tmp_path / "greenq-worker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "greenq-worker@shop.service"
    unit.write_text(UNIT.read_text().replace("/srv/%i/venv/bin/greenq-worker", str(program)))

    told = subprocess.run([verify, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)

    complaints = [line for line in told.stderr.splitlines() if str(unit.name) in line or str(unit) in line]
    assert complaints == []
