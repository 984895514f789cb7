-- What each user's files take, as last counted from the disk.
CREATE TABLE file_usage (
  user_id     TEXT PRIMARY KEY,
  bytes       BIGINT NOT NULL,
  inodes      BIGINT NOT NULL,
  measured_at BIGINT NOT NULL
);

-- Resumable uploads under way (tus 1.0). The bytes are in the staging folder, under the upload's id.
CREATE TABLE uploads (
  id         TEXT PRIMARY KEY,
  user_id    TEXT NOT NULL, -- whose files it will be among
  created_by TEXT NOT NULL,
  scope      TEXT NOT NULL,
  path       TEXT NOT NULL,
  metadata   TEXT NOT NULL, -- as the client sent it
  length     BIGINT NOT NULL,
  received   BIGINT NOT NULL, -- durable bytes
  state      TEXT NOT NULL, -- receiving, publishing, complete
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
);
CREATE INDEX uploads_by_expiry ON uploads (expires_at);
CREATE INDEX uploads_by_user ON uploads (user_id);
