#include "images/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "images/blob_store.h"

namespace lathe::images {

namespace {

constexpr std::size_t kBlock = 1 << 20;
constexpr std::uint64_t kFreeOfRatio = 1ULL << 30;

/// The name without `.` and empty components; nothing if it is absolute or climbs above where it starts.
std::optional<std::string> inside(std::string_view base, std::string_view name) {
  if (name.starts_with('/')) return std::nullopt;
  std::vector<std::string_view> parts;
  for (std::string_view text : {base, name}) {
    while (!text.empty()) {
      const auto slash = text.find('/');
      const std::string_view part = text.substr(0, slash);
      text.remove_prefix(slash == std::string_view::npos ? text.size() : slash + 1);
      if (part.empty() || part == ".") continue;
      if (part != "..") {
        parts.push_back(part);
      } else if (parts.empty()) {
        return std::nullopt;
      } else {
        parts.pop_back();
      }
    }
  }
  std::string out;
  for (const auto part : parts) out += (out.empty() ? "" : "/") + std::string(part);
  return out;
}

bool climbs(std::string_view name) {
  return name == ".." || name.starts_with("../") || name.ends_with("/..") ||
         name.find("/../") != std::string_view::npos;
}

std::string_view folder_of(std::string_view name) {
  const auto slash = name.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : name.substr(0, slash);
}

/// A name for a message: short, and nothing in it that a terminal or a page would act upon.
std::string shown(std::string_view name) {
  std::string out;
  for (const char c : name.substr(0, 100)) out += (c >= 0x20 && c < 0x7f) ? c : '?';
  return "“" + out + "”";
}

}  // namespace

Error bad_archive(Text reason) {
  return {Code::invalid_argument, {"镜像归档有误：" + reason.zh, "the archive " + reason.en}};
}

Result<std::unique_ptr<ArchiveReader>> ArchiveReader::open(Fd file, const ArchiveLimits& limits,
                                                           std::function<bool(std::uint64_t)> progress) {
  std::unique_ptr<ArchiveReader> reader(new ArchiveReader(std::move(file), limits, std::move(progress)));
  reader->buffer_.resize(kBlock);
  reader->archive_ = archive_read_new();
  struct archive* a = reader->archive_;
  archive_read_support_filter_gzip(a);
  archive_read_support_filter_zstd(a);
  archive_read_support_filter_xz(a);
  archive_read_support_format_tar(a);
  archive_read_set_options(a, "hdrcharset=BINARY");
  archive_read_set_read_callback(a, on_read);
  archive_read_set_skip_callback(a, on_skip);
  archive_read_set_callback_data(a, reader.get());
  if (archive_read_open1(a) != ARCHIVE_OK) return reader->failure();
  return reader;
}

ArchiveReader::~ArchiveReader() {
  if (archive_) archive_read_free(archive_);
}

long ArchiveReader::on_read(struct archive* a, void* self, const void** bytes) {
  auto& reader = *static_cast<ArchiveReader*>(self);
  *bytes = reader.buffer_.data();
  ssize_t got = 0;
  do {
    got = ::read(reader.file_.get(), reader.buffer_.data(), reader.buffer_.size());
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    archive_set_error(a, errno, "read");
    return ARCHIVE_FATAL;
  }
  reader.packed_ += static_cast<std::uint64_t>(got);
  if (!reader.progress_(reader.packed_)) {
    reader.stopped_ = true;
    archive_set_error(a, ECANCELED, "stopped");
    return ARCHIVE_FATAL;
  }
  return got;
}

std::int64_t ArchiveReader::on_skip(struct archive*, void* self, std::int64_t bytes) {
  auto& reader = *static_cast<ArchiveReader*>(self);
  // Only whole blocks are skipped, and never beyond the end, where a seek would hide that the file is cut
  // off.
  const off_t here = lseek(reader.file_.get(), 0, SEEK_CUR);
  const off_t end = lseek(reader.file_.get(), 0, SEEK_END);
  const off_t room = end > here ? end - here : 0;
  const off_t step = std::min<off_t>(bytes, room);
  if (here < 0 || lseek(reader.file_.get(), here + step, SEEK_SET) < 0) return 0;
  reader.packed_ += static_cast<std::uint64_t>(step);
  return step;
}

Error ArchiveReader::failure() const {
  if (stopped_) return {Code::cancelled, {"导入已停止", "the import was stopped"}};
  const char* detail = archive_error_string(archive_);
  const std::string words = detail ? detail : "unreadable";
  return bad_archive({"不是完整的 tar 归档（可为 gzip、zstd、xz 压缩）：" + words,
                      "is not a whole tar (plain, gzip, zstd or xz): " + words});
}

Result<void> ArchiveReader::count(std::uint64_t bytes) {
  unpacked_ += bytes;
  if (unpacked_ > limits_.max_bytes)
    return bad_archive({"解压后超过 " + std::to_string(limits_.max_bytes) + " 字节",
                        "unpacks to more than " + std::to_string(limits_.max_bytes) + " bytes"});
  if (unpacked_ > kFreeOfRatio && unpacked_ / limits_.max_ratio > packed_)
    return bad_archive({"压缩比超过 " + std::to_string(limits_.max_ratio) + "，疑似解压炸弹",
                        "unpacks to more than " + std::to_string(limits_.max_ratio) +
                            " times its size, like a decompression bomb"});
  return {};
}

Result<std::optional<ArchiveEntry>> ArchiveReader::next() {
  // What is skipped of a packed archive is unpacked all the same, and must not escape the count.
  if (in_file_ && archive_filter_code(archive_, 0) != ARCHIVE_FILTER_NONE)
    while (!TRY(read()).empty()) {
    }
  in_file_ = false;
  archive_entry* entry = nullptr;
  const int status = archive_read_next_header(archive_, &entry);
  if (status == ARCHIVE_EOF) {
    if (entries_ == 0) return bad_archive({"没有任何条目", "is empty"});
    return std::optional<ArchiveEntry>();
  }
  if (status != ARCHIVE_OK && status != ARCHIVE_WARN) return failure();
  if (++entries_ > limits_.max_entries)
    return bad_archive({"归档中的条目超过 " + std::to_string(limits_.max_entries) + " 个",
                        "holds more than " + std::to_string(limits_.max_entries) + " entries"});
  offset_ = 0;
  ArchiveEntry checked = TRY(check(entry));
  in_file_ = checked.kind == ArchiveEntry::Kind::file;
  return std::optional(std::move(checked));
}

Result<ArchiveEntry> ArchiveReader::check(archive_entry* entry) {
  const char* raw = archive_entry_pathname(entry);
  if (!raw) return bad_archive({"有条目没有可读的名称", "has an entry without a readable name"});
  const auto name = climbs(raw) ? std::nullopt : inside("", raw);
  if (!name)
    return bad_archive(
        {"条目路径越出归档：" + shown(raw), "has an entry whose path leads out: " + shown(raw)});
  ArchiveEntry out;
  out.name = *name;
  const char* hard = archive_entry_hardlink(entry);
  const auto type = archive_entry_filetype(entry);
  if (hard || type == AE_IFLNK) {
    const char* leads = hard ? hard : archive_entry_symlink(entry);
    const auto target = leads ? inside(hard ? "" : folder_of(*name), leads) : std::nullopt;
    if (!target)
      return bad_archive(
          {"链接指向归档之外：" + shown(raw), "has a link that leads out of it: " + shown(raw)});
    out.kind = ArchiveEntry::Kind::link;
    out.target = *target;
    return out;
  }
  if (type == AE_IFDIR) {
    out.kind = ArchiveEntry::Kind::folder;
    return out;
  }
  if (type != AE_IFREG)
    return bad_archive({"含有设备或管道：" + shown(raw), "holds a device or a pipe: " + shown(raw)});
  if (archive_entry_sparse_count(entry) > 0)
    return bad_archive({"含有稀疏文件：" + shown(raw), "holds a sparse file: " + shown(raw)});
  out.size = archive_entry_size(entry) > 0 ? static_cast<std::uint64_t>(archive_entry_size(entry)) : 0;
  if (out.size > limits_.max_bytes) TRY(count(out.size));
  return out;
}

Result<std::string_view> ArchiveReader::read() {
  const void* bytes = nullptr;
  std::size_t size = 0;
  std::int64_t offset = 0;
  while (true) {
    const int status = archive_read_data_block(archive_, &bytes, &size, &offset);
    if (status == ARCHIVE_EOF) {
      in_file_ = false;
      return std::string_view();
    }
    if (status != ARCHIVE_OK) return failure();
    if (offset != offset_) return bad_archive({"含有稀疏文件", "holds a sparse file"});
    if (size == 0) continue;
    offset_ += static_cast<std::int64_t>(size);
    TRY(count(size));
    return std::string_view(static_cast<const char*>(bytes), size);
  }
}

Result<std::string> unpacked_digest(Fd file, const ArchiveLimits& limits,
                                    const std::function<bool(std::uint64_t)>& progress) {
  std::unique_ptr<struct archive, int (*)(struct archive*)> a(archive_read_new(), archive_read_free);
  archive_read_support_filter_gzip(a.get());
  archive_read_support_filter_zstd(a.get());
  archive_read_support_format_raw(a.get());
  archive_entry* entry = nullptr;
  auto failed = [&] {
    const char* detail = archive_error_string(a.get());
    const std::string words = detail ? detail : "unreadable";
    return bad_archive({"镜像层无法解压：" + words, "a layer cannot be unpacked: " + words});
  };
  if (archive_read_open_fd(a.get(), file.get(), kBlock) != ARCHIVE_OK ||
      archive_read_next_header(a.get(), &entry) != ARCHIVE_OK)
    return failed();
  Sha256 hash;
  std::string buffer(kBlock, '\0');
  std::uint64_t total = 0;
  while (true) {
    const auto got = archive_read_data(a.get(), buffer.data(), buffer.size());
    if (got < 0) return failed();
    if (got == 0) return hash.digest();
    total += static_cast<std::uint64_t>(got);
    const auto packed =
        static_cast<std::uint64_t>(std::max<std::int64_t>(1, archive_filter_bytes(a.get(), -1)));
    if (total > limits.max_bytes || (total > kFreeOfRatio && total / limits.max_ratio > packed))
      return bad_archive({"镜像层解压后过大", "a layer unpacks to too much"});
    hash.add(std::string_view(buffer.data(), static_cast<std::size_t>(got)));
    if (!progress(total)) return Error{Code::cancelled, {"导入已停止", "the import was stopped"}};
  }
}

}  // namespace lathe::images
