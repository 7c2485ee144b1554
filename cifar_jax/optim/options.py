"""Passes options to registered functions by name: their keyword-only arguments are config fields.

A schedule or an optimizer thus declares its fields once, in its signature.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cifar_jax.errors import UserError, unknown


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

    An option that only other functions of the registry have is ignored, so that a command line can
    choose another function and keep the config's other fields, unless it is listed as exclusive.

    Args:
      name: name to look up.
      registry: functions by name.
      options: values by name.
      kind: what the registry holds, for messages.
      field: config field that names the function, as in "optim.schedule".
      exclusive: options that must be 0 or False with a function that lacks them.

    Raises:
      UserError: for a name that is not in the registry, an option that no function has, or an
        exclusive option that this function lacks.
    """
    if name not in registry:
        raise unknown(kind, name, registry)
    known = keywords(*registry.values())
    for option, value in options.items():
        if option not in known:
            raise unknown(f"{kind} option", option, known)
        users = [user for user, function in registry.items() if option in keywords(function)]
        if option in exclusive and value and name not in users:
            raise UserError(
                f"optim.{option} needs {field} {' or '.join(map(repr, users))}, not {name!r}"
            )


def require(is_valid: bool, field: str, needs: str, value: Any) -> None:
    """Raises UserError unless the value of a field of config.optim is valid."""
    if not is_valid:
        raise UserError(f"optim.{field} needs {needs}, not {value}")
