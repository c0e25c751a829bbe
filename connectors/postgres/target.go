package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// goal is one stream of one load and the table it goes to.
type goal struct {
	cfg      DestinationConfig
	policy   connectors.WritePolicy
	pipeline messages.PipelineID
	mode     connectors.WriteMode
	stream   connectors.StreamPlan // schema as the writer gets it, key, target name
	load     uint64
	shelf    *shelf // what was read for many goals at once; nil: nothing
}

// planned is what Begin does for a goal.
type planned struct {
	alters     bool                 // statements change what other goals may have read
	locks      bool                 // statements lock the target against everybody
	statements []statement          // in order, all inside Begin's transaction
	stage      string               // replace: name of the staging table in cfg.Schema; else empty
	warnings   []connectors.Finding // what the user should know before
}

// statement is one change, with what it locks.
type statement struct{ SQL, Lock string }

// columnsMax is how many columns a table can have.
const columnsMax = 1600

// keyMax is how many columns an index can have.
const keyMax = 32

// stagePrefix begins the names of staging tables.
const stagePrefix = "_rb_load_"

// stageName is the name of the table that a replace fills. It leaves room for the
// numbers of its indexes.
func stageName(p messages.PipelineID, stream messages.StreamID, load uint64) string {
	sum := sha256.Sum256([]byte(string(p) + "\x00" + string(stream)))
	return fmt.Sprintf("%s%s_%d", stagePrefix, hex.EncodeToString(sum[:8]), load)
}

func (g goal) target() qname { return qname{g.cfg.Schema, g.stream.Target} }

func (g goal) stage() qname {
	return qname{g.cfg.Schema, stageName(g.pipeline, g.stream.Stream, g.load)}
}

func (n qname) sql() string { return query.Qualified(n.schema, n.name) }

// String spells the name for a message.
func (n qname) String() string { return n.schema + "." + n.name }

func (g goal) fail(kind connectors.Kind, code messages.Code, field string, err error) *connectors.Error {
	return &connectors.Error{
		Op: fmt.Sprintf("prepare the table %s", g.target()), Kind: kind, Commit: connectors.CommitNone, Code: code, Err: err,
		Place: messages.Place{Stage: connectors.StageDestination, Stream: g.stream.Stream, Field: field},
	}
}

// plan decides what makes the stream fit its target. It reads the catalogue only.
// Two plans see the same catalogue only one behind the other: see prepare.
func (g goal) plan(ctx context.Context, conn *pgx.Conn) (*planned, error) {
	p, err := g.fitter(ctx, conn)
	if err != nil {
		return nil, err
	}
	if len(p.problems) > 0 {
		return nil, p.problems[0]
	}
	return &p.out, nil
}

// shapeLock is the advisory lock under which types and tables are looked up and made:
// two loads that need one type do not both create it.
const shapeLock = 0x7262_7368_6170 // "rbshap"

func lockShapes(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(shapeLock))
	return err
}

// prepare plans and carries the plan out, inside the caller's transaction.
func (g goal) prepare(ctx context.Context, tx pgx.Tx) (*planned, error) {
	if err := lockShapes(ctx, tx); err != nil {
		return nil, g.classify(ctx, err)
	}
	p, err := g.planIn(ctx, tx)
	if err != nil {
		return nil, err
	}
	return p, g.carryOut(ctx, tx, p)
}

// planIn is plan, under the lock of shapes.
func (g goal) planIn(ctx context.Context, tx pgx.Tx) (*planned, error) {
	p, err := g.plan(ctx, tx.Conn())
	return p, g.classify(ctx, err)
}

// carryOut carries a plan out, under the lock of shapes.
func (g goal) carryOut(ctx context.Context, tx pgx.Tx, p *planned) error {
	for _, s := range p.statements {
		if err := execOne(ctx, tx.Conn(), s.SQL); err != nil {
			return g.classify(ctx, err)
		}
	}
	g.shelf.changed(g, p)
	return nil
}

// execOne runs exactly one statement: a text that ends it and begins another, hidden
// in the definition of a foreign type, is refused by the server.
func execOne(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Close()
	return err
}

// classify names the stream that an error of the server is about.
func (g goal) classify(ctx context.Context, err error) error {
	err = classify(ctx, connectors.StageDestination, fmt.Sprintf("prepare the table %s", g.target()), err)
	if e, ok := errors.AsType[*connectors.Error](err); ok && e.Place.Stream == "" {
		e.Place.Stream = g.stream.Stream
	}
	return err
}

// sound checks what does not depend on the server.
func (g goal) sound() []*connectors.Error {
	var out []*connectors.Error
	add := func(kind connectors.Kind, code messages.Code, field, format string, args ...any) {
		out = append(out, g.fail(kind, code, field, fmt.Errorf(format, args...)))
	}
	switch g.mode {
	case connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace:
	default:
		add(connectors.KindConfig, messages.CodeDocValue, "", "write mode %q is unknown: want append, upsert or replace", g.mode)
	}
	if why := badName(g.stream.Target); why != "" {
		add(connectors.KindSchema, messages.CodeSchemaName, "", "the target name %q %s", clipName(g.stream.Target), why)
	} else if strings.HasPrefix(g.stream.Target, stagePrefix) {
		add(connectors.KindSchema, messages.CodeSchemaName, "", "the target name %q is reserved for staging tables", g.stream.Target)
	}
	if g.stream.Schema == nil || g.stream.Schema.NumFields() == 0 {
		add(connectors.KindSchema, messages.CodeSchemaEmpty, "", "the stream has no columns")
		return out
	}
	seen := make(map[string]bool)
	for _, f := range g.stream.Schema.Fields() {
		switch why := badName(f.Name); {
		case why != "":
			add(connectors.KindSchema, messages.CodeSchemaName, f.Name, "the column name %q %s", clipName(f.Name), why)
		case seen[f.Name]:
			add(connectors.KindSchema, messages.CodeSchemaName, f.Name, "the column %q is there twice", f.Name)
		case slices.Contains(systemColumns, f.Name):
			add(connectors.KindSchema, messages.CodeSchemaName, f.Name, "the column name %q is one of the server's system columns", f.Name)
		case g.policy.Metadata && slices.Contains(metaColumns, f.Name):
			add(connectors.KindSchema, messages.CodeSchemaName, f.Name, "the column name %q is that of a metadata column; set `metadata_columns: false`, or rename it", f.Name)
		}
		seen[f.Name] = true
	}
	return append(out, g.soundKey(seen)...)
}

var (
	systemColumns = []string{"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}
	metaColumns   = []string{connectors.ColumnRun, connectors.ColumnLoadedAt}
)

// soundKey checks the key of an upsert.
func (g goal) soundKey(columns map[string]bool) []*connectors.Error {
	if g.mode != connectors.ModeUpsert {
		return nil
	}
	if len(g.stream.Key) == 0 {
		e := g.fail(connectors.KindConfig, messages.CodeDocMissing, "", errors.New("an upsert needs a primary key, and the source has none"))
		e.Next = "Set `destination.primary_key`."
		return []*connectors.Error{e}
	}
	var out []*connectors.Error
	for i, k := range g.stream.Key {
		if !columns[k] {
			out = append(out, g.fail(connectors.KindSchema, messages.CodeSchemaColumn, k, fmt.Errorf("the key column %s is not among the stream's columns", k)))
		}
		if slices.Contains(g.stream.Key[:i], k) {
			out = append(out, g.fail(connectors.KindConfig, messages.CodeDocConflict, k, fmt.Errorf("the key names the column %s twice", k)))
		}
	}
	if len(g.stream.Key) > keyMax {
		out = append(out, g.fail(connectors.KindConfig, messages.CodeDocValue, "", fmt.Errorf("the key has %d columns, an index can have %d", len(g.stream.Key), keyMax)))
	}
	return out
}

// badName says why a name cannot be an identifier; "" when it can. The server would
// cut a long one, and two of them might become one.
func badName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > identifierMax:
		return fmt.Sprintf("has %d bytes, and the server keeps %d", len(name), identifierMax)
	case strings.ContainsRune(name, 0):
		return "holds a zero byte"
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	}
	return ""
}

func clipName(name string) string {
	if len(name) <= 2*identifierMax {
		return name
	}
	return strings.ToValidUTF8(name[:2*identifierMax], "") + ".."
}

// slot is a column that is written, and the one of the table that it goes to.
type slot struct {
	name  string
	field int    // of the stream's schema; -1: metadata
	meta  string // "", ColumnRun, ColumnLoadedAt
	want  *codec.Type
	null  bool
	has   *attribute // nil: the table has no such column
}

// slots lists what is written. t is the table as it is, nil when there is none.
func (g goal) slots(t *relation) ([]slot, []*connectors.Error) {
	var out []slot
	var bad []*connectors.Error
	add := func(s slot) {
		if t != nil {
			if a, ok := t.column(s.name); ok {
				s.has = &a
			}
		}
		out = append(out, s)
	}
	for i, f := range g.stream.Schema.Fields() {
		want, err := codec.TypeOf(f)
		if err != nil {
			bad = append(bad, g.fail(connectors.KindSchema, messages.CodeSchemaType, f.Name, err))
			continue
		}
		add(slot{name: f.Name, field: i, want: want, null: f.Nullable})
	}
	if g.policy.Metadata {
		add(slot{name: connectors.ColumnRun, field: -1, meta: connectors.ColumnRun, want: builtinType("text", "text"), null: true})
		add(slot{name: connectors.ColumnLoadedAt, field: -1, meta: connectors.ColumnLoadedAt, want: builtinType("timestamptz", "timestamp with time zone"), null: true})
	}
	most, where := columnsMax, "a table can have"
	if g.mode == connectors.ModeUpsert { // rows are numbered on their way
		most, where = columnsMax-1, "an upsert can have"
	}
	if len(out) > most {
		bad = append(bad, g.fail(connectors.KindSchema, messages.CodeSchemaColumn, "", fmt.Errorf("%d columns are written, %s %d", len(out), where, most)))
	}
	return out, bad
}

func builtinType(name, sql string) *codec.Type {
	return &codec.Type{Schema: catalogSchema, Name: name, Mod: -1, SQL: sql, Kind: codec.KindBase}
}

const catalogSchema = "pg_catalog"

// fits compares what is written with the table t. Columns that are missing are not its
// matter.
func (g goal) fits(t *relation, slots []slot) []*connectors.Error {
	var bad []*connectors.Error
	for _, s := range slots {
		if s.has == nil || s.has.generated {
			continue
		}
		if why := g.misfit(s); why != "" {
			e := g.fail(connectors.KindSchema, messages.CodeSchemaType, s.name,
				fmt.Errorf("column %s is %s in the table and %s in the stream%s", s.name, s.has.Type.SQL, s.want.SQL, why))
			e.Next = "Cast the column in a transform, change its type in the table, or load into another table."
			bad = append(bad, e)
		}
	}
	for _, a := range t.columns {
		if !a.NotNull || a.hasDefault || a.identity != 0 || a.generated ||
			slices.ContainsFunc(slots, func(s slot) bool { return s.name == a.Name }) {
			continue
		}
		e := g.fail(connectors.KindSchema, messages.CodeSchemaColumn, a.Name,
			fmt.Errorf("column %s of the table is NOT NULL without a default, and the stream does not have it", a.Name))
		e.Next = fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL; or give it a default.", t.qname().sql(), query.Ident(a.Name))
		bad = append(bad, e)
	}
	return bad
}

// misfit says why a slot does not fit its column; "" when it does.
func (g goal) misfit(s slot) string {
	switch s.meta {
	case connectors.ColumnRun:
		if s.has.Type.Schema == catalogSchema && (s.has.Type.Name == "text" || s.has.Type.Name == "varchar") && s.has.Type.Mod < 0 {
			return ""
		}
		return ": it is a metadata column"
	case connectors.ColumnLoadedAt:
		if s.has.Type.Schema == catalogSchema && s.has.Type.Name == s.want.Name {
			return ""
		}
		return ": it is a metadata column"
	}
	one := arrow.NewSchema([]arrow.Field{g.stream.Schema.Field(s.field)}, nil)
	_, err := codec.NewEncoder(one, []codec.Target{{Field: 0, Type: s.has.Type}})
	if err == nil {
		return ""
	}
	if fit, ok := errors.AsType[*codec.FitError](err); ok {
		if fit.Why == "" {
			return ": there is no exact conversion"
		}
		return ": " + fit.Why
	}
	return ": " + err.Error()
}
