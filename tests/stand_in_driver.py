"""Compiles a stand-in for NVIDIA's driver, for tests on machines without a GPU."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("stand_in_driver.cc")


def compile_driver(path, version=12020, count=1, init=0, capability=86):
    """Compiles a shared library.

    Args:
        path: Where it is written.
        version: The CUDA version that it supports; 12020 is 12.2.
        count: How many devices it has.
        init: What cuInit returns; 0 is success.
        capability: The compute capability of each device, times 10.
    """
    values = {"VERSION": version, "COUNT": count, "INIT": init, "CAPABILITY": capability}
    defines = [f"-D{name}={value}" for name, value in values.items()]
    command = ["g++", "-shared", "-fPIC", *defines, str(SOURCE), "-o", str(path)]
    subprocess.run(command, check=True)
