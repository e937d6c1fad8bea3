"""The schema of the state in an SQLite file, as the steps that lead to it, and how an image is recorded in it."""

#: The step from each version to the next; the first makes a new file. Steps are added and never changed.
MIGRATIONS = (
    """
    CREATE TABLE layers (
        key TEXT PRIMARY KEY, digest TEXT NOT NULL, size INTEGER NOT NULL, diff_id TEXT NOT NULL,
        store_paths TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE blobs (digest TEXT NOT NULL, repository TEXT NOT NULL, PRIMARY KEY (digest, repository)) WITHOUT ROWID;
    """,
    """
    CREATE TABLE tags (
        repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, key TEXT NOT NULL, checked REAL NOT NULL,
        moving INTEGER NOT NULL, replaced TEXT NOT NULL, PRIMARY KEY (repository, tag)
    ) WITHOUT ROWID;
    CREATE TABLE images (
        repository TEXT NOT NULL, digest TEXT NOT NULL, made REAL NOT NULL, pulled REAL NOT NULL,
        PRIMARY KEY (repository, digest)
    ) WITHOUT ROWID;
    CREATE TABLE revisions (
        package_set TEXT NOT NULL, reference TEXT NOT NULL, revision TEXT NOT NULL, resolved REAL NOT NULL,
        PRIMARY KEY (package_set, reference)
    ) WITHOUT ROWID;
    CREATE TABLE builds (
        id TEXT PRIMARY KEY, repository TEXT NOT NULL, tag TEXT NOT NULL, machine TEXT NOT NULL,
        started REAL NOT NULL, ended REAL NOT NULL, digest TEXT NOT NULL, error TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX builds_by_start ON builds (started);
    """,
    """
    ALTER TABLE builds ADD COLUMN host TEXT NOT NULL DEFAULT '';
    ALTER TABLE builds ADD COLUMN phase TEXT NOT NULL DEFAULT '';
    ALTER TABLE builds ADD COLUMN ready INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE builds ADD COLUMN total INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE builds ADD COLUMN outcome TEXT NOT NULL DEFAULT '';
    ALTER TABLE builds ADD COLUMN reported REAL NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE images ADD COLUMN revision TEXT NOT NULL DEFAULT '';
    ALTER TABLE images ADD COLUMN settings TEXT NOT NULL DEFAULT '';
    ALTER TABLE images ADD COLUMN deleted REAL NOT NULL DEFAULT 0;
    CREATE INDEX images_by_deletion ON images (deleted) WHERE deleted > 0;
    """,
    "ALTER TABLE images ADD COLUMN due REAL NOT NULL DEFAULT 0;",
    "ALTER TABLE images ADD COLUMN pulls INTEGER NOT NULL DEFAULT 0;",
)

#: As `proxy.state.renewed` says.
RECORD_IMAGE = """
    INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (repository, digest) DO UPDATE SET
        made = CASE WHEN deleted > 0 THEN excluded.made ELSE made END,
        revision = CASE WHEN excluded.revision = '' THEN revision ELSE excluded.revision END,
        settings = CASE WHEN excluded.settings = '' THEN settings ELSE excluded.settings END,
        deleted = 0, due = CASE WHEN excluded.due = 0 THEN due ELSE excluded.due END
"""
