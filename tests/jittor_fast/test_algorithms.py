"""Which algorithm a convolution takes: the likely one, or the fastest."""

import json

import jittor as jt
import numpy as np
import pytest

from jittor_fast import algorithms, convolution

# The line of an operation in the file: result, x, w, size of y, stride, padding.
KEY = "y 1 8 6 6 8 8 3 3 6 6 1 1"


def shapes_of(inputs, outputs, size, k=3, stride=1, images=1):
    """Those of a convolution that keeps the size, or divides it by the stride."""
    x = (images, inputs, size, size)
    y = (images, outputs, size // stride, size // stride)
    return convolution.Shapes(x, (outputs, inputs, k, k), y, stride, (k - stride + 1) // 2)


class Clock:
    """Algorithms that take given times, by a clock that only they advance."""

    def __init__(self, monkeypatch, **seconds):
        self.now = 0.0
        self.runs = dict.fromkeys(seconds, 0)
        self.functions = {name: self.function(name, s) for name, s in seconds.items()}
        monkeypatch.setattr(algorithms.time, "perf_counter", lambda: self.now)

    def function(self, name, duration):
        def run(shapes, result, first, second):
            self.now += duration
            self.runs[name] += 1
            return first

        return run


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A new file for what is kept, and small operations that are worth timing."""
    monkeypatch.setattr(algorithms, "path", lambda: tmp_path / "kept.json")
    monkeypatch.setattr(algorithms, "WORTH_TIMING", 100)
    algorithms.known.cache_clear()
    yield tmp_path / "kept.json"
    algorithms.known.cache_clear()


# ---- the likely algorithm ----


def test_the_likely_algorithm():
    assert shapes_of(3, 64, 128, 4, 2).likely() == "columns"  # an image comes in
    assert shapes_of(64, 3, 128, 7).likely() == "columns"  # an image comes out
    assert shapes_of(256, 256, 32).likely() == "winograd4"
    # 18 tiles of 4 x 4, 72 of 2 x 2
    assert shapes_of(512, 512, 12, images=2).likely() == "winograd2"
    assert shapes_of(256, 512, 32, 4).likely() == "winograd2"
    assert shapes_of(1024, 1024, 4).likely() == "direct"  # 4 tiles
    assert shapes_of(64, 64, 16).likely() == "direct"  # too small to matter
    covered = convolution.Shapes((2, 8, 4, 4), (9, 8, 4, 4), (2, 9, 1, 1), 1, 0)
    assert covered.likely() == "product"


def test_small_operations_are_not_timed(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, direct=0.010, columns=0.001, winograd2=0.007, winograd4=0.008)
    assert algorithms.fastest(shapes_of(8, 8, 6), "y", clock.functions) == "direct"
    assert sum(clock.runs.values()) == 0


# ---- timing ----


def test_the_fastest_is_taken_and_kept(fresh, monkeypatch):
    shapes = shapes_of(8, 8, 6)
    clock = Clock(monkeypatch, direct=0.010, columns=0.030, winograd2=0.007, winograd4=0.008)
    assert algorithms.fastest(shapes, "y", clock.functions) == "winograd2"
    assert clock.runs["columns"] == 3  # once untimed; after two rounds it is left out
    assert clock.runs["winograd2"] == 1 + algorithms.N_ROUNDS
    assert json.loads(fresh.read_text()) == {KEY: "winograd2"}

    algorithms.known.cache_clear()  # as in another run
    slow = Clock(monkeypatch, direct=0.001, columns=0.030, winograd2=0.007, winograd4=0.008)
    assert algorithms.fastest(shapes, "y", slow.functions) == "winograd2"
    assert sum(slow.runs.values()) == 0
    assert algorithms.fastest(shapes, "x", slow.functions) == "direct"


def test_a_small_lead_over_the_likely_algorithm_does_not_count(fresh, monkeypatch):
    clock = Clock(monkeypatch, direct=0.0100, columns=0.0095, winograd2=0.02, winograd4=0.02)
    assert shapes_of(8, 8, 6).likely() == "direct"
    assert algorithms.fastest(shapes_of(8, 8, 6), "w", clock.functions) == "direct"


def test_one_disturbed_round_does_not_exclude_an_algorithm(fresh, monkeypatch):
    clock = Clock(monkeypatch, direct=0.010, columns=0.030, winograd2=0.020, winograd4=0.020)
    undisturbed = clock.functions["winograd2"]
    calls = []

    def disturbed(*args):
        """Takes half a second in its first timed call, and 5 ms in the others."""
        calls.append(None)
        clock.now += 0.5 if len(calls) == 2 else -0.015
        return undisturbed(*args)

    functions = {**clock.functions, "winograd2": disturbed}
    assert algorithms.fastest(shapes_of(8, 8, 6), "y", functions) == "winograd2"


def test_timing_leaves_the_unfinished_graph_alone(fresh):
    no_memory_yet = ",0)["
    pending = jt.array(np.ones((3, 3), np.float32)) * 2
    algorithms.timed(shapes_of(8, 8, 6), "y", convolution.ALGORITHMS)
    assert no_memory_yet in pending.debug_msg()
    assert pending.numpy().tolist() == [[2, 2, 2]] * 3
    assert no_memory_yet not in pending.debug_msg()


# ---- what is kept ----


def test_other_kernels_are_timed_again(tmp_path, monkeypatch):
    kept = algorithms.path()
    assert algorithms.version() in kept.name
    for name in algorithms.FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("other")
    monkeypatch.setattr(algorithms, "__file__", str(tmp_path / "algorithms.py"))
    algorithms.version.cache_clear()
    other = algorithms.path()
    algorithms.version.cache_clear()
    assert other != kept
    assert other.parent == kept.parent


def test_what_another_run_kept_first_holds(fresh, monkeypatch):
    assert algorithms.known() == {}
    fresh.write_text(json.dumps({KEY: "columns"}))  # by a run that began later
    clock = Clock(monkeypatch, direct=0.010, columns=0.030, winograd2=0.007, winograd4=0.008)
    assert algorithms.fastest(shapes_of(8, 8, 6), "y", clock.functions) == "columns"


@pytest.mark.parametrize("text", ["", "{", "[1]", json.dumps({KEY: "nonsense"})])
def test_a_damaged_file_is_timed_again(text, fresh, monkeypatch):
    fresh.write_text(text)
    clock = Clock(monkeypatch, direct=0.010, columns=0.030, winograd2=0.007, winograd4=0.008)
    assert algorithms.fastest(shapes_of(8, 8, 6), "y", clock.functions) == "winograd2"


def test_a_folder_that_cannot_be_written_is_no_error(fresh, monkeypatch):
    monkeypatch.setattr(algorithms, "path", lambda: fresh.parent / "absent" / "kept.json")
    clock = Clock(monkeypatch, direct=0.010, columns=0.001, winograd2=0.007, winograd4=0.008)
    assert algorithms.fastest(shapes_of(8, 8, 6), "y", clock.functions) == "columns"
