#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

namespace ofcv {

/// The loaded graph of an artifact, whatever its format: inputs to outputs, in order.
using Graph = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

}  // namespace ofcv
