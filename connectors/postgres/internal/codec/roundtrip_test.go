package codec

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

var mood = &Type{OID: 70001, Schema: "public", Name: "mood", Mod: -1, SQL: "public.mood", Kind: KindEnum, Labels: []string{"sad", "glad"}}

// everyType lists types of every form, their arrays and domains over them.
func everyType() []*Type {
	var types []*Type
	for _, b := range builtins {
		types = append(types, plain(b.name))
	}
	types = append(types, numericOf(5, 2), numericOf(18, 0), numericOf(38, 38), numericOf(38, 9), numericOf(60, 20), numericOf(76, 75), mood,
		withMod("varchar", 14, "character varying(10)"), withMod("bpchar", 9, "character(5)"))
	for _, t := range types {
		a := arrayOf(t)
		if a.OID == 0 {
			a.OID = t.OID + 1
		}
		types = append(types, a)
	}
	return append(types, &Type{OID: 70009, Schema: "public", Name: "age", Mod: -1, SQL: "public.age", Kind: KindDomain, Base: plain("int4")})
}

// randomRecord returns rows of random values of the types.
func randomRecord(r *rand.Rand, s *arrow.Schema, types []*Type, rows int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	for range rows {
		for i, t := range types {
			appendRandom(r, b.Field(i), t)
		}
	}
	return b.NewRecordBatch()
}

func appendRandom(r *rand.Rand, b array.Builder, t *Type) {
	if r.IntN(6) == 0 {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.BooleanBuilder:
		b.Append(r.IntN(2) == 0)
	case *array.Int16Builder:
		b.Append(int16(randomInt(r)))
	case *array.Int32Builder:
		b.Append(int32(randomInt(r)))
	case *array.Int64Builder:
		b.Append(randomInt(r))
	case *array.Float32Builder:
		b.Append(math.Float32frombits(r.Uint32()))
	case *array.Float64Builder:
		b.Append([]float64{0, math.Copysign(0, -1), math.Inf(1), math.NaN(), math.MaxFloat64, r.NormFloat64()}[r.IntN(6)])
	case *array.Date32Builder:
		b.Append(arrow.Date32(dateMin + epochDays + r.Int64N(dateEnd-dateMin-epochDays)))
	case *array.Time64Builder:
		b.Append(arrow.Time64(r.Int64N(dayMicros)))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(max(randomInt(r), stampMin)))
	case *array.MonthDayNanoIntervalBuilder:
		b.Append(arrow.MonthDayNanoInterval{Months: int32(randomInt(r)), Days: int32(randomInt(r)), Nanoseconds: randomInt(r) / 1000 * 1000})
	case *array.Decimal128Builder:
		p, _, _ := t.numericMod()
		b.Append(decimal128.FromBigInt(randomBig(r, int(p))))
	case *array.Decimal256Builder:
		p, _, _ := t.numericMod()
		b.Append(decimal256.FromBigInt(randomBig(r, int(p))))
	case *array.BinaryBuilder:
		b.Append([]byte(randomText(r, t)))
	case *array.StringBuilder:
		b.Append(randomText(r, t))
	case *extensions.UUIDBuilder:
		var u uuid.UUID
		for i := range u {
			u[i] = byte(r.Uint32())
		}
		b.Append(u)
	case *array.ListBuilder:
		b.Append(true)
		for range r.IntN(4) {
			appendRandom(r, b.ValueBuilder(), t.Elem)
		}
	default:
		panic(fmt.Sprintf("no values for %T", b))
	}
}

func randomInt(r *rand.Rand) int64 {
	return []int64{0, -1, math.MaxInt64, math.MinInt64, math.MaxInt32, math.MinInt32, math.MaxInt16, int64(r.Uint64()), int64(r.Uint64() >> r.IntN(64))}[r.IntN(9)]
}

func randomBig(r *rand.Rand, digits int) *big.Int {
	text := ""
	for range r.IntN(digits + 1) {
		text += string("0123456789000"[r.IntN(13)])
	}
	if r.IntN(8) == 0 {
		text = strings.Repeat("9", digits)
	}
	v, _ := new(big.Int).SetString("0"+text, 10)
	if r.IntN(2) == 0 {
		v.Neg(v)
	}
	return v
}

func randomText(r *rand.Rand, t *Type) string {
	words := []string{"", "a", "plain words of some length", "日本語 é 🚀", " space ", "tab\tline\n", `back\slash`, `{"a":"\u00e9"}`}
	switch t.form() {
	case formNumeric:
		return randomNumber(r)
	case formChar:
		return []string{"", "x", "\n"}[r.IntN(3)]
	default:
	}
	w := words[r.IntN(len(words))]
	if n := t.chars(); n >= 0 && len([]rune(w)) > n {
		return string([]rune(w)[:n])
	}
	return w
}

// randomNumber returns a numeric as the server prints it.
func randomNumber(r *rand.Rand) string {
	if r.IntN(10) == 0 {
		return []string{"NaN", "Infinity", "-Infinity"}[r.IntN(3)]
	}
	before := randomBig(r, 1+r.IntN(60)).String()
	if r.IntN(2) == 0 {
		return before
	}
	behind := ""
	for range 1 + r.IntN(40) {
		behind += string("0001234567890"[r.IntN(13)])
	}
	if before == "0" && strings.Trim(behind, "0") != "" && r.IntN(2) == 0 {
		before = "-0"
	}
	return before + "." + behind
}

func TestRowsOfEveryTypeRoundTrip(t *testing.T) {
	r := seeded(t)
	types := everyType()
	s, _, asText := fieldsOf(columnsOf(types...))
	for i := range asText {
		require.False(t, asText[i], types[i].SQL)
	}
	rec := randomRecord(r, s, types, 500)
	defer rec.Release()
	e, err := NewEncoder(s, sameTargets(types))
	require.NoError(t, err)
	wire := encodeAll(t, e, rec)

	d := newDecoder(t, columnsOf(types...), checked(t), connectors.Limits{BatchRows: 64, BatchBytes: 1 << 20, RowBytes: 1 << 20})
	recs, err := decodeAll(d, [][]byte{wire})
	require.NoError(t, err)
	require.True(t, d.Ended())
	require.Len(t, recs, 8)
	for _, x := range recs {
		require.LessOrEqual(t, x.NumRows(), int64(64))
	}
	got := join(t, s, recs)
	for i, c := range got.Columns() {
		require.True(t, array.ApproxEqual(rec.Column(i), c, array.WithNaNsEqual(true)), "%s:\n%s\n%s", types[i].SQL, rec.Column(i), c)
	}
}

func TestFramesMeanNothing(t *testing.T) {
	r := seeded(t)
	types := []*Type{plain("int4"), plain("text"), arrayOf(plain("numeric")), numericOf(12, 4), plain("bool")}
	s, _, _ := fieldsOf(columnsOf(types...))
	rec := randomRecord(r, s, types, 12)
	defer rec.Release()
	e, err := NewEncoder(s, sameTargets(types))
	require.NoError(t, err)
	wire := encodeAll(t, e, rec)
	limits := connectors.Limits{BatchRows: 5, BatchBytes: 1 << 20, RowBytes: 1 << 20}
	cut := func(payloads ...[]byte) {
		d := newDecoder(t, columnsOf(types...), checked(t), limits)
		recs, err := decodeAll(d, payloads)
		require.NoError(t, err)
		require.True(t, d.Ended())
		require.Len(t, recs, 3)
		require.True(t, array.RecordEqual(rec, join(t, s, recs)))
	}
	for at := range len(wire) {
		cut(wire[:at], wire[at:])
	}
	var bytewise [][]byte
	for i := range wire {
		bytewise = append(bytewise, wire[i:i+1])
	}
	cut(bytewise...)
}

func TestBytesAreThoseOfTheBatch(t *testing.T) {
	r := seeded(t)
	types := everyType()
	s, _, _ := fieldsOf(columnsOf(types...))
	rec := randomRecord(r, s, types, 300)
	defer rec.Release()
	e, err := NewEncoder(s, sameTargets(types))
	require.NoError(t, err)
	wire := encodeAll(t, e, rec)
	const most = 40 << 10
	d := newDecoder(t, columnsOf(types...), checked(t), connectors.Limits{BatchRows: 1 << 20, BatchBytes: most, RowBytes: 1 << 20})
	batches := 0
	for err := ErrFull; err == ErrFull; batches++ { //nolint:errorlint // never wrapped
		err = d.Append(wire)
		rows, size := d.Rows(), d.Bytes()
		out := d.Take()
		require.Equal(t, rows, out.NumRows())
		require.Equal(t, messages.ArrowRows{Record: out}.Bytes(), size)
		require.LessOrEqual(t, size, int64(most))
		for i, c := range out.Columns() {
			if c.NullN() == 0 {
				require.Nil(t, c.Data().Buffers()[0], types[i].SQL)
			}
		}
		out.Release()
		if err != ErrFull { //nolint:errorlint // never wrapped
			require.NoError(t, err)
			break
		}
	}
	require.Greater(t, batches, 3)
}
