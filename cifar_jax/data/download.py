"""Downloading with deadlines of its own.

The downloader of TFDS sets no socket timeout and retries for minutes; a machine without internet
needs its error now. Python's own socket timeout does not cover a name look-up that hangs, nor the
sum of several attempts, so the request runs in a thread that is left behind at the deadline.
"""

import http.client
import queue
import sys
import threading
import urllib.request
from pathlib import Path

from cifar_jax.data import archive
from cifar_jax.errors import UserError
from cifar_jax.run import atomic

FIRST_RESPONSE_SECONDS = 10.0
STALL_SECONDS = 60.0
_CHUNK = 1 << 20


def fetch(url: str, path: Path, sha256: str) -> None:
    """Downloads `url` to `path`, whole and verified or not at all. Honours the proxy variables.

    Raises:
        UserError: no answer within FIRST_RESPONSE_SECONDS, silence of STALL_SECONDS during the
            transfer, any other failure of the network, or a wrong checksum.
        OSError: `path` cannot be written.
    """
    with atomic.replacing(path) as part:
        with _open(url) as response, open(part, "wb") as f:
            while chunk := _read(response, url):
                f.write(chunk)
                _progress(path.name, f.tell(), response.length)
        if response.length:  # http.client takes a connection that closes early for the end
            raise UserError(f"{url}: the transfer broke off, {response.length:,} bytes are missing")
        if (found := archive.sha256(part)) != sha256:
            raise UserError(f"{url}: not the official file, its SHA-256 is {found}, not {sha256}")


def _open(url: str) -> http.client.HTTPResponse:
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def request() -> None:
        try:
            # Not urlopen: it remembers the proxies of its first call.
            answers.put(urllib.request.build_opener().open(url, timeout=STALL_SECONDS))
        except Exception as e:  # whatever it is, it is for the caller
            answers.put(e)

    threading.Thread(target=request, daemon=True).start()
    try:
        answer = answers.get(timeout=FIRST_RESPONSE_SECONDS)
    except queue.Empty:
        raise UserError(f"{url}: no answer within {FIRST_RESPONSE_SECONDS:.0f} s") from None
    if isinstance(answer, Exception):
        reason = str(answer).removeprefix("<urlopen error ").removesuffix(">")
        raise UserError(f"{url}: {reason}") from answer
    return answer


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as e:
        raise UserError(f"{url}: the transfer broke off: {e}") from e


def _progress(file: str, done: int, left: int | None) -> None:
    """Keeps one line up to date in a terminal; a log file gets none of it."""
    if sys.stderr.isatty():
        of = "" if left is None else f" of {(done + left) / 1e6:.0f}"
        end = "" if left else "\n"
        print(f"\r{file}: {done / 1e6:.0f}{of} MB", end=end, file=sys.stderr, flush=True)
