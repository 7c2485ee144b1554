"""The PyTorch version of cifar_jax/models/cct.py."""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import StochasticDepth
from cifar_jax.models.stochastic_depth import linear_rates


class PositionalEmbedding(nn.Module):
    """See cifar_jax/models/cct.py."""

    def __init__(self, num_tokens: int, features: int):
        super().__init__()
        self.embedding = nn.Parameter(0.2 * torch.randn(num_tokens, features))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps [B, T, D] to the same shape."""
        return tokens + self.embedding


class Attention(nn.Module):
    """See cifar_jax/models/cct.py."""

    def __init__(self, features: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(features, 3 * features, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(features, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, T, D] to the same shape."""
        heads = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # [B, heads, T, D / heads]
        dropout = self.dropout.p if self.training else 0.0
        new = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        return self.out(new.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """See cifar_jax/models/cct.py."""

    def __init__(self, features: int, hidden: int, drop_rate: float, attention: nn.Module):
        super().__init__()
        self.norm1 = nn.LayerNorm(features)
        self.attention = attention
        self.norm2 = nn.LayerNorm(features)
        self.dense1 = nn.Linear(features, hidden)
        self.dense2 = nn.Linear(hidden, features)
        self.drop_path = StochasticDepth(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, T, D] to the same shape."""
        x = self.norm2(x + self.drop_path(self.attention(self.norm1(x))))
        return x + self.drop_path(self.dense2(F.gelu(self.dense1(x))))


class CCT(nn.Module):
    """See cifar_jax/models/cct.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        depth: int = 7,
        width: int = 256,
        num_heads: int = 4,
        mlp_ratio: int = 2,
        attention_dropout: float = 0.1,
        drop_path: float = 0.1,
    ):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.positions = PositionalEmbedding(16 * 16, width)
        self.blocks = nn.Sequential(
            *(
                EncoderLayer(
                    width, mlp_ratio * width, rate, Attention(width, num_heads, attention_dropout)
                )
                for rate in linear_rates(drop_path, depth)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)
        self.dense = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.max_pool2d(F.relu(self.conv_stem(images)), 3, stride=2, padding=1)
        x = self.norm(self.blocks(self.positions(x.flatten(2).transpose(1, 2))))
        return self.dense((self.pool(x).softmax(1) * x).sum(1))
