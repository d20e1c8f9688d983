// Tests on the folder that make_cases.py wrote. Usage: ofcv_tests FOLDER [NAME].

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "common/array.hpp"
#include "common/npy.hpp"
#include "demo/pairwise_distances.hpp"
#include "demo/trajectory.hpp"
#include "demo/xyz.hpp"
#include "ofcv/model.hpp"
#include "ofcv/sha256.hpp"

namespace {

namespace fs = std::filesystem;
using ofcv::DType;

constexpr std::array precisions = {DType::float32, DType::float64};

constexpr double tolerance(DType dtype) { return dtype == DType::float32 ? 1e-6 : 1e-12; }

std::string bytes_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// A file in the current folder with this content.
std::string file_with(const std::string& name, const std::string& content) {
  std::ofstream(name, std::ios::binary) << content;
  return name;
}

std::string model_of(const fs::path& cases, const std::string& name, DType dtype,
                     const char* file = "model.pt") {
  return (cases / (name + "-" + ofcv::dtype_name(dtype)) / file).string();
}

std::string package_of(const fs::path& cases, const std::string& name, DType dtype) {
  return model_of(cases, name, dtype, "model.pt2");
}

at::Tensor tensor_of(const Array& array) {
  void* values = const_cast<std::byte*>(array.bytes.data());
  return at::from_blob(values, array.shape, ofcv::detail::scalar_type(array.dtype));
}

Array converted(const Array& array, DType dtype) {
  Array result(dtype, array.shape);
  tensor_of(result).copy_(tensor_of(array));
  return result;
}

/// Largest difference, relative to the largest magnitude of what is expected.
double relative_error(const Array& got, const Array& expected) {
  CHECK(got.shape == expected.shape);
  const at::Tensor a = tensor_of(got).to(at::kDouble), b = tensor_of(expected).to(at::kDouble);
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

/// The inputs and the expected outputs of one batch.
struct Batch {
  Batch(const ofcv::Metadata& metadata, const fs::path& folder) {
    const auto read = [&](const ofcv::TensorSpec& spec) {
      return npy::read((folder / (spec.name + ".npy")).string());
    };
    for (const auto& spec : metadata.inputs) inputs.push_back(read(spec));
    for (const auto& spec : metadata.outputs) outputs.push_back(read(spec));
  }

  /// Evaluates with floating-point inputs and outputs of the caller's in `dtype`.
  std::vector<Array> evaluate(const ofcv::Model& model, DType dtype,
                              ofcv::Memory memory = ofcv::Memory::host) const {
    std::vector<Array> given, results;
    for (const Array& input : inputs) {
      given.push_back(is_floating(input.dtype) ? converted(input, dtype) : input);
    }
    for (const Array& output : outputs) results.emplace_back(dtype, output.shape);
    std::vector<ofcv::View> views;
    for (const Array& input : given) views.push_back(input.view());
    std::vector<ofcv::MutableView> result_views;
    for (Array& result : results) result_views.push_back(result.mutable_view());
    model.evaluate(views, result_views, ofcv::Checks::all, memory);
    return results;
  }

  std::vector<Array> inputs;
  std::vector<Array> outputs;
};

void for_each_batch(const fs::path& cases,
                    const std::function<void(const ofcv::Model&, const Batch&)>& test) {
  int n_scripted = 0, n_compiled = 0;
  for (const auto& entry : fs::directory_iterator(cases)) {
    for (const auto& [file, n_batches] :
         {std::pair{"model.pt", &n_scripted}, std::pair{"model.pt2", &n_compiled}}) {
      if (!fs::exists(entry.path() / file)) continue;
      const ofcv::Model model((entry.path() / file).string());
      for (const auto& batch : fs::directory_iterator(entry.path())) {
        if (!batch.is_directory()) continue;
        test(model, Batch(model.metadata(), batch.path()));
        ++*n_batches;
      }
    }
  }
  CHECK(n_scripted >= 40 && n_compiled >= 10);
}

void test_sha256(const fs::path&) {
  const auto digest = [](const std::string& text, std::size_t piece) {
    ofcv::Sha256 sha;
    for (std::size_t i = 0; i < text.size(); i += piece) {
      sha.update(text.data() + i, std::min(piece, text.size() - i));
    }
    return sha.hex_digest();
  };
  // The examples of FIPS 180-4, and a million letters in pieces of any size.
  CHECK(digest("", 1) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(digest("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const std::string million(1000000, 'a');
  for (const std::size_t piece : {1, 63, 64, 65, 1000, 1000000}) {
    CHECK(digest(million, piece) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

/// A .npy file with this header and data.
std::string npy_file(const std::string& header, const std::string& data, char version = 1) {
  std::string content = "\x93NUMPY";
  content += {version, '\0', static_cast<char>(header.size()), '\0'};
  if (version > 1) content += {'\0', '\0'};
  return file_with("test.npy", content + header + data);
}

void test_npy(const fs::path& cases) {
  for (const ofcv::Shape& shape : {ofcv::Shape{}, {3}, {2, 3}, {2, 3, 4, 5}, {0, 3}}) {
    for (const DType dtype : ofcv::dtypes) {
      Array array(dtype, shape);
      for (std::size_t i = 0; i < array.bytes.size(); ++i) array.bytes[i] = std::byte(37 * i);
      std::ofstream stream("round_trip.npy", std::ios::binary);
      npy::write(stream, array.view());
      stream.close();
      const Array again = npy::read("round_trip.npy");
      CHECK(again.dtype == array.dtype && again.shape == array.shape);
      CHECK(again.bytes == array.bytes);
    }
  }
  // Byte for byte what NumPy writes.
  const fs::path by_numpy = cases / "rescaling-float32" / "300" / "coeffs.npy";
  std::ostringstream stream;
  npy::write(stream, npy::read(by_numpy.string()).view());
  CHECK(stream.str() == bytes_of(by_numpy));

  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  for (const char version : {1, 2, 3}) {
    CHECK(npy::read(npy_file(good, "12345678", version)).shape == ofcv::Shape{2});
  }
  const auto read = [&](const std::string& header, const std::string& data = "12345678",
                        char version = 1) { npy::read(npy_file(header, data, version)); };
  const std::string size = "test.npy: expected as many values as the header's shape says, got ";
  CHECK_ERROR(read(good, "1234567"), size + "7 bytes");
  CHECK_ERROR(read(good, "123456789"), size + "9 bytes");
  CHECK_ERROR(read(good, "", 4), "test.npy: expected .npy format version 1, 2 or 3, got 4");
  CHECK_ERROR(read("{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }"),
              "test.npy: expected an array in C order, got one in Fortran order");
  CHECK_ERROR(read("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }"),
              "test.npy: expected little-endian float32, float64, int32, int64 or bool, got '>f4'");
  CHECK_ERROR(read("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"),
              "test.npy: expected little-endian float32, float64, int32, int64 or bool, got '|O'");
  CHECK_ERROR(read("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"),
              size + "8 bytes");
  for (const char* bad : {"", "{", "{}", "{'descr': '<f4'}", "{'descr': '<f4', 'shape': (2,)}",
                          "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }",
                          "{'descr': '<f4', 'fortran_order': False, 'shape': (2", "[1]"}) {
    CHECK_ERROR(read(bad), "test.npy: expected a .npy header, got a malformed one");
  }
  CHECK_ERROR(npy::read(file_with("test.npy", "positions")),
              "test.npy: expected a .npy file, got a file of another format");
  CHECK_ERROR(npy::read(file_with("test.npy", bytes_of(by_numpy).substr(0, 40))),
              "test.npy: expected a .npy header, got a truncated one");
  CHECK_ERROR(npy::read("missing.npy"), "missing.npy: expected a readable file, got none");
}

void test_xyz(const fs::path& cases) {
  const auto read = [](const std::string& text) { return xyz::read(file_with("test.xyz", text)); };
  const std::vector<double> expected = {1, 2, 3, 4, -5, 6e-1};
  for (const char* text : {
           "2\nplain\nC 1 2 3\nO 4.0 -5 6e-1\n",
           "2\r\nplain, of Windows, more columns\r\nC\t1 2 3 9 9\r\n O +4 -5 0.6 8\r\n\r\n",
           "2\nProperties=species:S:1:pos:R:3\nC 1 2 3\nO 4 -5 .6",
           "2\nLattice=\"9 0 0 0 9 0 0 0 9\" "
           "Properties=id:I:1:forces:R:3:pos:R:3:species:S:1 time=1\n"
           "1 0 0 0 1 2 3 C\n2 0 0 0 4 -5 6e-1 O\n",
           "2\nnote=\"Properties=pos:R:3\" Properties=\"species:S:1:q:R:1:pos:R:3\"\n"
           "C 7 1 2 3\nO 7 4 -5 0.6\n",
       }) {
    const xyz::Frames frames = read(text);
    CHECK(frames.n_frames == 1 && frames.n_atoms == 2);
    CHECK(frames.positions == expected);
  }
  const xyz::Frames two = read("1\n\nC 1 2 3\n1\n\nC 4 5 6\n");
  CHECK(two.n_frames == 2 && two.n_atoms == 1 && two.positions[5] == 6);
  CHECK(two.lattices.size() == 2 && !two.lattices[0] && !two.lattices[1]);
  const xyz::Frames boxed = read("1\nLattice=\"1 2 3 4 5 6 7 8 9.5\" pbc=\"T T F\"\nC 1 2 3\n");
  CHECK(boxed.lattices[0] == (ofcv::Lattice{{{1, 2, 3}, {4, 5, 6}, {7, 8, 9.5}}}));
  CHECK(boxed.pbc[0] == "T T F" && two.pbc[1].empty());
  CHECK(two.elements == std::vector<std::string>{"C"});
  CHECK(!read("1\nProperties=id:I:1:pos:R:3\n7 1 2 3\n").elements);

  CHECK_ERROR(read(""), "test.xyz: expected at least one frame, got an empty file");
  const std::string properties = "1\nProperties=species:S:1:pos:R:";
  for (const auto& [text, line, message] : std::vector<std::array<std::string, 3>>{
           {"two\n", "1", "the number of atoms, got 'two'"},
           {"0\n\n", "1", "the number of atoms, got '0'"},
           {"1\n", "1", "a comment line, got the end of the file"},
           {"2\n\nC 1 2 3\n", "3", "2 atoms in the frame, got 1 and the end of the file"},
           {"1\n\nC 1 2 3\n2\n\nC 1 2 3\nC 1 2 3\n", "4", "1 atoms as in the first frame, got 2"},
           {"1\n\nC 1 2 3\n1\n\nN 1 2 3\n", "6", "C as in the first frame, got N"},
           {"1\n\nC 1 2\n", "3", "at least 4 columns, got 3"},
           {properties + "3\nC 1 2 3 4\n", "3", "4 columns, got 5"},
           {"1\n\nC 1 2 3,0\n", "3", "a coordinate, got '3,0'"},
           {"1\n\nC 1 nan 3\n", "3", "a coordinate, got 'nan'"},
           {properties + "2\nC 1 2\n", "2",
            "Properties=<name>:<type>:<columns>:... with pos:R:3, got 'species:S:1:pos:R:2'"}}) {
    CHECK_ERROR(read(text), "test.xyz, line " + line + ": expected " + message);
  }
  for (const std::string bad : {"9", "1 2 3 4 5 6 7 8", "1 2 3 4 5 6 7 8 9 10", "1 2 3 4 5 6 7 8 x",
                                "1 2 3 4 5 6 7 8 inf"}) {
    CHECK_ERROR(
        read("1\nLattice=\"" + bad + "\"\nC 1 2 3\n"),
        "test.xyz, line 2: expected Lattice=\"ax ay az bx by bz cx cy cz\", got '" + bad + "'");
  }
  CHECK_ERROR(xyz::read("missing.xyz"), "missing.xyz: expected a readable file, got none");

  // The engine's share of the chain rule: unit vectors, whatever the scale of the positions.
  for (const DType dtype : precisions) {
    const fs::path folder = fs::path(model_of(cases, "sparse_chain_rule", dtype)).parent_path();
    const ofcv::Metadata metadata = ofcv::read_metadata((folder / "model.pt").string());
    const PairwiseDistances distances(metadata);
    xyz::Frames frames = xyz::read((folder / "5" / "positions.xyz").string());
    const Array derivatives = npy::read((folder / "5" / "descriptors_wrt_positions.npy").string());
    CHECK(relative_error(distances.wrt_positions(frames), derivatives) < tolerance(dtype));
    for (double& position : frames.positions) position *= 10;
    CHECK(relative_error(distances.wrt_positions(frames), derivatives) < tolerance(dtype));

    // More atoms in the engine than in the artifact, in another order.
    ofcv::Metadata renumbered = metadata;
    renumbered.atoms = {8, 7, 6, 5, 4, 3, 2};
    xyz::Frames all = frames;
    all.n_atoms = 9;
    all.positions.assign(static_cast<std::size_t>(all.n_frames * 9 * 3), 0.0);
    for (std::int64_t i = 0; i < frames.n_frames * 7; ++i) {
      const std::int64_t frame = i / 7, atom = 8 - i % 7;
      std::copy_n(&frames.positions[3 * i], 3, &all.positions[3 * (frame * 9 + atom)]);
    }
    CHECK(relative_error(PairwiseDistances(renumbered).wrt_positions(all), derivatives) <
          tolerance(dtype));
    CHECK_ERROR(PairwiseDistances(renumbered).wrt_positions(frames),
                "positions: expected at least 9 atoms, got 7");
    CHECK_ERROR(distances.wrt_positions(all), "positions: expected 7 atoms, got 9");

    std::copy_n(frames.positions.begin(), 3, frames.positions.begin() + 3);
    CHECK_ERROR(distances.wrt_positions(frames),
                "positions: expected atoms at distinct places, got atoms 0 and 1 at one place in "
                "frame 0");
    ofcv::Metadata broken = metadata;
    std::get<ofcv::SparseChainRuleDetails>(broken.details).pattern.atom_index[0] = 99;
    CHECK_ERROR(PairwiseDistances{broken},
                "model: expected pairs, a pattern and atoms that fit together, got other metadata");
  }
}

void test_trajectory(const fs::path& cases) {
  const fs::path folder = cases / "collective_variable_triclinic-float64";
  ofcv::Metadata metadata = ofcv::read_metadata((folder / "model.pt").string());
  const std::string path = (folder / "5" / "positions.xyz").string();
  CHECK(metadata.length_unit == "nm" && metadata.periodic() && metadata.atoms->size() == 5);
  const Trajectory trajectory(metadata, path);
  CHECK(relative_error(trajectory.positions(), npy::read(folder / "5" / "positions.npy")) < 1e-15);
  CHECK(relative_error(trajectory.box(), npy::read(folder / "5" / "box.npy")) < 1e-15);

  // Every unit, and atoms in the order of the file where the artifact names none.
  metadata.atoms.reset();
  const std::string one_frame =
      file_with("test.xyz",
                "5\nLattice=\"8 0 0 1 8 0 2 3 8\"\nC 6 0 0\nC 0 0 1\nC 1 0 0\nC 2 0 0\nC 0 3 0\n");
  for (const auto& [unit, angstrom] : std::map<std::string, double>{
           {"A", 1}, {"angstrom", 1}, {"nm", 10}, {"bohr", 0.529177210903}}) {
    metadata.length_unit = unit;
    Array positions = Trajectory(metadata, one_frame).positions();
    Array box = Trajectory(metadata, one_frame).box();
    CHECK(positions.shape == ofcv::Shape({1, 5, 3}) && box.shape == ofcv::Shape({3, 3}));
    const auto is_near = [](double found, double expected) {
      return std::abs(found - expected) <= 1e-15 * expected;
    };
    CHECK(is_near(positions.data<double>()[0], 6 / angstrom));
    CHECK(is_near(box.data<double>()[7], 3 / angstrom));
  }

  const auto read = [&] { Trajectory(metadata, one_frame); };
  const std::string known = "length_unit: expected nm, A, angstrom, bohr, ";
  metadata.length_unit = "pm";
  CHECK_ERROR(read(), known + "got pm");
  metadata.length_unit.reset();
  CHECK_ERROR(read(), known + "got none");
  metadata.length_unit = "A";
  metadata.atoms = {0, 5, 1, 2, 3};
  CHECK_ERROR(read(), "positions: expected at least 6 atoms, got 5 in frame 0");
  for (const std::vector<std::int64_t>& atoms : {std::vector<std::int64_t>{1}, {0, 1, 2, 3, -1}}) {
    metadata.atoms = atoms;
    CHECK_ERROR(read(), "metadata: expected zero-based indices of 5 atoms, got others");
  }
  metadata.atoms = {4, 3, 2, 1, 0};
  metadata.elements = {"C", "C", "C", "O", "C"};
  CHECK_ERROR(read(), "atoms: expected O as atom 1 (zero-based), got C");
  metadata.elements.reset();
  auto& box = std::get<ofcv::VariableDetails>(metadata.details).box;
  box.fixed = {{{{8, 0, 0}, {1, 8, 0}, {2, 3, 8}}}};
  read();
  box.fixed[0][0][0] = 9;
  CHECK_ERROR(read(),
              "box: expected the artifact's own [[9.0, 0.0, 0.0], [1.0, 8.0, 0.0], [2.0, "
              "3.0, 8.0]], got [[8.0, 0.0, 0.0], [1.0, 8.0, 0.0], [2.0, 3.0, 8.0]]");
  box.fractions = true;
  CHECK_ERROR(read(),
              "model: expected an artifact that takes positions, got one that takes "
              "fractions of a box");
}

void test_box(const fs::path& cases) {
  using Box = std::vector<double>;
  std::vector<double> positions(5 * 3), values(2), derivatives(2 * 5 * 3),
      box_derivatives(2 * 3 * 3);
  for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = std::sin(1.0 + i);
  const auto evaluator = [&](const char* shape) {
    const std::string name = std::string("collective_variable_") + shape;
    return [&, model = ofcv::Model(model_of(cases, name, DType::float64))](
               const Box& box, ofcv::Checks checks = ofcv::Checks::all) {
      model.evaluate({{positions.data(), {1, 5, 3}}, {box.data(), {3, 3}}},
                     {{values.data(), {1, 2}},
                      {derivatives.data(), {1, 2, 5, 3}},
                      {box_derivatives.data(), {1, 2, 3, 3}}},
                     checks);
    };
  };
  const auto any = evaluator("triclinic"), upright = evaluator("orthorhombic");
  const std::string dependent = "box: expected linearly independent vectors, got ";
  const std::string tilted = "box: expected positive lengths along x, y and z and zeros, got ";
  const double nan = std::nan("");

  // Tilted, left-handed, flat, tiny and huge boxes are boxes.
  for (const Box& box : {Box{2, 0, 0, 1, 2, 0, -1, 1, 2}, Box{0, 2, 0, 2, 0, 0, 0, 0, 2},
                         Box{2, 0, 0, 2, 1e-5, 0, 0, 0, 2}}) {
    any(box);
  }
  for (const double length : {1e-200, 1.0, 1e200}) {
    ofcv::require_box({{{length, 0, 0}, {length, length, 0}, {0, 0, length}}}, false);
    ofcv::require_box({{{length, 0, 0}, {0, length, 0}, {0, 0, length}}}, true);
  }
  upright({2, 0, 0, 0, 2.5, 0, 0, 0, 3});

  CHECK_ERROR(any({2, 0, 0, 0, nan, 0, 0, 0, 2}),
              "box: expected finite values, got nan at index (1, 1)");
  CHECK_ERROR(any({1, 2, 3, 4, 5, 6, 7, 8, 9}),
              dependent + "[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]");
  CHECK_ERROR(any(Box(9, 0.0)), dependent + "[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]");
  CHECK_ERROR(any({0.1, 0, 0, 100000, 1e-07, 0, -0.0, 1e16, 1e22}),
              dependent + "[[0.1, 0.0, 0.0], [100000.0, 1e-07, 0.0], [-0.0, 1e+16, 1e+22]]");
  CHECK_ERROR(upright({2, 0, 0, 0, 2, 0, 0, 0.5, 2}),
              tilted + "[[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.5, 2.0]]");
  for (const double length : {0.0, -2.0}) {
    CHECK_ERROR(upright({2, 0, 0, 0, 2, 0, 0, 0, length}),
                tilted + "[[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, " +
                    (length < 0 ? "-2.0" : "0.0") + "]]");
  }
  // Values are not looked at when that was asked for.
  upright({2, 0, 0, 0, 2, 0, 0, 0.5, 2}, ofcv::Checks::shapes_only);

  // Tensors are checked as memory is, in float32, too.
  const ofcv::Model model(model_of(cases, "collective_variable_triclinic", DType::float64));
  CHECK_ERROR(model({at::randn({1, 5, 3}, at::kDouble), at::ones({3, 3}, at::kDouble)}),
              dependent + "[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]");
  CHECK_ERROR(ofcv::require_box(ofcv::lattice_from(std::vector<float>(9, 0.5F).data()), false),
              dependent + "[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]");
}

void test_metadata(const fs::path& cases) {
  const ofcv::Metadata metadata =
      ofcv::read_metadata(model_of(cases, "smart_derivatives", DType::float32));
  CHECK(metadata.kind() == "smart_derivatives" && metadata.format == "torchscript");
  CHECK(metadata.length_unit == "nm" && !metadata.atoms && !metadata.periodic());
  CHECK(metadata.inputs.size() == 2 && metadata.outputs.size() == 1);
  CHECK(metadata.inputs[0].name == "output_wrt_descriptors");
  CHECK(metadata.inputs[0].dtype == DType::float32);
  CHECK(ofcv::shape_text(metadata.inputs[0].shape) == "(batch, 21)");
  CHECK(metadata.inputs[1].dtype == DType::int64);
  CHECK(metadata.inputs[1].low == 0 && metadata.inputs[1].high->size == 12);
  CHECK(ofcv::shape_text(metadata.outputs[0].shape) == "(batch, 7, 3)");
  CHECK(std::get<ofcv::SmartDerivativesDetails>(metadata.details).n_frames == 12);
}

void test_parity(const fs::path& cases) {
  for_each_batch(cases, [](const ofcv::Model& model, const Batch& batch) {
    const DType dtype = model.metadata().outputs[0].dtype;
    const std::vector<Array> results = batch.evaluate(model, dtype);
    for (std::size_t i = 0; i < results.size(); ++i) {
      CHECK(relative_error(results[i], batch.outputs[i]) < tolerance(dtype));
    }
    // The same input, the same bits.
    const std::vector<Array> again = batch.evaluate(model, dtype);
    for (std::size_t i = 0; i < results.size(); ++i) CHECK(again[i].bytes == results[i].bytes);
  });
}

void test_raw_pointers(const fs::path& cases) {
  // float memory for a double model and back. Inputs were float32 numbers only where the model
  // is, so either way the result has the accuracy of float32.
  for_each_batch(cases, [](const ofcv::Model& model, const Batch& batch) {
    const DType dtype = model.metadata().outputs[0].dtype;
    const DType other = dtype == DType::float32 ? DType::float64 : DType::float32;
    const std::vector<Array> results = batch.evaluate(model, other);
    for (std::size_t i = 0; i < results.size(); ++i) {
      CHECK(results[i].dtype == other);
      CHECK(relative_error(results[i], batch.outputs[i]) < 2e-6);
    }
  });

  // No copy where none is needed.
  ofcv::Model model(model_of(cases, "smart_derivatives", DType::float32));
  const ofcv::TensorSpec &x = model.metadata().inputs[0], &ref_idx = model.metadata().inputs[1];
  std::vector<float> floats(2 * 21, 0.5F);
  std::vector<double> doubles(2 * 21, 0.5);
  std::vector<std::int64_t> frames = {3, 11};
  CHECK(ofcv::Model::as_tensor(x, {floats.data(), {2, 21}}).const_data_ptr() == floats.data());
  CHECK(ofcv::Model::as_tensor(ref_idx, {frames.data(), {2}}).const_data_ptr() == frames.data());
  const at::Tensor copy = ofcv::Model::as_tensor(x, {doubles.data(), {2, 21}});
  CHECK(copy.const_data_ptr() != doubles.data() && copy.scalar_type() == at::kFloat);

  // The ten lines of model.hpp, with int32 and int64 indices alike, and no write past the end.
  std::vector<float> positions(2 * 7 * 3 + 1, 42.0F), again(2 * 7 * 3 + 1, 42.0F);
  model.evaluate({{floats.data(), {2, 21}}, {frames.data(), {2}}}, {{positions.data(), {2, 7, 3}}});
  std::vector<std::int32_t> short_frames = {3, 11};
  model.evaluate({{doubles.data(), {2, 21}}, {short_frames.data(), {2}}},
                 {{again.data(), {2, 7, 3}}});
  CHECK(positions == again && positions.back() == 42.0F && positions.front() != 42.0F);
  CHECK(floats == std::vector<float>(2 * 21, 0.5F));
}

void test_sizes_of_results(const fs::path& cases) {
  const ofcv::Model model((cases / "functional.pt").string());
  const ofcv::Model compiled((cases / "functional.so").string());
  const ofcv::Library library((cases / "functional.so").string());
  const std::vector<double> coeffs = {0.5, -0.5, 0.25};
  const std::vector<std::int64_t> functions = {0, 1, 2};
  std::vector<std::int64_t> molecules = {0, 0, 1};
  struct Results {
    std::vector<double> energy = std::vector<double>(3, 42.0), gradient = energy;
    bool operator==(const Results&) const = default;
  };
  const auto evaluate = [&](const auto& evaluator, std::int64_t n_molecules, Results& results) {
    evaluator.evaluate({{coeffs.data(), {3}}, {functions.data(), {3}}, {molecules.data(), {3}}},
                       {{results.energy.data(), {n_molecules}}, {results.gradient.data(), {3}}});
  };
  const auto evaluated = [&](const auto& evaluator, const char* error) {
    Results results;
    CHECK_ERROR(evaluate(evaluator, 3, results), error);
    CHECK(results == Results());
    evaluate(evaluator, 2, results);
    return results;
  };
  const char *of_views = "energy: expected shape (2,), got (3,)",
             *of_sizes = "energy: expected n_molecules = 2 as in batch, got 3";
  const Results expected = evaluated(model, of_views);
  CHECK(expected.energy[0] != 42.0 && expected.energy[1] != 42.0 && expected.energy[2] == 42.0);
  for (const Results& results : {evaluated(compiled, of_views), evaluated(library, of_sizes)}) {
    for (int i = 0; i < 3; ++i) {
      CHECK(std::abs(results.energy[i] - expected.energy[i]) < 1e-14);
      CHECK(std::abs(results.gradient[i] - expected.gradient[i]) < 1e-14);
    }
  }
  const std::vector<double> many(9, 0.5);
  const std::vector<std::int64_t> zeros(9, 0);
  std::vector<double> one(1), of_many(9);
  const auto too_many = [&](const auto& evaluator) {
    evaluator.evaluate({{many.data(), {9}}, {zeros.data(), {9}}, {zeros.data(), {9}}},
                       {{one.data(), {1}}, {of_many.data(), {9}}});
  };
  CHECK_ERROR(too_many(compiled), "n: expected 1 to 8, got 9");
  CHECK_ERROR(too_many(library), "n: expected 1 to 8, got 9");
  molecules = {0, 3, 1};
  Results unused;
  CHECK_ERROR(evaluate(library, 2, unused),
              "batch: expected indices in [0, 3), got 3 at position 1");
}

void test_threads(const fs::path& cases) {
  at::set_num_threads(3);
  {
    const ofcv::detail::ThreadCount threads(2);
    CHECK(at::get_num_threads() == 2);
    const ofcv::detail::ThreadCount unchanged(0);
    CHECK(at::get_num_threads() == 2);
  }
  CHECK(at::get_num_threads() == 3);

  // An engine's number of OpenMP threads, in a thread that has not used LibTorch before.
  const std::string path = model_of(cases, "smart_derivatives", DType::float32);
  std::thread([&] {
    const auto get = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
    const auto set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
    CHECK(get && set);
    set(5);
    const ofcv::Model model(path);
    CHECK(get() == 5);
    model({at::zeros({1, 21}), at::zeros({1}, at::kLong)});
    CHECK(get() == 5);
  }).join();
  CHECK_ERROR(ofcv::Model(path, "cpu", -1), "threads: expected 0 or more, got -1");
}

void test_fixed_order(const fs::path&) {
  const at::Context& context = at::globalContext();
  {
    const ofcv::detail::FixedOrder outer(true);
    {
      const ofcv::detail::FixedOrder inner(true);
    }
    CHECK(context.deterministicAlgorithms() && context.deterministicAlgorithmsWarnOnly());
  }
  CHECK(!context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory());
}

void test_tensors(const fs::path& cases) {
  const ofcv::Model model(model_of(cases, "rescaling_and_gradient", DType::float64));
  const at::Tensor coeffs = at::randn({6}, at::kDouble), gradient = at::randn({6}, at::kDouble);
  const at::Tensor ind = at::arange(6, at::kLong);
  const std::vector<at::Tensor> results = model({coeffs, ind, gradient});
  CHECK(results.size() == 2 && results[0].sizes() == at::IntArrayRef({6}));
  CHECK(!results[0].requires_grad());
  // Tensors need not be contiguous, and int32 serves as an index.
  const at::Tensor spread = at::stack({coeffs, coeffs}, 1).select(1, 0);
  CHECK(!spread.is_contiguous());
  CHECK(at::equal(model({spread, ind.to(at::kInt), gradient})[0], results[0]));
  // Values are not looked at when that was asked for.
  const at::Tensor not_a_number = at::full({6}, std::nan(""), at::kDouble);
  CHECK(model({not_a_number, ind, gradient}, ofcv::Checks::shapes_only)[0]
            .isnan()
            .all()
            .item<bool>());

  CHECK_ERROR(model({coeffs, ind}),
              "inputs: expected 3 tensors (coeffs, basis_function_ind, gradient), got 2");
  CHECK_ERROR(model({coeffs, ind, at::Tensor()}),
              "gradient: expected a tensor, got an undefined one");
  CHECK_ERROR(model({coeffs.to(at::kFloat), ind, gradient}),
              "coeffs: expected dtype float64, got float32");
  CHECK_ERROR(model({coeffs, ind.to(at::kShort), gradient}),
              "basis_function_ind: expected dtype int64, got Short");
  CHECK_ERROR(model({coeffs, ind, gradient.slice(0, 0, 5)}),
              "gradient: expected n = 6 as in coeffs, got 5");
  CHECK_ERROR(model({not_a_number, ind, gradient}),
              "coeffs: expected finite values, got nan at index (0,)");
  CHECK_ERROR(model({coeffs, ind + 15, gradient}),
              "basis_function_ind: expected indices in [0, 20), got 20 at position 5");
  CHECK_ERROR(model({coeffs.to(at::kMeta), ind, gradient}),
              "coeffs: expected a tensor on cpu, got one on meta");
}

void test_lazily_negated(const fs::path& cases) {
  const std::vector<at::Tensor> plain = {at::randn({6}, at::kDouble), at::arange(6, at::kLong),
                                         at::randn({6}, at::kDouble)};
  for (const char* file : {"model.pt", "model.pt2"}) {
    const ofcv::Model model(model_of(cases, "rescaling_and_gradient", DType::float64, file));
    const std::vector<at::Tensor> expected = model(plain);
    for (std::size_t i = 0; i < plain.size(); ++i) {
      std::vector<at::Tensor> inputs = plain;
      inputs[i] = at::_neg_view(-plain[i]);
      CHECK(inputs[i].is_neg() && at::equal(inputs[i], plain[i]));
      const std::vector<at::Tensor> found = model(inputs);
      CHECK(at::equal(found[0], expected[0]) && at::equal(found[1], expected[1]));
    }
  }
}

void test_compiled(const fs::path& cases) {
  const ofcv::Metadata metadata =
      ofcv::read_metadata(package_of(cases, "smart_derivatives", DType::float32));
  CHECK(metadata.format == "aotinductor" && metadata.device == "cpu");
  CHECK(metadata.instruction_set && metadata.versions.contains("torch"));

  // Nothing stays on disk; two models and several threads get along.
  fs::remove_all("temporary");
  fs::create_directory("temporary");
  setenv("TMPDIR", fs::absolute("temporary").c_str(), 1);
  const ofcv::Model rescaling(package_of(cases, "rescaling_and_gradient", DType::float64));
  const ofcv::Model smart(package_of(cases, "smart_derivatives", DType::float32));
  const ofcv::Model again(package_of(cases, "smart_derivatives", DType::float32));
  CHECK(fs::is_empty("temporary"));
  const Batch batch(metadata, cases / "smart_derivatives-float32" / "12");
  const std::vector<Array> expected = batch.evaluate(again, DType::float32);
  std::atomic<int> n_wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int call = 0; call < 200; ++call) {
        n_wrong += batch.evaluate(smart, DType::float32)[0].bytes != expected[0].bytes;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(n_wrong == 0);

  // Tensors need not be contiguous, memory need not be aligned.
  const at::Tensor coeffs = at::randn({6}, at::kDouble), gradient = at::randn({6}, at::kDouble);
  const at::Tensor ind = at::arange(6, at::kLong);
  const at::Tensor spread = at::stack({coeffs, gradient}, 1).select(1, 0);
  CHECK(!spread.is_contiguous());
  CHECK(at::equal(rescaling({spread, ind, gradient})[0], rescaling({coeffs, ind, gradient})[0]));
  std::vector<float> x(21 * 12 + 1), positions(12 * 7 * 3 + 2, 42.0F);
  std::memcpy(x.data() + 1, batch.inputs[0].bytes.data(), batch.inputs[0].bytes.size());
  smart.evaluate({{x.data() + 1, {12, 21}}, batch.inputs[1].view()},
                 {{positions.data() + 1, {12, 7, 3}}});
  CHECK(std::memcmp(positions.data() + 1, expected[0].bytes.data(), expected[0].bytes.size()) == 0);
  CHECK(positions.front() == 42.0F && positions.back() == 42.0F);

  // The checks are those of every format, and compiled code has its own for indices.
  std::vector<std::int64_t> frames(12, 99);
  const auto evaluate = [&](ofcv::Checks checks) {
    smart.evaluate({{x.data(), {12, 21}}, {frames.data(), {12}}}, {{positions.data(), {12, 7, 3}}},
                   checks);
  };
  CHECK_ERROR(evaluate(ofcv::Checks::all),
              "ref_idx: expected indices in [0, 12), got 99 at position 0");
  CHECK_ERROR_BEGINS(evaluate(ofcv::Checks::shapes_only),
                     "model: expected a graph that runs, got ");
  const ofcv::Model fixed(package_of(cases, "smart_derivatives_one_frame", DType::float64));
  CHECK_ERROR(
      fixed.evaluate({{x.data(), {3, 21}}, {frames.data(), {3}}}, {{positions.data(), {3, 7, 3}}}),
      "output_wrt_descriptors: expected shape (1, 21), got (3, 21)");
}

void test_bad_arguments(const fs::path& cases) {
  const ofcv::Model model(model_of(cases, "smart_derivatives", DType::float32));
  std::vector<float> x(3 * 21, 1.0F), out(3 * 7 * 3, 42.0F);
  std::vector<std::int64_t> frames = {0, 1, 2};
  const float inf = std::numeric_limits<float>::infinity();
  const auto evaluate = [&](ofcv::Shape x_shape, ofcv::Shape frames_shape, ofcv::Shape out_shape) {
    model.evaluate({{x.data(), x_shape}, {frames.data(), frames_shape}}, {{out.data(), out_shape}});
  };
  const ofcv::View x_view(x.data(), {3, 21}), frames_view(frames.data(), {3});
  const ofcv::MutableView out_view(out.data(), {3, 7, 3});
  const auto with_x = [&](std::size_t position, float value) {
    std::vector<float> changed = x;
    changed[position] = value;
    model.evaluate({{changed.data(), {3, 21}}, frames_view}, {out_view});
  };
  const auto with_frame = [&](std::int64_t frame) {
    frames[2] = frame;
    model.evaluate({x_view, frames_view}, {out_view});
  };

  const std::string input = "output_wrt_descriptors: expected ", output = "output_wrt_positions: ";
  CHECK_ERROR(evaluate({3, 20}, {3}, {3, 7, 3}), input + "shape (batch, 21), got (3, 20)");
  CHECK_ERROR(evaluate({63}, {3}, {3, 7, 3}), input + "shape (batch, 21), got (63,)");
  CHECK_ERROR(evaluate({0, 21}, {0}, {0, 7, 3}), input + "shape (batch, 21), got (0, 21)");
  CHECK_ERROR(evaluate({-1, 21}, {3}, {3, 7, 3}), input + "shape (batch, 21), got (-1, 21)");
  CHECK_ERROR(evaluate({3, 21}, {3, 1}, {3, 7, 3}), "ref_idx: expected shape (batch,), got (3, 1)");
  CHECK_ERROR(evaluate({3, 21}, {2}, {3, 7, 3}),
              "ref_idx: expected batch = 3 as in output_wrt_descriptors, got 2");
  CHECK_ERROR(evaluate({3, 21}, {3}, {2, 7, 3}),
              output + "expected batch = 3 as in output_wrt_descriptors, got 2");
  CHECK_ERROR(evaluate({3, 21}, {3}, {3, 21}),
              output + "expected shape (batch, 7, 3), got (3, 21)");

  CHECK_ERROR(with_x(0, std::nanf("")), input + "finite values, got nan at index (0, 0)");
  CHECK_ERROR(with_x(0, -std::nanf("")), input + "finite values, got nan at index (0, 0)");
  CHECK_ERROR(with_x(44, inf), input + "finite values, got inf at index (2, 2)");
  CHECK_ERROR(with_x(62, -inf), input + "finite values, got -inf at index (2, 20)");
  with_x(0, std::numeric_limits<float>::max());
  with_x(0, std::numeric_limits<float>::denorm_min());
  CHECK_ERROR(with_frame(-1), "ref_idx: expected indices in [0, 12), got -1 at position 2");
  CHECK_ERROR(with_frame(12), "ref_idx: expected indices in [0, 12), got 12 at position 2");
  with_frame(11);

  // Beyond the range of float32 once converted.
  std::vector<double> large(3 * 21, 1e300);
  CHECK_ERROR(model.evaluate({{large.data(), {3, 21}}, frames_view}, {out_view}),
              input + "finite values, got inf at index (0, 0)");
  CHECK_ERROR(model.evaluate({{frames.data(), {3, 21}}, frames_view}, {out_view}),
              input + "dtype float32 or float64, got int64");
  CHECK_ERROR(model.evaluate({x_view, {x.data(), {3}}}, {out_view}),
              "ref_idx: expected dtype int64 or int32, got float32");
  CHECK_ERROR(model.evaluate({x_view, frames_view}, {{frames.data(), {3, 7, 3}}}),
              output + "expected dtype float32 or float64, got int64");
  CHECK_ERROR(model.evaluate({{static_cast<float*>(nullptr), {3, 21}}, frames_view}, {out_view}),
              input + "a pointer to 63 values, got a null pointer");
  CHECK_ERROR(model.evaluate({x_view}, {out_view}),
              "inputs: expected 2 tensors (output_wrt_descriptors, ref_idx), got 1");
  CHECK_ERROR(model.evaluate({x_view, frames_view}, {}),
              "outputs: expected 1 tensors (output_wrt_positions), got 0");

  // A failed call leaves the outputs alone.
  std::fill(out.begin(), out.end(), 42.0F);
  CHECK_ERROR(with_frame(99), "ref_idx: expected indices in [0, 12), got 99 at position 2");
  CHECK(out == std::vector<float>(3 * 7 * 3, 42.0F));
  // LibTorch's own refusal comes as one line, too.
  frames[2] = 99;
  CHECK_ERROR_BEGINS(model.evaluate({x_view, frames_view}, {out_view}, ofcv::Checks::shapes_only),
                     "model: expected a graph that runs, got ");

  const ofcv::Model one_frame(model_of(cases, "smart_derivatives_one_frame", DType::float32));
  frames[2] = 2;
  CHECK_ERROR(one_frame.evaluate({x_view, frames_view}, {out_view}),
              input + "shape (1, 21), got (3, 21)");

  const std::string path = model_of(cases, "smart_derivatives", DType::float32);
  for (const char* device : {"gpu", "", "meta", "cuda:x"}) {
    CHECK_ERROR(ofcv::Model(path, device),
                "device: expected cpu, cuda or cuda:<index>, got '" + std::string(device) + "'");
  }
  const int n_devices = static_cast<int>(torch::cuda::device_count());
  if (n_devices == 0) {
    CHECK_ERROR(ofcv::Model(path, "cuda"),
                "device: expected cpu (this machine or LibTorch has no CUDA), got 'cuda'");
  } else {
    CHECK_ERROR(ofcv::Model(path, "cuda:99"),
                "device: expected an index below " + std::to_string(n_devices) + ", got 'cuda:99'");
  }
}

void test_memory(const fs::path& cases) {
  // The memory of a CPU is the host's.
  for_each_batch(cases, [](const ofcv::Model& model, const Batch& batch) {
    for (const DType dtype : precisions) {
      const std::vector<Array> host = batch.evaluate(model, dtype);
      const std::vector<Array> device = batch.evaluate(model, dtype, ofcv::Memory::device);
      for (std::size_t i = 0; i < host.size(); ++i) CHECK(device[i].bytes == host[i].bytes);
    }
  });
}

void require_cuda() {
  if (!torch::cuda::is_available()) throw check::Skipped("no CUDA device");
}

constexpr double cuda_tolerance(DType dtype) { return dtype == DType::float32 ? 1e-5 : 1e-12; }

at::Tensor on_cuda(const Array& array) { return tensor_of(array).to(at::kCUDA); }

Array on_host(const at::Tensor& tensor, DType dtype) {
  Array array(dtype, tensor.sizes().vec());
  CHECK(tensor.is_cuda() && tensor.scalar_type() == ofcv::detail::scalar_type(dtype));
  tensor_of(array).copy_(tensor);
  return array;
}

void check_close(const std::vector<Array>& found, const std::vector<Array>& expected,
                 double tolerance) {
  CHECK(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    CHECK(relative_error(found[i], expected[i]) < tolerance);
  }
}

void check_same_bits(const std::vector<Array>& found, const std::vector<Array>& expected) {
  CHECK(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i].bytes == expected[i].bytes);
}

/// The outputs of `model`, which is on CUDA, of tensors there.
std::vector<Array> of_cuda_tensors(const ofcv::Model& model, const Batch& batch) {
  std::vector<at::Tensor> inputs;
  for (const Array& input : batch.inputs) inputs.push_back(on_cuda(input));
  const std::vector<at::Tensor> results = model(inputs);
  std::vector<Array> arrays;
  for (std::size_t i = 0; i < results.size(); ++i) {
    arrays.push_back(on_host(results[i], model.metadata().outputs[i].dtype));
  }
  return arrays;
}

/// The same from pointers to memory of the device, with floating-point numbers in `dtype`, and
/// nothing written past the end.
std::vector<Array> of_cuda_memory(const ofcv::Model& model, const Batch& batch, DType dtype,
                                  ofcv::Checks checks) {
  std::vector<at::Tensor> inputs, outputs;
  std::vector<ofcv::View> views;
  for (const Array& input : batch.inputs) {
    const DType given = is_floating(input.dtype) ? dtype : DType::int32;
    inputs.push_back(on_cuda(converted(input, given)));
    views.emplace_back(inputs.back().const_data_ptr(), given, input.shape);
  }
  std::vector<ofcv::MutableView> result_views;
  const auto options = at::TensorOptions(at::kCUDA).dtype(ofcv::detail::scalar_type(dtype));
  for (const Array& output : batch.outputs) {
    outputs.push_back(at::full({ofcv::count(output.shape) + 1}, 42.0, options));
    result_views.emplace_back(outputs.back().mutable_data_ptr(), dtype, output.shape);
  }
  model.evaluate(views, result_views, checks, ofcv::Memory::device);
  std::vector<Array> results;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::int64_t size = ofcv::count(batch.outputs[i].shape);
    CHECK(outputs[i][size].item<double>() == 42.0);
    const at::Tensor written = outputs[i].slice(0, 0, size).view(batch.outputs[i].shape);
    results.push_back(on_host(written, dtype));
  }
  return results;
}

/// Every scripted case on the CPU and on CUDA, with one of its batches.
void for_each_cuda_batch(const fs::path& cases,
                         const std::function<void(const ofcv::Model& cpu, const ofcv::Model& cuda,
                                                  const Batch&)>& test) {
  require_cuda();
  int n_batches = 0;
  for (const auto& entry : fs::directory_iterator(cases)) {
    const fs::path path = entry.path() / "model.pt";
    if (!fs::exists(path)) continue;
    const ofcv::Model cpu(path.string()), cuda(path.string(), "cuda");
    for (const auto& folder : fs::directory_iterator(entry.path())) {
      if (!folder.is_directory()) continue;
      test(cpu, cuda, Batch(cpu.metadata(), folder.path()));
      ++n_batches;
    }
  }
  CHECK(n_batches >= 30);
}

void test_cuda_tensors(const fs::path& cases) {
  for_each_cuda_batch(cases, [](const auto& cpu, const auto& cuda, const Batch& batch) {
    const DType dtype = cpu.metadata().outputs[0].dtype;
    const std::vector<Array> expected = batch.evaluate(cpu, dtype);
    check_close(of_cuda_tensors(cuda, batch), expected, cuda_tolerance(dtype));
  });
}

void test_cuda_host_memory(const fs::path& cases) {
  for_each_cuda_batch(cases, [](const auto& cpu, const auto& cuda, const Batch& batch) {
    for (const DType dtype : precisions) {
      const bool is_own = dtype == cpu.metadata().outputs[0].dtype;
      const double tolerance = cuda_tolerance(is_own ? dtype : DType::float32);
      check_close(batch.evaluate(cuda, dtype), batch.evaluate(cpu, dtype), tolerance);
    }
  });
}

void test_cuda_device_memory(const fs::path& cases) {
  for_each_cuda_batch(cases, [](const auto& cpu, const auto& cuda, const Batch& batch) {
    for (const DType dtype : precisions) {
      const bool is_own = dtype == cpu.metadata().outputs[0].dtype;
      const double tolerance = cuda_tolerance(is_own ? dtype : DType::float32);
      const std::vector<Array> expected = batch.evaluate(cpu, dtype);
      for (const ofcv::Checks checks : {ofcv::Checks::all, ofcv::Checks::shapes_only}) {
        check_close(of_cuda_memory(cuda, batch, dtype, checks), expected, tolerance);
      }
    }
  });
}

void test_cuda_same_bits(const fs::path& cases) {
  for_each_cuda_batch(cases, [](const auto& cpu, const auto& cuda, const Batch& batch) {
    const DType dtype = cpu.metadata().outputs[0].dtype;
    const std::vector<Array> tensors = of_cuda_tensors(cuda, batch);
    for (int call = 0; call < 20; ++call) {
      check_same_bits(of_cuda_tensors(cuda, batch), tensors);
      check_same_bits(of_cuda_memory(cuda, batch, dtype, ofcv::Checks::shapes_only), tensors);
    }
  });
}

void test_cuda_refusals(const fs::path& cases) {
  require_cuda();
  const ofcv::Model model(model_of(cases, "smart_derivatives", DType::float32), "cuda");
  const at::Tensor x = at::ones({3, 21}, at::kCUDA), frames = at::arange(3, at::kLong).cuda();
  const at::Tensor out = at::full({3, 7, 3}, 42.0, at::kCUDA);
  const ofcv::View x_view(x.const_data_ptr<float>(), {3, 21});
  const ofcv::View frames_view(frames.const_data_ptr<std::int64_t>(), {3});
  const ofcv::MutableView out_view(out.mutable_data_ptr<float>(), {3, 7, 3});
  const auto evaluate = [&](const ofcv::View& first, const ofcv::View& second,
                            const ofcv::MutableView& result,
                            ofcv::Checks checks = ofcv::Checks::all) {
    model.evaluate({first, second}, {result}, checks, ofcv::Memory::device);
  };

  // The words are those for a CPU.
  const std::string input = "output_wrt_descriptors: expected ", output = "output_wrt_positions: ";
  CHECK_ERROR(model({x.slice(1, 0, 20), frames}), input + "shape (batch, 21), got (3, 20)");
  CHECK_ERROR(model({x.to(at::kDouble), frames}), input + "dtype float32, got float64");
  CHECK_ERROR(model({x.cpu(), frames}), input + "a tensor on cuda:0, got one on cpu");
  CHECK_ERROR(model({x, frames + 10}),
              "ref_idx: expected indices in [0, 12), got 12 at position 2");
  CHECK_ERROR(evaluate({x.const_data_ptr<float>(), {3, 20}}, frames_view, out_view),
              input + "shape (batch, 21), got (3, 20)");
  CHECK_ERROR(evaluate(frames_view, frames_view, out_view), input + "shape (batch, 21), got (3,)");
  CHECK_ERROR(evaluate({frames.const_data_ptr(), DType::int64, {3, 21}}, frames_view, out_view),
              input + "dtype float32 or float64, got int64");
  CHECK_ERROR(evaluate(x_view, frames_view, {out.mutable_data_ptr<float>(), {3, 21}}),
              output + "expected shape (batch, 7, 3), got (3, 21)");

  // Values, which are looked at on the host.
  const at::Tensor nan = at::full({3, 21}, std::nan(""), at::kCUDA), late = frames + 10;
  CHECK_ERROR(evaluate({nan.const_data_ptr<float>(), {3, 21}}, frames_view, out_view),
              input + "finite values, got nan at index (0, 0)");
  CHECK_ERROR(evaluate(x_view, {late.const_data_ptr<std::int64_t>(), {3}}, out_view),
              "ref_idx: expected indices in [0, 12), got 12 at position 2");

  // Pointers to memory of the host's, whatever else is checked.
  std::vector<float> host(3 * 21);
  const std::string place = "a pointer to memory of cuda:0, got one to the host's";
  for (const ofcv::Checks checks : {ofcv::Checks::all, ofcv::Checks::shapes_only}) {
    CHECK_ERROR(evaluate({host.data(), {3, 21}}, frames_view, out_view, checks), input + place);
    CHECK_ERROR(evaluate(x_view, frames_view, {host.data(), {3, 7, 3}}, checks),
                output + "expected " + place);
  }
  CHECK(out.eq(42.0).all().item<bool>());
  evaluate(x_view, frames_view, out_view);
  CHECK(!out.eq(42.0).any().item<bool>());
}

/// Any flipped byte is either noticed, or no part of the content: the results are the same bits.
void check_flipped_bytes(const fs::path& cases, const char* file, std::size_t step) {
  const std::string path = model_of(cases, "smart_derivatives", DType::float32, file);
  const std::string good = bytes_of(path), bad = std::string("bad-") + file;
  const Batch batch(ofcv::read_metadata(path), cases / "smart_derivatives-float32" / "5");
  const std::vector<Array> results = batch.evaluate(ofcv::Model(path), DType::float32);
  int n_refused = 0, n_unchanged = 0;
  for (std::size_t i = 0; i < good.size(); i += step) {
    std::string bytes = good;
    bytes[i] = static_cast<char>(~bytes[i]);
    file_with(bad, bytes);
    try {
      CHECK(batch.evaluate(ofcv::Model(bad), DType::float32)[0].bytes == results[0].bytes);
      ++n_unchanged;
    } catch (const ofcv::Error& error) {
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      ++n_refused;
    }
  }
  CHECK(n_refused > n_unchanged);
}

void test_bad_files(const fs::path& cases) {
  const auto load = [](const std::string& path) { ofcv::Model model(path); };
  const std::string foreign = "model: expected an ofcv-export artifact, got 'bad.pt' ";
  const std::string good = bytes_of(model_of(cases, "smart_derivatives", DType::float32));

  CHECK_ERROR(load("missing.pt"), "model: expected an existing file, got 'missing.pt'");
  CHECK_ERROR(load("."), "model: expected an existing file, got '.'");
  for (const char* content : {"", "a text file\n", "\x08\x0a\x12\x07pytorch"}) {
    CHECK_ERROR(load(file_with("bad.pt", content)), foreign + "(not a TorchScript archive)");
  }
  for (const double part : {0.01, 0.5, 0.9, 0.999}) {
    const auto size = static_cast<std::size_t>(part * static_cast<double>(good.size()));
    CHECK_ERROR(load(file_with("bad.pt", good.substr(0, size))),
                foreign + "(truncated or damaged)");
  }

  torch::jit::Module module("other");
  module.define("def forward(self, x):\n    return x\n");
  module.save("bad.pt");
  CHECK_ERROR(load("bad.pt"), foreign + "(no ofcv.json in the archive)");
  module.save("bad.pt", {{"ofcv.json", "{\"schema\": 2}"}});
  CHECK_ERROR(load("bad.pt"), foreign + "(no digest in the archive)");
  module.save("bad.pt", {{"ofcv.json", "{\"schema\": 2}"}, {"ofcv.sha256", std::string(64, '0')}});
  CHECK_ERROR(load("bad.pt"), foreign + "(its content does not match its digest)");

  // A flipped bit in the frozen values, which LibTorch alone would load, and in the metadata.
  const std::string weights = "constants/1";
  for (const std::string& record : {weights, std::string("extra/ofcv.json")}) {
    std::string bytes = good;
    const std::size_t header = bytes.find(record);
    CHECK(header != bytes.npos);
    bytes[header + 200] ^= 1;
    file_with("bad.pt", bytes);
    if (record == weights) torch::jit::load("bad.pt");
    CHECK_ERROR(load("bad.pt"), foreign + "(its content does not match its digest)");
    CHECK_ERROR(ofcv::read_metadata("bad.pt"), foreign + "(its content does not match its digest)");
  }

  check_flipped_bytes(cases, "model.pt", 61);
}

void test_bad_packages(const fs::path& cases) {
  const auto load = [](const std::string& path) { ofcv::Model model(path); };
  const std::string foreign = "model: expected an ofcv-export artifact, got 'bad.pt2' ";
  const std::string good = bytes_of(package_of(cases, "smart_derivatives", DType::float32));

  CHECK_ERROR(load(file_with("bad.pt2", "a text file\n")),
              foreign + "(not an AOTInductor package)");
  for (const double part : {0.01, 0.5, 0.9, 0.999}) {
    const auto size = static_cast<std::size_t>(part * static_cast<double>(good.size()));
    CHECK_ERROR(load(file_with("bad.pt2", good.substr(0, size))),
                foreign + "(truncated or damaged)");
  }
  for (const std::string& place : {std::string("\177ELF"), std::string("\"schema\"")}) {
    std::string bytes = good;
    const std::size_t begin = bytes.find(place);
    CHECK(begin != bytes.npos);
    bytes[begin + 100] ^= 1;
    CHECK_ERROR(load(file_with("bad.pt2", bytes)),
                foreign + "(its content does not match its digest)");
  }
  check_flipped_bytes(cases, "model.pt2", 4999);

  // Compiled for another machine: refused before any of its code runs.
  const fs::path refused = cases / "refused";
  const std::string release =
      std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR);
  const std::string devices = torch::cuda::is_available() ? "cpu or cuda" : "cpu";
  CHECK_ERROR(load(refused / "instruction_set.pt2"),
              "model: expected an artifact for this CPU, got one that needs avx1024 avx2048");
  CHECK_ERROR(load(refused / "version.pt2"), "model: expected an artifact compiled by PyTorch " +
                                                 release + ", got one compiled by PyTorch 1.99");
  CHECK_ERROR(load(refused / "device.pt2"),
              "model: expected an artifact for " + devices + ", got one for xpu");
  CHECK(ofcv::read_metadata(refused / "device.pt2").device == "xpu");
  if (torch::cuda::is_available()) {
    CHECK_ERROR(ofcv::Model(package_of(cases, "smart_derivatives", DType::float32), "cuda"),
                "device: expected cpu, for which the artifact was compiled, got 'cuda:0'");
  }

  const std::string no_code = refused / "no_code.pt2", no_library = refused / "no_library.pt2";
  CHECK_ERROR(load(no_code), "model: expected an ofcv-export artifact, got '" + no_code +
                                 "' (no compiled code in the archive)");
  CHECK_ERROR_BEGINS(load(no_library),
                     "model: expected an artifact that this LibTorch can load, got ");
  // What the name says is of no matter to a file that is whole.
  ofcv::Model(file_with("renamed.pt", good));
  ofcv::Model(
      file_with("renamed.pt2", bytes_of(model_of(cases, "smart_derivatives", DType::float32))));
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"sha256", test_sha256},
                     {"npy", test_npy},
                     {"xyz", test_xyz},
                     {"trajectory", test_trajectory},
                     {"box", test_box},
                     {"metadata", test_metadata},
                     {"parity", test_parity},
                     {"raw_pointers", test_raw_pointers},
                     {"sizes_of_results", test_sizes_of_results},
                     {"threads", test_threads},
                     {"fixed_order", test_fixed_order},
                     {"tensors", test_tensors},
                     {"lazily_negated", test_lazily_negated},
                     {"compiled", test_compiled},
                     {"bad_arguments", test_bad_arguments},
                     {"bad_files", test_bad_files},
                     {"bad_packages", test_bad_packages},
                     {"memory", test_memory},
                     {"cuda_tensors", test_cuda_tensors},
                     {"cuda_host_memory", test_cuda_host_memory},
                     {"cuda_device_memory", test_cuda_device_memory},
                     {"cuda_same_bits", test_cuda_same_bits},
                     {"cuda_refusals", test_cuda_refusals}});
}
