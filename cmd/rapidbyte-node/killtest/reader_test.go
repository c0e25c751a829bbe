package killtest

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	_ "github.com/duckdb/duckdb-go/v2" // the driver "duckdb"

	"rapidbyte.io/node/cmd/rapidbyte-node/internal/rowcheck"
	"rapidbyte.io/node/connectors/file/manifest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
)

// mark is how far a load is.
type mark struct {
	number   uint64
	finished bool
}

// found is what is at a destination: its books, and the rows that its readers see.
type found struct {
	epoch    messages.Epoch
	loads    map[string]mark // by name, which is the stream
	receipts map[messages.PartID]messages.Receipt
	rows     map[string][]row // by target, which is the stream
}

func nothing() found {
	return found{loads: map[string]mark{}, receipts: map[messages.PartID]messages.Receipt{}, rows: map[string][]row{}}
}

// staged reports whether a load is complete and not finished.
func (f found) staged(name string) bool {
	l := f.loads[name]
	if l.number == 0 || l.finished {
		return false
	}
	for _, r := range f.receipts {
		if r.Load == name && r.Version.Load == l.number && !r.Final {
			return false
		}
	}
	return true
}

// destination reads what the program has written.
type destination interface {
	// read returns what is there now. No program runs. Rows that table reads by itself
	// are left out unless they are asked for.
	read(ctx context.Context, rows bool) (found, error)
	// table is the target of a stream, of which d has been read.
	table(st stream, d found) rowcheck.Table
	// tidy says what a run that ended in order has left behind.
	tidy(ctx context.Context) error
}

// fileDestination is a folder. Data files never change, so each is read once.
type fileDestination struct {
	dir  string
	seen map[string][]row
}

func newFileDestination(dir string) *fileDestination {
	return &fileDestination{dir: dir, seen: map[string][]row{}}
}

func (d *fileDestination) books() string { return filepath.Join(d.dir, "_rapidbyte", pipeline) }

// manifest returns the newest one, nil when there is none.
func (d *fileDestination) manifest() (*manifest.Manifest, error) {
	entries, err := os.ReadDir(d.books())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // killed before there was any
	}
	var highest uint64
	for _, e := range entries {
		if n, ok := manifest.ParseName(e.Name()); ok {
			highest = max(highest, n)
		}
	}
	if err != nil || highest == 0 {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(d.books(), manifest.Name(highest)))
	if err != nil {
		return nil, err
	}
	return manifest.Decode(b, highest, pipeline)
}

func (d *fileDestination) table(st stream, f found) rowcheck.Table { return checked(f.rows[st.name]) }

func (d *fileDestination) read(context.Context, bool) (found, error) {
	out := nothing()
	m, err := d.manifest()
	if err != nil || m == nil {
		return out, err
	}
	out.epoch, out.receipts = m.Epoch, m.Receipts
	for name, l := range m.Loads {
		out.loads[name] = mark{number: l.Number, finished: l.Finished}
	}
	for target, t := range m.Targets {
		for _, f := range t.Files {
			rows, err := d.file(target, f)
			if err != nil {
				return out, fmt.Errorf("%s/%s: %w", target, f.Name, err)
			}
			out.rows[target] = append(out.rows[target], rows...)
		}
	}
	return out, nil
}

// file reads a data file, which must be what the manifest says.
func (d *fileDestination) file(target string, f manifest.File) ([]row, error) {
	path := filepath.Join(d.dir, target, f.Name)
	if rows, ok := d.seen[path]; ok {
		_, err := os.Stat(path)
		return rows, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	if hex.EncodeToString(sum[:]) != f.SHA256 || int64(len(b)) != f.Bytes {
		return nil, errors.New("it is not the file that was committed")
	}
	rows, err := readRows(path)
	if err == nil && int64(len(rows)) != f.Rows {
		err = fmt.Errorf("%d rows, the manifest says %d", len(rows), f.Rows)
	}
	if err == nil {
		d.seen[path] = rows
	}
	return rows, err
}

func (d *fileDestination) tidy(context.Context) error {
	m, err := d.manifest()
	if err != nil || m == nil {
		return errors.Join(err, errors.New("no manifest"))
	}
	var left []string
	err = filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(d.dir, path)
		if err != nil {
			return err
		}
		target, name := filepath.Split(rel)
		_, listed := manifest.ParseName(name)
		if filepath.Join(d.dir, target) == d.books() && listed || m.Names(filepath.Clean(target))[name] {
			return nil
		}
		left = append(left, rel)
		return nil
	})
	for name, l := range m.Loads {
		if len(l.Staged) > 0 {
			left = append(left, "staged files of load "+name)
		}
	}
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	return err
}

// readRows reads a data file; the format is the end of its name.
func readRows(path string) (out []row, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if strings.HasSuffix(path, ".parquet") {
		return readParquet(f)
	}
	var in io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			return nil, err
		}
	}
	if strings.Contains(path, ".jsonl") {
		dec := json.NewDecoder(in)
		dec.DisallowUnknownFields()
		for {
			var r row
			if err := dec.Decode(&r); errors.Is(err, io.EOF) {
				return out, nil
			} else if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	lines, err := csv.NewReader(in).ReadAll()
	if err != nil || len(lines) == 0 || !slices.Equal(lines[0], columns) {
		return nil, errors.Join(err, fmt.Errorf("no header in %s", path))
	}
	for _, c := range lines[1:] {
		r, err := parseCells(c)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func readParquet(f *os.File) (out []row, err error) {
	p, err := file.NewParquetReader(struct {
		io.ReaderAt
		io.ReadSeeker
	}{f, f})
	if err != nil {
		return nil, err
	}
	r, err := pqarrow.NewFileReader(p, pqarrow.ArrowReadProperties{BatchSize: 1 << 16}, memory.DefaultAllocator)
	if err != nil {
		return nil, err
	}
	records, err := r.GetRecordReader(context.Background(), nil, nil)
	if err != nil {
		return nil, err
	}
	defer records.Release()
	for records.Next() {
		rows, err := recordRows(records.RecordBatch())
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	if err := records.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return out, nil
}

// duckDestination is a database file. A copy is read, so that it is left to the
// program to recover what a kill has left in the log beside it.
type duckDestination struct{ path string }

func (d duckDestination) copied(use func(*sql.DB) error) (err error) {
	dir, err := os.MkdirTemp(filepath.Dir(d.path), "look-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	there, err := copyFiles(dir, d.path, d.path+".wal")
	if err != nil || !there {
		return err
	}
	db, err := sql.Open("duckdb", filepath.Join(dir, filepath.Base(d.path)))
	if err != nil {
		return err
	}
	return errors.Join(use(db), db.Close())
}

// copyFiles copies what exists; there reports whether the first one does.
func copyFiles(dir string, paths ...string) (there bool, err error) {
	for i, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return there, err
		}
		there = there || i == 0
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o600); err != nil {
			return there, err
		}
	}
	return there, nil
}

func (d duckDestination) table(st stream, f found) rowcheck.Table { return checked(f.rows[st.name]) }

func (d duckDestination) read(ctx context.Context, _ bool) (found, error) {
	out := nothing()
	return out, d.copied(func(db *sql.DB) error {
		tables, err := texts(ctx, db, "SELECT schema_name || '.' || table_name FROM duckdb_tables()")
		if err != nil {
			return err
		}
		for _, t := range tables {
			switch schema, name, _ := strings.Cut(t, "."); {
			case t == "_rapidbyte.receipt":
				err = readBooks(ctx, db, &out)
			case schema == "main" && !strings.HasPrefix(name, "_rapidbyte"):
				out.rows[name], err = readTable(ctx, db, name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func readBooks(ctx context.Context, db *sql.DB, out *found) error {
	if err := query(ctx, db, "SELECT epoch FROM _rapidbyte.owner", func(scan func(...any) error) error { return scan(&out.epoch) }); err != nil {
		return err
	}
	err := query(ctx, db, "SELECT name, number, finished FROM _rapidbyte.load", func(scan func(...any) error) error {
		var name string
		var m mark
		err := scan(&name, &m.number, &m.finished)
		out.loads[name] = m
		return err
	})
	return errors.Join(err, query(ctx, db, "SELECT part, load, load_no, commit_no, final, rows_applied FROM _rapidbyte.receipt", func(scan func(...any) error) error {
		var r messages.Receipt
		err := scan(&r.Part, &r.Load, &r.Version.Load, &r.Version.Commit, &r.Final, &r.Rows.Applied)
		out.receipts[r.Part] = r
		return err
	}))
}

func readTable(ctx context.Context, db *sql.DB, name string) (out []row, err error) {
	err = query(ctx, db, `SELECT id, name, qty, price, flag FROM main."`+name+`"`, func(scan func(...any) error) error {
		var r row
		var flag sql.NullBool
		if err := scan(&r.ID, &r.Name, &r.Qty, &r.Price, &flag); err != nil {
			return err
		}
		if flag.Valid {
			r.Flag = &flag.Bool
		}
		out = append(out, r)
		return nil
	})
	return out, err
}

func query(ctx context.Context, db *sql.DB, text string, each func(scan func(...any) error) error) (err error) {
	rows, err := db.QueryContext(ctx, text)
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func texts(ctx context.Context, db *sql.DB, text string) (out []string, err error) {
	err = query(ctx, db, text, func(scan func(...any) error) error {
		var s string
		err := scan(&s)
		out = append(out, s)
		return err
	})
	return out, err
}

func (d duckDestination) tidy(ctx context.Context) error {
	return d.copied(func(db *sql.DB) error {
		left, err := texts(ctx, db, "SELECT 'table ' || table_name FROM duckdb_tables() WHERE schema_name <> '_rapidbyte' AND starts_with(table_name, '_rapidbyte')")
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left behind: %s", strings.Join(left, ", "))
		}
		return err
	})
}

// unique lists what would refuse a row that is there already.
func (d duckDestination) unique(ctx context.Context) (out []string, err error) {
	err = d.copied(func(db *sql.DB) (err error) {
		out, err = texts(ctx, db, `SELECT table_name || ': ' || constraint_type FROM duckdb_constraints() WHERE constraint_type IN ('PRIMARY KEY', 'UNIQUE')
			UNION ALL SELECT table_name || ': index ' || index_name FROM duckdb_indexes() WHERE is_unique`)
		return err
	})
	return out, err
}

// stored is what the state store holds.
type stored struct {
	state statestore.State
	last  statestore.Run // the newest run; zero: none
	there bool
}

// readState reads a copy of the state store.
func readState(ctx context.Context, path string) (out stored, err error) {
	dir, err := os.MkdirTemp(filepath.Dir(filepath.Dir(path)), "state-")
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if out.there, err = copyFiles(dir, path, path+".id"); err != nil || !out.there {
		return out, err
	}
	s, err := bbolt.Open(ctx, bbolt.Config{Path: filepath.Join(dir, filepath.Base(path)), Timeout: time.Minute})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return readStore(ctx, s)
}

func readStore(ctx context.Context, s statestore.Store) (out stored, err error) {
	out.there = true
	if out.state, err = s.Load(ctx, pipeline); err != nil {
		return out, err
	}
	runs, err := s.Runs(ctx, pipeline, 1)
	if len(runs) > 0 {
		out.last = runs[0]
	}
	return out, err
}
