"""The container files under examples/container: valid, true to the program, and enough to run it.

No engine runs here. What an engine would give the process (environment, arguments, nothing else) is
given to it for real; only addresses are exchanged for free ones on loopback.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
import yaml

from tests.cli.helpers import checked, refused
from tests.schemas.renew import KINDS, KUBERNETES
from tests.support import PATIENCE, Backend, Program, dial, exchange, wait_for
from vaurien.settings import PREFIX, SETTINGS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "container"
SCHEMAS = Path(__file__).parent / "schemas"
PAGE = ROOT / "docs" / "containers.rst"
NAMES = ("image", "compose", "kubernetes")
TOKEN = "of-the-tests-0123456789"
#: Where the entry points of pyproject.toml lead; the steps of the Dockerfile are run with them.
MODULES = {"vaurien": "vaurien.cli.main", "vaurienctl": "vaurien.cli.ctl"}


# The files, taken apart


@dataclass
class Instruction:
    """One of the Dockerfile's."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of its exec form."""
        words = json.loads(self.text)
        assert isinstance(words, list) and all(isinstance(word, str) for word in words)
        return words


def instructions() -> list[Instruction]:
    """Those of the Dockerfile, in order."""
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage, from its FROM on."""
    found: list[list[Instruction]] = []
    for instruction in instructions():
        if instruction.name == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def only(name: str, stage: int = -1) -> Instruction:
    """The one instruction of that name in a stage."""
    (found,) = (one for one in stages()[stage] if one.name == name)
    return found


def health_check() -> list[str]:
    """The command of the image's HEALTHCHECK."""
    _, mark, command = only("HEALTHCHECK").text.partition(" CMD ")
    assert mark
    return Instruction("CMD", command).words


def image_environment() -> dict[str, str]:
    """What the image itself sets, without PATH."""
    found = dict(word.split("=", 1) for word in shlex.split(only("ENV").text))
    found.pop("PATH")
    return found


def compose() -> Any:
    """The compose file, its variables not yet put in."""
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


def manifests() -> list[Any]:
    """The documents of the Kubernetes file."""
    return list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))


def manifest(kind: str) -> Any:
    """The one of that kind."""
    (found,) = (document for document in manifests() if document["kind"] == kind)
    return found


def interpolate(text: str, environ: dict[str, str]) -> str:
    """``${NAME:-default}`` and ``${NAME:?message}`` as compose has them."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if environ.get(name):
            return environ[name]
        assert kind == ":-", f"{name}: {rest}"
        return str(rest)

    return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, text)


@dataclass
class Container:
    """What an engine gives to Vaurien: its environment and arguments; and what reaches it."""

    environment: dict[str, str]
    arguments: list[str]
    ports: set[int]  # published, exposed or asked by a probe
    health: list[list[str]] = field(default_factory=list)  # commands
    probes: list[str] = field(default_factory=list)  # paths

    def settings(self) -> dict[str, tuple[str, str]]:
        """What ``--check`` says of it; it has nothing to complain of."""
        return checked(*self.arguments, env=self.environment)


def container(name: str, secret: Path) -> Container:
    """Vaurien as that file starts it; the token is put into the file `secret` if it takes one."""
    found: Container = {"image": _image, "compose": _compose, "kubernetes": _kubernetes}[name]()
    if "VAURIEN_HTTP_TOKEN_FILE" in found.environment:
        secret.write_text(TOKEN + "\n")
        found.environment["VAURIEN_HTTP_TOKEN_FILE"] = str(secret)
    return found


def _image() -> Container:
    text = (FOLDER / "Dockerfile").read_text()
    shown = dict(word.split("=", 1) for word in re.findall(r"--env (\S+)", text))
    ports = {int(word) for word in only("EXPOSE").text.split()}
    arguments = only("ENTRYPOINT").words[1:]
    return Container({**image_environment(), **shown}, arguments, ports, [health_check()])


def _compose() -> Container:
    service = compose()["services"]["vaurien"]
    own = {"VAURIEN_HTTP_TOKEN": TOKEN}
    shown = {name: interpolate(text, own) for name, text in service["environment"].items()}
    ports = {int(port.rpartition(":")[2]) for port in service["ports"]}
    kind, *health = service["healthcheck"]["test"]
    assert kind == "CMD"
    return Container({**image_environment(), **shown}, [], ports, [health_check(), health])


def sidecar() -> Any:
    """Vaurien's container in the pod."""
    (found,) = manifest("Deployment")["spec"]["template"]["spec"]["initContainers"]
    return found


def _kubernetes() -> Container:
    one = sidecar()
    (source,) = one["envFrom"]
    settings = manifest("ConfigMap")
    assert source["configMapRef"]["name"] == settings["metadata"]["name"]
    named = {port["name"]: port["containerPort"] for port in one["ports"]}
    probes = [one[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    (service,) = manifest("Service")["spec"]["ports"]
    ports = {*named.values(), *(named[probe["port"]] for probe in probes)}
    ports |= {service["port"], named[service["targetPort"]]}
    paths = [probe["path"] for probe in probes]
    return Container(
        {**image_environment(), **settings["data"]}, [], ports, [health_check()], paths
    )


# Valid


def validator(kind: str) -> jsonschema.protocols.Validator:
    """Of a Kubernetes document by its ``apiVersion kind``, or of ``compose``."""
    if kind == "compose":
        schemas = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
        schema = json.loads((schemas / "compose-spec.json").read_text())
        return jsonschema.validators.validator_for(schema)(schema)
    schema = json.loads((SCHEMAS / f"kubernetes-{KUBERNETES}.json").read_text())
    return jsonschema.Draft202012Validator({**schema, "$ref": f"#/$defs/{KINDS[kind]}"})


def kind_of(document: Any) -> str:
    """``apiVersion kind``."""
    return f"{document['apiVersion']} {document['kind']}"


def test_the_compose_file_is_as_the_published_schema_has_it() -> None:
    validator("compose").validate(compose())


@pytest.mark.parametrize("document", manifests(), ids=kind_of)
def test_a_kubernetes_manifest_is_as_the_published_schema_has_it(document: Any) -> None:
    validator(kind_of(document)).validate(document)


def _misspell_service(document: Any) -> None:
    document["services"]["vaurien"]["healthchek"] = {}


def _no_such_condition(document: Any) -> None:
    document["services"]["vaurien"]["depends_on"]["redis"]["condition"] = "service_is_well"


def _misspell_container(document: Any) -> None:
    document["spec"]["template"]["spec"]["initContainers"][0]["restartPolcy"] = "Always"


def _port_as_text(document: Any) -> None:
    document["spec"]["template"]["spec"]["initContainers"][0]["ports"][0]["containerPort"] = "8080"


@pytest.mark.parametrize(
    ("kind", "harm"),
    [
        ("compose", _misspell_service),
        ("compose", _no_such_condition),
        ("Deployment", _misspell_container),
        ("Deployment", _port_as_text),
    ],
)
def test_the_schemas_find_what_is_wrong(kind: str, harm: Callable[[Any], None]) -> None:
    document = copy.deepcopy(compose() if kind == "compose" else manifest(kind))
    harm(document)
    with pytest.raises(jsonschema.ValidationError):
        validator("compose" if kind == "compose" else kind_of(document)).validate(document)


def test_a_file_says_that_it_was_not_run() -> None:
    for name in ("compose.yaml", "kubernetes.yaml"):
        assert "Checked against the published schema, not run" in (FOLDER / name).read_text()
    assert "Not built or run with an engine" in (FOLDER / "Dockerfile").read_text()


# True to the program


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_takes_effect(name: str, tmp_path: Path) -> None:
    one = container(name, tmp_path / "token")
    variables = {variable for variable in one.environment if variable.startswith(PREFIX)}
    assert variables == {
        source for _, source in one.settings().values() if source.startswith(PREFIX)
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_port_is_one_of_vauriens(name: str, tmp_path: Path) -> None:
    one = container(name, tmp_path / "token")
    settings = one.settings()
    names = ["http-port", "toxiproxy-port"] if name == "image" else ["http-port"]
    ours = {int(settings[setting][0]) for setting in names}
    if name == "kubernetes":
        assert settings["local"][0].startswith("127.0.0.1:")  # the pod's own
    assert one.ports == ours


def test_all_that_the_texts_name_is_there() -> None:
    flags = {f"--{option.key}" for option in SETTINGS}
    variables = {PREFIX + option.key.upper().replace("-", "_") for option in SETTINGS}
    variables |= {"VAURIEN_CONFIG", "VAURIEN_HOST"}  # the second is vaurienctl's
    for path in (PAGE, *(path for path in FOLDER.iterdir() if path.is_file())):
        text = path.read_text()
        named = {name for name in re.findall(r"\bVAURIEN_[A-Z_]+\b", text) if name[-1] != "_"}
        handlers = {name for name in named if name.startswith("VAURIEN_HANDLERS_")}
        assert named - handlers <= variables, path
        assert set(re.findall(r"(?<!\w)--(?:http|toxiproxy|drain|log)[a-z-]*", text)) <= flags, path


@pytest.mark.parametrize("name", ["compose", "kubernetes"])
def test_the_engine_waits_longer_than_vaurien_drains(name: str, tmp_path: Path) -> None:
    drain = float(container(name, tmp_path / "token").environment["VAURIEN_DRAIN"])
    if name == "compose":
        grace = float(compose()["services"]["vaurien"]["stop_grace_period"].removesuffix("s"))
    else:
        pod = manifest("Deployment")["spec"]["template"]["spec"]
        grace = pod["terminationGracePeriodSeconds"]
    assert drain + 2 < grace  # a polite end takes up to a second more


# As little as possible


def test_the_image_runs_as_nobody_in_particular_and_without_a_shell() -> None:
    assert len(stages()) == 2
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", only("USER").text)
    assert only("ENTRYPOINT").words == ["vaurien"]
    assert health_check()[0] in MODULES
    assert getattr(signal, only("STOPSIGNAL").text) == signal.SIGTERM
    assert not [one for one in stages()[-1] if one.name in ("RUN", "ADD", "VOLUME")]


def test_images_have_versions() -> None:
    (python,) = (one.text for one in instructions() if one.text.startswith("PYTHON="))
    bases = {one.text.split()[0] for stage in stages() for one in stage if one.name == "FROM"}
    assert bases == {"python:${PYTHON}-slim-trixie"}
    minor = python.removeprefix("PYTHON=")
    assert f"Python :: {minor}" in (ROOT / "pyproject.toml").read_text()
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    images = [service["image"] for service in compose()["services"].values()]
    images += [one["image"] for one in pod["initContainers"] + pod["containers"]]
    assert set(images) == {"vaurien:local", "redis:7.4-alpine"}


def test_the_pods_containers_can_do_little() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["enableServiceLinks"] is False
    assert sidecar()["restartPolicy"] == "Always"
    user, group = map(int, only("USER").text.split(":"))
    assert pod["securityContext"]["fsGroup"] == group  # may read the token
    for one in pod["initContainers"] + pod["containers"]:
        context = one["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (user, group)
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert one["resources"]["requests"] and one["resources"]["limits"]


def test_the_token_file_is_where_the_secret_is_mounted() -> None:
    (mount,) = sidecar()["volumeMounts"]
    (volume,) = manifest("Deployment")["spec"]["template"]["spec"]["volumes"]
    assert volume["name"] == mount["name"]
    file = manifest("ConfigMap")["data"]["VAURIEN_HTTP_TOKEN_FILE"]
    assert file == f"{mount['mountPath']}/token"
    name = volume["secret"]["secretName"]
    made = f"create secret generic {name} --from-literal=token="
    assert made in (FOLDER / "kubernetes.yaml").read_text()


def test_compose_lets_only_this_machine_at_the_api_and_nobody_past_vaurien() -> None:
    services = compose()["services"]
    assert services["vaurien"]["ports"] == ["127.0.0.1:8080:8080"]
    assert "ports" not in services["redis"] and "ports" not in services["application"]
    assert not {*services["application"]["networks"]} & {*services["redis"]["networks"]}
    assert services["vaurien"]["read_only"] and services["vaurien"]["cap_drop"] == ["ALL"]


# Enough to run it


def on_loopback(environment: dict[str, str], distant: str) -> dict[str, str]:
    """The environment, with addresses that are free here; nothing else is in it."""
    places = {"VAURIEN_LOCAL": "127.0.0.1:0", "VAURIEN_DISTANT": distant}
    if "VAURIEN_HTTP_HOST" in environment:
        places["VAURIEN_HTTP_HOST"] = "127.0.0.1"
    assert {*places} <= {*environment}
    return {**environment, **places, "VAURIEN_HTTP_PORT": "0"}


def started(one: Container, distant: str) -> Program:
    """Vaurien with what an engine would give it."""
    program = Program(*one.arguments, cwd=ROOT)
    program.env = on_loopback(one.environment, distant)
    return program


def api(program: Program, name: str = "http") -> str:
    """Where its API listens."""

    def found() -> str:
        matches = (re.match(rf"{name} listening on (\S+)", line) for line in program.output)
        return next((match[1] for match in matches if match), "")

    return wait_for(found, "the line that tells where the API listens")


def entered(command: list[str], environment: dict[str, str], address: str) -> int:
    """The exit code of a command that is typed in the container, or that its engine runs there."""
    name, *arguments = command
    done = subprocess.run(
        [sys.executable, "-m", MODULES[name], *arguments],
        env={**environment, "VAURIEN_HOST": address},
        cwd=ROOT,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode


def well(command: list[str], environment: dict[str, str], address: str) -> bool:
    """Whether a health check ends with 0."""
    return entered(command, environment, address) == 0


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_by_its_environment_alone(name: str, echo_backend: Backend, tmp_path: Path) -> None:
    one = container(name, tmp_path / "token")
    has_token = name != "image"
    with started(one, echo_backend.address) as program:
        address = api(program)
        url = f"http://{address}"
        for path in {"/health", *one.probes}:
            answer = requests.get(url + path, timeout=PATIENCE)
            assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        for command in one.health:  # as an engine does: again, on a busy machine
            wait_for(partial(well, command, program.env, address), " ".join(command))

        refusal = requests.get(f"{url}/state", timeout=PATIENCE).status_code
        assert refusal == (401 if has_token else 200)
        headers = {"Authorization": f"Bearer {TOKEN}"} if has_token else {}
        now = requests.get(f"{url}/behavior", headers=headers, timeout=PATIENCE).json()
        assert now["behavior"] == one.environment["VAURIEN_BEHAVIOR"]
        if has_token:
            assert now["handlers"]["delay"]["sleep"] == 0.5

        done = requests.post(f"{url}/proxies/default/reset", headers=headers, timeout=PATIENCE)
        assert done.status_code == 204
        with program.dial() as client:
            assert exchange(client, b"through the sidecar") == b"through the sidecar"
        assert echo_backend.accepted == 1
        assert program.stop(signal.SIGTERM) == 0
        assert not well(one.health[0], program.env, address)


def commands() -> list[list[str]]:
    """The ``docker run`` of the page, as words."""
    text = PAGE.read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.startswith("   docker run ")]


def given(command: list[str]) -> dict[str, str]:
    """The environment that it makes."""
    words = [word for flag, word in itertools.pairwise(command) if flag == "--env"]
    return {**image_environment(), **dict(word.split("=", 1) for word in words)}


def test_the_command_over_the_compose_file_steers_it(echo_backend: Backend, tmp_path: Path) -> None:
    (line,) = re.findall("^#     (vaurienctl .*)", (FOLDER / "compose.yaml").read_text(), re.M)
    with started(container("compose", tmp_path / "token"), echo_backend.address) as program:
        address = api(program)
        assert entered(shlex.split(line), {"VAURIEN_HTTP_TOKEN": TOKEN}, address) == 0
        headers = {"Authorization": f"Bearer {TOKEN}"}
        now = requests.get(f"http://{address}/handler", headers=headers, timeout=PATIENCE).json()
    assert (now["name"], now["options"]["sleep"]) == ("delay", 2)


def test_the_page_shows_the_command_of_the_dockerfile() -> None:
    assert given(commands()[0]) == _image().environment


def test_the_pages_toxiproxy_serves_clients_without_a_token_but_no_web_page(
    echo_backend: Backend,
) -> None:
    environment = given(commands()[-1])
    checked(env=environment)
    free = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": "0", "TOXIPROXY_PORT": "0"}
    program = Program(cwd=ROOT)
    program.env = {**environment, **{PREFIX + name: value for name, value in free.items()}}
    program.spawn()
    try:
        url = f"http://{api(program, 'toxiproxy')}/proxies"
        made = {"name": "redis", "listen": "127.0.0.1:0", "upstream": echo_backend.address}
        answer = requests.post(url, json=made, timeout=PATIENCE)
        assert answer.status_code == 201
        with dial(answer.json()["listen"]) as client:
            assert exchange(client, b"ping") == b"ping"
        for headers in ({"Host": "rebound.example"}, {"Origin": "http://page.example"}):
            assert requests.get(url, headers=headers, timeout=PATIENCE).status_code == 403
        assert program.stop() == 0
    finally:
        program.__exit__()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[str]:
    """A Redis at a unix socket."""
    path = tmp_path / "redis.sock"
    process = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", ""],
        stdout=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    try:
        wait_for(path.exists, "redis-server to listen")
        yield f"unix:{path}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.program("redis-server")
@pytest.mark.program("redis-cli")
@pytest.mark.parametrize("name", ["compose", "kubernetes"])
def test_the_application_reaches_redis_through_it(
    name: str, redis_server: str, tmp_path: Path
) -> None:
    if name == "compose":
        command = compose()["services"]["application"]["command"]
        assert command[1:5] == ["-h", "vaurien", "-p", "6379"]  # VAURIEN_LOCAL's port
    else:
        (application,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
        command = application["command"]
        there = manifest("ConfigMap")["data"]["VAURIEN_LOCAL"]
        assert there == f"{command[2]}:{command[4]}"
    assert command[0] == "redis-cli" and command[5:9] == ["-r", "-1", "-i", "1"]
    one = container(name, tmp_path / "token")
    one.environment["VAURIEN_BEHAVIOR"] = "100:dummy"
    with started(one, redis_server) as program:
        host, _, port = program.address.rpartition(":")
        often = ["redis-cli", "-h", host, "-p", port, "-r", "3", "-i", "0.01", *command[9:]]
        output = subprocess.check_output(often, text=True, timeout=PATIENCE)
    assert output.split() == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VAURIEN_BEHAVIOR", "20:dealy"),
        ("VAURIEN_LOCAL", "6379"),
        ("VAURIEN_DISTANT", "redis"),
        ("VAURIEN_BEHAVIOR", "200:delay"),
        ("VAURIEN_HANDLERS_DELAY_SLEEP", "long"),
        ("VAURIEN_DRAIN", "-1"),
        ("VAURIEN_SPIN", "0.5"),
        ("VAURIEN_LOG_FORMAT", "xml"),
        ("VAURIEN_HTTP", "perhaps"),
        ("VAURIEN_HTTP_HOST", "http://0.0.0.0"),
        ("VAURIEN_HTTP_PORT", "http"),
        ("VAURIEN_HTTP_TOKEN_FILE", "/run/secrets/there/is/none"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_variable(
    variable: str, value: str, tmp_path: Path
) -> None:
    one = container("kubernetes", tmp_path / "token")
    sentence = refused("--check", *one.arguments, env={**one.environment, variable: value})
    assert sentence.startswith(f"vaurien: {variable}: ")
    assert value.rpartition(":")[2] in sentence
    if value == "20:dealy":  # the page shows it
        assert f"\n   {sentence}\n" in PAGE.read_text()


@pytest.mark.parametrize("name", ["compose", "kubernetes"])
def test_without_a_token_it_does_not_start(name: str, tmp_path: Path) -> None:
    one = container(name, tmp_path / "token")
    left = {k: v for k, v in one.environment.items() if not k.startswith("VAURIEN_HTTP_TOKEN")}
    assert refused("--check", *one.arguments, env=left).startswith(
        "vaurien: VAURIEN_HTTP_HOST: '0.0.0.0' "
    )


def test_an_empty_token_is_none(tmp_path: Path) -> None:
    one = container("kubernetes", tmp_path / "token")
    (tmp_path / "token").write_text("\n")
    sentence = refused("--check", *one.arguments, env=one.environment)
    assert sentence.startswith("vaurien: VAURIEN_HTTP_TOKEN_FILE: ")


def test_a_misspelt_variable_is_told_with_the_right_one(tmp_path: Path) -> None:
    one = container("compose", tmp_path / "token")
    one.environment["VAURIEN_BEHAVIOUR"] = "5:error"
    with started(one, "127.0.0.1:9") as program:
        program.wait_log(
            r"VAURIEN_BEHAVIOUR in the environment is not a setting.*VAURIEN_BEHAVIOR\b"
        )


# Built


def context(to: Path) -> None:
    """The files that the engine gets of the source tree."""
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"  # nothing but
    for name in (pattern[1:] for pattern in patterns if pattern.startswith("!")):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)


@pytest.mark.timeout(300)
@pytest.mark.skipif(not os.environ.get("CI"), reason="pip asks the package index; CI runs it")
def test_the_steps_of_the_image_give_what_it_starts(tmp_path: Path) -> None:
    source, target, work = tmp_path / "src", tmp_path / "opt", tmp_path / "work"
    for folder in (source, work):
        folder.mkdir()
    context(source)
    (argument,) = (one.text for one in stages()[0] if one.name == "ARG")
    name, _, default = argument.partition("=")
    kept = {k: v for k, v in os.environ.items() if k == "HOME" or k.startswith("PIP_")}
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    run = only("RUN", 0).text.replace("/opt/vaurien", str(target))
    built = subprocess.run(
        ["/bin/sh", "-c", run],
        cwd=source,
        env={**kept, "PATH": path, name: default.replace("/src", str(source))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr

    env = {**image_environment(), "VAURIEN_HTTP_PORT": "0", "PATH": f"{target}/bin"}
    process = subprocess.Popen(
        [target / "bin" / only("ENTRYPOINT").words[0]],
        cwd=work,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # no proxy: the API is all
        found = re.match(r"http listening on (\S+)", line)
        assert found is not None, line
        health = health_check()
        subprocess.run(
            [target / "bin" / health[0], *health[1:]],
            cwd=work,
            env={**env, "VAURIEN_HOST": found[1]},
            timeout=PATIENCE,
            check=True,
        )
        process.send_signal(getattr(signal, only("STOPSIGNAL").text))
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()
    assert not list(work.iterdir())
