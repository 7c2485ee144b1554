"""Downloads files with a deadline for the first response.

Without a network, the user should see an error within seconds. Timeouts in Python apply to each
operation of a socket: they cover neither a name lookup that hangs nor a server that sends its
headers byte by byte. The request therefore runs in a thread, which is abandoned at the deadline.

The downloader of TFDS sets no timeout and retries for minutes; that of pooch (1.9) sets only
timeouts per operation, so it hangs in both of the cases above.
"""

import concurrent.futures
import hashlib
import http.client
import sys
import threading
import urllib.request
from pathlib import Path

from cifar_jax.errors import UserError
from cifar_jax.run import atomic

FIRST_RESPONSE_SECONDS = 10.0
STALL_SECONDS = 60.0
_CHUNK = 1 << 20


def fetch(url: str, path: Path, checksum: str, algorithm: str = "sha256") -> None:
    """Downloads `url` to `path`, which is written only if the download is complete and verified.

    The proxy environment variables are respected.

    Args:
      url: The address.
      path: The file to write; its folder is created.
      checksum: The file's checksum in hexadecimal.
      algorithm: The hashlib algorithm of the checksum. Use SHA-256 unless no SHA-256 is published.

    Raises:
      UserError: If there was no response within FIRST_RESPONSE_SECONDS, the transfer stalled for
        STALL_SECONDS, the network failed in another way, or the checksum is wrong.
      OSError: If `path` cannot be written.
    """
    with atomic.replacing(path) as part:
        with _open(url) as response, open(part, "wb") as f:
            while chunk := _read(response, url):
                f.write(chunk)
                _progress(path.name, f.tell(), response.length)
        if response.length:  # http.client does not report a connection that closes early
            raise UserError(
                f"{url}: the transfer ended early; {response.length:,} bytes are missing"
            )
        if (actual := digest(part, algorithm)) != checksum:
            raise UserError(
                f"{url}: not the official file: its {algorithm.upper()} is {actual}, not {checksum}"
            )


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Returns a file's checksum in hexadecimal, by an algorithm of hashlib."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest()


def probe(url: str) -> None:
    """Raises UserError, like `fetch`, if a server does not answer a request."""
    _open(url).close()


def _open(url: str) -> http.client.HTTPResponse:
    future: concurrent.futures.Future = concurrent.futures.Future()

    def request() -> None:
        try:
            # Not urlopen, which caches the proxies of its first call.
            future.set_result(urllib.request.build_opener().open(url, timeout=STALL_SECONDS))
        except BaseException as e:
            future.set_exception(e)  # `result` raises it in the calling thread

    # Not an executor, whose threads Python waits for before it exits.
    threading.Thread(target=request, daemon=True).start()
    try:
        return future.result(timeout=FIRST_RESPONSE_SECONDS)
    except TimeoutError:
        raise UserError(f"{url}: no response within {FIRST_RESPONSE_SECONDS:.0f} s") from None
    except (OSError, http.client.HTTPException) as e:
        reason = str(e).removeprefix("<urlopen error ").removesuffix(">")
        raise UserError(f"{url}: {reason}") from e


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as e:
        raise UserError(f"{url}: the transfer failed: {e}") from e


def _progress(file: str, done: int, remaining: int | None) -> None:
    """Updates a progress line if stderr is a terminal; otherwise prints nothing."""
    if sys.stderr.isatty():
        total = "" if remaining is None else f" of {(done + remaining) / 1e6:.0f}"
        end = "" if remaining else "\n"
        print(f"\r{file}: {done / 1e6:.0f}{total} MB", end=end, file=sys.stderr, flush=True)
