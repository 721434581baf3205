"""Entry point for TensorBoard, which must start even if this plugin is broken."""

from __future__ import annotations

import logging
from typing import Any

from tensorboard.plugins import base_plugin

__all__ = ["MemoryLoader"]

logger = logging.getLogger(__name__)


class MemoryLoader(base_plugin.TBLoader):
    """Creates the plugin."""

    def load(self, context: Any) -> Any:
        """Create the plugin; ``None``, with a log line, if it does not work with this TensorBoard."""
        try:
            from kerasmemwatch.tensorboard_plugin.plugin import MemoryPlugin

            if context.data_provider is None:
                raise RuntimeError("this TensorBoard has no data provider")
            return MemoryPlugin(context)
        except Exception as error:
            logger.warning("The Memory tab is left out: %s. Update tensorboard and kerasmemwatch.", error)
            return None
