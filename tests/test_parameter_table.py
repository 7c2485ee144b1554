import numpy as np

from cifar_jax import parameter_table

DEEP = {
    "stem": {"kernel": np.zeros((3, 4))},
    "stages": {
        stage: {
            block: {"conv": {"kernel": np.zeros((2, 5)), "bias": np.zeros(5)}} for block in "012"
        }
        for stage in "01"
    },
}


def names(text):
    return [line.split()[1] for line in text.splitlines() if line.startswith("| ")][1:]


def test_few_parameters_have_a_row_each():
    text = parameter_table.table({"dense": {"bias": np.zeros(3), "kernel": np.zeros((2, 3))}})
    assert names(text) == ["dense/bias", "dense/kernel"] and text.endswith("Total: 9 -- 72 bytes")


def test_the_smallest_blocks_that_fit_share_a_row():
    layers = [f"stages/{stage}/{block}" for stage in "01" for block in "012"]
    assert names(parameter_table.table(DEEP, 12)) == [f"{x}/conv" for x in layers] + ["stem/kernel"]
    assert names(parameter_table.table(DEEP, 6)) == ["stages/0", "stages/1", "stem/kernel"]
    text = parameter_table.table(DEEP, 1)
    assert names(text) == ["stages", "stem"]
    assert "| stages | 12     | 90   |" in text and "\nTotal: 102 (" in text
