"""Reads the kernels of a step, with their memory traffic and FLOPs, from an optimized GPU program.

The text of the program (`compiled.as_text()`) holds one computation per fusion and one for the body
of the training loop. Every instruction of the body that does something is one kernel or one library
call; XLA has fused everything else into these.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64"), 8),
}
_NO_KERNEL = {
    *("parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all"),
    *("partition-id", "replica-id"),
}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CONVOLUTION = "__cudnn$conv"


class Kernel(NamedTuple):
    """One kernel, or one library call, in a step.

    Attributes:
      name: The name of the instruction.
      kind: "convolution", "matrix product", "reduction", "scatter", "transpose", "copy", "sort" or
        "elementwise".
      num_bytes: The size of its result and its distinct operands, in bytes.
      flops: The FLOPs of convolutions and matrix products; 0 for other kernels.
      dtype: The dtype of its first operand, in HLO's notation.
    """

    name: str
    kind: str
    num_bytes: int
    flops: int
    dtype: str


class AllReduce(NamedTuple):
    """One all-reduce in a step.

    Attributes:
      num_bytes: The size of its operands.
      dtype: The dtype of its first operand, in HLO's notation.
      is_forward: Whether it belongs to the forward pass, as those of BatchNorm's statistics do.
    """

    num_bytes: int
    dtype: str
    is_forward: bool


class _Instruction(NamedTuple):
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    text: str

    def attribute(self, name: str) -> str:
        """Returns the value of name=value, without quotes; "" if it is absent."""
        match = re.search(rf'\b{name}=(?:"([^"]*)"|%?([^\s,]+))', self.text)
        return (match[1] or match[2]) if match else ""

    def dimensions(self, name: str) -> list[int]:
        """Returns the value of name={0,1}; [] if it is absent."""
        match = re.search(rf"\b{name}=\{{([\d,]*)\}}", self.text)
        return [int(i) for i in match[1].split(",") if i] if match else []


def loop_kernels(program: str, partial_reads: Mapping[str, int] | None = None) -> list[Kernel]:
    """Returns the kernels of the training loop's body, in the order of the program.

    Args:
      program: The text of the optimized program, which holds one while loop at the top level.
      partial_reads: {type: bytes read} for operands that kernels read only in part, for example
        {"u8[50000,32,32,3]": 393216} for the data set and a batch of 128.

    Raises:
      ValueError: If the program has no loop, or a convolution has an unknown form.
    """
    computations = _parse(program)
    loops = [i for body in computations.values() for i in body if i.opcode == "while"]
    loops = [i for i in loops if i.attribute("body") in computations]
    if not loops:
        raise ValueError("the program contains no while loop")
    # Loops inside the step, if any, are smaller than the step.
    body = max((computations[i.attribute("body")] for i in loops), key=len)
    types = {instruction.name: instruction.type for instruction in body}
    return [
        _kernel(instruction, types, computations, partial_reads or {})
        for instruction in body
        if instruction.opcode not in _NO_KERNEL
    ]


def all_reduces(program: str) -> list[AllReduce]:
    """Returns the all-reduces of a program for several GPUs, wherever they are in it.

    Args:
      program: The text of the optimized program.
    """
    found = []
    for body in _parse(program).values():
        types = {instruction.name: instruction.type for instruction in body}
        for instruction in body:
            if instruction.opcode in ("all-reduce", "all-reduce-start"):
                operands = [types[name] for name in instruction.operands]
                source = instruction.attribute("op_name")
                is_forward = "jvp(" in source and "transpose(" not in source
                size = sum(map(num_bytes, operands))
                found.append(AllReduce(size, _ARRAY.search(operands[0])[1], is_forward))
    return found


def _parse(program: str) -> dict[str, list[_Instruction]]:
    computations, current = {}, None
    for line in program.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[1], [])
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line.strip())):
            name, type_, opcode, rest = match.groups()
            operands = re.findall(r"%([\w.\-]+)", rest.split(")")[0])
            current.append(_Instruction(name, type_, opcode, tuple(operands), rest))
    return computations


def _kernel(
    instruction: _Instruction,
    types: Mapping[str, str],
    computations: Mapping[str, list[_Instruction]],
    partial_reads: Mapping[str, int],
) -> Kernel:
    operands = [types.get(name, "") for name in instruction.operands]
    distinct = [types.get(name, "") for name in dict.fromkeys(instruction.operands)]
    inside = computations.get(instruction.attribute("calls"), [])
    opcodes = {i.opcode for i in inside} | {instruction.opcode}
    target = instruction.attribute("custom_call_target")
    if target.startswith(_CONVOLUTION):
        kind, flops = "convolution", _convolution_flops(target, instruction, operands)
    elif "gemm" in target or "dot" in opcodes:
        kind = "matrix product"
        flops = _dot_flops(inside) if inside else _gemm_flops(instruction, operands)
    else:
        kind, flops = _kind(opcodes, instruction), 0
    dtype = _ARRAY.search(operands[0]) if operands else None
    return Kernel(
        instruction.name,
        kind,
        num_bytes(instruction.type) + sum(_read(type_, partial_reads) for type_ in distinct),
        flops,
        dtype[1] if dtype else "",
    )


def _kind(opcodes: set[str], instruction: _Instruction) -> str:
    for opcode, kind in (
        ("scatter", "scatter"), ("sort", "sort"), ("reduce", "reduction"),
        ("reduce-window", "reduction"),
    ):  # fmt: skip
        if opcode in opcodes:
            return kind
    if instruction.opcode.startswith("copy"):
        return "copy"
    is_transpose = "transpose" in instruction.name or instruction.opcode == "transpose"
    return "transpose" if is_transpose else "elementwise"


def num_bytes(type_: str) -> int:
    """Returns the size of an HLO type, such as "f32[16,8]{1,0}" or a tuple of them, in bytes.

    Raises:
      ValueError: If the size of an element type is unknown.
    """
    total = 0
    for dtype, shape in _ARRAY.findall(type_):
        if dtype not in _BYTES:
            raise ValueError(f"the size of {dtype} in {type_} is unknown")
        total += _BYTES[dtype] * math.prod(_sizes(shape))
    return total


def _read(type_: str, partial_reads: Mapping[str, int]) -> int:
    array = type_.split("{")[0]
    return partial_reads[array] if array in partial_reads else num_bytes(type_)


def _sizes(shape: str) -> list[int]:
    return [int(size) for size in shape.split(",") if size]


def _shape(type_: str) -> list[int]:
    """Returns the shape of the first array of a type."""
    return _sizes(_ARRAY.search(type_)[2])


def _convolution_flops(target: str, instruction: _Instruction, operands: list[str]) -> int:
    """Returns 2 * filter size * batch * output pixels, which also holds for the gradients."""
    direction = target.removeprefix(_CONVOLUTION)
    roles = {  # which arrays are the filter and the convolution's output
        "Forward": (operands[1:2], [instruction.type]),
        "ForwardActivation": (operands[1:2], [instruction.type]),
        "BiasActivationForward": (operands[1:2], [instruction.type]),
        "BackwardInput": (operands[1:2], operands[:1]),
        "BackwardFilter": ([instruction.type], operands[1:2]),
    }
    if direction not in roles:
        raise ValueError(f"unknown convolution {target}")
    (kernel,), (output,) = roles[direction]
    kernel_layout = instruction.attribute("dim_labels").split("_")[1].split("->")[0]
    num_features = _shape(kernel)[kernel_layout.index("o")]
    return 2 * math.prod(_shape(kernel)) * math.prod(_shape(output)) // num_features


def _dot_flops(inside: list[_Instruction]) -> int:
    types = {i.name: i.type for i in inside}
    return sum(
        2
        * math.prod(_shape(i.type))
        * math.prod(
            _shape(types[i.operands[0]])[axis] for axis in i.dimensions("lhs_contracting_dims")
        )
        for i in inside
        if i.opcode == "dot"
    )


def _gemm_flops(instruction: _Instruction, operands: list[str]) -> int:
    """Returns the FLOPs of a library call [M, K] x [K, N], in any layout and without a batch."""
    left, right = (math.prod(_shape(type_)) for type_ in operands[:2])
    return round(2 * math.sqrt(left * right * math.prod(_shape(instruction.type))))
