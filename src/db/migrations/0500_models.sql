CREATE TABLE models (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL,
  name TEXT NOT NULL,
  name_key TEXT NOT NULL, -- in small letters, for looking it up by a part of it
  description TEXT NOT NULL,
  type TEXT NOT NULL,
  developer TEXT NOT NULL,
  hyper_parameters TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);

CREATE UNIQUE INDEX models_by_user_and_name ON models (user_id, name);

-- Lists, whosever they show, are answered from these alone, save the rows of the page itself.
CREATE INDEX models_of_user ON models (user_id, id, name_key, type);
CREATE INDEX models_of_all ON models (id, name_key, type, user_id);

CREATE TABLE model_versions (
  id TEXT PRIMARY KEY,
  model_id TEXT NOT NULL REFERENCES models (id),
  user_id TEXT NOT NULL,
  request_id TEXT NOT NULL,
  version TEXT NOT NULL,
  description TEXT NOT NULL,
  label TEXT NOT NULL,
  source BIGINT NOT NULL,
  image TEXT NOT NULL,
  image_id TEXT NOT NULL,
  image_tag TEXT NOT NULL,
  image_type BIGINT,
  framework BIGINT,
  framework_style BIGINT,
  save_type BIGINT NOT NULL,
  save_path TEXT NOT NULL,
  config_path TEXT NOT NULL,
  config_save_type BIGINT,
  train_task_version_id TEXT NOT NULL,
  llm_fine_tune_task_id TEXT NOT NULL,
  training_output TEXT NOT NULL,
  pre_deploy_label TEXT NOT NULL,
  scale TEXT NOT NULL,
  model_structure TEXT NOT NULL,
  hyper_parameters TEXT NOT NULL,
  metrics TEXT NOT NULL,
  state TEXT NOT NULL,
  failure_zh TEXT NOT NULL,
  failure_en TEXT NOT NULL,
  source_root TEXT NOT NULL,
  source_path TEXT NOT NULL,
  folder TEXT NOT NULL,
  size_bytes BIGINT,
  stored_bytes BIGINT NOT NULL,
  stored_inodes BIGINT NOT NULL,
  details TEXT NOT NULL,
  config_text TEXT NOT NULL,
  deploy_text TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  ended_at BIGINT
);

CREATE UNIQUE INDEX model_versions_by_name ON model_versions (model_id, version);
CREATE INDEX model_versions_of_model ON model_versions (model_id, id, size_bytes);
CREATE INDEX model_versions_storage ON model_versions (user_id, stored_bytes, stored_inodes);
CREATE INDEX model_versions_of_request ON model_versions (request_id);
CREATE INDEX model_versions_importing ON model_versions (id) WHERE state = 'importing';
CREATE INDEX model_versions_of_output ON model_versions (training_output) WHERE training_output <> '';
CREATE INDEX model_versions_of_image ON model_versions (image_id) WHERE image_id <> '';

-- Folders of versions that are no more, until they are gone from the disk.
CREATE TABLE model_removals (
  version_id TEXT PRIMARY KEY,
  folder TEXT NOT NULL,
  created_at BIGINT NOT NULL
);
