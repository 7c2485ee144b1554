"""Opens the Optuna study of a search."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
from ml_collections import ConfigDict
from optuna.storages import BaseStorage
from sqlalchemy.exc import SQLAlchemyError

from cifar_jax.errors import UserError, shorten
from cifar_jax.study import sampler, settings
from cifar_jax.study.space import Parameter

JOURNAL = "search.journal"


@contextlib.contextmanager
def storage_errors(storage: str | None) -> Iterator[None]:
    """Turns the errors of a storage that cannot be reached or written into a UserError."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        raise _unreachable(storage, error) from error


def _unreachable(storage: str | None, error: Exception) -> UserError:
    where = "the search's journal"
    if storage is not None:
        where = f"--storage {shorten(settings.without_password(storage), 200)}"
    reason = " ".join(str(error.__cause__ or error).splitlines()[:1])
    return UserError(f"{where} cannot be used: {type(error).__name__}: {reason}")


def open_study(
    config: ConfigDict, space: tuple[Parameter, ...], folder: Path, name: str, storage: str | None
) -> optuna.Study:
    """Opens a study, and creates it if necessary.

    Args:
      config: The config of the trials.
      space: The search space.
      folder: The workdir, which holds the journal if `storage` is None.
      name: The name of the study.
      storage: The URL of a storage of Optuna, or None.

    Raises:
      UserError: If the storage cannot be reached.
    """
    optuna.logging.disable_default_handler()
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        return optuna.create_study(
            study_name=name,
            storage=_storage(folder, storage),
            sampler=sampler.create(config.search.sampler, config.seed),
            pruner=_pruner(config, space),
            direction="maximize",
            load_if_exists=True,
        )
    # ValueError: not a URL. ImportError: the package of the database is missing.
    except (
        *(ValueError, ImportError, OSError, SQLAlchemyError),
        *(optuna.exceptions.OptunaError, optuna.exceptions.StorageInternalError),
    ) as error:
        raise _unreachable(storage, error) from error


def _storage(folder: Path, url: str | None) -> BaseStorage:
    if url is not None:
        return optuna.storages.get_storage(url)
    journal = optuna.storages.journal
    return journal.JournalStorage(journal.JournalFileBackend(str(folder / JOURNAL)))


def _pruner(config: ConfigDict, space: tuple[Parameter, ...]) -> optuna.pruners.BasePruner:
    """Returns the pruner; its steps are epochs, counted from 1."""
    min_epochs = config.search.min_epochs
    if config.search.pruner == "median":
        return optuna.pruners.MedianPruner(n_warmup_steps=min_epochs)
    if config.search.pruner == "hyperband":
        longest = max((max(p.values) for p in space if p.name == "num_epochs"), default=0)
        return optuna.pruners.HyperbandPruner(
            min_resource=min_epochs, max_resource=longest or config.num_epochs
        )
    return optuna.pruners.NopPruner()
