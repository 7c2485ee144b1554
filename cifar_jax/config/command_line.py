"""Parses the command line of the commands that take a config."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from cifar_jax.config import choose_model, flatten, load
from cifar_jax.errors import UserError, unknown


def parse(
    argv: list[str], usage: str, define: Callable[[flags.FlagValues], None] = lambda values: None
) -> tuple[ConfigDict, flags.FlagValues]:
    """Parses --config FILE, --config.FIELD=VALUE, --workdir and a command's own flags.

    Args:
      argv: The command line, starting with the program.
      usage: The command's usage, printed by --help. Its third line must be an example.
      define: Adds the command's own flags.

    Returns:
      The complete, locked config and the values of the other flags.

    Raises:
      UserError: If a flag or field is unknown, invalid or missing.
      SystemExit: After --help.
    """
    path, argv = _take_config(argv)
    wants_help = any(re.fullmatch("--?h(elp)?", arg) for arg in argv[1:])
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder for the run's files.", flag_values=values)
    define(values)
    own = {name: values[name] for name in sorted(values)}
    if wants_help:
        print(f"{usage}\nFlags in addition to --config:")
        for name, flag in own.items():
            default = "" if flag.default is None else f" (default: {flag.default})"
            print(f"  --{name}: {flag.help}{default}")
    if path is None and wants_help:
        raise SystemExit(0)
    if path is None:
        hint = " (put it before the file)" if any(arg.endswith(".py") for arg in argv[1:]) else ""
        raise UserError(f"--config is missing{hint}, as in: {usage.splitlines()[2].strip()}")
    config = load(path)
    matches = (re.match(r"--?(?:no)?config\.([^=]*)=?(.*)", arg) for arg in argv)
    overrides = dict(match.groups() for match in matches if match)
    _check_fields(config, [name for name in overrides if not name.startswith("model.")])
    choose_model(config, overrides.get("model.name", config.model.name))
    _check_fields(config, overrides)
    if wants_help:
        print(f"Fields of {path}, documented in cifar_jax/config/base.py:")
        for name, value in flatten(config).items():
            print(f"  --config.{name}={value!r}")
        raise SystemExit(0)

    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        is_field = name in flatten(config)
        hint = f"did you mean --config.{name}? There" if is_field else "there"
        raise UserError(
            f"unknown flag --{name}: {hint} are --config FILE, --{', --'.join(own)}, and fields of "
            "the config, as in --config.seed=1"
        ) from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if rest:
        raise UserError(f"unexpected argument {' '.join(rest)!r}; flags look like --config.seed=1")
    for group in ("plateau", "early_stopping"):
        fields = [name for name in overrides if name.startswith(f"{group}.")]
        if fields and not values.config[group].patience:
            raise UserError(f"{fields[0]} has no effect while {group}.patience is 0")
    return values.config, values


def _check_fields(config: ConfigDict, names: Iterable[str]) -> None:
    known = flatten(config)
    for name in names:
        if name not in known and name.startswith("model."):
            options = [field for field in known if field.startswith("model.")]
            raise unknown(f"option of {config.model.name}", name, options)
        if name not in known:
            raise unknown("config field", name, known)


def _take_config(argv: list[str]) -> tuple[Path | None, list[str]]:
    """Returns the value of --config and the remaining arguments."""
    for i, arg in enumerate(argv):
        match = re.fullmatch(r"--?config(?:=(.*))?", arg)
        if match and match[1] is not None:
            return Path(match[1]), argv[:i] + argv[i + 1 :]
        if match:
            return Path(argv[i + 1] if i + 1 < len(argv) else ""), argv[:i] + argv[i + 2 :]
    return None, argv
