"""A canvas for a mouse or a finger, as a component of gradio."""

from pathlib import Path

import gradio as gr

FOLDER = Path(__file__).parent
FINEST = 300  # a new brush has at least a 300th of the longer side


def canvas(size, colours, names=(), ground=0, brush=None, value=None):
    """A canvas with a palette. Its value is a PNG picture as a data URL.

    Its event is `input`.

    Args:
        size: (width, height) in pixels.
        colours: (n, 3) uint8.
        names: of the colours.
        ground: the index of the colour of an empty canvas.
        brush: the diameter at the start, in pixels.
        value: the content at the start; None for an empty canvas.
    """
    width, height = size
    side = max(size)
    return gr.HTML(
        value,
        html_template=text_of("canvas.html"),
        css_template=text_of("canvas.css"),
        js_on_load=text_of("canvas.js"),
        apply_default_css=False,
        width=width,
        height=height,
        colours=[f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours.tolist()],
        names=list(names),
        ground=ground,
        brush=brush or max(1, round(side / FINEST)),
        largest=max(8, side // 3),
    )


def text_of(name):
    return (FOLDER / name).read_text(encoding="utf-8")
