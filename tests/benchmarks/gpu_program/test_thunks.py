import pytest

from benchmarks.gpu_program import thunks

# The host runs the loop: per step, two graphs, a convolution and the kernel of the condition.
HOST_LOOP = """000: kCommandBuffer [source       | next=014 (1)]
    001: kCopy         [source | sink] kCopy
002: kWhile         [prev=000 (1) | next=000 (1)]
condition:
    003: kCustomKernel [source | sink] wrapped_compare
  body:
    000: kCommandBuffer [source       | next=023 (1)]
        004: kCustomKernel [source       | sink        ] input_reduce_fusion_3
        005: kCustomKernel [source       | sink        ] loop_multiply_fusion
    006: kConvolution   [prev=000 (1) | next=024 (1)] kConvolution
    000: kCommandBuffer [prev=025 (1) | sink        ]
        007: kCustomKernel [source       | sink        ] loop_add_fusion
008: kCustomKernel [prev=014 (1) | sink        ] wrapped_add
"""
ONE_GRAPH = """000: kCommandBuffer [source | sink]
    001: kCopy         [source       | next=014 (13)] kCopy
    014: kWhile        [prev=013 (1) | next=064 (1) ]
condition:
        015: kCustomKernel [source | sink] wrapped_compare
      body:
        016: kCustomKernel [source       | next=036 (20)] input_reduce_fusion_3
        017: kConvolution  [prev=022 (1) | next=024 (1) ] kConvolution
    064: kCustomKernel [prev=014 (1) | next=065 (1) ] wrapped_add_6
"""


def test_counts_the_launches_of_a_loop_on_the_host():
    assert thunks.count(HOST_LOOP) == thunks.Launches(2, 4, 5)


def test_a_loop_inside_a_graph_launches_nothing_per_step():
    assert thunks.count(ONE_GRAPH) == thunks.Launches(1, 0, 3)


def test_refuses_a_program_without_a_loop():
    with pytest.raises(ValueError, match="no loop"):
        thunks.count("000: kCopy [source | sink] kCopy\n")
