-- Images as their users know them. What a list shows is kept in the row, so that a page is one index scan.
CREATE TABLE images (
  id            TEXT PRIMARY KEY,
  user_id       TEXT NOT NULL, -- '' is the platform's own
  name          TEXT NOT NULL,
  icon          TEXT NOT NULL,
  overview      TEXT NOT NULL,
  labels        TEXT NOT NULL, -- JSON list of strings
  description   TEXT NOT NULL,
  is_public     BIGINT NOT NULL,
  status        BIGINT NOT NULL, -- 0 nothing imported yet, 1 ready, 2 importing, 3 the last import failed
  fail_zh       TEXT NOT NULL,
  fail_en       TEXT NOT NULL,
  tag_count     BIGINT NOT NULL,
  latest_tag    TEXT NOT NULL,
  latest_size   BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  UNIQUE (user_id, name)
);
CREATE INDEX images_by_user ON images (user_id, id);

-- What this machine has installed, as an image for everybody.
INSERT INTO images (id, user_id, name, icon, overview, labels, description, is_public, status, fail_zh, fail_en,
                    tag_count, latest_tag, latest_size, created_at, updated_at)
VALUES ('00000000000000000000000000000000', '', 'host', '', '本机已安装的软件', '[]',
        '无需导入，直接使用本机环境', 1, 1, '', '', 1, 'latest', 0, 0, 0);

-- What the store holds: every manifest that a tag names, with its blobs (itself, configuration, layers).
CREATE TABLE image_manifests (
  digest        TEXT PRIMARY KEY,
  media_type    TEXT NOT NULL,
  config_digest TEXT NOT NULL,
  size          BIGINT NOT NULL, -- of all its blobs
  created_at    BIGINT NOT NULL
);
CREATE TABLE image_blobs (
  manifest TEXT NOT NULL REFERENCES image_manifests (digest),
  digest   TEXT NOT NULL,
  size     BIGINT NOT NULL,
  PRIMARY KEY (manifest, digest)
);
CREATE INDEX image_blobs_by_digest ON image_blobs (digest);

CREATE TABLE image_tags (
  image_id   TEXT NOT NULL REFERENCES images (id),
  tag        TEXT NOT NULL,
  manifest   TEXT NOT NULL REFERENCES image_manifests (digest),
  size       BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (image_id, tag)
);
CREATE INDEX image_tags_by_manifest ON image_tags (manifest);

-- Imports: queued, running, succeeded, failed. One that was running when the server ended begins again.
CREATE TABLE image_imports (
  id         TEXT PRIMARY KEY,
  image_id   TEXT NOT NULL REFERENCES images (id),
  user_id    TEXT NOT NULL, -- whose file it reads
  tag        TEXT NOT NULL,
  file_path  TEXT NOT NULL,
  state      TEXT NOT NULL,
  fail_zh    TEXT NOT NULL,
  fail_en    TEXT NOT NULL,
  total      BIGINT NOT NULL, -- bytes of the archive
  created_at BIGINT NOT NULL,
  ended_at   BIGINT
);
CREATE INDEX image_imports_by_image ON image_imports (image_id, id);
CREATE INDEX image_imports_by_state ON image_imports (state, id);
CREATE INDEX images_public ON images (name, user_id) WHERE is_public = 1;
