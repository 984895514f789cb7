CREATE TABLE quotas (
  user_id TEXT PRIMARY KEY,
  cpu DOUBLE PRECISION,
  memory_gb DOUBLE PRECISION,
  gpu BIGINT,
  vgpu BIGINT,
  mig BIGINT,
  jobs BIGINT,
  storage_bytes BIGINT,
  storage_inodes BIGINT,
  start_time BIGINT,
  end_time BIGINT
);

CREATE TABLE resource_groups (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  key TEXT NOT NULL UNIQUE,
  engine TEXT NOT NULL,
  cpu DOUBLE PRECISION,
  memory_gb DOUBLE PRECISION,
  gpu BIGINT,
  users TEXT NOT NULL,
  created_at BIGINT NOT NULL
);
