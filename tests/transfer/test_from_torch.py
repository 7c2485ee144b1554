"""Compares networks with weights from safetensors files with PyTorch versions of them.

The PyTorch networks have torchvision's names, but torchvision need not be installed.
"""

import numpy as np
import pytest
from pretrained import Network, relative

from cifar_jax.models import plain

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")
VGG_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """torchvision's VGG, with fewer filters, and fewer units in the head."""

    def __init__(self, name, num_classes, size, units):
        super().__init__()
        layers, channels = [], 3
        for width, count in zip((4, 8, 16, 32, 32), VGG_BLOCKS[name], strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            *(nn.Linear((size // 32) ** 2 * channels, units), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(units, units), nn.ReLU(), nn.Dropout()),
            nn.Linear(units, num_classes),
        )

    def forward(self, images):
        return self.classifier(self.features(images).flatten(1))


class Block(nn.Module):
    """torchvision's BasicBlock and Bottleneck."""

    def __init__(self, inputs, width, stride, is_bottleneck):
        super().__init__()
        outputs = 4 * width if is_bottleneck else width
        kernels = (1, 3, 1) if is_bottleneck else (3, 3)
        widths = (width, width, outputs) if is_bottleneck else (width, width)
        channels = inputs
        for i, (kernel, features) in enumerate(zip(kernels, widths, strict=True), 1):
            strides = stride if i == (2 if is_bottleneck else 1) else 1
            conv = nn.Conv2d(channels, features, kernel, strides, kernel // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(features))
            channels = features
        self.depth = len(kernels)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.depth + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            x = F.relu(x) if i < self.depth else F.relu(x + shortcut)
        return x


class ResNet(nn.Module):
    """torchvision's ResNet."""

    def __init__(self, depths, is_bottleneck, num_classes, width=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(Block(channels, width * 2**stage, stride, is_bottleneck))
                channels = width * 2**stage * (4 if is_bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


def randomize(model):
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def predict(model, images):
    with torch.no_grad():
        return model(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()


def random_images(size):
    return np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)


RESNETS = {
    "resnet18": ((2, 2, 2, 2), False, dict(stem="imagenet")),
    "resnet34": ((3, 4, 6, 3), False, dict(stem="imagenet")),
    "resnet50": ((3, 4, 6, 3), True, dict(conventions="torch")),
}


@pytest.mark.parametrize("name", RESNETS)
def test_logits_equal_torchvision_resnet(tmp_path, name):
    depths, is_bottleneck, options = RESNETS[name]
    theirs = randomize(ResNet(depths, is_bottleneck, 7, width=8))
    safetensors.save_model(theirs, tmp_path / "model.safetensors")
    ours = Network(name, 7, width=8, **options)
    found = ours.load(tmp_path / "model.safetensors")
    images = random_images(64)
    assert not found.notes
    assert relative(ours.logits(found, images), predict(theirs, images)) < 1e-4


def timm_names(state):
    """Renames the head of a VGG as timm does, whose first dense layers are convolutions."""
    kernel = state["classifier.0.weight"]
    channels = state["features.0.weight"].shape[0] * 8
    side = round((kernel.shape[1] / channels) ** 0.5)
    new = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    new["pre_logits.fc1.weight"] = kernel.reshape(-1, channels, side, side)
    new["pre_logits.fc2.weight"] = state["classifier.3.weight"][:, :, None, None]
    new["head.fc.weight"] = state["classifier.6.weight"]
    for i, layer in ((0, "pre_logits.fc1"), (3, "pre_logits.fc2"), (6, "head.fc")):
        new[f"{layer}.bias"] = state[f"classifier.{i}.bias"]
    return {name: tensor.contiguous() for name, tensor in new.items()}


@pytest.mark.parametrize(("name", "is_timm"), [("vgg19", False), ("vgg16", True)])
def test_logits_equal_vgg_whose_features_are_flattened(tmp_path, name, is_timm):
    theirs = randomize(VGG(name, 7, size=64, units=24))
    state = theirs.state_dict()
    safetensors.save_file(timm_names(state) if is_timm else state, tmp_path / "model.safetensors")
    layers = plain.VGG19 if name == "vgg19" else plain.VGG16
    layers = [layer if isinstance(layer, str) else layer // 16 for layer in layers]
    ours = Network(name, 7, layers=(*layers, 24, 24), image_size=64)
    found = ours.load(tmp_path / "model.safetensors")
    images = random_images(64)
    assert not found.notes
    assert relative(ours.logits(found, images), predict(theirs, images)) < 1e-4
    # With the suite's own head, one dense layer, the body is the same.
    body = Network(name, 7, layers=layers, image_size=64)
    found = body.load(tmp_path / "model.safetensors")
    assert set(found.params) == {"layers"} and "at random" in found.notes[0]


class Separable(nn.Module):
    """timm's SeparableConv2d."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x):
        return self.pointwise(self.conv1(x))


class XceptionBlock(nn.Module):
    """timm's Block of legacy_xception."""

    def __init__(self, inputs, widths, *, is_first=False, stride=1):
        super().__init__()
        layers, channels = [], inputs
        for width in widths:
            layers += [nn.ReLU(), Separable(channels, width), nn.BatchNorm2d(width)]
            channels = width
        pool = [nn.MaxPool2d(3, 2, 1)] if stride == 2 else []
        self.rep = nn.Sequential(*layers[is_first:], *pool)
        self.skip = None
        if stride == 2:
            self.skip = nn.Conv2d(inputs, channels, 1, 2, bias=False)
            self.skipbn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.rep(x) + (x if self.skip is None else self.skipbn(self.skip(x)))


class Xception(nn.Module):
    """timm's legacy_xception, with other widths and two blocks in the middle."""

    def __init__(self, widths, num_classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, widths[0], 3, 2, bias=False), nn.BatchNorm2d(widths[0])
        self.conv2 = nn.Conv2d(widths[0], widths[1], 3, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[1])
        for i in (1, 2, 3):
            block = XceptionBlock(widths[i], 2 * [widths[i + 1]], is_first=i == 1, stride=2)
            self.add_module(f"block{i}", block)
        for i in (4, 5):
            self.add_module(f"block{i}", XceptionBlock(widths[4], 3 * [widths[4]]))
        self.block6 = XceptionBlock(widths[4], [widths[4], widths[5]], stride=2)
        self.conv3, self.bn3 = Separable(widths[5], widths[6]), nn.BatchNorm2d(widths[6])
        self.conv4, self.bn4 = Separable(widths[6], widths[7]), nn.BatchNorm2d(widths[7])
        self.fc = nn.Linear(widths[7], num_classes)

    def forward(self, images):
        x = images
        for i in (1, 2):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        for i in range(1, 7):
            x = getattr(self, f"block{i}")(x)
        for i in (3, 4):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        return self.fc(x.mean((2, 3)))


def test_logits_equal_timm_xception(tmp_path):
    widths = (4, 6, 8, 10, 12, 14, 16, 18)
    theirs = randomize(Xception(widths, 7))
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var /= 1000  # so that eps matters
    safetensors.save_model(theirs, tmp_path / "model.safetensors")
    ours = Network("xception", 7, widths=widths, depth=2)
    found = ours.load(tmp_path / "model.safetensors")
    images = random_images(71)
    assert not found.notes
    assert relative(ours.logits(found, images), predict(theirs, images)) < 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_become_float32(tmp_path, dtype):
    theirs = ResNet((2, 2, 2, 2), False, 7, width=4)
    state = {
        name: tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
        for name, tensor in theirs.state_dict().items()
    }
    safetensors.save_file(state, tmp_path / "model.safetensors")
    ours = Network("resnet18", 7, width=4, stem="imagenet")
    kernel = ours.load(tmp_path / "model.safetensors").params["conv_stem"]["kernel"]
    assert kernel.dtype == np.float32
    expected = state["conv1.weight"].to(torch.float32).numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, expected)
