"""Reads TFRecord files, the default format of TFDS, without TensorFlow.

A record is its length (8 bytes), the checksum of the length (4), the data, and the checksum of the
data (4), all little-endian. See https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# The longest record that is read, in bytes. One with an image of 32x32 pixels has about 2,500.
LONGEST = 1 << 13


def read(path: Path) -> Iterator[bytes]:
    """Yields the records of a file.

    Raises:
      ValueError: If the file is truncated or a checksum is wrong.
      OSError: If the file cannot be read.
    """
    with open(path, "rb") as f:
        for i in itertools.count():
            if not (header := f.read(12)):
                return
            length = int.from_bytes(header[:8], "little")
            if len(header) == 12 and masked_crc32c(header[:8]) != header[8:]:
                raise ValueError(f"{path.name}: the checksum of the length of record {i} is wrong")
            if length > LONGEST:
                raise ValueError(
                    f"{path.name}: record {i} has {length:,} bytes, more than the limit of "
                    f"{LONGEST:,}"
                )
            record, checksum = f.read(length), f.read(4)
            if len(header) < 12 or len(checksum) < 4:
                raise ValueError(f"{path.name} is truncated in record {i}")
            if masked_crc32c(record) != checksum:
                raise ValueError(f"{path.name}: record {i} has a wrong checksum")
            yield record


def masked_crc32c(data: bytes) -> bytes:
    """Returns the checksum, 4 bytes, of at most LONGEST bytes.

    A CRC is linear: it is the XOR of one table entry per byte, which NumPy looks up all at once, in
    about 12 microseconds for an image. Among the package's dependencies, only tensorboardX has a
    CRC-32C, which is slower: a Python loop over the bytes.
    """
    entries, rows, of_length = _tables()
    used = rows[len(rows) - len(data) :] + np.frombuffer(data, np.uint8)
    crc = int(of_length[len(data)] ^ np.bitwise_xor.reduce(entries.take(used))) ^ 0xFFFFFFFF
    rotated = crc >> 15 | crc << 17
    return (rotated + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the tables of `masked_crc32c`, which take 50 milliseconds to compute.

    Returns:
      entries: uint32 [LONGEST * 256]; index 256 * k + b is for a byte b with k bytes after it.
      rows: int64 [LONGEST]; 256 * k for each byte of the longest record, in order.
      of_length: uint32 [LONGEST + 1]; the part of the CRC that depends only on the length.
    """
    one_byte = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one_byte = one_byte >> 1 ^ (one_byte & 1) * np.uint32(0x82F63B78)  # Castagnoli's polynomial
    # Row k: the state of the CRC after k zero bytes that follow a byte (columns 0 to 255) or the
    # initial value (column 256).
    states = np.empty((LONGEST + 1, 257), np.uint32)
    states[0] = [*one_byte, 0xFFFFFFFF]
    for before, after in itertools.pairwise(states):
        after[:] = before >> 8 ^ one_byte[before & 0xFF]
    return states[:-1, :256].ravel(), 256 * np.arange(LONGEST)[::-1], states[:, 256].copy()
