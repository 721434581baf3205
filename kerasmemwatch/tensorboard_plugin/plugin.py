"""HTTP routes of the tab; ``queries`` and ``views`` make the answers."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from typing import Any

from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from kerasmemwatch.compat.tensorboard import EXPERIMENT_ID, PUBLIC_ERROR, REQUEST_CONTEXT, RESPOND
from kerasmemwatch.errors import InvalidArgumentError, MemWatchError, RecordingNotFoundError
from kerasmemwatch.storage.codecs.row_codec import PLUGIN_NAME
from kerasmemwatch.tensorboard_plugin.assets import ASSETS, Asset, load_own
from kerasmemwatch.tensorboard_plugin.queries import Queries
from kerasmemwatch.tensorboard_plugin.views import VIEWS, run_list

__all__ = ["MemoryPlugin"]

logger = logging.getLogger(__name__)

_JSON = "application/json"
_Route = Callable[[Any, Any], Any]


class MemoryPlugin(base_plugin.TBPlugin):
    """The Memory tab."""

    plugin_name = PLUGIN_NAME

    def __init__(self, context: Any) -> None:
        self._queries = Queries(context.data_provider, getattr(context, "logdir", None) or "")
        self._context, self._experiment = REQUEST_CONTEXT.get(), EXPERIMENT_ID.get()
        for name in (RESPOND, PUBLIC_ERROR):
            name.owner()  # else there is no tab at all
        load_own()

    def get_plugin_apps(self) -> dict[str, _Route]:
        """The routes, each a WSGI application."""
        return {
            **{route: _get(functools.partial(_asset, asset)) for route, asset in ASSETS.items()},
            "/runs": _get(self._runs),
            **{f"/{name}": _get(functools.partial(self._view, view)) for name, view in VIEWS.items()},
        }

    def is_active(self) -> bool:
        """Return ``False``: TensorBoard itself determines whether a run has our data."""
        return False

    def frontend_metadata(self) -> Any:
        """Name of the tab, and its first script."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Memory")

    def _runs(self, request: Any) -> Any:
        context, experiment = self._context(request.environ), self._experiment(request.environ)
        return RESPOND.get()(request, run_list(self._queries, context, experiment), _JSON)

    def _view(self, view: Callable[..., Any], request: Any) -> Any:
        context, experiment = self._context(request.environ), self._experiment(request.environ)
        names = request.args.getlist("run")
        if not names:
            raise InvalidArgumentError("Expected the name of a run. Received: no parameter `run`.")
        text = self._queries.answer(context, experiment, names, lambda found: _text(view(found, request.args)))
        return RESPOND.get()(request, text, _JSON)


def _asset(asset: Asset, request: Any) -> Any:
    """Answer with a file, or "not modified". The browser asks each time, so it cannot mix files of two versions."""
    response = RESPOND.get()(request, asset.compressed(), asset.content_type, content_encoding="gzip")
    response.set_etag(asset.etag(), weak=True)  # the same whether it is sent compressed or not
    return response.make_conditional(request)


def _text(content: dict[str, Any]) -> str | dict[str, Any]:
    """Encode as JSON; content with NaN or infinity is left to ``http_util``, which takes three times as long."""
    try:
        return json.dumps(content, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return content


def _get(handle: Callable[[Any], Any]) -> _Route:
    """Make a WSGI application that answers GET, and reports errors as JSON."""

    @wrappers.Request.application
    def application(request: Any) -> Any:
        if request.method not in ("GET", "HEAD"):
            content = {"error": f"Expected GET. Received: {request.method}."}
            return RESPOND.get()(request, content, _JSON, code=405, headers=[("Allow", "GET")])
        try:
            return handle(request)
        except (MemWatchError, PUBLIC_ERROR.get()) as error:
            return RESPOND.get()(request, {"error": str(error)}, _JSON, code=_code(error))
        except Exception:
            logger.exception("The Memory tab could not answer %s", request.path)
            content = {"error": "This view failed; see TensorBoard's log. Other runs are not affected."}
            return RESPOND.get()(request, content, _JSON, code=500)

    return application


def _code(error: Exception) -> int:
    if isinstance(error, PUBLIC_ERROR.get()):
        return int(error.http_code)
    return 404 if isinstance(error, RecordingNotFoundError) else 400 if isinstance(error, InvalidArgumentError) else 422
