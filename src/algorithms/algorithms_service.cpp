#include "algorithms/algorithms_service.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <map>

#include "algorithms/definition.h"
#include "algorithms/embedded.h"
#include "base/directory.h"

namespace lathe::algorithms {

namespace {

constexpr std::size_t kMaxFile = 1 << 20;
constexpr std::size_t kMaxFiles = 10'000;

/// What a file of this name is; nothing where it is no definition.
std::optional<Format> format_of(std::string_view name) {
  if (name.starts_with('.')) return std::nullopt;
  if (name.ends_with(".yaml") || name.ends_with(".yml")) return Format::yaml;
  if (name.ends_with(".json")) return Format::json;
  return std::nullopt;
}

Error in_file(const std::string& name, Error error) {
  error.message = {fmt::format("{}：{}", name, error.message.zh),
                   fmt::format("{}: {}", name, error.message.en)};
  return error;
}

/// By id; `origin` names the folder for errors.
using Definitions = std::map<std::string, wire::Definition>;

Result<void> take(const std::string& file, Format format, std::string_view text, Definitions& into) {
  auto definition = read_definition(text, format);
  if (!definition.ok()) return in_file(file, definition.error());
  const std::string id = definition->algorithm.id;
  if (!into.emplace(id, std::move(*definition)).second)
    return in_file(file, invalid_field("id", {"另一个文件已使用：" + id, "another file has the id " + id}));
  return {};
}

Result<Definitions> read_folder(const std::string& path) {
  Definitions out;
  const Directory folder = TRY(Directory::open(path));
  std::string after;
  for (std::size_t seen = 0; seen < kMaxFiles;) {
    const auto page = TRY(folder.list(Path(), after, 500));
    if (page.empty()) break;
    seen += page.size();
    after = page.back().name;
    for (const auto& entry : page) {
      const auto format = format_of(entry.name);
      if (!format) continue;
      const std::string text = TRY(folder.read_file(TRY(Path::parse(entry.name, "algorithms")), kMaxFile));
      TRY(take(path + "/" + entry.name, *format, text, out));
    }
  }
  return out;
}

/// Of all the code in the binary: a new release writes it to a new place, and jobs under way keep theirs.
std::string digest_of(std::span<const EmbeddedFile> files) {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  EVP_DigestInit_ex(context, EVP_sha256(), nullptr);
  for (const auto& file : files) {
    EVP_DigestUpdate(context, file.name.data(), file.name.size());
    EVP_DigestUpdate(context, "\0", 1);
    EVP_DigestUpdate(context, file.content.data(), file.content.size());
    EVP_DigestUpdate(context, "\0", 1);
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_DigestFinal_ex(context, digest, &length);
  EVP_MD_CTX_free(context);
  std::string out;
  for (unsigned i = 0; i < 8; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

/// Where the built-in algorithms' code is on this machine.
Result<std::string> write_code(const std::string& folder) {
  const auto files = embedded_code();
  const std::string name = "code-" + digest_of(files);
  const Directory root = TRY(Directory::create(folder, 0755));
  const Path target = TRY(Path::parse(name, "algorithms"));
  if (!root.exists(target)) {
    const Path staging = TRY(Path::parse(".staging", "algorithms"));
    TRY(root.remove_tree(staging));
    for (const auto& file : files)
      TRY(root.write_file(staging / TRY(Path::parse(file.name, "algorithms")), file.content));
    TRY(root.rename(staging, target, Directory::Replace::never));
    TRY(root.sync());
  }
  return root.host_path() + "/" + name;
}

Result<void> find_code(const std::string& root, wire::Definition& definition) {
  if (definition.code.empty()) return {};
  const Directory code = TRY(Directory::open(root));
  const auto found = code.at(TRY(Path::parse(definition.code, "code")));
  if (!found.ok())
    return in_file(definition.algorithm.id,
                   invalid_field("code", {fmt::format("{} 中没有 {}", root, definition.code),
                                          fmt::format("{} is not in {}", definition.code, root)}));
  definition.algorithm.code_dir = found->host_path();
  return {};
}

/// How much of the match speaks for the model: nothing if it does not fit.
std::optional<int> fit(const Match& match, const models::ModelFacts& facts) {
  int points = 0;
  const auto matches = [](std::string_view pattern, std::string_view value) {
    if (pattern.starts_with('*')) return value.ends_with(pattern.substr(1));
    if (pattern.ends_with('*')) return value.starts_with(pattern.substr(0, pattern.size() - 1));
    return pattern == value;
  };
  const auto one_of = [&](const std::vector<std::string>& patterns, const std::string& value, int worth) {
    if (patterns.empty()) return true;
    points += worth;
    return std::any_of(patterns.begin(), patterns.end(),
                       [&](const auto& pattern) { return matches(pattern, value); });
  };
  if (!one_of(match.formats, facts.format, 1) || !one_of(match.architectures, facts.architecture, 2))
    return std::nullopt;
  if (match.tokenizer && *match.tokenizer != facts.tokenizer) return std::nullopt;
  return points + (match.tokenizer ? 1 : 0);
}

}  // namespace

Result<std::unique_ptr<Algorithms>> Algorithms::open(const Options& options) {
  Definitions all;
  for (const auto& file : embedded_definitions())
    TRY(take(std::string(file.name), Format::yaml, file.content, all));
  if (!options.directory.empty())
    for (auto& [id, definition] : TRY(read_folder(options.directory))) all[id] = std::move(definition);
  const std::string code = options.code_root.empty() ? TRY(write_code(options.folder)) : options.code_root;
  std::vector<wire::Definition> definitions;
  for (auto& [id, definition] : all) {
    TRY(find_code(code, definition));
    definitions.push_back(std::move(definition));
  }
  return std::unique_ptr<Algorithms>(std::make_unique<Service>(std::move(definitions)));
}

Service::Service(std::vector<wire::Definition> definitions) : definitions_(std::move(definitions)) {
  std::sort(definitions_.begin(), definitions_.end(), [](const auto& a, const auto& b) {
    return std::pair(a.algorithm.kind, a.algorithm.id) < std::pair(b.algorithm.kind, b.algorithm.id);
  });
  for (const auto& definition : definitions_) algorithms_.push_back(definition.algorithm);
}

const Algorithm* Service::find(std::string_view id) const {
  for (const auto& algorithm : algorithms_)
    if (algorithm.id == id) return &algorithm;
  return nullptr;
}

Result<const Algorithm*> Service::get(std::string_view id, Kind kind, std::string_view field) const {
  const Algorithm* found = find(id);
  if (found && found->kind == kind) return found;
  std::vector<std::string> known;
  for (const auto& algorithm : algorithms_)
    if (algorithm.kind == kind) known.push_back(algorithm.id);
  return invalid_field(
      std::string(field),
      {fmt::format("没有这个预置算法；可选：{}", fmt::join(known, ", ")),
       fmt::format("is not a preset algorithm of this kind; there are: {}", fmt::join(known, ", "))});
}

const Algorithm* Service::serving_for(const models::ModelFacts& facts) const {
  const Algorithm* best = nullptr;
  int most = -1;
  for (const auto& algorithm : algorithms_) {
    if (algorithm.kind != Kind::serving) continue;
    const auto points = fit(algorithm.match, facts);
    if (points && *points > most) {
      most = *points;
      best = &algorithm;
    }
  }
  return best;
}

std::vector<wire::Definition> Service::list(std::string_view kind) const {
  std::vector<wire::Definition> out;
  for (const auto& definition : definitions_)
    if (kind.empty() || definition.kind == kind) out.push_back(definition);
  return out;
}

Result<wire::Definition> Service::show(std::string_view id) const {
  for (const auto& definition : definitions_)
    if (definition.algorithm.id == id) return definition;
  return not_found({"预置算法", "preset algorithm"}, id);
}

}  // namespace lathe::algorithms
