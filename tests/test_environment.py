"""The environment: one list of pins, one twin for conda, scripts that install once and fail kindly."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from zerosearch import artifacts, environment
from zerosearch.checks import DISTRIBUTION

REPO = artifacts.REPO
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCRIPTS = ("run_all.sh", "run_tests.sh", "scripts/prepare_env.sh", "scripts/sync_notebooks.sh", ".ci/run")
IMPORT_NAMES = {"yaml": "pyyaml", "Stemmer": "pystemmer", "PIL": "pillow", "IPython": "ipython"}
OPTIONAL = {"torchao", "vllm", "triton", "sentence_transformers", "faiss"}  # the extras [quant], [gpu], [dev] and [dense]
NAMED = {"deepspeed"}  # asked for by the dry start of its shardings alone, which says how to install it


def pins() -> dict[str, Requirement]:
    lines = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in wanted}


def closure(name: str, extra: str = "", seen: set[str] | None = None) -> set[str]:
    """Return the installed distributions that a distribution asks for, with theirs."""
    seen = set() if seen is None else seen
    for requirement in map(Requirement, metadata.requires(name) or []):
        key = canonicalize_name(requirement.name)
        marker = requirement.marker
        needed = marker is None or marker.evaluate({"extra": ""}) or marker.evaluate({"extra": extra})
        if needed and key not in seen:
            seen.add(key)
            for inner in {"", *requirement.extras}:
                closure(requirement.name, inner, seen)
    return seen


def test_every_pin_is_exact_and_public() -> None:
    for name, requirement in pins().items():
        assert re.fullmatch(r"==[^*+,]+", str(requirement.specifier)), f"{name}{requirement.specifier}"
        assert requirement.url is None
    assert "zerosearch-workbook" not in pins() and "pip" not in pins()


def test_pins_cover_everything_that_is_installed_for_us() -> None:
    missing = closure(DISTRIBUTION) | closure(DISTRIBUTION, "dev")
    missing -= {
        *pins(),
        "pip",
        *(name for name in missing if name.startswith(("nvidia-", "cuda-"))),
    }
    assert not missing


def test_what_is_installed_agrees_with_the_pins() -> None:
    different = {
        name: found
        for name, requirement in pins().items()
        if (found := environment.installed_version(name))
        and not requirement.specifier.contains(found, prereleases=True)
    }
    assert not different


def test_ranges_of_the_package_contain_the_pins() -> None:
    listed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, listed):
        pin = pins()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(str(pin.specifier).removeprefix("==")), requirement


def test_triton_is_the_one_that_torch_asks_for() -> None:
    """torch's wheels with CUDA name triton exactly; those for CPUs, and on other systems, do not name it."""
    named = [r for r in map(Requirement, metadata.requires("torch") or []) if r.name == "triton"]
    assert all(requirement.specifier == pins()["triton"].specifier for requirement in named)
    assert pins()["torch"].specifier == SpecifierSet("==2.13.0")  # 2.13.0 asks for 3.7.1: change both together
    assert pins()["triton"].specifier == SpecifierSet("==3.7.1")


def test_every_import_of_the_library_is_a_dependency() -> None:
    listed = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    for path in (REPO / "lib" / "zerosearch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in (
                {name.split(".")[0] for name in names} - {*sys.stdlib_module_names, "zerosearch"} - OPTIONAL - NAMED
            ):
                wanted = canonicalize_name(IMPORT_NAMES.get(name, name))
                assert wanted in listed, f"{path.name} imports {name}; add it to pyproject.toml"


def test_the_conda_twin() -> None:
    twin = yaml.safe_load((REPO / "environment.yml").read_text(encoding="utf-8"))
    python = next(
        entry for entry in twin["dependencies"] if isinstance(entry, str) and entry.startswith("python")
    )
    assert python == f"python{PROJECT['requires-python']}"
    by_pip = next(entry["pip"] for entry in twin["dependencies"] if isinstance(entry, dict))
    assert by_pip == ["--constraint constraints.txt", "--editable .[dev]"]
    assert twin["name"] == PROJECT["name"]
    assert str(sys.version_info.major) == "3" and sys.version_info >= (3, 11)


def test_gpu_extra() -> None:
    (gpu,) = map(Requirement, PROJECT["optional-dependencies"]["gpu"])
    assert (
        str(gpu.specifier) == "==0.31.0" and gpu.name == "vllm"
    )  # pins this torch, see the house rules in pyproject


def test_licence() -> None:
    text = (REPO / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0" and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse_stop_on_errors_and_are_executable(name: str) -> None:
    path = REPO / name
    assert os.access(path, os.X_OK)
    assert "\nset -euo pipefail\n" in path.read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_use_nothing_that_the_bash_of_macos_lacks(name: str) -> None:
    text = (REPO / name).read_text(encoding="utf-8")
    newer = (
        "declare -A",
        "mapfile",
        "readarray",
        "${!",
        ",,}",
        "^^}",
        "&>>",
        "readlink -f",
        "sha256sum",
        "wait -n",
    )
    assert not [word for word in newer if word in text]


# --- prepare_env.sh, with a Python that only notes what it is asked ---------------------------------------

FAKE_PYTHON = """#!/usr/bin/env bash
# stands in for a Python: answers the version question, makes venvs of itself, notes what pip is asked
case "$*" in
  --version) echo "Python 3.12.0" ;;
  "-c import sys; sys.exit(sys.version_info < (3, 11))") exit "${FAKE_TOO_OLD:-0}" ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip install "*)
    echo "pip $*" >>"$FAKE_LOG"
    [ -z "${FAKE_PIP_FAILS:-}" ] || { echo "no network" >&2; exit 1; } ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what prepare_env.sh reads, in a folder with a space in its name."""
    folder = tmp_path / "a project"
    (folder / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "scripts/prepare_env.sh"):
        shutil.copy(REPO / name, folder / name)
    fake = tmp_path / "bin" / "python3.11"
    fake.parent.mkdir()
    fake.write_text(FAKE_PYTHON)
    fake.chmod(0o755)
    return folder


def prepare(project: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CONDA", "ZEROSEARCH"))}
    path = f"{project.parent / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
    fixed = {"PATH": path, "FAKE_LOG": str(project / "pip.log"), "REAL_PYTHON": sys.executable}
    command = [str(project / "scripts" / "prepare_env.sh")]
    return subprocess.run(
        command, capture_output=True, text=True, env={**inherited, **fixed, **variables}, timeout=60
    )


def pip_calls(project: Path) -> list[str]:
    return (project / "pip.log").read_text().splitlines() if (project / "pip.log").exists() else []


def test_installs_once_and_again_only_when_the_pins_change(project: Path) -> None:
    first = prepare(project)
    assert first.returncode == 0 and first.stdout.strip() == str(project / ".venv" / "bin" / "python"), (
        first.stderr
    )
    assert len(pip_calls(project)) == 2 and "Installing" in first.stderr
    assert f"-c {project}/constraints.txt" in pip_calls(project)[0]
    second = prepare(project)
    assert second.stdout == first.stdout and second.stderr == "" and len(pip_calls(project)) == 2
    with (project / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    assert prepare(project).returncode == 0 and len(pip_calls(project)) == 4
    assert prepare(project, ZEROSEARCH_EXTRAS="gpu").returncode == 0
    assert pip_calls(project)[-1].endswith("[dev,gpu]")


def test_after_an_installation_that_was_killed_it_starts_over(project: Path) -> None:
    prepare(project)
    (project / ".venv" / "zerosearch-installing").touch()
    (project / ".venv" / "half a package").touch()
    (project / ".env.lock").mkdir()
    (project / ".env.lock" / "pid").write_text("999999999")  # its owner is gone
    assert prepare(project).returncode == 0
    assert not (project / ".venv" / "half a package").exists() and not (project / ".env.lock").exists()
    assert not (project / ".venv" / "zerosearch-installing").exists() and len(pip_calls(project)) == 4


def test_failures_say_what_to_do(project: Path) -> None:
    old = prepare(project, FAKE_TOO_OLD="1", PATH=str(project.parent / "bin") + ":" + str(tools(project)))
    assert (
        old.returncode == 3
        and "expected 3.11 or later, found none of: python3.11" in old.stderr
        and not (project / ".venv").exists()
    )
    failed = prepare(project, FAKE_PIP_FAILS="1")
    assert failed.returncode == 3 and failed.stdout == ""
    assert "no network" in failed.stderr and "run the same command again" in failed.stderr
    assert prepare(project).returncode == 0


def tools(project: Path) -> Path:
    """A folder with what the script calls and no Python."""
    folder = project.parent / "tools"
    folder.mkdir(exist_ok=True)
    for name in ("bash", "env", "dirname", "sed", "mkdir", "cat", "rm", "mv", "cp", "tail", "sleep"):
        if not (folder / name).exists():
            (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def test_the_active_conda_environment_is_used(project: Path, tmp_path: Path) -> None:
    conda = tmp_path / "conda"
    (conda / "bin").mkdir(parents=True)
    shutil.copy(tmp_path / "bin" / "python3.11", conda / "bin" / "python")
    named = {"CONDA_PREFIX": str(conda), "CONDA_DEFAULT_ENV": "zerosearch-workbook"}
    assert prepare(project, **named).stdout.strip() == str(conda / "bin" / "python")
    assert not (project / ".venv").exists()
    assert (
        prepare(project, **{**named, "CONDA_DEFAULT_ENV": "base"}).stdout.strip()
        == f"{project}/.venv/bin/python"
    )


def test_more_options_for_pip(project: Path) -> None:
    prepare(project, ZEROSEARCH_PIP_ARGS="--find-links /wheels")
    assert all("--find-links /wheels" in call for call in pip_calls(project))


# --- facts for manifests ------------------------------------------------------------------------------------


def test_versions_and_machine() -> None:
    versions = environment.library_versions()
    assert versions["numpy"] and versions["torch"].startswith("2.13")
    assert environment.installed_version("no-such-package") is None
    facts = environment.machine()
    assert facts["n_cpus"] >= 1 and facts["python"].startswith("3.") and facts["device"]
    assert facts["cpu"].strip() and "\n" not in facts["cpu"]
    assert environment.peak_rss_mib() > 10


def test_source_version(tmp_path: Path) -> None:
    assert environment.source_version(tmp_path) == {"commit": None, "dirty": False}
