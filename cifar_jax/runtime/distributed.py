"""Connects the processes of a run on several hosts, and lets one of them write its files.

All processes run the same program on the same data, and each feeds its own devices. Process 0, the
main process, reads and writes the workdir; the others receive from it what it reads.
"""

import atexit
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from cifar_jax.errors import UserError
from cifar_jax.runtime.signals import handled

T = TypeVar("T")

AUTO = "auto"
# How long a process looks for the coordinator.
FIND_SECONDS = 25
# How long the coordinator waits for the other processes, whose hosts may start later.
_START_SECONDS = 300
# A process without a heartbeat for this long counts as lost, and JAX then ends the others.
_LOST_SECONDS = 30
# How long a process waits at its end for the others to end too.
_END_SECONDS = 15
_LOST = (
    "a process of this run has ended unexpectedly or cannot be reached, so all of them end. The "
    "messages of the first that ended may say why. Once the reason is removed, the same commands "
    "continue the run"
)
# Found in the exceptions that JAX raises if another process is lost during a computation.
_FAILED = re.compile("connection (reset|closed|refused)|heartbeat|socket closed", re.IGNORECASE)
# Prints its argument unless its standard input is "done". It runs as a separate process, so it can
# print even if JAX aborts this one.
_WATCH = "import sys; sys.stdin.read() == 'done' or print(sys.argv[1], file=sys.stderr, flush=True)"


@contextlib.contextmanager
def connected(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Iterator[None]:
    """Connects this process with the others of its run, and waits for them at the end.

    Enter it before JAX uses a device. If another process is lost, this one ends too, within a
    minute: with an exception, or aborted by JAX, after which a message explains why.

    Args:
      coordinator: HOST:PORT, where process 0 listens; "auto" to read it from the environment of
        SLURM or Open MPI; None for a run of one process.
      num_processes: The number of processes; None unless `coordinator` is HOST:PORT.
      process_id: The number of this process, from 0; None unless `coordinator` is HOST:PORT.

    Raises:
      UserError: If an argument is invalid, the processes do not find each other, or a computation
        fails because another process was lost.
    """
    _check(coordinator, num_processes, process_id)
    if coordinator is None:
        yield
        return
    _initialize(coordinator, num_processes, process_id)
    watcher = _start_watcher()
    try:
        yield
        for signum in handled():  # there is nothing left to stop
            signal.signal(signum, signal.SIG_IGN)
        on_main(lambda: None)  # waits for process 0, which writes the last files
        jax.distributed.shutdown()
    except BaseException as error:
        # Otherwise JAX waits for the others to end too, and reports an error if they do not.
        atexit.register(_leave)
        if isinstance(error, ValueError | RuntimeError) and _FAILED.search(str(error)):
            raise UserError(f"{_LOST} ({str(error).splitlines()[0]})") from error
        raise
    finally:
        with contextlib.suppress(OSError):
            watcher.communicate("done")  # this process prints its own error


def _leave() -> None:
    """Ends the process at once, with the exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)


def _initialize(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    is_auto = coordinator == AUTO
    if process_id and not is_auto:
        _find(coordinator)
    elif process_id == 0 and num_processes > 1:
        print(
            f"waiting for the other processes (of {num_processes}) to connect to {coordinator}",
            flush=True,
        )
    # On CPUs, programs that are queued one after the other may run at the same time, and would then
    # receive each other's messages. (On GPUs, a stream keeps their order.)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    # Only process 0 writes to JAX's compilation cache. On the next start, the others would compile
    # and process 0 would not, but XLA's autotuner exchanges results between all of them.
    jax.config.update("jax_enable_compilation_cache", False)
    # This service would replace the command's own SIGTERM handler.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            None if is_auto else coordinator,
            num_processes,
            process_id,
            cluster_detection_method=None if is_auto else "deactivate",
            initialization_timeout=_START_SECONDS,
            heartbeat_timeout_seconds=_LOST_SECONDS,
            shutdown_timeout_seconds=_END_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        if is_auto and "should be defined" in str(error):
            raise UserError(
                "--coordinator=auto finds neither SLURM nor Open MPI here: set "
                "--coordinator=HOST:PORT, --num_processes and --process_id"
            ) from error
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the processes of --coordinator={coordinator} could not connect to each other: "
            f"{reason}"
        ) from error


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Raises UserError if the arguments of `connected` are invalid."""
    if coordinator is None and (num_processes, process_id) != (None, None):
        raise UserError("--num_processes and --process_id need --coordinator")
    if coordinator == AUTO and (num_processes, process_id) != (None, None):
        raise UserError("--coordinator=auto takes neither --num_processes nor --process_id")
    if coordinator in (None, AUTO):
        return
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):[0-9]{1,5}", coordinator, re.ASCII):
        raise UserError(f"--coordinator must be HOST:PORT or auto, got {coordinator!r}")
    if not 1 <= int(coordinator.rsplit(":", 1)[1]) <= 65535:
        raise UserError(f"the port of --coordinator must be from 1 to 65535, got {coordinator!r}")
    if num_processes is None or process_id is None:
        raise UserError("--coordinator=HOST:PORT needs --num_processes and --process_id")
    if num_processes < 1:
        raise UserError(f"--num_processes must be at least 1, got {num_processes}")
    if not 0 <= process_id < num_processes:
        raise UserError(
            "--process_id must be from 0 to --num_processes - 1, got --process_id="
            f"{process_id} --num_processes={num_processes}"
        )


def _find(coordinator: str) -> None:
    """Waits until the coordinator accepts connections; raises UserError if it does not."""
    host, port = coordinator.rsplit(":", 1)
    deadline, reason = time.monotonic() + FIND_SECONDS, None
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            reason = error
            time.sleep(0.5)
    raise UserError(
        f"no coordinator at {coordinator} after {FIND_SECONDS} seconds ({reason}): start process 0 "
        "there, and check the address"
    )


def _start_watcher() -> subprocess.Popen:
    """Starts the process that explains why this one has ended, if JAX aborts it."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH, f"error: {_LOST}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # so that Ctrl-C does not end it
        text=True,
    )


def num_processes() -> int:
    """Returns the number of processes of the run."""
    # Asking JAX initializes the devices; a command that ends with an error need not wait for that.
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_main() -> bool:
    """Returns whether this is process 0, the one that reads and writes files."""
    return num_processes() == 1 or jax.process_index() == 0


def on_main(function: Callable[[], Any]) -> Any:
    """Calls a function in process 0, and returns its value, JSON data, in all processes."""
    if num_processes() == 1:
        return function()
    text = json.dumps(function()).encode() if is_main() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    # A power of two, because a program is compiled for every size.
    data = np.frombuffer(text.ljust(1 << size.bit_length()), np.uint8)
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(data)))


def check_same(what: str, get_values: Callable[[], dict[str, Any]]) -> None:
    """Checks that all processes were started with the same values.

    Args:
      what: What the values are, for the message.
      get_values: Returns {name: JSON value}. Not called if there is only one process.

    Raises:
      UserError: In all processes, if a value of one differs from that of process 0.
    """
    if num_processes() == 1:
        return
    values = get_values()
    first = on_main(lambda: values)
    differing = [name for name in first | values if first.get(name) != values.get(name)]
    counts = np.ravel(multihost_utils.process_allgather(np.int32(len(differing))))
    if differing:
        name = differing[0]
        raise UserError(
            f"process {jax.process_index()} has a different {what} from process 0: {name} is "
            f"{values.get(name)!r} here and {first.get(name)!r} there"
        )
    if counts.any():
        raise UserError(
            f"process {counts.argmax()} has a different {what} from process 0; its own message "
            "names the difference"
        )


def arrays_from_main(tree: T) -> T:
    """Returns the arrays that process 0 passes, bit for bit, as arrays in host memory.

    Args:
      tree: Tree of arrays, which each process holds in full. Shapes and dtypes are the same in all
        processes.
    """
    if num_processes() == 1:
        return tree
    arrays, structure = jax.tree.flatten(tree)
    on_host = [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in arrays]
    # As bytes, because JAX broadcasts by adding zeros, which would turn -0.0 into 0.0.
    as_bytes = [np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in on_host]
    received = multihost_utils.broadcast_one_to_all(as_bytes)
    values = [
        np.asarray(data).view(x.dtype).reshape(x.shape)
        for data, x in zip(received, on_host, strict=True)
    ]
    return structure.unflatten(
        jax.random.wrap_key_data(value, impl=jax.random.key_impl(x)) if is_key(x) else value
        for value, x in zip(values, arrays, strict=True)
    )


def is_key(array: jax.Array | np.ndarray) -> bool:
    """Returns whether an array holds typed keys, which NumPy does not know."""
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def put(tree: T, sharding: jax.sharding.Sharding) -> T:
    """Puts arrays on the devices of all processes. Each process passes the arrays in full."""
    if num_processes() == 1:
        return jax.device_put(tree, sharding)

    # Unlike device_put, this does not compare the processes' arrays with each other.
    def place(array):
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            return jax.device_put(array, sharding)
        if is_key(array):
            data = place(np.asarray(jax.random.key_data(array)))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, tree)


def replicated(values: np.ndarray) -> jax.Array:
    """Replicates an array, which is the same in all processes, on the devices of all of them."""
    mesh = jax.sharding.Mesh(jax.devices(), "device")
    return put(values, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def local(tree: T) -> T:
    """Returns replicated arrays as arrays of this process only; others are returned as they are."""

    def own(array):
        is_shared = isinstance(array, jax.Array) and not array.is_fully_addressable
        return array.addressable_data(0) if is_shared else array

    return jax.tree.map(own, tree)


@contextlib.contextmanager
def only_main_prints() -> Iterator[None]:
    """Drops what the other processes print to standard output."""
    if is_main():
        yield
        return
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        yield
