"""Prints what NVIDIA's driver knows: `python ask_driver.py libcuda.so.1`.

The output is one line of JSON: [major, minor, [[name, capability], ...]], with the
newest CUDA version that the driver supports, and for each device its name and its
compute capability times 10 (0 if the driver does not say).

find_cuda.py runs it as a separate process, because the devices that a process sees are
fixed when it first calls cuInit, and CUDA_VISIBLE_DEVICES may change after that.
"""

import ctypes
import json
import sys

# From the enumeration CUdevice_attribute of CUDA's driver API.
COMPUTE_CAPABILITY_MAJOR = 75
COMPUTE_CAPABILITY_MINOR = 76


def integer(function, *arguments):
    """The integer that a function of the driver writes to its first argument, or 0."""
    result = ctypes.c_int(0)
    error = function(ctypes.byref(result), *arguments)
    return 0 if error else result.value


def describe(driver, index):
    """[name, capability] of one device."""
    device = integer(driver.cuDeviceGet, index)
    text = ctypes.create_string_buffer(200)
    try:
        driver.cuDeviceGetName(text, 200, device)
        major = integer(driver.cuDeviceGetAttribute, COMPUTE_CAPABILITY_MAJOR, device)
        minor = integer(driver.cuDeviceGetAttribute, COMPUTE_CAPABILITY_MINOR, device)
    except AttributeError:  # a library without these functions
        return [text.value.decode() or "GPU", 0]
    return [text.value.decode() or "GPU", 10 * major + minor]


def main():
    driver = ctypes.CDLL(sys.argv[1])
    if driver.cuInit(0) != 0:
        raise SystemExit(1)
    version = integer(driver.cuDriverGetVersion)  # 12020 is CUDA 12.2
    devices = []
    for index in range(integer(driver.cuDeviceGetCount)):
        devices.append(describe(driver, index))
    print(json.dumps([version // 1000, version % 1000 // 10, devices]))


if __name__ == "__main__":
    main()
