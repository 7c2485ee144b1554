"""The old location of cifar_jax/config/base.py, which older config files import."""

from cifar_jax.config.base import get_config

__all__ = ["get_config"]
