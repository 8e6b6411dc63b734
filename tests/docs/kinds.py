"""How each kind of command is proven: the table KINDS, and for Python and YAML BLOCKS.

What can be run here is run, with the stand-ins of session.py. What would take long or needs what a
test has not is held to the real parser, renderer or file instead, and the tests that run it are
named. A command of no kind has no proof, and fails.
"""

import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tomllib
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from typing import Final

import pyarrow.parquet as parquet
import pytest
import yaml
from packaging.requirements import Requirement

from cloud_recognizer.config import parse_config as parse_cloud
from cloud_recognizer.policy import Policy
from mien.bundle import load_bundle
from tests.docs import command_lines
from tests.docs.pages import ROOT, Command, commands
from tests.docs.session import Session, speaks_tls
from tests.docs.workshop import BASH, BUNDLE, FRAMES, Program
from tests.support import kubernetes
from tests.support.kubernetes import Manifests
from trainer.cli import main as trainer

EXPRESSIONS: Final = load_bundle(BUNDLE).manifest.expressions

Proof = Callable[[Command, Session], None]


def prints(pattern: str, *, newer: bool = False) -> Proof:
    """It ends well and prints what matches. newer: it needs a second bundle."""

    def proof(command: Command, session: Session) -> None:
        if newer:
            session.add_newer_bundle()
        said = session.run(session.filled(command))
        assert re.search(pattern, said), said

    return proof


def streams(command: Command, session: Session) -> None:
    """A device sends the clip, and every face comes back."""
    events = [json.loads(line) for line in session.run(session.filled(command)).splitlines()]
    summary = events[-1]
    assert summary["event"] == "summary"
    assert summary["faces_recognised"] == summary["faces_sent"] > 0
    assert any(event["event"] == "recognition" for event in events)


def serves(command: Command, session: Session) -> None:
    """It says that it serves, and health and metrics are there; the page goes on with it."""
    said = session.serve(session.filled(command))
    session.run(f"curl -sf http://127.0.0.1:{said['metrics_port']}/metrics")
    if said["live_page"] is not None:
        assert "<html" in session.run(f"curl -sf {said['live_page']}")


def watches(command: Command, session: Session) -> None:
    """It shows a face that a device sends meanwhile."""

    def see(program: Program) -> None:
        assert re.search("|".join(EXPRESSIONS), program.rest())

    text = f"{session.filled(command)} --limit 1"
    session.watched(text, see, tls=speaks_tls(text))


def follows_by_buf(command: Command, session: Session) -> None:
    """As `watches`, by reflection and without a limit."""

    def see(program: Program) -> None:
        program.line_with('"deviceId": "door"')

    session.watched(as_buf(session.filled(command)), see, tls=False)


def calls_by_buf(command: Command, session: Session) -> None:
    """It ends well and names the call, or an expression."""
    said = session.run(as_buf(session.filled(command)))
    assert re.search(r"RecognitionService/Recognize|ITEM_STATUS_RESULT", said), said


def as_buf(text: str) -> str:
    """A call by grpcurl as the same by buf, which comes with the development extra."""
    if not text.startswith("grpcurl "):
        return text
    found = re.fullmatch(r"grpcurl -plaintext( -d .+)? (\S+:\d+) (list )?([\w./]+)", text)
    assert found is not None, text
    data, address, listing, name = found.groups()
    dial = f"buf curl --protocol grpc --http2-prior-knowledge{data or ''}"
    return (
        f"{dial} --list-methods http://{address}" if listing else f"{dial} http://{address}/{name}"
    )


def supervises(command: Command, session: Session) -> None:
    """The cameras of the page's own file stream, each in a process of its own."""
    (cameras,) = (c.text for c in commands("yaml") if "cameras:" in c.text)
    cameras = re.sub(r"source: .*", "source: clip.mp4", cameras)
    cameras = cameras.replace("recognizer:50051", session.recognizer(tls=True).address)
    (session.folder / "cameras.yaml").write_text(cameras)
    text = command.text.replace("--metrics_port 9465", "--metrics_port 0")
    with session.start(text) as fleet:
        waited = set(yaml.safe_load(cameras)["cameras"])
        while waited:
            waited.discard(json.loads(fleet.line_with('"recognition"'))["camera"])


def rescores(command: Command, session: Session) -> None:
    """What the page's recognizer has kept of a device is answered by another bundle."""
    session.add_newer_bundle()
    session.feed(tls=False)
    session.stop()
    session.run(session.filled(command))
    (output,) = re.findall(r"--output (\S+)", command.text)
    assert parquet.read_table(session.folder / output).num_rows == FRAMES


def extras_are_there(command: Command, session: Session) -> None:
    """The extras stand in pyproject.toml, and so does each that they are made of."""
    found = re.fullmatch(r"pip install '\.\[([\w,-]+)\]'", command.text)
    assert found is not None, command.text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras, waiting = project["optional-dependencies"], found[1].split(",")
    while waiting:
        for requirement in map(Requirement, extras[waiting.pop()]):
            if requirement.name == project["name"]:
                waiting.extend(requirement.extras)


def make_knows_it(command: Command, session: Session) -> None:
    """make has the target and says what it would do; the lab has the scenario that is chosen."""
    ran = subprocess.run(
        [BASH, "-c", re.sub(r"\bmake\b", "make --dry-run", command.text, count=1)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    lab = {path: path.read_text() for path in (ROOT / "tests").glob("[ls]*/*.py")}
    for name in re.findall(r"\b(MIEN_\w+)=", command.text):
        assert any(name in text for text in lab.values()), name
    for chosen in re.findall(r"-k (\w+)", command.text):
        names = "".join(path.stem for path in lab) + "".join(
            re.findall(r"def (test_\w+)", "".join(lab.values()))
        )
        assert chosen in names, chosen


def trainer_takes_it(command: Command, session: Session) -> None:
    command_lines.trainer_takes(shlex.split(command.text)[1:])


def saves(command: Command, session: Session) -> None:
    """It says what the bundle saves against JPEG."""
    with chdir(session.folder), redirect_stdout(io.StringIO()) as said:
        assert trainer(shlex.split(command.text)[1:]) == 0
    assert re.search(r"^JPEG +-\d\d\.\d%", said.getvalue(), re.MULTILINE)


def fuzzer_takes_it(command: Command, session: Session) -> None:
    command_lines.fuzzer_takes(shlex.split(command.text)[3:])


def dockerfile_is_there(command: Command, session: Session) -> None:
    """The Dockerfile has the target, and the context is the checkout."""
    words = shlex.split(command.text)
    given = dict(itertools.pairwise(words))
    text = (ROOT / given["--file"]).read_text()
    assert words[-1] == "."
    if "--target" in given:
        assert re.search(rf"^FROM .* AS {given['--target']}$", text, re.MULTILINE)


def script_is_there(command: Command, session: Session) -> None:
    assert os.access(ROOT / shlex.split(command.text)[0], os.X_OK)


def compose_takes_it(command: Command, session: Session) -> None:
    """Compose resolves the file with the command's profile; the services it scales are in it."""
    profiles = re.findall(r"--profile (\w+)", command.text)
    files = re.findall(r"-f (\S+)", command.text)
    resolved = yaml.safe_load(_composed(profiles, files))["services"]
    for service in re.findall(r"--scale (\w+)=", command.text):
        assert set(profiles) & set(resolved[service]["profiles"])
    assert all(any(p in s.get("profiles", ()) for s in resolved.values()) for p in profiles)


def _composed(profiles: list[str], files: list[str]) -> str:
    own = f"{sysconfig.get_path('scripts')}/podman-compose"
    chosen = [word for file in files for word in ("-f", file)]
    chosen += [word for profile in profiles for word in ("--profile", profile)]
    for program in (["docker", "compose"], [own]):
        command = [*program, *chosen, "config"]
        if shutil.which("docker" if program[0] == "docker" else "podman"):
            ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
            if ran.returncode == 0:
                return ran.stdout
    pytest.skip("neither `docker compose` nor `podman-compose` with a podman is here")


def kubectl_renders_it(command: Command, session: Session) -> None:
    """The overlay can be rendered, and what is restarted is in it; no cluster is asked."""
    if reason := kubernetes.why_not():
        pytest.skip(reason)
    if overlay := re.search(r"deploy/kubernetes/(\w+)$", command.text):
        assert Manifests(overlay[1]).objects
        return
    if file := re.fullmatch(r"kubectl apply -f (\S+)", command.text):
        assert all(yaml.safe_load_all((ROOT / file[1]).read_text()))
        return
    if forward := re.fullmatch(r"kubectl -n mien port-forward service/(\w+) (\d+)", command.text):
        (port,) = Manifests("single").one("Service", forward[1])["spec"]["ports"]
        assert port["port"] == int(forward[2])
        return
    if "create" in command.text:
        kubectl_makes_it(command.text)
        return
    found = re.fullmatch(r"kubectl -n (\w+) rollout restart deployment/(\w+)", command.text)
    assert found is not None, command.text
    deployment = Manifests("cpu").one("Deployment", found[2])
    assert deployment["metadata"]["namespace"] == found[1]


def kubectl_makes_it(text: str) -> None:
    """What is made by hand has the name by which a pod mounts it, and a Secret its files."""
    kind, name = re.findall(r"create (?:(secret) generic|(configmap)) (\S+)", text)[0][::2]
    folder = kubernetes.FOLDER / ("base/recognizer.yaml" if kind else "signed/kustomization.yaml")
    mounted = folder.read_text(encoding="utf-8")
    assert re.search(rf"(secretName|configMap: {{name): {name}\b", mounted), name
    for file in re.findall(r"--from-file=(\w+\.\w+)", text):
        assert f"/certificates/{file}" in mounted


def promtool_checks_it(command: Command, session: Session) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: it comes with Debian's package prometheus")
    session.run(command.text)


@dataclass(frozen=True)
class Kind:
    """Commands that begin alike. elsewhere: tests that run for real what is not run here."""

    begins: str
    proof: Proof
    elsewhere: tuple[str, ...] = ()


TRAINED = ("tests/unit/trainer/test_pipeline.py", "tests/unit/trainer/test_study.py")
CONTAINERS = (
    "tests/lab/test_containers.py",
    "tests/lab/test_containers_arm64.py",
    "tests/lab/test_containers_metrics.py",
    "tests/lab/test_containers_trainer.py",
    "tests/unit/deploy/test_images.py",
)

# The first that fits counts.
KINDS: Final = (
    Kind(r"mien-cloud serve ", serves),
    Kind(r"mien-edge run ", streams),
    Kind(r"mien-edge fleet ", supervises),
    Kind(r"mien-edge spool .*--purge", prints("is empty")),
    Kind(r"mien-edge spool ", prints(r"\w")),
    Kind(r"mien watch ", watches),
    Kind(r"mien recognize ", prints(r'"error": null')),
    Kind(r"mien inspect chunk", prints("checksum holds")),
    Kind(r"mien inspect ", prints("surprise")),
    Kind(r"mien certificates ", prints(r"\.pem")),
    Kind(r"mien bundles .*\b(canary|shadow|promote|rollback)\b", prints(r"\w", newer=True)),
    Kind(r"mien bundles ", prints(r"\w")),
    Kind(r"mien rescore ", rescores),
    Kind(r"python deploy/check_health.py .*echo", prints("SERVING")),
    Kind(r"python deploy/check_health.py ", prints("")),
    Kind(r"curl ", prints(r"mien_(cloud|edge)_")),
    Kind(r"(openssl|mkdir) ", prints("")),
    Kind(r"deploy/certificates\.sh", script_is_there, ("tests/unit/deploy/test_deploy.py",)),
    Kind(r"buf curl .*WatchRecognitions", follows_by_buf),
    Kind(r"buf curl ", calls_by_buf),
    # grpcurl has no package that an environment of Python could install: its calls go by buf.
    Kind(r"grpcurl .*WatchRecognitions", follows_by_buf),
    Kind(r"grpcurl ", calls_by_buf),
    Kind(r"promtool ", promtool_checks_it),
    Kind(r"mien-train shipped ", saves),
    Kind(r"mien-train report ", trainer_takes_it, ("tests/unit/trainer/test_compare.py",)),
    Kind(r"mien-train ", trainer_takes_it, TRAINED),
    Kind(r"python -m tests\.fuzz --replay ", prints("")),
    Kind(r"python -m tests\.fuzz ", fuzzer_takes_it, ("tests/fuzz/test_fuzzing.py",)),
    Kind(r"pip install ", extras_are_there, ("Makefile", *CONTAINERS)),
    Kind(r"make ", make_knows_it, (".ci/run", "tests/e2e/test_demo.py")),
    Kind(r"docker (build|buildx build) ", dockerfile_is_there, CONTAINERS),
    Kind(r"docker compose ", compose_takes_it, CONTAINERS),
    Kind(r"kubectl ", kubectl_renders_it, ("tests/unit/deploy/test_kubernetes.py",)),
)


def makes_a_chunk(block: Command, session: Session) -> None:
    """It writes a chunk that the page's next commands read."""
    run_python(block, session)
    assert (session.folder / "chunk.bin").stat().st_size > 0


def client_goes_on(block: Command, session: Session) -> None:
    """It recognises, then follows a device, also once the recognizer was killed and came back."""
    text = session.filled(block)
    (session.folder / "client.py").write_text(text)

    def see(program: Program) -> None:
        recognised = program.line_with("recognised")
        assert any(f"['{name}']" in recognised for name in EXPRESSIONS)
        program.line_with("door")
        session.serve_again()
        program.line_with("missed")
        session.feed_watchers(program, tls=False)
        program.line_with("door")

    session.watched("python client.py", see, tls=False)


def run_python(block: Command, session: Session) -> None:
    (session.folder / "block.py").write_text(session.filled(block))
    session.run("python block.py")


def is_a_policy(block: Command, session: Session) -> None:
    Policy.parse(yaml.safe_load(block.text))


def is_a_setting(block: Command, session: Session) -> None:
    """The recognizer takes it as its YAML file."""
    (session.folder / "settings.yaml").write_text(block.text)
    parse_cloud(["--bundles", "bundles", "--config", str(session.folder / "settings.yaml")])


def goes_with_the_fleet(block: Command, session: Session) -> None:
    """`mien-edge fleet` on the same page runs with it."""
    assert any(c.page == block.page and "mien-edge fleet" in c.text for c in commands("sh"))


# What is in a block of Python or YAML; the first that fits counts.
BLOCKS: Final = (
    Kind(r"[\s\S]*WatchRecognitionsRequest", client_goes_on),
    Kind(r"[\s\S]*chunk\.bin", makes_a_chunk),
    Kind(r"[\s\S]*cameras:", goes_with_the_fleet),
    Kind(r"[\s\S]*contexts:", is_a_policy),
    Kind(r"[\s\S]*device_groups:", is_a_setting),
)


def kind_of(command: Command) -> Kind | None:
    """The first kind that fits; None where a command has no proof."""
    kinds = KINDS if command.language == "sh" else BLOCKS
    text = re.sub(r"^(\w+=\S+ )+", "", command.text)
    return next((kind for kind in kinds if re.match(kind.begins, text)), None)
