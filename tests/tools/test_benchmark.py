"""tools/benchmark.py: the order of its timings, its columns, and one real timing."""

import json
import subprocess
import sys
from pathlib import Path

import jittor as jt
import pytest
from jittor import nn
from PIL import Image
from registry import ROOT, ROWS, load

import jittor_fast
from jittor_fast import algorithms
from tools import benchmark

PEER = """
import json, os, sys
with open({log!r}, "a") as file:
    print({name!r}, *sys.argv[1:], file=file)
print("a line before")
print(json.dumps({{"ms_per_step": {ms} * float(os.environ.get("FACTOR", 1))}}))
"""
OURS = {
    "ms_per_step": 10.0,
    "of_peak": 0.5,
    "fetching": 0.0,
    "first_step_s": 1.0,
    "memory_mb": 100.0,
}


@pytest.fixture
def peers(tmp_path, monkeypatch):
    """Peers that take 30 and 20 ms, and a script that takes 10 ms.

    They note in a file `log` when they run.
    """
    log = tmp_path / "log"
    for name, ms in (("slow.py", 30), ("fast.py", 20)):
        (tmp_path / name).write_text(PEER.format(log=str(log), name=name, ms=ms))

    def ours(name, flags, n_steps, *more):
        with open(log, "a") as file:
            print("ours", name, n_steps, *more, file=file)
        return OURS

    monkeypatch.setattr(benchmark, "ours", ours)
    return tmp_path


def test_every_timing_is_a_process_and_they_take_turns(peers):
    slow = str(peers / "slow.py")
    fast = str(peers / "fast.py")
    argv = ["dcgan", "--peer", slow, "--peer", fast, "--rounds", "2", "--steps", "7"]
    args = benchmark.parse_args(argv)
    (row,) = benchmark.compare(args.scripts, args)
    turn = ["ours dcgan 7", "slow.py dcgan --steps 7 --json", "fast.py dcgan --steps 7 --json"]
    assert (peers / "log").read_text().splitlines() == turn * 2
    assert row["script"] == "dcgan"
    assert row["ms"] == 10
    assert row["images_per_s"] == 64 / 10 * 1000
    assert row["peer"] == fast
    assert row["peer_ms"] == 20
    assert row["ratio"] == 2


def test_a_peer_has_its_environment(peers):
    assert benchmark.peer_ms(f"FACTOR=0.5 {peers / 'slow.py'}", "vae", [], 1) == 15


def test_the_twins_are_peers(peers):
    argv = ["began", "--peer", "plain", "--peer", "tuned", "--rounds", "1", "--steps", "7"]
    args = benchmark.parse_args(argv)
    (row,) = benchmark.compare(args.scripts, args)
    assert (peers / "log").read_text().splitlines() == [
        "ours began 7",
        "ours began 7 --twin plain",
        "ours began 7 --twin tuned",
    ]
    assert row["ratio"] == 1


def test_the_algorithms_are_listed(monkeypatch):
    known = {"w 8 3 64 64 16 3 4 4 32 32 2 1": "columns"}
    monkeypatch.setattr(algorithms, "known", lambda: known)
    assert list(benchmark.algorithms()) == [
        {
            "operation": "gradient of the weights",
            "input": "8 x 3 x 64 x 64",
            "weights": "16 x 3 x 4 x 4",
            "stride": "2",
            "padding": "1",
            "algorithm": "columns",
        }
    ]


# ---- how times grow ----


def test_growth_makes_as_many_images_as_it_says(tmp_path):
    benchmark.link_images(tmp_path, 1_020)
    files = sorted(tmp_path.rglob("*.png"))
    assert len(files) == 1_020
    assert all(file.read_bytes()[1:4] == b"PNG" for file in files)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"0", "1"}


def test_growth_varies_one_thing_at_a_time(monkeypatch, capsys, tmp_path):
    """On a machine with four threads; there is a plot beside the table."""
    monkeypatch.setattr(benchmark, "n_cores", lambda: 4)
    monkeypatch.setattr(benchmark, "link_images", lambda folder, n: None)
    calls = []

    def ours(script, flags, n_steps, env=None):
        calls.append((flags, env))
        return OURS

    monkeypatch.setattr(benchmark, "ours", ours)
    benchmark.main(["--growth", "--out", str(tmp_path / "growth.json")])
    rows = json.loads((tmp_path / "growth.json").read_text())["rows"]
    values = {}
    for row in rows:
        values.setdefault((row["script"], row["varies"]), []).append(row["value"])
    assert values == {
        ("cyclegan", "pixels of an image"): [1024, 4096, 16384, 65536, 262144],
        ("dcgan", "images in a batch"): [1, 4, 16, 64],
        ("dcgan", "threads"): [1, 2, 4],
        ("dcgan", "images in the folder"): [1000, 10_000, 100_000, 1_000_000],
    }
    assert [env["OMP_NUM_THREADS"] for _, env in calls if env] == ["1", "2", "4"]
    assert calls[2][0][:2] == ["--img_size", "128"]
    assert calls[6][0] == ["--batch_size", "4"]
    assert Image.open(tmp_path / "growth.png").width == 840  # four columns


# ---- the table ----


def test_the_ratio_is_the_median_of_the_rounds():
    """Peer a is faster by its median, though b had the fastest round.

    The ratios to a are 12/10, 40/20 and 12/8.
    """
    mine = [10, 20, 8]
    theirs = {"a": [12, 40, 12], "b": [13, 13, 1]}
    assert benchmark.columns_of_the_fastest(mine, theirs) == {
        "peer": "a",
        "peer_ms": 12,
        "ratio": 1.5,
        "lowest": 1.2,
        "highest": 2,
    }
    assert benchmark.columns_of_the_fastest(mine, {}) == {}


def test_the_table_names_the_processor(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(benchmark, "ours", lambda *args: OURS)
    benchmark.main(["dcgan", "--defaults", "--rounds", "1", "--out", str(tmp_path / "rows.json")])
    out = capsys.readouterr().out
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    if names:
        assert out.split(",")[0] in names
    assert out.splitlines()[2].startswith("| script | flags | ms |")
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written["machine"] == out.splitlines()[0]
    assert written["rows"][0]["ms"] == 10


# ---- what can be timed ----


@pytest.mark.parametrize("name", list(benchmark.PEER_SIZES))
def test_the_sizes_beside_peers_are_flags_of_the_script(name):
    load(name).parse_args(benchmark.PEER_SIZES[name].split())


@pytest.mark.parametrize("name", list(benchmark.WITHOUT_FIRST_PHASES))
def test_the_flags_without_first_phases_are_flags_of_the_script(name):
    load(name).parse_args(benchmark.WITHOUT_FIRST_PHASES[name].split())


@pytest.mark.parametrize(
    "argv", [["gan_of_tomorrow"], ["wgan", "--peer", "x.py"], ["--defaults", "--peer", "x.py"]]
)
def test_what_cannot_be_timed_is_an_error(argv, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_args(argv)
    assert "error:" in capsys.readouterr().err


# ---- real timings ----


def timed(name, tiny, *more):
    """What the process of one timing prints, as a dict."""
    flags = [str(flag) for flag in [*ROWS[name].flags, "--data_dir", tiny.data]]
    command = [sys.executable, ROOT / "tools" / "benchmark.py", "--child", name]
    command += ["--steps", "3", "--flags", json.dumps(flags), *more]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["dcgan"])
def test_a_real_timing(name, tiny):
    result = timed(name, tiny)
    assert result.keys() == OURS.keys()
    assert 0 < result["ms_per_step"] < 60_000
    assert 0 < result["of_peak"] < 1.5
    assert 0 <= result["fetching"] < 1


@pytest.mark.parametrize("name", ["dcgan"])
def test_a_real_timing_of_a_twin(name, tiny):
    pytest.importorskip("torch", reason="PyTorch is what is timed")
    result = timed(name, tiny, "--twin", "tuned")
    assert 0 < result["ms_per_step"] < 60_000


def test_layers_and_functions_are_counted(monkeypatch):
    """A multiplication and an addition for each weight and place, three times."""
    for layer in (nn.Conv, nn.Linear, nn.ConvTranspose):  # what is replaced comes back
        monkeypatch.setattr(layer, "execute", layer.execute)
    for layer in (jittor_fast.nn.Conv, jittor_fast.nn.ConvTranspose):
        monkeypatch.setattr(layer, "execute", layer.execute)
    for name in ("conv2d", "linear", "conv_transpose"):
        monkeypatch.setattr(jittor_fast.nn, name, getattr(jittor_fast.nn, name))
    operations = benchmark.Operations()

    def counted(compute):
        before = operations.count
        compute()
        return operations.count - before

    x = jt.zeros((2, 3, 8, 8))
    conv = 6 * 2 * 5 * 3 * 9  # for each output pixel: batch, outputs, inputs, filter
    assert counted(lambda: jittor_fast.nn.Conv(3, 5, 3, padding=1)(x)) == conv * 8 * 8
    weight = jt.zeros((5, 3, 3, 3))
    assert counted(lambda: jittor_fast.nn.conv2d(x, weight, stride=2)) == conv * 3 * 3
    weight = jt.zeros((3, 5, 3, 3))
    assert counted(lambda: jittor_fast.nn.conv_transpose(x, weight, stride=2)) == conv * 8 * 8
    assert counted(lambda: jittor_fast.nn.Linear(4, 7)(jt.zeros((2, 4)))) == 6 * 2 * 4 * 7
    assert (
        counted(lambda: jittor_fast.nn.linear(jt.zeros((2, 4)), jt.zeros((7, 4)))) == 6 * 2 * 4 * 7
    )
