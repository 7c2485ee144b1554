import pytest
from reporting import Page

from benchmarks import page
from benchmarks.published import PUBLISHED
from benchmarks.results import percent, points, rows
from benchmarks.table.speed import epochs


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_the_page_has_every_experiment_and_works_offline(tmp_path):
    out = tmp_path / "results.html"
    assert page.main(["--out", str(out)]) == 0
    parsed = Page(out.read_text())
    text = " ".join(parsed.text.split())
    assert all(url.startswith(("data:", "#")) for url in parsed.loads) and all(parsed.alts)
    for experiment in PUBLISHED:
        assert experiment in text
    for row in rows():
        if row.difference is not None:
            assert points(row) in text and percent(row.accuracies) in text
            assert row.num_runs in text
    for contender in epochs():
        assert contender.name in text and f"{contender.seconds:.1f} s" in text
    assert "shortened" in text and "AMD EPYC, 2 cores" in text
