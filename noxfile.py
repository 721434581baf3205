"""Checks that need environments of their own: what is built is whole, and the versions that setup.cfg allows work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import nox

ROOT = Path(__file__).parent
ATTRIBUTION = (
    "private_names",
    "attribution",
    "modes",
    "exactness",
    "tracing",
    "xla_buffers",
    "first_calls",
    "inventory",
)
TRAIN = """
import keras, numpy

model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32), keras.layers.Dense(1)])
model.compile("adam", "mse")
model.fit(numpy.ones((64, 16)), numpy.ones((64, 1)), batch_size=8, verbose=0)
"""

nox.needs_version = ">=2025.2.9"
# Far faster than pip, where it is there.
nox.options.default_venv_backend = "uv|virtualenv"


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the sdist, and the wheel from it; install that in an empty environment, and use it as a user does."""
    _plain(session)
    shutil.rmtree(_away(session), ignore_errors=True)
    tree, away = _away(session) / "tree", _away(session) / "logs"
    # Setuptools adds to the tree, and what an earlier build left there hides what is missing.
    skipped = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "tests")
    shutil.copytree(ROOT, tree, ignore=skipped)
    away.mkdir()
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(tree / "dist"), str(tree), silent=True)
    session.install(f"kerasmemwatch[tensorflow,demo] @ {_wheel(session).as_uri()}")
    with session.chdir(away):
        session.run("kerasmemwatch", "demo", "--epochs", "1", "--log-dir", "demo", silent=True)
        Path("train.py").write_text(TRAIN)
        session.run("kerasmemwatch", "run", "--log-dir", "run", "train.py")
    _look(session)


@nox.session(requires=["wheel"])
def without_tensorflow(session: nox.Session) -> None:
    """The same wheel beside TensorBoard alone: what was recorded is printed, written and served."""
    _plain(session)
    session.install(str(_wheel(session)))
    _look(session)
    session.run("python", "-c", "import tensorflow", success_codes=[1], silent=True)


@nox.session
@nox.parametrize(("tensorflow", "keras"), [(None, None), ("2.21", "3.15")], ids=["oldest", "2.21"])
def versions(session: nox.Session, tensorflow: str | None, keras: str | None) -> None:
    """The tests that hold attribution, with the oldest of everything that setup.cfg allows, and with what came since.

    What follows ``--`` goes to pytest in place of all of these tests.
    """
    _plain(session)
    session.install(*(_needed("=={}.*") if tensorflow is None else _needed(">={}")), "pytest", "pytest-xdist")
    if tensorflow:
        session.install(f"tensorflow=={tensorflow}.*", f"keras=={keras}.*")
    tests = session.posargs or [f"tests/integration/test_{name}.py" for name in ATTRIBUTION]
    session.run("python", "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "--durations", "3", *tests)


def _needed(versions: str) -> Iterator[str]:
    """What is needed at run time, with what is demanded of its version instead of ``>=``."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    needed = config["options"]["install_requires"] + config["options.extras_require"]["tensorflow"]
    for requirement in needed.split():
        name, oldest = requirement.split(">=")
        yield name + versions.format(oldest)


def _plain(session: nox.Session) -> None:
    """Import what is installed, with the caches that make the second import of TensorFlow take seconds."""
    session.env.update(PYTHONPATH=None, PYTHONDONTWRITEBYTECODE=None, TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")


def _look(session: nox.Session) -> None:
    """Look at what was recorded, away from the tree, in every way there is."""
    with session.chdir(_away(session) / "logs"):
        shown = session.run("kerasmemwatch", "show", "run", silent=True)
        assert "At the traced peak" in str(shown), shown
        session.run("kerasmemwatch", "report", "run", "-o", "report.html")
        compared = session.run("kerasmemwatch", "compare", "demo", "run", silent=True)
        assert "dense" in str(compared), compared
        session.run("python", str(ROOT / "tests" / "served_tab.py"), "run")


def _away(session: nox.Session) -> Path:
    return Path(session.cache_dir).resolve() / "installed"


def _wheel(session: nox.Session) -> Path:
    [found] = (_away(session) / "tree" / "dist").glob("*.whl")
    return found
