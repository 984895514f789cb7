#include "images/export_archive.h"

#include <fmt/format.h>
#include <sys/sendfile.h>

#include <array>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <set>

#include "images/oci.h"
#include "images/reference.h"

namespace lathe::images {

namespace {

constexpr std::size_t kRecord = 512;
constexpr std::size_t kPiece = 256 << 10;
constexpr std::uint64_t kMostOctal = 077777777777;  // what a header's eleven octal digits can say

std::uint64_t padding(std::uint64_t size) {
  return (kRecord - size % kRecord) % kRecord;
}

/// A POSIX ustar header of a file or, for a name that ends with a slash, a folder. Times are 0, so that the
/// same image is the same tar.
std::string header(std::string_view name, std::uint64_t size) {
  const bool folder = name.ends_with('/');
  std::string out(kRecord, '\0');
  auto put = [&](std::size_t at, std::string_view text) {
    std::memcpy(out.data() + at, text.data(), text.size());
  };
  put(0, name);
  put(100, folder ? "0000755" : "0000644");
  put(108, "0000000");
  put(116, "0000000");
  if (size <= kMostOctal) {
    put(124, fmt::format("{:011o}", size));
  } else {  // base 256, as GNU tar writes it
    out[124] = '\x80';
    for (std::size_t i = 0; i < 8; ++i) out[135 - i] = static_cast<char>(size >> (8 * i));
  }
  put(136, "00000000000");
  put(148, "        ");
  out[156] = folder ? '5' : '0';
  put(257, std::string_view("ustar\00000", 8));
  unsigned sum = 0;
  for (const char c : out) sum += static_cast<unsigned char>(c);
  put(148, fmt::format("{:06o}", sum));
  out[154] = '\0';
  return out;
}

std::string file_name(std::string_view digest) {
  return "blobs/sha256/" + std::string(hex_of(digest));
}

class ArchiveExport final : public Export {
 public:
  explicit ArchiveExport(BlobStore& store) : store_(store), lease_(store) {}

  Result<void> prepare(std::string_view digest, std::string_view name) {
    if (!store_.hold(digest, lease_)) return gone(digest);
    const std::string text = TRY(store_.read(digest, oci::kMaxDocument));
    const auto manifest = TRY(json::parse_as<oci::Manifest>(text));
    config_digest_ = manifest.config.digest;
    add("oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
    add("blobs/", {});
    add("blobs/sha256/", {});
    boost::json::array layers;
    for (const auto& layer : manifest.layers) {
      TRY(add_blob(layer.digest));
      layers.emplace_back(file_name(layer.digest));
    }
    TRY(add_blob(config_digest_));
    TRY(add_blob(std::string(digest)));
    const std::string type = manifest.mediaType.empty() ? std::string(oci::kManifest) : manifest.mediaType;
    add("index.json", index(type, digest, text.size(), name));
    boost::json::array tags;
    if (!name.empty()) tags.emplace_back(name);
    boost::json::object saved{{"Config", file_name(config_digest_)}};
    saved["RepoTags"] = std::move(tags);
    saved["Layers"] = std::move(layers);
    boost::json::array images;
    images.push_back(std::move(saved));
    add("manifest.json", json::print(std::move(images)));
    size_ += 2 * kRecord;
    return {};
  }

  std::uint64_t size() const override { return size_; }
  const std::string& config_digest() const override { return config_digest_; }

  Result<void> write(const std::function<Result<void>(std::string_view)>& sink) override {
    std::string buffer(kPiece, '\0');
    for (const Entry& entry : entries_) {
      TRY(sink(entry.head));
      if (!entry.digest.empty()) TRY(pump(entry, buffer, sink));
    }
    return sink(std::string(2 * kRecord, '\0'));
  }

  Result<void> send(int fd) override {
    for (const Entry& entry : entries_) {
      TRY(write_all(fd, entry.head));
      if (!entry.digest.empty()) TRY(send_blob(entry, fd));
    }
    return write_all(fd, std::string(2 * kRecord, '\0'));
  }

 private:
  struct Entry {
    std::string head;    ///< the header; of a small document also its text and padding
    std::string digest;  ///< of the blob that follows; "": none
    std::uint64_t size = 0;
  };

  static Error gone(std::string_view digest) { return not_found({"镜像内容", "image content"}, digest); }

  void add(std::string_view name, std::string_view text) {
    std::string head = header(name, text.size());
    head += text;
    head.append(padding(text.size()), '\0');
    size_ += head.size();
    entries_.push_back({std::move(head), {}, 0});
  }

  Result<void> add_blob(const std::string& digest) {
    if (!is_digest(digest)) return invalid_field("digest", {"不是 sha256 摘要", "is not a sha256 digest"});
    if (!added_.insert(digest).second) return {};
    if (!store_.hold(digest, lease_)) return gone(digest);
    const std::uint64_t size = TRY(store_.size_of(digest));
    entries_.push_back({header(file_name(digest), size), digest, size});
    size_ += kRecord + size + padding(size);
    return {};
  }

  static std::string index(const std::string& type, std::string_view digest, std::size_t size,
                           std::string_view name) {
    boost::json::object descriptor{{"mediaType", type}, {"digest", digest}, {"size", size}};
    if (!name.empty())
      descriptor["annotations"] = boost::json::object{{"io.containerd.image.name", name},
                                                      {"org.opencontainers.image.ref.name", name}};
    boost::json::array manifests;
    manifests.push_back(std::move(descriptor));
    boost::json::object out{{"schemaVersion", 2}, {"mediaType", oci::kIndex}};
    out["manifests"] = std::move(manifests);
    return json::print(std::move(out));
  }

  Result<void> pump(const Entry& entry, std::string& buffer,
                    const std::function<Result<void>(std::string_view)>& sink) {
    const Fd blob = TRY(store_.open_blob(entry.digest));
    for (std::uint64_t left = entry.size; left > 0;) {
      const ssize_t got = ::read(blob.get(), buffer.data(), std::min<std::uint64_t>(buffer.size(), left));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return system_error("read", errno);
      if (got == 0) return gone(entry.digest);
      TRY(sink(std::string_view(buffer.data(), static_cast<std::size_t>(got))));
      left -= static_cast<std::uint64_t>(got);
    }
    return sink(std::string(padding(entry.size), '\0'));
  }

  Result<void> send_blob(const Entry& entry, int fd) {
    const Fd blob = TRY(store_.open_blob(entry.digest));
    for (std::uint64_t left = entry.size; left > 0;) {
      const ssize_t sent = ::sendfile(fd, blob.get(), nullptr, std::min<std::uint64_t>(left, 1U << 30));
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return system_error("sendfile", errno);
      if (sent == 0) return gone(entry.digest);
      left -= static_cast<std::uint64_t>(sent);
    }
    return write_all(fd, std::string(padding(entry.size), '\0'));
  }

  BlobStore& store_;
  BlobStore::Lease lease_;
  std::string config_digest_;
  std::vector<Entry> entries_;
  std::set<std::string, std::less<>> added_;
  std::uint64_t size_ = 0;
};

}  // namespace

Result<std::unique_ptr<Export>> open_export(BlobStore& store, std::string_view digest,
                                            std::string_view name) {
  auto made = std::make_unique<ArchiveExport>(store);
  TRY(made->prepare(digest, name));
  return std::unique_ptr<Export>(std::move(made));
}

}  // namespace lathe::images
