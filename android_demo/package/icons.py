"""
Draw the app's icon and splash: a small model whose lit columns a phone trains.

``python android_demo/package/icons.py`` writes ``android_demo/assets``; needs Pillow.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

ASSETS = Path(__file__).resolve().parents[1] / "assets"

GROUND = "#3150D0"
LIGHT = "#F4F6FB"
UNLIT = "#8FA6FF"
LIT = "#3FD69A"

# Columns of the model: height, and how much of it is lit.
COLUMNS = ((0.42, 0.0), (0.62, 0.28), (0.86, 0.86), (0.6, 0.6))
# Drawn larger and scaled down, for smooth edges.
OVER = 4


def columns(draw: ImageDraw.ImageDraw, left: float, top: float, side: float, unlit: str, lit: str) -> None:
    """The model in a square at (left, top)."""
    width = side / (len(COLUMNS) * 1.5 - 0.5)
    for index, (height, part) in enumerate(COLUMNS):
        x = left + index * width * 1.5
        bottom = top + side * (1 + height) / 2
        for colour, length in ((unlit, height), (lit, part)):
            if length:
                draw.rounded_rectangle((x, bottom - length * side, x + width, bottom), width * 0.3, colour)


def icon(side: int) -> Image.Image:
    """A square icon with rounded corners."""
    size = side * OVER
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, size - 1, size - 1), size * 0.22, GROUND)
    columns(draw, size * 0.2, size * 0.2, size * 0.6, UNLIT, LIT)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def splash(width: int, height: int) -> Image.Image:
    """The picture that is shown while Python starts."""
    image = Image.new("RGB", (width * OVER // 2, height * OVER // 2), LIGHT)
    draw = ImageDraw.Draw(image)
    side = image.width * 0.4
    columns(draw, (image.width - side) / 2, (image.height - side) / 2, side, "#CBD2E4", "#0F8A5F")
    return image.resize((width, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    ASSETS.mkdir(exist_ok=True)
    icon(512).save(ASSETS / "icon.png")
    splash(720, 1280).save(ASSETS / "presplash.png", optimize=True)
