package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/statestore/bbolt"
)

// box is a DeadLetterBox in memory.
type box struct {
	letters []connectors.DeadLetter
	refuse  string // an ID that cannot be written
	err     error
	asked   []connectors.DeadLetterQuery
	during  func()
}

func (b *box) selects(q connectors.DeadLetterQuery) (out, rest []connectors.DeadLetter) {
	b.asked = append(b.asked, q)
	for _, l := range b.letters {
		other := q.Stream != "" && l.Stream != q.Stream || q.Reason != "" && l.Reason != q.Reason || len(q.IDs) > 0 && !slices.Contains(q.IDs, l.ID)
		if other || q.Limit > 0 && int64(len(out)) == q.Limit {
			rest = append(rest, l)
			continue
		}
		out = append(out, l)
	}
	return out, rest
}

// DeadLetters implements connectors.DeadLetterBox.
func (b *box) DeadLetters(_ context.Context, q connectors.DeadLetterQuery) ([]connectors.DeadLetter, error) {
	out, _ := b.selects(q)
	return out, b.err
}

// Purge implements connectors.DeadLetterBox.
func (b *box) Purge(_ context.Context, q connectors.DeadLetterQuery) (int64, error) {
	out, rest := b.selects(q)
	b.letters = rest
	return int64(len(out)), b.err
}

// Replay implements connectors.DeadLetterBox.
func (b *box) Replay(_ context.Context, q connectors.DeadLetterQuery) (r connectors.Replayed, err error) {
	if b.during != nil {
		b.during()
	}
	out, rest := b.selects(q)
	for _, l := range out {
		if l.ID == b.refuse {
			rest = append(rest, l)
			r.Left++
			continue
		}
		r.Written++
	}
	b.letters = rest
	return r, b.err
}

// deadRowBytes is a row as a dead letter keeps it.
func deadRowBytes(t *testing.T, id int64, name string) []byte {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "name", Type: arrow.BinaryTypes.String}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	b.Field(0).(*array.Int64Builder).Append(id)
	b.Field(1).(*array.StringBuilder).Append(name)
	rec := b.NewRecordBatch()
	defer rec.Release()
	var out bytes.Buffer
	w := ipc.NewWriter(&out, ipc.WithSchema(schema))
	require.NoError(t, w.Write(rec))
	require.NoError(t, w.Close())
	return out.Bytes()
}

func letters(t *testing.T) *box {
	t.Helper()
	return &box{letters: []connectors.DeadLetter{
		{
			ID: "a1", Stream: "orders", Part: "orders/0", Load: 1, Position: "(5)", Ordinal: 2, Reason: "not_null", SQLState: "23502",
			Message: "null value in column \"total\"\nof relation orders\x1b[2J", Created: "2026-01-02T03:04:05Z", Row: deadRowBytes(t, 7, "x<y"),
		},
		{ID: "b2", Stream: "users", Part: "users/0", Load: 1, Ordinal: 1, Reason: "trigger", Message: "no", Created: "2026-01-02T03:04:06Z", Row: []byte("broken")},
	}}
}

// dlq runs one command line over b.
func dlq(t *testing.T, b *box, args ...string) invoked {
	t.Helper()
	path := write(t, ".", "p.yaml", generatorDocument("p", "rows: 1", "blackhole", "", "orders", "users"))
	var stdout, stderr bytes.Buffer
	a := &app{
		stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, env: func(string) (string, bool) { return "", false }, notify: notifySignals,
		args:  append([]string{"dlq", args[0], path}, args[1:]...),
		boxes: func(*config.Document) (connectors.DeadLetterBox, error) { return b, nil },
	}
	code := a.main()
	return invoked{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

func TestDeadLettersAreListed(t *testing.T) {
	t.Chdir(t.TempDir())
	r := dlq(t, letters(t), "list")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, `a1  orders  not_null  23502  2026-01-02T03:04:05Z  null value in column "total"
b2  users   trigger          2026-01-02T03:04:06Z  no
2 dead letters
`, r.stdout)
	b := letters(t)
	r = dlq(t, b, "list", "--stream", "users", "--reason", "trigger", "--limit", "1")
	require.Contains(t, r.stdout, "1 dead letter, and perhaps more")
	require.Equal(t, []connectors.DeadLetterQuery{{Pipeline: "p", Stream: "users", Reason: "trigger", IDs: []string{}, Limit: 1}}, b.asked)
	require.Equal(t, "no dead letters\n", dlq(t, &box{}, "list").stdout)

	e := dlq(t, letters(t), "list", "-o", "json")
	require.Contains(t, e.stdout, `"command": "dlq list"`)
	require.JSONEq(t, `{"pipeline": "p", "dead_letters": [
		{"id": "a1", "stream": "orders", "part": "orders/0", "load": 1, "position": "(5)", "ordinal": 2, "reason": "not_null", "sqlstate": "23502",
			"message": "null value in column \"total\"\nof relation orders\u001b[2J", "created_at": "2026-01-02T03:04:05Z"},
		{"id": "b2", "stream": "users", "part": "users/0", "load": 1, "ordinal": 1, "reason": "trigger", "message": "no", "created_at": "2026-01-02T03:04:06Z"}
	]}`, string(e.envelope(t).Result))
}

func TestADeadLetterIsShownWithItsRow(t *testing.T) {
	t.Chdir(t.TempDir())
	r := dlq(t, letters(t), "show", "a1", "b2")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, `a1
  stream      orders
  reason      not_null
  sqlstate    23502
  message     null value in column "total"
              of relation orders\x1b[2J
  set aside   2026-01-02T03:04:05Z
  read as     row 2 behind the position of task orders/0, load 1
  position    (5)
  row         {
                "id": 7,
                "name": "x<y"
              }

b2
  stream      users
  reason      trigger
  message     no
  set aside   2026-01-02T03:04:06Z
  read as     row 1 behind the position of task users/0, load 1
  row         cannot be decoded: decode the row of dead letter b2 (stream users, task users/0): `, r.stdout[:strings.LastIndex(r.stdout, "users/0): ")+len("users/0): ")])
	r = dlq(t, letters(t), "show", "zz")
	require.Equal(t, messages.ExitUsage, r.code)
	require.Contains(t, r.stderr, `there is no dead letter "zz"`)
	require.Contains(t, r.stderr, "dlq list p.yaml")
}

func TestDeadLettersAreExportedWhole(t *testing.T) {
	t.Chdir(t.TempDir())
	r := dlq(t, letters(t), "export")
	require.Zero(t, r.code, r.stderr)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	require.Len(t, lines, 2)
	require.Contains(t, lines[0], `"row":{"id":7,"name":"x<y"}`)
	require.Contains(t, lines[1], `"row":null,"row_error":`)
	require.Contains(t, lines[1], `"row_arrow":"YnJva2Vu"`)

	r = dlq(t, letters(t), "export", "--file", "out.jsonl")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "+ p  2 dead letters in out.jsonl\n", r.stdout)
	text, err := os.ReadFile("out.jsonl")
	require.NoError(t, err)
	require.Equal(t, strings.Join(lines, "\n")+"\n", string(text))
	require.NotZero(t, dlq(t, letters(t), "export", "--file", filepath.Join("no", "out")).code)
}

func TestReplayHoldsTheStateStore(t *testing.T) {
	t.Chdir(t.TempDir())
	b := letters(t)
	var held error
	b.during = func() { _, held = bbolt.Open(t.Context(), bbolt.Config{Path: config.DefaultStatePath}) }
	b.refuse = "b2"
	r := dlq(t, b, "replay")
	require.Error(t, held, "a run could not begin meanwhile")
	require.Equal(t, messages.ExitData, r.code)
	require.Equal(t, "! p  1 dead letter written, 1 left\n", r.stdout)
	require.Contains(t, r.stderr, "RB-1005")
	require.Contains(t, r.stderr, "refused again and left as they are: 1 dead letter")

	store, err := bbolt.Open(t.Context(), bbolt.Config{Path: config.DefaultStatePath})
	require.NoError(t, err)
	b.during, b.refuse = nil, ""
	r = dlq(t, b, "replay")
	require.Equal(t, messages.ExitState, r.code)
	require.Contains(t, r.stderr, "RB-6002")
	require.Len(t, b.letters, 1)
	require.NoError(t, store.Close())
	r = dlq(t, b, "replay", "b2")
	require.Zero(t, r.code, r.stderr)
	require.Empty(t, b.letters)
	require.Contains(t, dlq(t, b, "replay").stdout, "no dead letters")
}

func TestPurgeAsksFirst(t *testing.T) {
	t.Chdir(t.TempDir())
	b := letters(t)
	r := dlq(t, b, "purge")
	require.Equal(t, messages.ExitUsage, r.code)
	require.Contains(t, r.stderr, "Add `--yes`.")
	require.Len(t, b.letters, 2)
	r = dlq(t, b, "purge", "--stream", "users", "--yes")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "+ p  1 dead letter removed\n", r.stdout)
	require.Len(t, b.letters, 1)

	var out bytes.Buffer
	require.NoError(t, ask(strings.NewReader("Yes\n"), &out, "Sure?"))
	require.Equal(t, "Sure? [y/N] ", out.String())
	for _, no := range []string{"", "n\n", "\n", "maybe\n"} {
		require.Error(t, ask(strings.NewReader(no), &out, "Sure?"))
	}
	require.Equal(t, "at most 2 dead letters with reason r of stream s of pipeline p",
		deadLetters{doc: &config.Document{Pipeline: "p"}, query: connectors.DeadLetterQuery{Stream: "s", Reason: "r", Limit: 2}}.selected())
}

func TestWhatTheBoxFailsWithIsTold(t *testing.T) {
	t.Chdir(t.TempDir())
	b := letters(t)
	b.err = &connectors.Error{Op: "read dead letters", Kind: connectors.KindTransient, Err: errors.New("connection refused")}
	for _, args := range [][]string{{"list"}, {"show", "a1"}, {"export"}, {"replay"}, {"purge", "--yes"}} {
		r := dlq(t, b, args...)
		require.Equal(t, messages.ExitDestination, r.code, args)
		require.Contains(t, r.stderr, "connection refused")
	}
}

func TestADestinationWithoutDeadLettersIsToldApart(t *testing.T) {
	t.Chdir(t.TempDir())
	path := write(t, ".", "p.yaml", generatorDocument("p", "rows: 1", "blackhole", "", "a"))
	r := invoke(t, nil, "dlq", "list", path)
	require.Equal(t, messages.ExitConfig, r.code)
	require.Contains(t, r.stderr, "RB-2010")
	require.Contains(t, r.stderr, "the destination blackhole keeps none")
}
