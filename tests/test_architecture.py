"""The rules of the house that a machine can check (imports between folders are `lint-imports`' work)."""

from __future__ import annotations

import ast
import enum
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from inspector import config, records
from tests import contracts

PACKAGE = contracts.REPOSITORY / "inspector"
HEAVY = ("numpy", "cv2", "onnxruntime", "torch", "ezdxf")

THREADS_ELSEWHERE = {
    "outputs/metrics.py": "answers whoever scrapes; reads counters and holds nothing",
    "sources/simulated.py": "a process of its own draws the pictures, as a camera's sensor would",
    "sources/opencv.py": "OpenCV can block for ever; what blocks is left behind",
    "sources/aravis.py": "saying goodbye to a camera that does not answer takes seconds",
}
"""Files outside `runtime/` that start a thread or a process, and why. Offline and edge folders are not the daemon."""
OFFLINE = ("workshop/", "commands/", "desk/", "bridges/", "client.py")

BROAD_EXCEPTS = {
    "config/__init__.py": "whatever a plug-in of another package fails with, who brought it must know",
    "geometry/dxf.py": "ezdxf's repair raises whatever a broken file makes it raise",
    "neural/model.py": "ONNX Runtime exports no root of its exceptions",
    "neural/crew.py": "what goes wrong in a helper is raised where the work was asked for",
    "__main__.py": "the last one who can speak to the user",
    "judge.py": "one frame's trouble is that frame's alone",
    "runtime/daemon.py": "who asked for a reload gets what came of it, whatever it is",
    "runtime/stages.py": "whatever a check has said that cannot be told, it is that frame's alone",
    "runtime/changeover.py": "whatever is wrong with a new recipe, the old one stays",
    "runtime/changeover_candidate.py": "whatever is wrong with a new recipe, it is said to who asked",
    "runtime/vision.py": "the last one of its process who can speak to the user",
    "runtime/worker.py": "a thread that dies must end the process, whatever it died of",
    "workshop/foreign.py": "whatever the runtime says of a foreign model, the model is at fault",
    "workshop/train.py": "an unpickler raises what it likes",
}
"""Files that may catch everything and go on, and why."""

PURE = ("judge.py", "gate/ledger.py", "gate/told.py", "gate/protocol.py", "records.py", "interfaces.py")
IMPURE_MODULES = {"time", "threading", "socket", "subprocess", "sqlite3", "zmq", "os", "random", "logging", "pathlib", "datetime"}

QUANTITY = re.compile(r"(^|_)(timeout|delay|duration|interval|period|deadline|angle|distance|elapsed|latency|diameter)$")


def sources() -> Iterator[tuple[str, ast.Module]]:
    """(path within the package, syntax tree) of every file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports while it runs, by its full name; what is imported for the type checker only is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


@pytest.mark.parametrize("module", ["config", "client", "runtime.gate", "runtime.daemon", "__main__", "commands.check", "commands.run"])
def test_what_the_gate_process_imports_stays_light(module: str) -> None:
    code = f"import sys, inspector.{module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr


def test_one_folder_has_threads_and_processes() -> None:
    starters = {"threading.Thread", "multiprocessing", "subprocess", "concurrent.futures", "asyncio"}
    found = set()
    for path, tree in sources():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        names = {m for m in imported(tree) if m.split(".")[0] in starters or m in starters}
        if (names or "threading.Thread" in calls or "os.fork" in calls) and not path.startswith(("runtime/", *OFFLINE)):
            found.add(path)
    assert found == set(THREADS_ELSEWHERE)


def test_records_cannot_be_changed() -> None:
    classes = [each for each in vars(records).values() if isinstance(each, type) and each.__module__ == records.__name__]
    found = [each for each in classes if not issubclass(each, (Exception, enum.Enum))]
    assert len(found) >= 16
    for record in found:
        if issubclass(record, tuple):
            assert vars(record)["_fields"], record
        else:
            assert record.__dataclass_params__.frozen, record  # type: ignore[attr-defined]
            assert "__slots__" in vars(record), record


def test_only_few_catch_everything() -> None:
    found = set()
    for path, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler) or ast.unparse(node.body[-1]) == "raise":
                continue
            if node.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(node.type)):
                found.add(path)
    assert found == set(BROAD_EXCEPTS)


@pytest.mark.parametrize("path", PURE)
def test_the_core_is_pure(path: str) -> None:
    modules = {name.split(".")[0] for name in imported(ast.parse((PACKAGE / path).read_text()))}
    assert not modules & IMPURE_MODULES


def test_quantities_end_with_their_unit() -> None:
    nameless = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                name, annotation = node.arg, node.annotation
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name, annotation = node.target.id, node.annotation
            else:
                continue
            if annotation is not None and re.search(r"\b(int|float)\b", ast.unparse(annotation)) and QUANTITY.search(name):
                nameless.append(f"{path}:{node.lineno} {name}")
    assert not nameless


def test_nobody_is_called_utils() -> None:
    assert not [path for path, _ in sources() if re.search(r"(^|/)(utils?|helpers?|common|misc)\.py$", path)]


@pytest.mark.parametrize(("folder", "kind"), contracts.kinds())
def test_the_docstring_of_a_kind_ends_with_the_yaml_that_turns_it_on(folder: str, kind: str, tmp_path: Path) -> None:
    module = config.plugin(folder, kind)
    ((name, mapping),) = yaml.safe_load(contracts.example(module)).items()
    assert mapping["kind"] == kind
    assert name == {"sources": "source", "conveyor": "conveyor"}.get(folder, name)
    contracts.settings(folder, kind, contracts.sandbox_in(tmp_path))


@pytest.mark.parametrize(("folder", "kind"), contracts.kinds())
def test_a_kind_is_settings_and_build(folder: str, kind: str) -> None:
    module = config.plugin(folder, kind)
    assert issubclass(module.Settings, config.Strict)
    assert module.build.__doc__
    if folder == "checks":
        assert isinstance(module.NEEDS_RASTER, bool)


def test_every_command_shows_an_example() -> None:
    from inspector.__main__ import application

    def commands(app: object, name: str = "inspector") -> Iterator[tuple[str, str]]:
        for command in app.registered_commands:  # type: ignore[attr-defined]
            if not command.hidden:
                told = command.help or (command.callback.__doc__ or "")
                yield f"{name} {command.name or command.callback.__name__}", told + (command.epilog or "")
        for group in app.registered_groups:  # type: ignore[attr-defined]
            yield from commands(group.typer_instance, f"{name} {group.name}")

    found = dict(commands(application()))
    assert found
    assert not [name for name, told in found.items() if "xample" not in told]
