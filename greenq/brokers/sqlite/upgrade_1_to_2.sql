-- Dead letters with a priority, with ids that are never given again, and counted. Not to be
-- changed any more: it makes version 2, whatever schema.sql makes by then. Processes of version
-- 1 that have the file open go on working.
ALTER TABLE dead_letters RENAME TO dead_letters_of_version_1;
DROP INDEX dead_letters_by_queue;
DROP INDEX dead_letters_by_age;

CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  queue TEXT NOT NULL,
  priority INTEGER NOT NULL DEFAULT 0,
  died_at INTEGER NOT NULL,      -- Unix ms
  reason TEXT,
  deliveries INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  payload BLOB NOT NULL
) STRICT;

CREATE INDEX dead_letters_by_queue ON dead_letters (queue, id);
CREATE INDEX dead_letters_by_age ON dead_letters (died_at);

-- How many there are: to count a million takes 20 ms.
CREATE TABLE dead_letter_counts (
  queue TEXT PRIMARY KEY,
  letters INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER dead_letter_came AFTER INSERT ON dead_letters BEGIN
  INSERT INTO dead_letter_counts (queue, letters) VALUES (new.queue, 1)
  ON CONFLICT (queue) DO UPDATE SET letters = letters + 1;
END;

CREATE TRIGGER dead_letter_went AFTER DELETE ON dead_letters BEGIN
  UPDATE dead_letter_counts SET letters = letters - 1 WHERE queue = old.queue;
END;

INSERT INTO dead_letters (id, queue, died_at, reason, deliveries, message_id, payload)
SELECT id, queue, died_at, reason, deliveries, message_id, payload FROM dead_letters_of_version_1 ORDER BY id;
DROP TABLE dead_letters_of_version_1;
