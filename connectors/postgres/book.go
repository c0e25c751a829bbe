package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const bookkeeping = "_rapidbyte"

// bookVersion is recorded as the comment of the schema; a higher one is refused.
const bookVersion = "rapidbyte bookkeeping 1"

// bookTables makes the bookkeeping. Positions and plans are json, not jsonb: they
// come back byte for byte, and jsonb refuses texts that a cursor may hold.
const bookTables = `
CREATE TABLE _rapidbyte.owner (
	pipeline_id uuid PRIMARY KEY, pipeline text NOT NULL, epoch bigint NOT NULL, store_identity text NOT NULL, updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE _rapidbyte.load (
	pipeline_id uuid NOT NULL, name text NOT NULL, load_no bigint NOT NULL, finished boolean NOT NULL, status json NOT NULL, streams json NOT NULL,
	updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (pipeline_id, name));
CREATE TABLE _rapidbyte.receipt (
	pipeline_id uuid NOT NULL, part text NOT NULL, load text NOT NULL, load_no bigint NOT NULL, commit_no bigint NOT NULL,
	epoch bigint NOT NULL, attempt bigint NOT NULL, position json NOT NULL, final boolean NOT NULL, plan json NOT NULL,
	source_identity text NOT NULL, target_oid oid, rows_read bigint NOT NULL, rows_arrived bigint NOT NULL, rows_applied bigint NOT NULL,
	rows_rejected bigint NOT NULL, updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (pipeline_id, part));
CREATE INDEX receipt_load ON _rapidbyte.receipt (pipeline_id, load);
CREATE TABLE _rapidbyte.dlq (
	pipeline_id uuid NOT NULL, stream text NOT NULL, part text NOT NULL, load text NOT NULL, load_no bigint NOT NULL, commit_no bigint NOT NULL, ordinal bigint NOT NULL,
	pos text NOT NULL, reason_code text NOT NULL, sqlstate text NOT NULL, message text NOT NULL, payload bytea NOT NULL, epoch bigint NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (pipeline_id, part, load_no, commit_no, ordinal));
CREATE INDEX dlq_stream ON _rapidbyte.dlq (pipeline_id, stream, created_at);
COMMENT ON SCHEMA _rapidbyte IS '` + bookVersion + `'`

// bookLock is the advisory lock under which the bookkeeping is made.
const bookLock = 0x7262_6f6f_6b73 // "rbooks"

// ensureBook makes the bookkeeping if there is none.
func ensureBook(ctx context.Context, conn *pgx.Conn) error {
	has, err := hasBook(ctx, conn)
	if err != nil || has {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(bookLock)); err != nil {
			return err
		}
		if has, err := hasBook(ctx, conn); err != nil || has { // somebody else was first
			return err
		}
		if _, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+bookkeeping); err != nil {
			return err
		}
		_, err := tx.Conn().PgConn().Exec(ctx, bookTables).ReadAll()
		return err
	})
}

// hasBook reports whether the bookkeeping is there, and refuses one that is not ours.
func hasBook(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var tables int
	var comment *string
	err := conn.QueryRow(ctx, `SELECT count(c.oid), obj_description(n.oid, 'pg_namespace') FROM pg_namespace n
		LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname IN ('owner', 'load', 'receipt', 'dlq') AND c.relkind = 'r'
		WHERE n.nspname = $1 GROUP BY n.oid`, bookkeeping).Scan(&tables, &comment)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	case tables == 0:
		return false, nil
	case tables < 4:
		return false, damaged(errors.New("the schema _rapidbyte is incomplete: some of its tables are gone"))
	case comment == nil || *comment != bookVersion:
		return false, damaged(errors.New("the schema _rapidbyte was made by another version of this program, or its comment was changed"))
	}
	return true, nil
}

func damaged(err error) error {
	return &connectors.Error{
		Op: "read the bookkeeping", Kind: connectors.KindConfig, Code: messages.CodeDestDamaged,
		Place: messages.Place{Stage: connectors.StageDestination}, Err: err,
	}
}

// owner is the fence of one pipeline.
type owner struct {
	epoch messages.Epoch
	store string
}

const (
	ownerSQL       = "SELECT epoch, store_identity FROM _rapidbyte.owner WHERE pipeline_id = $1"
	ownerLockedSQL = ownerSQL + " FOR SHARE"
)

// readOwner returns the registered owner; ok is false when there is none. lock is
// appended to the query.
func readOwner(ctx context.Context, conn *pgx.Conn, id uuid.UUID, lock string) (o owner, ok bool, err error) {
	return scanOwner(conn.QueryRow(ctx, ownerSQL+lock, id))
}

func scanOwner(row pgx.Row) (o owner, ok bool, err error) {
	var epoch int64
	err = row.Scan(&epoch, &o.store)
	if errors.Is(err, pgx.ErrNoRows) {
		return owner{}, false, nil
	}
	o.epoch = messages.Epoch(epoch) //nolint:gosec // never negative
	return o, err == nil, err
}

// storedLoad is a row of the table load.
type storedLoad struct {
	status  connectors.LoadStatus
	streams []storedStream
}

// storedStream is what a writer needs to know of a stream.
type storedStream struct {
	Stream messages.StreamID `json:"stream"`
	Target string            `json:"target"`
	Key    []string          `json:"key,omitempty"`
	Stage  string            `json:"stage,omitempty"` // table that a replace fills
	OID    uint32            `json:"oid"`             // of the table that is written to
	Book   uint32            `json:"book"`            // OID of the bookkeeping when that was read: another one means that all of it was restored
	Schema []byte            `json:"schema"`          // Arrow IPC
}

func (s storedStream) plan() (connectors.StreamPlan, error) {
	schema, err := decodeSchema(s.Schema)
	return connectors.StreamPlan{Stream: s.Stream, Schema: schema, Key: s.Key, Target: s.Target}, err
}

// stream returns what is stored of one stream.
func (l storedLoad) stream(id messages.StreamID) (storedStream, bool) {
	for _, s := range l.streams {
		if s.Stream == id {
			return s, true
		}
	}
	return storedStream{}, false
}

func encodeSchema(schema *arrow.Schema) ([]byte, error) {
	var b bytes.Buffer
	if err := ipc.NewWriter(&b, ipc.WithSchema(schema)).Close(); err != nil {
		return nil, fmt.Errorf("encode the schema: %w", err)
	}
	return b.Bytes(), nil
}

// decodeSchema reads what encodeSchema wrote; arrow panics on damaged bytes.
func decodeSchema(raw []byte) (schema *arrow.Schema, err error) {
	defer func() {
		if p := recover(); p != nil {
			schema, err = nil, damaged(fmt.Errorf("decode a schema: %v", p))
		}
	}()
	r, err := ipc.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, damaged(fmt.Errorf("decode a schema: %w", err))
	}
	defer r.Release()
	return r.Schema(), nil
}

// Of one load or part and of all there are two statements each: a plan that serves both reads
// all rows of the pipeline for one of them.
const (
	loadsSQL    = "SELECT name, load_no, finished, status::text, streams::text FROM _rapidbyte.load WHERE pipeline_id = $1"
	receiptsSQL = `SELECT part, load, load_no, commit_no, epoch, attempt, position::text, final, plan::text, source_identity, coalesce(target_oid, 0)::bigint,
		rows_read, rows_arrived, rows_applied, rows_rejected FROM _rapidbyte.receipt WHERE pipeline_id = $1`

	loadsNamedSQL = loadsSQL + " AND name = ANY($2) ORDER BY name"

	// It is sent before the answer about the owner is there: who is not the owner locks nothing.
	receiptLockedSQL = receiptsSQL + " AND part = $2 AND EXISTS (SELECT FROM _rapidbyte.owner WHERE pipeline_id = $1 AND epoch = $3) FOR UPDATE"
)

// readLoads returns the loads of a pipeline, sorted by name; no name stands for all.
func readLoads(ctx context.Context, conn *pgx.Conn, id uuid.UUID, names ...string) ([]storedLoad, error) {
	sql, args := loadsSQL+" ORDER BY name", []any{id}
	if len(names) > 0 {
		sql, args = loadsNamedSQL, append(args, names)
	}
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return collectLoads(rows)
}

func collectLoads(rows pgx.Rows) ([]storedLoad, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (storedLoad, error) {
		var l storedLoad
		var name, status, streams string
		var number int64
		var finished bool
		if err := row.Scan(&name, &number, &finished, &status, &streams); err != nil {
			return l, err
		}
		if err := errors.Join(json.Unmarshal([]byte(status), &l.status), json.Unmarshal([]byte(streams), &l.streams)); err != nil {
			return l, damaged(fmt.Errorf("load %s: %w", name, err))
		}
		l.status.ID, l.status.Finished = messages.LoadID{Name: name, Number: uint64(number)}, finished //nolint:gosec // never negative
		return l, nil
	})
}

// bookOID tells this bookkeeping from one that was restored.
func bookOID(ctx context.Context, conn *pgx.Conn) (oid uint32, err error) {
	return oid, conn.QueryRow(ctx, "SELECT '_rapidbyte.load'::regclass::oid").Scan(&oid)
}

// readRecovered returns what is known of a pipeline.
func readRecovered(ctx context.Context, conn *pgx.Conn, id uuid.UUID) (r connectors.Recovered, err error) {
	loads, err := readLoads(ctx, conn, id)
	if err != nil {
		return r, err
	}
	for _, l := range loads {
		r.Loads = append(r.Loads, l.status)
	}
	found, err := readReceipts(ctx, conn, id, "")
	r.Receipts, r.Parts = found.all, found.parts
	return r, err
}

// receipts are rows of the table receipt.
type receipts struct {
	all    []messages.Receipt
	parts  []connectors.Part
	origin []string // source identity
	oids   []uint32 // of the table that was written to; 0: nothing was
}

// readReceipts returns receipts with their parts, sorted; part "" stands for all.
func readReceipts(ctx context.Context, conn *pgx.Conn, id uuid.UUID, part messages.PartID) (receipts, error) {
	sql, args := receiptsSQL+" ORDER BY load, part", []any{id}
	if part != "" {
		sql, args = receiptsSQL+" AND part = $2", append(args, string(part))
	}
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return receipts{}, err
	}
	return collectReceipts(rows)
}

func collectReceipts(rows pgx.Rows) (out receipts, err error) {
	defer rows.Close()
	for rows.Next() {
		var r messages.Receipt
		var p connectors.Part
		var name, position, planned, identity string
		var load, commit, epoch, attempt, oid int64
		if err := rows.Scan(&name, &r.Load, &load, &commit, &epoch, &attempt, &position, &r.Final, &planned, &identity, &oid,
			&r.Rows.Read, &r.Rows.Arrived, &r.Rows.Applied, &r.Rows.Rejected); err != nil {
			return out, err
		}
		if err := errors.Join(json.Unmarshal([]byte(position), &r.Position), json.Unmarshal([]byte(planned), &p)); err != nil {
			return out, damaged(fmt.Errorf("receipt of part %s: %w", name, err))
		}
		r.Part = messages.PartID(name)
		r.Version = messages.Version{Load: uint64(load), Commit: uint64(commit)}                   //nolint:gosec // never negative
		r.Token = messages.Token{Epoch: messages.Epoch(epoch), Attempt: messages.Attempt(attempt)} //nolint:gosec // never negative
		out.all, out.parts = append(out.all, r), append(out.parts, p)
		out.origin, out.oids = append(out.origin, identity), append(out.oids, uint32(oid)) //nolint:gosec // an oid
	}
	return out, rows.Err()
}
