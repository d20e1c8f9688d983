#pragma once

/// Runs an ofcv-export artifact, TorchScript (.pt), AOTInductor (.pt2) or a shared library (.so),
/// inside an engine that has LibTorch; ofcv/library.hpp runs the last without. All an engine needs:
///
///     #include <ofcv/model.hpp>
///
///     ofcv::Model model("cv.pt", "cpu");                      // once, at set-up
///     std::vector<float> gradient(231), positions(22 * 3);    // the engine's own memory
///     std::int64_t frame = 0;
///
///     // at every step
///     model.evaluate({{gradient.data(), {1, 231}}, {&frame, {1}}},  // inputs, in order
///                    {{positions.data(), {1, 22, 3}}});             // outputs, in order
///
/// `model.metadata()` says which inputs and outputs an artifact has, their shapes, dtypes and
/// units. Everything that goes wrong is an `ofcv::Error` with a message of one line. With CMake:
/// add_subdirectory this folder and link ofcv::ofcv.

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/cuda.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ofcv/aotinductor.hpp"
#include "ofcv/archive.hpp"
#include "ofcv/arguments.hpp"
#include "ofcv/box.hpp"
#include "ofcv/error.hpp"
#include "ofcv/fixed_order.hpp"
#include "ofcv/graph.hpp"
#include "ofcv/internal/thread_count.hpp"
#include "ofcv/library.hpp"
#include "ofcv/library_graph.hpp"
#include "ofcv/machine.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/torchscript.hpp"
#include "ofcv/validation.hpp"
#include "ofcv/view.hpp"

namespace ofcv {

/// Where the caller's memory is: in the host's, or in that of the model's device. The same thing
/// for a model on the CPU.
enum class Memory { host, device };

/// Reads the metadata of an artifact. The digest is checked; the model is never executed.
inline Metadata read_metadata(const File& file) {
  if (Library::is_one(file)) return Library::read_metadata(file);
  return Metadata::parse(Archive(file).metadata_text());
}

namespace detail {

constexpr at::ScalarType scalar_type(DType dtype) {
  constexpr std::array types = {at::kFloat, at::kDouble, at::kInt, at::kLong, at::kBool};
  return types[static_cast<std::size_t>(dtype)];
}

/// The name as numpy spells it, for any type of LibTorch's.
inline std::string scalar_type_name(at::ScalarType type) {
  for (const DType dtype : dtypes) {
    if (scalar_type(dtype) == type) return dtype_name(dtype);
  }
  return c10::toString(type);
}

/// A tensor of the caller's memory on `device`, the CPU or CUDA. at::from_blob makes the same at
/// twice the price, 0.16 us.
inline at::Tensor borrowed(const void* data, const Shape& shape, DType dtype,
                           c10::Device device = at::kCPU) {
  const auto type = c10::scalarTypeToTypeMeta(scalar_type(dtype));
  const std::size_t n_bytes = static_cast<std::size_t>(count(shape)) * type.itemsize();
  // A tensor wants a pointer to non-const, though the graph never writes to its inputs.
  c10::DataPtr memory(const_cast<void*>(data), device);
  c10::Storage storage(c10::Storage::use_byte_size_t(), n_bytes, std::move(memory));
  const auto key = device.is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA;
  at::Tensor tensor =
      at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), type);
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  return tensor;
}

inline std::span<const std::int64_t> sizes(const at::Tensor& tensor) {
  return {tensor.sizes().data(), tensor.sizes().size()};
}

/// LibTorch's messages run over many lines; the last one says what went wrong.
inline std::string last_line(std::string text) {
  text.erase(text.find_last_not_of(" \n\r\t") + 1);
  return text.substr(text.find_last_of('\n') + 1);
}

inline std::string reason(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  return last_line(torch_error ? torch_error->what_without_backtrace() : error.what());
}

/// `cpu`, `cuda` (the first one) or `cuda:<index>`.
inline c10::Device parse_device(const std::string& text) {
  const std::string got = "'" + text + "'";
  c10::Device device(at::kCPU);
  try {
    device = c10::Device(text);
  } catch (const c10::Error&) {
    throw Error("device", "cpu, cuda or cuda:<index>", got);
  }
  if (device.is_cpu()) return c10::Device(at::kCPU);
  if (!device.is_cuda()) throw Error("device", "cpu, cuda or cuda:<index>", got);
  const auto n_devices = static_cast<int>(torch::cuda::device_count());
  if (n_devices == 0) throw Error("device", "cpu (this machine or LibTorch has no CUDA)", got);
  const c10::DeviceIndex index = device.has_index() ? device.index() : c10::DeviceIndex{0};
  if (index >= n_devices) {
    throw Error("device", "an index below " + std::to_string(n_devices), got);
  }
  return c10::Device(at::kCUDA, index);
}

}  // namespace detail

/// A loaded artifact. Calls are const and may come from several threads; those to one compiled
/// artifact (.pt2) wait for each other.
class Model {
 public:
  /// Takes an artifact, by its path or its content, checks its digest and metadata, and only then
  /// hands it to LibTorch. `device` is `cpu`, `cuda` or `cuda:<index>`. A call uses `threads`
  /// threads of LibTorch: one by default, since an MD engine owns the cores and one is fastest for
  /// a single frame; 0 leaves the choice to LibTorch (at::set_num_threads). On CUDA the operators
  /// of a .pt file add in a fixed order unless `sums` allows them atomics.
  explicit Model(const File& file, const std::string& device = "cpu", int threads = 1,
                 Sums sums = Sums::fixed_order)
      : Model(Content(file), file.path(), detail::parse_device(device), checked(threads), sums) {}

  const Metadata& metadata() const { return metadata_; }

  c10::Device device() const { return device_; }

  /// Evaluates tensors that have the artifact's dtypes (int32 serves as an index, too) and live on
  /// its device. The results are inference tensors: nothing differentiates through them.
  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& inputs,
                                     Checks checks = Checks::all) const {
    const c10::InferenceMode inference;
    detail::require_number("inputs", metadata_.inputs, inputs.size());
    Symbols symbols;
    std::vector<at::Tensor> tensors;
    tensors.reserve(inputs.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const TensorSpec& spec = metadata_.inputs[i];
      if (!inputs[i].defined()) throw Error(spec.name, "a tensor", "an undefined one");
      symbols.require_shape(spec, detail::sizes(inputs[i]));
      require_device(spec, inputs[i]);
      const bool is_short_index = spec.dtype == DType::int64 && inputs[i].scalar_type() == at::kInt;
      // Checks and compiled code read memory, where a sign that is only noted does not stand.
      tensors.push_back((is_short_index ? inputs[i].to(at::kLong) : inputs[i]).resolve_neg());
      require_dtype(spec, tensors[i]);
      if (checks == Checks::all) require_values(spec, tensors[i], symbols);
    }
    return run(tensors, symbols);
  }

  /// Evaluates the caller's memory. An input is used in place where its dtype is the artifact's
  /// and its memory the device's, and converted or copied otherwise; float and double convert into
  /// each other, and so do int32 and int64. The results are written to `outputs`, which are left
  /// alone when the call throws.
  ///
  /// With Memory::device every pointer is one to memory of the model's device. On CUDA all work,
  /// reading and writing that memory included, is then queued on LibTorch's current stream of that
  /// device, the default stream unless the caller sets another (c10::cuda::CUDAStreamGuard). With
  /// Checks::shapes_only nothing is copied to the host and nothing is waited for, unless the graph
  /// itself does: the call returns before the work is done, so that the memory has to stay until
  /// then, and work on other streams has to be ordered by the caller.
  void evaluate(const std::vector<View>& inputs, const std::vector<MutableView>& outputs,
                Checks checks = Checks::all, Memory memory = Memory::host) const {
    const c10::InferenceMode inference;
    detail::require_number("inputs", metadata_.inputs, inputs.size());
    detail::require_number("outputs", metadata_.outputs, outputs.size());
    Symbols symbols;
    std::vector<at::Tensor> tensors;
    tensors.reserve(inputs.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const TensorSpec& spec = metadata_.inputs[i];
      detail::require_view(spec, inputs[i], symbols);
      require_memory(spec, inputs[i].data, memory);
      at::Tensor tensor =
          is_on_cuda(memory) ? on_device(spec, inputs[i]) : as_tensor(spec, inputs[i]);
      if (checks == Checks::all) require_values(spec, tensor, symbols);
      tensors.push_back(tensor.device() == device_ ? tensor : tensor.to(device_));
    }
    // A size that no input has comes from the results, not from the caller's views.
    Symbols with_outputs = symbols;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      detail::require_view(metadata_.outputs[i], outputs[i], with_outputs);
      require_memory(metadata_.outputs[i], outputs[i].data, memory);
    }
    const std::vector<at::Tensor> results = run(tensors, symbols);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      require_same_shape(metadata_.outputs[i], results[i], outputs[i]);
    }
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      write(metadata_.outputs[i].dtype, results[i], outputs[i], memory);
    }
  }

  /// The caller's memory as the tensor that input `spec` takes, on the CPU: the memory itself
  /// where the dtype matches, a converted copy otherwise.
  static at::Tensor as_tensor(const TensorSpec& spec, const View& view) {
    const at::Tensor tensor = detail::borrowed(view.data, view.shape, view.dtype);
    if (view.dtype == spec.dtype) return tensor;
    const at::ScalarType type = detail::scalar_type(spec.dtype);
    at::Tensor copy = at::detail::empty_cpu(view.shape, type);
    void* target = copy.mutable_data_ptr();
    const bool done = detail::convert(view.dtype, view.data, spec.dtype, target, copy.numel());
    return done ? copy : tensor.to(type);
  }

 private:
  /// What a file holds: an archive for LibTorch, or a library.
  struct Content {
    explicit Content(const File& file) {
      if (Library::is_one(file)) {
        library = std::make_shared<const Library>(file);
        metadata = library->metadata();
      } else {
        archive = std::make_unique<Archive>(file);
        metadata = Metadata::parse(archive->metadata_text());
      }
    }
    Metadata metadata;
    std::unique_ptr<Archive> archive;
    std::shared_ptr<const Library> library;
  };

  Model(const Content& content, const std::string& path, c10::Device device, int threads, Sums sums)
      : metadata_(content.metadata),
        box_rule_(metadata_.box_rule()),
        device_(device),
        threads_(threads),
        needs_fixed_order_(device.is_cuda() &&
                           (sums == Sums::fixed_order || metadata_.format != "torchscript")),
        graph_(content.library ? load_library(content.library, device)
                               : load(*content.archive, path)) {}

  static int checked(int threads) {
    if (threads < 0) throw Error("threads", "0 or more", std::to_string(threads));
    return threads;
  }

  Graph load(Archive& archive, const std::string& path) const {
    const bool is_compiled = metadata_.format == "aotinductor";
    if (!is_compiled && metadata_.format != "torchscript") {
      throw Error("model", "format torchscript or aotinductor", "format " + metadata_.format);
    }
    if (is_compiled) require_this_machine(metadata_, device_);
    const detail::ThreadCount threads(threads_);
    try {
      return is_compiled ? load_aotinductor(archive, device_) : load_torchscript(archive, device_);
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      throw Error("model", "an artifact that this LibTorch can load",
                  "'" + path + "' (" + detail::reason(error) + ")");
    }
  }

  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, Symbols& symbols) const {
    std::vector<at::Tensor> results;
    try {
      const detail::ThreadCount threads(threads_);
      const detail::FixedOrder order(needs_fixed_order_);
      // TorchScript would fuse operators on CUDA after two calls, and give other last digits.
      const torch::jit::GraphOptimizerEnabledGuard fusion(!needs_fixed_order_ &&
                                                          torch::jit::getGraphExecutorOptimize());
      results = graph_(inputs);
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      throw Error("model", "a graph that runs",
                  "an error of LibTorch (" + detail::reason(error) + ")");
    }
    detail::require_number("outputs", metadata_.outputs, results.size());
    for (std::size_t i = 0; i < results.size(); ++i) {
      symbols.require_shape(metadata_.outputs[i], detail::sizes(results[i]));
      require_dtype(metadata_.outputs[i], results[i]);
    }
    return results;
  }

  bool is_on_cuda(Memory memory) const { return memory == Memory::device && device_.is_cuda(); }

  // The same as as_tensor, in memory of the device.
  at::Tensor on_device(const TensorSpec& spec, const View& view) const {
    return detail::borrowed(view.data, view.shape, view.dtype, device_)
        .to(detail::scalar_type(spec.dtype));
  }

  // A plain copy of the bytes where that is enough.
  void write(DType dtype, const at::Tensor& result, const MutableView& output,
             Memory memory) const {
    if (is_on_cuda(memory)) {
      detail::borrowed(output.data, output.shape, output.dtype, device_).copy_(result);
      return;
    }
    const bool is_plain = result.is_cpu() && result.is_contiguous();
    if (is_plain && dtype == output.dtype) {
      std::memcpy(output.data, result.const_data_ptr(), result.nbytes());
    } else if (!is_plain || !detail::convert(dtype, result.const_data_ptr(), output.dtype,
                                             output.data, result.numel())) {
      detail::borrowed(output.data, output.shape, output.dtype).copy_(result);
    }
  }

  // A kernel that is given memory of the host's ends all work on the device.
  void require_memory(const TensorSpec& spec, const void* data, Memory memory) const {
    if (!is_on_cuda(memory)) return;
    std::string found;
    try {
      const auto place = at::globalContext().getDeviceFromPtr(const_cast<void*>(data), at::kCUDA);
      if (place == device_) return;
      found = place.str();
    } catch (const c10::Error&) {
      found = "the host's";
    }
    throw Error(spec.name, "a pointer to memory of " + device_.str(), "one to " + found);
  }

  static void require_same_shape(const TensorSpec& spec, const at::Tensor& result,
                                 const MutableView& view) {
    const auto sizes = detail::sizes(result);
    if (std::ranges::equal(sizes, view.shape)) return;
    throw Error(spec.name, "shape " + tuple_text(sizes), tuple_text(view.shape));
  }

  static void require_dtype(const TensorSpec& spec, const at::Tensor& tensor) {
    if (tensor.scalar_type() == detail::scalar_type(spec.dtype)) return;
    throw Error(spec.name, std::string("dtype ") + dtype_name(spec.dtype),
                detail::scalar_type_name(tensor.scalar_type()));
  }

  void require_device(const TensorSpec& spec, const at::Tensor& tensor) const {
    if (tensor.device() == device_) return;
    throw Error(spec.name, "a tensor on " + device_.str(), "one on " + tensor.device().str());
  }

  // Tensors on another device are brought to the CPU to be looked at.
  void require_values(const TensorSpec& spec, const at::Tensor& tensor,
                      const Symbols& symbols) const {
    const at::Tensor host = (tensor.is_cpu() ? tensor : tensor.cpu()).contiguous();
    detail::require_values(spec, host.const_data_ptr(), detail::sizes(host), box_rule_, symbols);
  }

  Metadata metadata_;
  BoxRule box_rule_;
  c10::Device device_;
  int threads_;
  bool needs_fixed_order_;
  Graph graph_;
};

}  // namespace ofcv
