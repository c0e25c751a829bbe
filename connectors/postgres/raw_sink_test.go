package postgres

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/messages"
)

// rawPair are the columns of these tests: id bigint, name text.
func rawPair(t *testing.T) (sp connectors.StreamPlan, format string) {
	t.Helper()
	id := codec.Column{Name: "id", Type: builtinType("int8", "bigint"), NotNull: true}
	name := codec.Column{Name: "name", Type: builtinType("text", "text")}
	a, _ := codec.Field(id, false)
	b, _ := codec.Field(name, false)
	format, why := codec.RawFormat([]codec.Column{id, name}, false)
	require.Empty(t, why)
	return connectors.StreamPlan{Stream: "orders", Target: "orders", Schema: fields(a, b)}, format
}

// rawBatch holds rows (from, text), (from+1, text) .. as COPY sends them.
func rawBatch(t *testing.T, r *rig, format string, from, n int64, text string) messages.Batch {
	t.Helper()
	wire := codec.AppendHeader(nil)
	for i := from; i < from+n; i++ {
		wire = append(wire, 0, 2, 0, 0, 0, 8)
		wire = binary.BigEndian.AppendUint64(wire, uint64(i))
		wire = binary.BigEndian.AppendUint32(wire, uint32(len(text)))
		wire = append(wire, text...)
	}
	f := codec.NewFramer(2, r.mem, connectors.Limits{})
	defer f.Release()
	require.NoError(t, f.Append(codec.AppendTrailer(wire)))
	frame := f.Take()
	return messages.Batch{Stream: "orders", Version: 1, Rows: messages.RawRows{Format: format, Count: frame.Rows, Data: frame.Data(), Buffer: frame}}
}

// rawWriter begins a load, changes the table, and opens a writer that is offered format.
func rawWriter(t *testing.T, r *rig, sp connectors.StreamPlan, format, change string) connectors.Writer {
	t.Helper()
	r.next()
	l := loadOf(connectors.ModeAppend, 1, sp, "orders")
	require.NoError(t, r.s.Begin(t.Context(), l))
	r.sql(change)
	part := l.Parts[0]
	part.Raw = format
	w, _, err := r.s.OpenWriter(t.Context(), part, messages.Token{Epoch: r.epoch, Attempt: 1})
	require.NoError(t, err)
	return w
}

// Small batches are collected, large ones are sent by themselves; between them rows may
// come as Arrow. Each is there once, and in the order in which it came.
func TestPGRawRowsOfEachSize(t *testing.T) {
	sp, format := rawPair(t)
	for _, flush := range []connectors.ByteSize{0, 2 << 20} {
		r := newRig(t, connectors.WritePolicy{}, func(c *DestinationConfig) { c.CopyFlushBytes = flush })
		w := rawWriter(t, r, sp, format, "SELECT 1")
		require.Empty(t, w.(connectors.RawTaker).TakesRaw())
		large := strings.Repeat("x", rawMin)
		for i, n := range []int64{1, 2, 1, 5, 1} {
			text := "small"
			if i%2 == 1 {
				text = large
			}
			require.NoError(t, w.Write(t.Context(), rawBatch(t, r, format, int64(10*i), n, text)))
			r.write(w, sp, []any{int64(10*i + 9), "arrow"})
		}
		receipt := r.commit(w, messages.BarrierEnd, 1, 15)
		require.EqualValues(t, 15, receipt.Rows.Applied)
		got := r.server.Query(t, r.db, "SELECT string_agg(id || ':' || left(name, 5) || length(name), ' ' ORDER BY ctid) FROM orders")[0][0]
		require.Equal(t, "0:small5 9:arrow5 10:xxxxx262144 11:xxxxx262144 19:arrow5 20:small5 29:arrow5 "+
			"30:xxxxx262144 31:xxxxx262144 32:xxxxx262144 33:xxxxx262144 34:xxxxx262144 39:arrow5 40:small5 49:arrow5", got)
		require.NoError(t, w.Close(t.Context()))
	}
}

// A table that is altered after Begin gets Arrow; one that is altered under the writer
// refuses what it cannot read, as it refuses what an Encoder wrote.
func TestPGRawRowsAndATableThatIsAltered(t *testing.T) {
	sp, format := rawPair(t)
	r := newRig(t, connectors.WritePolicy{}, nil)
	w := rawWriter(t, r, sp, format, "ALTER TABLE orders ALTER name TYPE varchar(20)")
	require.Equal(t, "column name of type text is character varying(20) in the table", w.(connectors.RawTaker).TakesRaw())
	err := w.Write(t.Context(), rawBatch(t, r, format, 1, 1, "x"))
	requireError(t, err, connectors.KindInternal, messages.CodeInternal, "were not agreed on")
	require.NoError(t, w.Close(t.Context()))

	for _, raw := range []bool{true, false} {
		r = newRig(t, connectors.WritePolicy{}, nil)
		w = rawWriter(t, r, sp, format, "SELECT 1")
		require.Empty(t, w.(connectors.RawTaker).TakesRaw())
		r.sql("ALTER TABLE orders ALTER id TYPE int")
		if raw {
			require.NoError(t, w.Write(t.Context(), rawBatch(t, r, format, 1, 1, "x")))
		} else {
			r.write(w, sp, []any{int64(1), "x"})
		}
		_, err = w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 1, 1))
		requireError(t, err, connectors.KindSchema, messages.CodeSchemaType)
		require.Empty(t, r.rows("orders"))
		require.NoError(t, w.Close(t.Context()))
	}
}

// The other type has as many bytes, or more: no row is written as what it is not.
func TestPGAColumnThatIsAlteredUnderTheWriter(t *testing.T) {
	sp, format := rawPair(t)
	for _, c := range []struct {
		alter, says string
		early       bool // the server itself sees it
	}{
		{"ALTER id TYPE double precision", "column id was bigint", false},
		{"DROP name, ADD name varchar(20)", "column name was text", false},
		{"ALTER id TYPE numeric", "", true},
		{"ALTER id TYPE uuid USING NULL", "", true},
	} {
		for _, raw := range []bool{true, false} {
			r := newRig(t, connectors.WritePolicy{}, nil)
			w := rawWriter(t, r, sp, format, "SELECT 1")
			require.Empty(t, w.(connectors.RawTaker).TakesRaw())
			r.write(w, sp, []any{int64(1), "x"})
			r.commit(w, messages.BarrierPeriodic, 1, 1)
			if strings.Contains(c.alter, "uuid") {
				r.sql("ALTER TABLE orders ALTER id DROP NOT NULL")
			}
			r.sql("ALTER TABLE orders " + c.alter)
			if raw {
				require.NoError(t, w.Write(t.Context(), rawBatch(t, r, format, 1<<40, 1, "x")))
			} else {
				r.write(w, sp, []any{int64(1 << 40), "x"})
			}
			_, err := w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 2, 1))
			requireError(t, err, connectors.KindSchema, messages.CodeSchemaType, c.says)
			require.Len(t, r.rows("orders"), 1, c.alter)
			require.NoError(t, w.Close(t.Context()))
		}
	}
}

// Out of a temporary table the server would convert, and round.
func TestPGAColumnThatIsAlteredUnderAnUpsert(t *testing.T) {
	sp, format := rawPair(t)
	sp.Key = []string{"id"}
	for _, raw := range []string{"", format} {
		r := newRig(t, connectors.WritePolicy{}, nil)
		r.next()
		l := loadOf(connectors.ModeUpsert, 1, sp, "orders")
		require.NoError(t, r.s.Begin(t.Context(), l))
		l.Parts[0].Raw = raw
		w, _, err := r.s.OpenWriter(t.Context(), l.Parts[0], messages.Token{Epoch: r.epoch, Attempt: 1})
		require.NoError(t, err)
		r.write(w, sp, []any{int64(1), "x"})
		r.commit(w, messages.BarrierPeriodic, 1, 1)
		r.sql("ALTER TABLE orders ALTER id TYPE real")
		if raw == "" {
			r.write(w, sp, []any{int64(1<<40 + 1), "x"})
		} else {
			require.NoError(t, w.Write(t.Context(), rawBatch(t, r, format, 1<<40+1, 1, "x")))
		}
		_, err = w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 2, 1))
		requireError(t, err, connectors.KindSchema, messages.CodeSchemaType, "column id was bigint")
		require.Len(t, r.rows("orders"), 1)
		require.NoError(t, w.Close(t.Context()))
	}
}
