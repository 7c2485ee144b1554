"""The search space: parses `config.search.space`, and applies a trial's values to a config.

The text has Python syntax, with expressions such as `batch_size in {32, 64}`. It is parsed but
never evaluated.
"""

import ast
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cifar_jax.config import choose_model, flatten
from cifar_jax.errors import UserError, quote, unknown

# With other values of these fields, the trials' validation metrics could not be compared.
_FIXED = ("search.", "experiment", "selected_", "data.", "trackers")
_NETWORK = "model.name"
_RANGES = ("uniform", "log", "int")
_FORMS = "FIELD in {A, B}, FIELD in uniform(LOW, HIGH), FIELD in log(LOW, HIGH) or int(LOW, HIGH)"
_EXAMPLE = "as in optim.learning_rate in log(1e-4, 1e-1)"


def longest(config: ConfigDict, parameters: "Sequence[Parameter]") -> int:
    """Returns the number of epochs of the longest trial."""
    # `check` refuses values of other types.
    values = [v for p in parameters if p.field == "num_epochs" for v in p.values if type(v) is int]
    return max(values, default=config.num_epochs)


class Parameter(NamedTuple):
    """A field, or an entry of a list field, and the set of its values.

    Attributes:
      field: The config field.
      index: The entry of the list, or None for the whole field.
      kind: "choice", "uniform", "log" or "int".
      values: The choices, or the two ends of the range.
    """

    field: str
    index: int | None
    kind: str
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The name of the parameter in the study: "model.filters[0]"."""
        return self.field if self.index is None else f"{self.field}[{self.index}]"

    @property
    def is_option(self) -> bool:
        """Whether it is an option of the network."""
        return self.field.startswith("model.") and self.field != _NETWORK

    @property
    def is_log(self) -> bool:
        """Whether values are drawn, and shown, on a logarithmic scale."""
        return self.kind == "log"

    def suggest(self, trial: Any) -> Any:
        """Returns the parameter's value in an Optuna trial, drawn if the trial has none yet."""
        low, high = self.values[0], self.values[-1]
        if self.kind == "choice":
            return self.decode(trial.suggest_categorical(self.name, [*map(_code, self.values)]))
        if self.kind == "int":
            return trial.suggest_int(self.name, low, high)
        return trial.suggest_float(self.name, low, high, log=self.is_log)

    def decode(self, stored: Any) -> Any:
        """Returns the value that a study stores as `stored`: lists are stored as text."""
        if self.kind != "choice":
            return stored
        return next(value for value in self.values if _is_same(_code(value), stored))


def _code(value: Any) -> Any:
    return repr(value) if isinstance(value, tuple) else value


def _is_same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b


def parse(text: str) -> tuple[Parameter, ...]:
    """Parses `config.search.space`.

    Raises:
      UserError: If it is empty or malformed, has an empty range, or names a field twice.
    """
    statements = "\n".join(map(str.strip, text.splitlines()))
    try:
        with warnings.catch_warnings(action="ignore"):  # about escapes such as "\d"
            body = ast.parse(statements).body
    except SyntaxError as error:
        line = statements.splitlines()[(error.lineno or 1) - 1 :][:1]
        raise UserError(
            f"search.space cannot be parsed at {quote(''.join(line))}: write {_FORMS}"
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, or deep nesting
        raise UserError(f"search.space {quote(text)} cannot be parsed: write {_FORMS}") from error
    if not body:
        raise UserError(
            f"search.space is empty: set it in the config or by --config.search.space, {_EXAMPLE}"
        )
    space = tuple(_parameter(statement) for statement in body)
    names, whole = set(), {p.field for p in space if p.index is None}
    for parameter in space:
        if parameter.name in names or (parameter.index is not None and parameter.field in whole):
            raise UserError(f"search.space has {parameter.name} twice")
        names.add(parameter.name)
    return space


def _parameter(statement: ast.stmt) -> Parameter:
    text = ast.unparse(statement)
    match statement:
        case ast.Expr(value=ast.Compare(left=left, ops=[ast.In()], comparators=[values])):
            pass
        case _:
            raise UserError(f"search.space has {quote(text)}: write {_FORMS}")
    name = re.fullmatch(r"([A-Za-z_]\w*(?:\.\w+)*)(?:\[(\d{1,6})\])?", ast.unparse(left))
    if name is None:
        raise UserError(
            f"search.space has {quote(text)}, which names no field: write FIELD or FIELD[0]"
        )
    field, index = name[1], None if name[2] is None else int(name[2])
    match values:
        case ast.Set(elts=elements):
            return Parameter(field, index, "choice", _choices(text, elements))
        case ast.Dict(keys=[]):
            raise UserError(f"search.space has {quote(text)}, an empty set")
        case ast.Call(func=ast.Name(id=kind), args=ends, keywords=[]) if kind in _RANGES:
            return Parameter(field, index, kind, _range(text, kind, ends))
        case ast.Call(func=ast.Name(id=kind)) if kind not in _RANGES:
            raise unknown("range in search.space", kind, _RANGES)
    raise UserError(f"search.space has {quote(text)}: write {_FORMS}")


def _choices(text: str, elements: Sequence[ast.expr]) -> tuple[Any, ...]:
    values = tuple(_literal(text, element) for element in elements)
    for i, value in enumerate(values):
        if any(_is_same(value, other) for other in values[:i]):
            raise UserError(f"search.space has {quote(text)}, with {value!r} twice")
    return values


def _range(text: str, kind: str, ends: Sequence[ast.expr]) -> tuple[float, float]:
    values = [_literal(text, end) for end in ends]
    needed = int if kind == "int" else int | float
    if len(values) != 2 or not all(
        isinstance(v, needed) and not isinstance(v, bool) and abs(v) < 2**53 for v in values
    ):
        kinds = "whole numbers" if kind == "int" else "numbers"
        raise UserError(f"search.space has {quote(text)}: {kind}(LOW, HIGH) needs two {kinds}")
    low, high = values if kind == "int" else map(float, values)
    if not low < high:
        raise UserError(f"search.space has {quote(text)}, an empty range: it needs LOW < HIGH")
    if kind == "log" and low <= 0:
        raise UserError(f"search.space has {quote(text)}: log needs LOW above 0")
    return low, high


def _literal(text: str, node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(
            f"search.space has {quote(text)}: {quote(ast.unparse(node))} is not a number, a "
            "string or a list of these"
        ) from error
    value = tuple(value) if isinstance(value, list) else value
    for entry in value if isinstance(value, tuple) else (value,):
        is_plain = isinstance(entry, bool | int | float | str)
        if not is_plain or (isinstance(entry, float) and not math.isfinite(entry)):
            raise UserError(f"search.space has {quote(text)}: {quote(value)} is not a valid value")
    return value


def applied(
    config: ConfigDict, space: Sequence[Parameter], values: Mapping[str, Any]
) -> ConfigDict:
    """Returns a copy of a config with the values of a trial.

    If the network is one of the values, its options are chosen as on the command line; see
    config.choose_model.

    Args:
      config: A complete config.
      space: The parameters.
      values: The values of some or all parameters by name.

    Raises:
      UserError: If a field does not exist, is a group, or has no such entry, or if its values would
        make the trials incomparable.
    """
    config = config.copy_and_resolve_references()
    if _NETWORK in values:  # first, because it determines which options exist
        choose_model(config, values[_NETWORK])
    fields = flatten(config)
    parameters = [p for p in space if p.name in values]
    if _NETWORK in values:
        parameters = [p for p in parameters if not p.is_option or p.field in fields]
    for parameter in parameters:
        _check_field(parameter, fields)
    with config.unlocked(), config.ignore_type():  # experiment.checked checks the types
        for parameter in parameters:
            *groups, last = parameter.field.split(".")
            group = config
            for name in groups:
                group = group[name]
            group[last] = _replaced(group[last], parameter, values[parameter.name])
    return config.lock()


def _check_field(parameter: Parameter, fields: Mapping[str, Any]) -> None:
    field = parameter.field
    if any(name.startswith(f"{field}.") for name in fields):
        raise UserError(f"search.space has {field}, which is a group of fields")
    if field not in fields:
        raise unknown("config field in search.space", field, fields)
    if field.startswith(_FIXED):
        raise UserError(f"search.space cannot have {field}: trials would not be comparable")
    value, index = fields[field], parameter.index
    if index is not None and not (isinstance(value, tuple | list) and index < len(value)):
        raise UserError(f"search.space has {parameter.name}, but {field} is {quote(value)}")


def _replaced(old: Any, parameter: Parameter, new: Any) -> Any:
    """Returns the value of a field after one of its entries, or all of it, is replaced."""
    if parameter.index is None:
        return float(new) if isinstance(old, float) and type(new) is int else new
    values = list(old)
    values[parameter.index] = new
    return tuple(values)


def check(config: ConfigDict, space: Sequence[Parameter]) -> None:
    """Checks each choice, and both ends of each range, together with the rest of the config.

    An option of a network is checked with every network of the space that has it.

    Raises:
      UserError: If a value is invalid.
    """
    from cifar_jax import experiment

    networks = next((p.values for p in space if p.name == _NETWORK), ())
    for parameter in space:
        bases: list[dict[str, Any]] = [{}]
        if parameter.is_option and networks:
            named = [{_NETWORK: name} for name in networks]
            having = [b for b in named if parameter.field in flatten(applied(config, space, b))]
            bases = having or bases
        for value in parameter.values:
            for base in bases:
                try:
                    experiment.checked(applied(config, space, base | {parameter.name: value}))
                except UserError as error:
                    raise UserError(
                        f"search.space: {parameter.name} cannot be {quote(value)}: {error}"
                    ) from error
