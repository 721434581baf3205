"""The tab's routes, asked as a browser would, without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fakes import append_payload, write_run
from tensorboard.backend import application
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.storage.codecs.row_codec import PLUGIN_NAME
from kerasmemwatch.storage.codecs.step_codec import encode_step
from kerasmemwatch.storage.sinks.tensorboard import STEPS_TAG
from kerasmemwatch.tensorboard_plugin.loader import MemoryLoader

__all__ = ["PREFIX", "Ask", "asking", "client", "sections", "traced"]

PREFIX = f"/data/plugin/{PLUGIN_NAME}"
Ask = Callable[..., tuple[int, Any]]


def client(provider: Any, log_dir: Path | None = None) -> Client:
    """A TensorBoard without sockets whose only plugin is ours; it need not know the log dir."""
    context = base_plugin.TBContext(data_provider=provider, logdir=None if log_dir is None else str(log_dir))
    plugin = MemoryLoader().load(context)
    return Client(application.TensorBoardWSGI([plugin], data_provider=provider))


def asking(provider: Any, log_dir: Path | None = None) -> Ask:
    """``ask(route, **parameters)`` gives the status and the JSON."""
    asked = client(provider, log_dir)

    def ask(route: str, **values: Any) -> tuple[int, Any]:
        response = asked.get(f"{PREFIX}/{route}", query_string=values)
        return response.status_code, json.loads(response.get_data())

    return ask


def traced(log_dir: Path, name: str, steps: Sequence[TracedStep], batches: int = 40, **options: Any) -> None:
    """Record a fit on disk, with traced steps."""
    write_run(log_dir, name, batches=batches, **options)
    for number, one in enumerate(steps):
        append_payload(log_dir / name, f"{STEPS_TAG}{number:06d}", encode_step(one))


def sections(content: Any, kind: str) -> list[Any]:
    """The sections of a kind."""
    return [section for section in content["sections"] if section["kind"] == kind]
