"""Reads metrics.csv, which may have been edited, mixed up or truncated."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from cifar_jax.errors import UserError, quote
from cifar_jax.run.rules import COUNT, FRACTION
from cifar_jax.run.writers import Row


def read(path: Path) -> list[Row]:
    """Returns the complete rows, with numbers parsed and missing values as None.

    A run that is still training may be writing the last line, which is then left out.

    Raises:
      UserError: If the file cannot be read, or a line is invalid.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    try:
        table = list(csv.reader(line for line in lines if line.endswith("\n")))
    except csv.Error as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not table:
        return []
    rows: list[Row] = []
    header, *body = table
    missing = {"epoch", "step"} - set(header)
    if missing:
        names = ", ".join(sorted(missing))
        raise UserError(f"{path} is not from a cifar_jax run: it lacks {names}")
    for number, texts in enumerate(body, start=2):
        where = f"{path}, line {number}"
        if len(texts) != len(header):
            raise UserError(f"{where} has {len(texts)} values, but the header has {len(header)}")
        row = _parse(dict(zip(header, texts, strict=True)), where)
        if rows and row["epoch"] <= rows[-1]["epoch"]:
            raise UserError(f"{where}: epoch {row['epoch']} follows epoch {rows[-1]['epoch']}")
        rows.append(row)
    return rows


def _parse(row: Mapping[str, str], where: str) -> Row:
    """Returns a row with its numbers parsed; empty values are None.

    Args:
      row: {column: value as a string}.
      where: The file and line, for the error message.

    Raises:
      UserError: If a value is not a number, epoch or step is not a whole number, or an accuracy is
        not a fraction. Values that are not finite are returned as they are.
    """
    parsed: Row = {}
    for name, text in row.items():
        if name == "events" or text == "":
            parsed[name] = text if name == "events" else None
            continue
        try:
            value = float(text)
        except ValueError:
            raise UserError(f"{where}: {name} must be a number, got {quote(text)}") from None
        rule = COUNT if name in ("epoch", "step") else None
        if name.endswith("accuracy") and math.isfinite(value):
            rule = FRACTION
        if rule is not None and not rule.holds(value):
            raise UserError(f"{where}: {name} must be {rule.text}, got {quote(text)}")
        parsed[name] = int(value) if rule is COUNT else value
    if parsed["epoch"] is None or parsed["step"] is None:
        raise UserError(f"{where}: epoch and step must be {COUNT.text}")
    return parsed
