package conntest

import (
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
)

// rawRowsStandForTheSame: a part that is sent undecoded has as many rows as decoded, within
// the same limits, and its positions are those of Arrow: behind each of its barriers the
// rest follows as Arrow.
func rawRowsStandForTheSame(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	reader, ok := r.Source.(connectors.RawReader)
	if !ok {
		return
	}
	sent := 0
	for _, splits := range []int{1, 3} {
		for _, l := range r.scan(r.Source, r.request(splits)).Loads {
			format, why := reader.RawFormat(l)
			require.Equal(t, format == "", why != "", "a format, or why there is none: %q, %q", format, why)
			if format == "" {
				continue
			}
			for _, part := range l.Parts {
				sent += r.rawPart(l, part, format)
			}
		}
	}
	require.Positive(t, sent, "a RawReader sends something")
}

// rawPart reads a part in both lanes, and on from one in the other. It returns how many
// rows the part has.
func (r *sourceRig) rawPart(l connectors.Load, part connectors.Part, format string) (rows int) {
	r.t.Helper()
	whole := r.read(reading{part: part, plan: l, limits: large})
	stream := part.Streams[0]
	rows = len(whole.rows[stream])
	raw := part
	raw.Raw = format
	for _, limits := range []connectors.Limits{large, {BatchRows: 7, BatchBytes: 1 << 20, RowBytes: 1 << 20}, {BatchRows: 1 << 20, BatchBytes: 64, RowBytes: 1 << 20}} {
		got := r.read(reading{part: raw, plan: l, limits: limits, every: 1})
		require.Len(r.t, got.rows[stream], rows, "rows of part %s in %s", part.ID, format)
		for _, m := range spread(got.barriers, resumesMax) {
			rest := r.read(reading{part: part, plan: l, from: m.barrier.Position, limits: large})
			require.Len(r.t, rest.rows[stream], rows-m.before[stream], "rows as Arrow behind %+v", m.barrier.Position)
		}
	}
	for _, m := range spread(whole.barriers, resumesMax) {
		rest := r.read(reading{part: raw, plan: l, from: m.barrier.Position, limits: large})
		require.Len(r.t, rest.rows[stream], rows-m.before[stream], "rows in %s behind %+v", format, m.barrier.Position)
	}
	return rows
}
