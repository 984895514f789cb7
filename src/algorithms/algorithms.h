#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "http/api.h"
#include "models/models.h"

/// Preset algorithms: what a user runs without writing a command. They are data: YAML files (JSON
/// is read, too), the built-in ones within the binary.
namespace lathe::algorithms {

enum class Kind { fine_tune, pretrain, modelling, evaluation, serving };
std::string_view name(Kind kind);  ///< "fine_tune", …: as in the files; the jobs' words for their kinds
std::optional<Kind> kind_named(std::string_view name);

/// A hyper-parameter that an algorithm knows.
struct Parameter {
  std::string name;
  /// "integer", "number", "text", "boolean"; "switch": passed as its bare name, or not at all; "words":
  /// separated by commas or blanks, each a word of its own.
  std::string type;
  std::string group;      ///< "common" or "tuning", as the documented config.json groups them
  std::string value;      ///< default; "" means that it is not passed unless given
  std::string argument;   ///< what the program calls it, where that differs from `name`
  bool required = false;  ///< must be given or have a default
  std::optional<double> min, max;
  std::vector<std::string> choices;  ///< the only values allowed; empty: any
  Text description;
};

struct EnvVar {
  std::string name;
  std::string value;  ///< with placeholders
};

/// Words that are part of the command only where what they speak of is there.
struct OptionalWords {
  std::string when;  ///< name of a placeholder, e.g. "checkpoint_dir"
  std::vector<std::string> words;
};

/// What a serving algorithm can serve. What is empty fits everything.
struct Match {
  std::vector<std::string> formats;  ///< models::ModelFacts::format
  std::vector<std::string>
      architectures;              ///< models::ModelFacts::architecture; a `*` at either end fits anything
  std::optional<bool> tokenizer;  ///< models::ModelFacts::tokenizer
};

struct Algorithm {
  std::string id;
  Kind kind = Kind::fine_tune;
  Text name, description;
  std::string image;  ///< where the request names none; "host" is the machine's own software
  /// Host folder of the algorithm's own code, to be seen read-only as `${algorithm_dir}`; "" for none.
  std::string code_dir;
  /// argv, in which each `${name}` is a placeholder: `model_dir`, `input_dir`, `output_dir`,
  /// `checkpoint_dir`, `work_dir`, `algorithm_dir`, for serving also `port` and `name`; a hyper-parameter's
  /// name is one too. No shell reads it.
  std::vector<std::string> command;
  std::vector<OptionalWords> options;  ///< after `command`, in order
  /// How the hyper-parameters follow after that, save those that stand in it as placeholders: "flags"
  /// (`--name value`), "assignments" (`name=value`), or "none".
  std::string arguments = "flags";
  std::vector<EnvVar> env;
  std::vector<std::string> needs;       ///< directories that a request must give: "model_dir", "input_dir"
  std::vector<std::string> strategies;  ///< fine-tuning strategies it knows; empty: it asks for none
  std::vector<Parameter> parameters;
  Match match;
  std::int64_t port = 0;   ///< serving: the port it listens on where the request says none
  std::string ready_path;  ///< serving: answers 200 once it can serve
};

struct NamedValue {
  std::string name;
  std::string value;
};

/// The values of all hyper-parameters: those given, in their order, then the defaults of the others. All that
/// is wrong is reported at once as violations of `<field>.<name>`; a name that the algorithm does not know is
/// wrong too.
Result<std::vector<NamedValue>> settle(const Algorithm& algorithm, std::span<const NamedValue> given,
                                       std::string_view field);

/// The command line. `places` are the placeholders' values besides the parameters; an empty one counts as
/// absent. invalid_argument, naming what is needed and absent.
Result<std::vector<std::string>> make_argv(const Algorithm& algorithm, std::span<const NamedValue> places,
                                           std::span<const NamedValue> parameters);
/// `env` with the placeholders replaced.
Result<std::vector<NamedValue>> make_env(const Algorithm& algorithm, std::span<const NamedValue> places,
                                         std::span<const NamedValue> parameters);

struct Options {
  std::string directory;  ///< of further files, or of others with built-in ids, which they replace; "": none
  std::string code_root;  ///< of the algorithms' code; "": the built-in code, written below `folder`
  std::string folder;     ///< DATA/algorithms; made where absent
};

/// The algorithms there are. Read at start, constant from then on; safe from any thread.
class Algorithms {
 public:
  /// A file that is wrong is an error that names the file and the fields.
  static Result<std::unique_ptr<Algorithms>> open(const Options& options);
  virtual ~Algorithms() = default;

  /// Null if there is none. Lives as long as the Algorithms.
  virtual const Algorithm* find(std::string_view id) const = 0;
  /// The algorithm that a request names; invalid_argument, naming `field`, where there is none of that kind.
  virtual Result<const Algorithm*> get(std::string_view id, Kind kind, std::string_view field) const = 0;
  /// By kind, then id.
  virtual std::span<const Algorithm> all() const = 0;
  /// The serving algorithm that fits such a model; of several the one that says most about what it fits. Null
  /// if none does.
  virtual const Algorithm* serving_for(const models::ModelFacts& facts) const = 0;

  /// /api/v1/algorithms[/{id}].
  virtual void add_routes(http::Api& api) = 0;
};

}  // namespace lathe::algorithms
