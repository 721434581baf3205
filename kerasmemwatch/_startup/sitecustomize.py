"""Start-up of each Python below ``kerasmemwatch run`` (see launch.py): watches Keras once it is imported.

Every Python that the script starts runs this, including older versions and other environments. So the syntax is
plain, nothing is imported that Python has not loaded already, and no fault may reach the script.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class KerasFinder:
    """Finds ``keras`` as the other finders do, and adds the watch as soon as it is imported."""

    def find_spec(self, fullname: str, path: "Any" = None, target: "Any" = None) -> "ModuleSpec | None":
        """Return the other finders' spec, with its loader prepared."""
        if fullname != "keras":
            return None
        for finder in sys.meta_path:
            find_spec = None if finder == self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec and find_spec(fullname, path, target)
            if spec:
                self._prepare(spec.loader)
                return spec
        return None

    def _prepare(self, loader: "Any") -> None:
        execute = getattr(loader, "exec_module", None)
        if not execute:
            return

        def exec_module(module: "ModuleType") -> None:
            del loader.exec_module
            try:
                execute(module)
            except BaseException as error:
                # The traceback is the script's, and Python hides import machinery only if its frames are contiguous.
                error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
                raise
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder != self]
            _watch_keras()

        loader.exec_module = exec_module


def _watch_keras() -> None:
    try:
        _make_importable()
        from kerasmemwatch.commands.run import autowatch

        autowatch.install()
    except Exception as error:
        import logging

        logging.getLogger("kerasmemwatch").warning("Training is not recorded: %s: %s", type(error).__name__, error)


def _make_importable() -> None:
    """Load the package that started this run if the script's path has none (a mere folder of that name is none)."""
    from importlib import util

    spec = util.find_spec("kerasmemwatch")
    if spec and spec.origin:
        return
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = util.spec_from_file_location("kerasmemwatch", os.path.join(package, "__init__.py"))
    assert spec and spec.loader
    sys.modules["kerasmemwatch"] = module = util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _start() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.path_importer_cache.pop(here, None)
    if sys.version_info >= (3, 11):  # noqa: UP036 (children may be of any version)
        sys.meta_path.insert(0, KerasFinder())
    # The sitecustomize of a plain run takes our place. If there is none, the ImportError is the one that site.py
    # expects, and there is no such module afterwards.
    del sys.modules["sitecustomize"]
    __import__("sitecustomize")


# Test runners import every file under another name.
if __name__ == "sitecustomize":
    _start()
