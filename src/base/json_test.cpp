#include "base/json.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>

namespace lathe {
namespace {

struct Item {
  std::int64_t count = 0;
  std::optional<std::string> kind;
};
void fields(Fields& f, Item& i) {
  f.field("count", i.count, {.required = true, .min = 0, .max = 10});
  f.field("kind", i.kind, {.one_of = "a|b"});
}

struct Order {
  std::string name;
  bool urgent = false;
  std::vector<Item> items;
  std::vector<std::string> envs;
  std::optional<Time> at;
};
void fields(Fields& f, Order& o) {
  f.field("name", o.name, {.required = true, .max_length = 5, .form = Form::name});
  f.field("urgent", o.urgent);
  f.field("items", o.items);
  f.embedded("envs", o.envs);
  f.field("at", o.at);
}

TEST(Json, ReadsScalarsLeniently) {
  auto order = json::parse_as<Order>(
      R"({"name":"ab","urgent":"true","items":[{"count":"3","kind":""}],"envs":"[\"x\"]","at":"","more":1})");
  ASSERT_TRUE(order.ok());
  EXPECT_TRUE(order->urgent);
  EXPECT_EQ(order->items.at(0).count, 3);
  EXPECT_FALSE(order->items.at(0).kind);
  EXPECT_EQ(order->envs, std::vector<std::string>{"x"});
  EXPECT_FALSE(order->at);
}

TEST(Json, ReportsEveryWrongFieldWithItsPath) {
  auto order =
      json::parse_as<Order>(R"({"name":"; rm","urgent":7,"items":[{"count":11,"kind":"z"},{}],"envs":"{"})");
  ASSERT_FALSE(order.ok());
  std::vector<std::string> wrong;
  for (const auto& v : order.error().violations) wrong.push_back(v.field);
  EXPECT_EQ(wrong, (std::vector<std::string>{"name", "urgent", "items[0].count", "items[0].kind",
                                             "items[1].count", "envs"}));
}

TEST(Json, CountsCodePointsNotBytes) {
  EXPECT_TRUE(json::parse_as<Order>(R"({"name":"模型一二三"})").ok());
  EXPECT_FALSE(json::parse_as<Order>(R"({"name":"模型一二三四"})").ok());
  EXPECT_FALSE(json::parse_as<Order>("{\"name\":\"a\\u0000\"}").ok());
}

TEST(Json, WritesWhatItRead) {
  Order order{.name = "x", .items = {{.count = 1, .kind = "a"}}, .envs = {"e"}};
  EXPECT_EQ(json::write(order),
            R"({"name":"x","urgent":false,"items":[{"count":1,"kind":"a"}],"envs":"[\"e\"]","at":null})");
}

struct Values {
  std::string text;
  double number = 0;
  std::int64_t whole = 0;
  Json any;
  std::vector<std::vector<double>> nested;
  std::vector<std::string> inside;
};
void fields(Fields& f, Values& v) {
  f.field("text", v.text);
  f.field("number", v.number);
  f.field("whole", v.whole);
  f.field("any", v.any);
  f.field("nested", v.nested);
  f.embedded("inside", v.inside);
}

TEST(Json, WritesEveryValueSoThatItCanBeReadBack) {
  Values values;
  values.text = "\"\\/\b\f\n\r\t\x01\x7f 中文 😀";
  values.whole = -9'000'000'000'000'000;
  values.any = json::parse(R"({"a":[1,"x",null]})").value();
  values.nested = {{}, {1.5, 0}, {-0.1}};
  values.inside = {"a \"b\"", "\n"};
  for (const double number : {0.0, 2.0, -1e300, 5e-324, 0.1, 1e15, 123456789.125}) {
    values.number = number;
    const std::string written = json::write(values);
    const auto back = json::parse_as<Values>(written);
    ASSERT_TRUE(back.ok()) << written;
    EXPECT_EQ(back->text, values.text) << written;
    EXPECT_EQ(back->number, number) << written;
    EXPECT_EQ(back->whole, values.whole);
    EXPECT_EQ(back->any, values.any);
    EXPECT_EQ(back->nested, values.nested);
    EXPECT_EQ(back->inside, values.inside);
  }
  values.number = std::nan("");
  EXPECT_NE(json::write(values).find(R"("number":null)"), std::string::npos);
  values.number = 2;
  EXPECT_NE(json::write(values).find(R"("number":2.0,)"), std::string::npos);
  for (int c = 0; c < 0x80; ++c) {
    values.text = std::string(3, static_cast<char>(c));
    EXPECT_TRUE(json::parse(json::write(values)).ok()) << c;
  }
}

TEST(Json, DescribesTheSameFieldsAsASchema) {
  const std::string schema = json::print(json::schema<Order>());
  EXPECT_NE(schema.find(R"("required":["name"])"), std::string::npos) << schema;
  EXPECT_NE(schema.find(R"("enum":["a","b",null])"), std::string::npos) << schema;
}

TEST(Json, RefusesDeepNestingAndTrailingText) {
  EXPECT_FALSE(json::parse(std::string(40, '[') + std::string(40, ']')).ok());
  EXPECT_FALSE(json::parse("{} x").ok());
  EXPECT_TRUE(json::parse("{} \n").ok());
}

}  // namespace
}  // namespace lathe
