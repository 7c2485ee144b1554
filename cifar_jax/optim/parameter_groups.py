"""Groups of parameters with their own optimizers and learning rates: `config.optim.groups`.

A line of the text is "PATTERN: FIELD=VALUE, FIELD=VALUE". The pattern is a glob over the path of a
parameter, such as "layers/0/kernel", in which * also matches slashes. Each parameter belongs to
the group of the first line that it matches, or to group 0, which follows `config.optim` itself.
Values are Python literals; the text is parsed but never evaluated.
"""

import ast
import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cifar_jax.errors import UserError, check_kind, closest, quote, unknown
from cifar_jax.optim import optimizers, schedules
from cifar_jax.optim.optimizers import OPTIMIZERS
from cifar_jax.optim.options import keywords, pick
from cifar_jax.optim.schedules import SCHEDULES
from cifar_jax.tree_paths import Path, map_by_path

# What a line can set in addition to the options of optimizers and schedules, with a value of the
# right kind for each, and the options that it cannot set.
_FIELDS = {"name": "", "schedule": "", "learning_rate": 0.0, "num_epochs": 0.0}
_NOT_FIELDS = {"clip_norm", "num_steps", "steps_per_epoch"}
_EXAMPLE = "*/bias: name='sgd', learning_rate=0.1"
# The number of paths that an error lists.
_MAX_PATHS = 5


class Group(NamedTuple):
    """A line of `config.optim.groups`, or group 0.

    Attributes:
      pattern: The pattern of the paths of its parameters; empty for group 0.
      fields: The fields of its optimizer and its schedule. Those that the line does not set have
        the values of `config.optim`; learning rates among them are scaled in proportion to
        learning_rate.
      num_epochs: The number of epochs for which it trains and over which its schedule extends; 0
        for all.
    """

    pattern: str
    fields: Mapping[str, Any]
    num_epochs: float = 0.0

    def create_optimizer(self) -> optax.GradientTransformation:
        """Returns the group's optimizer, for a learning rate of 1 and without clipping.

        Raises:
          UserError: If a field is invalid.
        """
        options = pick(self.fields, optimizers.create, *OPTIMIZERS.values())
        with _in_line(self.pattern):
            return optimizers.create(self.fields["name"], **options | {"clip_norm": 0.0})

    def create_schedule(self, steps_per_epoch: int, num_epochs: float) -> optax.Schedule:
        """Returns the function that maps the step to the learning rate.

        Args:
          steps_per_epoch: The number of steps per epoch.
          num_epochs: The duration of the run.

        Raises:
          UserError: If a field is invalid.
        """
        num_epochs = self.num_epochs or num_epochs
        num_steps = round(num_epochs * steps_per_epoch)
        with _in_line(self.pattern):
            if not 0 < num_steps < 2**31:
                needs = "below 2**31 steps" if num_steps else "at least one step long"
                raise UserError(f"num_epochs must be {needs}, got {num_epochs}")
            schedule = schedules.create(
                self.fields["schedule"],
                self.fields["learning_rate"],
                steps_per_epoch=steps_per_epoch,
                num_epochs=num_epochs,
                **pick(self.fields, schedules.create, *SCHEDULES.values()),
            )
        if not self.num_epochs:
            return schedule
        return lambda step: jnp.where(step < num_steps, schedule(step), 0.0)


class ParameterGroups(NamedTuple):
    """The groups of the parameters of a network.

    Attributes:
      groups: Group 0, and one group for each line.
      indices: {path of a parameter: index of its group}.
    """

    groups: tuple[Group, ...]
    indices: Mapping[Path, int]

    def index(self, path: Path) -> int:
        """Returns the index of a parameter's group."""
        return self.indices[path]

    def uses(self, name: str, path: Path) -> bool:
        """Returns whether the optimizer of that name trains a parameter."""
        return self.groups[self.indices[path]].fields["name"] == name

    def create_optimizer(self, clip_norm: float) -> optax.GradientTransformation:
        """Returns the optimizer of all groups.

        Args:
          clip_norm: Max global norm of the gradients of all groups together; 0 for no clipping.

        Raises:
          UserError: If a field is invalid.
        """
        transforms = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
        of_groups = {i: group.create_optimizer() for i, group in enumerate(self.groups)}
        labels = partial(map_by_path, lambda path, _: self.index(path))
        return optax.chain(*transforms, optax.partition(of_groups, labels))


def parse(text: str, defaults: Mapping[str, Any]) -> tuple[Group, ...]:
    """Parses `config.optim.groups`.

    Args:
      text: Lines, or parts separated by ";". Empty ones are ignored.
      defaults: The fields of `config.optim`, whose learning rate must be valid.

    Returns:
      The groups, the first of which is group 0; () if the text has no line.

    Raises:
      UserError: If a line is malformed, has an unknown field, a value of the wrong kind, or a field
        that its optimizer and its schedule do not use.
    """
    lines = list(filter(None, map(str.strip, re.split("[;\n]", text))))
    if not lines:
        return ()
    return Group("", dict(defaults)), *(_parse_line(line, defaults) for line in lines)


def _parse_line(line: str, defaults: Mapping[str, Any]) -> Group:
    pattern, colon, text = map(str.strip, line.partition(":"))
    if not (pattern and colon):
        raise UserError(
            f"optim.groups has the line {quote(line)}: write PATTERN: FIELD=VALUE, as in {_EXAMPLE}"
        )
    with _in_line(pattern):
        fields = _parse_fields(text)
        num_epochs = fields.pop("num_epochs", None)
        if num_epochs is not None and num_epochs <= 0:
            raise UserError(f"num_epochs must be above 0, got {num_epochs}")
        return Group(pattern, _with_defaults(fields, defaults), num_epochs or 0.0)


def _parse_fields(text: str) -> dict[str, Any]:
    source = f"f({text}\n)"
    try:
        call = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # null bytes, or deep nesting
        call = None
    match call:
        case ast.Call(func=ast.Name(id="f"), args=[], keywords=assignments):
            pass
        case _:
            raise UserError(f"{quote(text)} cannot be parsed: write FIELD=VALUE, FIELD=VALUE")
    options = keywords(
        *(schedules.create, optimizers.create, *SCHEDULES.values(), *OPTIMIZERS.values())
    )
    known = {field: options[field] for field in options.keys() - _NOT_FIELDS} | _FIELDS
    fields = {}
    for assignment in assignments:
        field = str(assignment.arg)
        if field not in known:
            raise unknown("field", field, known)
        if field in fields:
            raise UserError(f"{field} is given twice")
        try:
            fields[field] = ast.literal_eval(assignment.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            value = ast.get_source_segment(source, assignment.value)
            raise UserError(f"{field} must be a Python literal, got {quote(value)}") from error
        check_kind(field, fields[field], known[field])
    return fields


def _with_defaults(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a line's fields, and the others that it uses, with their values in `config.optim`."""
    name, schedule = (fields.get(field, defaults[field]) for field in ("name", "schedule"))
    for kind, value, registry in (
        ("optimizer", name, OPTIMIZERS),
        ("schedule", schedule, SCHEDULES),
    ):
        if value not in registry:
            raise unknown(kind, value, registry)
    used = _FIELDS.keys() | keywords(
        *(schedules.create, optimizers.create, SCHEDULES[schedule], OPTIMIZERS[name])
    )
    if unused := [field for field in fields if field not in used]:
        raise UserError(
            f"{unused[0]} has no effect with the optimizer {name!r} and the schedule {schedule!r}"
        )
    inherited = {field: value for field, value in defaults.items() if field in used}
    if "learning_rate" in fields:
        peak, factor = fields["learning_rate"], fields["learning_rate"] / defaults["learning_rate"]
        for field in inherited:
            if field.endswith("learning_rate"):
                # Rounding must not lift a learning rate that equals the peak above it.
                inherited[field] = min(inherited[field] * factor, peak)
    return inherited | dict(fields)


@contextlib.contextmanager
def _in_line(pattern: str) -> Iterator[None]:
    """Names the line in a UserError."""
    try:
        yield
    except UserError as error:
        if not pattern:
            raise
        raise UserError(f"in optim.groups, {quote(pattern)}: {error}") from error


def assign(groups: Sequence[Group], paths: Iterable[Path]) -> ParameterGroups:
    """Assigns the parameters of a network to groups.

    Args:
      groups: What `parse` returns.
      paths: The paths of the parameters that train.

    Raises:
      UserError: If no parameter belongs to the group of a line.
    """
    names = {path: "/".join(map(str, path)) for path in paths}
    indices = dict.fromkeys(names, 0)
    for i, group in reversed([*enumerate(groups)][1:]):
        indices |= {path: i for path in names if fnmatchcase(names[path], group.pattern)}
    for i, group in enumerate(groups):
        if i and i not in indices.values():
            shown = [*closest(group.pattern, names.values()), *names.values()]
            shown = list(dict.fromkeys(shown))[:_MAX_PATHS]
            if any(fnmatchcase(name, group.pattern) for name in names.values()):
                raise UserError(
                    f"optim.groups has {quote(group.pattern)} after patterns that match all of its "
                    "parameters: the first one that matches applies"
                )
            raise UserError(
                f"optim.groups has {quote(group.pattern)}, which matches no parameter that trains, "
                f"such as {', '.join(shown)}"
            )
    return ParameterGroups(tuple(groups), indices)


def combine(
    schedule: Callable[[jax.Array], Any],
    groups: Sequence[Group],
    *,
    steps_per_epoch: int,
    num_epochs: float,
    only_ratios: bool = False,
) -> Callable[[jax.Array], jax.Array]:
    """Returns the function that maps the step to the learning rate of each group, [num_groups].

    Args:
      schedule: The schedule of group 0.
      groups: What `parse` returns.
      steps_per_epoch: The number of steps per epoch.
      num_epochs: The duration of the run.
      only_ratios: Whether every group follows `schedule`, multiplied by the ratio of its learning
        rate to that of group 0, instead of its own schedule.

    Raises:
      UserError: If a field of a schedule is invalid.
    """
    peaks = [group.fields["learning_rate"] for group in groups]
    if only_ratios:
        ratios = jnp.asarray([peak / peaks[0] for peak in peaks], jnp.float32)
        return lambda step: ratios * schedule(step)
    others = [group.create_schedule(steps_per_epoch, num_epochs) for group in groups[1:]]
    return lambda step: jnp.stack([jnp.float32(rate(step)) for rate in (schedule, *others)])


def depends_on_length(groups: Sequence[Group]) -> bool:
    """Returns whether a change of the run's num_epochs changes learning rates of earlier epochs."""
    return any(
        schedules.depends_on_length(group.fields["schedule"])
        for group in groups
        if not group.num_epochs
    )
