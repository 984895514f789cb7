#include <gtest/gtest.h>

#include "files/testing.h"
#include "images/parallel_sha256.h"
#include "images/registry/authority.h"
#include "images/registry/place.h"
#include "images/registry/problem.h"
#include "images/registry/pushed_manifest.h"

namespace lathe::images::registry {
namespace {

TEST(RegistryPlace, ReadsEveryAddress) {
  struct Case {
    std::string_view path;
    std::optional<Target> target;
    std::string_view name, reference;
  };
  const Case cases[] = {
      {"/v2", Target::base, "", ""},
      {"/v2/", Target::base, "", ""},
      {"/v2/token", Target::token, "", ""},
      {"/v2/_catalog", Target::catalog, "", ""},
      {"/v2/a/tags/list", Target::tags, "a", ""},
      {"/v2/a/b/c/tags/list", Target::tags, "a/b/c", ""},
      {"/v2/a/manifests/1.0", Target::manifest, "a", "1.0"},
      {"/v2/manifests/manifests/manifests", Target::manifest, "manifests", "manifests"},
      {"/v2/a/blobs/sha256:0", Target::blob, "a", "sha256:0"},
      {"/v2/a/blobs/uploads", Target::uploads, "a", "uploads"},
      {"/v2/a/blobs/uploads/", Target::uploads, "a", ""},
      {"/v2/a/blobs/uploads/7", Target::upload, "a", "7"},
      {"/v2/blobs/uploads/blobs/uploads/", Target::uploads, "blobs/uploads", ""},
      {"/v2/a/referrers/sha256:0", Target::referrers, "a", "sha256:0"},
      {"/v2/a/tags/other", std::nullopt, "", ""},
      {"/v2/tags/list", std::nullopt, "", ""},
      {"/v2//manifests/x", std::nullopt, "", ""},
      {"/v2/a", std::nullopt, "", ""},
      {"/v2/a/b/c", std::nullopt, "", ""},
      {"/v20/", std::nullopt, "", ""},
  };
  for (const Case& c : cases) {
    const auto place = parse_place(c.path);
    ASSERT_EQ(place.has_value(), c.target.has_value()) << c.path;
    if (!place) continue;
    EXPECT_EQ(place->target, *c.target) << c.path;
    EXPECT_EQ(place->name, c.name) << c.path;
    EXPECT_EQ(place->reference, c.reference) << c.path;
  }
}

TEST(RegistryScope, IsReadAndWritten) {
  const auto scope = Scope::parse("repository:zjm/a:pull,push").value();
  EXPECT_EQ(scope.name, "zjm/a");
  EXPECT_TRUE(scope.allows("push"));
  EXPECT_FALSE(scope.allows("delete"));
  EXPECT_EQ(scope.text(), "repository:zjm/a:pull,push");
  EXPECT_TRUE(Scope::parse("registry:catalog:*")->allows("anything"));
  EXPECT_EQ(Scope::parse("repository:host:5000/a:pull")->name, "host:5000/a");
  EXPECT_TRUE(Scope::parse("repository:a:")->actions.empty());
  for (const char* wrong : {"", "a", "a:b", ":"}) EXPECT_FALSE(Scope::parse(wrong)) << wrong;
}

TEST(RegistryToken, IsGoodForFiveMinutesAndAfterARestart) {
  files::testing::Platform platform;
  ManualClock clock(platform.clock().now());
  auto open = [&] { return Authority::open(platform.db(), platform.accounts(), clock).value(); };
  auto authority = open();
  const auto scope = Scope::parse("repository:zjm/a:pull").value();
  const std::string token = authority->issue({"2", "zjm", false}, {scope}).value();
  http::Request request;
  request.headers.add("Authorization", "Bearer " + token);
  authority = open();
  const auto caller = authority->caller(request).value();
  EXPECT_EQ(caller.who.user_name, "zjm");
  EXPECT_TRUE(caller.within("repository", "zjm/a", "pull"));
  EXPECT_FALSE(caller.within("repository", "zjm/a", "push"));
  EXPECT_FALSE(caller.within("repository", "zjm/b", "pull"));
  clock.advance(Authority::kTokenLifetime);
  EXPECT_EQ(authority->caller(request).error().code, Code::unauthenticated);
}

TEST(RegistryProblem, SaysWhatItIsAboutInTheSpecificationsWords) {
  EXPECT_EQ(specification_code(no_repository("a")), "NAME_UNKNOWN");
  EXPECT_EQ(specification_code(no_manifest("a")), "MANIFEST_UNKNOWN");
  EXPECT_EQ(specification_code(no_blob("a")), "BLOB_UNKNOWN");
  EXPECT_EQ(specification_code(no_content("a")), "MANIFEST_BLOB_UNKNOWN");
  EXPECT_EQ(specification_code(wrong_digest("a")), "DIGEST_INVALID");
  EXPECT_EQ(specification_code(wrong_manifest({})), "MANIFEST_INVALID");
  EXPECT_EQ(specification_code({Code::permission_denied, {}}), "DENIED");
  EXPECT_EQ(specification_code({Code::storage_exhausted, {}}), "DENIED");
  EXPECT_EQ(specification_code({Code::resource_exhausted, {}}), "TOOMANYREQUESTS");
  const auto answer = problem(http::Request(), Error{Code::storage_exhausted, {"满", "full"}});
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(std::get<std::string>(answer.body), R"({"errors":[{"code":"DENIED","message":"full"}]})");
}

TEST(RegistryManifest, IsAnImageAnIndexOrAnArtifact) {
  const std::string d = "sha256:" + std::string(64, 'a'), e = "sha256:" + std::string(64, 'b');
  const auto read = [&](std::string text, std::string_view type) {
    for (std::size_t at; (at = text.find('@')) != std::string::npos;) text.replace(at, 1, d);
    for (std::size_t at; (at = text.find('#')) != std::string::npos;) text.replace(at, 1, e);
    return read_manifest(text, type);
  };
  constexpr std::string_view kManifest = "application/vnd.oci.image.manifest.v1+json";
  constexpr std::string_view kIndex = "application/vnd.oci.image.index.v1+json";
  const auto image = read(
      R"({"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"@","size":1},)"
      R"("layers":[{"digest":"#","size":2},{"digest":"#","size":2}]})",
      kManifest);
  EXPECT_EQ(image->contents.kind, Contents::Kind::image);
  EXPECT_EQ(image->contents.blobs.size(), 3U);
  EXPECT_EQ(image->needed.size(), 2U);
  const auto artifact = read(
      R"({"schemaVersion":2,"artifactType":"a/b","config":{"mediaType":"x/y","digest":"@","size":1},"layers":[],)"
      R"("subject":{"digest":"#","size":3}})",
      kManifest);
  EXPECT_EQ(artifact->contents.kind, Contents::Kind::artifact);
  EXPECT_EQ(artifact->contents.artifact_type, "a/b");
  EXPECT_EQ(artifact->contents.subject, e);
  const auto index =
      read(R"({"schemaVersion":2,"manifests":[{"digest":"@","size":1},{"digest":"#","size":1}]})", kIndex);
  EXPECT_EQ(index->contents.kind, Contents::Kind::index);
  EXPECT_EQ(index->children, (std::vector<std::string>{d, e}));
  EXPECT_TRUE(index->needed.empty());
}

TEST(ParallelSha256, IsTheSameAsSha256) {
  std::string text(9 << 20, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i >> 7);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{2} << 20, text.size()}) {
    for (const std::size_t step : {std::size_t{100'003}, std::size_t{1} << 20}) {
      const std::string_view all = std::string_view(text).substr(0, size);
      Sha256 plain;
      plain.add(all);
      ParallelSha256 parallel;
      for (std::size_t at = 0; at < size; at += step) {
        parallel.add(all.substr(at, step));
        if (at / step == 5) parallel.settle();
        if (at / step == 7) parallel = ParallelSha256(std::move(parallel));
      }
      EXPECT_EQ(parallel.digest(), plain.digest()) << size << " by " << step;
    }
  }
}

}  // namespace
}  // namespace lathe::images::registry
