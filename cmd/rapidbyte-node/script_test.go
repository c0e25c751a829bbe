package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/file/manifest"
	"rapidbyte.io/node/messages"
)

// The scripts run the program as a user does. Beside the commands of testscript:
//
//	rb CODE ARG...                   rapidbyte-node, which must end with that exit code
//	golden FILE                      stdout of the last command, normalised
//	fixture KIND FILE ROWS [NAME]    a file with columns id and NAME, a Go string without its quotes: parquet, arrow,
//	                                 or bare for no columns
//	cut FILE BYTES                   keeps the first bytes of a file; negative: all but the last
//	rows FOLDER PIPELINE TARGET N    the committed JSON Lines of a target: N rows, all distinct
//	await GLOB [TEXT]                waits until a file is there, and holds the text
//	newest FOLDER                    removes the newest manifest of a folder
//	profiles GLOB TYPE N             N profiles that pprof can read, with samples of that type
func TestScripts(t *testing.T) {
	testdata, err := filepath.Abs("testdata")
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("TESTDATA", testdata)
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"rb":      scriptRun,
			"golden":  scriptGolden,
			"fixture": scriptFixture,
			"cut":     scriptCut,
			"rows":    scriptRows,
			"await":   scriptAwait,
			"newest":  scriptNewest,

			"profiles": scriptProfiles,
		},
	})
}

func need(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

func scriptRun(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "rb CODE ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec("rapidbyte-node", args[1:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// fataler lets require report to a script.
type fataler struct{ ts *testscript.TestScript }

func (f fataler) Errorf(format string, args ...any) { f.ts.Logf(format, args...) }
func (f fataler) FailNow()                          { f.ts.Fatalf("stop") }

func scriptGolden(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "golden FILE")
	got := normalised(ts.ReadFile("stdout"), ts.Getenv("WORK"))
	requireGolden(fataler{ts}, filepath.Join(ts.Getenv("TESTDATA"), "golden", args[0]), got)
}

func scriptFixture(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, "fixture KIND FILE ROWS [NAME]")
	rows, err := strconv.Atoi(args[2])
	ts.Check(err)
	name := "name"
	if len(args) > 3 {
		name, err = strconv.Unquote("\"" + args[3] + "\"") // a script cannot hold every byte
		ts.Check(err)
	}
	fields := []arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: name, Type: arrow.BinaryTypes.String, Nullable: true}}
	if args[0] == "bare" {
		fields = nil
	}
	schema := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	if len(fields) > 0 {
		for i := range rows {
			b.Field(0).(*array.Int64Builder).Append(int64(i))
			b.Field(1).(*array.StringBuilder).Append("row " + strconv.Itoa(i))
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	path := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	ts.Check(err)
	defer f.Close()
	if args[0] == "parquet" {
		w, err := pqarrow.NewFileWriter(schema, f, parquet.NewWriterProperties(), pqarrow.DefaultWriterProps())
		ts.Check(err)
		ts.Check(w.Write(rec))
		ts.Check(w.Close())
		return
	}
	w, err := ipc.NewFileWriter(f, ipc.WithSchema(schema))
	ts.Check(err)
	if len(fields) > 0 {
		ts.Check(w.Write(rec))
	}
	ts.Check(w.Close())
}

func scriptCut(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "cut FILE BYTES")
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if n < 0 {
		n += info.Size()
	}
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

func scriptRows(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 4, "rows FOLDER PIPELINE TARGET N")
	want, err := strconv.Atoi(args[3])
	ts.Check(err)
	got, err := committed(ts.MkAbs(args[0]), messages.PipelineID(args[1]), args[2])
	ts.Check(err)
	slices.Sort(got)
	if n := len(slices.Compact(slices.Clone(got))); len(got) != want || n != want {
		ts.Fatalf("%s has %d rows, %d of them distinct, want %d", args[2], len(got), n, want)
	}
}

// committed returns the JSON Lines that the highest manifest of a folder lists.
func committed(folder string, p messages.PipelineID, target string) ([]string, error) {
	names, err := filepath.Glob(filepath.Join(folder, "_rapidbyte", string(p), "m-*.json"))
	if err != nil || len(names) == 0 {
		return nil, errors.Join(err, errors.New("no manifest in "+folder))
	}
	last := slices.Max(names)
	number, _ := manifest.ParseName(filepath.Base(last))
	text, err := os.ReadFile(last)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Decode(text, number, p)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range m.Targets[target].Files {
		text, err := os.ReadFile(filepath.Join(folder, target, f.Name))
		if err != nil {
			return nil, err
		}
		scan := bufio.NewScanner(bytes.NewReader(text))
		scan.Buffer(nil, 1<<20)
		for scan.Scan() {
			if !json.Valid(scan.Bytes()) {
				return nil, errors.New("not JSON: " + scan.Text())
			}
			out = append(out, scan.Text())
		}
		if err := scan.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "await GLOB [TEXT]")
	args = append(args, "")
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		found, _ := filepath.Glob(ts.MkAbs(args[0])) // the pattern is ours
		for _, path := range found {
			if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(args[1])) {
				return
			}
		}
	}
	ts.Fatalf("%s with %q did not appear", args[0], args[1])
}

func scriptNewest(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "newest FOLDER")
	found, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "m-*.json"))
	ts.Check(err)
	ts.Check(os.Remove(slices.Max(found)))
}

func scriptProfiles(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, "profiles GLOB TYPE N")
	found, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if strconv.Itoa(len(found)) != args[2] {
		ts.Fatalf("%d files are %s, want %s", len(found), args[0], args[2])
	}
	for _, path := range found {
		types, err := sampleTypes(path)
		ts.Check(err)
		if !slices.Contains(types, args[1]) {
			ts.Fatalf("%s has samples of %q, want %s", path, types, args[1])
		}
	}
}

// sampleTypes returns the types of the samples of a profile, as profile.proto of pprof
// defines them.
func sampleTypes(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	const sampleType, stringTable, typeOfValue = 1, 6, 1
	var texts []string
	var kinds []uint64
	err = eachField(raw, func(n uint64, value []byte, _ uint64) error {
		switch n {
		case stringTable:
			texts = append(texts, string(value))
		case sampleType:
			return eachField(value, func(n uint64, _ []byte, v uint64) error {
				if n == typeOfValue {
					kinds = append(kinds, v)
				}
				return nil
			})
		}
		return nil
	})
	var out []string
	for _, k := range kinds {
		if k >= uint64(len(texts)) {
			return nil, errors.New("a type without a name in " + path)
		}
		out = append(out, texts[k])
	}
	return out, err
}

// eachField calls do with each field of a message: its bytes, or its number. A profile has
// no field of another kind.
func eachField(raw []byte, do func(n uint64, value []byte, v uint64) error) error {
	const varint, text = 0, 2
	for len(raw) > 0 {
		tag, size := binary.Uvarint(raw)
		if size <= 0 {
			return io.ErrUnexpectedEOF
		}
		raw = raw[size:]
		v, size := binary.Uvarint(raw)
		if size <= 0 {
			return io.ErrUnexpectedEOF
		}
		raw = raw[size:]
		var value []byte
		switch tag & 7 {
		case varint:
		case text:
			if v > uint64(len(raw)) {
				return io.ErrUnexpectedEOF
			}
			value, raw, v = raw[:v], raw[v:], 0
		default:
			return fmt.Errorf("field %d has wire type %d", tag>>3, tag&7)
		}
		if err := do(tag>>3, value, v); err != nil {
			return err
		}
	}
	return nil
}
