#include "images/pull/pull.h"

#include <algorithm>

#include "base/json.h"
#include "base/log.h"
#include "images/oci.h"
#include "images/reference.h"
#include "images/registry/pushed_manifest.h"

namespace lathe::images::pull {

namespace {

constexpr int kMostAttempts = 6;  // without so much in between:
constexpr std::uint64_t kProgress = 1 << 20;

/// Cannot be an image's name: nobody pushes to it.
std::string waiting_name(const std::string& digest) {
  return ".pull/" + std::string(hex_of(digest));
}

bool is_worth_another_try(const Error& error) {
  return error.code == Code::unavailable || error.code == Code::resource_exhausted;
}

class Pull {
 public:
  Pull(BlobStore& store, Uploads& uploads, BlobStore::Lease& lease, Fetcher& fetcher, const Rules& rules,
       const Request& request)
      : store_(store),
        uploads_(uploads),
        lease_(lease),
        request_(request),
        remote_(fetcher, rules, request_.name, request_.credentials, request_.go_on) {}

  Result<Contents> run() {
    Remote::Document document;
    const registry::PushedManifest manifest = TRY(choose(document));
    TRY(check(manifest, document));
    for (const Blob& blob : manifest.needed) {
      if (blob.size > request_.max_bytes - total_)
        return Error{Code::invalid_argument, {"镜像过大", "the image is too large"}};
      total_ += blob.size;
    }
    request_.progress(0, total_);
    for (const Blob& blob : manifest.needed) TRY(take(blob));
    TRY(check_config(manifest, document));
    TRY(store_.put(document.bytes, lease_));
    TRY(store_.sync());
    return manifest.contents;
  }

 private:
  /// The manifest of the image itself.
  Result<registry::PushedManifest> choose(Remote::Document& document) {
    std::string wanted = request_.name.wanted();
    for (int depth = 0; depth < oci::kMaxIndexDepth; ++depth) {
      document = TRY(patiently<Remote::Document>([&] { return remote_.manifest(wanted); }));
      auto manifest = TRY(registry::read_manifest(document.bytes, document.media_type));
      if (manifest.contents.kind != Contents::Kind::index) return manifest;
      const auto index = TRY(json::parse_as<oci::Index>(document.bytes));
      const auto* mine = oci::for_this_machine(index);
      if (!mine || !is_digest(mine->digest))
        return Error{Code::invalid_argument,
                     {"没有适用于本机（linux/" + std::string(oci::own_architecture()) + "）的镜像",
                      "holds no image for this machine, linux/" + std::string(oci::own_architecture())}};
      wanted = mine->digest;
    }
    return Error{Code::invalid_argument, {"索引嵌套过深", "nests its indexes too deep"}};
  }

  static Result<void> check(const registry::PushedManifest& manifest, const Remote::Document& document) {
    if (manifest.contents.kind != Contents::Kind::image)
      return Error{Code::invalid_argument,
                   {"不是可运行的镜像：" + manifest.contents.artifact_type,
                    "is not an image that can be run: " + manifest.contents.artifact_type}};
    const auto parsed = TRY(json::parse_as<oci::Manifest>(document.bytes));
    for (const auto& layer : parsed.layers) {
      const bool here = std::any_of(manifest.needed.begin(), manifest.needed.end(),
                                    [&](const Blob& blob) { return blob.digest == layer.digest; });
      if (!here)
        return Error{Code::invalid_argument,
                     {"有一层须从别处获取：" + layer.digest,
                      "has a layer that is to be had from elsewhere: " + layer.digest}};
    }
    return {};
  }

  Result<void> check_config(const registry::PushedManifest& manifest, const Remote::Document& document) {
    const auto config =
        json::parse_as<oci::Config>(TRY(store_.read(manifest.contents.config_digest, oci::kMaxDocument)));
    const auto parsed = TRY(json::parse_as<oci::Manifest>(document.bytes));
    if (config.ok() && config->rootfs.diff_ids.size() == parsed.layers.size()) return {};
    return Error{Code::invalid_argument,
                 {"配置与清单不符", "has a configuration that does not fit its manifest"}};
  }

  Result<void> take(const Blob& blob) {
    if (store_.hold(blob.digest, lease_) && TRY(request_.owned(blob))) {
      if (TRY(store_.size_of(blob.digest)) != blob.size) return wrong_size(blob);
      done_ += blob.size;
      retreat(0);
      return {};
    }
    auto fetched = fetch(blob);
    // Bytes that had waited since another attempt were not what they should be: all anew.
    if (!fetched && fetched.error().code == Code::invalid_argument && resumed_) fetched = fetch(blob);
    TRY(fetched);
    TRY(request_.arrived(blob));
    done_ += blob.size;
    retreat(0);
    return {};
  }

  Result<Uploads::Held> begin(const Blob& blob) {
    const std::string name = waiting_name(blob.digest);
    auto waiting = TRY(uploads_.find_named(request_.user_id, name));
    if (waiting && waiting->size() <= blob.size) return *std::move(waiting);
    return uploads_.begin(request_.user_id, name);
  }

  Result<void> fetch(const Blob& blob) {
    Uploads::Held held = TRY(begin(blob));
    resumed_ = held.size() > 0;
    if (resumed_)
      log::info("pull of {}: {} goes on at byte {}", request_.name.text(), blob.digest, held.size());
    advance(held.size());
    auto fetched = fetch_rest(blob, held);
    held.settle();
    if (!fetched) {
      if (fetched.error().code == Code::invalid_argument) TRY(held.cancel());
      retreat(0);
      return fetched;
    }
    auto finished = held.finish(blob.digest, lease_);
    if (!finished) {
      retreat(0);
      Error error = std::move(finished).error();
      if (error.code != Code::invalid_argument) return error;
      return Error{
          Code::invalid_argument,
          {"内容与摘要不符：" + blob.digest, "what was sent for " + blob.digest + " does not match it"}};
    }
    return {};
  }

  Result<void> fetch_rest(const Blob& blob, Uploads::Held& held) {
    int attempts = 0;
    std::uint64_t mark = held.size();
    while (held.size() < blob.size) {
      const std::uint64_t before = held.size();
      auto sent = remote_.blob(blob.digest, before, [&](std::string_view piece) -> Result<void> {
        if (held.size() + piece.size() > blob.size) return wrong_size(blob);
        TRY(held.append(piece));
        advance(piece.size());
        return {};
      });
      if (held.size() == blob.size) return {};
      if (sent.ok()) sent = Error{Code::unavailable, {"内容不完整", "the content ended early"}};
      if (!is_worth_another_try(sent.error())) return sent;
      ++attempts;
      if (held.size() - mark >= kProgress) {
        attempts = 1;
        mark = held.size();
      }
      if (attempts == kMostAttempts) return sent;
      TRY(wait(attempts, sent.error()));
    }
    return {};
  }

  template <class T>
  Result<T> patiently(const std::function<Result<T>()>& step) {
    for (int attempts = 1;; ++attempts) {
      auto out = step();
      if (out.ok() || !is_worth_another_try(out.error()) || attempts == kMostAttempts) return out;
      TRY(wait(attempts, out.error()));
    }
  }

  Result<void> wait(int attempts, const Error& why) {
    log::info("pull of {}: {}; trying again", request_.name.text(), why.describe(Language::en));
    if (request_.pause(request_.retry * (1 << std::min(attempts - 1, 5)))) return {};
    return Error{Code::cancelled, {"已取消", "cancelled"}};
  }

  static Error wrong_size(const Blob& blob) {
    return {Code::invalid_argument,
            {"大小不符：" + blob.digest, "is not of the size it says: " + blob.digest}};
  }

  // `done_` is what is whole, `part_` what there is of the blob at work.
  void advance(std::uint64_t bytes) { retreat(part_ + bytes); }
  void retreat(std::uint64_t part) {
    part_ = part;
    request_.progress(done_ + part_, total_);
  }

  BlobStore& store_;
  Uploads& uploads_;
  BlobStore::Lease& lease_;
  const Request& request_;
  Remote remote_;
  std::uint64_t total_ = 0, done_ = 0, part_ = 0;
  bool resumed_ = false;
};

}  // namespace

Result<Contents> pull_image(BlobStore& store, Uploads& uploads, BlobStore::Lease& lease, Fetcher& fetcher,
                            const Rules& rules, const Request& request) {
  return Pull(store, uploads, lease, fetcher, rules, request).run();
}

}  // namespace lathe::images::pull
