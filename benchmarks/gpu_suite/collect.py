"""Reads and packs the output of benchmarks.gpu_suite, and adds it to benchmarks/results."""

import contextlib
import json
import re
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

from benchmarks import harness
from cifar_jax.errors import UserError

JSON_LINES = ("throughput", "versus_torch", "augmentation", "speedrun")


def read_environment(out: Path) -> dict[str, Any] | None:
    """Returns the contents of environment.json in a suite's directory, or None if it is missing.

    Raises:
      UserError: If the file cannot be read or is damaged.
    """
    path = out / "environment.json"
    if not path.exists():
        return None
    try:
        environment = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it to write it again") from error
    if not (isinstance(environment, dict) and isinstance(environment.get("small"), bool)):
        raise UserError(f"{path} is damaged: remove it to write it again")
    return environment


def read_records(path: Path) -> list[dict[str, Any]]:
    """Returns the records in a file of JSON lines; an empty list if the file does not exist."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):  # a line that was truncated because the disk was full
            records.append(json.loads(line))
    return records


def pack(folder: Path, archive: Path) -> None:
    """Packs the files of a directory into a .tar.gz archive with paths relative to the directory.

    Does nothing if the directory does not exist.
    """
    if folder.is_dir():
        part = archive.with_suffix(".part")
        with tarfile.open(part, "w:gz") as tar:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    tar.add(path, path.relative_to(folder).as_posix())
        part.replace(archive)


def unpack(archive: Path, folder: Path) -> int:
    """Extracts the files of a .tar.gz archive that do not exist in a directory.

    Returns:
      The number of extracted files.

    Raises:
      UserError: If the archive is damaged.
    """
    count = 0
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and not (folder / member.name).exists():
                    tar.extract(member, folder, filter="data")
                    count += 1
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} is damaged ({error}): restore or remove it") from error
    return count


def collect(out: Path) -> None:
    """Adds the measurements of a suite to benchmarks/results and prints how many were new.

    Raises:
      UserError: If the directory holds no measurements, or only those of a trial.
    """
    environment = read_environment(out)
    if environment is None:
        raise UserError(f"{out} holds no measurements")
    if environment["small"]:
        raise UserError(f"{out} holds measurements made with --small, which are not results")
    for name in JSON_LINES:
        target = harness.RESULTS / f"{name}.jsonl"
        known = read_records(target)
        new = [record for record in read_records(out / f"{name}.jsonl") if record not in known]
        if new:
            with harness.open_output(target) as file:
                harness.append(file, *new)
        print(f"{name}: {len(new)} new records")
    _collect_probe(out, environment)
    if (out / "accuracy.tar.gz").exists():
        print(f"accuracy: {_collect_logs(out / 'accuracy.tar.gz')} new logs")


def _collect_probe(out: Path, environment: dict[str, Any]) -> None:
    """Adds the environment and the decision on CUDA graphs to the log of GPU machines."""
    record = environment | {"gpu_graph": read_records(out / "gpu_graph.jsonl")}
    target = harness.RESULTS / "checks" / "gpu" / "machines.jsonl"
    if record not in read_records(target):
        with harness.open_output(target) as file:
            harness.append(file, record)


def _collect_logs(archive: Path) -> int:
    """Adds the logs of training runs that are not yet in benchmarks/results.

    The name of the device is appended to the directory of a log, because another machine may have
    trained the same experiment with the same seed.

    Returns:
      The number of added logs.
    """
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive, Path(folder))
        for path in sorted(Path(folder).rglob("summary.json")):
            kind = json.loads(path.read_text())["device"]["kind"].lower()
            run = path.parent.relative_to(folder)
            name = f"{run.name}_{re.sub(r'[^a-z0-9]+', '-', kind)}"
            target = harness.RESULTS / "accuracy" / run.parent / name
            if not target.exists():
                shutil.copytree(path.parent, target)
                count += 1
    return count
