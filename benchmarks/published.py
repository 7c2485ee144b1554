"""The results that the five write-ups published, by experiment."""

import tomllib
from pathlib import Path

from cifar_jax.report.published import read

_FILE = Path(__file__).with_name("published.toml")
WRITE_UPS: dict[str, str] = tomllib.loads(_FILE.read_text(encoding="utf-8"))["write_ups"]
PUBLISHED = read(_FILE)
