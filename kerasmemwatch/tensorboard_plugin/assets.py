"""Files of the tab: a fixed table, so that no request names a file."""

from __future__ import annotations

import functools
import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources

__all__ = ["ASSETS", "Asset", "load_own"]

_JAVASCRIPT, _CSS = "text/javascript", "text/css"
_OWN = {
    "index.js": _JAVASCRIPT,
    "app.js": _JAVASCRIPT,
    "bytes.js": _JAVASCRIPT,
    "dom.js": _JAVASCRIPT,
    "link.js": _JAVASCRIPT,
    "rows.js": _JAVASCRIPT,
    "views.js": _JAVASCRIPT,
    "style.css": _CSS,
}


@dataclass(frozen=True)
class Asset:
    """A file of a package."""

    package: str  # the package that contains it
    path: str  # its path within the package
    content_type: str  # its media type; not guessed, because some Windows set-ups guess wrongly

    def compressed(self) -> bytes:
        """Its content, compressed by gzip: the plotting library is large, and its transfer delays the first paint."""
        return _compressed(self.package, self.path)

    def etag(self) -> str:
        """Entity tag, which changes with its content, so that browsers can cache it."""
        return _etag(self.package, self.path)


@functools.cache
def _compressed(package: str, path: str) -> bytes:
    return gzip.compress(resources.files(package).joinpath(path).read_bytes(), 6, mtime=0)


@functools.cache
def _etag(package: str, path: str) -> str:
    return hashlib.sha256(_compressed(package, path)).hexdigest()[:32]


ASSETS = {
    **{f"/{name}": Asset("kerasmemwatch.tensorboard_plugin", f"static/{name}", kind) for name, kind in _OWN.items()},
    "/plotly.js": Asset("plotly", "package_data/plotly.min.js", _JAVASCRIPT),
}


def load_own() -> None:
    """Read the tab's own files now: an upgrade under a running TensorBoard would mix new scripts with old routes."""
    for name in _OWN:
        ASSETS[f"/{name}"].compressed()
