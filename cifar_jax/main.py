"""Trains a network.

    python -m cifar_jax.main --config configs/resnet18.py --workdir runs/resnet18

Every config field can be set on the command line, as in --config.optim.learning_rate=0.05;
--config configs/resnet18.py --help lists the fields. The run's files are written to the workdir,
runs/<experiment> by default. Running the same command again resumes the run, or reports that it is
complete. --profile also traces a few steps with jax.profiler, and --all_parameters prints the
parameters of a deep network one by one.
"""

import sys
from pathlib import Path

from cifar_jax.errors import UserError
from cifar_jax.runtime import entry
from cifar_jax.runtime.signals import Preempted, exit_on_signals
from cifar_jax.runtime.startup import Startup, process_began


def main(argv: list[str]) -> int:
    """Parses the command line, trains, and returns the exit code."""
    startup = Startup(process_began())
    from absl import flags

    from cifar_jax.config import command_line

    def define(values: flags.FlagValues) -> None:
        text = "Write a trace of a few steps to WORKDIR/profile."
        flags.DEFINE_bool("profile", False, text, flag_values=values)
        text = "Print a row for every array of parameters, not one for each block."
        flags.DEFINE_bool("all_parameters", False, text, flag_values=values)
        text = "On several hosts: HOST:PORT of process 0, or auto; see docs/scaling.md."
        flags.DEFINE_string("coordinator", None, text, flag_values=values)
        text = "Number of processes of the run; needed with --coordinator=HOST:PORT."
        flags.DEFINE_integer("num_processes", None, text, flag_values=values)
        text = "Number of this process, from 0; needed with --coordinator=HOST:PORT."
        flags.DEFINE_integer("process_id", None, text, flag_values=values)

    try:
        config, values = command_line.parse(argv, __doc__, define)
        workdir = Path(values.workdir or Path("runs") / config.experiment)
        late = [epoch for epoch in config.transfer.unfreeze_epochs if epoch >= config.num_epochs]
        if late:
            print(
                f"note: layers that start to train at epoch {late[0]:g} (transfer.unfreeze_epochs) "
                f"never do with num_epochs {config.num_epochs}",
                file=sys.stderr,
            )
        # These import jax, which takes a second: an invalid command line fails without that delay.
        from cifar_jax.loop import Diverged
        from cifar_jax.runtime import distributed
        from cifar_jax.train import train

        with distributed.connected(values.coordinator, values.num_processes, values.process_id):
            is_main = distributed.is_main()
            try:
                train(
                    config,
                    workdir,
                    startup=startup,
                    profile=values.profile,
                    all_parameters=values.all_parameters,
                )
            # All processes of a run end in these ways, so one of them says so.
            except Preempted as stopped:
                if is_main:
                    print(stopped)
                return stopped.exit_code
            except Diverged as error:
                if is_main:
                    print(f"error: {error}", file=sys.stderr)
                return 1
        if is_main:
            _draw(workdir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _draw(workdir: Path) -> None:
    """Draws the figures of a complete run unless they are up to date.

    The run is complete whether or not this succeeds: files that cannot be read or written are
    reported in one line.
    """
    # Before the imports, which take a second: after training, the previous handlers are restored.
    exit_on_signals(b"stopped while drawing; the run is complete\n")
    from cifar_jax.report import examples, pictures, read
    from cifar_jax.run.workdir import locked

    last_written, summary = workdir / "plots" / pictures.NUMBERS, workdir / "summary.json"
    try:
        with locked(workdir):
            is_drawn = last_written.exists()
            if is_drawn and last_written.stat().st_mtime >= summary.stat().st_mtime:
                return
            images, _ = examples.load(read.read(workdir))
            print(f"  figures in            {pictures.write(workdir, images)}")
    except (UserError, OSError) as error:
        print(f"  no figures            {type(error).__name__}: {error}", file=sys.stderr)


if __name__ == "__main__":
    entry.run(main)
