"""Ends a search: prints the best trial and the command that trains it, and writes the page."""

import sys
from pathlib import Path

from cifar_jax.report import page
from cifar_jax.study import queue, result, search_page, space
from cifar_jax.study.opening import storage_errors
from cifar_jax.study.worker import Search

PAGE = "search.html"


def show(search: Search, config_path: Path) -> int:
    """Prints the result of a complete search, writes its page, and returns the exit code.

    Args:
      search: The search.
      config_path: The config file, for the command.

    Raises:
      UserError: If the page cannot be written.
    """
    with storage_errors(search.storage):
        trials = search.trials
        best = result.best_of(trials)
        command = None
        if best is not None:
            winner = space.applied(search.config, search.space, search.values(best))
            folder = search.workdir / "best"
            command = result.command(str(config_path), search.config, winner, folder)
        path = search.workdir / PAGE
        page.write(search_page.of_search(search, command), path)
    if best is None:
        errors = (t.user_attrs.get("error") for t in trials)
        first = next(filter(None, errors), "all of them were pruned")
        print(f"error: no trial is complete: {first}", file=sys.stderr)
        print(f"  all trials            {path}")
        return 1
    metric = search.trial_config.selected_by
    rows = [
        ("best trial", f"{best.number}, in {queue.folder_of(search.workdir, best.number)}"),
        (search_page.metric_name(metric), result.format_value(best.value, metric)),
        *((name, result.format_parameter(v)) for name, v in search.values(best).items()),
        ("trials", f"{len(trials)}, in {path}"),
        ("train the winner with", command),
    ]
    width = max(22, 2 + max(len(name) for name, _ in rows))
    print("\n".join(f"  {name:<{width}}{value}" for name, value in rows))
    return 0
