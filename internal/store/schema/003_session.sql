-- Times and absence are written as in 001_login.sql.

-- +goose Up

-- A browser single-sign-on session (level 1 only). cookie is the SHA-256 of the
-- cookie's secret; idx is the SessionIndex of its assertions.
CREATE TABLE session (
    idx           TEXT   NOT NULL PRIMARY KEY,
    cookie        BLOB   NOT NULL UNIQUE CHECK (length(cookie) = 32),
    subject       TEXT   NOT NULL,
    authenticated BIGINT NOT NULL,
    created       BIGINT NOT NULL,
    used          BIGINT NOT NULL,
    ended         BIGINT NOT NULL
);

CREATE INDEX session_by_used ON session (used);

-- A service provider that was sent an assertion of the session: with which
-- NameID, and under which names pages show it (JSON by language).
CREATE TABLE participant (
    sp      TEXT   NOT NULL,
    name_id TEXT   NOT NULL,
    session TEXT   NOT NULL REFERENCES session (idx) ON DELETE CASCADE,
    names   TEXT   NOT NULL,
    joined  BIGINT NOT NULL,
    PRIMARY KEY (sp, name_id)
);

CREATE INDEX participant_by_session ON participant (session);

-- Telling the others of the end of a session, while it is in progress and until
-- it is swept. A session ends once, so there is at most one.
CREATE TABLE logout (
    id       TEXT   NOT NULL PRIMARY KEY,
    version  BIGINT NOT NULL CHECK (version > 0),
    session  TEXT   NOT NULL UNIQUE,
    browser  BLOB   NOT NULL CHECK (length(browser) = 32),
    deadline BIGINT NOT NULL,
    document TEXT   NOT NULL
);

CREATE INDEX logout_by_deadline ON logout (deadline);

-- Our LogoutRequests, to know what an answer answers.
CREATE TABLE logout_request (
    request_id TEXT NOT NULL PRIMARY KEY,
    logout_id  TEXT NOT NULL REFERENCES logout (id) ON DELETE CASCADE
);

CREATE INDEX logout_request_by_logout ON logout_request (logout_id);

-- +goose Down
DROP TABLE logout_request;
DROP TABLE logout;
DROP TABLE participant;
DROP TABLE session;
