// One source of Jittor uses std::array without including it, as older headers did.
#ifdef __cplusplus
#include <array>

// CUDA 13 has removed two members of cudaDeviceProp. A header of Jittor reads them to rank
// the devices, for which any other integers serve.
#if CUDART_VERSION >= 13000
#define clockRate multiProcessorCount
#define computeMode integrated
#endif
#endif
