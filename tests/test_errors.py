from cifar_jax.errors import quote, unknown


def test_the_closest_name_is_listed_first():
    message = str(unknown("model", "resnet8", ["cnn2", "resnet18", "resnet34"]))
    assert message.startswith("unknown model 'resnet8'; did you mean 'resnet18'? Known: resnet18")
    assert message.endswith("cnn2")


def test_names_from_other_libraries_are_recognized():
    known = ["flip", "vertical_flip"]
    assert "did you mean 'flip'?" in str(unknown("op", "horizontal_flip", known))
    assert "did you mean 'vertical_flip'?" in str(unknown("op", "horizontal_flip", known[1:]))


def test_without_a_close_match_all_names_are_listed():
    assert str(unknown("model", "xyz", ["b", "a"])) == "unknown model 'xyz'. Known: a, b"


def test_a_hint_shortens_a_long_list():
    message = str(unknown("field", "optim.lr_rate", ["optim.lr_rates", *map(str, range(30))]))
    assert "did you mean 'optim.lr_rates'? Known: optim.lr_rates, 0" in message
    assert message.endswith(", and 19 more")


def test_integers_that_python_does_not_write_as_decimals_are_quoted():
    huge = 16**5000
    assert quote(huge, 20).startswith("0x1000000")
    assert quote([huge]) == "a very long number"
