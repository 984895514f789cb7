#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "accounts/accounts.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "db/database.h"
#include "files/files.h"
#include "http/api.h"
#include "images/images.h"
#include "quotas/quotas.h"

namespace lathe::models {

/// The life of a version: importing ──► ready | failed. An import that was under way when the server ended
/// begins again.
enum class State { importing, ready, failed };
std::string_view name(State state);  ///< "importing", …: the stored word, and the own API's
/// The documented number: 1 导入中, 2 导入完成, 3 导入失败.
int documented_status(State state);

/// Where a version's files came from; the documented numbers.
enum class Source { training = 1, image = 2, path = 3 };

/// What the files of a model are, as far as they can be told without running anything.
struct ModelFacts {
  /// "safetensors", "gguf", "pytorch", "adapter" (weights that belong on top of a base model), "onnx",
  /// "tensorflow", or "" where it cannot be told.
  std::string format;
  std::string architecture;         ///< the first of config.json's `architectures`, e.g. "LlamaForCausalLM"
  std::string model_type;           ///< config.json's `model_type`, e.g. "llama"
  std::string dtype;                ///< of most of the parameters, as safetensors spells it: "BF16"
  std::int64_t parameters = 0;      ///< how many numbers; 0: not known
  std::string adapter_base;         ///< of an adapter: the model it belongs to, as it says itself
  std::string quantization;         ///< "gptq", "awq", "fp8" …; "" for none
  std::int64_t context_length = 0;  ///< tokens; 0: not known
  bool tokenizer = false;           ///< the files of a tokenizer are there
};

/// A version of a model, as others see it.
struct ModelVersion {
  std::string id;
  std::string model_id;
  std::string model_name;
  std::string version;  ///< as its owner called it: "0.0.1"
  std::string user_id;
  Source source = Source::path;
  State state = State::importing;
  Text failure;  ///< why it is `failed`; else empty
  /// Host folder of the platform's own, and the version's folder beneath it: the two halves of a mount. Both
  /// "" for a version that is only an image (Source::image), and nothing is there before it is `ready`.
  std::string root;
  std::string path;
  std::string image;            ///< the image it runs in, as it was named; "" where none was
  std::string training_output;  ///< of Source::training: what was asked of TrainingOutputs
  std::int64_t size_bytes = 0;
  ModelFacts facts;

  std::string full_name() const { return model_name + ":" + version; }
};

/// What a job has left behind that can become a model version.
struct TrainingOutput {
  std::string root;     ///< host folder, trusted; is there for as long as the output is
  std::string path;     ///< of the model's folder beneath it, resolved strictly beneath `root`; "" is root
  std::string user_id;  ///< whose it is
  std::string image;    ///< the image it was made with; may be ""
  std::string metrics;  ///< JSON text; "" for none
};

/// Who knows what jobs have left behind. Implemented by jobs. Safe from any thread.
class TrainingOutputs {
 public:
  virtual ~TrainingOutputs() = default;
  /// `id` is what a client named: a job's id (its final model, else its newest checkpoint), or the id of one
  /// checkpoint as jobs give them out. `field` is what the client called it, for the error: not_found where
  /// `who` may not see it, failed_precondition where it has produced nothing (yet).
  virtual Result<TrainingOutput> output_of(std::string_view id, const http::Identity& who,
                                           std::string_view field) = 0;
};

struct Options {
  std::string folder;         ///< DATA/models; made where absent
  std::size_t importers = 2;  ///< imports at the same time
};

/// Models and their versions. Safe from any thread. References given to `open` must outlive it. Imports under
/// way end with it, and begin again at the next start.
class Models : public quotas::StorageSource {
 public:
  static Result<std::unique_ptr<Models>> open(db::Database& db, accounts::Accounts& accounts,
                                              files::Files& files, images::Images& images,
                                              accounts::Audit& audit, IdSource& ids, const Clock& clock,
                                              Options options);

  /// A version that `caller` may read: their own, or anybody's for an administrator. not_found, naming
  /// `field`, for any other. It may still be importing: see ModelVersion::state.
  virtual Result<ModelVersion> version(std::string_view id, const http::Identity& caller,
                                       std::string_view field) = 0;
  /// The same for the platform's own errands, and inside the transaction that begins to use it, so that it
  /// cannot be deleted in between. Nothing if there is none.
  virtual std::optional<ModelVersion> version(db::Transaction& tx, std::string_view id) = 0;
  virtual Result<ModelVersion> version(std::string_view id) = 0;
  /// The versions that were taken from these training outputs (the ids given to TrainingOutputs), newest
  /// first.
  virtual Result<std::vector<ModelVersion>> versions_of_outputs(std::span<const std::string> ids) = 0;

  // Called at start, before `start`:

  /// Without one, Source::training is refused. Must live as long as the Models.
  virtual void set_training_outputs(TrainingOutputs& outputs) = 0;
  /// Asked inside the transaction that would delete a version; an error refuses and says what uses it.
  using DeletionGuard = std::function<Result<void>(db::Transaction& tx, std::string_view version_id)>;
  virtual void guard_deletion(DeletionGuard guard) = 0;
  /// A hint that a version has become ready, or failed, or was deleted, or that its files are gone. Called on
  /// a worker's thread; must not block.
  using Observer = std::function<void(std::string_view version_id)>;
  virtual void on_change(Observer observer) = 0;

  /// Begins the background work: imports that were under way begin again.
  virtual Result<void> start() = 0;
  /// Sections 3.1–3.5, /api/v1/models and /api/v1/model-versions.
  virtual void add_routes(http::Api& api) = 0;
};

}  // namespace lathe::models
