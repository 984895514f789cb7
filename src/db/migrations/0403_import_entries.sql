-- Large entries that imports under way have put into the store: after the server's end they go on from there.
CREATE TABLE image_import_entries (
  import_id TEXT NOT NULL REFERENCES image_imports (id),
  name      TEXT NOT NULL, -- in the archive
  source    TEXT NOT NULL, -- which file that was
  digest    TEXT NOT NULL,
  size      BIGINT NOT NULL,
  PRIMARY KEY (import_id, name)
);
CREATE INDEX image_import_entries_by_digest ON image_import_entries (digest);
