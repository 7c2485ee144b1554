from cifar_jax.errors import unknown


def test_the_nearest_name_goes_first():
    message = str(unknown("model", "resnet8", ["cnn2", "resnet18", "resnet34"]))
    assert message.startswith("unknown model 'resnet8': did you mean 'resnet18'? Known: resnet18")
    assert message.endswith("cnn2")


def test_without_a_near_name_all_are_listed():
    assert str(unknown("model", "xyz", ["b", "a"])) == "unknown model 'xyz': Known: a, b"
