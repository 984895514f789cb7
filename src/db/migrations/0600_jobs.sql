-- A job as lists show it. What is big and never listed is in job_specs, so that this table stays narrow.
-- `status` is the documented word for `state`; `ended_at` is NULL exactly while the job is not over.
CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL,
  user_name TEXT NOT NULL,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  group_id TEXT NOT NULL,
  state TEXT NOT NULL,
  status TEXT NOT NULL,
  reason TEXT NOT NULL,
  reason_number BIGINT NOT NULL,
  reason_rank BIGINT NOT NULL,
  reason_zh TEXT NOT NULL,
  reason_en TEXT NOT NULL,
  progress DOUBLE PRECISION NOT NULL,
  attempt BIGINT NOT NULL,
  run_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  queued_at BIGINT NOT NULL,
  started_at BIGINT,
  ended_at BIGINT,
  version BIGINT NOT NULL,
  cpu BIGINT NOT NULL,
  memory_gb BIGINT NOT NULL,
  gpu BIGINT NOT NULL,
  vgpu BIGINT NOT NULL,
  mig BIGINT NOT NULL
);
-- Every list is one of these four in id order; `name` makes them cover the filter on it.
CREATE INDEX jobs_by_kind ON jobs (kind, id, name);
CREATE INDEX jobs_by_kind_status ON jobs (kind, status, id, name);
CREATE INDEX jobs_by_user ON jobs (user_id, kind, id, name);
CREATE INDEX jobs_by_user_status ON jobs (user_id, kind, status, id, name);
-- What is not over: what the reconciler looks at, and what quotas count.
CREATE INDEX jobs_open ON jobs (state, user_id) WHERE ended_at IS NULL;

-- `spec` is what runs, `request` what was asked for, as the documented API gives it back.
CREATE TABLE job_specs (
  job_id TEXT PRIMARY KEY,
  spec TEXT NOT NULL,
  request TEXT NOT NULL,
  model_version_id TEXT NOT NULL,
  dataset_version_id TEXT NOT NULL,
  image_id TEXT NOT NULL
);
CREATE INDEX job_specs_by_model ON job_specs (model_version_id) WHERE model_version_id <> '';
CREATE INDEX job_specs_by_dataset ON job_specs (dataset_version_id) WHERE dataset_version_id <> '';
CREATE INDEX job_specs_by_image ON job_specs (image_id) WHERE image_id <> '';

-- One attempt of a job. Written before the engine is told to start it.
CREATE TABLE job_runs (
  run_id TEXT PRIMARY KEY,
  job_id TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  engine TEXT NOT NULL,
  granted TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  started_at BIGINT,
  ended_at BIGINT,
  reason TEXT NOT NULL,
  reason_number BIGINT NOT NULL,
  reason_rank BIGINT NOT NULL,
  reason_zh TEXT NOT NULL,
  reason_en TEXT NOT NULL,
  cpu_seconds DOUBLE PRECISION NOT NULL,
  memory_peak_bytes BIGINT NOT NULL
);
CREATE INDEX job_runs_by_job ON job_runs (job_id, attempt);

CREATE TABLE job_events (
  job_id TEXT NOT NULL,
  id TEXT NOT NULL,
  at BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  zh TEXT NOT NULL,
  en TEXT NOT NULL,
  log TEXT NOT NULL,
  PRIMARY KEY (job_id, id)
);

-- MLflow's shape. A later attempt that repeats a step replaces its value.
CREATE TABLE job_metrics (
  job_id TEXT NOT NULL,
  name TEXT NOT NULL,
  step BIGINT NOT NULL,
  value DOUBLE PRECISION NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (job_id, name, step)
);

-- Paths are below the job's checkpoint directory ("checkpoint") or its output directory ("output").
CREATE TABLE job_checkpoints (
  id TEXT PRIMARY KEY,
  job_id TEXT NOT NULL,
  place TEXT NOT NULL,
  path TEXT NOT NULL,
  kind TEXT NOT NULL,
  step BIGINT NOT NULL,
  size_bytes BIGINT NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX job_checkpoints_by_job ON job_checkpoints (job_id, place, path);

-- Files of deleted jobs that are still to be removed.
CREATE TABLE job_trash (
  job_id TEXT PRIMARY KEY
);
