package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// readSplit is what a part reads; with Part.Scan it is all that a reader needs.
type readSplit struct {
	Relation uint32        `json:"relation"` // OID, by which a load recognises its table
	Schema   string        `json:"schema"`
	Table    string        `json:"table"`
	Columns  []splitColumn `json:"columns"` // of the stream, then those that only order it
	Visible  int           `json:"visible"` // how many of them are the stream's
	Filter   string        `json:"filter,omitempty"`
	Files    string        `json:"files,omitempty"`   // of the relation and its partitions, see filesOf
	Blocks   *blockRange   `json:"blocks,omitempty"`  // of a heap that is read by ranges of blocks
	Range    *keyRange     `json:"range,omitempty"`   // of partition_key
	Follow   *follow       `json:"follow,omitempty"`  // of an incremental stream
	Endless  bool          `json:"endless,omitempty"` // the server knows infinite intervals
}

// splitColumn is a column as it is selected.
type splitColumn struct {
	Name    string      `json:"name"`
	Type    *codec.Type `json:"type"`
	NotNull bool        `json:"not_null,omitempty"`
	Text    bool        `json:"text,omitempty"`
}

// blockRange is a range of blocks, of each heap that belongs to the relation.
type blockRange struct {
	From int64 `json:"from"`
	To   int64 `json:"to,omitempty"` // behind the last block; 0: no end, whatever the table grows to
}

// stream is the query of the whole split.
func (s *readSplit) stream() query.Stream {
	out := query.Stream{Schema: s.Schema, Table: s.Table, Filter: s.Filter}
	for _, c := range s.Columns {
		out.Columns = append(out.Columns, query.Column{Name: c.Name, Text: c.Text})
	}
	return out
}

// arrow returns the schema of all columns.
func (s *readSplit) arrow() *arrow.Schema {
	fields := make([]arrow.Field, len(s.Columns))
	for i, c := range s.Columns {
		fields[i], _ = codec.Field(codec.Column{Name: c.Name, Type: c.Type, NotNull: c.NotNull}, c.Text)
	}
	return arrow.NewSchema(fields, nil)
}

// same reports whether positions of a load with split s mean something to one with t.
func (s *readSplit) same(t *readSplit) bool {
	if s.Relation != t.Relation || rewritten(s.Files, t.Files) || s.Filter != t.Filter || (s.Blocks == nil) != (t.Blocks == nil) ||
		(s.Range == nil) != (t.Range == nil) || s.Range != nil && s.Range.Column != t.Range.Column || s.Follow != nil || t.Follow != nil {
		return false
	}
	return slices.EqualFunc(s.Columns, t.Columns, func(a, b splitColumn) bool {
		return a.Name == b.Name && a.Type.SQL == b.Type.SQL && a.Text == b.Text && a.NotNull == b.NotNull
	})
}

// split returns the split that covers the whole relation.
func (d *described) split() readSplit {
	s := readSplit{Relation: d.rel.oid, Schema: d.rel.schema, Table: d.rel.name, Visible: len(d.columns), Filter: d.spec.Filter}
	for i, c := range d.columns {
		s.Columns = append(s.Columns, splitColumn{Name: c.Name, Type: c.Type, NotNull: c.NotNull, Text: d.text[i]})
	}
	return s
}

// snapshotScan implements connectors.Scan. Its connection keeps the snapshot and, by the
// lock of a reader, the tables as they are: a truncated or rewritten table would look
// empty under a snapshot that is older.
type snapshotScan struct {
	source *Source
	conn   *pgx.Conn // closed by Close
	token  string
	plan   connectors.Plan
}

// Plan returns what is to be read.
func (s *snapshotScan) Plan() connectors.Plan { return s.plan }

// Close gives the snapshot up. Readers that have it keep it, idle connections are closed.
// Idempotent.
func (s *snapshotScan) Close(context.Context) error {
	s.source.drop(s.token)
	closeConn(s.conn)
	return nil
}

// serverFacts are what planning needs to know of the server.
type serverFacts struct {
	identity string
	version  int // 150002
	room     int // connections that are left
}

// versionMin is the oldest server that is read: identity, generated columns and the
// functions of partition trees are there from it on.
const versionMin = 120000

// versionTIDRange is the first server that finds a range of blocks without reading all.
const versionTIDRange = 140000

func readFacts(ctx context.Context, conn *pgx.Conn) (f serverFacts, err error) {
	var database, address string
	var allowed bool
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int4, current_database()::text,
		coalesce(host(inet_server_addr()), 'local') || ':' || current_setting('port'), has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
		greatest(1, current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4 - (SELECT count(datid) FROM pg_stat_get_activity(NULL)))::int4`).
		Scan(&f.version, &database, &address, &allowed, &f.room)
	if err != nil {
		return f, err
	}
	system := address
	if allowed {
		if err := conn.QueryRow(ctx, "SELECT system_identifier::text FROM pg_catalog.pg_control_system()").Scan(&system); err != nil {
			return f, err
		}
	}
	f.identity = "postgres:" + system + "/" + database
	return f, nil
}

// Scan takes the snapshot and plans one load per stream.
func (s *Source) Scan(ctx context.Context, r connectors.ScanRequest) (connectors.Scan, error) {
	name := applicationName(r.Pipeline, r.Epoch)
	conn, err := s.dial.named(name).control(ctx)
	if err != nil {
		return nil, s.classify(ctx, "plan the scan", "", err)
	}
	p := &scanPlanner{source: s, conn: conn, request: r}
	if err := s.dial.tend(conn, func() error { return p.run(ctx, name) }); err != nil {
		closeConn(conn)
		return nil, s.classify(ctx, "plan the scan", "", err)
	}
	return &snapshotScan{source: s, conn: conn, token: p.token, plan: p.plan}, nil
}

// scanPlanner makes one plan.
type scanPlanner struct {
	source  *Source
	conn    *pgx.Conn
	request connectors.ScanRequest
	facts   serverFacts
	streams []*described
	bounds  []bound           // of the incremental streams, by stream
	heaps   map[uint32]string // files of relations, see filesOf
	token   string
	plan    connectors.Plan
}

func (p *scanPlanner) run(ctx context.Context, application string) error {
	var err error
	if !p.request.Preview {
		if err = endOlder(ctx, p.conn, p.request.Pipeline, p.request.Epoch); err != nil {
			return fmt.Errorf("end older sessions: %w", err)
		}
	}
	if p.facts, err = readFacts(ctx, p.conn); err != nil {
		return err
	}
	p.plan.Identity, p.plan.Room = p.facts.identity, p.facts.room
	if p.facts.version < versionMin {
		return tooOld(p.facts.version)
	}
	if p.streams, err = p.source.describeAll(ctx, p.conn, p.request.Streams, nil); err != nil {
		return err
	}
	if err := p.readBounds(ctx); err != nil {
		return err
	}
	snapshot, err := p.export(ctx)
	if err != nil {
		return err
	}
	p.token = snapshot + " " + application
	if err := p.unaltered(ctx); err != nil {
		return err
	}
	if err := p.files(ctx); err != nil {
		return err
	}
	sizes, err := p.sizes(ctx)
	if err != nil {
		return err
	}
	for i, d := range p.streams {
		l, err := p.load(ctx, d, p.bounds[i], sizes[d.rel.oid])
		if err != nil {
			return p.source.classify(ctx, "plan the stream", d.spec.Stream, err)
		}
		p.plan.Loads = append(p.plan.Loads, l)
	}
	return nil
}

func tooOld(version int) error {
	e := sourceError("look at the server", connectors.KindConfig, messages.CodeNotAvailable,
		fmt.Errorf("the server is PostgreSQL %d, the oldest that is read is %d", version/10000, versionMin/10000))
	e.Next = "Read from a newer server."
	return e
}

// export begins the transaction that holds the snapshot. The tables are locked before
// their snapshot is taken: nothing can truncate, rewrite or drop them in between.
func (p *scanPlanner) export(ctx context.Context) (string, error) {
	if _, err := p.conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return "", err
	}
	var names []string
	pinned := map[uint32]qname{}
	for _, d := range p.streams {
		switch {
		case d.rel.kind == kindForeign:
		case d.rel.kind == kindMaterialised, !d.rel.readable: // LOCK wants the right to select all columns
			pinned[d.rel.oid] = d.rel.qname()
		default:
			names = append(names, query.Qualified(d.rel.schema, d.rel.name))
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		if _, err := p.conn.Exec(ctx, "LOCK TABLE "+strings.Join(slices.Compact(names), ", ")+" IN ACCESS SHARE MODE"); err != nil {
			return "", err
		}
	}
	var snapshot string
	if err := p.conn.QueryRow(ctx, "SELECT pg_export_snapshot()").Scan(&snapshot); err != nil {
		return "", err
	}
	for oid, n := range pinned {
		if err := p.pin(ctx, oid, n); err != nil {
			return "", err
		}
	}
	return snapshot, nil
}

// pin locks what LOCK does not take, and requires that it was not rewritten since the
// snapshot.
func (p *scanPlanner) pin(ctx context.Context, oid uint32, n qname) error {
	if _, err := p.conn.Exec(ctx, "SELECT FROM "+query.Qualified(n.schema, n.name)+" LIMIT 0"); err != nil {
		return err
	}
	var same bool
	err := p.conn.QueryRow(ctx, "SELECT relfilenode = coalesce(pg_relation_filenode(oid), 0) FROM pg_catalog.pg_class WHERE oid = $1", oid).Scan(&same)
	if err == nil && !same {
		err = streamError("take the snapshot", connectors.KindTransient, messages.CodeSourceChanged, p.source.streamID(n),
			errors.New("it was refreshed or rewritten at the same time"))
	}
	return err
}

// load plans one stream: anew, or on from where an unfinished load stands.
func (p *scanPlanner) load(ctx context.Context, d *described, b bound, size heapSize) (connectors.Load, error) {
	l := connectors.Load{ID: messages.LoadID{Name: string(d.spec.Stream), Number: 1}, Mode: d.spec.Mode, Identity: p.plan.Identity}
	var known *connectors.LoadStatus
	for _, k := range p.request.Previous.Loads {
		if k.ID.Name != l.ID.Name {
			continue
		}
		l.ID.Number = k.ID.Number + 1
		if !k.Finished && !d.spec.Fresh {
			l.ID.Number, known = k.ID.Number, &k
		}
	}
	var err error
	if d.spec.Sync == connectors.SyncIncremental {
		l.Parts, err = p.followed(ctx, d, b, l.ID)
	} else {
		l.Parts, err = p.parts(ctx, d, size, l.ID)
	}
	if err == nil && known != nil {
		l.Continuity, l.Parts, err = p.resume(l, *known)
	}
	for i := range l.Parts {
		l.Parts[i].Scan = p.token
	}
	l.Streams = []connectors.StreamPlan{d.plan}
	return l, err
}

// resume answers whether an unfinished load can go on, with the parts that it then has:
// the planned ones of l are for a load that cannot.
func (p *scanPlanner) resume(l connectors.Load, known connectors.LoadStatus) (connectors.Continuity, []connectors.Part, error) {
	var fresh readSplit
	if err := json.Unmarshal(l.Parts[0].Split, &fresh); err != nil {
		return "", nil, err
	}
	var old []connectors.Part
	for _, part := range p.request.Previous.Parts {
		if part.Load != l.ID {
			continue
		}
		var was readSplit
		if err := json.Unmarshal(part.Split, &was); err != nil {
			return connectors.ContinueLost, l.Parts, nil //nolint:nilerr // it was planned by something else
		}
		if fresh.Follow != nil {
			if known.Identity == "" || known.Identity == p.plan.Identity {
				if fresh.Follow.continues(&was, &fresh) {
					return connectors.ContinueExact, l.Parts, nil
				}
			}
			return connectors.ContinueLost, l.Parts, nil
		}
		if !was.same(&fresh) {
			return connectors.ContinueLost, l.Parts, nil
		}
		was.Files, was.Endless = fresh.Files, fresh.Endless // of this scan
		var err error
		if part.Split, err = json.Marshal(was); err != nil {
			return "", nil, err
		}
		old = append(old, part)
	}
	if len(old) == 0 {
		return connectors.ContinueLost, l.Parts, nil
	}
	return connectors.ContinueDrift, old, nil
}
