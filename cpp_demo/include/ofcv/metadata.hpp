#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ofcv/dtype.hpp"
#include "ofcv/lattice.hpp"

/// What artifacts say about themselves (`ofcv.json`), with the types and names of the Python
/// package's ofcv_export/graph/{metadata,details,tensor_spec}.py.
namespace ofcv {

/// Lists the fields that a type has in JSON; those of the second kind may be absent there.
#define OFCV_FIELDS(...)                    \
  template <typename F>                     \
  void list(F& fields) {                    \
    fields.read(#__VA_ARGS__, __VA_ARGS__); \
  }
#define OFCV_FIELDS_WITH_DEFAULTS(...)                 \
  template <typename F>                                \
  void list_with_defaults(F& fields) {                 \
    fields.read_or_default(#__VA_ARGS__, __VA_ARGS__); \
  }

/// One entry of a shape: a fixed size, or a symbol such as `batch` that stands for any size.
struct Dimension {
  std::int64_t size = 0;
  std::string symbol;

  bool is_symbolic() const { return !symbol.empty(); }
};

/// Name, dtype and shape of one input or output.
struct TensorSpec {
  std::string name;
  DType dtype = DType::float32;
  std::vector<Dimension> shape;
  std::optional<std::int64_t> low;  ///< half-open range of an integer input
  std::optional<Dimension> high;
  std::optional<std::vector<double>> example;        ///< values to test with, where not any will do
  std::optional<std::vector<std::int64_t>> choices;  ///< the only values of an integer input
  OFCV_FIELDS(name, dtype, shape)
  OFCV_FIELDS_WITH_DEFAULTS(low, high, example, choices)
};

using Description = nlohmann::json;

enum class BoxShape { triclinic, orthorhombic };
/// Which boxes a call takes; zeros stand for none where one is optional.
enum class BoxRule { any, orthorhombic, optional };
enum class SumForm { scatter, gather };
enum class GraphForm { general, one_frame, cyclic_pairs, gathered_pairs };

/// The names of such values in JSON, in order.
constexpr auto names_of(BoxShape) { return std::array{"triclinic", "orthorhombic"}; }
constexpr auto names_of(SumForm) { return std::array{"scatter", "gather"}; }
constexpr auto names_of(GraphForm) {
  return std::array{"general", "one frame", "cyclic pairs", "gathered pairs"};
}

/// What a variable makes of boxes and periodic images.
struct Box {
  std::optional<BoxShape> run_time;  ///< which boxes it takes with every call
  std::vector<Lattice> fixed;        ///< periodic boxes that are part of it, in its unit
  bool open = false;                 ///< takes some vectors as they are: molecules must be whole
  bool fractions = false;            ///< positions are fractions of a box
  OFCV_FIELDS(run_time, fixed, open, fractions)
};

/// Descriptor and atom of every block of a sparse Jacobian, in order.
struct Pattern {
  std::vector<std::int64_t> descriptor_index, atom_index;
  OFCV_FIELDS(descriptor_index, atom_index)
};

/// The chain rule on frozen frames.
struct SmartDerivativesDetails {
  static constexpr const char* kind = "smart_derivatives";
  std::int64_t n_atoms = 0, n_descriptors = 0, nnz = 0, n_frames = 0;
  SumForm form = SumForm::scatter;
  std::optional<Description> descriptors;
  OFCV_FIELDS(n_atoms, n_descriptors, nnz, n_frames, form, descriptors)
};

/// The chain rule with the derivatives of the descriptors as an input.
struct SparseChainRuleDetails {
  static constexpr const char* kind = "sparse_chain_rule";
  std::int64_t n_atoms = 0, n_descriptors = 0, nnz = 0;
  Pattern pattern;
  std::optional<Description> descriptors;
  OFCV_FIELDS(n_atoms, n_descriptors, nnz, pattern, descriptors)
};

/// The rescaling of any molecule or, with `atomic_numbers`, of one.
struct RescalingDetails {
  static constexpr const char* kind = "dimension_wise_rescaling";
  std::int64_t n_basis = 0;
  double epsilon = 0;
  std::optional<double> s_coeff, s_grad;
  std::optional<std::vector<std::int64_t>> atomic_numbers;
  OFCV_FIELDS(n_basis, epsilon)
  OFCV_FIELDS_WITH_DEFAULTS(s_coeff, s_grad, atomic_numbers)
};

/// A functional of density coefficients, of any molecules or of one.
struct EnergyFunctionalDetails {
  static constexpr const char* kind = "energy_functional";
  std::int64_t n_basis = 0;
  bool atomic_reference = false, transform = false;
  std::optional<std::vector<std::int64_t>> atomic_numbers;
  OFCV_FIELDS(n_basis, atomic_reference)
  OFCV_FIELDS_WITH_DEFAULTS(transform, atomic_numbers)
};

/// A collective variable or a bias.
struct VariableDetails {
  static constexpr const char* kind = "collective_variable";
  std::int64_t n_atoms = 0, n_outputs = 0;
  Box box;
  std::optional<Description> descriptors;
  std::vector<std::optional<double>> periods;             ///< of each value, where it has one
  std::map<std::string, std::vector<double>> parameters;  ///< defaults
  std::optional<std::string> time_unit;  ///< of the parameter `time`, if there is one
  std::optional<Description> bias;
  GraphForm form = GraphForm::general;
  OFCV_FIELDS(n_atoms, n_outputs, box, descriptors, periods, parameters, time_unit, bias, form)
};

/// A collective variable of a graph of atoms, or a bias of one.
struct GraphVariableDetails {
  static constexpr const char* kind = "graph_collective_variable";
  using Atoms = std::vector<std::int64_t>;
  std::int64_t n_outputs = 0;
  std::vector<std::string> known_elements;  ///< chemical symbols that the network knows
  double cutoff = 0, buffer = 0;
  std::optional<double> long_range_cutoff;
  std::optional<Atoms> system, environment, subsystem;  ///< no system stands for all atoms
  std::vector<std::optional<double>> periods;
  std::map<std::string, std::vector<double>> parameters;
  std::optional<std::string> time_unit;
  std::optional<Description> bias;
  OFCV_FIELDS(n_outputs, known_elements, cutoff, buffer, long_range_cutoff, system, environment,
              subsystem, periods, parameters, time_unit, bias)
};

/// A variable, or its network, in an engine's own calling convention.
struct ContractDetails {
  static constexpr const char* kind = "contract";
  std::string contract;
  VariableDetails variable;
  std::optional<std::vector<std::string>> engine_inputs;
  std::optional<std::vector<std::int64_t>> group;
  OFCV_FIELDS(contract, variable)
  OFCV_FIELDS_WITH_DEFAULTS(engine_inputs, group)
};

using Details =
    std::variant<SmartDerivativesDetails, SparseChainRuleDetails, RescalingDetails,
                 EnergyFunctionalDetails, VariableDetails, GraphVariableDetails, ContractDetails>;

/// SHA-256 of the sparsity pattern, where there is one, and of the weights.
struct Digests {
  std::optional<std::string> pattern;
  std::string weights;
  OFCV_FIELDS(pattern, weights)
};

/// Measured differences from float64.
struct Parity {
  std::string reference, runtime;
  double max_abs_error = 0, max_rel_error = 0, tolerance = 0;
  std::int64_t comparisons = 0;
  OFCV_FIELDS(reference, runtime, max_abs_error, max_rel_error, tolerance, comparisons)
};

/// Some float64 values of an output, at places of the flattened tensor, and their usual size.
struct ProbeOutput {
  std::vector<std::int64_t> places;
  std::vector<double> values;
  double scale = 0;
  OFCV_FIELDS(places, values, scale)
};

/// Inputs' sizes and some outputs, to check a file wherever it is used.
struct Probe {
  std::map<std::string, std::int64_t> sizes;
  std::map<std::string, ProbeOutput> outputs;
  OFCV_FIELDS(sizes, outputs)
};

struct Metadata {
  std::int64_t schema = 0;
  std::string format;  ///< torchscript, onnx, aotinductor, c, plumed or so
  Details details;     ///< the kind of artifact, and the facts about it
  std::vector<TensorSpec> inputs, outputs;
  Description options;
  std::optional<std::vector<std::int64_t>> atoms;    ///< zero-based, in the engine's numbering
  std::optional<std::vector<std::string>> elements;  ///< chemical symbols of the atoms
  std::optional<std::string> length_unit;
  std::map<std::string, std::string> output_units;
  Digests sha256;
  std::map<std::string, std::string> versions;  ///< of the packages that wrote the file
  std::optional<std::int64_t> opset;
  std::string device;  ///< what it was made for; a TorchScript file runs on any
  std::optional<std::string> instruction_set;  ///< what the CPU must have to run compiled code
  std::string created;
  std::optional<Parity> parity;  ///< null only while it is exported
  Probe probe;
  OFCV_FIELDS(schema, format, details, inputs, outputs, options, atoms, elements, length_unit,
              output_units, sha256, versions, opset, device, instruction_set, created, parity,
              probe)

  nlohmann::json document;  ///< everything, as it stands in the file

  /// Throws unless `text` is metadata of schema 2.
  static Metadata parse(const std::string& text);

  std::string kind() const {
    return std::visit([](const auto& facts) { return facts.kind; }, details);
  }

  /// Whether a box is an input.
  bool periodic() const {
    return std::ranges::any_of(inputs, [](const TensorSpec& spec) { return spec.name == "box"; });
  }

  /// The facts about a collective variable, or the one behind a contract; else null.
  const VariableDetails* variable() const {
    if (const auto* contract = std::get_if<ContractDetails>(&details)) return &contract->variable;
    return std::get_if<VariableDetails>(&details);
  }

  /// Which boxes an input of the name `box` may hold.
  BoxRule box_rule() const {
    if (std::holds_alternative<GraphVariableDetails>(details)) return BoxRule::optional;
    const bool along_axes =
        variable() != nullptr && variable()->box.run_time == BoxShape::orthorhombic;
    return along_axes ? BoxRule::orthorhombic : BoxRule::any;
  }
};

#undef OFCV_FIELDS
#undef OFCV_FIELDS_WITH_DEFAULTS

}  // namespace ofcv

#include "ofcv/internal/parse_metadata.hpp"
