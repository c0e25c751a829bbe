package postgres

import (
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/connectors"
)

const (
	nextPooler = "Connect to the server itself, or to a pooler in session mode: prepared statements and settings of a session must last."
	nextRetry  = "Run again; nothing has to be changed."
)

// bySQLState are the verdicts on what the server says most precisely.
var bySQLState = map[string]verdict{
	"08P01": {connectors.KindTransient, isFailed, "Check what lies between here and the server."},
	"22P03": {connectors.KindInternal, isInternal, ""}, // our binary form is wrong
	"25006": {connectors.KindConfig, isDenied, "The server or the role is read-only: connect to the primary, for example with `target_session_attrs=read-write` in `dsn`."},
	"25P03": {connectors.KindTransient, isFailed, nextRetry},
	"26000": {connectors.KindConfig, isFailed, nextPooler},
	"34000": {connectors.KindConfig, isFailed, nextPooler},
	"28P01": {connectors.KindConfig, isDenied, "Correct `user` and `password`; without one, that of .pgpass is used."},
	"3D000": {connectors.KindConfig, isMissing, "Create the database, or correct `database`."},
	"3F000": {connectors.KindConfig, isMissing, "Create the schema, or correct its name."},
	"42501": {connectors.KindConfig, isDenied, ""}, // see grant
	"42622": {connectors.KindData, isValue, ""},    // of a value of type name
	"42701": {connectors.KindTransient, isFailed, "Somebody else has created it at the same time: run again."},
	"42703": {connectors.KindSchema, isColumn, ""},
	"42710": {connectors.KindTransient, isFailed, "Somebody else has created it at the same time: run again."},
	"42804": {connectors.KindSchema, isType, ""},
	"42846": {connectors.KindSchema, isType, ""},
	"42883": {connectors.KindSchema, isType, ""},
	"42P01": {connectors.KindConfig, isMissing, "Create the table, or correct its name; `rapidbyte-node discover` lists what is there."},
	"42P05": {connectors.KindConfig, isFailed, nextPooler},
	"42P06": {connectors.KindTransient, isFailed, "Somebody else has created it at the same time: run again."},
	"42P07": {connectors.KindTransient, isFailed, "Somebody else has created it at the same time: run again."},
	"53100": {connectors.KindTransient, isFull, "Free space on the server."},
	"53300": {connectors.KindTransient, isFailed, "The server has no connection left: raise `max_connections` there or the limit of the role, or lower the parallelism here."},
	"54000": {connectors.KindData, isValue, "A row or a key of an index is too large for the server: leave the column out, or drop the index."},
	"55006": {connectors.KindTransient, isBusy, nextRetry},
	"55P03": {connectors.KindTransient, isBusy, "Somebody holds a lock: end that transaction, or raise `lock_timeout`."},
	"57014": {connectors.KindTransient, isFailed, "Somebody has cancelled the statement: run again."},
	"57P04": {connectors.KindConfig, isMissing, "The database has been dropped: create it, or correct `database`."},
	"72000": {connectors.KindScanLost, isFailed, "Raise `old_snapshot_threshold` on the server."},
	"XX001": {connectors.KindConfig, isFailed, "The server has found damaged data: restore it from a backup."},
	"XX002": {connectors.KindConfig, isFailed, "The server has found a damaged index: REINDEX it."},
}

// byClass are the verdicts on the classes of SQLSTATE, its first two characters.
// What is not here has to be looked at by somebody.
var byClass = map[string]verdict{
	"08": {connectors.KindTransient, isFailed, nextRetry},
	"21": {connectors.KindData, isRefused, ""},
	"22": {connectors.KindData, isValue, ""},
	"23": {connectors.KindData, isRefused, ""},
	"25": {connectors.KindInternal, isInternal, ""}, // statements of ours in the wrong order
	"28": {connectors.KindConfig, isDenied, "Correct `user`, `password` and `sslmode`, or let the pg_hba.conf of the server accept this role from here."},
	"40": {connectors.KindTransient, isFailed, nextRetry},
	"44": {connectors.KindData, isRefused, ""},
	"53": {connectors.KindTransient, isFailed, "The server lacks resources: look at its log."},
	"57": {connectors.KindTransient, isFailed, "The server was stopped or is starting: run again when it is there."},
	"58": {connectors.KindTransient, isFailed, "The server has trouble with its files: look at its log."},
	"P0": {connectors.KindData, isRefused, ""},
}

// judgeRefusal knows what the server means.
func judgeRefusal(stage string, e *pgconn.PgError) verdict {
	if v, ok := judgeText(stage, e); ok {
		return v
	}
	if v, ok := bySQLState[e.Code]; ok {
		return v
	}
	if len(e.Code) == 5 {
		if v, ok := byClass[e.Code[:2]]; ok {
			return v
		}
	}
	return verdict{connectors.KindConfig, isFailed, ""}
}

// judgeText tells apart what the server gives the same SQLSTATE.
func judgeText(stage string, e *pgconn.PgError) (verdict, bool) {
	has := func(text string) bool { return strings.Contains(e.Message, text) }
	switch e.Code {
	case "08P01":
		if has("in message") || has("binary") || has("message format") { // a message of ours
			return verdict{connectors.KindInternal, isInternal, ""}, true
		}
	case "0A000":
		if has("cached plan") {
			return verdict{connectors.KindTransient, isFailed, "A table has changed at the same time: run again."}, true
		}
	case "22023", "42704", "55000":
		if stage == connectors.StageSource && has("snapshot") {
			return verdict{connectors.KindScanLost, isFailed, "The snapshot of the scan has ended: the next attempt takes a new one."}, true
		}
	case "28000":
		return judgeLogin(e), true
	case "40001":
		if has("recovery") {
			return verdict{connectors.KindTransient, isFailed, "The standby has ended the query: set `hot_standby_feedback = on` or raise `max_standby_streaming_delay` there."}, true
		}
	case "42501":
		return verdict{connectors.KindConfig, isDenied, grant(stage, e)}, true
	case "57014":
		if has("statement timeout") {
			return verdict{connectors.KindTransient, isFailed, "Raise `statement_timeout`, or set it to 0s for no limit."}, true
		}
	case "XX000":
		if has("tuple concurrently") {
			return verdict{connectors.KindTransient, isFailed, "Somebody else has changed the same table at the same time: run again."}, true
		}
	}
	return verdict{}, false
}

// judgeLogin knows the texts of a login that is refused.
func judgeLogin(e *pgconn.PgError) verdict {
	next := byClass["28"].next
	switch m := e.Message; {
	case strings.Contains(m, "no encryption"):
		next = "The server does not accept this role from here without TLS, or not at all: set `sslmode: require`, or add a line to its pg_hba.conf."
	case strings.Contains(m, "pg_hba.conf"):
		next = "Add a line for this role, database and address to the pg_hba.conf of the server, and reload it."
	case strings.Contains(m, "does not exist"):
		next = "Create the role, or correct `user`."
	case strings.Contains(m, "not permitted to log in"):
		next = "Let the role log in: ALTER ROLE .. LOGIN."
	}
	return verdict{connectors.KindConfig, isDenied, next}
}

var (
	deniedFor = regexp.MustCompile(`^permission denied for ([a-z ]+?) "?([^"]+)"?$`)
	ownerOf   = regexp.MustCompile(`^must be owner of ([a-z ]+?) "?([^"]+)"?$`)
)

// grant names the right that is missing.
func grant(stage string, e *pgconn.PgError) string {
	if strings.Contains(e.Message, "row-level security") {
		return "The table has row-level security, and a part of its rows is never taken for all: give the role BYPASSRLS, or read as the owner of the table."
	}
	if m := ownerOf.FindStringSubmatch(e.Message); m != nil {
		return "Make the role the owner of the " + m[1] + " " + m[2] + ", or a member of the owner."
	}
	m := deniedFor.FindStringSubmatch(e.Message)
	if m == nil {
		return "Grant what the message names."
	}
	rights := map[string][2]string{
		"table":    {"SELECT ON TABLE", "SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE"},
		"view":     {"SELECT ON TABLE", "SELECT, INSERT, UPDATE, DELETE ON TABLE"},
		"schema":   {"USAGE ON SCHEMA", "USAGE, CREATE ON SCHEMA"},
		"database": {"CONNECT ON DATABASE", "CONNECT, CREATE ON DATABASE"},
		"sequence": {"SELECT ON SEQUENCE", "USAGE, SELECT ON SEQUENCE"},
		"function": {"EXECUTE ON FUNCTION", "EXECUTE ON FUNCTION"},
		"type":     {"USAGE ON TYPE", "USAGE ON TYPE"},
	}
	right, ok := rights[m[1]]
	if !ok {
		return "Grant the role access to the " + m[1] + " " + m[2] + "."
	}
	if stage == connectors.StageDestination {
		return "Grant the right: GRANT " + right[1] + " " + m[2] + " TO the role."
	}
	return "Grant the right: GRANT " + right[0] + " " + m[2] + " TO the role."
}
