CREATE TABLE deployments (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  user_id TEXT NOT NULL,
  description TEXT NOT NULL,
  path TEXT NOT NULL,
  started BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE INDEX deployments_by_user ON deployments (user_id, id);

CREATE TABLE deployment_versions (
  id TEXT PRIMARY KEY,
  deployment_id TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
  number BIGINT NOT NULL,
  rate BIGINT NOT NULL,
  min_replicas BIGINT NOT NULL,
  max_replicas BIGINT NOT NULL,
  model_version_id TEXT NOT NULL,
  spec TEXT NOT NULL,
  waiting TEXT NOT NULL,
  waiting_zh TEXT NOT NULL,
  waiting_en TEXT NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE INDEX deployment_versions_by_deployment ON deployment_versions (deployment_id, id);
CREATE INDEX deployment_versions_by_model ON deployment_versions (model_version_id);

CREATE TABLE replicas (
  id TEXT PRIMARY KEY,
  version_id TEXT NOT NULL REFERENCES deployment_versions (id) ON DELETE CASCADE,
  deployment_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  detail_zh TEXT NOT NULL,
  detail_en TEXT NOT NULL,
  log TEXT NOT NULL,
  port BIGINT NOT NULL,
  cpu BIGINT NOT NULL,
  memory_gb BIGINT NOT NULL,
  gpu BIGINT NOT NULL,
  vgpu BIGINT NOT NULL,
  mig BIGINT NOT NULL,
  grants TEXT NOT NULL,
  plan TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  started_at BIGINT,
  ready_at BIGINT,
  ended_at BIGINT
);
CREATE INDEX replicas_by_version ON replicas (version_id, id);
CREATE INDEX replicas_active ON replicas (user_id) WHERE state <> 'ended';
