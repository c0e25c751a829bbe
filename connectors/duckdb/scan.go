package duckdb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// split is what a part reads; it is all that Open needs.
type split struct {
	Schema string      `json:"schema"`
	Table  string      `json:"table"`
	Names  []string    `json:"names"` // SQL expressions
	Rowids bool        `json:"rowids,omitempty"`
	From   int64       `json:"from,omitempty"` // first rowid
	To     int64       `json:"to,omitempty"`   // behind the last rowid
	Filter string      `json:"filter,omitempty"`
	File   fingerprint `json:"file"`
	Arrow  []byte      `json:"arrow"` // schema, Arrow IPC
}

// query selects the rows of the split; the range of rowids is bound to it.
func (s split) query() string {
	names := strings.Join(s.Names, ", ")
	var where []string
	if s.Rowids {
		names += ", " + rowidColumn
		where = append(where, rowidColumn+" >= ?", rowidColumn+" < ?")
	}
	if s.Filter != "" {
		where = append(where, "(\n"+s.Filter+"\n)") // on lines of its own: it may end in a comment
	}
	sql := "SELECT " + names + " FROM " + duckarrow.Quote(s.Schema) + "." + duckarrow.Quote(s.Table)
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	return sql
}

// split returns the split that covers the whole relation.
func (r *relation) split(file fingerprint) split {
	return split{Schema: r.table.schema, Table: r.table.name, Names: r.names, Rowids: r.rowids, Filter: r.spec.Filter, File: file}
}

// fingerprint identifies the content of a file without reading it: DuckDB counts
// its checkpoints in the header.
type fingerprint struct {
	Size    int64  `json:"size"`
	Changed int64  `json:"changed"` // time of change, Unix nanoseconds
	Header  string `json:"header"`  // hash of the header blocks
	WAL     string `json:"wal,omitempty"`
}

const headerBytes = 3 * 4096

func fingerprintOf(path string) (fingerprint, error) {
	f, err := os.Open(path)
	if err != nil {
		return fingerprint{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fingerprint{}, err
	}
	head, err := io.ReadAll(io.LimitReader(f, headerBytes))
	if err != nil {
		return fingerprint{}, err
	}
	sum := sha256.Sum256(head)
	out := fingerprint{Size: info.Size(), Changed: info.ModTime().UnixNano(), Header: hex.EncodeToString(sum[:])}
	switch wal, err := os.Stat(path + ".wal"); {
	case err == nil:
		out.WAL = fmt.Sprintf("%d at %d", wal.Size(), wal.ModTime().UnixNano())
	case !errors.Is(err, fs.ErrNotExist):
		return fingerprint{}, err
	}
	return out, nil
}

// scan implements connectors.Scan. It holds nothing: the file is the snapshot, and
// each part checks that it is still the same.
type scan struct{ plan connectors.Plan }

// Plan returns what is to be read.
func (s *scan) Plan() connectors.Plan { return s.plan }

// Close does nothing.
func (s *scan) Close(context.Context) error { return nil }

// Scan plans one load per stream.
func (s *Source) Scan(ctx context.Context, r connectors.ScanRequest) (connectors.Scan, error) {
	db, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer db.close()
	path := resolve(s.cfg.Path)
	file, err := fingerprintOf(path)
	if err != nil {
		return nil, s.fail("read the header", connectors.KindTransient, messages.CodeSource, err)
	}
	out := &scan{plan: connectors.Plan{Identity: "duckdb:" + path}}
	for _, spec := range r.Streams {
		l, err := s.load(ctx, db, spec, r, file)
		if err != nil {
			return nil, err
		}
		l.Identity = out.plan.Identity
		out.plan.Loads = append(out.plan.Loads, l)
	}
	return out, nil
}

// load plans one stream: anew, or on from where an unfinished load stands.
func (s *Source) load(ctx context.Context, db *session, spec connectors.StreamSpec, r connectors.ScanRequest, file fingerprint) (connectors.Load, error) {
	rel, err := s.describe(ctx, db, spec)
	if err != nil {
		return connectors.Load{}, err
	}
	l := connectors.Load{ID: messages.LoadID{Name: string(spec.Stream), Number: 1}, Mode: spec.Mode}
	unfinished := false
	for _, known := range r.Previous.Loads {
		if known.ID.Name != l.ID.Name {
			continue
		}
		l.ID.Number = known.ID.Number
		unfinished = !known.Finished && !spec.Fresh
		if !unfinished {
			l.ID.Number++
		}
	}
	l.Parts, rel.plan.Rows, err = s.parts(ctx, db, rel, l.ID, r.Splits, file)
	if err != nil {
		return l, err
	}
	if unfinished {
		if l.Continuity, l.Parts, err = resume(l, r.Previous.Parts, file); err != nil {
			return l, s.fail("continue the load", connectors.KindInternal, messages.CodeInternal, err)
		}
	}
	l.Streams = []connectors.StreamPlan{rel.plan}
	return l, nil
}

// parts cuts a table into ranges of rowids.
func (s *Source) parts(ctx context.Context, db *session, rel *relation, id messages.LoadID, splits int, file fingerprint) ([]connectors.Part, int64, error) {
	whole := rel.split(file)
	raw, err := encodeSchema(rel.plan.Schema)
	if err != nil {
		return nil, 0, s.fail("plan the stream", connectors.KindInternal, messages.CodeInternal, err)
	}
	whole.Arrow = raw
	rows, n := int64(0), int64(1)
	if whole.Rowids {
		got, err := db.conn.Rows(ctx, "SELECT coalesce(max(rowid) + 1, 0)::BIGINT, count(*) FROM "+
			duckarrow.Quote(rel.table.schema)+"."+duckarrow.Quote(rel.table.name))
		if err != nil {
			return nil, 0, s.place(ctx, rel.spec, err)
		}
		r := row{values: got[0]}
		whole.To, rows = r.number(), r.number()
		n = max(1, min(int64(splits), whole.To/max(s.splitRows, 1)))
	}
	var out []connectors.Part
	for i := range n {
		sp := whole
		sp.From, sp.To = whole.To*i/n, whole.To*(i+1)/n
		part := connectors.Part{ID: messages.PartID(rel.spec.Stream), Load: id, Streams: []messages.StreamID{rel.spec.Stream}, Rows: rows / n}
		if n > 1 {
			part.ID = messages.PartID(fmt.Sprintf("%s/%d", rel.spec.Stream, i))
		}
		if part.Split, err = json.Marshal(sp); err != nil {
			return nil, 0, s.fail("plan the stream", connectors.KindInternal, messages.CodeInternal, err)
		}
		out = append(out, part)
	}
	return out, rows, nil
}

// resume answers whether an unfinished load can go on, with the parts that it then
// has: the planned ones of l are for a load that cannot.
func resume(l connectors.Load, known []connectors.Part, file fingerprint) (connectors.Continuity, []connectors.Part, error) {
	var fresh split
	if err := json.Unmarshal(l.Parts[len(l.Parts)-1].Split, &fresh); err != nil {
		return "", nil, err
	}
	var out []connectors.Part
	answer := connectors.ContinueExact
	for _, p := range known {
		if p.Load != l.ID {
			continue
		}
		var old split
		if err := json.Unmarshal(p.Split, &old); err != nil {
			return "", nil, fmt.Errorf("read the split of part %s: %w", p.ID, err)
		}
		if old.query() != fresh.query() || string(old.Arrow) != string(fresh.Arrow) {
			return connectors.ContinueLost, l.Parts, nil
		}
		if old.File != file {
			answer = connectors.ContinueDrift
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return connectors.ContinueLost, l.Parts, nil
	}
	if answer == connectors.ContinueExact {
		return answer, out, nil
	}
	return drift(out, fresh, file)
}

// drift turns the parts of a load to the file as it is now: the ranges stay, the
// last one reaches to the end of the table.
func drift(parts []connectors.Part, fresh split, file fingerprint) (connectors.Continuity, []connectors.Part, error) {
	last, end := 0, int64(-1)
	splits := make([]split, len(parts))
	for i, p := range parts {
		if err := json.Unmarshal(p.Split, &splits[i]); err != nil {
			return "", nil, err
		}
		splits[i].File = file
		if splits[i].To > end {
			last, end = i, splits[i].To
		}
	}
	splits[last].To = max(end, fresh.To)
	for i := range parts {
		raw, err := json.Marshal(splits[i])
		if err != nil {
			return "", nil, err
		}
		parts[i].Split = raw
	}
	return connectors.ContinueDrift, parts, nil
}
