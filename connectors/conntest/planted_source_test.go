package conntest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// spoiledSource is a memory source between wrappers; nil functions pass on.
type spoiledSource struct {
	connectors.Source
	scanFn  func(r *connectors.ScanRequest)
	planFn  func(p *connectors.Plan)
	openFn  func(r *connectors.ReadRequest)
	emitter func(inner connectors.Emitter) *spoiledEmitter
	readFn  func(err error) error // what Read returns
}

func (s *spoiledSource) Scan(ctx context.Context, r connectors.ScanRequest) (connectors.Scan, error) {
	if s.scanFn != nil {
		s.scanFn(&r)
	}
	scan, err := s.Source.Scan(ctx, r)
	if err != nil || s.planFn == nil {
		return scan, err
	}
	p := scan.Plan()
	s.planFn(&p)
	return memoryScan{p}, nil
}

func (s *spoiledSource) Open(ctx context.Context, r connectors.ReadRequest) (connectors.Reader, error) {
	if s.openFn != nil {
		s.openFn(&r)
	}
	rd, err := s.Source.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	return &spoiledReader{rd, s}, nil
}

type spoiledReader struct {
	connectors.Reader
	s *spoiledSource
}

func (r *spoiledReader) Read(ctx context.Context, out connectors.Emitter) error {
	if r.s.emitter != nil {
		e := r.s.emitter(out)
		e.Emitter = out
		out = e
	}
	err := r.Reader.Read(ctx, out)
	if r.s.readFn != nil {
		return r.s.readFn(err)
	}
	return err
}

type spoiledEmitter struct {
	connectors.Emitter
	emitFn    func(ctx context.Context, out connectors.Emitter, b messages.Batch) error
	barrierFn func(ctx context.Context, out connectors.Emitter, kind messages.BarrierKind, p messages.Position) error
	deaf      bool // never due
}

func (e *spoiledEmitter) Emit(ctx context.Context, d messages.Data) error {
	if b, ok := d.(messages.Batch); ok && e.emitFn != nil {
		return e.emitFn(ctx, e.Emitter, b)
	}
	return e.Emitter.Emit(ctx, d)
}

func (e *spoiledEmitter) Barrier(ctx context.Context, kind messages.BarrierKind, p messages.Position) error {
	if e.barrierFn != nil {
		return e.barrierFn(ctx, e.Emitter, kind, p)
	}
	return e.Emitter.Barrier(ctx, kind, p)
}

func (e *spoiledEmitter) Due() bool { return !e.deaf && e.Emitter.Due() }

// sources makes fresh memory sources, each with a fault.
func sources(f SourceFactory, spoil func(s *MemorySource) connectors.Source) SourceFactory {
	f.New = func(T) Origin {
		s := NewMemorySource(Numbers("orders", 30))
		return Origin{
			Source: spoil(s), Streams: Specs(connectors.SyncFullRefresh, connectors.ModeAppend, "orders"),
			Rows: func(T) map[messages.StreamID][]string {
				return map[messages.StreamID][]string{"orders": s.Rows("orders")}
			},
			Append: func(T) { s.Append("orders", NumberRows(31, 5)...) },
		}
	}
	return f
}

func TestSuiteCatchesASourceThat(t *testing.T) {
	emitting := func(e spoiledEmitter) spoiledSource {
		return spoiledSource{emitter: func(connectors.Emitter) *spoiledEmitter { e := e; return &e }}
	}
	// moved moves each position but the one at the end of the part.
	moved := func(by int64) spoiledSource {
		return emitting(spoiledEmitter{barrierFn: func(ctx context.Context, out connectors.Emitter, kind messages.BarrierKind, p messages.Position) error {
			if at, _ := p.At.Int64(); kind != messages.BarrierEnd {
				p.At = messages.Int64Cursor(max(at+by, 0))
			}
			return out.Barrier(ctx, kind, p)
		}})
	}
	scans := 0
	for _, c := range []struct {
		name, check, says string
		spoiled           spoiledSource
	}{
		{"loses a row", "every_row_once", "lost rows: ", emitting(spoiledEmitter{
			emitFn: func(ctx context.Context, out connectors.Emitter, b messages.Batch) error {
				if rec, _ := record(b.Rows); RowText(rec, 0) == "1|row 1" {
					b.Rows.Release()
					return nil
				}
				return out.Emit(ctx, b)
			},
		})},
		{"doubles a row", "every_row_once", "doubled rows: ", emitting(spoiledEmitter{
			emitFn: func(ctx context.Context, out connectors.Emitter, b messages.Batch) error {
				b.Rows.Retain()
				if err := out.Emit(ctx, b); err != nil {
					b.Rows.Release()
					return err
				}
				return out.Emit(ctx, b)
			},
		})},
		{"puts the cursor ahead of the data", "resume_is_exact", "lost rows: 1", moved(1)},
		{"doubles a row on resume", "resume_is_exact", "doubled rows: 1", moved(-1)},
		{"gives no position to resume from", "resume_is_exact", "doubled rows: ", moved(-1 << 40)},
		{"leaks a batch", "batches_are_released_once", "leaked batch", emitting(spoiledEmitter{
			emitFn: func(ctx context.Context, out connectors.Emitter, b messages.Batch) error {
				b.Rows.Retain()
				return out.Emit(ctx, b)
			},
		})},
		{"releases what it emitted", "batches_are_released_once", "released twice", emitting(spoiledEmitter{
			emitFn: func(ctx context.Context, out connectors.Emitter, b messages.Batch) error {
				err := out.Emit(ctx, b)
				b.Rows.Release()
				return err
			},
		})},
		{"leaves out the end barrier", "ends_with_end_barrier", "without a barrier", emitting(spoiledEmitter{
			barrierFn: func(ctx context.Context, out connectors.Emitter, kind messages.BarrierKind, p messages.Position) error {
				if kind == messages.BarrierEnd {
					return nil
				}
				return out.Barrier(ctx, kind, p)
			},
		})},
		{"never asks for a barrier", "drain_stops_exactly", "drain after", emitting(spoiledEmitter{deaf: true})},
		{"wraps the emitter's error", "emitter_error_comes_back", "as it is", spoiledSource{readFn: func(err error) error {
			if err != nil {
				return fmt.Errorf("read: %w", err)
			}
			return nil
		}}},
		{"hides that it was cancelled", "cancelled_read_is_prompt", "hides the cancellation", spoiledSource{readFn: func(err error) error {
			if err != nil {
				return errors.New("use of closed file")
			}
			return nil
		}}},
		{"stamps its items", "every_row_once", "stamped an item", emitting(spoiledEmitter{
			emitFn: func(ctx context.Context, out connectors.Emitter, b messages.Batch) error {
				b.Seq = 7
				return out.Emit(ctx, b)
			},
		})},
		{"builds larger batches than allowed", "batches_are_within_limits", "more than the limit", spoiledSource{
			openFn: func(r *connectors.ReadRequest) { r.Limits = large },
		}},
		{"plans something else each time", "scan_is_deterministic", "the same source again", spoiledSource{planFn: func(p *connectors.Plan) {
			scans++
			p.Loads[0].Parts[0].Rows = int64(scans)
		}}},
		{"forgets unfinished loads", "unfinished_load_is_continued", "keeps its number", spoiledSource{scanFn: func(r *connectors.ScanRequest) {
			for i := range r.Previous.Loads {
				r.Previous.Loads[i].Finished = true
			}
		}}},
		{"reads into an unfinished load what was added since", "unfinished_load_is_continued", "parts of load", spoiledSource{planFn: func(p *connectors.Plan) {
			for i, l := range p.Loads {
				if l.Continuity != "" {
					p.Loads[i].Parts[1].Split, _ = json.Marshal(memoryRange{From: 15, To: 35})
				}
			}
		}}},
		{"does not number a new load", "finished_load_is_followed", "the load after a finished one", spoiledSource{scanFn: func(r *connectors.ScanRequest) {
			r.Previous = connectors.Recovered{}
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := sources(SourceFactory{}, func(s *MemorySource) connectors.Source {
				spoiled := c.spoiled
				spoiled.Source = s
				return &spoiled
			})
			wantCaught(t, SourceChecks(), f, c.check, c.says)
		})
	}
}
