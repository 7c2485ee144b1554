import contextlib
import hashlib
import socket
import threading
import time

import pytest

from cifar_jax.data import download
from cifar_jax.errors import UserError

CONTENT = bytes(range(256)) * 20_000  # 5 MB, several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(download, "FIRST_RESPONSE_SECONDS", 0.5)
    monkeypatch.setattr(download, "STALL_SECONDS", 0.5)


@contextlib.contextmanager
def serving(respond):
    """Calls respond(connection, first bytes) for each loopback connection; yields the address."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    respond(connection, connection.recv(65536))

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()


def _head(length):
    return f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode()


def _is_empty(folder):
    return not folder.exists() or list(folder.iterdir()) == []


def test_writes_only_the_verified_file(tmp_path):
    with serving(lambda c, _: c.sendall(_head(len(CONTENT)) + CONTENT)) as address:
        download.fetch(f"http://{address}/x.bin", tmp_path / "new/x.bin", SHA256)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.bin"]
    assert (tmp_path / "new/x.bin").read_bytes() == CONTENT


def test_progress_is_printed_only_to_a_terminal(tmp_path, monkeypatch, capsys):
    with serving(lambda c, _: c.sendall(_head(len(CONTENT)) + CONTENT)) as address:
        download.fetch(f"http://{address}/x.bin", tmp_path / "x.bin", SHA256)
        assert capsys.readouterr() == ("", "")
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        download.fetch(f"http://{address}/x.bin", tmp_path / "x.bin", SHA256)
    lines = capsys.readouterr().err.split("\r")
    assert "x.bin: 1 of 5 MB" in lines and lines[-1] == "x.bin: 5 of 5 MB\n"


def test_wrong_checksum_is_rejected(tmp_path):
    with (
        serving(lambda c, _: c.sendall(_head(len(CONTENT)) + CONTENT)) as address,
        pytest.raises(UserError, match="not the official file"),
    ):
        download.fetch(f"http://{address}/x.bin", tmp_path / "x.bin", "0" * 64)
    assert _is_empty(tmp_path)


def test_incomplete_transfer_is_rejected(tmp_path):
    with (
        serving(lambda c, _: c.sendall(_head(len(CONTENT)) + CONTENT[:-100])) as address,
        pytest.raises(UserError, match="ended early; 100 bytes are missing"),
    ):
        download.fetch(f"http://{address}/x.bin", tmp_path / "x.bin", SHA256)
    assert _is_empty(tmp_path)


def _silent_from_the_start(connection, request):
    time.sleep(3)


def _silent_after_a_megabyte(connection, request):
    connection.sendall(_head(len(CONTENT)) + CONTENT[: 1 << 20])
    time.sleep(3)


def _trickling_head(connection, request):
    # Each byte resets the socket timeout, so only the overall deadline ends the request.
    with contextlib.suppress(OSError):
        for byte in _head(10):
            connection.sendall(bytes([byte]))
            time.sleep(0.1)


@pytest.mark.parametrize(
    "respond", [_silent_from_the_start, _silent_after_a_megabyte, _trickling_head]
)
def test_silent_server_is_abandoned_in_time(tmp_path, respond):
    start = time.perf_counter()
    with (
        serving(respond) as address,
        pytest.raises(UserError, match=r"no response within|timed out"),
    ):
        download.fetch(f"http://{address}/x.bin", tmp_path / "x.bin", SHA256)
    assert time.perf_counter() - start < 2
    assert _is_empty(tmp_path)


def test_hanging_name_lookup_is_abandoned_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: time.sleep(3))
    start = time.perf_counter()
    with pytest.raises(UserError, match="no response within"):
        download.fetch("http://cifar.invalid/x.bin", tmp_path / "x.bin", SHA256)
    assert time.perf_counter() - start < 2


def test_refused_connection_and_error_status_are_reported(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=f"127.0.0.1:{port}/x.bin: .*refused"):
        download.fetch(f"http://127.0.0.1:{port}/x.bin", tmp_path / "x.bin", SHA256)
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with (
        serving(lambda c, _: c.sendall(missing)) as address,
        pytest.raises(UserError, match="404"),
    ):
        download.fetch(f"http://{address}/x.bin", tmp_path / "x.bin", SHA256)


def test_bug_in_the_request_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.build_opener", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        download.fetch("http://cifar.invalid/x.bin", tmp_path / "x.bin", SHA256)


def test_proxy_is_used(tmp_path, monkeypatch):
    requests = []

    def proxy(connection, request):
        requests.append(request.split(b"\r\n")[0])
        connection.sendall(_head(len(CONTENT)) + CONTENT)

    with serving(proxy) as address:
        monkeypatch.setenv("http_proxy", f"http://{address}")
        monkeypatch.setenv("no_proxy", "")
        download.fetch("http://cifar.invalid/x.bin", tmp_path / "x.bin", SHA256)
    assert requests == [b"GET http://cifar.invalid/x.bin HTTP/1.1"]


def test_deadline_is_well_below_fifteen_seconds(monkeypatch):
    monkeypatch.undo()
    assert download.FIRST_RESPONSE_SECONDS <= 10
