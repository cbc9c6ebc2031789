"""The README's first line, word for word, in bare Debian systems: minutes for each.

    python -m pytest -m slow -n 0 tests/jittor_setup/test_systems.py

A system is made by debootstrap, which needs root, a network and 2 GB below /var/tmp. It
is removed afterwards. docs/systems.md has what came out.
"""

import csv
import math
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import PIL.Image
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "home/user/project"  # in a system
IGNORED = shutil.ignore_patterns(".git", ".venv", "results", "__pycache__", ".*_cache")
# The suite of Debian, its Python, its g++, and what is compiled with other compilers.
SYSTEMS = {
    "bullseye": ("3.9", "10", []),
    "bookworm": ("3.11", "12", ["g++-11"]),
    "trixie": ("3.13", "14", ["g++-13"]),
    "sid": (None, None, ["g++-15"]),  # it changes from month to month
}
# Mounts of /proc and /dev that only the command sees, and that end with it.
ENTER = """
mount --make-rprivate /
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
exec chroot "$0" bash -c "cd /home/user/project && $1"
"""


def mirror():
    """The mirror of Debian that this machine uses, or the usual one."""
    for file in [*Path("/etc/apt/sources.list.d").glob("*"), Path("/etc/apt/sources.list")]:
        if file.is_file():
            found = re.search(r"https?://\S+/debian(?=/?\s)", file.read_text(errors="replace"))
            if found:
                return found[0]
    return "http://deb.debian.org/debian"


def missing():
    """What this machine lacks, or None."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root can make a system and change into it"
    for program in ("debootstrap", "unshare", "chroot"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        urllib.request.urlopen(f"{mirror()}/dists/sid/Release", timeout=20).close()
    except OSError as error:
        return f"Debian's mirror does not answer ({error})"
    return None


def readme(pattern):
    return re.search(pattern, (ROOT / "README.md").read_text(encoding="utf-8"))[1]


class System:
    """A bare Debian with this project and what the README has installed."""

    def __init__(self, suite, folder):
        self.root = Path(folder)
        packages = "--include=python3,ca-certificates"
        self.call("debootstrap", "--variant=minbase", packages, suite, self.root, mirror())
        for file in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt"):
            if Path(file).is_file():
                shutil.copy(file, self.root / file[1:])
        shutil.copytree(ROOT, self.root / PROJECT, ignore=IGNORED)
        # A mirror may be weeks behind, past the date until which its lists count.
        self.run("apt-get -o Acquire::Check-Valid-Until=false update")
        self.run(readme(r"`sudo (apt install [^`]+)`") + " -y")

    def call(self, *command, **options):
        done = subprocess.run(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            **options,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    def run(self, command, **variables):
        """Runs a command as a new user of this system; returns what it prints."""
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/home/user",
            "LANG": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        for name in ("http_proxy", "https_proxy", "no_proxy", "PIP_CERT", "PIP_INDEX_URL"):
            if name in os.environ:
                environment[name] = os.environ[name]
        environment.update(variables)
        command = ["unshare", "--mount", "bash", "-ec", ENTER, self.root, command]
        return self.call(*command, env=environment)

    def train(self, command, out_dir, **variables):
        """Runs a training of three epochs, and checks its losses and its picture."""
        self.run(f"{command} --n_epochs 3 --out_dir {out_dir} --overwrite", **variables)
        folder = self.root / PROJECT / out_dir
        with open(folder / "losses.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows
        assert all(math.isfinite(float(row["loss_D"])) for row in rows)
        with PIL.Image.open(folder / "result.png") as picture:
            low, high = picture.convert("L").getextrema()
        assert low < 64
        assert high > 192


@pytest.mark.slow
@pytest.mark.parametrize("suite", SYSTEMS)
def test_the_first_line_of_the_readme(suite):
    reason = missing()
    if reason:
        pytest.skip(reason)
    python, gxx, others = SYSTEMS[suite]
    folder = tempfile.mkdtemp(dir="/var/tmp", prefix=f"{suite}-")
    try:
        system = System(suite, folder)
        if python:
            assert system.run("python3 --version").startswith(f"Python {python}.")
            assert system.run("g++ -dumpversion").strip() == gxx
        system.train(readme(r"(python3 -m venv .* cgan_mnist\.py --number \d+)"), "results/first")
        for compiler in others:
            system.run(f"apt-get install -y {compiler}")
            system.train(". .venv/bin/activate && python gan.py", "results/gan", cc_path=compiler)
        # It ends with 0 if everything is there, and says which mends apply.
        system.run(". .venv/bin/activate && python tools/doctor.py")
    finally:
        shutil.rmtree(folder)
