// Tests of what needs CUDA's headers, on the folder that make_cases.py wrote, and the time of a
// replay. Usage: cuda_graph_tests FOLDER [NAME].

#include <c10/cuda/CUDAFunctions.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "check.hpp"
#include "common/array.hpp"
#include "common/npy.hpp"
#include "ofcv/cuda_graph.hpp"
#include "ofcv/model.hpp"

namespace {

namespace fs = std::filesystem;
using Tensors = std::vector<at::Tensor>;

void require_cuda() {
  if (!torch::cuda::is_available()) throw check::Skipped("no CUDA device");
}

std::string model_of(const fs::path& cases, const std::string& name) {
  return (cases / name / "model.pt").string();
}

/// The inputs of a batch, on CUDA.
Tensors inputs_of(const ofcv::Model& model, const fs::path& batch) {
  Tensors inputs;
  for (const ofcv::TensorSpec& spec : model.metadata().inputs) {
    Array array = npy::read((batch / (spec.name + ".npy")).string());
    const at::ScalarType type = ofcv::detail::scalar_type(array.dtype);
    inputs.push_back(at::from_blob(array.bytes.data(), array.shape, type).to(at::kCUDA));
  }
  return inputs;
}

/// Other numbers for the floating-point inputs.
Tensors scaled(const Tensors& inputs) {
  Tensors others;
  for (const at::Tensor& input : inputs) {
    others.push_back(input.is_floating_point() ? input * 1.25 : input);
  }
  return others;
}

void check_close(const Tensors& found, const Tensors& expected) {
  CHECK(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double tolerance = expected[i].scalar_type() == at::kFloat ? 1e-5 : 1e-12;
    const at::Tensor difference = (found[i] - expected[i]).abs().max();
    CHECK((difference / expected[i].abs().max()).item<double>() < tolerance);
  }
}

/// Every scripted case, with one of its batches.
void for_each_batch(const fs::path& cases, ofcv::Sums sums,
                    const std::function<void(const ofcv::Model&, const fs::path& batch)>& test) {
  require_cuda();
  int n_batches = 0;
  for (const auto& entry : fs::directory_iterator(cases)) {
    if (!fs::exists(entry.path() / "model.pt")) continue;
    const ofcv::Model model((entry.path() / "model.pt").string(), "cuda", 1, sums);
    for (const auto& batch : fs::directory_iterator(entry.path())) {
      if (!batch.is_directory()) continue;
      test(model, batch.path());
      ++n_batches;
    }
  }
  CHECK(n_batches >= 30);
}

/// Replays with the inputs of the recording and with others are calls with the same inputs.
void check_replays(ofcv::CudaGraph& graph, const ofcv::Model& model, const Tensors& recorded,
                   bool are_same_bits) {
  const Tensors others = scaled(recorded);
  for (const Tensors& inputs : {others, recorded, others}) {
    for (std::size_t i = 0; i < inputs.size(); ++i) graph.inputs()[i].copy_(inputs[i]);
    graph.replay();
    check_close(graph.outputs(), model(inputs));
    Tensors kept;
    for (const at::Tensor& output : graph.outputs()) kept.push_back(output.clone());
    graph.replay();
    for (std::size_t i = 0; i < kept.size() && are_same_bits; ++i) {
      CHECK(at::equal(kept[i], graph.outputs()[i]));
    }
  }
}

void test_replay(const fs::path& cases) {
  for_each_batch(cases, ofcv::Sums::atomics, [](const auto& model, const fs::path& batch) {
    const Tensors inputs = inputs_of(model, batch);
    ofcv::CudaGraph graph(model, inputs);
    check_replays(graph, model, inputs, false);
  });
}

/// Sums in a fixed order are replayed to the same bits, or refused where LibTorch waits for them.
void test_replay_fixed_order(const fs::path& cases) {
  int n_recorded = 0;
  for_each_batch(cases, ofcv::Sums::fixed_order, [&](const auto& model, const fs::path& batch) {
    const Tensors inputs = inputs_of(model, batch);
    std::optional<ofcv::CudaGraph> graph;
    try {
      graph.emplace(model, inputs);
    } catch (const ofcv::Error& error) {
      std::cout << batch.parent_path().filename() << ": " << error.what() << "\n";
      CHECK(std::string(error.what()).starts_with("cuda_graph: expected operations that a CUDA"));
      return;
    }
    check_replays(*graph, model, inputs, true);
    ++n_recorded;
  });
  CHECK(n_recorded >= 10);
}

void test_refusals(const fs::path& cases) {
  const ofcv::Model cpu(model_of(cases, "molecule-float32"));
  CHECK_ERROR(ofcv::CudaGraph(cpu, {}), "cuda_graph: expected a CUDA device, got cpu");
  require_cuda();
  const ofcv::Model model(model_of(cases, "molecule-float32"), "cuda");
  CHECK_ERROR_BEGINS(ofcv::CudaGraph(model, {}), "inputs: expected 1 tensors (coeffs), got 0");

  // A graph that waits for the device is refused, and leaves the device in order. The number of
  // molecules is read from the input.
  const ofcv::Model functional((cases / "functional.pt").string(), "cuda");
  const auto options = at::TensorOptions(at::kCUDA);
  const Tensors inputs = {at::ones({3}, options.dtype(at::kDouble)),
                          at::arange(3, options.dtype(at::kLong)),
                          at::zeros({3}, options.dtype(at::kLong))};
  CHECK_ERROR_BEGINS(ofcv::CudaGraph(functional, inputs),
                     "cuda_graph: expected operations that a CUDA graph can record, got ");
  functional(inputs);
}

/// Memory of the device goes through Model::evaluate without waiting for it.
void test_no_waiting(const fs::path& cases) {
  require_cuda();
  for (const std::string name : {"molecule-float32", "molecule_and_gradient-float64"}) {
    const ofcv::Model model(model_of(cases, name), "cuda");
    fs::path batch;
    for (const auto& entry : fs::directory_iterator(cases / name)) {
      if (entry.is_directory()) batch = entry.path();
    }
    const Tensors inputs = inputs_of(model, batch), expected = model(inputs);
    for (const ofcv::DType dtype : {ofcv::DType::float32, ofcv::DType::float64}) {
      Tensors given, results;
      std::vector<ofcv::View> views;
      std::vector<ofcv::MutableView> result_views;
      const at::ScalarType type = ofcv::detail::scalar_type(dtype);
      for (const at::Tensor& input : inputs) {
        given.push_back(input.to(type));
        views.emplace_back(given.back().const_data_ptr(), dtype, input.sizes().vec());
      }
      for (const at::Tensor& output : expected) {
        results.push_back(at::zeros(output.sizes(), output.options().dtype(type)));
        result_views.emplace_back(results.back().mutable_data_ptr(), dtype, output.sizes().vec());
      }
      using c10::cuda::SyncDebugMode;
      c10::cuda::warning_state().set_sync_debug_mode(SyncDebugMode::L_ERROR);
      model.evaluate(views, result_views, ofcv::Checks::shapes_only, ofcv::Memory::device);
      c10::cuda::warning_state().set_sync_debug_mode(SyncDebugMode::L_DISABLED);
      for (std::size_t i = 0; i < results.size(); ++i) {
        const at::Tensor wide = results[i].to(at::kDouble), right = expected[i].to(at::kDouble);
        CHECK(((wide - right).abs().max() / right.abs().max()).item<double>() < 1e-5);
      }
    }
  }
}

/// Median time in microseconds, until the device has done the work.
double median_time(const std::function<void()>& step) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  for (int i = 0; i < 1100; ++i) {
    const auto begin = Clock::now();
    step();
    c10::cuda::getCurrentCUDAStream().synchronize();
    const std::chrono::duration<double, std::micro> time = Clock::now() - begin;
    if (i >= 100) times.push_back(time.count());
  }
  std::nth_element(times.begin(), times.begin() + 500, times.end());
  return times[500];
}

void test_time(const fs::path& cases) {
  require_cuda();
  for (const std::string name :
       {"collective_variable-float64", "smart_derivatives-float32", "sparse_chain_rule-float32"}) {
    const ofcv::Model model(model_of(cases, name), "cuda", 1, ofcv::Sums::atomics);
    const Tensors inputs = inputs_of(model, cases / name / "1");
    ofcv::CudaGraph graph(model, inputs);
    const double call = median_time([&] { model(inputs, ofcv::Checks::shapes_only); });
    const double replay = median_time([&] { graph.replay(); });
    CHECK(call > 0 && replay > 0);
    std::cout << name << ", one frame, median of 1000: a call " << call << " us, a replay "
              << replay << " us\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"replay", test_replay},
                     {"replay_fixed_order", test_replay_fixed_order},
                     {"refusals", test_refusals},
                     {"no_waiting", test_no_waiting},
                     {"time", test_time}});
}
