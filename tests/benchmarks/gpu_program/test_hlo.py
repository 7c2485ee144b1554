# ruff: noqa: E501
import pytest

from benchmarks.gpu_program import h100, hlo

# A step with one kernel of each kind, in the notation of XLA's optimized programs.
PROGRAM = """HloModule jit_run

%fused_gather (p0: u8[1000,4], p1: s32[8]) -> f32[8,4] {
  %p0 = u8[1000,4]{1,0} parameter(0)
  %p1 = s32[8]{0} parameter(1)
  ROOT %gather.1 = f32[8,4]{1,0} gather(%p0, %p1), offset_dims={1}
}

%fused_dot (a: f32[8,4], b: f32[4,16]) -> f32[8,16] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = f32[4,16]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,16]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_reduce (a: f32[8,16]) -> (f32[16], f32[]) {
  %a = f32[8,16]{1,0} parameter(0)
  %zero = f32[] constant(0)
  %reduce.1 = f32[16]{0} reduce(%a, %zero), dimensions={0}, to_apply=%add
  ROOT %tuple.1 = (f32[16]{0}, f32[]) tuple(%reduce.1, %zero)
}

%condition (state: (s32[], f32[8,16])) -> pred[] {
  %state = (s32[], /*index=1*/f32[8,16]{1,0}) parameter(0)
  ROOT %compare = pred[] compare(%state, %state), direction=LT
}

%body (state: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %state = (s32[], f32[8,16]{1,0}) parameter(0)
  %images = u8[1000,4]{1,0} get-tuple-element(%state), index=0
  %order = s32[8]{0} get-tuple-element(%state), index=1
  %w = f32[4,16]{1,0} get-tuple-element(%state), index=2
  %x = bf16[2,6,6,3]{3,2,1,0} get-tuple-element(%state), index=3
  %k = bf16[8,3,3,3]{3,2,1,0} get-tuple-element(%state), index=4
  %gather_fusion = f32[8,4]{1,0} fusion(%images, %order), kind=kLoop, calls=%fused_gather
  %gemm_fusion = f32[8,16]{1,0} fusion(%gather_fusion, %w), kind=kCustom, calls=%fused_dot
  %cublas.1 = (f32[8,16]{1,0}, s8[0]{0}) custom-call(%gather_fusion, %w), custom_call_target="__cublas$gemm"
  %reduce_fusion = (f32[16]{0}, f32[]) fusion(%gemm_fusion, %gemm_fusion), kind=kInput, calls=%fused_reduce
  %conv.1 = (bf16[2,4,4,8]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", metadata={op_name="jit(run)/while/body/conv"}
  %y = bf16[2,4,4,8]{3,2,1,0} get-tuple-element(%conv.1), index=0
  %conv.2 = (bf16[8,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y), window={size=3x3}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %conv.3 = (bf16[2,6,6,3]{3,2,1,0}, u8[0]{0}) custom-call(%y, %k), window={size=3x3}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
  %wrapped_transpose = f32[16,4]{1,0} fusion(%w), kind=kInput, calls=%transpose
  %copy.1 = f32[4,16]{0,1} copy(%w)
  ROOT %tuple.2 = (s32[], f32[8,16]{1,0}) tuple(%order, %gemm_fusion)
}

ENTRY %main (state: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %state = (s32[], f32[8,16]{1,0}) parameter(0)
  %copy.9 = f32[99]{0} copy(%state)
  ROOT %while.1 = (s32[], f32[8,16]{1,0}) while(%state), condition=%condition, body=%body
}
"""
CONVOLUTION_FLOPS = 2 * (2 * 4 * 4 * 8) * (3 * 3 * 3)  # output elements times taps


def kernels():
    found = hlo.loop_kernels(PROGRAM, {"u8[1000,4]": 32})
    return {kernel.name: kernel for kernel in found}


def test_finds_every_kernel_of_the_loop_and_its_kind():
    assert {name: kernel.kind for name, kernel in kernels().items()} == {
        "gather_fusion": "elementwise",
        "gemm_fusion": "matrix product",
        "cublas.1": "matrix product",
        "reduce_fusion": "reduction",
        "conv.1": "convolution",
        "conv.2": "convolution",
        "conv.3": "convolution",
        "wrapped_transpose": "transpose",
        "copy.1": "copy",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gather_fusion", 32 + 8 * 4 + 8 * 4 * 4),  # 32 bytes of the data set, indices, result
        ("reduce_fusion", 16 * 4 + 4 + 8 * 16 * 4),  # the operand that occurs twice counts once
        ("conv.1", 2 * (2 * 6 * 6 * 3 + 8 * 27 + 2 * 4 * 4 * 8)),
        ("copy.1", 2 * 4 * 16 * 4),
    ],
)
def test_counts_bytes(name, expected):
    assert kernels()[name].num_bytes == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((f"conv.{i}", CONVOLUTION_FLOPS) for i in (1, 2, 3)),
        ("gemm_fusion", 2 * 8 * 4 * 16),
        ("cublas.1", 2 * 8 * 4 * 16),
        ("reduce_fusion", 0),
    ],
)
def test_counts_flops(name, expected):
    assert kernels()[name].flops == expected


def test_reports_the_dtype():
    assert kernels()["conv.1"].dtype == "bf16"


def test_refuses_a_program_without_a_loop():
    with pytest.raises(ValueError, match="no while loop"):
        hlo.loop_kernels(PROGRAM.replace(" while(", " call("))


def test_refuses_an_unknown_convolution():
    with pytest.raises(ValueError, match="convSideways"):
        hlo.loop_kernels(PROGRAM.replace("convForward", "convSideways"))


def test_min_time_is_set_by_the_scarcest_resource():
    kernel = hlo.Kernel("k", "convolution", 0, 0, "bf16")
    assert h100.min_seconds(kernel) == 2e-6
    assert h100.min_seconds(kernel._replace(num_bytes=3_350_000_000)) == pytest.approx(1e-3)
    assert h100.min_seconds(kernel._replace(flops=989_000_000_000)) == pytest.approx(1e-3)
    half_rate = kernel._replace(flops=494_000_000_000, dtype="f32")
    assert h100.min_seconds(half_rate) == pytest.approx(1e-3)


def test_all_reduces_are_found_in_every_computation():
    program = """HloModule jit_run

%async_computation (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %all-reduce.9 = f32[4]{0} all-reduce(%p), channel_id=9, metadata={op_name="jit(run)/while/body/reduce_sum"}
}

%body (state: (f32[128], bf16[64])) -> (f32[128], bf16[64]) {
  %state = (f32[128]{0}, bf16[64]{0}) parameter(0)
  %sums = f32[128]{0} get-tuple-element(%state), index=0
  %kernels = bf16[64]{0} get-tuple-element(%state), index=1
  %all-reduce.1 = f32[128]{0} all-reduce(%sums), channel_id=1, metadata={op_name="jit(run)/while/body/jvp()/reduce_sum"}
  %all-reduce-start.2 = ((bf16[64]{0}), bf16[64]{0}) all-reduce-start(%kernels), channel_id=2, metadata={op_name="jit(run)/while/body/transpose(jvp())/conv"}
  %all-reduce-done.2 = bf16[64]{0} all-reduce-done(%all-reduce-start.2)
  %all-reduce.3 = (f32[128]{0}, bf16[64]{0}) all-reduce(%sums, %kernels), channel_id=3, metadata={op_name="jit(run)/while/body/transpose(jvp())/add"}
  ROOT %tuple = (f32[128]{0}, bf16[64]{0}) tuple(%all-reduce.1, %all-reduce-done.2)
}
"""
    assert hlo.all_reduces(program) == [
        hlo.AllReduce(16, "f32", False),
        hlo.AllReduce(512, "f32", True),
        hlo.AllReduce(128, "bf16", False),
        hlo.AllReduce(512 + 128, "f32", False),
    ]
