-- What a manifest says of itself: an image, an index of several, or an artifact, which no job can run.
ALTER TABLE image_manifests ADD COLUMN kind TEXT NOT NULL DEFAULT 'image';
ALTER TABLE image_manifests ADD COLUMN artifact_type TEXT NOT NULL DEFAULT '';
ALTER TABLE image_manifests ADD COLUMN subject TEXT NOT NULL DEFAULT ''; -- the digest of what it refers to
ALTER TABLE image_manifests ADD COLUMN annotations TEXT NOT NULL DEFAULT 'null';

-- Every manifest that an image has, tagged or not. What no tag leads to (by itself, through an index, or as
-- what refers to such a one) is removed some time after unreachable_since.
CREATE TABLE image_contents (
  image_id          TEXT NOT NULL REFERENCES images (id),
  manifest          TEXT NOT NULL REFERENCES image_manifests (digest),
  unreachable_since BIGINT,
  created_at        BIGINT NOT NULL,
  PRIMARY KEY (image_id, manifest)
);
CREATE INDEX image_contents_by_manifest ON image_contents (manifest);
CREATE INDEX image_contents_unreachable ON image_contents (unreachable_since) WHERE unreachable_since IS NOT NULL;
INSERT INTO image_contents (image_id, manifest, unreachable_since, created_at)
SELECT image_id, manifest, NULL, MIN(created_at) FROM image_tags GROUP BY image_id, manifest;

-- Blobs that were pushed or mounted and that no manifest need name yet; they stay for some time. The image
-- itself appears with its first manifest, hence its name and not its id.
CREATE TABLE image_loose_blobs (
  user_id TEXT NOT NULL,
  name    TEXT NOT NULL,
  digest  TEXT NOT NULL,
  size    BIGINT NOT NULL,
  held_at BIGINT NOT NULL,
  PRIMARY KEY (user_id, name, digest)
);
CREATE INDEX image_loose_blobs_by_digest ON image_loose_blobs (digest);
CREATE INDEX image_loose_blobs_by_age ON image_loose_blobs (held_at);

-- Pushes of blobs under way; the bytes are in images/.uploads/ID.
CREATE TABLE image_uploads (
  id         TEXT PRIMARY KEY,
  user_id    TEXT NOT NULL, -- whose image it is for
  name       TEXT NOT NULL,
  touched_at BIGINT NOT NULL
);
CREATE INDEX image_uploads_by_age ON image_uploads (touched_at);

-- Signs the registry's tokens.
CREATE TABLE image_registry_keys (
  id     TEXT PRIMARY KEY,
  secret TEXT NOT NULL
);
