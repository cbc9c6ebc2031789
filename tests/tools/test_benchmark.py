"""tools/benchmark.py: what is run in which order, what is said of the fastest peer, and one real timing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from registry import ROOT, ROWS, load

from jittor_fast import ways as known
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
    """Two peers, of 30 and 20 ms, and a script of 10 ms, which note in a file when they run."""
    log = tmp_path / "log"
    for name, ms in (("slow.py", 30), ("fast.py", 20)):
        (tmp_path / name).write_text(PEER.format(log=str(log), name=name, ms=ms))

    def ours(name, flags, n_steps, *more):
        with open(log, "a") as file:
            print("ours", name, n_steps, *more, file=file)
        return OURS

    monkeypatch.setattr(benchmark, "ours", ours)
    return tmp_path


def test_every_timing_is_a_process_of_its_own_in_turn(peers):
    argv = [
        "dcgan",
        "--peer",
        str(peers / "slow.py"),
        "--peer",
        str(peers / "fast.py"),
        "--rounds",
        "2",
    ]
    args = benchmark.parse_args([*argv, "--steps", "7"])
    (row,) = benchmark.compare(args.scripts, args)
    turn = ["ours dcgan 7", "slow.py dcgan --steps 7 --json", "fast.py dcgan --steps 7 --json"]
    assert (peers / "log").read_text().splitlines() == turn * 2
    assert (row["script"], row["ms"], row["images_per_s"]) == ("dcgan", 10, 64 / 10 * 1000)
    assert (row["peer"], row["peer_ms"], row["ratio"]) == (str(peers / "fast.py"), 20, 2)


def test_a_peer_has_its_environment(peers):
    assert benchmark.peer_ms(f"FACTOR=0.5 {peers / 'slow.py'}", "vae", [], 1) == 15


def test_the_twins_are_peers(peers):
    args = benchmark.parse_args(
        ["began", "--peer", "plain", "--peer", "tuned", "--rounds", "1", "--steps", "7"]
    )
    (row,) = benchmark.compare(args.scripts, args)
    assert (peers / "log").read_text().splitlines() == [
        f"ours began 7{twin}" for twin in ("", " --twin plain", " --twin tuned")
    ]
    assert row["ratio"] == 1


def test_the_ways_are_listed(monkeypatch):
    monkeypatch.setattr(known, "known", lambda: {"w 8 3 64 64 16 3 4 4 32 32 2 1": "columns"})
    row = {
        "operation": "gradient of the weights",
        "input": "8 x 3 x 64 x 64",
        "weights": "16 x 3 x 4 x 4",
    }
    assert list(benchmark.ways()) == [row | {"stride": "2", "padding": "1", "way": "columns"}]


def test_growth_makes_the_images_that_it_says(tmp_path):
    benchmark.link_images(tmp_path, 1_020)
    files = sorted(tmp_path.rglob("*.png"))
    assert len(files) == 1_020 and all(file.read_bytes()[1:4] == b"PNG" for file in files)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"0", "1"}


def test_growth_varies_one_thing_at_a_time(monkeypatch, capsys, tmp_path):
    """Of a machine with four threads, whose folders are not made; beside the table there is a plot."""
    monkeypatch.setattr(benchmark, "n_cores", lambda: 4)
    monkeypatch.setattr(benchmark, "link_images", lambda folder, n: None)
    calls = []

    def ours(script, flags, n_steps, env=None):
        calls.append((script, flags, env))
        return OURS

    monkeypatch.setattr(benchmark, "ours", ours)
    benchmark.main(["--growth", "--out", str(tmp_path / "growth.json")])
    rows = json.loads((tmp_path / "growth.json").read_text())["rows"]
    by_kind = {}
    for row in rows:
        by_kind.setdefault((row["script"], row["varies"]), []).append(row["value"])
    assert by_kind == {
        ("cyclegan", "pixels of an image"): [1024, 4096, 16384, 65536, 262144],
        ("dcgan", "images in a batch"): [1, 4, 16, 64],
        ("dcgan", "threads"): [1, 2, 4],
        ("dcgan", "images in the folder"): [1000, 10_000, 100_000, 1_000_000],
    }
    assert [env["OMP_NUM_THREADS"] for _, _, env in calls if env] == ["1", "2", "4"]
    assert calls[2][1][:2] == ["--img_size", "128"] and calls[6][1] == ["--batch_size", "4"]
    assert Image.open(tmp_path / "growth.png").width == 840  # four columns


def test_the_ratio_is_the_median_of_the_rounds():
    """The fastest by its median, though another had the fastest round; 12/10, 40/20 and 12/8 are its ratios."""
    mine, theirs = [10, 20, 8], {"a": [12, 40, 12], "b": [13, 13, 1]}
    row = benchmark.beside_the_fastest(mine, theirs)
    assert row == {"peer": "a", "peer_ms": 12, "ratio": 1.5, "lowest": 1.2, "highest": 2}
    assert benchmark.beside_the_fastest(mine, {}) == {}


def test_the_table_names_the_processor(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(benchmark, "ours", lambda *args: OURS)
    benchmark.main(["dcgan", "--defaults", "--rounds", "1", "--out", str(tmp_path / "rows.json")])
    out = capsys.readouterr().out
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = {
        line.split(":", 1)[1].strip()
        for line in cpuinfo.splitlines()
        if line.startswith("model name")
    }
    assert not names or out.split(",")[0] in names
    assert out.splitlines()[2].startswith("| script | flags | ms |")
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written["machine"] == out.splitlines()[0]
    assert written["rows"][0]["ms"] == 10


@pytest.mark.parametrize("name", list(benchmark.PEER_SIZES))
def test_the_peers_sizes_are_flags_of_the_script(name):
    load(name).parse_args(benchmark.PEER_SIZES[name].split())


@pytest.mark.parametrize(
    "argv", [["gan_of_tomorrow"], ["wgan", "--peer", "x.py"], ["--defaults", "--peer", "x.py"]]
)
def test_what_cannot_be_timed(argv, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_args(argv)
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["dcgan"])
def test_a_real_timing_of_a_twin(name, tiny):
    pytest.importorskip("torch", reason="PyTorch is what is timed")
    flags = json.dumps([str(flag) for flag in [*ROWS[name].flags, "--data_dir", tiny.data]])
    command = [
        sys.executable,
        ROOT / "tools/benchmark.py",
        "--child",
        name,
        "--steps",
        "2",
        "--flags",
        flags,
    ]
    done = subprocess.run([*command, "--twin", "tuned"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout.splitlines()[-1])["ms_per_step"] < 60_000


@pytest.mark.parametrize("name", ["dcgan"])
def test_a_real_timing(name, tiny):
    flags = json.dumps([str(flag) for flag in [*ROWS[name].flags, "--data_dir", tiny.data]])
    command = [
        sys.executable,
        ROOT / "tools/benchmark.py",
        "--child",
        name,
        "--steps",
        "3",
        "--flags",
        flags,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.keys() == OURS.keys()
    assert 0 < result["ms_per_step"] < 60_000
    assert 0 < result["of_peak"] < 1.5 and 0 <= result["fetching"] < 1
