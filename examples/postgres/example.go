package main

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// examples are the names of the folders beside this one, of the dumps in them and of
// the databases that are made of those.
var examples = []string{"pagila", "chinook"}

// tester is what an example needs of a test.
type tester interface {
	pgtest.T
	TempDir() string
}

// servers is where the examples run, and with which program.
type servers struct {
	source, target *pgtest.Server
	root           string // of the repository
	binary         string
}

func newServers(t tester) servers {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	check(t, "find the module", err)
	s := servers{root: strings.TrimSpace(string(out)), binary: filepath.Join(t.TempDir(), "rapidbyte-node")}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", s.binary, "./cmd/rapidbyte-node")
	build.Dir, build.Stderr = s.root, os.Stderr
	check(t, "build the program", build.Run())
	s.source, s.target = pgtest.Start(t), pgtest.Start(t)
	return s
}

// example is one database on its way.
type example struct {
	t tester
	servers
	name string
	out  io.Writer
	dir  string // working folder of the program, with its state
	grid grid
}

func newExample(t tester, out io.Writer, s servers, name string) *example {
	return &example{t: t, servers: s, name: name, out: out, dir: t.TempDir()}
}

// modes are the documents of an example. All but append are run a second and a third
// time, with changes at the source in between.
var modes = []string{"append", "replace", "upsert", "incremental"}

// run loads the dump and moves it, in every mode into a database of its own.
func (e *example) run() {
	e.t.Helper()
	e.load()
	for _, mode := range modes {
		e.target.Exec(e.t, "postgres", "CREATE DATABASE "+e.database(mode))
		e.move(mode)
		e.compare(mode, mode, 1)
	}
	e.appendAgain()
	e.settled("upsert", "again")
	e.settled("incremental", "again")

	changes, err := os.ReadFile(filepath.Join(e.folder(), "changes.sql"))
	check(e.t, "read the changes", err)
	e.source.Exec(e.t, e.name, string(changes))
	for _, mode := range modes[1:] {
		if moved := e.move(mode); moved == 0 {
			e.fail("%s moved nothing of the changes", mode)
		}
		e.compare(mode, mode+" changed", 1)
	}
	e.settled("upsert", "changed again")
	e.settled("incremental", "changed again")
	fmt.Fprintf(e.out, "%s: rows at the destination, = as at the source\n\n%s\n", e.name, e.grid)
}

func (e *example) folder() string { return filepath.Join(e.root, "examples", e.name) }

// database is where a document writes to.
func (e *example) database(mode string) string { return e.name + "_" + mode }

// load makes the source of the dump.
func (e *example) load() {
	e.t.Helper()
	f, err := os.Open(filepath.Join(e.folder(), "data", e.name+".sql.gz"))
	check(e.t, "open the dump", err)
	defer f.Close()
	dump, err := gzip.NewReader(f)
	check(e.t, "open the dump", err)
	e.source.Exec(e.t, "postgres", "CREATE DATABASE "+e.name+" TEMPLATE template0 ENCODING 'UTF8'")
	e.source.Psql(e.t, e.name, dump)
}

// appendAgain lets append write every row twice, into tables without keys.
func (e *example) appendAgain() {
	e.t.Helper()
	e.target.Exec(e.t, e.database("append"), `DO $$ DECLARE c record; BEGIN
		FOR c IN SELECT conrelid::regclass AS t, conname FROM pg_constraint WHERE contype = 'p' AND connamespace = 'public'::regnamespace LOOP
			EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.t, c.conname);
		END LOOP; END $$`)
	e.move("append")
	e.compare("append", "append twice", 2)
}

// settled runs a document again that has nothing left to do: no row may be written, not
// even with the values that it has.
func (e *example) settled(mode, label string) {
	e.t.Helper()
	before := e.touched(mode)
	moved := e.move(mode)
	if mode == "incremental" && moved != 0 {
		e.fail("incremental moved %d rows that it had moved before", moved)
	}
	e.compare(mode, mode+" "+label, 1)
	if after := e.touched(mode); after != before {
		e.fail("%s has rewritten rows that had not changed: %s, before: %s", mode, after, before)
	}
}

// touched changes whenever a row is written.
func (e *example) touched(mode string) string {
	e.t.Helper()
	var parts []string
	for _, table := range tables(e.t, e.target, e.database(mode)) {
		parts = append(parts, "SELECT count(*), sum(xmin::text::bigint) FROM public."+quote(table))
	}
	return fmt.Sprint(e.target.Query(e.t, e.database(mode), strings.Join(parts, " UNION ALL ")))
}

// envelope is what is used of the program's result.
type envelope struct {
	Result struct {
		Streams []struct {
			Name        string `json:"name"`
			RowsWritten int64  `json:"rows_written"`
		} `json:"streams"`
	} `json:"result"`
}

// move runs a document and returns the rows that it has moved.
func (e *example) move(mode string) (rows int64) {
	e.t.Helper()
	cmd := exec.Command(e.binary, "run", filepath.Join(e.folder(), mode+".yaml"), "--output", "json")
	cmd.Dir = e.dir
	cmd.Env = append(os.Environ(),
		"SRC_HOST=127.0.0.1", "SRC_PORT="+strconv.Itoa(e.source.Port()), "SRC_USER="+e.source.User(), "SRC_DATABASE="+e.name,
		"DST_HOST=127.0.0.1", "DST_PORT="+strconv.Itoa(e.target.Port()), "DST_USER="+e.target.User(), "DST_DATABASE="+e.database(mode))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		e.fail("%s.yaml: %v\n%s", mode, err, said.String())
	}
	var result envelope
	check(e.t, "read the result", json.Unmarshal(out, &result))
	for _, s := range result.Result.Streams {
		rows += s.RowsWritten
	}
	return rows
}

func (e *example) fail(format string, args ...any) {
	e.t.Helper()
	e.t.Errorf(e.name+": "+format, args...)
	e.t.FailNow()
}

func check(t pgtest.T, doing string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", doing, err)
		t.FailNow()
	}
}
