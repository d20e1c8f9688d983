#pragma once

/// Records calls of a model as one CUDA graph. Unlike all other headers this one needs CUDA's, and
/// the libraries torch_cuda, c10_cuda and cudart:
///
///     #include <ofcv/cuda_graph.hpp>
///
///     const ofcv::Model model("cv.pt", "cuda");
///     ofcv::CudaGraph graph(model, {positions});  // once, with a tensor on the device
///
///     // at every step: write to graph.inputs()[0].mutable_data_ptr<float>(), on the device
///     graph.replay();
///     // read graph.outputs()[0].const_data_ptr<float>(), on the device

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>
#include <vector>

#include "ofcv/error.hpp"
#include "ofcv/model.hpp"

namespace ofcv {

/// A call of a model with inputs of certain shapes, recorded once, so that a step costs one launch
/// instead of one for each kernel. All replays work on the same memory: one at a time.
class CudaGraph {
 public:
  /// Records a call of `model`, which is on CUDA, with `inputs`, as Model::operator() takes them.
  /// They are checked and copied. A graph that waits for the device cannot be recorded.
  CudaGraph(const Model& model, const std::vector<at::Tensor>& inputs) : model_(on_cuda(model)) {
    const c10::cuda::CUDAGuard device(model.device());
    model(inputs);
    for (const at::Tensor& input : inputs) {
      inputs_.push_back(input.detach().clone(at::MemoryFormat::Contiguous));
    }
    // The default stream cannot be recorded.
    const c10::cuda::CUDAStream current = c10::cuda::getCurrentCUDAStream();
    const c10::cuda::CUDAStream side = c10::cuda::getStreamFromPool();
    order(current, side);
    {
      const c10::cuda::CUDAStreamGuard guard(side);
      // Libraries make their handles in the first calls, which cannot be recorded.
      for (int call = 0; call < n_warm_up_calls; ++call) model_(inputs_, Checks::shapes_only);
      side.synchronize();
      record();
    }
    order(side, current);
  }

  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  /// The memory that replays read, contiguous tensors of the shapes and dtypes of the recording.
  const std::vector<at::Tensor>& inputs() const { return inputs_; }

  /// The memory that replays write. They are inference tensors: nothing differentiates through
  /// them.
  const std::vector<at::Tensor>& outputs() const { return outputs_; }

  /// Queues the call on LibTorch's current stream of the device; nothing is checked or waited for.
  void replay() { graph_.replay(); }

 private:
  static constexpr int n_warm_up_calls = 5;

  static const Model& on_cuda(const Model& model) {
    if (model.device().is_cuda()) return model;
    throw Error("cuda_graph", "a CUDA device", model.device().str());
  }

  static void order(const c10::cuda::CUDAStream& first, const c10::cuda::CUDAStream& second) {
    at::cuda::CUDAEvent event;
    event.record(first);
    event.block(second);
  }

  void record() {
    // Threads of the engine's may go on using CUDA meanwhile.
    const at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
    graph_.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    try {
      outputs_ = model_(inputs_, Checks::shapes_only);
      graph_.capture_end();
    } catch (const std::exception& error) {
      abandon(pool);
      throw Error("cuda_graph", "operations that a CUDA graph can record",
                  "one that it cannot (" + detail::reason(error) + ")");
    }
  }

  // The stream has to stop recording, which fails after a failure. LibTorch's allocator would then
  // go on as if it were recorded.
  void abandon(at::cuda::MempoolId_t pool) {
    try {
      outputs_.clear();
      graph_.capture_end();
    } catch (const std::exception&) {
      const c10::DeviceIndex index = model_.device().index();
      c10::cuda::CUDACachingAllocator::endAllocateToPool(index, pool);
      c10::cuda::CUDACachingAllocator::releasePool(index, pool);
    }
  }

  Model model_;
  std::vector<at::Tensor> inputs_;
  at::cuda::CUDAGraph graph_;
  std::vector<at::Tensor> outputs_;
};

}  // namespace ofcv
