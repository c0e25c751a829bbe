package conntest

import (
	"context"
	"testing"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// rawSource sends the rows of a memory source as bytes that mean nothing.
type rawSource struct {
	connectors.Source
	change func(rows messages.RawRows) messages.Rows // may be nil
	silent bool                                      // no format, and no reason
}

const rawFormat = "planted/1"

func (s rawSource) RawFormat(connectors.Load) (format, why string) {
	if s.silent {
		return "", ""
	}
	return rawFormat, ""
}

func (s rawSource) Open(ctx context.Context, r connectors.ReadRequest) (connectors.Reader, error) {
	if r.Part.Raw == "" {
		return s.Source.Open(ctx, r)
	}
	r.Part.Raw = ""
	return (&spoiledSource{Source: s.Source, emitter: func(connectors.Emitter) *spoiledEmitter {
		return &spoiledEmitter{emitFn: func(ctx context.Context, out connectors.Emitter, b messages.Batch) error {
			raw := messages.RawRows{Format: rawFormat, Count: b.Rows.Len(), Data: make([]byte, b.Rows.Len()), Buffer: b.Rows}
			b.Rows = raw
			if s.change != nil {
				b.Rows = s.change(raw)
			}
			return out.Emit(ctx, b)
		}}
	}}).Open(ctx, r)
}

func TestSuiteCatchesRawRowsThat(t *testing.T) {
	const check = "raw_rows_stand_for_the_same"
	planted := func(change func(messages.RawRows) messages.Rows) SourceFactory {
		return sources(SourceFactory{}, func(s *MemorySource) connectors.Source { return rawSource{Source: s, change: change} })
	}
	Source(t, planted(nil))
	wantCaught(t, SourceChecks(), planted(func(r messages.RawRows) messages.Rows {
		rows, _ := r.Buffer.(messages.ArrowRows)
		return rows
	}), check, "raw rows in planted/1 were agreed on")
	wantCaught(t, SourceChecks(), planted(func(r messages.RawRows) messages.Rows { r.Format = "planted/2"; return r }), check, "agreed on was")
	wantCaught(t, SourceChecks(), planted(func(r messages.RawRows) messages.Rows { r.Count++; return r }), check, "rows of part")
	wantCaught(t, SourceChecks(), planted(func(r messages.RawRows) messages.Rows { r.Data = make([]byte, 1<<10); return r }), check, "more than the limit")
	wantCaught(t, SourceChecks(), sources(SourceFactory{}, func(s *MemorySource) connectors.Source {
		return rawSource{Source: s, silent: true}
	}), check, "why there is none")
}
