import functools
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from thin import THIN

from cifar_jax import models
from cifar_jax.errors import UserError
from cifar_jax.models.rngs import make_rngs

pytestmark = pytest.mark.usefixtures("library_convolutions")

# With 100 classes, from the write-ups or counted by PyTorch for the same layers.
NUM_PARAMS = {
    "airbench": 1_994_680,
    "cct_7_3x1": 3_783_269,  # 3.760M with 10 classes: SHI-Labs/Compact-Transformers
    "cnn13": 9_585_700,
    "cnn2": 2_129_572,
    "cnn3": 1_193_636,
    "cnn4": 2_175_748,
    "cnn9": 2_241_572,
    "cnn_deep": 454_772,
    "cnn_small": 83_060,
    "convnext_t": 27_895_012,  # torchvision: 28,589,128 with 1,000 classes and a 4x4 stem
    "densenet121": 7_048_548,  # torchvision: 7,978,856 with 1,000 classes and a 7x7 stem
    "inception_resnet": 4_448_580,
    "mobilenetv2": 2_351_972,  # torchvision: 3,504,872 with 1,000 classes
    # kuangliu/pytorch-cifar's 11,171,146 with 10 classes, 1,024 of the last BN, 513 per class.
    "preact_resnet18": 11_218_340,
    # The same in osmr/imgclsmob; 28.3M in Han et al., with 10 classes.
    "pyramidnet": 28_511_307,
    "resnet18": 11_220_132,
    "resnet34": 21_328_292,
    "resnet50": 23_739_492,
    # 34,426,698 with 10 classes, which Xie et al. round to 34.4M.
    "resnext29": 34_518_948,
    "school": 4_894_692,
    # resnet18's, and 89,080 of the gates; weiaicunzai's network also has 4,800 biases: 11.4M.
    "senet18": 11_309_212,
    "simple": 6_561_764,
    "simple_initial": 2_584_548,
    "speed_resnet": 8_608_312,
    "stacked3": 5_815_460,
    "vgg16": 14_765_988,
    # 15,253,578 with 10 classes, 15.25M in chenyaofo/pytorch-cifar-models.
    "vgg16_bn": 15_299_748,
    "vgg19": 20_075_684,
    # The same in osmr/imgclsmob; 36.5M in Zagoruyko and Komodakis.
    "wide_resnet_28_10": 36_536_884,
    "xception": 21_011_852,
}


@pytest.fixture(params=models.MODELS)
def name(request):
    return request.param


# Networks with the same layers in the thin version: one of each kind is enough.
DISTINCT = {
    (getattr(f, "func", f), getattr(f, "keywords", {}).get("padding"), str(THIN.get(name))): name
    for name, f in models.MODELS.items()
}


@pytest.fixture(params=sorted(DISTINCT.values()))
def distinct(request):
    return request.param


def build(name, dtype=jnp.float32, **options):
    return models.create(name, 10, make_rngs(params=0), dtype=dtype, **options)


def test_every_model_has_a_pinned_count():
    assert NUM_PARAMS.keys() == models.MODELS.keys()


@functools.cache
def without_arrays(name, **options):
    return nnx.eval_shape(lambda: models.create(name, 100, make_rngs(params=0), **options))


def num_params(name, **options):
    model = without_arrays(name, **options)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_number_of_parameters(name):
    assert num_params(name) == NUM_PARAMS[name]


def test_number_of_parameters_of_resnet50_with_the_conventions_of_torch():
    # torchvision: 25,557,032 with 1,000 classes.
    assert num_params("resnet50", conventions="torch") == 23_712_932
    # weiaicunzai/pytorch-cifar100: 23.7M.
    assert num_params("resnet50", conventions="torch", stem="cifar") == 23_705_252


def build_with_arrays(name, **options):
    """Returns a network with random arrays, for which no initializer has to be compiled."""
    model = nnx.eval_shape(lambda: build(name, **options))
    rng = np.random.default_rng(0)
    arrays = jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(0.1, 0.3, x.shape), x.dtype), nnx.state(model)
    )
    nnx.update(model, arrays)
    return model


def test_logits_in_training_and_evaluation(distinct):
    model = build_with_arrays(distinct, **THIN.get(distinct, {}))
    evaluating = nnx.view(
        model, deterministic=True, use_running_average=True, raise_if_not_found=False
    )
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))

    first, stats = run(evaluating, images)
    second, _ = run(evaluating, images, seed=1)
    assert first.shape == (2, 10) and first.dtype == jnp.float32
    np.testing.assert_array_equal(first, second)
    before = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, before, stats)

    logits, stats = run(model, images)
    moved = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, stats)))]
    assert all(moved) and bool(moved) == has(model, nnx.BatchNorm)
    # With dropout, the logits depend on the key.
    differs = not np.array_equal(logits, run(model, images, seed=1)[0])
    assert differs == has(model, nnx.Dropout)


def has(model, kind):
    return any(isinstance(module, kind) for _, module in nnx.iter_modules(model))


def run(model, images, seed=0):
    """Returns the logits and the updated statistics."""
    graphdef, state = nnx.split(model)
    return _run(graphdef, state, images, jax.random.key(seed))


@partial(jax.jit, static_argnums=0)
def _run(graphdef, state, images, key):
    model = nnx.merge(graphdef, state, copy=True)
    logits = model(images, nnx.Rngs(dropout=key))
    return logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32(distinct):
    model = nnx.eval_shape(lambda: build(distinct, jnp.bfloat16, **THIN.get(distinct, {})))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.bfloat16)
    key = jax.eval_shape(lambda: jax.random.key(0))
    logits, stats = jax.eval_shape(
        partial(_run, nnx.graphdef(model)), nnx.state(model), images, key
    )
    assert logits.dtype == jnp.float32
    jaxpr = str(jax.make_jaxpr(partial(_run, nnx.graphdef(model)))(nnx.state(model), images, key))
    assert "bf16" in jaxpr.split("conv_general_dilated[")[0].splitlines()[-1]
    leaves = jax.tree.leaves((nnx.to_pure_dict(nnx.state(model, nnx.Param)), stats))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


SPLIT = [name for name in models.MODELS if models.is_split(name)]


def test_networks_for_transfer_are_split():
    names = {"resnet18", "resnet34", "resnet50", "vgg16", "vgg19", "xception"}
    names |= {"airbench", "speed_resnet"}
    names |= {"cct_7_3x1", "convnext_t", "densenet121", "mobilenetv2"}
    names |= {"preact_resnet18", "pyramidnet", "resnext29", "senet18", "vgg16_bn"}
    names |= {"wide_resnet_28_10"}
    assert names <= set(SPLIT) and "cnn3" not in SPLIT


@pytest.mark.parametrize("name", sorted(set(SPLIT) & set(DISTINCT.values())))
def test_split_networks_take_images_of_any_size(name):
    model = nnx.eval_shape(lambda: build(name, image_size=41, **THIN.get(name, {})))
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, 41, 41, 3), jnp.float32)

    def run(in_two_steps, state, images):
        model, rngs = nnx.merge(graphdef, state, copy=True), nnx.Rngs(dropout=0)
        if not in_two_steps:
            return model(images, rngs)
        features = model.features(images, rngs)
        assert features.ndim == 2
        return model.classify(features, rngs)

    for in_two_steps in (False, True):
        logits = jax.eval_shape(partial(run, in_two_steps), state, images)
        assert logits.shape == (2, 10) and logits.dtype == jnp.float32


@pytest.mark.parametrize(("name", "size"), [("convnext_t", "width"), ("densenet121", "growth")])
def test_stages_that_leave_no_pixels_are_refused(name, size):
    model = nnx.eval_shape(lambda: build(name, depths=7 * (1,), **{size: 4}))
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    with pytest.raises(UserError, match=r"the stages of the network leave no pixels"):
        jax.eval_shape(lambda *args: _run(graphdef, *args), state, images, jax.random.key(0))


def test_other_networks_refuse_images_of_another_size():
    with pytest.raises(UserError, match=r"cnn3 takes only images of 32 pixels, .* resnet18"):
        build("cnn3", image_size=64)


def starts_with(path, prefixes):
    return any(path[: len(prefix)] == prefix for prefix in prefixes)


@pytest.mark.parametrize("name", SPLIT)
def test_every_array_is_in_one_group(name):
    model = without_arrays(name)
    arrays = nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    groups, paths = model.groups(), list(flatten_dict(arrays))
    for path in paths:
        assert sum(starts_with(path, group) for group in groups) == 1, path
    for prefix in itertools.chain(*groups[1:]):  # the head has dropout too
        assert any(starts_with(path, [prefix]) for path in paths), prefix
    assert groups[0] == model.head_paths() and ("dense",) in groups[0]


def groups_of(name, **options):
    model = nnx.eval_shape(lambda: build(name, **options))
    return [[".".join(map(str, prefix)) for prefix in group] for group in model.groups()]


def test_groups_run_from_the_head_to_the_stem():
    layers = (4, "B", "M", "B", "D", 8, 8, "M", "F", 16, "B", 8)
    assert groups_of("vgg16", layers=layers, dropout=0.5) == [
        ["dense", "layers.9", "layers.10", "layers.11"],
        ["layers.5", "layers.6"],
        ["layers.0", "layers.1", "layers.3"],
    ]
    assert [len(group) for group in groups_of("vgg19")] == [1, 4, 4, 4, 2, 2]
    for name in ("resnet34", "resnet50"):
        groups = groups_of(name, width=4, depths=(2, 1))
        blocks = [["blocks.2"], ["blocks.0", "blocks.1"]]
        assert groups == [["dense"], *blocks, ["conv_stem", "bn_stem"]]
    for name in ("preact_resnet18", "wide_resnet_28_10"):
        groups = groups_of(name, **THIN[name])
        assert groups[1][-1] == "bn_out" and groups[-1] == ["conv_stem"]
    layers = (4, "M", 8, 8, "M", "M")
    assert groups_of("vgg16_bn", layers=layers) == [
        ["dense", "dense2", "dense1"],
        ["blocks.1", "blocks.2"],
        ["blocks.0"],
    ]
    assert groups_of("xception", **THIN["xception"]) == [
        ["dense"],
        ["blocks.4", "blocks.5"],
        ["blocks.3"],
        ["conv1", "bn1", "conv2", "bn2", "blocks.0", "blocks.1", "blocks.2"],
    ]
    assert groups_of("densenet121", depths=(2, 1), growth=4) == [
        ["dense"],
        ["transitions.0", "layers.2", "bn"],
        ["layers.0", "layers.1"],
        ["conv_stem"],
    ]
    assert groups_of("mobilenetv2", depths=(1, 2))[1] == [
        "blocks.1", "blocks.2", "conv_last", "bn_last",
    ]  # fmt: skip
    assert groups_of("convnext_t", depths=(1, 1, 2), width=4) == [
        ["dense"],
        ["blocks.2", "blocks.3", "downsamples.1", "norm"],
        ["blocks.1", "downsamples.0"],
        ["blocks.0"],
        ["conv_stem", "norm_stem"],
    ]
    assert groups_of("cct_7_3x1", depth=2) == [
        ["dense"],
        ["blocks.1", "norm", "pool"],
        ["blocks.0"],
        ["conv_stem", "positions"],
    ]


def test_options_of_returns_the_defaults():
    assert models.options_of("cnn3") == {"dropout": (0.1, 0.25, 0.5)}
    defaults = {"depths": (3, 4, 6, 3), "width": 64, "stem": "cifar", "conventions": "torch"}
    assert models.options_of("resnet34") == defaults


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn2", dict(filters=8)),
        ("cnn2", dict(filters=(8, 0))),
        ("cnn2", dict(filters=(8, 4.5))),
        ("cnn2", dict(filters=(8, 16, 32))),
        ("cnn4", dict(filters="abc")),
        ("cnn4", dict(filters=())),
        ("cnn2", dict(dense_units=0)),
        ("cnn2", dict(dense_units=(8, 8))),
        ("cnn2", dict(dense_units=True)),
        ("cnn2", dict(dropout="(0.1")),
        ("cnn2", dict(dropout=("a", "b", "c"))),
        ("resnet18", dict(width=-8)),
        ("resnet18", dict(depths=(2, -1))),
        ("resnet18", dict(depths=2)),
        ("airbench", dict(widths=(8, 8))),
        ("airbench", dict(depth=4)),
        ("airbench", dict(bn_momentum=1.0)),
        ("speed_resnet", dict(widths=(8, 8))),
        ("speed_resnet", dict(mid_widths=(8, 8, 8, 8))),
        ("inception_resnet", dict(depth=0)),
        ("xception", dict(widths=(32, 64))),
        ("cct_7_3x1", dict(num_heads=3, width=256)),
        ("mobilenetv2", dict(width=0.0)),
        ("mobilenetv2", dict(depths=(1,) * 8)),
        ("pyramidnet", dict(depth=16)),
        ("pyramidnet", dict(bottleneck=1)),
        ("wide_resnet_28_10", dict(depth=4)),
        ("wide_resnet_28_10", dict(depth=27)),
        ("senet18", dict(reduction=65)),
        ("vgg16_bn", dict(layers=(4, "M") * 6)),
        ("vgg16_bn", dict(layers=("M",))),
        ("vgg16_bn", dict(dropout=(0.5, 0.3))),
        ("mobilenetv2", dict(width=(1.0, 2.0))),
        ("pyramidnet", dict(shake_drop=(0.5,))),
        ("airbench", dict(logit_scale=(1.0, 2.0))),
        ("inception_resnet", dict(features=7 * (3,))),
    ],
)
def test_options_of_the_wrong_kind_are_rejected(name, options):
    option = list(options)[-1]
    with pytest.raises(UserError, match=rf"^{option} must be "):
        models.create(name, 10, make_rngs(params=0), **options)


def test_errors_suggest_the_nearest_name():
    with pytest.raises(UserError, match="unknown model 'resnet81'; did you mean 'resnet18'"):
        build("resnet81")
    with pytest.raises(UserError, match="unknown option of cnn2 'drop'; did you mean 'dropout'"):
        build("cnn2", drop=0.5)
    with pytest.raises(UserError, match="dropout must be one number or 3"):
        build("cnn2", dropout=(0.5, 0.5))
