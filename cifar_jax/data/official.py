"""The official CIFAR archives: where they are, what they contain, and how to recognize them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_jax.data.superclasses import SUPERCLASSES


class Archive(NamedTuple):
    """The location and contents of an official archive.

    A record is one byte per label (CIFAR-100: coarse, then fine), then 3,072 bytes of pixels in
    channel, row, column order. See https://www.cs.toronto.edu/~kriz/cifar.html
    """

    url: str
    sha256: str  # of the .tar.gz
    folder: str  # the folder inside the .tar.gz
    splits: dict[str, dict[str, int]]  # {"train" or "test": {file: number of records}}
    labels: dict[str, tuple[str, int]]  # {label: (names file, num_classes)}, in record order
    names: dict[str, tuple[str, ...]]  # {label: class names}
    digests: dict[str, str]  # {split: digest of its records}

    @property
    def record_size(self) -> int:
        """The size of one record in bytes."""
        return len(self.labels) + 3072

    def differences(
        self, records: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Returns the names of the files that differ from the official ones, as text for `note`.

        For CIFAR-10, it is unknown which of the five training files differs, because their records
        are accepted in any order.

        Args:
          records: {split: uint8 [N, record_size]}, in any order.
          names: {label: class names}.
        """
        differing = []
        for split, counts in self.splits.items():
            if digest(records[split]) != self.digests[split]:
                first, *others = counts
                differing.append(f"one of {first} to {others[-1]}" if others else first)
        return differing + [
            file
            for label, (file, _) in self.labels.items()
            if tuple(names[label]) != self.names[label]
        ]


def note(name: str, source: Path, differences: Sequence[str]) -> str:
    """Returns the line to print for a data set that is not the official one."""
    return (
        f"note: {source} is not the official {name} (differences in {', '.join(differences)}), "
        "so accuracies cannot be compared with published ones"
    )


def digest(records: np.ndarray) -> str:
    """Returns a SHA-256 of the records of a split, which does not depend on their order.

    TFDS, Hugging Face and the official archives hold the same records in different orders, and
    accuracies are comparable between them. Computing the digest takes 0.2 seconds for 60,000
    records.

    Args:
      records: uint8 [N, record_size], contiguous.
    """
    each = sorted(hashlib.sha256(record).digest() for record in records)
    return hashlib.sha256(b"".join(each)).hexdigest()


# The digests were computed from a copy of the official images in a different order.
_SITE = "https://www.cs.toronto.edu/~kriz/"
ARCHIVES = {
    "cifar10": Archive(
        url=_SITE + "cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder="cifar-10-batches-bin",
        splits={
            "train": {f"data_batch_{i}.bin": 10_000 for i in range(1, 6)},
            "test": {"test_batch.bin": 10_000},
        },
        labels={"label": ("batches.meta.txt", 10)},
        names={
            "label": (
                *("airplane", "automobile", "bird", "cat", "deer"),
                *("dog", "frog", "horse", "ship", "truck"),
            )
        },
        digests={
            "train": "55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
            "test": "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
        },
    ),
    "cifar100": Archive(
        url=_SITE + "cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder="cifar-100-binary",
        splits={"train": {"train.bin": 50_000}, "test": {"test.bin": 10_000}},
        labels={
            "coarse_label": ("coarse_label_names.txt", 20),
            "label": ("fine_label_names.txt", 100),
        },
        names={
            "coarse_label": tuple(SUPERCLASSES),
            "label": tuple(sorted(name for names in SUPERCLASSES.values() for name in names)),
        },
        digests={
            "train": "7077d87fc363f92dbf1245f13ba80561d7b33a96c79ad57168d49dc172aaa92b",
            "test": "96adb3db8da7632dbb350559a17b9f585fab5b17675de5fc8f6761384196b294",
        },
    ),
}
