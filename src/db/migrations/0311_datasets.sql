CREATE TABLE datasets (
  id          TEXT PRIMARY KEY,
  user_id     TEXT NOT NULL,
  name        TEXT NOT NULL,
  description TEXT NOT NULL,
  is_public   BIGINT NOT NULL,
  created_at  BIGINT NOT NULL,
  updated_at  BIGINT NOT NULL,
  UNIQUE (user_id, name)
);
CREATE INDEX datasets_by_user ON datasets (user_id, id);
CREATE INDEX datasets_public ON datasets (name, user_id) WHERE is_public = 1;

-- Where a version's data is: below a root of the dataset's user. Nothing is copied.
CREATE TABLE dataset_versions (
  id          TEXT PRIMARY KEY,
  dataset_id  TEXT NOT NULL REFERENCES datasets (id),
  version     TEXT NOT NULL,
  description TEXT NOT NULL,
  scope       TEXT NOT NULL,
  path        TEXT NOT NULL,
  state       TEXT NOT NULL, -- measuring, ready, missing
  size        BIGINT NOT NULL,
  file_count  BIGINT NOT NULL,
  created_at  BIGINT NOT NULL,
  UNIQUE (dataset_id, version)
);
CREATE INDEX dataset_versions_by_dataset ON dataset_versions (dataset_id, id);
CREATE INDEX dataset_versions_unmeasured ON dataset_versions (id) WHERE state = 'measuring';
