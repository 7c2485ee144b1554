import io

import pytest

from cifar_jax.run import writers

ROWS = [
    {
        "epoch": e, "step": 10 * e, "learning_rate": 0.1, "train_loss": 1 / e,
        "train_accuracy": 0.5, "val_loss": 2 / e if e != 2 else None,
        "val_accuracy": 0.25 if e != 2 else None, "seconds": 2.0, "images_per_second": 500.0,
    }
    for e in (1, 2, 3)
]  # fmt: skip


def test_csv_rows_are_written_immediately(tmp_path):
    path = tmp_path / "metrics.csv"
    writer = writers.CsvWriter(path, ROWS[:1])
    writer.epoch(ROWS[1])
    lines = path.read_text().splitlines()  # before close
    assert lines[0] == ",".join(ROWS[0])
    assert lines[1:] == [
        "1,10,0.1,1.0,0.5,2.0,0.25,2.0,500.0",
        "2,20,0.1,0.5,0.5,,,2.0,500.0",
    ]
    writer.close()


def write_tensorboard(path, rows):
    writer = writers.TensorBoardWriter(path, [])
    for row in rows:
        writer.epoch(row)
    writer.close()


def test_tensorboard_shows_train_and_val_in_one_chart(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_tensorboard(tmp_path, ROWS)
    for run, steps in (("train", [10, 20, 30]), ("val", [10, 30])):
        events = accumulator.EventAccumulator(str(tmp_path / run))
        events.Reload()
        assert [event.step for event in events.Scalars("loss")] == steps
    assert set(events.Tags()["scalars"]) == {"loss", "accuracy"}


def test_tensorboard_of_a_resumed_run_has_each_epoch_once(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_tensorboard(tmp_path, ROWS)
    resumed = writers.TensorBoardWriter(tmp_path, ROWS[:1])  # from the checkpoint of epoch 1
    resumed.epoch(ROWS[1])
    resumed.close()
    events = accumulator.EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [10, 20]


def test_event_files_of_train_and_val_are_written(tmp_path):
    write_tensorboard(tmp_path, ROWS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train", "val"]
    for run in ("train", "val"):
        (file,) = (tmp_path / run).iterdir()
        assert b"accuracy" in file.read_bytes()


def test_piped_output_has_a_plain_line_per_epoch(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    writer = writers.ConsoleWriter(3, 10)
    writer.progress(1, 5, {"loss": 1.0, "accuracy": 0.5}, 100.0)
    writer.epoch(ROWS[0])
    writer.epoch(ROWS[1])
    writer.close()
    lines = out.getvalue().splitlines()
    assert len(lines) == 2 and "\x1b" not in out.getvalue()
    assert lines[0].startswith("epoch 1/3  train loss 1.0000 acc 50.00%  val loss 2.0000")
    assert "val" not in lines[1]


def test_progress_is_printed_after_30_seconds_without_output(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    writer = writers.ConsoleWriter(3, 10)
    writer._last_line -= 31
    writer.progress(1, 5, {"loss": 1.0, "accuracy": 0.5}, 100.0)
    assert "epoch 1 step 5/10  loss 1.0000  acc 50.00%  100 img/s" in out.getvalue()


def use_terminal(monkeypatch, columns):
    """Makes standard output a terminal, and returns what is written to it."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    return out


LONGEST = ROWS[0] | {
    "epoch": 1000, "learning_rate": 1e-4, "train_loss": 12.3456, "train_accuracy": 1.0,
    "test_loss": 0.1234, "test_accuracy": 1.0, "val_loss": None, "seconds": 99999.9,
    "images_per_second": 99999.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (
            120,
            "epoch 1000/1000  train loss 12.3456 acc 100.00%  test loss 0.1234 acc 100.00%  "
            "lr 1.00e-04  99999.9 s  99,999 img/s",
        ),
        (
            100,
            "epoch 1000/1000  train 12.3456 100.00%  test 0.1234 100.00%  lr 1.00e-04  99999.9 s  "
            "99,999 img/s",
        ),
        (80, "1000/1000  train 12.3456 100.00%  test 0.1234 100.00%  lr 1.00e-04  99999.9 s"),
    ],
)
def test_the_line_of_an_epoch_fits_the_terminal(monkeypatch, columns, line):
    out = use_terminal(monkeypatch, columns)
    writer = writers.ConsoleWriter(1000, 10)
    writer.epoch(LONGEST)
    writer.close()
    (shown,) = [text for text in out.getvalue().splitlines() if "1000/1000" in text]
    assert shown.endswith(line) and len(line) <= columns


def test_terminal_shows_a_progress_bar(monkeypatch):
    out = use_terminal(monkeypatch, 120)
    writer = writers.ConsoleWriter(3, 10)
    writer._bar.refresh()
    assert "compiling" in out.getvalue()
    writer.progress(2, 5, {"loss": 1.0, "accuracy": 0.5}, 100.0)
    writer._bar.refresh()
    writer.close()
    assert "epoch 2/3" in out.getvalue() and "15/30" in out.getvalue()
