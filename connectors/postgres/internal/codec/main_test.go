package codec

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// seeded returns a generator whose seed a failure prints and RB_SEED repeats.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("RB_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("RB_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

// checked returns an allocator that has to be empty at the end of the test.
func checked(t testing.TB) *memory.CheckedAllocator {
	t.Helper()
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	t.Cleanup(func() { mem.AssertSize(t, 0) })
	return mem
}

// withMod returns a type of the server's own with a modifier.
func withMod(name string, mod int32, sql string) *Type {
	t := plain(name)
	t.Mod, t.SQL = mod, sql
	return t
}

// columnsOf makes nullable columns c0, c1 .. of types.
func columnsOf(types ...*Type) []Column {
	cols := make([]Column, len(types))
	for i, t := range types {
		cols[i] = Column{Name: "c" + strconv.Itoa(i), Type: t}
	}
	return cols
}

// fieldsOf returns the schema in which columns are read, and what NewDecoder needs.
func fieldsOf(cols []Column) (s *arrow.Schema, types []*Type, asText []bool) {
	fields := make([]arrow.Field, len(cols))
	for i, c := range cols {
		f, text := Field(c, false)
		fields[i], types, asText = f, append(types, c.Type), append(asText, text)
	}
	return arrow.NewSchema(fields, nil), types, asText
}

// sameTargets writes every column into its own type.
func sameTargets(types []*Type) []Target {
	targets := make([]Target, len(types))
	for i, t := range types {
		targets[i] = Target{Field: i, Type: t}
	}
	return targets
}

// encodeAll returns rec as a whole binary COPY.
func encodeAll(t testing.TB, e *Encoder, rec arrow.RecordBatch) []byte {
	t.Helper()
	out, next, err := e.Encode(AppendHeader(nil), rec, 0, rec.NumRows(), 1<<40)
	require.NoError(t, err)
	require.Equal(t, rec.NumRows(), next)
	return AppendTrailer(out)
}

// decodeAll returns the batches of payloads.
func decodeAll(d *Decoder, payloads [][]byte) (recs []arrow.RecordBatch, err error) {
	for _, p := range payloads {
		for err = d.Append(p); err == ErrFull; err = d.Append(p) { //nolint:errorlint // never wrapped
			recs = append(recs, d.Take())
		}
		if err != nil {
			break
		}
	}
	if rec := d.Take(); rec != nil {
		recs = append(recs, rec)
	}
	return recs, err
}

// newDecoder returns a decoder of cols, released with the test.
func newDecoder(t testing.TB, cols []Column, mem memory.Allocator, limits connectors.Limits) *Decoder {
	t.Helper()
	s, types, asText := fieldsOf(cols)
	d, err := NewDecoder(s, types, asText, mem, limits)
	require.NoError(t, err)
	t.Cleanup(d.Release)
	return d
}

// join returns all batches as one, which lives as long as the test, and releases them.
func join(t testing.TB, s *arrow.Schema, recs []arrow.RecordBatch) arrow.RecordBatch {
	t.Helper()
	if len(recs) == 0 {
		b := array.NewRecordBuilder(memory.DefaultAllocator, s)
		defer b.Release()
		return b.NewRecordBatch()
	}
	cols := make([]arrow.Array, s.NumFields())
	var rows int64
	for _, r := range recs {
		rows += r.NumRows()
	}
	for i := range cols {
		parts := make([]arrow.Array, len(recs))
		for k, r := range recs {
			parts[k] = r.Column(i)
		}
		a, err := array.Concatenate(parts, memory.DefaultAllocator)
		require.NoError(t, err)
		cols[i] = a
	}
	for _, r := range recs {
		r.Release()
	}
	return array.NewRecordBatch(s, cols, rows)
}
