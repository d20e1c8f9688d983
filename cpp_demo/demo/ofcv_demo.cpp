// Evaluates an artifact on arrays from files, as an engine would, and times it.

#include <ATen/Parallel.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "common/array.hpp"
#include "common/npy.hpp"
#include "common/options.hpp"
#include "common/output_files.hpp"
#include "demo/pairwise_distances.hpp"
#include "demo/trajectory.hpp"
#include "demo/xyz.hpp"
#include "ofcv/model.hpp"

namespace {

constexpr int n_warm_up = 5;

constexpr const char* usage =
    R"(usage: ofcv_demo --model FILE --input [NAME=]FILE ... [--output [NAME=]FILE ...]

Evaluates an ofcv-export artifact on arrays from files and times it.

  --model FILE           the artifact (.so, .pt or .pt2)
  --input [NAME=]FILE    an input, as .npy; without NAME the first input that has none yet.
                         A missing ref_idx counts the frames from 0. Positions may come as .xyz
                         (plain or extended): a collective_variable takes its atoms from them,
                         converted from Angstrom to its unit, and a missing box from the frames'
                         Lattice; for a sparse_chain_rule of pair distances they stand in for
                         descriptors_wrt_positions, which are computed from them.
  --output [NAME=]FILE   where a result goes, as .npy; NAME is needed where there are several
  --device cpu|cuda      where to run (default: cpu)
  --repeat N             timed calls (default: 20), after 5 calls that are not timed
  --threads N            threads of LibTorch (default: 1)
  --metadata             print the artifact's metadata as JSON and stop; runs nothing
  --help                 print this and stop

Exit code: 0, or 2 with one line on stderr when something is wrong.
)";

/// A file given as `FILE` or `NAME=FILE`.
struct NamedFile {
  std::string name;  ///< empty where none was given
  std::string path;
};

std::vector<NamedFile> named_files(const std::vector<std::string>& words) {
  std::vector<NamedFile> files;
  for (const std::string& word : words) {
    const auto equals =
        std::ranges::find_if(word, [](unsigned char c) { return !std::isalnum(c) && c != '_'; });
    if (equals == word.begin() || equals == word.end() || *equals != '=') {
      files.push_back({"", word});
    } else {
      files.push_back({{word.begin(), equals}, {equals + 1, word.end()}});
    }
  }
  return files;
}

/// An input and where it came from, for the report.
struct Input {
  Array array;
  std::string source;
};

std::size_t index_of(const char* option, const std::vector<ofcv::TensorSpec>& specs,
                     const std::string& name) {
  std::string names;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].name == name) return i;
    names += (i > 0 ? ", " : "") + specs[i].name;
  }
  throw ofcv::Error(option, "one of " + names, "'" + name + "'");
}

Input distances_wrt_positions(const ofcv::Metadata& metadata, const std::string& path) {
  const PairwiseDistances distances(metadata);
  const xyz::Frames frames = xyz::read(path);
  return {distances.wrt_positions(frames),
          "from the positions in " + path + " (" + std::to_string(frames.n_frames) + " frames)"};
}

Input count_frames(const Array& first_input) {
  const std::int64_t n_frames = first_input.shape.empty() ? 0 : first_input.shape[0];
  Array indices(ofcv::DType::int64, {n_frames});
  std::iota(indices.data<std::int64_t>(), indices.data<std::int64_t>() + n_frames, 0);
  return {std::move(indices), "counted from 0"};
}

/// Files to inputs: first those with a name and the positions, then the others in order, and at
/// last what can do without a file.
std::vector<Input> read_inputs(const ofcv::Metadata& metadata,
                               const std::vector<NamedFile>& files) {
  std::vector<std::optional<Input>> inputs(metadata.inputs.size());
  const auto bind = [&](const std::string& name, Input input) {
    std::optional<Input>& place = inputs[index_of("--input", metadata.inputs, name)];
    if (place) throw ofcv::Error("--input", "one file for " + name, "two");
    place = std::move(input);
  };
  const auto is_xyz = [](const NamedFile& file) {
    return file.path.ends_with(".xyz") || file.path.ends_with(".extxyz");
  };
  std::optional<Trajectory> trajectory;
  for (const NamedFile& file : files) {
    const bool holds_positions = is_xyz(file) && (file.name.empty() || file.name == "positions");
    if (holds_positions && std::holds_alternative<ofcv::VariableDetails>(metadata.details)) {
      trajectory.emplace(metadata, file.path);
      bind("positions", {trajectory->positions(), trajectory->source()});
    } else if (holds_positions) {
      bind("descriptors_wrt_positions", distances_wrt_positions(metadata, file.path));
    } else if (!file.name.empty()) {
      bind(file.name, {npy::read(file.path), "from " + file.path});
    }
  }
  for (const NamedFile& file : files) {
    if (is_xyz(file) || !file.name.empty()) continue;
    const auto free = std::find(inputs.begin(), inputs.end(), std::nullopt);
    if (free == inputs.end()) {
      throw ofcv::Error("--input", std::to_string(inputs.size()) + " files at most",
                        std::to_string(files.size()));
    }
    *free = {npy::read(file.path), "from " + file.path};
  }
  std::vector<Input> complete;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::string& name = metadata.inputs[i].name;
    if (!inputs[i] && name == "ref_idx" && i > 0) inputs[i] = count_frames(complete[0].array);
    if (!inputs[i] && name == "box" && trajectory) {
      inputs[i] = {trajectory->box(), trajectory->source()};
    }
    if (!inputs[i]) throw ofcv::Error("--input", "a file for " + name, "none");
    complete.push_back(std::move(*inputs[i]));
  }
  return complete;
}

/// Where each output goes; an empty path means nowhere.
std::vector<std::string> output_paths(const ofcv::Metadata& metadata,
                                      const std::vector<NamedFile>& files) {
  std::vector<std::string> paths(metadata.outputs.size());
  for (const NamedFile& file : files) {
    if (file.name.empty() && paths.size() > 1) {
      throw ofcv::Error("--output", "NAME=FILE for a model with several outputs",
                        "'" + file.path + "'");
    }
    const std::size_t i = file.name.empty() ? 0 : index_of("--output", metadata.outputs, file.name);
    if (!paths[i].empty()) {
      throw ofcv::Error("--output", "one file for " + metadata.outputs[i].name, "two");
    }
    if (std::find(paths.begin(), paths.end(), file.path) != paths.end()) {
      throw ofcv::Error("--output", "a file of its own for every output",
                        "'" + file.path + "' twice");
    }
    paths[i] = file.path;
  }
  return paths;
}

/// Arrays for the results, in the model's dtypes; symbolic sizes are taken from the inputs.
std::vector<Array> make_outputs(const ofcv::Metadata& metadata, const std::vector<Input>& inputs) {
  ofcv::Symbols symbols;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    symbols.require_shape(metadata.inputs[i], inputs[i].array.shape);
  }
  std::vector<Array> outputs;
  for (const ofcv::TensorSpec& spec : metadata.outputs) {
    outputs.emplace_back(spec.dtype, symbols.sizes(spec));
  }
  return outputs;
}

/// All outputs are written before the first one takes its name.
void write_outputs(const std::vector<Array>& outputs, const std::vector<std::string>& paths) {
  OutputFiles files;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!paths[i].empty()) npy::write(files.open(paths[i]), outputs[i].view());
  }
  files.commit();
}

/// Median wall time of a call in microseconds.
template <typename Call>
double median_time(const Call& call, int repeat) {
  for (int i = 0; i < n_warm_up; ++i) call();
  std::vector<double> times;
  for (int i = 0; i < repeat; ++i) {
    const auto start = std::chrono::steady_clock::now();
    call();
    times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
            .count());
  }
  std::sort(times.begin(), times.end());
  return (times[(times.size() - 1) / 2] + times[times.size() / 2]) / 2;
}

std::string describe(const Array& array) {
  return std::string(ofcv::dtype_name(array.dtype)) + " " + ofcv::tuple_text(array.shape);
}

int run(const Options& options) {
  const std::string path = options.required("--model", "a file");
  const std::string device = options.text("--device", "cpu");
  const int repeat = options.positive_integer("--repeat", 20);
  const int threads = options.positive_integer("--threads", 1);
  if (options.has("--metadata")) {
    std::cout << ofcv::read_metadata(path).document.dump(2) << "\n";
    return 0;
  }
  at::set_num_interop_threads(threads);

  const ofcv::Model model(path, device, threads);
  const ofcv::Metadata& metadata = model.metadata();
  const std::vector<std::string> paths =
      output_paths(metadata, named_files(options.all("--output")));
  const std::vector<Input> inputs = read_inputs(metadata, named_files(options.all("--input")));
  std::vector<Array> outputs = make_outputs(metadata, inputs);

  std::vector<ofcv::View> input_views;
  for (const Input& input : inputs) input_views.push_back(input.array.view());
  std::vector<ofcv::MutableView> output_views;
  for (Array& output : outputs) output_views.push_back(output.mutable_view());
  const double microseconds =
      median_time([&] { model.evaluate(input_views, output_views); }, repeat);
  write_outputs(outputs, paths);

  std::cout << "model   " << path << ": " << metadata.kind() << " (" << metadata.format << ")\n";
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    std::cout << "input   " << metadata.inputs[i].name << ": " << describe(inputs[i].array) << ", "
              << inputs[i].source << "\n";
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    std::cout << "output  " << metadata.outputs[i].name << ": " << describe(outputs[i])
              << (paths[i].empty() ? ", not written" : ", written to " + paths[i]) << "\n";
  }
  std::printf("time    %.1f us per call on %s with %d thread%s (median of %d calls after %d)\n",
              microseconds, device.c_str(), threads, threads == 1 ? "" : "s", repeat, n_warm_up);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_program("ofcv_demo", usage, argc, argv, run); }
