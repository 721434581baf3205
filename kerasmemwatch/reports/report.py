"""``Report``: what a recording says, with methods that write and draw it.

Their dependencies are imported on use, so reading a recording loads neither rich nor figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from kerasmemwatch.analysis.findings import Findings, make_findings
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.reports.notebook_value import NotebookValue, extent

__all__ = ["Report", "make_report"]


@dataclass(frozen=True, eq=False, repr=False)
class Report(NotebookValue, Findings):
    """What a recording says; ``print`` it.

    Its values are the attributes of ``Findings``, among them ``peak`` (the run's highest moment, and what was alive
    at the traced one by category and by layer), ``layers``, ``growth``, ``coverage``, ``samples``, ``steps``
    and ``notes``.
    """

    def plot(self, view: str = "overview", *, theme: str = "light", **options: Any) -> Any:
        """Draw the report, in a notebook for example.

        Args:
            view: ``"overview"`` (memory over steps), ``"peak"`` (what was alive at the traced peak), ``"step"`` (memory
                within a traced step), ``"allocations"`` (its single buffers), ``"layers"`` or ``"growth"``.
            theme: ``"light"`` or ``"dark"``.
            **options: The view's own options: ``step=`` (the number of a traced step), ``device=`` (one of
                ``devices``), ``by="layer"``, ``x="time"``, ``window=``, ``layer=`` (that layer only),
                ``shape="icicle"``.

        Returns:
            A ``plotly.graph_objects.Figure``.

        Raises:
            InvalidArgumentError: If there is no such view, theme, option, device or step.
        """
        from plotly.graph_objects import Figure

        from kerasmemwatch.reports.figures.views import view_figure

        return Figure(view_figure(self, view, theme=theme, **options))

    def to_html(self, path: str | PathLike[str], *, theme: str = "auto") -> None:
        """Write the report as one HTML file that needs no network and no server.

        Args:
            path: The file; an existing one is replaced.
            theme: ``"light"``, ``"dark"``, or ``"auto"``, which follows the reader's system.

        Raises:
            InvalidArgumentError: If there is no such theme.
            OSError: If the file cannot be written.
        """
        from kerasmemwatch.reports.html.page import write_page

        write_page(self, path, theme=theme)

    def text(self, *, everything: bool = False, width: int = 100) -> str:
        """The report as plain text.

        Args:
            everything: Whether to show all layers and figures rather than only the most important ones.
            width: Width of the text in columns.
        """
        from kerasmemwatch.reports.text.report_text import plain_text

        return plain_text(self, everything=everything, width=width)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return (
            f"<Report of run {self.run.name!r}: {extent(self.samples.num_samples, len(self.traced_steps))}; print it>"
        )


def make_report(
    run: RunInfo,
    samples: Samples,
    layers: tuple[LayerMemory, ...] = (),
    steps: Sequence[TracedStep] = (),
    workers: Sequence[tuple[RunInfo, Samples]] = (),
) -> Report:
    """Make the report of a recording; the arguments are those of ``make_findings``."""
    return make_findings(Report, run, samples, layers, steps, workers)
