import struct

import numpy as np
import pytest
from tensorboardX.record_writer import masked_crc32c

from cifar_jax.data import tfrecord


@pytest.fixture
def path(tmp_path):
    """A file with records of 0, 1, 300 and LONGEST bytes."""
    rng, path = np.random.default_rng(0), tmp_path / "x.tfrecord"
    for n in (0, 1, 300, tfrecord.LONGEST):
        with open(path, "ab") as f:
            f.write(record(rng.bytes(n)))
    return path


def record(data):
    length = struct.pack("<Q", len(data))
    return b"".join(part + struct.pack("<I", masked_crc32c(part)) for part in (length, data))


def test_checksum_of_the_standard_vectors():
    # RFC 3720, appendix B.4.
    for data, crc in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (b"", 0)):
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        assert tfrecord.masked_crc32c(data) == struct.pack("<I", masked)


def test_reads_every_record(path):
    rng = np.random.default_rng(0)
    expected = [rng.bytes(n) for n in (0, 1, 300, tfrecord.LONGEST)]
    assert list(tfrecord.read(path)) == expected


def test_every_flipped_bit_is_found(path):
    content = path.read_bytes()[: 16 + 17 + 316]  # the records of 0, 1 and 300 bytes
    for bit in [*range(8 * (16 + 17)), *range(8 * (16 + 17), 8 * len(content), 61)]:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x.tfrecord: .*record \d .*wrong"):
            list(tfrecord.read(path))


def test_truncation_is_found(path):
    content = path.read_bytes()
    for n in (1, 11, 12, 15, 17, 40, len(content) - 4, len(content) - 1):
        path.write_bytes(content[:n])
        with pytest.raises(ValueError, match=r"x.tfrecord is truncated in record \d"):
            list(tfrecord.read(path))


def test_record_that_cannot_be_an_image_is_not_read(path):
    path.write_bytes(
        struct.pack("<Q", 1 << 60) + struct.pack("<I", masked_crc32c(struct.pack("<Q", 1 << 60)))
    )
    with pytest.raises(ValueError, match=r"record 0 has 1,152,921,504,606,846,976 bytes"):
        list(tfrecord.read(path))
