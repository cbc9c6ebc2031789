#define JIT 1
#define JIT_cpu 1
#include <assert.h>
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>
#include <omp.h>
#include "var.h"
#include "fused_op.h"
#include "executor.h"
#include "misc/cpu_math.h"
#include "misc/cuda_flags.h"
#include "ops/array_op.h"
#include "ops/binary_op.h"
#include "ops/broadcast_to_op.h"
#include "ops/code_op.h"
#include "ops/getitem_op.h"
#include "ops/index_op.h"
#include "ops/op_register.h"
#include "ops/reduce_op.h"
#include "ops/reindex_op.h"
#include "ops/reindex_reduce_op.h"
#include "ops/setitem_op.h"
#include "ops/ternary_op.h"
#include "ops/unary_op.h"
