"""Figures as SVG: one file that prints, and the same inline, in the page's own colours."""

import html
import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure

from pipeline.report import drawing

FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

PAGE_COLOURS = {
    drawing.INK: "--ink",
    drawing.MUTED: "--muted",
    drawing.GRID: "--grid",
    drawing.BLUE: "--blue",
    drawing.VERMILLION: "--vermillion",
    drawing.GREEN: "--green",
    drawing.ORANGE: "--orange",
    drawing.PURPLE: "--purple",
    drawing.SKY: "--sky",
    drawing.BROWN: "--brown",
}
"""Each colour of a figure and the page's variable that replaces it, light or dark."""


def svg_file(figure: Figure, name: str) -> str:
    """The figure as an SVG document with fixed colours; equal figures give equal text."""
    buffer = io.StringIO()
    # Without a fixed salt and date, each drawing of one figure would differ.
    with mpl.rc_context({**drawing.STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    return re.sub(r"font: ([\d.]+px) [^;\"]+", rf"font: \1 {FONT}", buffer.getvalue())


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an element of the page: scalable, themed, named for screen readers."""
    text = svg_file(figure, name)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Several figures share the page: their ids must not meet.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    for colour, variable in PAGE_COLOURS.items():
        text = re.sub(colour, f"var({variable}, {colour})", text, flags=re.IGNORECASE)
    opening = re.sub(r'\s(width|height)="[^"]*"', "", text[: text.index(">")])
    return f'{opening} role="img" aria-label="{html.escape(title)}"' + text[text.index(">") :]


def png_file(figure: Figure) -> bytes:
    """The figure as PNG at 200 dots an inch on white, for slides."""
    buffer = io.BytesIO()
    with mpl.rc_context(drawing.STYLE):
        figure.savefig(
            buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None}
        )
    return buffer.getvalue()
