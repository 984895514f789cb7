-- What an import takes from another registry; '' where it reads a file. Credentials are kept in memory only: an
-- import that had some cannot go on after the server's end.
ALTER TABLE image_imports ADD COLUMN reference TEXT NOT NULL DEFAULT '';
ALTER TABLE image_imports ADD COLUMN with_credentials BIGINT NOT NULL DEFAULT 0;
-- Blobs that were fetched in part wait under a name of their own.
CREATE INDEX image_uploads_by_name ON image_uploads (user_id, name);
