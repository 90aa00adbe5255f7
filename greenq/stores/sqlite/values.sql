-- Version 1 of the file in which results and rate limits are kept. Every row has the Unix
-- time in ms at which it is over; rows that are over are dropped by later writes.

CREATE TABLE entries (
  key TEXT PRIMARY KEY,
  expires INTEGER NOT NULL,
  data BLOB NOT NULL
) STRICT;

CREATE INDEX entries_by_end ON entries (expires);

CREATE TABLE counters (
  key TEXT PRIMARY KEY,
  expires INTEGER NOT NULL,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX counters_by_end ON counters (expires);

-- Who holds a slot of a concurrent rate limiter.
CREATE TABLE holders (
  key TEXT NOT NULL,
  holder TEXT NOT NULL,
  expires INTEGER NOT NULL,
  PRIMARY KEY (key, holder)
) STRICT, WITHOUT ROWID;

CREATE INDEX holders_by_end ON holders (expires);
