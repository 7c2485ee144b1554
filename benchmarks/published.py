"""The results that the five write-ups published, by experiment."""

import tomllib

from cifar_jax.report.published import FILE, read

WRITE_UPS: dict[str, str] = tomllib.loads(FILE.read_text(encoding="utf-8"))["write_ups"]
PUBLISHED = read(FILE)
