"""The base config for config files written before it moved to cifar_jax/config/base.py."""

from cifar_jax.config.base import get_config

__all__ = ["get_config"]
