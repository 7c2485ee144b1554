"""Passes options to registered functions by name: their keyword-only arguments are config fields.

A schedule or an optimizer thus declares its fields once, in its signature.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cifar_jax.errors import UserError, check_kind, is_number, unknown


def keywords(*functions: Callable) -> dict[str, Any]:
    """Returns the keyword-only arguments of the functions, as {name: default value}."""
    parameters = (p for f in functions for p in inspect.signature(f).parameters.values())
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def pick(options: Mapping[str, Any], *functions: Callable) -> dict[str, Any]:
    """Returns the options that at least one of the functions has as a keyword-only argument."""
    known = keywords(*functions)
    return {name: value for name, value in options.items() if name in known}


def check_options(
    name: str,
    registry: Mapping[str, Callable],
    options: Mapping[str, Any],
    *,
    kind: str,
    field: str,
    exclusive: Iterable[str],
) -> None:
    """Checks the name of a registered function, and the names of the options given for it.

    An option that only other functions in the registry have is ignored, so that a command line can
    choose another function and keep the config's other fields. Exclusive options are the exception.

    Args:
      name: Name to look up.
      registry: Functions by name.
      options: Values by name.
      kind: What the registry holds, for messages.
      field: Config field that names the function, as in "optim.schedule".
      exclusive: Options that must be 0 or False with a function that lacks them.

    Raises:
      UserError: If the name is not in the registry, if no function has an option, if a value is not
        of the same kind as the default, or if this function lacks an exclusive option that is set.
    """
    if name not in registry:
        raise unknown(kind, name, registry)
    known = keywords(*registry.values())
    for option, value in options.items():
        if option not in known:
            raise unknown(f"{kind} option", option, known)
        check_kind(f"optim.{option}", value, known[option])
        users = [user for user, function in registry.items() if option in keywords(function)]
        if option in exclusive and value and name not in users:
            raise UserError(
                f"optim.{option} needs {field} {' or '.join(map(repr, users))}, got {name!r}"
            )


def as_floats(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options with integers as floats, because JAX rejects integers above int32."""
    return {name: float(v) if type(v) is int else v for name, v in options.items()}


def require(is_valid: bool, field: str, needs: str, value: Any) -> None:
    """Raises UserError unless the value of a field of config.optim is valid and finite."""
    if not (is_valid and is_number(value)):
        raise UserError(f"optim.{field} must be {needs}, got {value}")


def require_below_one(field: str, value: float) -> None:
    """Raises UserError unless the value of a field of config.optim is in [0, 1)."""
    # In float32, a number closer to 1 is 1.
    require(0 <= value < 1 - 2**-25, field, "in [0, 1)", value)


def require_momentum(momentum: float, nesterov: bool) -> None:
    """Raises UserError unless the momentum is in [0, 1), and above 0 if it is Nesterov's."""
    require_below_one("momentum", momentum)
    if nesterov and not momentum:
        raise UserError("optim.nesterov needs optim.momentum above 0")
