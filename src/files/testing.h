#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "db/test_database.h"
#include "files/files.h"

/// For the tests of everything that has to do with files: the platform's lower half without a server. Users
/// log in with their id as the token: "1" is the administrator, "2" and "3" are ordinary users.
namespace lathe::files::testing {

/// A body that arrives in pieces of `step` bytes, and may break off.
class TextBody final : public http::BodyReader {
 public:
  explicit TextBody(std::string text, std::size_t step = 1000, bool breaks = false)
      : text_(std::move(text)), step_(step), breaks_(breaks) {}
  Result<std::size_t> read(std::span<char> into) override {
    if (at_ == text_.size() && breaks_)
      return Error{Code::cancelled, {"客户端已离开", "the client has left"}};
    const std::size_t n = std::min({into.size(), step_, text_.size() - at_});
    std::memcpy(into.data(), text_.data() + at_, n);
    at_ += n;
    return n;
  }
  std::optional<std::uint64_t> length() const override { return std::nullopt; }

 private:
  std::string text_;
  std::size_t step_, at_ = 0;
  bool breaks_;
};

struct Part {
  std::string name;
  std::string filename;  ///< empty: a field
  std::string content;
};

struct Reply {
  int status = 0;
  http::Headers headers;
  std::string body;
  Json json;
};

class Platform {
 public:
  explicit Platform(Duration upload_lifetime = std::chrono::hours{24}) : upload_lifetime_(upload_lifetime) {
    db_ = db::open_test_database();
    start();
    for (const char* name : {"zjm", "dzq"})
      EXPECT_EQ(send("POST", "/api/v1/users", "1",
                     {{"userName", name}, {"password", "correct horse"}, {"role", "user"}})
                    .status,
                201);
  }

  /// Starts everything anew on the same disk and database, as after the end of the server.
  void start() {
    for (auto& [open, close] : more_) close();
    api_.reset();
    files_.reset();
    audit_ = std::make_unique<accounts::Audit>(ids_, clock_);
    accounts::Options account_options;
    account_options.password_cost = {1, 8192};
    account_options.admin_password = "correct horse";
    accounts_ = accounts::Accounts::open(*db_, *audit_, ids_, clock_, account_options).value();
    quotas_ = quotas::Quotas::open(*db_, *accounts_, *audit_, ids_, clock_, {}).value();
    Options options;
    options.users_directory = folder_.file("users");
    options.upload_lifetime = upload_lifetime_;
    options.upload_checkpoint = 1000;
    options.max_parts = 50;
    files_ = Files::open(*db_, *accounts_, *quotas_, *audit_, ids_, clock_, options).value();
    quotas_->add_source(*files_);
    api_ = std::make_unique<http::Api>(http::Api::Hooks{
        .authenticate = [](const http::Request& r) -> Result<http::Identity> {
          const std::string token(r.headers.get("authorization"));
          return http::Identity{token, token == "1" ? "admin" : token == "2" ? "zjm" : "dzq", token == "1"};
        },
        .ids = &ids_,
        .reserve_id = {},
        .observe = {}});
    accounts_->add_routes(*api_);
    quotas_->add_routes(*api_);
    files_->add_routes(*api_);
    for (auto& [open, close] : more_) open();
  }
  /// Registers what else is started and ended with it.
  void also(std::function<void()> open, std::function<void()> close) {
    open();
    more_.emplace_back(std::move(open), std::move(close));
  }

  Reply send(std::string_view method, std::string path, const std::string& user, const Json& body = nullptr,
             std::vector<std::pair<std::string, std::string>> headers = {},
             http::BodyReader* stream = nullptr) {
    http::Request request;
    constexpr std::pair<std::string_view, http::Method> kMethods[] = {
        {"GET", http::Method::get},        {"HEAD", http::Method::head},   {"POST", http::Method::post},
        {"PUT", http::Method::put},        {"PATCH", http::Method::patch}, {"DELETE", http::Method::del},
        {"OPTIONS", http::Method::options}};
    for (const auto& [text, value] : kMethods)
      if (text == method) request.method = value;
    if (const auto question = path.find('?'); question != std::string::npos) {
      std::string query = path.substr(question + 1);
      path.resize(question);
      for (std::size_t at = 0; at < query.size();) {  // the values of tests need no decoding
        const auto end = std::min(query.find('&', at), query.size());
        const auto equals = query.find('=', at);
        request.query.emplace_back(query.substr(at, equals - at), query.substr(equals + 1, end - equals - 1));
        at = end + 1;
      }
    }
    request.path = path;
    request.language = Language::en;
    if (!body.is_null()) request.body = json::print(body);
    request.headers.add("Authorization", user);
    for (auto& [name, value] : headers) request.headers.add(std::move(name), std::move(value));
    TextBody nothing("");
    request.stream = stream ? stream : &nothing;
    http::Response response = api_->handle(request);
    Reply reply{response.status, response.headers, {}, {}};
    if (auto* text = std::get_if<std::string>(&response.body)) reply.body = *text;
    if (auto* file = std::get_if<http::FileBody>(&response.body)) {
      reply.body.resize(file->length);
      EXPECT_EQ(pread(*file->fd, reply.body.data(), file->length, static_cast<off_t>(file->offset)),
                static_cast<ssize_t>(file->length));
    }
    if (auto* streamed = std::get_if<http::StreamBody>(&response.body)) {
      class Collect final : public http::BodyWriter {
       public:
        Result<void> write(std::string_view bytes) override {
          text += bytes;
          return {};
        }
        bool gone() override { return false; }
        std::string text;
      } collect;
      (*streamed)(collect);
      reply.body = collect.text;
    }
    if (auto parsed = json::parse(reply.body)) reply.json = *parsed;
    return reply;
  }

  static std::string form(const std::vector<Part>& parts) {
    std::string out;
    for (const Part& part : parts) {
      out += "--XX\r\nContent-Disposition: form-data; name=\"" + part.name + "\"";
      if (!part.filename.empty()) out += "; filename=\"" + part.filename + "\"";
      out += "\r\n\r\n" + part.content + "\r\n";
    }
    return out + "--XX--\r\n";
  }
  Reply upload(const std::string& user, const std::vector<Part>& parts,
               const std::string& path = "/api/file/file/uploadFolder") {
    return upload_text(user, form(parts), path);
  }
  Reply upload_text(const std::string& user, std::string text,
                    const std::string& path = "/api/file/file/uploadFolder", bool breaks = false) {
    TextBody body(std::move(text), 1000, breaks);
    return send("POST", path, user, nullptr, {{"Content-Type", "multipart/form-data; boundary=XX"}}, &body);
  }
  /// A file's content, as its user sees it; "<status>" if it cannot be read.
  std::string content(const std::string& user, const std::string& path, const std::string& more = "") {
    const Reply reply = send("GET", "/api/v1/files/content?path=" + path + more, user);
    return reply.status == 200 ? reply.body : "<" + std::to_string(reply.status) + ">";
  }
  /// The names in a folder, with spaces between.
  std::string names(const std::string& user, const std::string& path = "", const std::string& more = "") {
    const Reply reply = send("GET", "/api/v1/files?path=" + path + more, user);
    if (reply.status != 200) return "<" + std::to_string(reply.status) + ">";
    std::string out;
    for (const auto& item : reply.json.at("items").as_array())
      out += (out.empty() ? "" : " ") + std::string(item.at("name").as_string());
    return out;
  }

  db::Database& db() { return *db_; }
  accounts::Accounts& accounts() { return *accounts_; }
  accounts::Audit& audit() { return *audit_; }
  quotas::Quotas& quotas() { return *quotas_; }
  Files& files() { return *files_; }
  http::Api& api() { return *api_; }
  IdSource& ids() { return ids_; }
  const Clock& clock() { return clock_; }
  std::string host(const std::string& path) { return folder_.file(path); }

 private:
  db::TestFolder folder_;
  SystemClock clock_;
  Uuid7Source ids_{clock_};
  Duration upload_lifetime_;
  std::unique_ptr<db::Database> db_;
  std::unique_ptr<accounts::Audit> audit_;
  std::unique_ptr<accounts::Accounts> accounts_;
  std::unique_ptr<quotas::Quotas> quotas_;
  std::unique_ptr<Files> files_;
  std::unique_ptr<http::Api> api_;
  std::vector<std::pair<std::function<void()>, std::function<void()>>> more_;
};

}  // namespace lathe::files::testing
