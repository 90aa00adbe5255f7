-- What there is against a message at the deaths of its workers. Not to be changed any more: it makes
-- version 3, whatever schema.sql makes by then. Processes of version 2 that have the file open go on
-- working; what they take back is not counted here.
ALTER TABLE messages ADD COLUMN charges INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN unwitnessed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN cause TEXT;
