package codec

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
)

// narrow and wide are the workloads of the whole engine's benchmarks.
func narrow() []Column {
	return columnsOf(plain("int8"), plain("int4"), plain("float8"), plain("timestamptz"), plain("text"))
}

func wide() []Column {
	return columnsOf(plain("int8"), plain("int4"), plain("int2"), plain("float8"), plain("float4"), plain("bool"), plain("date"), plain("timestamp"),
		plain("timestamptz"), plain("uuid"), numericOf(12, 4), numericOf(18, 2), plain("numeric"), plain("text"), plain("text"),
		withMod("varchar", 54, "character varying(50)"), plain("jsonb"), plain("bytea"), plain("int8"), plain("text"))
}

// benchRecord fills columns with values as tables have them.
func benchRecord(cols []Column, rows int) arrow.RecordBatch {
	r := rand.New(rand.NewPCG(1, 2))
	s, types, _ := fieldsOf(cols)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	for row := range rows {
		for i, t := range types {
			benchValue(r, b.Field(i), t, row, i == len(types)-1 && i > 4)
		}
	}
	return b.NewRecordBatch()
}

func benchValue(r *rand.Rand, b array.Builder, t *Type, row int, nullable bool) {
	if nullable && row%3 == 0 {
		b.AppendNull()
		return
	}
	var text string
	switch t.Name {
	case "_int8":
		list, _ := b.(*array.ListBuilder)
		list.Append(true)
		list.ValueBuilder().(*array.Int64Builder).AppendValues([]int64{int64(row), 7}, nil)
		return
	case "text", "varchar":
		text = fmt.Sprintf("customer-%011d", r.IntN(1e9))
	case "jsonb":
		text = fmt.Sprintf(`{"id": %d, "tags": ["a", "b"], "on": true}`, row)
	case "bytea":
		b.(*array.BinaryBuilder).Append([]byte("0123456789abcdef"))
		return
	case "numeric":
		text = fmt.Sprintf("%d.%04d", r.IntN(1e7), r.IntN(1e4))
		if _, scale, ok := t.numericMod(); ok {
			text = text[:len(text)-4+int(scale)]
		}
	case "timestamp", "timestamptz":
		b.(*array.TimestampBuilder).Append(arrow.Timestamp(1_700_000_000_000_000 + int64(row)*1_000_003))
		return
	case "date":
		b.(*array.Date32Builder).Append(arrow.Date32(19_000 + row%1000))
		return
	case "float8":
		b.(*array.Float64Builder).Append(r.Float64() * math.Pi)
		return
	case "uuid":
		text = fmt.Sprintf("%08x-0000-4000-8000-%012x", r.Uint32(), row)
	case "bool":
		b.(*array.BooleanBuilder).Append(row%3 == 0)
		return
	default:
		text = fmt.Sprint(r.IntN(30_000))
	}
	if err := b.AppendValueFromString(text); err != nil {
		panic(err)
	}
}

const benchRows = 8192

func BenchmarkDecodeNarrow(b *testing.B) { benchDecode(b, narrow()) }
func BenchmarkDecodeWide(b *testing.B)   { benchDecode(b, wide()) }
func BenchmarkEncodeNarrow(b *testing.B) { benchEncode(b, narrow()) }
func BenchmarkEncodeWide(b *testing.B)   { benchEncode(b, wide()) }

func BenchmarkDecodeEach(b *testing.B) {
	for i, c := range wide() {
		b.Run(fmt.Sprintf("%02d_%s", i, c.Type.SQL), func(b *testing.B) { benchDecode(b, []Column{c}) })
	}
}

func BenchmarkEncodeEach(b *testing.B) {
	for i, c := range wide() {
		b.Run(fmt.Sprintf("%02d_%s", i, c.Type.SQL), func(b *testing.B) { benchEncode(b, []Column{c}) })
	}
}

// rowsOf returns rec as binary COPY, one payload a row as the server sends it.
func rowsOf(t testing.TB, cols []Column, rec arrow.RecordBatch) (payloads [][]byte) {
	_, types, _ := fieldsOf(cols)
	e, err := NewEncoder(rec.Schema(), sameTargets(types))
	require.NoError(t, err)
	for i := range rec.NumRows() {
		p, _, err := e.Encode(nil, rec, i, i+1, 1<<30)
		require.NoError(t, err)
		payloads = append(payloads, p)
	}
	return payloads
}

// cpu returns the processor time of this process: on a busy machine the wall clock
// says little.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func perValue(b *testing.B, cols int, spent time.Duration) {
	rows := float64(b.N) * benchRows
	b.ReportMetric(float64(spent)/rows/float64(cols), "cpu-ns/value")
	b.ReportMetric(float64(spent)/rows, "cpu-ns/row")
}

// messagesOf returns rec as CopyData messages of one row each.
func messagesOf(t testing.TB, cols []Column, rec arrow.RecordBatch) (out []byte) {
	for _, row := range rowsOf(t, cols, rec) {
		out = append(out, 'd')
		out = binary.BigEndian.AppendUint32(out, uint32(4+len(row)))
		out = append(out, row...)
	}
	return out
}

// keeper is an allocator that gives the memory of a batch to the next one, as readers do.
type keeper map[int][][]byte

// Allocate implements memory.Allocator.
func (k keeper) Allocate(size int) []byte {
	if l := len(k[size]); l > 0 {
		b := k[size][l-1]
		k[size] = k[size][:l-1]
		return b
	}
	return make([]byte, size)
}

// Reallocate implements memory.Allocator.
func (k keeper) Reallocate(size int, b []byte) []byte {
	out := k.Allocate(size)
	copy(out, b)
	k.Free(b)
	return out
}

// Free implements memory.Allocator.
func (k keeper) Free(b []byte) { k[len(b)] = append(k[len(b)], b) }

func benchDecode(b *testing.B, cols []Column) {
	messages := messagesOf(b, cols, benchRecord(cols, benchRows))
	d := newDecoder(b, cols, keeper{}, connectors.Limits{BatchRows: benchRows, BatchBytes: 1 << 30, RowBytes: 1 << 20})
	require.NoError(b, d.Append(AppendHeader(nil)))
	b.ReportAllocs()
	begin := cpu()
	for b.Loop() {
		if _, err := d.AppendMessages(messages); err != nil {
			b.Fatal(err)
		}
		d.Take().Release()
	}
	perValue(b, len(cols), cpu()-begin)
}

func benchEncode(b *testing.B, cols []Column) {
	rec := benchRecord(cols, benchRows)
	_, types, _ := fieldsOf(cols)
	e, err := NewEncoder(rec.Schema(), sameTargets(types))
	require.NoError(b, err)
	var dst []byte
	b.ReportAllocs()
	begin := cpu()
	for b.Loop() {
		next := int64(0)
		for next < rec.NumRows() {
			if dst, next, err = e.Encode(dst[:0], rec, next, rec.NumRows(), 64<<10); err != nil {
				b.Fatal(err)
			}
		}
	}
	perValue(b, len(cols), cpu()-begin)
}
