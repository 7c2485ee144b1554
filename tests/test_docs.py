"""The README and the pages of docs/: their length, links and code."""

import re
import textwrap

import jax.numpy as jnp
import pytest
import tiny
from flax import nnx

from cifar_jax.models import layers

DOCS = tiny.ROOT / "docs"


def headings(path):
    """The anchors of a page, as GitHub makes them from its headings."""
    titles = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", (tiny.ROOT / "README.md", *sorted(DOCS.glob("*.md"))), ids=str)
def test_links_point_to_files_and_headings(path):
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        assert not anchor or anchor in headings(linked), target


def test_the_readme_is_short():
    assert len((tiny.ROOT / "README.md").read_text().splitlines()) <= 160


def test_the_example_network_works():
    text = (DOCS / "extending.md").read_text()
    code = textwrap.dedent(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    scope = {"nnx": nnx, "jnp": jnp, **vars(layers)}
    exec(code, scope)
    network = scope["OneLayer"](10, nnx.Rngs(0), dropout=0.5)
    assert network(jnp.zeros((2, 32, 32, 3)), rngs=nnx.Rngs(1)).shape == (2, 10)
