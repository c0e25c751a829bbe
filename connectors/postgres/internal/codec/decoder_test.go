package codec

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
)

// wireRow is a row of fields; nil is null.
func wireRow(fields ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(fields)))
	for _, f := range fields {
		if f == nil {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		b = appendValue(b, f)
	}
	return b
}

func copyOf(rows ...[]byte) []byte {
	b := AppendHeader(nil)
	for _, r := range rows {
		b = append(b, r...)
	}
	return AppendTrailer(b)
}

func words(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		var err error
		if b, err = binary.Append(b, binary.BigEndian, p); err != nil {
			panic(err)
		}
	}
	return b
}

type (
	w16 = uint16
	w32 = uint32
	w64 = uint64
)

// TestMalformedValuesAreErrors: a value that no server sends ends the decoder, and
// never reads past its field.
func TestMalformedValuesAreErrors(t *testing.T) {
	for _, c := range []struct {
		t    *Type
		v    []byte
		want string
	}{
		{plain("int2"), words(w32(1)), "length"},
		{plain("int4"), words(w16(1)), "length"},
		{plain("int8"), []byte{}, "length"},
		{plain("float8"), words(w32(1)), "length"},
		{plain("timestamp"), words(w32(1)), "length"},
		{plain("date"), words(w64(1)), "length"},
		{plain("time"), words(w32(1)), "length"},
		{plain("interval"), words(w64(1)), "length"},
		{plain("uuid"), make([]byte, 15), "length"},
		{plain("bool"), []byte{}, "length"},
		{plain("bool"), []byte{2}, "neither"},
		{plain("char"), []byte("ab"), "length"},
		{plain("char"), []byte{0xe9}, "ASCII"},
		{plain("time"), words(w64(1 << 63)), "out of range"},
		{plain("text"), []byte("\xff"), "UTF-8"},
		{plain("json"), []byte("\xff"), "UTF-8"},
		{plain("jsonb"), []byte{}, "version"},
		{plain("jsonb"), []byte("\x02{}"), "version"},
		{plain("jsonb"), []byte("\x01\xff"), "UTF-8"},
		{plain("numeric"), words(w32(0)), "length"},
		{plain("numeric"), words(w16(2), w16(0), w16(0), w16(0), w16(1)), "length"},
		{plain("numeric"), words(w16(1), w16(0), w16(1), w16(0), w16(1)), "malformed"},
		{plain("numeric"), words(w16(1), w16(0), w16(0), w16(0), w16(10000)), "malformed"},
		{plain("numeric"), words(w16(1), w16(0xffff), w16(0), w16(2), w16(1234)), "malformed"},
		{plain("numeric"), words(w16(2), w16(0), w16(0), w16(0), w16(1), w16(1)), "malformed"},
		{plain("numeric"), words(w16(0), w16(0), w16(0), w16(0x4000)), "malformed"},
		{numericOf(5, 2), words(w16(1), w16(0), w16(0), w16(2), w16(1000)), "precision"},
		{numericOf(5, 2), words(w16(1), w16(0x7fff), w16(0), w16(2), w16(1)), "precision"},
		{numericOf(5, 2), words(w16(1), w16(0xffff), w16(0), w16(4), w16(1)), "scale"},
		{numericOf(5, 2), words(w16(1), w16(0x8000), w16(0), w16(4), w16(1)), "scale"},
		{numericOf(5, 2), words(w16(2), w16(0xffff), w16(0), w16(4), w16(100), w16(1)), "scale"},
		{numericOf(5, 2), words(w16(0), w16(0), w16(signPosInf), w16(0)), "infinity"},
		{numericOf(60, 2), words(w16(0), w16(0), w16(signNaN), w16(0)), "NaN"},
		{arrayOf(plain("int4")), words(w32(1)), "malformed"},
		{arrayOf(plain("int4")), words(w32(0), w32(0), w32(25)), "another type"},
		{arrayOf(plain("int4")), words(w32(0), w32(0), w32(23), w32(0)), "malformed"},
		{arrayOf(plain("int4")), words(w32(1), w32(0), w32(23)), "malformed"},
		{arrayOf(plain("int4")), words(w32(2), w32(0), w32(23), w32(1), w32(1), w32(1), w32(1), w32(4), w32(1)), "dimension"},
		{arrayOf(plain("int4")), words(w32(1), w32(0), w32(23), w32(1), w32(0), w32(4), w32(1)), "index 1"},
		{arrayOf(plain("int4")), words(w32(1), w32(0), w32(23), w32(1<<31), w32(1), w32(4), w32(1)), "malformed"},
		{arrayOf(plain("int4")), words(w32(1), w32(0), w32(23), w32(2), w32(1), w32(4), w32(1)), "malformed"},
		{arrayOf(plain("int4")), words(w32(1), w32(0), w32(23), w32(1), w32(1), w32(8), w32(1)), "malformed"},
		{arrayOf(plain("int4")), words(w32(1), w32(0), w32(23), w32(1), w32(1), w32(1<<31), w32(1)), "malformed"},
		{arrayOf(plain("int4")), words(w32(1), w32(0), w32(23), w32(1), w32(1), w32(4), w32(1), w32(1)), "malformed"},
		{arrayOf(plain("int4")), words(w32(1), w32(0), w32(23), w32(1), w32(1), w32(2), w16(1)), "length"},
		{arrayOf(plain("text")), words(w32(1), w32(0), w32(25), w32(1), w32(1), w32(1), []byte{0xff}), "UTF-8"},
	} {
		cols := columnsOf(plain("int4"), c.t)
		d := newDecoder(t, cols, checked(t), connectors.Limits{})
		recs, err := decodeAll(d, [][]byte{copyOf(wireRow(words(w32(7)), nil), wireRow(words(w32(8)), c.v), wireRow(words(w32(9)), nil))})
		require.ErrorContains(t, err, c.want, "%s %x", c.t.SQL, c.v)
		require.ErrorContains(t, err, "c1")
		require.ErrorContains(t, err, "row 2")
		require.Len(t, recs, 1)
		require.EqualValues(t, 1, recs[0].NumRows(), "the row before is whole")
		require.EqualValues(t, 7, recs[0].Column(0).(*array.Int32).Value(0))
		releaseAll(recs)
		require.Equal(t, err, d.Append(nil), "an error is final")
	}
}

func TestMalformedCopiesAreErrors(t *testing.T) {
	row := wireRow(words(w32(1)))
	header := slices.Clip(AppendHeader(nil))
	for name, c := range map[string]struct {
		wire []byte
		want string
	}{
		"no signature":       {[]byte("hello"), "signature"},
		"text format":        {[]byte("1\t2\n"), "signature"},
		"OIDs":               {append(slices.Clip([]byte(signature)), words(w32(1<<16), w32(0))...), "flags"},
		"endless extension":  {append(slices.Clip([]byte(signature)), words(w32(0), w32(1<<30))...), "too long"},
		"more fields":        {append(header, wireRow(words(w32(1)), nil)...), "has 2 fields"},
		"no fields":          {append(header, 0, 0), "has 0 fields"},
		"negative count":     {append(header, 0xff, 0xfe), "has -2 fields"},
		"negative length":    {append(header, 0, 1, 0xff, 0xff, 0xff, 0xfe), "length"},
		"behind the trailer": {append(copyOf(row), row...), "trailer"},
		"a second trailer":   {append(copyOf(row), 0xff, 0xff), "trailer"},
	} {
		d := newDecoder(t, columnsOf(plain("int4")), checked(t), connectors.Limits{})
		recs, err := decodeAll(d, [][]byte{c.wire})
		var bad *FormatError
		require.ErrorAs(t, err, &bad, name)
		require.ErrorContains(t, err, c.want, name)
		releaseAll(recs)
	}

	d := newDecoder(t, columnsOf(plain("int4")), checked(t), connectors.Limits{})
	extended := append(append(slices.Clip([]byte(signature)), words(w32(5), w32(3))...), "ext"...)
	recs, err := decodeAll(d, [][]byte{append(append(extended, row...), 0xff, 0xff), nil})
	require.NoError(t, err, "low flags and an extension are no matter")
	require.True(t, d.Ended())
	releaseAll(recs)
}

func TestNullInAColumnThatHasNone(t *testing.T) {
	cols := columnsOf(plain("int4"))
	cols[0].NotNull = true
	d := newDecoder(t, cols, checked(t), connectors.Limits{})
	_, err := decodeAll(d, [][]byte{copyOf(wireRow(nil))})
	require.ErrorContains(t, err, "not null")
}

func TestRowsWithoutColumnsAreCounted(t *testing.T) {
	d := newDecoder(t, nil, checked(t), connectors.Limits{BatchRows: 2})
	recs, err := decodeAll(d, [][]byte{copyOf(wireRow(), wireRow(), wireRow())})
	require.NoError(t, err)
	require.Len(t, recs, 2)
	require.EqualValues(t, 2, recs[0].NumRows())
	require.Nil(t, d.Take())
	releaseAll(recs)
}

func TestBatchesKeepTheirLimits(t *testing.T) {
	text := func(n int) []byte { return wireRow([]byte(strings.Repeat("x", n))) }
	d := newDecoder(t, columnsOf(plain("text")), checked(t), connectors.Limits{BatchRows: 3, BatchBytes: 1000, RowBytes: 2000})
	recs, err := decodeAll(d, [][]byte{copyOf(text(1), text(1), text(1), text(1), text(985), text(1999), text(1), text(983), text(9))})
	require.NoError(t, err)
	var rows []int64
	for _, r := range recs {
		rows = append(rows, r.NumRows())
	}
	require.Equal(t, []int64{3, 2, 1, 2, 1}, rows, "998 bytes fit, a row above is alone, 996 fit")
	releaseAll(recs)

	for _, cut := range []int{0, 100} { // known from the length alone
		d = newDecoder(t, columnsOf(plain("text")), checked(t), connectors.Limits{BatchRows: 3, BatchBytes: 1000, RowBytes: 2000})
		wire := copyOf(text(1), text(2001))
		recs, err = decodeAll(d, [][]byte{wire[:len(wire)-cut]})
		var large *RowTooLargeError
		require.ErrorAs(t, err, &large)
		require.Equal(t, RowTooLargeError{Row: 2, Bytes: 2001, Max: 2000}, *large)
		require.Len(t, recs, 1)
		releaseAll(recs)
	}
}

// TestShortWireOfALongText: ten bytes can stand for a number of 131,072 digits.
func TestShortWireOfALongText(t *testing.T) {
	long := words(w16(1), w16(0x7fff), w16(0), w16(0), w16(9999))
	element := append(words(w32(10)), long...)
	a := words(w32(1), w32(0), w32(1700), w32(1000), w32(1))
	for range 1000 {
		a = append(a, element...)
	}
	mem := checked(t)
	d := newDecoder(t, columnsOf(arrayOf(plain("numeric"))), mem, connectors.Limits{BatchRows: 3, BatchBytes: 1 << 20, RowBytes: 1 << 20})
	_, err := decodeAll(d, [][]byte{copyOf(wireRow(a))})
	require.ErrorAs(t, err, new(*RowTooLargeError))
	require.Less(t, mem.CurrentAlloc(), 4<<20)

	d = newDecoder(t, columnsOf(plain("numeric")), mem, connectors.Limits{BatchRows: 100, BatchBytes: 1 << 20, RowBytes: 1 << 20})
	var rows [][]byte
	for range 20 {
		rows = append(rows, wireRow(long))
	}
	recs, err := decodeAll(d, [][]byte{copyOf(rows...)})
	require.NoError(t, err)
	require.Len(t, recs, 3, "7 of them are below 1 MiB")
	require.Equal(t, "9999"+strings.Repeat("0", 131068), recs[2].Column(0).(*array.String).Value(0))
	releaseAll(recs)
}

// TestAllocationsDoNotGrowWithRows: a batch of many rows costs what one of few costs.
func TestAllocationsDoNotGrowWithRows(t *testing.T) {
	cols := append(wide(), Column{Name: "list", Type: arrayOf(plain("int8"))})
	decode := func(rows int) float64 {
		payloads := rowsOf(t, cols, benchRecord(cols, rows))
		d := newDecoder(t, cols, memory.DefaultAllocator, connectors.Limits{})
		require.NoError(t, d.Append(AppendHeader(nil)))
		return testing.AllocsPerRun(5, func() {
			for _, p := range payloads {
				if err := d.Append(p); err != nil {
					t.Error(err)
				}
			}
			d.Take().Release()
		})
	}
	require.InDelta(t, decode(100), decode(2000), 3)

	encode := func(rows int) float64 {
		rec := benchRecord(cols, rows)
		_, types, _ := fieldsOf(cols)
		e, err := NewEncoder(rec.Schema(), sameTargets(types))
		require.NoError(t, err)
		dst := make([]byte, 0, 1<<20)
		return testing.AllocsPerRun(5, func() {
			if _, _, err := e.Encode(dst, rec, 0, rec.NumRows(), 1<<30); err != nil {
				t.Error(err)
			}
		})
	}
	require.Zero(t, encode(100))
	require.Zero(t, encode(2000))
}

func TestReleasedDecoder(t *testing.T) {
	d := newDecoder(t, columnsOf(plain("text")), checked(t), connectors.Limits{})
	require.NoError(t, d.Append(append(AppendHeader(nil), wireRow([]byte("x"))...)))
	d.Release()
	d.Release()
	require.Nil(t, d.Take())
	require.ErrorIs(t, d.Append(nil), errReleased)
}

func TestDecoderOfOtherFields(t *testing.T) {
	s := arrow.NewSchema([]arrow.Field{{Name: "v", Type: arrow.PrimitiveTypes.Int64}}, nil)
	_, err := NewDecoder(s, []*Type{plain("int4")}, []bool{false}, memory.DefaultAllocator, connectors.Limits{})
	require.ErrorContains(t, err, "read as int32")
	_, err = NewDecoder(s, nil, nil, memory.DefaultAllocator, connectors.Limits{})
	require.Error(t, err)
}

// FuzzDecoder: no bytes make the decoder panic, and where payloads are cut changes
// neither rows nor errors.
func FuzzDecoder(f *testing.F) {
	cols := columnsOf(plain("int4"), plain("text"), plain("numeric"), numericOf(7, 3), numericOf(50, 9), arrayOf(plain("text")), plain("jsonb"), plain("bool"), plain("interval"))
	s, types, asText := fieldsOf(cols)
	e, err := NewEncoder(s, sameTargets(types))
	require.NoError(f, err)
	rec := randomRecord(seeded(f), s, types, 4)
	f.Add(encodeAll(f, e, rec), 40, 90)
	f.Add(copyOf(), 3, 19)
	decode := func(t *testing.T, payloads ...[]byte) (recs []arrow.RecordBatch, waits bool, err error) {
		mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
		d, err := NewDecoder(s, types, asText, mem, connectors.Limits{BatchRows: 3, BatchBytes: 1 << 16, RowBytes: 1 << 16})
		require.NoError(t, err)
		t.Cleanup(func() {
			d.Release()
			releaseAll(recs)
			mem.AssertSize(t, 0)
		})
		recs, err = decodeAll(d, payloads)
		return recs, len(d.tail) > 0, err
	}
	f.Fuzz(func(t *testing.T, wire []byte, a, b int) {
		a = min(max(a, 0), len(wire))
		b = min(max(b, a), len(wire))
		want, _, wantErr := decode(t, wire)
		got, waits, gotErr := decode(t, wire[:a], wire[a:b], wire[b:])
		// Of a row that never ends a decoder may have waited for more, or have found its
		// length too large first.
		if gotErr != nil || !waits {
			require.Equal(t, wantErr == nil, gotErr == nil, "%v, %v", wantErr, gotErr)
		}
		require.Len(t, got, len(want))
		for i := range want {
			require.True(t, array.RecordEqual(want[i], got[i]))
		}
	})
}

// FuzzNumericText: a text that is taken is the text that comes back, but for zeros in
// front and the sign of zero.
func FuzzNumericText(f *testing.F) {
	for _, s := range []string{"0", "-1.50", "NaN", "Infinity", "-Infinity", "10000", "0.00001", "99999999.99999999", "007", "-0.0", ".", "1e5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		wire, fault := appendNumericText(nil, []byte(s))
		if fault != nil {
			return
		}
		x, fault := parseNumber(wire[4:])
		require.Nil(t, fault)
		text, fault := x.appendText(make([]byte, 0, x.textSize()))
		require.Nil(t, fault)
		require.LessOrEqual(t, len(text), x.textSize())
		if x.sign >= signNaN {
			require.Equal(t, s, string(text))
			return
		}
		whole, behind, found := strings.Cut(s, ".")
		point := ""
		if found {
			point = "."
		}
		sign, digits := "", strings.TrimPrefix(whole, "-")
		if digits != whole && strings.Trim(digits+behind, "0") != "" {
			sign = "-"
		}
		if digits = strings.TrimLeft(digits, "0"); digits == "" {
			digits = "0"
		}
		require.Equal(t, sign+digits+point+behind, string(text))
	})
}
