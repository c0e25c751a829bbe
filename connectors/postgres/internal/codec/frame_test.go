package codec

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
)

// frameAll returns copies of the rows of payloads, one per frame, and counts them.
func frameAll(f *Framer, payloads ...[]byte) (frames [][]byte, rows []int64, err error) {
	take := func() {
		if out := f.Take(); out != nil {
			frames, rows = append(frames, slices.Clone(out.Data())), append(rows, out.Rows)
			out.Release()
		}
	}
	for _, p := range payloads {
		for err = f.Append(p); err == ErrFull; err = f.Append(p) { //nolint:errorlint // never wrapped
			take()
		}
		if err != nil {
			break
		}
	}
	take()
	return frames, rows, err
}

func newFramer(t testing.TB, fields int, limits connectors.Limits) *Framer {
	f := NewFramer(fields, checked(t), limits)
	t.Cleanup(f.Release)
	return f
}

func TestFramesAreWholeRowsWithinTheLimits(t *testing.T) {
	a, b, big := wireRow([]byte("one"), nil), wireRow(nil, []byte("twenty two")), wireRow([]byte(strings.Repeat("x", 90)), nil)
	whole := copyOf(a, b, a, big, a, b)
	for _, c := range []struct {
		limits connectors.Limits
		want   [][]byte
	}{
		{connectors.Limits{}, [][]byte{slices.Concat(a, b, a, big, a, b)}},
		{connectors.Limits{BatchRows: 4}, [][]byte{slices.Concat(a, b, a, big), slices.Concat(a, b)}},
		{connectors.Limits{BatchRows: 1}, [][]byte{a, b, a, big, a, b}},
		{connectors.Limits{BatchBytes: int64(len(a) + len(b))}, [][]byte{slices.Concat(a, b), a, big, slices.Concat(a, b)}},
	} {
		for cut := 1; cut <= len(whole); cut++ {
			f := newFramer(t, 2, c.limits)
			var payloads [][]byte
			for p := range slices.Chunk(whole, cut) {
				payloads = append(payloads, p)
			}
			got, rows, err := frameAll(f, payloads...)
			require.NoError(t, err)
			require.True(t, f.Ended())
			require.Equal(t, c.want, got, "limits %v, payloads of %d bytes", c.limits, cut)
			var sum int64
			for _, n := range rows {
				sum += n
			}
			require.EqualValues(t, 6, sum)
		}
	}
}

func TestARowAboveTheLimitIsNamedByTheFramer(t *testing.T) {
	a, big := wireRow([]byte("one")), wireRow([]byte(strings.Repeat("x", 100)))
	f := newFramer(t, 1, connectors.Limits{RowBytes: 99, BatchRows: 2})
	_, rows, err := frameAll(f, copyOf(a, a, a, big))
	require.Equal(t, &RowTooLargeError{Row: 4, Bytes: 100, Max: 99}, err)
	require.Equal(t, []int64{2, 1}, rows, "the rows before it are whole")

	f = newFramer(t, 1, connectors.Limits{RowBytes: 99})
	head := AppendHeader(nil)
	_, _, err = frameAll(f, head, binary.BigEndian.AppendUint32([]byte{0, 1}, 1<<30))
	require.Equal(t, &RowTooLargeError{Row: 1, Bytes: 1 << 30, Max: 99}, err, "it need not be read to its end")

	f = newFramer(t, 1, connectors.Limits{RowBytes: 100})
	_, _, err = frameAll(f, copyOf(big))
	require.NoError(t, err)
}

func TestFramerRefusesWhatIsNoCopy(t *testing.T) {
	a := wireRow([]byte("one"), nil)
	for name, c := range map[string]struct {
		wire []byte
		row  int64
		why  string
	}{
		"signature":    {[]byte("PGCOPY\n\xff\r\n\x01"), 0, "the signature is missing"},
		"flags":        {append([]byte(signature), 0, 1, 0, 0, 0, 0, 0, 0), 0, "unknown flags"},
		"header":       {append([]byte(signature), 0, 0, 0, 0, 0xff, 0, 0, 0), 0, "the header is too long"},
		"fields":       {copyOf(a, wireRow([]byte("one"))), 2, "a row has 1 fields, want 2"},
		"no fields":    {copyOf(wireRow()), 1, "a row has 0 fields, want 2"},
		"length":       {append(AppendHeader(nil), 0, 2, 0xff, 0xff, 0xff, 0xfe), 1, "a field has a negative length"},
		"behind":       {append(copyOf(a), a...), 2, "data follows the trailer"},
		"two trailers": {append(copyOf(a), 0xff, 0xff), 2, "data follows the trailer"},
	} {
		f := newFramer(t, 2, connectors.Limits{})
		_, _, err := frameAll(f, c.wire)
		var format *FormatError
		require.ErrorAs(t, err, &format, name)
		require.Equal(t, c.row, format.Row, name)
		require.Contains(t, format.Why, c.why, name)
		require.Equal(t, err, f.Append(a), "it is final")
		f.Reset()
		frames, _, err := frameAll(f, copyOf(a))
		require.NoError(t, err)
		require.Equal(t, [][]byte{a}, frames, "another copy begins anew")
	}
}

// TestFramedMessagesAreTheirPayloads: rows in messages, some damaged or cut anywhere, under
// limits of any size, give the frames and the error that their payloads give one by one.
func TestFramedMessagesAreTheirPayloads(t *testing.T) {
	r := seeded(t)
	failed := 0
	for range 1500 {
		fields := 1 + r.IntN(4)
		payloads := [][]byte{AppendHeader(nil)}
		for range r.IntN(60) {
			row := make([][]byte, fields)
			for i := range row {
				if r.IntN(4) > 0 {
					row[i] = make([]byte, r.IntN(40))
				}
			}
			payloads = append(payloads, wireRow(row...))
		}
		payloads = append(payloads, AppendTrailer(nil))
		if r.IntN(3) == 0 {
			p := payloads[r.IntN(len(payloads))]
			p[r.IntN(len(p))] = byte(r.Uint32())
		}
		if r.IntN(3) == 0 {
			payloads = recut(r, payloads)
		}
		limits := connectors.Limits{BatchRows: r.Int64N(80), BatchBytes: r.Int64N(2000), RowBytes: r.Int64N(150)}
		one := newFramer(t, fields, limits)
		want, wantRows, wantErr := frameAll(one, payloads...)
		f := newFramer(t, fields, limits)
		got, rows, err := frameMessages(r, f, payloads)
		require.Equal(t, wantErr, err)
		require.Equal(t, want, got)
		require.Equal(t, wantRows, rows)
		require.Equal(t, one.Ended(), f.Ended())
		if err != nil {
			failed++
		}
	}
	require.Greater(t, failed, 50)
}

// frameMessages is frameAll of payloads as messages, given on in runs of some.
func frameMessages(r *rand.Rand, f *Framer, payloads [][]byte) (frames [][]byte, rows []int64, err error) {
	take := func() {
		if out := f.Take(); out != nil {
			frames, rows = append(frames, slices.Clone(out.Data())), append(rows, out.Rows)
			out.Release()
		}
	}
	for len(payloads) > 0 && err == nil {
		var run []byte
		n := 1 + r.IntN(len(payloads))
		for _, p := range payloads[:n] {
			run = append(run, message(p)...)
		}
		payloads = payloads[n:]
		var done int
		for done, err = f.AppendMessages(run); err == ErrFull; done, err = f.AppendMessages(run) { //nolint:errorlint // never wrapped
			take()
			run = run[done:]
		}
	}
	take()
	return frames, rows, err
}

// TestFramesHaveRoomInFront: a frame is sent as it is, behind a header of the protocol.
func TestFramesHaveRoomInFront(t *testing.T) {
	a := wireRow([]byte("one"))
	f := newFramer(t, 1, connectors.Limits{})
	require.NoError(t, f.Append(copyOf(a)))
	out := f.Take()
	defer out.Release()
	require.Equal(t, a, out.Message(5)[5:])
	require.Len(t, out.Message(FrameHeadroom), FrameHeadroom+len(a))
}

func TestFramerAllocatesNothingPerRow(t *testing.T) {
	row := wireRow([]byte("a value"), nil, []byte("another value"))
	f := NewFramer(3, memory.DefaultAllocator, connectors.Limits{BatchRows: 4096})
	defer f.Release()
	require.NoError(t, f.Append(AppendHeader(nil)))
	fill := func() {
		for range 4096 {
			if err := f.Append(row); err != nil {
				panic(err)
			}
		}
		f.Take().Release()
	}
	fill()
	require.Less(t, testing.AllocsPerRun(10, fill), 16.0, "of 4096 rows")
}

// FuzzFramer: no bytes make the framer panic, where payloads are cut changes neither
// frames nor errors, and what a decoder takes the framer hands on byte for byte.
func FuzzFramer(f *testing.F) {
	cols := columnsOf(plain("int4"), plain("text"), arrayOf(plain("text")))
	s, types, asText := fieldsOf(cols)
	e, err := NewEncoder(s, sameTargets(types))
	require.NoError(f, err)
	rec := randomRecord(seeded(f), s, types, 5)
	f.Add(encodeAll(f, e, rec), 40, 90)
	f.Add(copyOf(), 3, 19)
	limits := connectors.Limits{BatchRows: 3, BatchBytes: 1 << 10, RowBytes: 1 << 10}
	frame := func(t *testing.T, payloads ...[]byte) (out []byte, waits bool, err error) {
		fr := newFramer(t, len(types), limits)
		frames, rows, err := frameAll(fr, payloads...)
		for i, b := range frames {
			require.LessOrEqual(t, rows[i], limits.BatchRows)
			require.True(t, rows[i] == 1 || int64(len(b)) <= limits.BatchBytes)
		}
		return slices.Concat(frames...), len(fr.tail) > 0, err
	}
	f.Fuzz(func(t *testing.T, wire []byte, a, b int) {
		a = min(max(a, 0), len(wire))
		b = min(max(b, a), len(wire))
		want, _, wantErr := frame(t, wire)
		got, waits, gotErr := frame(t, wire[:a], wire[a:b], wire[b:])
		if gotErr != nil || !waits {
			require.Equal(t, wantErr == nil, gotErr == nil, "%v, %v", wantErr, gotErr)
		}
		require.Equal(t, want, got)
		d, err := NewDecoder(s, types, asText, memory.DefaultAllocator, limits)
		require.NoError(t, err)
		defer d.Release()
		recs, err := decodeAll(d, [][]byte{wire})
		defer releaseAll(recs)
		if err != nil {
			return
		}
		require.NoError(t, wantErr)
		whole := slices.Concat(AppendHeader(nil), want)
		again, err := NewDecoder(s, types, asText, memory.DefaultAllocator, limits)
		require.NoError(t, err)
		defer again.Release()
		same, err := decodeAll(again, [][]byte{whole})
		defer releaseAll(same)
		require.NoError(t, err)
		require.Len(t, same, len(recs))
	})
}

func BenchmarkFrameNarrow(b *testing.B) { benchFrame(b, narrow()) }
func BenchmarkFrameWide(b *testing.B)   { benchFrame(b, wide()) }

func benchFrame(b *testing.B, cols []Column) {
	messages := messagesOf(b, cols, benchRecord(cols, benchRows))
	f := NewFramer(len(cols), keeper{}, connectors.Limits{BatchRows: benchRows})
	defer f.Release()
	require.NoError(b, f.Append(AppendHeader(nil)))
	b.ReportAllocs()
	begin := cpu()
	for b.Loop() {
		if _, err := f.AppendMessages(messages); err != nil {
			b.Fatal(err)
		}
		f.Take().Release()
	}
	perValue(b, len(cols), cpu()-begin)
}

// What waits for a destination is counted by its rows: a frame may not hold much more.
func TestAFrameIsNotMuchLargerThanItsRows(t *testing.T) {
	f := newFramer(t, 1, connectors.Limits{BatchBytes: 1 << 20})
	for _, size := range []int{900 << 10, 70 << 10, 10, 300 << 10, 100 << 10} {
		f.Reset()
		row := wireRow(bytes.Repeat([]byte("x"), size))
		require.NoError(t, f.Append(copyOf(row)))
		require.True(t, f.Ended())
		frame := f.Take()
		require.Equal(t, row, frame.Data())
		require.LessOrEqual(t, frame.Cap(), max(2*len(row)+FrameHeadroom, frameFirst)+64)
		frame.Release()
		require.Nil(t, f.Take())
	}
}
