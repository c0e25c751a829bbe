package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// settings are those of the server besides the defaults: fsync, full_page_writes and
// synchronous_commit are on.
var settings = []string{
	"shared_buffers=2GB", "wal_level=replica", "max_wal_size=8GB", "checkpoint_timeout=1h", // checkpoints come between the runs
	"autovacuum=off", "max_connections=50", "max_locks_per_transaction=256",
}

// database is where everything happens.
const database = "postgres"

// bed is what the contestants run on: a server, a folder, programs.
type bed struct {
	server *pgtest.Server
	dir    string // for documents and state stores
	node   string // path of rapidbyte-node
	psql   string // path of psql

	fault    error
	cleanups []func()
}

// failed ends what pgtest does; newBed and try recover it.
type failed struct{}

// Helper implements pgtest.T.
func (*bed) Helper() {}

// Errorf implements pgtest.T.
func (b *bed) Errorf(format string, args ...any) {
	b.fault = errors.Join(b.fault, fmt.Errorf(format, args...))
}

// FailNow implements pgtest.T.
func (b *bed) FailNow() { panic(failed{}) }

// Cleanup implements pgtest.T.
func (b *bed) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }

// try calls f and returns what it reported.
func (b *bed) try(f func()) (err error) {
	b.fault = nil
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(failed); !ok {
				panic(r)
			}
			err = b.fault
		}
	}()
	f()
	return nil
}

// close stops the server and removes what was written.
func (b *bed) close() {
	for _, f := range slices.Backward(b.cleanups) {
		f()
	}
}

// newBed starts the server and builds the program, unless it is given.
func newBed(program string) (*bed, error) {
	b := &bed{node: program}
	dir, err := os.MkdirTemp("", "pgcopy")
	if err != nil {
		return nil, err
	}
	b.dir = dir
	b.Cleanup(func() { _ = os.RemoveAll(dir) }) // a temporary folder
	if b.psql, err = findPsql(); err != nil {
		return b, err
	}
	if program == "" {
		b.node = filepath.Join(dir, "rapidbyte-node")
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", b.node, "rapidbyte.io/node/cmd/rapidbyte-node")
		if out, err := build.CombinedOutput(); err != nil {
			return b, fmt.Errorf("build rapidbyte-node: %w\n%s", err, out)
		}
	}
	return b, b.try(func() { b.server = pgtest.Start(b, settings...) })
}

func findPsql() (string, error) {
	if path, err := exec.LookPath("psql"); err == nil {
		return path, nil
	}
	out, err := exec.Command("pg_config", "--bindir").Output()
	if err != nil {
		return "", fmt.Errorf("psql is not in PATH: %w", err)
	}
	return exec.LookPath(filepath.Join(strings.TrimSpace(string(out)), "psql"))
}

// exec runs statements, each by itself.
func (b *bed) exec(statements ...string) error {
	return b.try(func() {
		for _, sql := range statements {
			b.server.Exec(b, database, sql)
		}
	})
}

// query returns the rows of a query.
func (b *bed) query(sql string) (rows [][]string, err error) {
	err = b.try(func() { rows = b.server.Query(b, database, sql) })
	return rows, err
}

// url is where clients connect: TCP over the loopback interface.
func (b *bed) url() string { return b.server.URL(database) }
