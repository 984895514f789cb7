-- A user may have so many pushes under way.
CREATE INDEX image_uploads_by_user ON image_uploads (user_id);
