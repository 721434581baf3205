"""Colours of figures: one per category in all figures, and two themes."""

from __future__ import annotations

from dataclasses import dataclass

from kerasmemwatch.errors import InvalidArgumentError

__all__ = ["CATEGORY_COLOURS", "LAYER_COLOURS", "OTHERS_COLOUR", "THEMES", "Theme", "text_on", "theme_named"]

# Okabe and Ito, "Color Universal Design", 2008: distinguishable with every common kind of colour blindness.
CATEGORY_COLOURS = {
    "weights": "#0072b2",
    "optimizer": "#56b4e9",
    "gradients": "#d55e00",
    "activations": "#009e73",
    "temporaries": "#e69f00",
    "inputs": "#cc79a7",
    "other": "#f0e442",
    "unattributed": "#999999",
}
# Paul Tol, "Colour Schemes", SRON/EPS/TN/09-002, 2021, "muted": distinct from the categories' colours.
LAYER_COLOURS = ("#cc6677", "#88ccee", "#ddcc77", "#117733", "#aa4499", "#44aa99", "#999933", "#882255", "#6a5acd")
OTHERS_COLOUR = "#a0a0a0"


@dataclass(frozen=True)
class Theme:
    """Colours of everything around the data."""

    name: str  # `"light"` or `"dark"`
    background: str  # the page and the plot
    text: str  # labels
    faint: str  # less important labels
    grid: str  # lines behind the data
    outline: str  # edges of areas, so that light ones are visible
    branch: str  # inner nodes of a tree
    mark: str  # peaks and limits
    series: tuple[str, ...]  # lines, and compared runs; thin lines need more contrast than areas
    phases: tuple[tuple[str, str], ...]  # background of forward, backward and update


THEMES = {
    "light": Theme(
        name="light",
        background="#ffffff",
        text="#202124",
        faint="#5f6368",
        grid="#e3e5e8",
        outline="#5f6368",
        branch="#e8eaed",
        mark="#b3001b",
        series=("#0072b2", "#d55e00", "#007a5a", "#b0487f", "#a86f00", "#2e86c1"),
        phases=(("forward", "#dcecf8"), ("backward", "#f9e6d8"), ("update", "#e6e3f2")),
    ),
    "dark": Theme(
        name="dark",
        background="#1e1f22",
        text="#e8eaed",
        faint="#a8adb4",
        grid="#3a3d42",
        outline="#0b0c0d",
        branch="#34373c",
        mark="#ff8a8a",
        series=("#56b4e9", "#ff8c42", "#2fc79f", "#e69ac4", "#f0e442", "#8ab4f8"),
        phases=(("forward", "#1d3548"), ("backward", "#452c1b"), ("update", "#332e4a")),
    ),
}


def theme_named(name: str) -> Theme:
    """Look up a theme.

    Raises:
        InvalidArgumentError: If there is no such theme.

    Example:
        >>> theme_named("dark").text
        '#e8eaed'
    """
    if not isinstance(name, str) or name not in THEMES:
        raise InvalidArgumentError(f"Expected theme to be 'light' or 'dark'. Received: theme={name!r}.")
    return THEMES[name]


def text_on(background: str) -> str:
    """Choose black or white text, whichever is more readable on a colour; the contrast is at least 4.5 to 1."""
    parts = [int(background[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    # Relative luminance as in WCAG 2.2; at 0.179, black and white have the same contrast.
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"
