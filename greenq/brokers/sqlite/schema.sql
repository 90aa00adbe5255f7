-- Version 3 of the file. application_id and user_version are set by stores/sqlite/file.py, which brings a
-- file of an earlier version here by upgrade_1_to_2.sql and upgrade_2_to_3.sql.

-- Every message that is not dead. The ids only grow, also over deletions: a verdict that
-- comes twice must never meet a later message that was given the same id.
--
--   state 0  ready      holder is null
--   state 1  delayed    holder is null; waits for its due time
--   state 2  reserved   held by the worker whose id is in holder
CREATE TABLE messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  queue TEXT NOT NULL,           -- canonical name
  priority INTEGER NOT NULL,     -- lower first
  due INTEGER NOT NULL,          -- Unix ms: when it was enqueued, or its eta
  state INTEGER NOT NULL,
  holder INTEGER,
  deliveries INTEGER NOT NULL DEFAULT 0,  -- how often it was taken back from a worker
  message_id TEXT NOT NULL,
  payload BLOB NOT NULL,         -- as the encoder made it
  charges INTEGER NOT NULL DEFAULT 0,      -- deaths of its workers with evidence that it was the cause
  unwitnessed INTEGER NOT NULL DEFAULT 0,  -- deaths of its workers without any evidence
  cause TEXT                     -- how the last one with evidence was described
) STRICT;

CREATE INDEX messages_ready ON messages (queue, priority, due, id) WHERE state = 0;
CREATE INDEX messages_delayed ON messages (queue, due, id) WHERE state = 1;
CREATE INDEX messages_held ON messages (holder) WHERE state = 2;

-- Messages that failed for good, until their time to live is over. The ids only grow, in the
-- order of death: whoever acts on a letter never meets a later one with the same id.
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

-- Processes that consume. An id is never given again: it fences off late verdicts.
CREATE TABLE workers (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  pid INTEGER NOT NULL,
  host TEXT NOT NULL,
  lease_until INTEGER NOT NULL   -- Unix ms
) STRICT;
