#include "images/images_service.h"

namespace lathe::images {

namespace {

http::Route documented(std::string path, std::string_view id, std::string_view summary,
                       std::string_view message, std::string_view section) {
  return {.method = http::Method::post,
          .path = std::move(path),
          .access = http::Access::user,
          .id = id,
          .tag = "images",
          .summary = summary,
          .envelope = &http::kImageEnvelope,
          .success_message = message,
          .section = section};
}

http::Route own_route(http::Method method, std::string path, std::string_view id, std::string_view summary,
                      int status = 200) {
  return {.method = method,
          .path = std::move(path),
          .access = http::Access::user,
          .id = id,
          .tag = "images",
          .summary = summary,
          .success_status = status};
}

Result<Nothing> nothing(Result<void> done) {
  if (!done) return std::move(done).error();
  return Nothing{};
}

}  // namespace

void ImagesService::add_routes(http::Api& api) {
  using http::Method;
  api.add<wire::NewImage, Nothing>(
      documented("/docker/image/upload", "createImage", "Register an image", "新增镜像成功", "2.1"),
      [this](http::Call& call, wire::NewImage in) { return nothing(create(call, in)); });
  api.add<wire::NewImport, Nothing>(
      documented("/docker/image/uploadOld", "importImage",
                 "Import an image archive from the user's files, in the background", "镜像开始上传", "2.2"),
      [this](http::Call& call, wire::NewImport in) { return nothing(begin_import(call, in)); });
  api.add<wire::ListQuery, http::Page<wire::ImageItem>>(
      documented("/docker/image/findListSort", "listImages", "Images, newest first", "success", "2.3"),
      [this](http::Call& call, wire::ListQuery query) { return list(call, query); });

  api.add<wire::NewPull, wire::PullOut>(
      own_route(Method::post, "/api/v1/images/pulls", "pullImage",
                "Import an image from another registry, in the background", 202),
      [this](http::Call& call, wire::NewPull in) { return begin_pull(call, in); });
  const std::string one = "/api/v1/images/{id}";
  api.add<wire::ById, wire::ImageOut>(
      own_route(Method::get, one, "getImage", "An image with its tags and imports"),
      [this](http::Call& call, wire::ById in) { return show(call, in.id); });
  api.add<wire::ImagePatch, wire::ImageOut>(
      own_route(Method::patch, one, "changeImage", "Change how an image is described, or who may run it"),
      [this](http::Call& call, wire::ImagePatch in) { return change(call, in); });
  api.add<wire::ById, Nothing>(
      own_route(Method::del, one, "deleteImage", "Delete an image with its tags", 204),
      [this](http::Call& call, wire::ById in) { return nothing(remove(call, in.id)); });
  api.add<wire::ByTag, Nothing>(
      own_route(Method::del, one + "/tags/{tag}", "deleteImageTag", "Delete one tag of an image", 204),
      [this](http::Call& call, wire::ByTag in) { return nothing(remove_tag(call, in)); });
}

}  // namespace lathe::images
