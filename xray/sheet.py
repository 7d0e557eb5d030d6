"""A grid of pictures on a page, with names for its rows and columns.

sheet = Sheet(rows=2, columns=7, aspect=1.0)
figure = page.new("Guidance", below=sheet.tall + 2.5)
sheet.draw(figure, sheet.tall + 2.5, pictures, row_names=seeds, column_names=scales)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from xray import page
from xray.page import MARGIN, QUIET, WIDTH

Name = str | tuple[str, str]  # the second of two is quieter, and stands below


@dataclass(frozen=True)
class Sheet:
    """Where the pictures of a grid stand.

    Attributes:
        rows, columns: of the grid.
        aspect: height of a picture by its width.
        left: inches for the names of the rows.
        head: inches for the names of the columns.
        most: the greatest width of a picture, in inches.
        caption: inches under each picture for a caption.
    """

    rows: int
    columns: int
    aspect: float = 1.0
    left: float = MARGIN
    head: float = 0.45
    most: float = 1.75
    caption: float = 0.0
    gap: float = 0.06

    @property
    def width(self) -> float:
        room = WIDTH - self.left - MARGIN
        return min(room / self.columns - self.gap, self.most)

    @property
    def height(self) -> float:
        return self.width * self.aspect

    @property
    def tall(self) -> float:
        """Inches that the whole grid takes, names included."""
        return self.head + self.rows * self.pitch

    @property
    def pitch(self) -> float:
        """From one row to the next."""
        return self.height + self.caption + self.gap

    def x(self, column: int) -> float:
        """The left edge of a column, in inches."""
        return self.left + column * (self.width + self.gap)

    def y(self, row: int, top: float) -> float:
        """The lower edge of a row in a grid that hangs from `top`."""
        return top - self.head - row * self.pitch - self.height

    def draw(
        self,
        figure: Figure,
        top: float,
        pictures: Sequence[Sequence[Any]],
        *,
        row_names: Sequence[Name] = (),
        column_names: Sequence[Name] = (),
        captions: Sequence[Sequence[str]] = (),
    ) -> None:
        """Place the pictures.

        Args:
            figure: from `page.new`.
            top: where the grid hangs from, inches above the lower edge.
            pictures: uint8 (y, x, 3) by row and column; None leaves a place empty.
            row_names, column_names: texts, or pairs of a text and a quieter one below it.
            captions: under the pictures, by row and column.
        """
        for row, line in enumerate(pictures):
            for column, pixels in enumerate(line):
                if pixels is not None:
                    x, y = self.x(column), self.y(row, top)
                    page.picture(figure, x, y, self.width, self.height, np.asarray(pixels))
        for row, line in enumerate(captions):
            for column, words in enumerate(line):
                x, y = self.x(column) + self.width / 2, self.y(row, top) - 0.05
                page.text(figure, x, y, words, size=9, color=QUIET, ha="center", va="top")
        for row, name in enumerate(row_names):
            x, y = self.left - 0.12, self.y(row, top) + self.height / 2
            first, second = _pair(name)
            lift = 0.03 if second else -0.06
            page.text(figure, x, y + lift, first, size=11, ha="right")
            page.text(figure, x, y - 0.02, second, size=9, color=QUIET, ha="right", va="top")
        for column, name in enumerate(column_names):
            x = self.x(column) + self.width / 2
            first, second = _pair(name)
            y = top - self.head + (0.24 if second else 0.08)
            page.text(figure, x, y, first, size=11, ha="center")
            page.text(figure, x, y - 0.17, second, size=9, color=QUIET, ha="center")


def _pair(name: Name) -> tuple[str, str]:
    return (name, "") if isinstance(name, str) else name
