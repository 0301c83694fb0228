// All kernels as one translation unit: a fatbin holds one.
#include "candidates.cu"
#include "letterbox.cu"
#include "nms.cu"
#include "suppress.cu"
#include "suppress_block.cu"
