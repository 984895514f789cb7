#include "jobs/launcher.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <random>

#include "base/fd.h"
#include "jobs/progress/checkpoints.h"

namespace lathe::jobs {

namespace {

Error gone(Text what) {
  return {Code::not_found, {what.zh + "已不存在", what.en + " is gone"}};
}

bool is_free(std::uint16_t port) {
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  return fd && ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

files::Root root_of(const JobDirectory& directory) {
  const bool shared = directory.source == JobDirectory::Source::public_root;
  return {directory.owner, shared ? files::Scope::public_files : files::Scope::private_files};
}

}  // namespace

std::uint16_t free_ports(std::size_t count) {
  // Below the range that the kernel hands out by itself, so that no passing connection takes one meanwhile.
  constexpr std::uint16_t kLowest = 20000, kHighest = 32000;
  static thread_local std::minstd_rand random{std::random_device{}()};
  for (int tries = 0; tries < 200; ++tries) {
    const auto first = static_cast<std::uint16_t>(kLowest + random() % (kHighest - kLowest - count));
    bool all = true;
    for (std::size_t i = 0; i < count && all; ++i) all = is_free(static_cast<std::uint16_t>(first + i));
    if (all) return first;
  }
  return 0;
}

std::string Launcher::folder_of(const std::string& job_id) const {
  return options_.directory + "/" + job_id;
}

std::string Launcher::log_dir(const std::string& job_id, int attempt) const {
  return fmt::format("{}/{}", folder_of(job_id), attempt);
}

std::string Launcher::log_path(const std::string& job_id, int attempt, int rank) const {
  return fmt::format("{}/rank-{}.log", log_dir(job_id, attempt), rank);
}

Result<HostPlace> Launcher::place_of(const JobDirectory& directory) const {
  if (directory.source == JobDirectory::Source::model_version) {
    const auto version = TRY(platform_.models.version(directory.owner));
    if (version.state != models::State::ready) return gone({"模型版本", "the model version"});
    return HostPlace{version.root, version.path};
  }
  TRY(platform_.files.root(root_of(directory)));
  return HostPlace{platform_.files.host_path(root_of(directory)), directory.path};
}

Result<Directory> Launcher::open(const JobDirectory& directory) const {
  if (directory.source == JobDirectory::Source::model_version) {
    const HostPlace place = TRY(place_of(directory));
    const Directory root = TRY(Directory::open(place.root));
    return root.at(TRY(Path::parse(place.path, "path")));
  }
  const Directory root = TRY(platform_.files.root(root_of(directory)));
  return root.at(TRY(Path::parse(directory.path, "path")));
}

Result<std::optional<HostPlace>> Launcher::make(const JobDirectory& directory) const {
  if (directory.source == JobDirectory::Source::none) return std::optional<HostPlace>{};
  const Directory root = TRY(platform_.files.root(root_of(directory)));
  TRY(root.make_directories(TRY(Path::parse(directory.path, "path")), 0755, platform_.files.owner()));
  return std::optional<HostPlace>(TRY(place_of(directory)));
}

/// By its name the tag is known too; but the name may be another image's by now.
Result<std::string> Launcher::image_of(const Job& job) const {
  if (job.spec.image_id.empty()) return std::string(images::kHostImage);
  auto image = platform_.images.resolve(job.user_id, true, job.spec.image, "image");
  if (!image.ok() || image->id != job.spec.image_id)
    image = platform_.images.resolve(job.user_id, true, job.spec.image_id, "image");
  if (!image.ok()) return std::move(image).error();
  if (image->digest.empty())
    return Error{Code::unavailable, {"镜像尚未导入完成", "the image is still being imported"}};
  return image->digest;
}

Result<LaunchSite> Launcher::site_of(const Job& job, const store::Run& run) const {
  const JobSpec& spec = job.spec;
  LaunchSite site;
  site.run_id = run.run_id;
  site.image = TRY(image_of(job));
  site.attempt = run.attempt;
  site.log_dir = log_dir(job.id, run.attempt);
  const auto find = [&](const JobDirectory& directory) -> Result<std::optional<HostPlace>> {
    if (directory.source == JobDirectory::Source::none) return std::optional<HostPlace>{};
    return std::optional<HostPlace>(TRY(place_of(directory)));
  };
  site.work = TRY(find(spec.work));
  site.model = TRY(find(spec.model));
  site.input = TRY(find(spec.input));
  site.output = TRY(make(spec.output));
  site.checkpoint = TRY(make(spec.checkpoint));
  if (!spec.algorithm_id.empty()) {
    const auto* algorithm = platform_.algorithms.find(spec.algorithm_id);
    if (!algorithm) return gone({"预置算法", "the preset algorithm"});
    if (!algorithm->code_dir.empty()) site.algorithm = HostPlace{algorithm->code_dir, ""};
  }
  const Directory logs = TRY(Directory::create(site.log_dir));
  if (is_mpi(spec)) {
    TRY(logs.write_file(TRY(Path::parse("hostfile", "path")), mpi_hostfile(spec)));
    site.hostfile = HostPlace{site.log_dir, "hostfile"};
  }
  if (run.attempt > 1 && site.checkpoint) {
    const Directory saved = TRY(open(spec.checkpoint));
    const auto found = progress::find_checkpoints(saved);
    const auto newest = std::find_if(found.rbegin(), found.rend(), [&](const progress::Checkpoint& each) {
      return progress::is_complete(saved, each);
    });
    if (newest != found.rend()) site.resume_from = newest->path;
  }
  site.gpus = run.granted.gpus;
  site.rendezvous.port = static_cast<std::uint16_t>(run.granted.port);
  for (std::size_t i = 1; i <= expand_ranks(spec.groups).size(); ++i)
    site.rendezvous.rank_ports.push_back(static_cast<std::uint16_t>(run.granted.port + i));
  site.stop_grace = options_.stop_grace;
  site.max_log_bytes = options_.max_log_bytes;
  site.network = options_.network;
  site.read_only_root = options_.read_only_root;
  site.uid = options_.uid;
  site.gid = options_.gid;
  return site;
}

Result<engines::LaunchPlan> Launcher::prepare(const Job& job, const store::Run& run) const {
  const LaunchSite site = TRY(site_of(job, run));
  return make_plan(job, site);
}

}  // namespace lathe::jobs
