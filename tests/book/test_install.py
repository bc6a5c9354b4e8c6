"""What Colab does: install the package into an environment of its own, away from the repository, and run a chapter."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from house_rules import ROOT, chapter_paths

NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", "_build", "__pycache__", ".*_cache", ".ipynb_checkpoints"
)
ACTIVE = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "MPLBACKEND"}
FILES = "from importlib.metadata import files; print(*files('cnflib'), sep='\\n')"
WHERE = "import cnflib; print(cnflib.__file__)"
EXECUTE = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command as if no environment were active; return its output, or fail with all it said."""
    env = {k: v for k, v in os.environ.items() if k not in ACTIVE}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def need_an_index(pip: list[str | Path], cwd: Path) -> None:
    """Skip on a machine that reaches no package index; never in continuous integration."""
    try:
        run(*pip, "download", "--timeout", "30", "--no-deps", "--no-cache-dir", "iniconfig", cwd=cwd)
    except AssertionError:
        if "CI" in os.environ:
            raise
        pytest.skip("no package index within reach")


@pytest.mark.slow
def test_the_installed_package_runs_the_first_chapter(tmp_path):
    away, venv = tmp_path / "away", tmp_path / "venv"
    away.mkdir()
    repository = shutil.copytree(ROOT, tmp_path / "repository", ignore=NOT_COPIED)
    notebook = shutil.copy(chapter_paths()[0], away)
    run(sys.executable, "-m", "venv", venv, cwd=away)
    python = venv / "bin" / "python"
    pip, pins = [python, "-m", "pip"], ["-c", ROOT / "constraints.txt"]
    need_an_index(pip, away)
    run(*pip, "install", "--no-compile", *pins, repository, "ipykernel", "nbclient", cwd=away)

    files = run(python, "-c", FILES, cwd=away).split()
    assert "cnflib/py.typed" in files
    assert {file.split("/")[0].split("-")[0] for file in files} == {"cnflib"}
    assert run(python, "-c", WHERE, cwd=away).startswith(str(venv.resolve()))
    run(python, "-c", EXECUTE, notebook, cwd=away)
