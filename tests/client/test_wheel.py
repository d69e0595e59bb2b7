"""What other services install: the client alone, for old Pythons and without Django."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import chaski

ROOT = pathlib.Path(chaski.__file__).parent.parent
PACKAGES = ("chaski", "channels", "deliveries", "config")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that building leaves nothing behind in the sources."""
    copy = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "README.md").write_text("# Chaski\n")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "out"), str(copy))
    return next((copy / "out").glob("*.whl"))


def test_the_wheel_holds_the_client_alone_with_its_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "chaski",
        f"chaski_client-{chaski.__version__}.dist-info",
    }
    assert "chaski/py.typed" in names
    assert wheel.name == f"chaski_client-{chaski.__version__}-py3-none-any.whl"


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own_without_django(wheel, tmp_path):
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    python = str(tmp_path / "venv" / "bin" / "python")
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", "--disable-pip-version-check", str(wheel))
    assert run(python, "-c", "import chaski; print(chaski.send.__name__)", cwd=tmp_path) == "send\n"
    client = "chaski.Client('http://x', 'ck_a')"
    refused = f"import chaski\ntry: {client}\nexcept chaski.ConfigurationError as e: print(e)"
    assert "pip install 'urllib3>=2'" in run(python, "-c", refused, cwd=tmp_path)
    spec = importlib.util.find_spec("urllib3")
    assert spec is not None
    assert spec.origin is not None
    shutil.copytree(pathlib.Path(spec.origin).parent, tmp_path / "urllib3")
    made = f"import sys, chaski; print({client}, 'django' in sys.modules)"
    assert run(python, "-c", made, cwd=tmp_path) == "<chaski.Client http://x> False\n"


@pytest.mark.parametrize("source", sorted((ROOT / "chaski").glob("*.py")), ids=lambda path: path.name)
def test_the_client_keeps_to_the_grammar_of_python_3_9(source):
    tree = ast.parse(source.read_text(), feature_version=(3, 9))
    imports = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert "__future__" in imports or not imports
