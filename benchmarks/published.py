"""What the five write-ups published, by experiment: the numbers that ours stand beside."""

from typing import NamedTuple

DOCUMENTS = {
    "hybrid": 'chentalen2021, "CIFAR100_classification"',
    "assignment": 'Divya Agarwal, "Assignment 3 - CIFAR100 Classification Model" (2017)',
    "callbacks": 'Kurt Meyer, "Deep-Learning-CIFAR-100" (2024)',
    "cifar10": 'Timofey Kruk, "Convolutional NN for CIFAR10 image classification" (2020)',
    "coarse": '"LSC Project"',
}


class Published(NamedTuple):
    """One experiment of a write-up; None or "" where the document does not say.

    Attributes:
      label: what is predicted, as in the config's data.label.
      test_accuracy: fraction.
      test_loss: cross-entropy, nats.
      epochs: of training.
      seconds: of training, all epochs.
      hardware: on which.
      other: what the document says of the result in the place of a number.
      caveat: why a full run of our config is not comparable with it.
    """

    label: str = "fine"
    test_accuracy: float | None = None
    test_loss: float | None = None
    epochs: int | None = None
    seconds: float | None = None
    hardware: str = ""
    other: str = ""
    caveat: str = ""


# The document's log names it for the run of cnn3, the newest of five.
_GTX = "GeForce GTX 1080"

PUBLISHED = {
    "assignment/adam_1e3": Published(other="no substantive convergence"),
    "assignment/adam_decay": Published("fine", 0.1195, 3.93013969345, 100, 1099.53, _GTX),
    "assignment/cnn3": Published("fine", 0.5602, 1.65497318726, 150, 1001.93, _GTX),
    "assignment/dropout_25_40": Published("fine", 0.4917, 2.08494180679, 100, 1076.44, _GTX),
    "assignment/no_augment": Published("fine", 0.4942, 2.05392160969, 100, 1317.04, _GTX),
    "assignment/sgd": Published("fine", 0.0211, 4.59286362, 100, 981.26, _GTX),
    # 4 hours on an L4, too.
    "callbacks/resnet50": Published(
        epochs=80,
        seconds=2 * 3600,
        hardware="NVIDIA A100",
        other="a figure: about 74% on validation",
        caveat="the document's begins from ImageNet weights",
    ),
    "callbacks/school": Published("fine", 0.57),
    # "In under 40 minutes", both of them.
    "callbacks/school_improved": Published("fine", 0.64),
    "callbacks/simple": Published("fine", 0.50),
    "callbacks/simple_improved": Published("fine", 0.57),
    "callbacks/simple_initial": Published("fine", 0.35),
    "callbacks/stacked3": Published(other="better than the first attempts, not worth its cost"),
    "cifar10/cnn_deep": Published("fine", 0.69),
    "cifar10/cnn_small": Published("fine", 0.54),
    "cifar10/resnet18": Published("fine", 0.71, epochs=8),
    "coarse/cnn2_adam": Published("coarse", 0.480, epochs=100),
    "coarse/cnn2_batch16": Published("coarse", epochs=20, other="a figure"),
    "coarse/cnn2_batch64": Published("coarse", 0.496, epochs=20),
    "coarse/cnn2_dropout": Published("coarse", 0.513, epochs=100),
    "coarse/cnn2_lr1e2": Published("coarse", 0.05, other="random guessing"),
    "coarse/cnn2_lr1e4": Published("coarse", 0.502),
    "coarse/cnn2_sgd": Published("coarse", 0.469),
    "coarse/cnn4": Published("coarse", 0.552, epochs=100),
    "coarse/cnn4_fine": Published("fine", 0.385),
    "coarse/random_search": Published(
        "coarse", epochs=50, other="filters 32, 32, 64, 64, dense 128"
    ),
    "coarse/vgg16_transfer": Published(
        "fine", 0.155, caveat="the document's begins from ImageNet weights"
    ),
    "hybrid/cnn13": Published(other="overfits"),
    "hybrid/cnn13_augment": Published(other="still overfits"),
    "hybrid/cnn13_dropout": Published(other="a figure"),
    "hybrid/cnn13_l2": Published(other="a figure: the best of its kind"),
    "hybrid/cnn_shallow": Published(other="a figure: a little better"),
    "hybrid/inception_resnet": Published(other="a figure"),
    "hybrid/inception_resnet_clr": Published(other="a figure"),
    "hybrid/lr_range_test": Published(other="rates 1.6e-5 to 3.98e-4"),
    "hybrid/resnet18": Published(other="a figure: no notable improvement"),
    "hybrid/resnet34": Published(other="a figure: no notable improvement"),
}
