"""Results of a whole run in one file each: tables and a page, to which every photo and frame is added."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipeline.infra.files import write_bytes
from pipeline.predict.config import Format
from pipeline.predict.own_files import writing
from pipeline.predict.pictures import Picture
from pipeline.predict.tables import Rows, growing_csv, growing_parquet, rows_of

if TYPE_CHECKING:
    from das.predictor import Prediction
    from pipeline.predict.page import PageBuilder


class Collectors:
    """people.csv, people.parquet and people.html, those that are asked for.

    A context: ``add`` and ``finish`` are called inside, and if it is left by an exception, none of the files is there.

    Raises:
        OutputError: one of them cannot be written.
    """

    def __init__(self, out: Path, formats: Sequence[Format]) -> None:
        names: tuple[Format, ...] = ("csv", "parquet", "html")
        self._files = {name: out / f"people.{name}" for name in names if name in formats}
        self._stack = ExitStack()
        self._tables: dict[Path, Rows] = {}
        self._page: PageBuilder | None = None

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return list(self._files.values())

    def __enter__(self) -> Collectors:
        for name, grow in (("csv", growing_csv), ("parquet", growing_parquet)):
            if name in self._files:
                path = self._files[name]
                self._stack.enter_context(writing(path))
                self._tables[path] = self._stack.enter_context(grow(path))
        if "html" in self._files:
            from pipeline.predict.page import PageBuilder  # here: it imports jinja2, which takes a while

            self._page = PageBuilder()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, picture: Picture, prediction: Prediction, value: dict[str, Any]) -> None:
        """Adds a photo or frame; ``value`` is its JSON object."""
        for path, add in self._tables.items():
            with writing(path):
                add(rows_of(value))
        if self._page is not None:
            self._page.add(picture, prediction)

    def finish(self) -> list[Path]:
        """Completes the files and returns them."""
        self._stack.close()
        if self._page is not None:
            with writing(self._files["html"]):
                write_bytes(self._files["html"], self._page.render().encode())
        return self.paths
