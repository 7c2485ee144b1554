"""One training step and one evaluation step: pure functions of arrays.

A network is split once into a static graph definition and arrays. The steps merge the two while
they are traced, so that jax.jit, jax.grad and the engine's loop see only arrays.

Every random number is a function of (state.key, state.step) and of its position in the global
batch. Threefry is partitionable: the draws of a sharded batch equal those of an unsharded one.
Under jit, a run therefore depends neither on the number of devices nor on the number of steps per
call. Under pmap, each replica draws its own numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from cifar_jax.losses import cross_entropy
from cifar_jax.metrics import Metrics, measure
from cifar_jax.models.rngs import make_rngs
from cifar_jax.tree_paths import Path, everything, join, map_by_path, split

# Identifiers of random streams, which are folded into the run's key.
_INIT, _ORDER, _STEP = range(3)


@flax.struct.dataclass
class TrainState:
    """The state that training carries from step to step, and that a checkpoint holds.

    Attributes:
      step: [] int32, the number of steps done.
      params: Nested dict of float32 arrays.
      batch_stats: The running statistics of BatchNorm, a nested dict; empty without BatchNorm.
      opt_state: The state of the optax optimizer, for the parameters that train.
      key: [] typed key, the root of the run's random numbers; constant.
      lr_scale: [] float32, a factor on every update; 1 unless a callback lowers it.
      average: {"params": ..., "batch_stats": ...}, the averages of both over the steps, which
        evaluation uses instead of the latest values; None if the run has no average.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array
    lr_scale: jax.Array
    average: Any = None

    @property
    def evaluated(self) -> tuple[Any, Any]:
        """The parameters and running statistics to evaluate: the average, if there is one."""
        if self.average is None:
            return self.params, self.batch_stats
        return self.average["params"], self.average["batch_stats"]


class Batch(NamedTuple):
    """The examples of one step. In evaluation, the last three fields are None.

    Attributes:
      images: [B, H, W, C] uint8, or precomputed features [B, D] float32.
      labels: [B] int32.
      weights: [B] float32, 1 for an example that counts and 0 for padding.
      num_counting: [] float32, the number of examples that count in the global batch.
      indices: [B] int32, the index of each example in the data set.
      epochs: [B] int32, the epoch in which each example is seen, from 0.
    """

    images: jax.Array
    labels: jax.Array
    weights: jax.Array
    num_counting: jax.Array | None = None
    indices: jax.Array | None = None
    epochs: jax.Array | None = None


class Networks(NamedTuple):
    """The graph definitions of one network in training and in evaluation mode."""

    train: nnx.GraphDef
    eval: nnx.GraphDef


# (state, batch, learning_rate=1, average_rate=0) -> (state, metrics of the batch)
TrainStep = Callable[..., tuple[TrainState, Metrics]]
EvalStep = Callable[[Any, Any, Batch], tuple[jax.Array, Metrics]]
Preprocess = Callable[[jax.Array], jax.Array]
# (network, preprocessed images or their features, random streams or None) -> logits
Forward = Callable[[nnx.Module, jax.Array, nnx.Rngs | None], jax.Array]
# (path of a parameter) -> whether it trains; (path of running statistics) -> whether they change
Trains = Callable[[Path], bool]
# (key [], images) -> (images, partner of each image [B] int32, weight of its own label [B] float32)
Mix = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
# images [B, H, W, C] -> (views of the images [V * B, H, W, C], weight of each view [V])
Views = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def abstract(create: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
    """Returns the network that `create` builds, with shapes in place of arrays."""
    return nnx.eval_shape(lambda: create(make_rngs(params=0)))


def split_networks(
    create: Callable[[nnx.Rngs], nnx.Module], frozen: nnx.filterlib.Filter = False
) -> Networks:
    """Returns the graph definitions of the network that `create` builds; allocates no arrays.

    Args:
      create: Builds the network from its random streams.
      frozen: The modules that are in evaluation mode during training too.
    """
    model = abstract(create)

    def in_mode(model: nnx.Module, is_eval: bool, only: nnx.filterlib.Filter = True) -> nnx.Module:
        mode = dict(deterministic=is_eval, use_running_average=is_eval)
        return nnx.view(model, only=only, raise_if_not_found=False, **mode)

    train = in_mode(in_mode(model, False), True, only=frozen)
    return Networks(*(nnx.split(network)[0] for network in (train, in_mode(model, True))))


def classify_images(model: nnx.Module, images: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
    """Returns the logits of preprocessed images: applies the whole network."""
    return model(images, rngs)


def classify_features(model: nnx.Module, features: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
    """Returns the logits of features [B, D]: applies only the network's head."""
    return model.classify(features, rngs)


def init(
    create: Callable[[nnx.Rngs], nnx.Module],
    optimizer: optax.GradientTransformation,
    seed: int | jax.Array,
    *,
    trains: Trains = everything,
    averages: bool = False,
) -> TrainState:
    """Returns the state at step 0. A pure function of the seed, which can be jitted or vmapped.

    Args:
      create: Builds the network from its random streams.
      optimizer: The optimizer.
      seed: The seed of the run's random numbers.
      trains: Whether the parameter at a path trains; the others have no state in the optimizer.
      averages: Whether the state holds an average, which starts as the initial parameters and
        running statistics.
    """
    key = jax.random.key(seed)
    model = create(make_rngs(params=jax.random.fold_in(key, _INIT)))
    params, batch_stats = (
        nnx.to_pure_dict(state) for state in nnx.state(model, nnx.Param, nnx.BatchStat)
    )
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(split(params, trains)[0]),
        key=key,
        lr_scale=jnp.ones((), jnp.float32),
        average={"params": params, "batch_stats": batch_stats} if averages else None,
    )


def all_finite(tree: Any) -> jax.Array:
    """Returns whether every floating-point number in the tree is finite, [] bool."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


def epoch_order(
    key: jax.Array, epoch: jax.Array, num_examples: int, batch_size: int, drop_last: bool = False
) -> jax.Array:
    """Returns the order in which an epoch visits the examples, [steps, B] int32.

    Every example is visited once, in ceil(num_examples / B) steps. The last row is padded with the
    epoch's first examples, to which the step gives weight 0. Padding with real images keeps the
    batch statistics of BatchNorm realistic; zeros would not. With drop_last, there are only the
    floor(num_examples / B) full rows.

    Args:
      key: [] typed key, the root of the run's random numbers.
      epoch: [] int32, counted from 0.
      num_examples: The number of examples, at least batch_size.
      batch_size: The number B of examples per step, over all devices.
      drop_last: Whether to drop the incomplete last batch.
    """
    key = jax.random.fold_in(jax.random.fold_in(key, _ORDER), epoch)
    order = jax.random.permutation(key, num_examples).astype(jnp.int32)
    if drop_last:
        return order[: num_examples // batch_size * batch_size].reshape(-1, batch_size)
    missing = -num_examples % batch_size
    return jnp.concatenate([order, order[:missing]]).reshape(-1, batch_size)


def step_key(state: TrainState, axis_name: str | None = None) -> jax.Array:
    """Returns the key of the state's step, [] typed; under pmap, that of this replica."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, _STEP), state.step)
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def _merge(graphdef: nnx.GraphDef, params, batch_stats) -> nnx.Module:
    return nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats), copy=True)


def make_train_step(
    network: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    augment: Callable[..., jax.Array],
    preprocess: Preprocess,
    mix: Mix | None = None,
    label_smoothing: float = 0.0,
    trains: Trains = everything,
    adapts: Trains = everything,
    forward: Forward = classify_images,
    sam_rho: float = 0.0,
    pulls_back: bool = False,
    group_index: Callable[[Path], int] | None = None,
    rescale: Callable[[Any], Any] | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """Builds the training step: augment, mix, forward pass, backward pass, update, metrics.

    The loss is the mean over the examples that count, across all replicas. Under pmap, BatchNorm
    uses the batch statistics of each replica, and the running statistics are averaged over the
    replicas at every step. This keeps the state identical on all devices and, since a running mean
    is linear, equals averaging at the end.

    Args:
      network: The graph definition for training.
      optimizer: The optimizer. Its updates are scaled by the step's learning_rate argument, 1 by
        default, and by state.lr_scale.
      augment: Maps (key [], images [B, H, W, C] uint8, indices [B], epochs [B]) to images of the
        same shape and range.
      preprocess: Maps augmented images to the network's input.
      mix: Mixes pairs of augmented images; see augment.parse_mix. The loss mixes their labels in
        the same way; the training accuracy counts only the label of the original image.
      label_smoothing: See losses.cross_entropy.
      trains: Whether the parameter at a path trains, as for `init`. The others are constants: no
        gradient is computed for them, and they keep their values.
      adapts: Whether the running statistics at a path change. The others keep their values; under
        pmap, even the mean of equal values could differ from them in the last bit.
      forward: Applies the network, or only its head if the batches hold features.
      sam_rho: Sharpness-aware minimization (Foret et al., 2021, arXiv:2010.01412): the gradient is
        taken at the parameters plus sam_rho times the normalized gradient, in a second pass over
        the batch. Metrics and running statistics are those of the first pass. 0 for none.
      pulls_back: Whether the parameters and the running statistics are replaced by the average
        whenever it moves; see optim/averaging.py.
      group_index: Maps the path of a parameter to the index of its group, if each group has its own
        learning rate: learning_rate is then [num_groups], or a scalar for all of them.
      rescale: Maps the parameters that train to those that the update is added to. It is called
        after the gradient has been computed; see optim/muon.py.
      axis_name: The axis name of pmap, or None under jit.
    """

    def total(tree):
        return tree if axis_name is None else jax.lax.psum(tree, axis_name)

    def mean(tree):
        return tree if axis_name is None else jax.lax.pmean(tree, axis_name)

    def train_step(
        state: TrainState,
        batch: Batch,
        learning_rate: jax.Array | float = 1.0,
        average_rate: jax.Array | float = 0.0,
    ) -> tuple[TrainState, Metrics]:
        augment_key, mix_key, dropout_key = jax.random.split(step_key(state, axis_name), 3)
        images = augment(augment_key, batch.images, batch.indices, batch.epochs)
        if mix is not None:
            images, partner, lam = mix(mix_key, images)
        images = preprocess(images)
        params, frozen = split(state.params, trains)

        def loss_fn(params):
            model = _merge(network, join(params, frozen), state.batch_stats)
            logits = forward(model, images, make_rngs(dropout=dropout_key)).astype(jnp.float32)
            losses = cross_entropy(logits, batch.labels, label_smoothing)
            if mix is not None:
                others = cross_entropy(logits, batch.labels[partner], label_smoothing)
                losses = lam * losses + (1.0 - lam) * others
            batch_stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
            loss = jnp.sum(losses * batch.weights) / batch.num_counting
            return loss, (logits, losses, batch_stats)

        grads, (logits, losses, batch_stats) = jax.grad(loss_fn, has_aux=True)(params)
        grads = total(grads)
        if sam_rho:
            grads = total(jax.grad(loss_fn, has_aux=True)(sam_ascent(params, grads, sam_rho))[0])
        if rescale is not None:
            params = rescale(params)
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        adapted, fixed = split(batch_stats, adapts)
        scale = learning_rate * state.lr_scale
        updates = scaled(updates, scale, group_index)
        state = state.replace(
            step=state.step + 1,
            params=join(optax.apply_updates(params, updates), frozen),
            batch_stats=join(mean(adapted), fixed),
            opt_state=opt_state,
        )
        if state.average is not None:
            state = _averaged(state, average_rate, pulls_back)
        return state, measure(logits, batch.labels, losses, batch.weights, axis_name)

    return train_step


def sam_ascent(params: Any, grads: Any, rho: float) -> Any:
    """Returns the parameters at which SAM takes the gradient: params + rho * grads / |grads|.

    The norm is that of all gradients together.
    """
    scale = rho / (optax.tree.norm(grads) + 1e-12)
    return jax.tree.map(lambda param, grad: param + scale * grad, params, grads)


def _averaged(state: TrainState, rate: jax.Array | float, pulls_back: bool) -> TrainState:
    """Moves the average by the fraction `rate` towards the state's parameters and statistics."""
    new = {"params": state.params, "batch_stats": state.batch_stats}
    average = jax.tree.map(lambda old, x: old + rate * (x - old), state.average, new)
    if pulls_back:
        new = jax.tree.map(lambda mean, x: jnp.where(rate > 0, mean, x), average, new)
    return state.replace(average=average, **new)


def scaled(updates: Any, scale: jax.Array, group_index: Callable[[Path], int] | None = None) -> Any:
    """Returns the updates multiplied by `scale`, [] or, for groups of parameters, [num_groups]."""
    if group_index is None or jnp.ndim(scale) == 0:
        return jax.tree.map(lambda update: scale * update, updates)
    return map_by_path(lambda path, update: scale[group_index(path)] * update, updates)


def make_eval_step(
    network: nnx.GraphDef,
    preprocess: Preprocess,
    forward: Forward = classify_images,
    views: Views | None = None,
) -> EvalStep:
    """Builds the function (params, batch_stats, batch) -> (logits [B, C] float32, Metrics).

    Args:
      network: The graph definition for evaluation.
      preprocess: Maps images to the network's input.
      forward: Applies the network, or only its head if the batches hold features.
      views: Maps images to several views of them, whose logits are averaged with the weights that
        it also returns; see augment/views.py. None for the images themselves.
    """

    def eval_step(params, batch_stats, batch: Batch) -> tuple[jax.Array, Metrics]:
        model = _merge(network, params, batch_stats)
        images, weights = batch.images, None
        if views is not None:
            images, weights = views(images)
        logits = forward(model, preprocess(images), None).astype(jnp.float32)
        if weights is not None:
            logits = jnp.tensordot(weights, logits.reshape(weights.size, -1, logits.shape[1]), 1)
        losses = cross_entropy(logits, batch.labels)
        return logits, measure(logits, batch.labels, losses, batch.weights)

    return eval_step


def make_features_step(network: nnx.GraphDef, preprocess: Preprocess) -> EvalStep:
    """Builds the function (params, batch_stats, batch) -> (features [B, D] float32, no metrics).

    Args:
      network: The graph definition for evaluation of a network with a body and a head.
      preprocess: Maps images to the network's input.
    """

    def features_step(params, batch_stats, batch: Batch) -> tuple[jax.Array, Metrics]:
        model = _merge(network, params, batch_stats)
        return model.features(preprocess(batch.images)).astype(jnp.float32), Metrics.empty()

    return features_step
