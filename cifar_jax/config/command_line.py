"""Parses the command line of the commands that take a config."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from cifar_jax.config import base, check_kinds, choose_model, flatten, load
from cifar_jax.errors import UserError, quote, shorten, unknown

# {group of fields: its field that turns it on}. The other fields are refused while it is 0.
SWITCHES = {"plateau": "patience", "early_stopping": "patience", "lookahead": "every"}
# Fields of config.optim that do not belong to a schedule or an optimizer.
_OTHER_FIELDS = ("groups", "rescale_kernels", "sam_rho")
# Those that are refused where they would have no effect.
_REFUSED = ("momentum", "nesterov")


def parse(
    argv: list[str],
    usage: str,
    define: Callable[[flags.FlagValues], None] = lambda values: None,
    varied: Callable[[ConfigDict], Iterable[str]] = lambda config: (),
) -> tuple[ConfigDict, flags.FlagValues]:
    """Parses --config FILE, --config.FIELD=VALUE, --workdir and a command's own flags.

    Args:
      argv: The command line, starting with the program.
      usage: The command's usage, printed by --help. Its third line must be an example.
      define: Adds the command's own flags.
      varied: Maps the config to the fields that the command sets to other values itself. Whether
        other fields have an effect is not judged by these.

    Returns:
      The complete, locked config and the values of the other flags.

    Raises:
      UserError: If a flag or field is unknown, invalid or missing.
      SystemExit: After --help.
    """
    path, argv = _take_config(argv)
    argv = _last_of_each_field(argv)
    if _take_config(argv)[0] is not None:
        raise UserError("--config is given twice; to set a field, use --config.FIELD=VALUE")
    wants_help = any(re.fullmatch("--?h(elp)?", arg) for arg in argv[1:])
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder for the run's files.", flag_values=values)
    define(values)
    other_flags = {name: values[name] for name in sorted(values)}
    if wants_help:
        print(f"{usage}\nFlags in addition to --config:")
        for name, flag in other_flags.items():
            default = "" if flag.default is None else f" (default: {flag.default})"
            print(f"  --{name}: {flag.help}{default}")
    if path is None and wants_help:
        raise SystemExit(0)
    if path is None:
        files = [i for i, arg in enumerate(argv) if i and arg.endswith(".py")]
        hint = " (put it before the file)" if files else ""
        flag = argv[files[0] - 1] if files else ""
        if re.fullmatch(r"--?\w+", flag) and flag.lstrip("-") not in other_flags:
            hint = f" (is {shorten(flag, 80)} misspelled?)"
        raise UserError(f"--config is missing{hint}, as in: {usage.splitlines()[2].strip()}")
    config = load(path)
    overrides = _overrides(argv)
    _check_fields(config, [name for name in overrides if not name.startswith("model.")])
    choose_model(config, overrides.get("model.name", config.model.name))
    _check_fields(config, overrides)
    _expect_lists(config, overrides)
    if wants_help:
        print(f"Fields of {path}, documented in cifar_jax/config/base.py:")
        for name, value in flatten(config).items():
            print(f"  --config.{name}={value!r}")
        raise SystemExit(0)

    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        name = shorten(error.flagname, 80)
        is_field = name in flatten(config)
        hint = f"; did you mean --config.{name}?" if is_field else "."
        raise UserError(
            f"unknown flag --{name}{hint} Known: --config FILE, --{', --'.join(other_flags)}, and "
            "config fields, as in --config.seed=1"
        ) from error
    except RecursionError as error:  # absl compares an unknown flag with those it knows
        text = quote(max(argv, key=len))
        raise UserError(f"unexpected argument {text}; flags look like --config.seed=1") from error
    # A config flag raises the last three for a value of the wrong type.
    except (flags.Error, ValueError, TypeError, SyntaxError) as error:
        raise UserError(_plain(error, other_flags | flatten(config))) from error
    if rest:
        text = shorten(" ".join(rest), 80)
        raise UserError(f"unexpected argument {text!r}; flags look like --config.seed=1")
    if values.workdir == "":
        raise UserError("--workdir is empty")
    check_kinds(values.config)
    varying = set(varied(values.config))
    for group, switch in SWITCHES.items():
        others = overrides.keys() - {f"{group}.{switch}"}
        fields = sorted(name for name in others if name.startswith(f"{group}."))
        if fields and not values.config[group][switch] and f"{group}.{switch}" not in varying:
            raise UserError(f"{fields[0]} has no effect while {group}.{switch} is 0")
    for note in without_effect(values.config, overrides, varying):
        print(f"note: {note}", file=sys.stderr)
    return values.config, values


def _expect_lists(config: ConfigDict, overrides: Mapping[str, str]) -> None:
    """Lets flags set network options to a list where the default is a number.

    For example, some dropout rates may differ between layers. A flag takes values of the kind that
    its field has, so the field gets an empty list; models.create refuses lists for other options.
    """
    with config.unlocked(), config.ignore_type():
        for field, text in overrides.items():
            group, _, option = field.partition(".")
            if group != "model" or not text.lstrip().startswith(("(", "[")):
                continue
            if isinstance(config.model[option], int | float):
                config.model[option] = ()


def _overrides(argv: list[str]) -> dict[str, str]:
    """Returns the values of the config fields on a command line, "" for flags without a value."""
    following = [*argv[1:], ""]
    matches = [re.match(r"--?(?:no)?config\.([^=]*)(=?)(.*)", arg, re.DOTALL) for arg in argv]
    return {
        match[1]: match[3] if match[2] or after.startswith("-") else after
        for match, after in zip(matches, following, strict=True)
        if match
    }


def without_effect(
    config: ConfigDict, names: Iterable[str], varying: Iterable[str] = ()
) -> list[str]:
    """Returns a note for each named field that has no effect, given the values of the others.

    There is no note if that depends on a field that varies.

    A field that is set to its default gets no note: it may override the config file's value.
    """
    from cifar_jax import optim

    fields, defaults = flatten(config), flatten(base.get_config())
    schedule, optimizer = config.optim.schedule, config.optim.name
    users = [optim.SCHEDULES.get(schedule), optim.OPTIMIZERS.get(optimizer)]
    has_groups = bool(config.optim.groups.strip()) or "optim.groups" in varying
    if has_groups:  # some group may use the field
        users = [*optim.SCHEDULES.values(), *optim.OPTIMIZERS.values()]
    used = optim.keywords(optim.create, optim.schedules.create, *filter(None, users))
    step_epochs, last = config.optim.step_epochs, config.selected_on == "last"
    reasons = {
        f"optim.{field}": f"optim.schedule {schedule!r} and optim.name {optimizer!r}"
        for field in config.optim
        if field not in ("name", "schedule", "learning_rate", *_OTHER_FIELDS, *_REFUSED, *used)
    }
    reasons |= {"selected_by": "selected_on 'last'"} if last else {}
    reasons |= {"data.val_seed": "data.val_fraction 0"} if not config.data.val_fraction else {}
    if config.transfer.train == "head":
        reasons["transfer.freeze_batch_norm"] = "transfer.train 'head', which implies it"
    else:
        reasons["transfer.cache_features"] = "transfer.train 'all'"
    if not (config.optim.weight_decay or has_groups):
        reasons["optim.weight_decay_mask"] = "optim.weight_decay 0"
    if step_epochs and min(step_epochs) >= config.num_epochs:
        reasons["optim.step_epochs"] = f"num_epochs {config.num_epochs}"
    if config.data.name == "synthetic":
        reasons["data.dir"] = "data.name 'synthetic'"
    return [
        f"--config.{name} has no effect with {reasons[name]}"
        for name in names
        if name in reasons
        and fields[name] != defaults[name]
        and not any(field in reasons[name] for field in varying)
    ]


def _plain(error: Exception, defaults: Mapping[str, Any]) -> str:
    """Rewrites the message of absl or ml_collections about an invalid flag in plain words.

    Args:
      error: The exception.
      defaults: {name: a flag, or a valid value of a config field}.
    """
    match = re.match(r"flag --((?:config\.)?([\w.]+))=(.*?): ", str(error), re.DOTALL)
    if not match or match[2] not in defaults:
        return ": ".join(str(error).splitlines())
    flag, name, value = match.groups()
    default = defaults[name]
    if isinstance(default, flags.Flag):
        choices = getattr(default.parser, "enum_values", None)
        kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        kind = " or ".join(choices) if choices else kinds.get(default.flag_type(), "a valid value")
        return f"--{flag} needs {kind}, got {quote(value)}"
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    kind = kinds.get(type(default), "a list of numbers")
    return f"--{flag} needs {kind}, as in --{flag}={default}, got {quote(value)}"


def _check_fields(config: ConfigDict, names: Iterable[str]) -> None:
    known = flatten(config)
    for name in names:
        if not name:
            raise UserError("--config.= lacks a field name; fields are set as in --config.seed=1")
        group = [field for field in known if field.startswith(f"{name}.")]
        if group:
            raise UserError(f"--config.{name} is a group of fields: set one, such as {group[0]}")
        if name not in known and name.startswith("model."):
            options = [field for field in known if field.startswith("model.")]
            raise unknown(f"option of {config.model.name}", name, options)
        if name not in known:
            raise unknown("config field", name, known)


def config_path(argv: list[str]) -> Path | None:
    """Returns the config file that a command line names, or None."""
    return _take_config(argv)[0]


def _last_of_each_field(argv: list[str]) -> list[str]:
    """Drops all but the last of each --config.FIELD=VALUE, as absl would join repeated tuples.

    The form "--config.FIELD VALUE" is not handled.
    """
    fields = [re.match(r"--?config\.[^=]+(?==)", arg) for arg in argv]
    last = {match[0].lstrip("-"): i for i, match in enumerate(fields) if match}
    return [
        arg
        for i, (arg, match) in enumerate(zip(argv, fields, strict=True))
        if not match or last[match[0].lstrip("-")] == i
    ]


def _take_config(argv: list[str]) -> tuple[Path | None, list[str]]:
    """Returns the value of --config and the remaining arguments."""
    for i, arg in enumerate(argv):
        match = re.fullmatch(r"--?config(?:=(.*))?", arg)
        if match and match[1] is not None:
            return Path(match[1]), argv[:i] + argv[i + 1 :]
        if match:
            return Path(argv[i + 1] if i + 1 < len(argv) else ""), argv[:i] + argv[i + 2 :]
    return None, argv
