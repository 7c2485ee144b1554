"""The parts that all HTML pages share: charts, number formats, and the templates."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from cifar_jax.errors import UserError
from cifar_jax.run import atomic

_TEMPLATES = Path(__file__).parent / "templates"


class Chart(NamedTuple):
    """A figure on the page.

    Attributes:
      title: Heading.
      image: The text of an <svg> element, or the URI of an image.
      text: Text alternative for readers who cannot see the image.
      is_wide: Whether it spans the full width, and scrolls on narrow screens.
      min_width: Minimum width of a wide chart, in rem.
    """

    title: str
    image: str
    text: str
    is_wide: bool = False
    min_width: float = 40

    @property
    def is_svg(self) -> bool:
        """Whether `image` is an <svg>."""
        return self.image.startswith("<svg")


def check_out(path: Path) -> None:
    """Checks that a page can be written to a path, before time is spent on drawing it.

    Raises:
      UserError: If the path does not end in .html (so that no file of a run is overwritten), is a
        folder, or is in a folder that does not exist or is read-only.
    """
    if path.is_dir() or path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out must end in .html, as in report.html, got {path}")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UserError(f"--out {path} cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {path} cannot be written: {folder} is read-only")


def write(html: str, path: Path) -> None:
    """Writes a page atomically.

    Raises:
      UserError: If the path cannot be written.
    """
    try:
        with atomic.replacing(path.resolve()) as part:
            part.write_text(html, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def render(template: str, context: dict[str, Any], folder: Path = _TEMPLATES) -> str:
    """Renders a template.

    Args:
      template: File name of the template.
      context: The values of its variables.
      folder: Folder of the template, which can extend and include this package's templates.
    """
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "percent": percent,
        "duration": duration,
        "milliseconds": milliseconds,
        "words": words,
    }
    return env.get_template(template).render(context)


def words(name: str) -> str:
    """Returns the name of a class or field as words."""
    return name.replace("_", " ")


def percent(value: float) -> str:
    """Formats a fraction as a percentage."""
    return f"{100 * value:.2f}%"


def milliseconds(value: float) -> str:
    """Formats a time with three digits or more: "0.152 ms", "38.5 ms", "5,851 ms"."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f} ms"


def duration(seconds: float) -> str:
    """Formats seconds as in "42.0 s", "12 min" or "3 h 05 min"."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
