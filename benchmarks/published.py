"""The results that the five write-ups published, by experiment."""

import tomllib

from cifar_jax.report.published import FILE, read

DOCUMENTS: dict[str, str] = tomllib.loads(FILE.read_text(encoding="utf-8"))["documents"]
PUBLISHED = read(FILE)
