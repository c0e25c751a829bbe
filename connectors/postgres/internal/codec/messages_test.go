package codec

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// message is a CopyData message.
func message(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{'d'}, uint32(4+len(payload))), payload...)
}

// decodeMessages is decodeAll of payloads as messages, given on in runs of some.
func decodeMessages(r *rand.Rand, d *Decoder, payloads [][]byte) (recs []arrow.RecordBatch, err error) {
	for len(payloads) > 0 && err == nil {
		var run []byte
		n := 1 + r.IntN(len(payloads))
		for _, p := range payloads[:n] {
			run = append(run, message(p)...)
		}
		payloads = payloads[n:]
		var done int
		for done, err = d.AppendMessages(run); err == ErrFull; done, err = d.AppendMessages(run) { //nolint:errorlint // never wrapped
			recs = append(recs, d.Take())
			run = run[done:]
		}
	}
	if rec := d.Take(); rec != nil {
		recs = append(recs, rec)
	}
	return recs, err
}

// TestMessagesAreTheirPayloads: rows of every type, some of them damaged, cut into
// messages in any way, under limits of any size, give the same batches and the same error
// as their payloads do one by one.
func TestMessagesAreTheirPayloads(t *testing.T) {
	r := seeded(t)
	all := everyType()
	damaged, failed := 0, 0
	for range 1500 {
		var types []*Type
		for range 1 + r.IntN(6) {
			types = append(types, all[r.IntN(len(all))])
		}
		cols := columnsOf(types...)
		s, types, _ := fieldsOf(cols)
		rec := randomRecord(r, s, types, r.IntN(60))
		payloads := append([][]byte{AppendHeader(nil)}, rowsOf(t, cols, rec)...)
		payloads = append(payloads, AppendTrailer(nil))
		rec.Release()
		if r.IntN(2) == 0 {
			damaged++
			p := payloads[r.IntN(len(payloads))]
			p[r.IntN(len(p))] = byte(r.Uint32())
		}
		if r.IntN(3) == 0 {
			payloads = recut(r, payloads)
		}
		limits := connectors.Limits{BatchRows: r.Int64N(80), BatchBytes: r.Int64N(4000), RowBytes: r.Int64N(1000)}
		want, wantErr := decodeAll(newDecoder(t, cols, checked(t), limits), payloads)
		got, gotErr := decodeMessages(r, newDecoder(t, cols, checked(t), limits), payloads)
		require.Equal(t, wantErr, gotErr)
		require.Len(t, got, len(want))
		for i := range want {
			require.True(t, array.RecordApproxEqual(want[i], got[i], array.WithNaNsEqual(true), array.WithAbsTolerance(0)))
			require.Equal(t, messages.ArrowRows{Record: want[i]}.Bytes(), messages.ArrowRows{Record: got[i]}.Bytes())
		}
		releaseAll(want)
		releaseAll(got)
		if wantErr != nil {
			failed++
		}
	}
	require.Greater(t, damaged, 500)
	require.Greater(t, failed, 50)
}

// recut joins payloads and cuts them elsewhere.
func recut(r *rand.Rand, payloads [][]byte) (out [][]byte) {
	var all []byte
	for _, p := range payloads {
		all = append(all, p...)
	}
	for len(all) > 0 {
		n := 1 + r.IntN(min(len(all), 200))
		out = append(out, all[:n])
		all = all[n:]
	}
	return out
}

// TestTextsAreCheckedOneByOne: texts that are UTF-8 only together are an error of the
// first of them, and the rows before it are there.
func TestTextsAreCheckedOneByOne(t *testing.T) {
	cols := columnsOf(plain("text"), plain("int4"))
	rows := [][]byte{AppendHeader(nil)}
	for _, s := range []string{"plain", "é日", "", "\xc3", "\xa9", "last"} {
		rows = append(rows, wireRow([]byte(s), words(w32(1))))
	}
	d := newDecoder(t, cols, checked(t), connectors.Limits{})
	var run []byte
	for _, p := range rows {
		run = append(run, message(p)...)
	}
	_, err := d.AppendMessages(run)
	require.ErrorContains(t, err, "row 4")
	require.ErrorContains(t, err, "UTF-8")
	rec := d.Take()
	require.EqualValues(t, 3, rec.NumRows())
	require.Equal(t, "é日", rec.Column(0).(*array.String).Value(1))
	rec.Release()
	_, again := d.AppendMessages(run)
	require.Equal(t, err, again, "an error is final")
}

// FuzzSmallNumeric: the short way of a numeric into a decimal is the long one.
func FuzzSmallNumeric(f *testing.F) {
	for _, v := range [][]byte{
		words(w16(0), w16(0), w16(0), w16(4)), words(w16(2), w16(0), w16(0x4000), w16(4), w16(12), w16(3400)),
		words(w16(5), w16(3), w16(0), w16(4), w16(9999), w16(9999), w16(9999), w16(9999), w16(9990)), words(w16(1), w16(0xffff), w16(0), w16(2), w16(1200)),
		words(w16(1), w16(1), w16(0), w16(0), w16(10000)), words(w16(1), w16(0), w16(signNaN), w16(0), w16(1)),
	} {
		f.Add(v, uint8(18), uint8(2))
	}
	f.Fuzz(func(t *testing.T, v []byte, precision, scale uint8) {
		p := 1 + int(precision)%38
		shape := decimalShape{precision: p, scale: int(scale) % (p + 1)}
		u, negative, ok := shape.small(v)
		if !ok {
			return
		}
		var got [16]byte
		put128(got[:], u, negative)
		x, fault := parseNumber(v)
		require.Nil(t, fault)
		hi, lo, fault := shape.words128(x)
		require.Nil(t, fault)
		require.Equal(t, [2]uint64{lo, hi}, [2]uint64{binary.LittleEndian.Uint64(got[:]), binary.LittleEndian.Uint64(got[8:])})
	})
}
