import json
import os
import re
import shutil

import jax
import numpy as np
import pytest
import reporting
import tiny
from flax import nnx
from reporting import Page
from thin import THIN

from cifar_jax import config, data, models
from cifar_jax.errors import UserError
from cifar_jax.models.rngs import make_rngs
from cifar_jax.report import __main__ as command
from cifar_jax.report import analysis, comparison, figures, network, page, published, run_page
from cifar_jax.run import workdir

KNOWN = published.read(tiny.ROOT / "benchmarks" / "published.toml")


def settings_of(experiment):
    """The settings of an experiment's config file."""
    return config.flatten_json(config.load_complete(tiny.ROOT / "configs" / f"{experiment}.py"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return reporting.write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Returns a run without predictions, whose page is drawn in a fraction of the time."""
    run = reporting.write_run(tmp_path_factory.mktemp("report") / "short")
    (run.folder / "predictions.npz").unlink()
    return reporting.read(run.folder)


@pytest.fixture(scope="module")
def html(run):
    result = published.PublishedResult(KNOWN["assignment/cnn3"], "shortened")
    return run_page.of_run(run, result, reporting.images())


def test_page_loads_nothing_and_describes_every_image(html):
    found = Page(html)
    assert found.loads and all(re.match("data:|#", where) for where in found.loads)
    assert len(found.alts) > 40 and all(found.alts)
    assert len(html) < 5e6


def test_numbers_equal_the_files(run, html):
    text = " ".join(Page(html).text.split())
    right = np.mean(run.predictions.predictions == run.predictions.labels)
    for part in (
        f"test accuracy {100 * right:.2f}% published 56.02%, not comparable: shortened",
        "test loss 2.2500", "published 1.6550",
        "1,193,636", "7.25 ms", f"epoch 2: {reporting.CUT}", "Abacus", "0123abc", "0.25 GiB",
        "optim.learning_rate",
    ):  # fmt: skip
        assert part in text
    metrics = pytest.importorskip("sklearn.metrics")
    matrix = metrics.confusion_matrix(run.predictions.labels, run.predictions.predictions)
    wrong = matrix - np.diag(np.diag(matrix))
    worst = np.unravel_index(wrong.argmax(), wrong.shape)
    names = [reporting.FINE[i].replace("_", " ") for i in worst]
    assert f"{names[0]} predicted as {names[1]} {wrong.max()} images" in text


@pytest.mark.usefixtures("blank_figures")
def test_full_run_shows_the_difference_from_published(short):
    record = KNOWN["assignment/cnn3"]._replace(test_accuracy=0.5)
    points = 100 * (short.summary["test_accuracy"] - 0.5)
    assert f"published 50%, {points:+.2f} points" in run_page.of_run(
        short, published.PublishedResult(record, "")
    )


def test_only_runs_of_the_published_recipe_are_compared_with_it(run):
    full, written = run.config | {"num_epochs": 150}, settings_of("assignment/cnn3")
    reasons = {
        "": full, "shortened": run.config, "different settings": full | {"data.limit": 500},
    }  # fmt: skip
    for reason, settings in reasons.items():
        result = published.of_run(run._replace(config=settings), KNOWN, written)
        assert result.reason == reason
    assert published.of_run(run, KNOWN, {}).reason == "there is no configs/assignment/cnn3.py"
    other = run._replace(config=full | {"experiment": "cnn3"})
    assert published.of_run(other, KNOWN, settings_of("cnn3")) is None


@pytest.mark.usefixtures("blank_figures")
def test_published_results_can_come_from_another_file(tmp_path, short, capsys):
    (tmp_path / "a.toml").write_text('[experiments."assignment/cnn3"]\ntest_accuracy = 0.25\n')
    out = tmp_path / "report.html"
    flags = [str(short.folder), "--data_dir", str(tmp_path), "--out", str(out), "--published"]
    assert command.main([*flags, str(tmp_path / "a.toml")]) == 0
    assert "published 25%, not comparable: shortened" in out.read_text()
    (tmp_path / "b.toml").write_text('[experiments."assignment/cnn3"]\ntest_accuracy = "high"\n')
    assert command.main([*flags, str(tmp_path / "b.toml")]) == 1
    assert "test_accuracy of assignment/cnn3 must be a number" in capsys.readouterr().err
    (tmp_path / "b.toml").write_text('[experiments."assignment/cnn3"]\naccuracy = 0.25\n')
    for name, message in (("b.toml", "holds no published results"), ("c.toml", "cannot be read")):
        assert command.main([*flags, str(tmp_path / name)]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.usefixtures("blank_figures")
def test_page_of_a_run_without_images_and_of_an_incomplete_run(tmp_path, run):
    html = run_page.of_run(run, note="No example images: reason.")
    assert "No example images: reason." in html and "predicted as" in html
    unfinished = reporting.write_run(tmp_path / "unfinished", complete=False)
    text = Page(run_page.of_run(unfinished)).text
    assert "it stopped with 3 of 5 epochs done" in text and "Confusion" not in text
    (tmp_path / "unfinished" / "diverged.txt").write_text(
        "the loss became nan in steps 301 to 310\n"
    )
    assert "3 of 5 epochs done, then the loss became nan" in Page(run_page.of_run(unfinished)).text
    with workdir.locked(tmp_path / "unfinished"):
        assert "in progress: 3 of 5 epochs done" in run_page.of_run(unfinished)
    (tmp_path / "unfinished" / "metrics.csv").unlink()
    fresh = reporting.read(tmp_path / "unfinished")
    assert "No epoch is complete yet" in run_page.of_run(fresh)


@pytest.mark.usefixtures("blank_figures")
def test_page_lists_files_that_a_complete_run_lacks(tmp_path):
    run = reporting.write_run(tmp_path / "run")
    (run.folder / "predictions.npz").unlink()
    lines = (run.folder / "metrics.csv").read_text().splitlines(keepends=True)
    (run.folder / "metrics.csv").write_text("".join(lines[:3]))
    text = Page(run_page.of_run(reporting.read(run.folder))).text
    assert "metrics.csv has only 2 of its 5 epochs" in text
    assert "there is no predictions.npz" in text


def test_fields_that_older_runs_lack_do_not_differ(tmp_path):
    runs = [reporting.write_run(tmp_path / name, num_epochs=n) for name, n in (("a", 5), ("b", 6))]
    old = reporting.write_run(tmp_path / "old")
    fields = {k: v for k, v in old.config.items() if k not in ("num_epochs", "trackers")}
    labeled = [("", run) for run in (*runs, old._replace(config=fields))]
    found = dict(comparison._differences(labeled))
    assert found == {"num_epochs": ["5", "6", "-"]}


@pytest.mark.parametrize("name", ["config.json", "report", ".", "folder.html"])
def test_pages_are_written_only_to_html_files(tmp_path, name):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UserError, match=r"must end in \.html"):
        page.check_out(tmp_path / name)


def test_symlink_to_a_page_is_kept(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "latest.html").symlink_to(tmp_path / "pages" / "a.html")
    page.write("<!doctype html>", tmp_path / "latest.html")
    assert (tmp_path / "latest.html").is_symlink()
    assert (tmp_path / "pages" / "a.html").read_text() == "<!doctype html>"


@pytest.mark.usefixtures("blank_figures")
def test_a_folder_given_twice_is_one_run(tmp_path, run, capsys):
    out = tmp_path / "report.html"
    twice = [str(run.folder), str(run.folder / ".." / "run")]
    assert command.main([*twice, "--data_dir", str(tmp_path), "--out", str(out)]) == 0
    assert "<title>assignment/cnn3, seed 0</title>" in out.read_text()
    assert f"cifar100 was not found in {tmp_path}" in capsys.readouterr().err


@pytest.mark.usefixtures("blank_figures")
def test_names_from_files_are_escaped(tmp_path, run):
    names = ("<script>alert(1)</script>", *run.predictions.class_names[1:])
    odd = run._replace(predictions=run.predictions._replace(class_names=names))
    assert "<script>alert" not in run_page.of_run(odd)


@pytest.mark.usefixtures("blank_figures")
def test_runs_are_compared(tmp_path):
    runs = [
        reporting.write_run(tmp_path / "a", seed=0),
        reporting.write_run(tmp_path / "b", seed=1),
        reporting.write_run(tmp_path / "c", num_epochs=7, complete=False),
        reporting.write_run(tmp_path / "d", experiment="assignment/sgd"),
    ]
    out = tmp_path / "report.html"
    assert command.main([*(str(run.folder) for run in runs), "--out", str(out)]) == 0
    text = " ".join(Page(out.read_text()).text.split())
    values = [run.summary["test_accuracy"] for run in runs[:2]]
    mean, deviation = 100 * np.mean(values), 100 * np.std(values, ddof=1)
    assert f"assignment/cnn3 2 {mean:.2f}% {deviation:.2f} points" in text
    assert "seed 0 (" in text and " stopped " in text and "optim.name adam" in text
    assert all(f"assignment/cnn3, seed 0 ({tmp_path / name})" in text for name in "ac")
    assert "shortened" in text
    assert "2.11%" in text  # the published result of assignment/sgd


def test_runs_of_older_versions_are_grouped_with_new_ones(tmp_path):
    runs = [reporting.write_run(tmp_path / f"{seed}", seed=seed) for seed in (0, 1, 2)]
    old = {k: v for k, v in runs[0].config.items() if k not in ("optim.clip_norm", "model.dropout")}
    runs[0] = runs[0]._replace(config=old)
    written = settings_of("assignment/cnn3")
    ((name, seeds, *_),) = comparison._over_seeds(runs, [written] * 3)
    assert (name, seeds) == ("assignment/cnn3", 3)


@pytest.mark.usefixtures("blank_figures")
def test_command_writes_the_page(tmp_path, capsys, monkeypatch, run):
    monkeypatch.setattr(data, "is_there", lambda *_: True)
    monkeypatch.setattr(data, "load", lambda *_, **__: reporting.dataset(run))
    out = tmp_path / "new" / "report.html"
    assert command.main([str(run.folder), "--out", str(out)]) == 1
    assert f"there is no folder {tmp_path / 'new'}" in capsys.readouterr().err
    assert not out.parent.exists()
    out.parent.mkdir()
    assert command.main([str(run.folder), "--out", str(out)]) == 0
    assert "image-rendering" in out.read_text() and "data:image/png" in out.read_text()
    other = reporting.write_run(tmp_path / "other", seed=1)
    assert command.main([str(run.folder), str(other.folder), "--out", str(out)]) == 0
    assert "2 runs" in out.read_text()
    assert command.main([str(tmp_path), "--out", str(out)]) == 1
    assert "error: " in capsys.readouterr().err


def test_images_of_another_test_set_are_not_shown(monkeypatch, run):
    from cifar_jax.report import examples

    monkeypatch.setattr(data, "is_there", lambda *_: True)
    other = reporting.dataset(run)
    split = data.Split(other.test.images, (other.test.labels + 1) % 100)
    monkeypatch.setattr(data, "load", lambda *_, **__: other._replace(test=split))
    images, note = examples.load(run)
    assert images is None and "differs from the run's" in note


@pytest.mark.usefixtures("library_convolutions")
@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_layers_account_for_all_parameters(name):
    options = models.options_of(name) | THIN.get(name, {})
    options = json.loads(json.dumps(options))  # as read from config.json
    layers = network.layers(name, 100, options)
    shapes = nnx.eval_shape(lambda: models.create(name, 100, make_rngs(params=0), **options))
    params = jax.tree.leaves(nnx.state(shapes, nnx.Param))
    assert sum(layer.num_params for layer in layers) == sum(leaf.size for leaf in params)
    assert layers[-1].shape == (100,)


def test_figures_and_numbers_are_written(tmp_path):
    from cifar_jax.report import pictures

    run = reporting.write_run(tmp_path / "run")
    (tmp_path / "run" / "tensorboard" / "report" / "old").mkdir(parents=True)
    plots = pictures.write(tmp_path / "run", reporting.images())
    names = {path.name for path in plots.iterdir()}
    assert not (tmp_path / "run" / "tensorboard" / "report" / "old").exists()
    assert {"loss.png", "accuracy.png", "learning_rate.png", "confusion_class.png"} <= names
    assert {"confusion_superclass_grey.png", "errors_class.png", "calibration.png"} <= names
    assert {"network.png", "hardest.png", "easiest.png", "confused.png", "layers.csv"} <= names
    numbers = json.loads((plots / "errors.json").read_text())
    wrong = run.predictions.predictions != run.predictions.labels
    otters = run.predictions.labels == reporting.FINE.index("otter")
    assert numbers["error_by_class"]["otter"] == pytest.approx(wrong[otters].mean())
    lines = (plots / "confusion_class.csv").read_text().splitlines()
    assert lines[0].split(",") == ["true class", *reporting.FINE] and len(lines) == 101
    assert sum(int(n) for line in lines[1:] for n in line.split(",")[1:]) == reporting.NUM_IMAGES
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard" / "report"))
    events.Reload()
    shown = {tag.partition("/")[0] for tag in events.Tags()["images"]}
    assert {"confusion_class", "misclassified"} <= shown


def test_run_without_errors_is_drawn(tmp_path):
    from cifar_jax.report import pictures

    run = reporting.write_run(tmp_path / "run")
    labels, names = np.arange(60, dtype=np.int32) % 6, reporting.FINE[:6]
    reporting.write_predictions(run.folder, labels, 9 * np.eye(6)[labels], names)
    plots = pictures.write(run.folder, reporting.images()[:60])
    numbers = json.loads((plots / "errors.json").read_text())
    assert numbers["most_confused"] == [] and numbers["error_by_class"][names[1]] == 0
    assert "predicted as" not in Page(run_page.of_run(reporting.read(run.folder))).text


@pytest.mark.usefixtures("blank_figures")
def test_classes_without_images_are_not_counted_as_errors(tmp_path):
    from cifar_jax.report import pictures

    run = reporting.write_run(tmp_path / "run")
    names = reporting.FINE[:6]
    labels = np.arange(60, dtype=np.int32) % 3
    logits = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    reporting.write_predictions(run.folder, labels, logits, names)
    plots = pictures.write(run.folder)
    numbers = json.loads((plots / "errors.json").read_text())
    rates = [numbers["error_by_class"][name] for name in names]
    assert None not in rates[:3] and set(rates[3:]) == {None}
    assert len((plots / "errors_class.csv").read_text().splitlines()) == 4
    text = Page(run_page.of_run(reporting.read(run.folder))).text
    assert "nan" not in text.lower().split()


def test_notes_and_odd_names_are_shown(tmp_path, short, capsys):
    """A folder that is not UTF-8, whose name would also be invalid as a formula."""
    folder = tmp_path / os.fsdecode(b"\xff$\\frac{$")
    shutil.copytree(short.folder, folder)
    text = (folder / "metrics.csv").read_text().replace(",4.0,", ",nan,")
    (folder / "metrics.csv").write_text(text)
    out = tmp_path / "report.html"
    assert command.main([str(folder), "--out", str(out), "--data_dir", str(tmp_path)]) == 0
    assert "note: Values left out" in capsys.readouterr().err
    assert "Values left out because they are not finite: train_loss of epoch 1." in out.read_text()
    assert command.main([str(folder), str(short.folder), "--out", str(out)]) == 0
    assert r"\udcff$\frac{$): Values left out" in out.read_text()


def test_no_bar_hides_the_legend_of_the_calibration():
    labels, logits = reporting.draw_predictions()
    figure = figures.reliability(analysis.calibration(logits, labels))
    figure.draw_without_rendering()
    bottom = figure.legends[0].get_window_extent().y0
    assert bottom >= figure.axes[0].get_window_extent().y1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1519, "0.152 ms"), (7.25, "7.25 ms"), (38.46, "38.5 ms"), (1242.3, "1,242 ms")],
)
def test_times_have_separators(value, text):
    assert page.milliseconds(value) == text


@pytest.mark.usefixtures("blank_figures")
def test_a_single_image_is_not_plural(tmp_path):
    run = reporting.write_run(tmp_path / "run")
    labels = np.array([0, 0, 1, 1], np.int32)
    logits = np.eye(2)[[0, 1, 1, 1]]
    reporting.write_predictions(run.folder, labels, logits, ("a", "b"))
    text = " ".join(Page(run_page.of_run(reporting.read(run.folder))).text.split())
    assert "a predicted as b 1 image, 50.00% of the class" in text
