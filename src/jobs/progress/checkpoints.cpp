#include "jobs/progress/checkpoints.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string_view>

#include "models/safetensors.h"

namespace lathe::progress {

namespace {

constexpr std::size_t kMaxEntries = 5000;
constexpr std::size_t kMaxState = 64 << 20;
constexpr std::uint64_t kMaxRead = 64 << 20;  // of the headers and indexes of one checkpoint
constexpr std::string_view kState = "trainer_state.json";

std::string_view base_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

/// With its slash; "" at the top.
std::string_view folder_of(std::string_view path) {
  return path.substr(0, path.rfind('/') + 1);
}

bool is_hidden(std::string_view path) {
  return path.starts_with('.') || path.find("/.") != std::string_view::npos;
}

std::optional<std::int64_t> step_of(std::string_view name) {
  for (const std::string_view prefix : {"checkpoint-", "global_step", "step-", "step_", "epoch-", "epoch_"}) {
    if (!name.starts_with(prefix)) continue;
    const auto digits = name.substr(prefix.size());
    std::int64_t step = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
    if (error == std::errc{} && end == digits.data() + digits.size() && step >= 0) return step;
  }
  return std::nullopt;
}

/// All the parts of the set that `name-00001-of-00003.ending` is one of; nothing for another name.
std::vector<std::string> shards_of(std::string_view path) {
  constexpr std::size_t kDigits = 5;
  constexpr std::string_view kOf = "-of-";
  const auto of = path.rfind(kOf);
  if (of == std::string_view::npos || of < kDigits + 1 || path[of - kDigits - 1] != '-') return {};
  const auto number = [&](std::size_t at) {
    const auto digits = path.substr(at, kDigits);
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc{} && end == digits.data() + kDigits ? value : 0;
  };
  const std::size_t count = number(of + kOf.size());
  if (number(of - kDigits) == 0 || count > kMaxEntries) return {};
  std::vector<std::string> out;
  for (std::size_t i = 1; i <= count; ++i)
    out.push_back(fmt::format("{}{:05}{}", path.substr(0, of - kDigits), i, path.substr(of)));
  return out;
}

/// By its brackets alone: Python writes NaN into its JSON, which no other parser takes.
bool is_whole_object(std::string_view text) {
  int depth = 0;
  bool quoted = false, ended = false;
  for (std::size_t i = text.find('{'); i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      i += c == '\\';
      quoted = c != '"';
    } else if (ended) {
      if (c != ' ' && c != '\t' && c != '\r' && c != '\n') return false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      ended = --depth == 0;
    }
  }
  return ended;
}

/// The files of one checkpoint, by their paths within it.
class Contents {
 public:
  Contents(Directory root, std::map<std::string, FileInfo> files)
      : root_(std::move(root)), files_(std::move(files)) {}

  bool has_state() const { return files_.contains(std::string(kState)); }

  bool whole() const {
    // config.json comes first of all, and says nothing of the training.
    return std::any_of(files_.begin(), files_.end(),
                       [](const auto& file) { return !file.first.ends_with("config.json"); }) &&
           std::all_of(files_.begin(), files_.end(),
                       [this](const auto& file) { return whole(file.first, file.second); });
  }

 private:
  bool whole(const std::string& path, const FileInfo& info) const {
    const auto shards = shards_of(path);
    if (!std::all_of(shards.begin(), shards.end(),
                     [this](const auto& each) { return files_.contains(each); }))
      return false;
    if (path == kState) return state_is_closed();
    if (info.type != FileType::file) return true;  // a link to what is none of the checkpoint's own
    const auto ends = [&](std::string_view with) { return path.ends_with(with); };
    const bool pytorch = ends(".bin") || ends(".pt") || ends(".pth");
    if (!pytorch && !ends(".safetensors") && !ends(".index.json")) return true;
    const auto parsed = Path::parse(path, "path");
    if (!parsed.ok()) return false;
    const auto file = root_.open_file(*parsed);
    if (!file.ok()) return false;
    const models::ReadAt read = [this, at = models::read_from(file->get())](std::uint64_t offset,
                                                                            std::span<char> into) {
      read_ += into.size();
      return read_ <= kMaxRead ? at(offset, into) : Result<std::size_t>(0);
    };
    if (pytorch) return info.size > 0 && archive_is_closed(info.size, read);
    if (ends(".safetensors")) return models::read_safetensors(info.size, read).ok();
    const auto index = models::read_shard_index(info.size, read);
    const std::string folder(folder_of(path));
    return index.ok() && std::all_of(index->files.begin(), index->files.end(),
                                     [&](const auto& each) { return files_.contains(folder + each); });
  }

  bool state_is_closed() const {
    const auto path = Path::parse(kState, "path");
    const auto text = root_.read_file(*path, kMaxState);
    return text.ok() && is_whole_object(*text);
  }

  /// PyTorch's files are ZIP archives without a comment: 22 bytes at the very end are written last. Older
  /// ones are pickles, of which nothing can be said.
  static bool archive_is_closed(std::uint64_t size, const models::ReadAt& read) {
    constexpr std::uint64_t kEndSize = 22;
    char mark[4] = {};
    const auto is = [&](std::uint64_t offset, std::string_view wanted) {
      const auto got = read(offset, mark);
      return got.ok() && *got == sizeof mark && std::string_view(mark, sizeof mark) == wanted;
    };
    return !is(0, "PK\x03\x04") || (size >= kEndSize && is(size - kEndSize, "PK\x05\x06"));
  }

  Directory root_;
  std::map<std::string, FileInfo> files_;
  mutable std::uint64_t read_ = 0;
};

}  // namespace

std::vector<Checkpoint> find_checkpoints(const Directory& directory) {
  std::vector<Checkpoint> out;
  std::set<std::string, std::less<>> trainers;  // folders in which a Trainer saves
  std::size_t entries = 0;
  const auto walked = directory.walk({}, [&](std::string_view path, const FileInfo& info) {
    // A folder comes before what it holds.
    if (!out.empty() && path.starts_with(out.back().path + "/")) {
      const auto name = path.substr(out.back().path.size() + 1);
      if (name == kState || name == "training_args.bin") trainers.emplace(folder_of(out.back().path));
    } else if (info.type == FileType::directory && !is_hidden(path)) {
      if (const auto step = step_of(base_name(path)))
        out.push_back({std::string(path), *step, info.modified});
    }
    return ++entries < kMaxEntries;
  });
  if (!walked.ok()) return out;
  for (auto& each : out) each.of_trainer = trainers.contains(folder_of(each.path));
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return out;
}

bool is_complete(const Directory& directory, const Checkpoint& checkpoint) {
  const auto path = Path::parse(checkpoint.path, "path");
  if (!path.ok()) return false;
  auto root = directory.at(*path, Links::refuse);
  if (!root.ok()) return false;
  std::map<std::string, FileInfo> files;
  const auto walked = root->walk({}, [&](std::string_view name, const FileInfo& info) {
    if (info.type != FileType::directory && !is_hidden(name)) files.emplace(name, info);
    return files.size() < kMaxEntries;
  });
  if (!walked.ok()) return false;
  const Contents contents(std::move(root).value(), std::move(files));
  return (contents.has_state() || !checkpoint.of_trainer) && contents.whole();
}

}  // namespace lathe::progress
