package duckdb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

const (
	bookkeeping = "_rapidbyte"
	stagePrefix = "_rapidbyte_stage_"
)

// bookTables makes the bookkeeping. No table has a key: changes are serialised by
// control of the file, and an index would cost every commit.
const bookTables = `CREATE SCHEMA IF NOT EXISTS _rapidbyte;
CREATE TABLE IF NOT EXISTS _rapidbyte.owner (pipeline VARCHAR NOT NULL, epoch BIGINT NOT NULL, store VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS _rapidbyte.load (pipeline VARCHAR NOT NULL, name VARCHAR NOT NULL, number BIGINT NOT NULL,
	finished BOOLEAN NOT NULL, status VARCHAR NOT NULL, streams VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS _rapidbyte.receipt (pipeline VARCHAR NOT NULL, part VARCHAR NOT NULL, load VARCHAR NOT NULL, load_no BIGINT NOT NULL,
	commit_no BIGINT NOT NULL, epoch BIGINT NOT NULL, attempt BIGINT NOT NULL, position VARCHAR NOT NULL, final BOOLEAN NOT NULL, plan VARCHAR NOT NULL,
	rows_read BIGINT NOT NULL, rows_arrived BIGINT NOT NULL, rows_applied BIGINT NOT NULL, rows_rejected BIGINT NOT NULL, updated_at TIMESTAMPTZ NOT NULL);
CREATE TABLE IF NOT EXISTS _rapidbyte.dlq (pipeline VARCHAR NOT NULL, stream VARCHAR NOT NULL, part VARCHAR NOT NULL, load_no BIGINT NOT NULL,
	commit_no BIGINT NOT NULL, ordinal BIGINT NOT NULL, reason VARCHAR NOT NULL, payload VARCHAR NOT NULL, created_at TIMESTAMPTZ NOT NULL)`

const receiptColumns = `part, load, load_no, commit_no, epoch, attempt, position, final, plan, rows_read, rows_arrived, rows_applied, rows_rejected`

// hasBook reports whether the file has the bookkeeping tables.
func hasBook(ctx context.Context, conn *duckarrow.Conn) (bool, error) {
	rows, err := conn.Rows(ctx, `SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = '_rapidbyte'
		AND table_name IN ('owner', 'load', 'receipt', 'dlq')`)
	if err != nil {
		return false, err
	}
	n, _ := rows[0][0].(int64)
	if n > 0 && n < 4 {
		return false, errors.New("the schema _rapidbyte is incomplete")
	}
	return n == 4, nil
}

// owner is the fence of one pipeline.
type owner struct {
	epoch messages.Epoch
	store string
}

// readOwner returns the registered owner; ok is false when there is none.
func readOwner(ctx context.Context, conn *duckarrow.Conn, p messages.PipelineID) (o owner, ok bool, err error) {
	rows, err := conn.Rows(ctx, "SELECT epoch, store FROM _rapidbyte.owner WHERE pipeline = ?", string(p))
	if err != nil || len(rows) == 0 {
		return owner{}, false, err
	}
	if len(rows) > 1 {
		return owner{}, false, fmt.Errorf("the table _rapidbyte.owner has %d rows for the pipeline", len(rows))
	}
	r := row{values: rows[0]}
	return owner{epoch: messages.Epoch(r.number()), store: r.text()}, true, nil //nolint:gosec // never negative
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
	Schema []byte            `json:"schema"`          // Arrow IPC
}

func (s storedStream) plan() (connectors.StreamPlan, error) {
	schema, err := decodeSchema(s.Schema)
	return connectors.StreamPlan{Stream: s.Stream, Schema: schema, Key: s.Key, Target: s.Target}, err
}

func encodeSchema(schema *arrow.Schema) ([]byte, error) {
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(schema))
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encode the schema: %w", err)
	}
	return b.Bytes(), nil
}

// decodeSchema reads what encodeSchema wrote; arrow panics on damaged bytes.
func decodeSchema(raw []byte) (schema *arrow.Schema, err error) {
	defer func() {
		if p := recover(); p != nil {
			schema, err = nil, fmt.Errorf("decode the schema: %v", p)
		}
	}()
	r, err := ipc.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("decode the schema: %w", err)
	}
	defer r.Release()
	return r.Schema(), nil
}

// readLoads returns the loads of a pipeline, sorted by name; name "" stands for all.
func readLoads(ctx context.Context, conn *duckarrow.Conn, p messages.PipelineID, name string) ([]storedLoad, error) {
	rows, err := conn.Rows(ctx, `SELECT name, number, finished, status, streams FROM _rapidbyte.load
		WHERE pipeline = ? AND (? = '' OR name = ?) ORDER BY name`, string(p), name, name)
	if err != nil {
		return nil, err
	}
	var out []storedLoad
	for _, values := range rows {
		r := row{values: values}
		id := messages.LoadID{Name: r.text(), Number: uint64(r.number())} //nolint:gosec // never negative
		finished := r.flag()
		var l storedLoad
		if err := json.Unmarshal([]byte(r.text()), &l.status); err != nil {
			return nil, fmt.Errorf("read load %s: %w", id.Name, err)
		}
		l.status.ID, l.status.Finished = id, finished
		if err := json.Unmarshal([]byte(r.text()), &l.streams); err != nil {
			return nil, fmt.Errorf("read load %s: %w", l.status.ID.Name, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// readReceipts returns receipts with their parts, sorted; part "" stands for all.
func readReceipts(ctx context.Context, conn *duckarrow.Conn, p messages.PipelineID, part messages.PartID) ([]messages.Receipt, []connectors.Part, error) {
	rows, err := conn.Rows(ctx, "SELECT "+receiptColumns+` FROM _rapidbyte.receipt
		WHERE pipeline = ? AND (? = '' OR part = ?) ORDER BY load, part`, string(p), string(part), string(part))
	if err != nil {
		return nil, nil, err
	}
	var receipts []messages.Receipt
	var parts []connectors.Part
	for _, values := range rows {
		r := row{values: values}
		c := messages.Receipt{Part: messages.PartID(r.text()), Load: r.text()}
		c.Version = messages.Version{Load: uint64(r.number()), Commit: uint64(r.number())}                 //nolint:gosec // never negative
		c.Token = messages.Token{Epoch: messages.Epoch(r.number()), Attempt: messages.Attempt(r.number())} //nolint:gosec // never negative
		if err := json.Unmarshal([]byte(r.text()), &c.Position); err != nil {
			return nil, nil, fmt.Errorf("read the position of part %s: %w", c.Part, err)
		}
		c.Final = r.flag()
		var planned connectors.Part
		if err := json.Unmarshal([]byte(r.text()), &planned); err != nil {
			return nil, nil, fmt.Errorf("read the plan of part %s: %w", c.Part, err)
		}
		c.Rows = messages.Counts{Read: r.number(), Arrived: r.number(), Applied: r.number(), Rejected: r.number()}
		receipts, parts = append(receipts, c), append(parts, planned)
	}
	return receipts, parts, nil
}

// readRecovered returns what is known of a pipeline.
func readRecovered(ctx context.Context, conn *duckarrow.Conn, p messages.PipelineID) (r connectors.Recovered, err error) {
	loads, err := readLoads(ctx, conn, p, "")
	if err != nil {
		return r, err
	}
	for _, l := range loads {
		r.Loads = append(r.Loads, l.status)
	}
	r.Receipts, r.Parts, err = readReceipts(ctx, conn, p, "")
	return r, err
}

// stageName names the staging table of one stream of a load. It is the same on
// every call, so that a repeated Begin finds it.
func stageName(p messages.PipelineID, stream messages.StreamID, number uint64) string {
	sum := sha256.Sum256([]byte(string(p) + "\x00" + string(stream)))
	return fmt.Sprintf("%s%s_%d", stagePrefix, hex.EncodeToString(sum[:8]), number)
}

// transaction runs do between BEGIN and COMMIT and rolls back when it fails. A
// COMMIT that fails leaves nothing behind that a repetition would not find.
func transaction(ctx context.Context, conn *duckarrow.Conn, do func() error) error {
	if _, err := conn.Exec(ctx, "BEGIN TRANSACTION"); err != nil {
		return err
	}
	done := false
	defer func() { // also of a panic: the connection is used again
		if !done {
			// The first cause is reported; a rollback of what DuckDB has already rolled back fails.
			_, _ = conn.Exec(context.WithoutCancel(ctx), "ROLLBACK")
		}
	}()
	err := do()
	if err == nil {
		_, err = conn.Exec(context.WithoutCancel(ctx), "COMMIT")
	}
	done = err == nil
	return err
}
