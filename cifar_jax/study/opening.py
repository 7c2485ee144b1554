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
from cifar_jax.study.space import Parameter, longest

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


def connect(url: str) -> BaseStorage:
    """Connects to an Optuna storage.

    Raises:
      UserError: If the storage cannot be used.
    """
    try:
        return optuna.storages.get_storage(url)
    # ValueError: not a URL. ImportError: the package of the database is missing.
    except (ValueError, ImportError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise _unreachable(url, error) from error


def open_study(
    config: ConfigDict, space: tuple[Parameter, ...], name: str, storage: BaseStorage | Path
) -> optuna.Study:
    """Opens a study, and creates it if necessary.

    Args:
      config: The config of the trials.
      space: The search space.
      name: The name of the study.
      storage: The storage, or the workdir of the search, whose journal is used.

    Raises:
      UserError: If the storage cannot be used.
    """
    optuna.logging.disable_default_handler()
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        if isinstance(storage, Path):
            journal = optuna.storages.journal
            storage = journal.JournalStorage(journal.JournalFileBackend(str(storage / JOURNAL)))
        return optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=sampler.create(config.search.sampler, config.seed),
            pruner=_pruner(config, space),
            direction="maximize",
            load_if_exists=True,
        )
    except (OSError, ValueError) as error:  # the journal cannot be read, or is damaged
        raise _unreachable(None, error) from error


def _pruner(config: ConfigDict, space: tuple[Parameter, ...]) -> optuna.pruners.BasePruner:
    """Returns the pruner; its steps are epochs, counted from 1."""
    min_epochs = config.search.min_epochs
    if config.search.pruner == "median":
        return optuna.pruners.MedianPruner(n_warmup_steps=min_epochs)
    if config.search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=min_epochs, max_resource=longest(config, space)
        )
    return optuna.pruners.NopPruner()
