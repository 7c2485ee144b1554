import searching  # noqa: F401  skips without optuna

from cifar_jax.report import figures
from cifar_jax.study import charts, space
from cifar_jax.study.charts import Point

SPACE = space.parse(
    "optim.learning_rate in log(1e-4, 1e-2); model.filters[0] in {64, 16, 32};"
    "augment.ops in {'', 'flip'}; batch_size in int(16, 64)"
)


def make_points():
    values = [(1e-4, 16, "", 16), (1e-3, 64, "flip", 40), (1e-2, 32, "", 64), (2e-3, 64, "", 20)]
    points = [
        Point(number, 50.0 + number, number != 2, dict(zip([p.name for p in SPACE], v)))
        for number, v in enumerate(values)
    ]
    return [*points, Point(4, None, False, {})]  # failed


def line(figure, index=0):
    axes = figure.axes[0]
    return [*map(list, axes.lines[index].get_data())]


def test_history_shows_trials_and_the_best_so_far():
    figure = charts.history(make_points(), "accuracy (%)", lower_is_better=False)
    assert line(figure) == [[0, 1, 3], [50, 51, 53]]
    assert line(figure, 1) == [[2], [52]]  # pruned
    assert line(figure, 2) == [[0, 1, 3, 4], [50, 51, 53, 53]]
    figure = charts.history(make_points(), "loss", lower_is_better=True)
    assert line(figure, 2)[1] == [50, 50, 50, 50]
    assert "<svg" in figures.svg(figure, "h")


def test_importances_are_sorted():
    axes = charts.importances({"a": 0.2, "b": 0.7, "c": 0.1}).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["b", "a", "c"]
    assert [bar.get_width() for bar in axes.patches] == [70, 20, 10]


def test_slices_place_choices_in_order_and_ranges_to_scale():
    rate, filters, ops, _ = SPACE
    figure = charts.slices(make_points(), rate, "accuracy (%)")
    assert figure.axes[0].get_xscale() == "log"
    assert line(figure, 1) == [[1e-4, 1e-3, 2e-3], [50, 51, 53]]
    axes = charts.slices(make_points(), filters, "accuracy (%)").axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["16", "32", "64"]
    assert [round(x) for x in axes.lines[1].get_xdata()] == [0, 2, 2]
    axes = charts.slices(make_points(), ops, "accuracy (%)").axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["''", "flip"]


def test_parallel_coordinates_end_in_the_metric_with_the_best_on_top():
    figure = charts.parallel(make_points(), SPACE, "accuracy (%)", lower_is_better=False)
    lines = [[round(float(y), 3) for y in line(figure, i)[1]] for i in range(3)]
    assert [heights[-1] for heights in lines] == [0, 0.333, 1]
    assert lines[0][:4] == [0, 0.167, 0.25, 0]  # ends of the ranges, middle of the choices
    assert lines[1][:4] == [0.5, 0.833, 0.75, 0.5]
    figure = charts.parallel(make_points(), SPACE, "loss", lower_is_better=True)
    assert line(figure, 2)[1][-1] == 0
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:3] == ["0.0001", "0.001", "0.01"] and texts[-3:] == ["50", "51.5", "53"]
