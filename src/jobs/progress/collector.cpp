#include "jobs/progress/collector.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

namespace lathe::progress {

namespace {

constexpr std::size_t kMaxLogBytesPerLook = 4 << 20;
constexpr std::size_t kMaxFileBytes = 16 << 20;
constexpr std::size_t kMaxEntriesPerLook = 5000;
constexpr std::size_t kMaxLine = 64 * 1024;

std::string_view base_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

std::string_view parent_name(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view{} : base_name(path.substr(0, slash));
}

bool is_hidden(std::string_view path) {
  return base_name(path).starts_with('.') || path.find("/.") != std::string_view::npos;
}

/// How a file is read, by its name. Nothing for the many files that are none of ours.
enum class Form {
  none,
  trainer_state,
  trainer_log,
  lm_eval,
  opencompass_summary,
  opencompass_result,
  metrics,
  events
};

Form form_of(std::string_view path) {
  const auto name = base_name(path);
  if (name == "trainer_state.json") return Form::trainer_state;
  if (name == "trainer_log.jsonl") return Form::trainer_log;
  if (name == "metrics.json" || name == "all_results.json" || name == "eval_results.json")
    return Form::metrics;
  if (name.starts_with("results_") && name.ends_with(".json")) return Form::lm_eval;
  if (name.starts_with("summary") && name.ends_with(".csv") && parent_name(path) == "summary")
    return Form::opencompass_summary;
  if (name.ends_with(".json") && path.find("results/") != std::string_view::npos)
    return Form::opencompass_result;
  if (name.starts_with("events.out.tfevents.")) return Form::events;
  return Form::none;
}

bool grows(Form form) {
  return form == Form::trainer_log || form == Form::events;
}

std::string read_from(int fd, std::uint64_t offset, std::size_t limit) {
  std::string out(limit, '\0');
  std::size_t done = 0;
  while (done < limit) {
    const ssize_t got = pread(fd, out.data() + done, limit - done, static_cast<off_t>(offset + done));
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  out.resize(done);
  return out;
}

Findings read_form(Form form, std::string_view text, std::string_view name) {
  switch (form) {
    case Form::trainer_state:
      return read_trainer_state(text);
    case Form::lm_eval:
      return read_lm_eval(text);
    case Form::opencompass_summary:
      return read_opencompass_summary(text);
    case Form::opencompass_result:
      return read_opencompass_result(text, name.substr(0, name.rfind('.')));
    case Form::metrics:
      return read_metrics_json(text);
    default:
      return {};
  }
}

Findings read_grown(Form form, std::string_view text, std::size_t& consumed) {
  if (form == Form::events) return read_event_file(text, consumed);
  Findings out;
  for (auto end = text.find('\n', consumed); end != std::string_view::npos; end = text.find('\n', consumed)) {
    out.merge(read_trainer_log_line(text.substr(consumed, end - consumed)));
    consumed = end + 1;
  }
  return out;
}

}  // namespace

Collector::Collector(Sources sources) : sources_(std::move(sources)) {}

Findings Collector::look() {
  Findings out;
  read_log(out);
  for (std::size_t i = 0; i < sources_.directories.size(); ++i) read_files(sources_.directories[i], i, out);
  return out;
}

void Collector::read_log(Findings& out) {
  const Fd fd(::open(sources_.log_path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return;
  const std::string fresh = read_from(fd.get(), log_offset_, kMaxLogBytesPerLook);
  log_offset_ += fresh.size();
  std::string_view rest = fresh;
  for (auto end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
    partial_line_ += rest.substr(0, end);
    auto found = read_log_line(partial_line_, last_step_);
    if (found.step) last_step_ = found.step;
    out.merge(std::move(found));
    partial_line_.clear();
    rest.remove_prefix(end + 1);
  }
  partial_line_ += rest;
  // A bar without line ends: what it says now counts, and the line must not grow for ever.
  if (auto found = read_log_line(partial_line_, last_step_); found.fraction) {
    last_step_ = found.step;
    out.merge(std::move(found));
  }
  if (partial_line_.size() > kMaxLine) partial_line_.clear();
}

void Collector::read_files(const Directory& directory, std::size_t index, Findings& out) {
  std::vector<std::pair<std::string, FileInfo>> found;
  std::size_t entries = 0;
  const auto walked = directory.walk({}, [&](std::string_view path, const FileInfo& info) {
    if (info.type == FileType::file && info.modified >= sources_.since && !is_hidden(path) &&
        form_of(path) != Form::none)
      found.emplace_back(path, info);
    return ++entries < kMaxEntriesPerLook;
  });
  if (!walked.ok()) return;
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.second.modified < b.second.modified; });
  for (const auto& [path, info] : found) {
    std::string key = std::to_string(index) + "/" + path;
    read_file(directory, path, info, key, out);
  }
}

void Collector::read_file(const Directory& directory, const std::string& path, const FileInfo& info,
                          std::string& seen_key, Findings& out) {
  Seen& seen = seen_[seen_key];
  if (seen.modified == info.modified && seen.size == info.size) return;
  const auto parsed = Path::parse(path, "path");
  if (!parsed.ok()) return;
  const auto file = directory.open_file(*parsed, Links::refuse);
  if (!file.ok()) return;
  const Form form = form_of(path);
  seen.modified = info.modified;
  seen.size = info.size;
  if (!grows(form)) {
    out.merge(read_form(form, read_from(file->get(), 0, std::min<std::size_t>(info.size, kMaxFileBytes)),
                        base_name(path)));
    return;
  }
  if (info.size < seen.offset) seen.offset = 0;  // started anew
  const std::string text =
      read_from(file->get(), seen.offset, std::min<std::size_t>(info.size - seen.offset, kMaxFileBytes));
  std::size_t consumed = 0;
  out.merge(read_grown(form, text, consumed));
  seen.offset += consumed;
}

}  // namespace lathe::progress
