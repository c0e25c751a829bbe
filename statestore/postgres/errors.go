package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// fail says what was attempted, on what.
func (s *Store) fail(op string, p messages.PipelineID, err error) error {
	return statestore.Wrap(statestore.Error{Op: op, Path: s.path, Pipeline: p, Err: s.explain(err)})
}

// explain adds what an error of the server means here and what to do about it. The cause
// stays within reach.
func (t *target) explain(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = &oneLine{err}
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	if e.Detail != "" {
		err = fmt.Errorf("%w; detail: %s", err, e.Detail)
	}
	switch {
	case e.Code == "42P01", e.Code == "3F000", e.Code == "42703": // no such table, schema, column
		return fmt.Errorf("%w: a table of the schema %s is gone or is another one: %w", statestore.ErrDamaged, schema, err)
	case strings.HasPrefix(e.Code, "XX00") && e.Code != "XX000": // pages or an index cannot be read
		return fmt.Errorf("%w: %w", statestore.ErrDamaged, err)
	case e.Code == "53100":
		return fmt.Errorf("%w: %w", statestore.ErrFull, err)
	case e.Code == "42501":
		return fmt.Errorf("%w; %s", err, t.grants(denied(e)))
	case e.Code == "25006":
		return fmt.Errorf("%w; the server is "+readOnly, err)
	case e.Code == "3D000":
		return fmt.Errorf("%w; create it: CREATE DATABASE %s", err, pgx.Identifier{t.pool.ConnConfig.Database}.Sanitize())
	case strings.HasPrefix(e.Code, "28"):
		return fmt.Errorf("%w; correct user and password, or let pg_hba.conf of the server accept them from here", err)
	case e.Code == "55P03":
		return fmt.Errorf("%w; somebody holds a lock on the tables of the schema %s: end that transaction", err, schema)
	case e.Code == "26000", e.Code == "42P05":
		return fmt.Errorf("%w; is there a pooler in transaction mode? Connect to the server itself", err)
	}
	return err
}

const readOnly = "read-only: connect to the primary one"

var deniedFor = regexp.MustCompile(`^permission denied for (database|schema|table)`)

// denied returns what a right is missing on; empty: it is about an owner.
func denied(e *pgconn.PgError) string {
	if m := deniedFor.FindStringSubmatch(e.Message); m != nil {
		return m[1]
	}
	return ""
}

// grants names the rights that are missing.
func (t *target) grants(what string) string {
	c := t.pool.ConnConfig
	role, on := pgx.Identifier{c.User}.Sanitize(), pgx.Identifier{schema}.Sanitize()
	usage := fmt.Sprintf("GRANT USAGE, CREATE ON SCHEMA %s TO %s", on, role)
	tables := fmt.Sprintf("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %s TO %s", on, role)
	switch what {
	case "database":
		return "grant the right: GRANT CREATE ON DATABASE " + pgx.Identifier{c.Database}.Sanitize() + " TO " + role
	case "schema", "table":
		return "grant the rights: " + usage + "; " + tables
	}
	return "make the role the owner of the schema " + schema + ", or grant the rights: " + usage + "; " + tables
}

// oneLine is an error of a connection, whose text has a line per address and try.
type oneLine struct{ err error }

func (e *oneLine) Error() string {
	var out []string
	for line := range strings.Lines(e.err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return strings.Join(out, " ")
}

func (e *oneLine) Unwrap() error { return e.err }

// caused puts the cause of the end of a context into the errors of what it ended.
func caused(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}
