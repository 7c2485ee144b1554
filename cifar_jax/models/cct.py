"""CCT-7/3x1: Hassani et al., "Escaping the Big Data Paradigm with Compact Transformers" (2021).

arXiv:2104.05704; SHI-Labs/Compact-Transformers. The tokens of the transformer are the pixels after
a convolution and a max-pool.

| layer | output |
|---|---|
| conv 3x3, 256, no bias, relu, max-pool 3 with stride 2 and padding 1 | 16 x 16 x 256 |
| flatten, plus a learned vector per position | 256 x 256 |
| 7 encoder layers with 4 heads | 256 x 256 |
| LN, sequence pooling | 256 |
| dense classes | classes |

An encoder layer computes y = LN(x + attention(LN(x))) and returns y + mlp(y). The first sum is
normalized before the second one, as in the authors' code; in a usual transformer, only the input of
the mlp is. The attention has queries, keys and values without biases, dropout 0.1 on its weights,
and a dense layer. The mlp is a dense layer of 512, gelu and a dense layer of 256. Stochastic depth
drops each of the two branches, at a rate that grows linearly to 0.1 in the last layer. Sequence
pooling is a weighted mean of the tokens, whose weights are the softmax of a dense layer with one
output. LN has eps 1e-5.

The kernel of the convolution is He normal by fan-in, those of the dense layers are normal with
standard deviation 0.02, the vectors of the positions with standard deviation 0.2; biases are 0.
(The authors truncate the normal distributions at +-2, which has practically no effect.)

With 100 classes the network has 3,783,269 parameters, and 3,760,139 with 10, the authors' 3.760M.
There are no deviations. The residual sums and the softmax are computed in float32 even if the
rest of the computation is in bfloat16.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal, variance_scaling

from cifar_jax.errors import UserError
from cifar_jax.models.layers import (
    Conv,
    DenseHead,
    Dropout,
    LayerNorm,
    Linear,
    Paths,
    gelu,
    stage_groups,
)
from cifar_jax.models.stochastic_depth import StochasticDepth, linear_rates
from cifar_jax.ops.pooling import max_pool


class PositionalEmbedding(nnx.Module):
    """Adds a learned vector to each of T tokens.

    Args:
      num_tokens: T.
      features: Length D of a token.
      rngs: The `params` stream initializes the vectors.
    """

    def __init__(self, num_tokens: int, features: int, rngs: nnx.Rngs):
        self.embedding = nnx.Param(normal(0.2)(rngs.params(), (num_tokens, features)))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens [B, T, D] to the same shape, in float32 or wider."""
        return tokens + self.embedding[...]


class Attention(nnx.Module):
    """Multi-head self-attention: [B, T, D] to the same shape.

    Args:
      features: Length D of a token, a multiple of num_heads.
      num_heads: Number of heads.
      dropout: Dropout rate of the weights, after the softmax.
      linear: A function of (in_features, features) and options that returns a dense layer.
    """

    def __init__(self, features: int, num_heads: int, dropout: float, linear):
        self.num_heads = num_heads
        self.qkv = linear(features, 3 * features, use_bias=False)
        self.dropout = Dropout(dropout)
        self.out = linear(features, features)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """Applies the layer; rngs has the stream `dropout`."""
        heads = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1)
        queries, keys, values = (heads[:, :, i] for i in range(3))  # [B, T, heads, D / heads]
        scores = jnp.einsum(
            "bqhd,bkhd->bhqk", queries * queries.shape[-1] ** -0.5, keys,
            preferred_element_type=jnp.promote_types(keys.dtype, jnp.float32),
        )  # fmt: skip
        weights = self.dropout(jax.nn.softmax(scores).astype(values.dtype), rngs=rngs)
        return self.out(jnp.einsum("bhqk,bkhd->bqhd", weights, values).reshape(x.shape))


class EncoderLayer(nnx.Module):
    """Attention and mlp: [B, T, D] to the same shape.

    Args:
      features: Length D of a token.
      hidden: Number of units of the mlp.
      drop_rate: The probability with which an image loses a residual branch.
      attention: A function of features that returns an Attention.
      linear: A function of (in_features, features) that returns a dense layer.
      norm: A function of features that returns a LayerNorm.
    """

    def __init__(self, features: int, hidden: int, drop_rate: float, attention, linear, norm):
        self.norm1 = norm(features)
        self.attention = attention(features)
        self.norm2 = norm(features)
        self.dense1 = linear(features, hidden)
        self.dense2 = linear(hidden, features)
        self.drop_path = StochasticDepth(drop_rate, num_dims=3)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """Applies the layer; rngs has the stream `dropout`."""
        new = self.attention(self.norm1(x), rngs)
        x = self.norm2(x + self.drop_path(new, rngs=rngs))
        new = self.dense2(gelu(self.dense1(x)))
        return x + self.drop_path(new, rngs=rngs)


class CCT(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the parameters.
      depth: Number of encoder layers.
      width: Length of a token.
      num_heads: Number of heads of the attention; divides width.
      mlp_ratio: Number of units of the mlp, as a multiple of width.
      attention_dropout: Dropout rate of the attention's weights, in [0, 1).
      drop_path: Rate of stochastic depth of the last layer, in [0, 1).
      image_size: Height and width of the images in pixels, which determine the number of tokens.
      dtype: Dtype of the computation; parameters, LN, residual sums, softmax, sequence pooling and
        logits are float32.

    Raises:
      UserError: If num_heads does not divide width, or a rate is outside [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depth: int = 7,
        width: int = 256,
        num_heads: int = 4,
        mlp_ratio: int = 2,
        attention_dropout: float = 0.1,
        drop_path: float = 0.1,
        image_size: int = 32,
        dtype=jnp.float32,
    ):
        if width % num_heads:
            raise UserError(f"width must be a multiple of num_heads = {num_heads}, got {width}")

        norm = partial(LayerNorm, epsilon=1e-5, rngs=rngs)
        linear = partial(Linear, kernel_init=normal(0.02), dtype=dtype, rngs=rngs)
        attention = partial(
            Attention, num_heads=num_heads, dropout=attention_dropout, linear=linear
        )

        self.conv_stem = Conv(
            3, width, (3, 3), use_bias=False,
            kernel_init=variance_scaling(2.0, "fan_in", "normal"), dtype=dtype, rngs=rngs,
        )  # fmt: skip
        self.positions = PositionalEmbedding(((image_size + 1) // 2) ** 2, width, rngs)
        self.blocks = nnx.List(
            [
                EncoderLayer(width, mlp_ratio * width, rate, attention, linear, norm)
                for rate in linear_rates(drop_path, depth)
            ]
        )
        self.norm = norm(width)
        self.pool = Linear(width, 1, kernel_init=normal(0.02), rngs=rngs)
        self.dense = Linear(width, num_classes, kernel_init=normal(0.02), rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after sequence pooling; rngs has the stream `dropout`."""
        x = max_pool(nnx.relu(self.conv_stem(images)), 3, stride=2, padding=1)
        x = self.positions(x.reshape(x.shape[0], -1, x.shape[-1]))
        for block in self.blocks:
            x = block(x, rngs)
        x = self.norm(x)
        return jnp.sum(jax.nn.softmax(self.pool(x), axis=1) * x, axis=1)

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the layers (the last one first) and the stem.

        The last LN and the sequence pooling belong to the last layer.
        """
        stem, end = (("conv_stem",), ("positions",)), (("norm",), ("pool",))
        return stage_groups((1,) * len(self.blocks), stem=stem, end=end)
