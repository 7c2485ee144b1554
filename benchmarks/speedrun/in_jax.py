"""Runs a speedrun with this suite's engine."""

import time

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.speedrun.outcome import Outcome
from cifar_jax import data, experiment
from cifar_jax.engine import Engine
from cifar_jax.evaluate import make_evaluate
from cifar_jax.metrics import Metrics, fetch
from cifar_jax.step import TrainState


class InJax:
    """A recipe, compiled once, that can be run with many seeds.

    Every epoch is one call of a compiled program, whose result the host does not wait for.

    Attributes:
      compile_seconds: The time that tracing and compiling the training programs took.
    """

    def __init__(
        self,
        config: ConfigDict,
        dataset: data.Dataset,
        clock: str,
        mesh: jax.sharding.Mesh | None = None,
    ):
        """Builds the network and compiles its training programs.

        Args:
          config: A config that `experiment.checked` has returned.
          dataset: The images; see `experiment.load_data`.
          clock: One of records.CLOCKS.
          mesh: The devices to use; by default, all of all hosts.

        Raises:
          UserError: If parts of the config do not fit together.
        """
        self._config, self._dataset, self._clock = config, dataset, clock
        exp = experiment.create(config, dataset, mesh=mesh)
        self._engine, self._evaluate = exp.engine, exp.evaluate["test"]
        self.compile_seconds = exp.engine.compile_seconds
        self._evaluate_once = self._evaluate
        if config.augment.views > 1:
            single = config.copy_and_resolve_references()
            single.augment.views = 1
            self._evaluate_once = make_evaluate(
                experiment.make_parts(single, dataset.info).eval_step,
                *dataset.test,
                batch_size=config.eval_batch_size,
                mesh=exp.engine.mesh,
            )

    def run(self, seed: int, labels: np.ndarray | None = None) -> Outcome:
        """Trains from new parameters to the end, and evaluates.

        Args:
          seed: The seed of the run's random numbers.
          labels: [N] int32, to train with instead of the data set's labels.
        """
        images = self._dataset.train.images
        labels = self._dataset.train.labels if labels is None else labels
        engine = self._engine.reseeded(seed)
        if self._clock == "T1":
            uploaded = engine.upload(images, labels)
            _, state = jax.block_until_ready((uploaded, engine.init(load=False)))
            start = time.perf_counter()
            state, metrics = self._train(engine, state)
            accuracy = fetch(self._evaluate(engine.snapshot(state))[0])["accuracy"]
            seconds = time.perf_counter() - start
        else:
            start = time.perf_counter()
            engine.upload(images, labels)
            state, metrics = self._train(engine, engine.init(load=False))
            jax.block_until_ready(state)
            seconds = time.perf_counter() - start
            accuracy = fetch(self._evaluate(engine.snapshot(state))[0])["accuracy"]
        once = fetch(self._evaluate_once(engine.snapshot(state))[0])["accuracy"]
        return Outcome(seconds, accuracy, once, fetch(engine.snapshot(metrics))["loss"])

    def _train(self, engine: Engine, state: TrainState) -> tuple[TrainState, Metrics]:
        """Whitens and trains; returns the last state and the metrics of the last epoch."""
        state = engine.fit(state)
        for epoch in range(self._config.num_epochs):
            plan = engine.plan(state, epoch)
            state, metrics = engine.run(state, engine.no_metrics(), plan, engine.steps_per_epoch)
        return state, metrics
