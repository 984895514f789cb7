-- What a version is scaled to, and whether it has once been whole since it got its share.
ALTER TABLE deployment_versions ADD COLUMN desired BIGINT NOT NULL DEFAULT 1;
ALTER TABLE deployment_versions ADD COLUMN rolled_out BIGINT NOT NULL DEFAULT 0;

-- Since when a replica is being drained or stopped, and why if nobody asked for it.
ALTER TABLE replicas ADD COLUMN stopping_at BIGINT;
ALTER TABLE replicas ADD COLUMN stop_reason TEXT NOT NULL DEFAULT '';

CREATE TABLE deployment_events (
  deployment_id TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
  id TEXT NOT NULL,
  at BIGINT NOT NULL,
  version_id TEXT NOT NULL,
  replica_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  reason TEXT NOT NULL,
  replicas_before BIGINT,
  replicas_after BIGINT,
  zh TEXT NOT NULL,
  en TEXT NOT NULL,
  PRIMARY KEY (deployment_id, id)
);
