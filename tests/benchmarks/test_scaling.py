import heapq
import itertools
import math

import numpy as np
import pytest
import tiny

from benchmarks.gpu_program import hlo
from benchmarks.scaling import compiled, links, networks, predict, step_times
from benchmarks.scaling.__main__ import main
from benchmarks.scaling.links import Links, Protocol, all_reduce
from benchmarks.scaling.step_times import StepTime, StepTimes
from benchmarks.table import scaling as tables

SIMPLE = Links(8, 100e9, 10e9, (Protocol(1e-6, 1e-6, 10e-6, 1.0),))
NO_LATENCY = Links(8, 100e9, 10e9, (Protocol(0.0, 0.0, 0.0, 1.0),))
NO_TRANSFER = Links(8, math.inf, math.inf, SIMPLE.protocols)
FREE = Links(8, math.inf, math.inf, NO_LATENCY.protocols)


def test_an_all_reduce_by_hand():
    # 14 steps of 1 us + 1 MB / 100 GB/s, after a base of 1 us.
    assert all_reduce(8e6, 8, SIMPLE) == pytest.approx(1e-6 + 14 * 11e-6)
    # Across 4 hosts: 2 * 2 steps of 10 us, and 2 * 3/4 of 1 MB at 10 GB/s.
    assert all_reduce(8e6, 32, SIMPLE) == pytest.approx(1e-6 + 14 * 11e-6 + 40e-6 + 150e-6)


def test_the_latency_is_that_of_nccls_log():
    # 25.87 us for 4,096 bytes with LL and a tree, in github.com/NVIDIA/nccl/issues/1453. That is on
    # three hosts with eight H100s, which NCCL's model rounds down to two.
    assert all_reduce(4096, 16) == pytest.approx(25.87e-6, rel=0.05)


class Ring:
    """Simulates a ring all-reduce, event by event, and checks its result."""

    def __init__(self, num_ranks, num_bytes, latency, bandwidth):
        self.num_ranks, self.seconds = num_ranks, latency + num_bytes / num_ranks / bandwidth
        # Rank r contributes 10^r to every chunk, so that a sum shows what was added.
        self.chunks = [[10**rank] * num_ranks for rank in range(num_ranks)]

    def run(self):
        """Returns the time at which the last message arrives."""
        num, events, order = self.num_ranks, [], itertools.count()
        link_free, now = [0.0] * num, 0.0

        def send(time, rank, chunk, hop):
            start = max(time, link_free[rank])
            link_free[rank] = start + self.seconds
            message = (rank + 1) % num, chunk, hop, self.chunks[rank][chunk]
            heapq.heappush(events, (link_free[rank], next(order), message))

        for rank in range(num):
            send(0.0, rank, rank, 1)
        while events:
            now, _, (rank, chunk, hop, value) = heapq.heappop(events)
            # The first num - 1 hops add up a chunk, the others distribute the sum.
            self.chunks[rank][chunk] = value + (self.chunks[rank][chunk] if hop < num else 0)
            if hop < 2 * (num - 1):
                send(now, rank, chunk, hop + 1)
        return now


@pytest.mark.parametrize("num_gpus", [2, 3, 5, 8])
@pytest.mark.parametrize("num_bytes", [8, 24e6])
def test_a_simulated_ring_takes_the_same_time(num_gpus, num_bytes):
    protocol = SIMPLE.protocols[0]
    ring = Ring(num_gpus, num_bytes, protocol.nvlink_latency, SIMPLE.nvlink)
    seconds = ring.run()
    assert ring.chunks == [[int("1" * num_gpus)] * num_gpus] * num_gpus
    assert all_reduce(num_bytes, num_gpus, SIMPLE) == pytest.approx(protocol.base + seconds)


def halving_and_doubling(values, latency, bandwidth):
    """Simulates an all-reduce in which pairs exchange halves, then gather; returns its seconds.

    Args:
      values: [ranks, elements] float64, replaced by their sum. The time counts 8 bytes each.
    """
    num, seconds = len(values), 0.0
    parts = [slice(0, values.shape[1]) for _ in range(num)]
    distances = [2**i for i in range(num.bit_length() - 1)][::-1]
    for distance in distances:
        kept = []
        for rank in range(num):
            middle = (parts[rank].start + parts[rank].stop) // 2
            low = slice(parts[rank].start, middle), slice(middle, parts[rank].stop)
            kept.append(low[bool(rank & distance)])
        values[:] = [
            [*row[: k.start], *(row[k] + values[rank ^ distance][k]), *row[k.stop :]]
            for rank, (row, k) in enumerate(zip(values, kept, strict=True))
        ]
        parts = kept
        seconds += latency + 8 * (parts[0].stop - parts[0].start) / bandwidth
    for distance in distances[::-1]:
        sent = 8 * (parts[0].stop - parts[0].start)
        before, old = list(parts), values.copy()
        for rank in range(num):
            other = before[rank ^ distance]
            values[rank][other] = old[rank ^ distance][other]
            parts[rank] = slice(
                min(before[rank].start, other.start), max(before[rank].stop, other.stop)
            )
        seconds += latency + sent / bandwidth
    return seconds


@pytest.mark.parametrize("num_hosts", [2, 4, 16])
def test_simulated_hosts_take_the_same_time(num_hosts):
    protocol, elements = SIMPLE.protocols[0], 1024
    num_bytes = 8 * elements * SIMPLE.gpus_per_host
    ring = Ring(SIMPLE.gpus_per_host, num_bytes, protocol.nvlink_latency, SIMPLE.nvlink).run()
    values = np.random.default_rng(0).normal(size=(num_hosts, elements))
    total = values.sum(0)
    remote = halving_and_doubling(values, protocol.network_latency, SIMPLE.network)
    np.testing.assert_allclose(values, np.tile(total, (num_hosts, 1)))
    seconds = all_reduce(num_bytes, num_hosts * SIMPLE.gpus_per_host, SIMPLE)
    assert seconds == pytest.approx(protocol.base + ring + remote)


def test_limits_of_an_all_reduce():
    assert all_reduce(1e9, 1) == 0.0
    assert all_reduce(1e9, 64, FREE) == 0.0
    # Without latency, 2 (n - 1) / n of the array passes each link.
    assert all_reduce(8e9, 8, NO_LATENCY) == pytest.approx(2 * 7 / 8 * 8e9 / 100e9)
    # With infinite bandwidth, the size does not matter.
    assert all_reduce(1, 64, NO_TRANSFER) == all_reduce(1e12, 64, NO_TRANSFER) > 0
    with pytest.raises(ValueError, match="12 GPUs"):
        all_reduce(1, 12)
    with pytest.raises(ValueError, match="24 GPUs"):
        all_reduce(1, 24)


def test_an_all_reduce_takes_longer_with_more_bytes_or_gpus_and_slower_links():
    def increases(times):
        return all(a < b for a, b in itertools.pairwise(times))

    assert increases([all_reduce(size, 64) for size in (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)])
    for size in (16, 1e9):
        assert increases([all_reduce(size, n) for n in (1, 2, 4, 8, 16, 64, 512)])
    for field in ("nvlink", "network"):
        slower = links.H100._replace(**{field: getattr(links.H100, field) / 2})
        assert all_reduce(1e8, 64, slower) > all_reduce(1e8, 64)


def test_small_arrays_use_ll_and_large_ones_simple():
    def with_protocol(name, size):
        return all_reduce(size, 64, links.H100._replace(protocols=(links.PROTOCOLS[name],)))

    assert all_reduce(4096, 64) == with_protocol("LL", 4096) < with_protocol("Simple", 4096)
    assert all_reduce(1e9, 64) == with_protocol("Simple", 1e9) < with_protocol("LL", 1e9)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_a_program_reduces_what_the_sizes_say(parallel):
    options = {"layers": (8, "B", "M", 16, "B", "M", "A")}
    eng = tiny.make_engine("vgg16", options, num_devices=8, parallel=parallel)
    reduces = hlo.all_reduces(eng._programs[0].as_text())
    num_params = (27 * 8 + 8) + 2 * 8 + (72 * 16 + 16) + 2 * 16 + (16 * 10 + 10)
    statistics, metrics = 2 * (8 + 16), 4
    assert sum(r.num_bytes for r in reduces) == 4 * (num_params + statistics + metrics)
    forward = sorted(r.num_bytes for r in reduces if r.is_forward)
    # One per BatchNorm layer under jit. Under pmap, one all-reduce has everything.
    assert forward == ([64, 128] if parallel == "jit" else [])
    assert len(reduces) == (5 if parallel == "jit" else 1)


@pytest.mark.parametrize("network", networks.NETWORKS)
def test_the_sizes_are_those_of_the_program_for_eight_gpus(network):
    records = [r for r in step_times.compiled() if r["network"] == network and r["num_gpus"] == 8]
    reduces, sizes = records[-1]["all_reduces"], networks.sizes(network)
    forward = [r["num_bytes"] for r in reduces if r["is_forward"]]
    assert sum(forward) == sizes.statistics_bytes
    assert len(forward) <= sizes.num_batch_norms
    total = sizes.gradient_bytes + sizes.statistics_bytes + predict._metrics_bytes()
    assert sum(r["num_bytes"] for r in reduces) == total
    # The float32 ones: the statistics, as many in the backward pass, one or two for the gradients
    # of biases and dense layers, and one for the metrics.
    num_float32 = sum(r["dtype"] == "f32" for r in reduces)
    assert 2 * len(forward) < num_float32 <= 2 * len(forward) + 3


@pytest.fixture
def times():
    """Made-up step times: a measured network and an unmeasured one."""
    measured = {("resnet18", 512): 0.008, ("resnet18", 16): 0.0012}
    bounds = {("resnet18", b): 0.0005 + 7e-6 * b for b in (512, 64, 16, 8, 1)}
    bounds |= {("vgg19", b): 0.0003 + 2e-6 * b for b in (512, 64, 8, 1)}
    return StepTimes(measured, bounds)


def test_step_times_name_their_source(times):
    assert times.at("resnet18", 512) == StepTime(0.008, "measured")
    bound = 0.0005 + 7e-6 * 64
    assert times.at("resnet18", 64) == StepTime(
        pytest.approx(bound * 0.0012 / (0.0005 + 7e-6 * 16)), "scaled"
    )
    factor = 0.008 / (0.0005 + 7e-6 * 512)
    assert times.at("vgg19", 512) == StepTime(
        pytest.approx(factor * (0.0003 + 2e-6 * 512)), "predicted"
    )
    with pytest.raises(KeyError):
        times.at("vgg19", 2)
    with pytest.raises(KeyError, match="both measured and compiled"):
        StepTimes({}, {("vgg19", 8): 1.0}).at("vgg19", 8)


def test_a_wider_network_does_not_take_the_measured_time_of_the_narrow_one(times):
    assert networks.config_of("resnet18, width 256") is None
    with pytest.raises(KeyError):  # its bound is needed
        times.at("resnet18, width 256", 512)


def predictor(times, links=links.H100):
    return predict.Predictor(times, {"resnet18": [512, 1024], "vgg19": []}, links)


def test_one_gpu_has_efficiency_one(times):
    for network, parallel in itertools.product(("resnet18", "vgg19"), ("jit", "pmap")):
        p = predictor(times)
        prediction = p.weak(network, 1, parallel)
        assert prediction.statistics == prediction.update == 0.0
        assert prediction.efficiency(p.base(network), overlap=False) == 1.0


def test_a_step_by_hand(times):
    prediction = predictor(times, SIMPLE).strong("resnet18", 8)
    sizes = networks.sizes("resnet18")
    assert prediction.batch_size == 64 and prediction.global_batch_size == 512
    compute = times.at("resnet18", 64).seconds
    # Two layers, forward and backward, of 1 us + 14 * (1 us + part / 100 GB/s).
    statistics = 4 * 15e-6 + 14 * 2 * (512 + 1024) / 8 / 100e9
    update = 2 * 15e-6 + 14 * (sizes.gradient_bytes + 16) / 8 / 100e9
    assert prediction.statistics == pytest.approx(statistics)
    assert prediction.update == pytest.approx(update)
    assert prediction.step(overlap=False) == pytest.approx(compute + statistics + update)
    hidden = min(update, 2 / 3 * compute)
    assert prediction.step(overlap=True) == pytest.approx(compute + statistics + update - hidden)
    images = 512 / (compute + statistics + update)
    assert prediction.images_per_second(overlap=False) == pytest.approx(images)
    expected = images / 8 / (512 / 0.008)
    assert prediction.efficiency(StepTime(0.008, ""), overlap=False) == pytest.approx(expected)


def test_under_pmap_there_are_no_statistics_but_larger_gradients(times):
    jit, pmap = (predictor(times).weak("resnet18", 64, parallel) for parallel in ("jit", "pmap"))
    assert jit.statistics > pmap.statistics == 0.0
    assert pmap.update > jit.update > 0.0


def test_limits_of_a_prediction(times):
    p = predictor(times, FREE)
    base = p.base("resnet18")
    assert p.weak("resnet18", 512).efficiency(base, overlap=False) == pytest.approx(1.0)
    strong = p.strong("resnet18", 512)
    ideal = base.seconds / (512 * times.at("resnet18", 1).seconds)
    assert strong.efficiency(base, overlap=False) == pytest.approx(ideal)
    assert predictor(times).strong("resnet18", 512).efficiency(base, False) < ideal


def test_the_efficiency_falls_with_the_number_of_gpus(times):
    p = predictor(times)
    for network, scaled, parallel, overlap in itertools.product(
        ("resnet18", "vgg19"), (p.weak, p.strong), ("jit", "pmap"), (False, True)
    ):
        base = p.base(network)
        efficiencies = [
            scaled(network, n, parallel).efficiency(base, overlap) for n in predict.NUM_GPUS
        ]
        assert efficiencies == sorted(efficiencies, reverse=True)
        assert all(0 < e <= 1 for e in efficiencies)


def test_overlap_hides_at_most_the_backward_pass():
    prediction = predict.Prediction("resnet18", 8, 64, 0.003, "measured", 0.001, 0.01)
    assert prediction.step(overlap=False) == pytest.approx(0.014)
    assert prediction.step(overlap=True) == pytest.approx(0.014 - 0.002)


def test_steps_per_epoch_and_images_needed():
    prediction = predict.Prediction("resnet18", 512, 512, 0.006, "measured", 0.0, 0.0)
    assert prediction.global_batch_size == 262_144
    assert prediction.steps_per_epoch == pytest.approx(50_000 / 262_144)
    assert predict.images_needed(predict.CRITICAL_BATCH_SIZE) == 2
    # The steps, images / B, still fall with the batch size, but to no less than a limit.
    steps = [predict.images_needed(b) / b for b in (1, 100, 10_000, 10**9)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == pytest.approx(1 / predict.CRITICAL_BATCH_SIZE, rel=1e-5)


def test_every_network_has_its_programs():
    logged = {(r["network"], r["num_gpus"], r["batch_size"]) for r in step_times.compiled()}
    for network in networks.NETWORKS:
        assert {(network, 1, b) for b in compiled.BATCH_SIZES} <= logged
        assert (network, 8, 8 * compiled.BATCH_SIZES[1]) in logged


def test_the_summary_of_the_page_follows_from_the_logs():
    p, page = predict.predictor(), (tiny.ROOT / "docs/scaling.md").read_text()
    speeds = {
        network: {n: p.strong(network, n).images_per_second(False) for n in predict.NUM_GPUS}
        for network in networks.NETWORKS
    }
    gains = [network for network, speed in speeds.items() if speed[64] > speed[8]]
    assert gains == ["resnet18, width 256"]
    fastest = {network: max(speed, key=speed.get) for network, speed in speeds.items()}
    assert (fastest["resnet18"], fastest["resnet50"]) == (8, 1)
    strong = p.strong("resnet18", 64)
    assert strong.statistics > strong.compute
    (bound,) = (
        r["min_step_ms"]
        for r in step_times.compiled()
        if (r["network"], r["num_gpus"], r["batch_size"]) == ("resnet18", 1, 512)
    )
    assert f"factor of `resnet18`: {1e3 * p.base('resnet18').seconds / bound:.2f}." in page
    assert p.weak("resnet18", 512).steps_per_epoch < 1 / 2


def test_the_command_prints_the_prediction(monkeypatch, capsys):
    monkeypatch.setenv("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # restores it afterwards
    assert main(["scaling"]) == 0
    printed = capsys.readouterr().out
    for make in (tables.weak, tables.strong, tables.limits):
        assert make() in printed


def test_the_command_refuses_an_unknown_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    assert main(["scaling", "--compile", "resnet81", "--out", str(tmp_path / "out.jsonl")]) == 1
    assert "did you mean 'resnet18'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
