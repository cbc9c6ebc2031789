// A stand-in for NVIDIA's driver: the functions that jittor_setup/ask_driver.py calls.
#include <cstring>

extern "C" int cuInit(unsigned) { return INIT; }

extern "C" int cuDriverGetVersion(int* version) {
    *version = VERSION;
    return 0;
}

extern "C" int cuDeviceGetCount(int* count) {
    *count = COUNT;
    return 0;
}

extern "C" int cuDeviceGet(int* device, int index) {
    *device = index;
    return 0;
}

extern "C" int cuDeviceGetName(char* text, int, int) {
    std::strcpy(text, "Stand-in");
    return 0;
}

extern "C" int cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? CAPABILITY / 10 : CAPABILITY % 10;
    return 0;
}
