CREATE TABLE gateway_usage (
  user_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  service_id TEXT NOT NULL,
  day BIGINT NOT NULL,
  requests BIGINT NOT NULL,
  prompt_tokens BIGINT NOT NULL,
  completion_tokens BIGINT NOT NULL,
  PRIMARY KEY (user_id, key_id, service_id, day)
);
