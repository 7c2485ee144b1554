from reporting import Page

from benchmarks import page
from benchmarks.published import PUBLISHED
from benchmarks.results import rows
from benchmarks.table import epochs


def test_the_page_has_every_experiment_and_loads_nothing(tmp_path):
    out = tmp_path / "new" / "results.html"
    assert page.main(["--out", str(out)]) == 0
    found = Page(out.read_text())
    text = " ".join(found.text.split())
    assert all(where.startswith(("data:", "#")) for where in found.loads) and all(found.alts)
    for experiment in PUBLISHED:
        assert experiment in text
    for row in rows():
        if row.difference is not None:
            assert f"{100 * row.difference:+.2f}" in text
    for contender in epochs():
        assert contender.name in text and f"{contender.seconds:.1f} s" in text
    assert "shortened" in text and "AMD EPYC" in text
