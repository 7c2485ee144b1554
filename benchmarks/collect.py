"""What benchmarks.gpu_suite keeps in its folder, and how that gets into benchmarks/results."""

import contextlib
import json
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS
from cifar_jax.errors import UserError

JSON_LINES = ("throughput", "versus_torch", "augmentation")


def checked(out: Path) -> dict[str, Any] | None:
    """Returns what check_environment wrote; None before it has."""
    path = out / "environment.json"
    return json.loads(path.read_text()) if path.exists() else None


def read_records(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a file of JSON lines; none where there is no file."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):  # a line that a full disk cut off
            found.append(json.loads(line))
    return found


def pack(folder: Path, archive: Path) -> None:
    """Writes a folder's files into a .tar.gz, under their places in it."""
    if folder.is_dir():
        part = archive.with_suffix(".part")
        with tarfile.open(part, "w:gz") as tar:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    tar.add(path, path.relative_to(folder).as_posix())
        part.replace(archive)


def unpack(archive: Path, folder: Path) -> int:
    """Writes those files of a .tar.gz that a folder lacks; returns how many."""
    count = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and not (folder / member.name).exists():
                tar.extract(member, folder, filter="data")
                count += 1
    return count


def collect(out: Path) -> None:
    """Adds what a suite measured to benchmarks/results.

    Raises:
      UserError: for a folder without measurements, or with those of a trial.
    """
    found = checked(out)
    if found is None or found["small"]:
        what = "no measurements" if found is None else "what --small measured, which is no result"
        raise UserError(f"{out} holds {what}")
    for name in JSON_LINES:
        target = RESULTS / f"{name}.jsonl"
        known = read_records(target)
        new = [record for record in read_records(out / f"{name}.jsonl") if record not in known]
        if new:
            with target.open("a") as file:
                file.writelines(f"{json.dumps(record)}\n" for record in new)
        print(f"{name}: {len(new)} new records")
    if (out / "accuracy.tar.gz").exists():
        print(f"accuracy: {_collect_logs(out / 'accuracy.tar.gz')} new logs")


def _collect_logs(archive: Path) -> int:
    """Adds the logs of trainings whose folders are not there; returns how many.

    A folder's name ends with the device: another machine may have trained the same with that seed.
    """
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive, Path(folder))
        for path in sorted(Path(folder).rglob("summary.json")):
            kind = json.loads(path.read_text())["device"]["kind"].lower()
            place = path.parent.relative_to(folder)
            name = f"{place.name}_{re.sub(r'[^a-z0-9]+', '-', kind)}"
            target = RESULTS / "accuracy" / place.parent / name
            if not target.exists():
                shutil.copytree(path.parent, target)
                count += 1
    return count
