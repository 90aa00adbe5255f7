"""The derived image, run as the compose file and the Kubernetes manifest say, without any network but loopback."""

from __future__ import annotations

import json
import re
import subprocess
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.image.deployment import compose, kubernetes, milliseconds
from tests.support.processes import end_with_this_process
from tests.support.redis_server import program
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.timeout(900)

# As a probe: until the answer is yes.
GET = """
import sys, time, urllib.error, urllib.request
deadline = time.monotonic() + float(sys.argv[2])
while True:
    try:
        print(urllib.request.urlopen(sys.argv[1]).read().decode())
        break
    except urllib.error.URLError as error:
        if time.monotonic() > deadline:
            sys.exit(f"{error}: {error.read().decode() if isinstance(error, urllib.error.HTTPError) else ''}")
    time.sleep(0.05)
"""


class Site:
    """A worker's network, in which `redis` is a Redis server as the compose file runs it."""

    def __init__(self, engine, image, folder):
        self.engine, self.image, self.folder = engine, image, folder
        self.started = []
        self.redis = None
        self.hosts = folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost redis\n")

    def worker(self, command, environment, *options):
        """Start the worker, and the server that it waits for."""
        worker = self.engine.start("worker", *options, *SECURED, *self._given(environment), self.image, *command)
        self.started.append(worker)
        worker.wait_for("The broker is")
        _, *settings = compose()["redis"]["command"]
        self.redis = subprocess.Popen(
            ["nsenter", "--target", str(worker.first), "--net", program(), "--dir", str(self.folder), *settings],
            stdout=subprocess.DEVNULL,
            preexec_fn=end_with_this_process,
        )
        worker.wait_until_ready()
        return worker

    def produce(self, command, environment):
        """What the producer printed."""
        return self.engine.run("--network", "container:worker", *self._given(environment), self.image, *command)

    def _given(self, environment):
        variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
        return [*variables, "--volume", f"{self.hosts}:/etc/hosts:ro"]

    def end(self):
        for each in self.started:
            each.end()
        if self.redis is not None:
            self.redis.kill()
            self.redis.wait()


#: What both files ask for, in podman's words.
SECURED = ["--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
SECURED += ["--security-opt", "no-new-privileges"]


@pytest.fixture
def site(engine, shop, tmp_path):
    site = Site(engine, shop, tmp_path)
    yield site
    site.end()


def get(worker, port, path):
    return worker.run("python", "-c", GET, f"http://127.0.0.1:{port}{path}", str(PATIENCE_S))


def test_the_services_of_the_compose_file_work_together_and_the_worker_stops_with_0(site):
    services = compose()
    described = services["worker"]
    assert (described["read_only"], described["tmpfs"], described["cap_drop"]) == (True, ["/tmp"], ["ALL"])
    worker = site.worker(described["command"], described["environment"])
    health, metrics = (each.rpartition(":")[2] for each in described["ports"])

    said = site.produce(services["producer"]["command"], services["producer"]["environment"])

    assert said == "sent 100 orders\n"
    worker.wait_for(r"order \d+ of 1,23\d\.\d\d is confirmed", 100)
    assert json.loads(get(worker, health, "/ready"))["ready"]
    counted = 'greenq_messages_total{queue_name="default",actor_name="confirm"} 100'
    until(lambda: counted in get(worker, metrics, "/metrics"))  # a job is counted a moment after what it prints
    assert worker.stop(milliseconds(described["stop_grace_period"]) // 1000) == 0


def test_the_container_of_the_manifest_answers_its_probes(site):
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    (described,) = pod["containers"]
    assert described["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    environment = {each["name"]: each.get("value") for each in described["env"]}
    secret = urlsplit(kubernetes()["Secret"]["stringData"]["url"])
    environment["GREENQ_BROKER_URL"] = urlunsplit(secret._replace(netloc=secret.netloc.rpartition("@")[2]))

    worker = site.worker(described["args"], environment, "--user", str(pod["securityContext"]["runAsUser"]))

    ports = {each["name"]: each["containerPort"] for each in described["ports"]}
    for name in ("startup", "liveness", "readiness"):
        asked = described[f"{name}Probe"]["httpGet"]
        assert json.loads(get(worker, ports[asked["port"]], asked["path"]))["live"]
    assert re.search("^greenq_worker_up", get(worker, ports["metrics"], "/metrics"), re.MULTILINE)
    assert worker.stop(pod["terminationGracePeriodSeconds"]) == 0


def test_the_sqlite_broker_keeps_its_file_on_a_volume(engine, shop):
    volume = ["--volume", "orders:/data", "--env", "GREENQ_BROKER_URL=sqlite:////data/orders.db", *SECURED]

    assert engine.run(*volume, shop, "python", "producer.py", "3") == "sent 3 orders\n"
    worker = engine.start("files", *volume, shop)  # as the image says: greenq-worker shop
    try:
        worker.wait_for("is confirmed", 3)
        assert worker.stop(20) == 0
    finally:
        worker.end()
