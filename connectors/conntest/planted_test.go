package conntest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// wantCaught requires that the named check reports the fault, in those words.
func wantCaught[F any](t *testing.T, checks []Check[F], f F, check, says string) {
	t.Helper()
	caught := Caught(t, checks, f)
	require.Contains(t, caught, check, "caught by %v only", slices.Sorted(maps.Keys(caught)))
	require.Contains(t, strings.Join(caught[check], "\n"), says)
}

// only returns the named check.
func only[F any](checks []Check[F], name string) []Check[F] {
	return slices.DeleteFunc(slices.Clone(checks), func(c Check[F]) bool { return c.Name != name })
}

// spoiledDestination is a memory destination between wrappers; nil functions pass on.
type spoiledDestination struct {
	connectors.Destination
	beginFn      func(l *connectors.Load)
	openWriterFn func()
	writeFn      func(ctx context.Context, w connectors.Writer, d messages.Data) error
	commitFn     func(ctx context.Context, w connectors.Writer, b messages.Barrier) (messages.Receipt, error)
}

func (d *spoiledDestination) Open(ctx context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	s, err := d.Destination.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	return &spoiledSession{s, d}, nil
}

type spoiledSession struct {
	connectors.Session
	d *spoiledDestination
}

func (s *spoiledSession) Begin(ctx context.Context, l connectors.Load) error {
	if s.d.beginFn != nil {
		l.Streams = slices.Clone(l.Streams)
		s.d.beginFn(&l)
	}
	return s.Session.Begin(ctx, l)
}

func (s *spoiledSession) OpenWriter(ctx context.Context, p connectors.Part, t messages.Token) (connectors.Writer, messages.Receipt, error) {
	if s.d.openWriterFn != nil {
		s.d.openWriterFn()
	}
	w, r, err := s.Session.OpenWriter(ctx, p, t)
	if err != nil {
		return nil, r, err
	}
	return &spoiledWriter{w, s.d}, r, nil
}

type spoiledWriter struct {
	connectors.Writer
	d *spoiledDestination
}

func (w *spoiledWriter) Write(ctx context.Context, d messages.Data) error {
	if w.d.writeFn != nil {
		return w.d.writeFn(ctx, w.Writer, d)
	}
	return w.Writer.Write(ctx, d)
}

func (w *spoiledWriter) Commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error) {
	if w.d.commitFn != nil {
		return w.d.commitFn(ctx, w.Writer, b)
	}
	return w.Writer.Commit(ctx, b)
}

// destinations makes fresh memory destinations, each with a fault.
func destinations(spoil func(d *MemoryDestination) connectors.Destination) DestinationFactory {
	return DestinationFactory{
		Modes: []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace},
		New: func(T) Target {
			d := &MemoryDestination{}
			spoiled := spoil(d)
			return Target{
				Destination: spoiled,
				Reopen:      func(T) connectors.Destination { return spoiled },
				Rows:        func(_ T, target string) []string { return d.Rows(target) },
			}
		},
	}
}

// flawed makes memory destinations with a rule switched off.
func flawed(f flaws) DestinationFactory {
	return destinations(func(d *MemoryDestination) connectors.Destination {
		d.flaws = f
		return d
	})
}

func TestSuiteCatchesADestinationThat(t *testing.T) {
	spoiled := func(s spoiledDestination) DestinationFactory {
		return destinations(func(d *MemoryDestination) connectors.Destination {
			s := s
			s.Destination = d
			return &s
		})
	}
	for _, c := range []struct {
		name, check, says string
		factory           DestinationFactory
	}{
		{"loses a row", "commit_shows_rows_and_receipt", "lost rows: 1", spoiled(spoiledDestination{
			writeFn: func(ctx context.Context, w connectors.Writer, d messages.Data) error {
				if b, ok := d.(messages.Batch); ok && b.Rows.Len() > 5 {
					rec, _ := record(b.Rows)
					short := b
					short.Rows = messages.ArrowRows{Record: rec.NewSlice(0, rec.NumRows()-1)}
					b.Rows.Release()
					d = short
				}
				return w.Write(ctx, d)
			},
		})},
		{"doubles a row", "nothing_visible_before_commit", "doubled rows: 10", spoiled(spoiledDestination{
			writeFn: func(ctx context.Context, w connectors.Writer, d messages.Data) error {
				if b, ok := d.(messages.Batch); ok {
					b.Rows.Retain()
					if err := w.Write(ctx, b); err != nil {
						b.Rows.Release()
						return err
					}
				}
				return w.Write(ctx, d)
			},
		})},
		{"stores the cursor ahead of the data", "receipt_copies_barrier", "Position", spoiled(spoiledDestination{
			commitFn: func(ctx context.Context, w connectors.Writer, b messages.Barrier) (messages.Receipt, error) {
				if at, err := b.Position.At.Int64(); err == nil {
					b.Position.At = messages.Int64Cursor(at + 1)
				}
				return w.Commit(ctx, b)
			},
		})},
		{"leaks a batch", "batches_are_released_once", "leaked batch", spoiled(spoiledDestination{
			writeFn: func(ctx context.Context, w connectors.Writer, d messages.Data) error {
				if b, ok := d.(messages.Batch); ok {
					b.Rows.Retain()
				}
				return w.Write(ctx, d)
			},
		})},
		{"releases a batch twice", "batches_are_released_once", "released twice", spoiled(spoiledDestination{
			writeFn: func(ctx context.Context, w connectors.Writer, d messages.Data) error {
				err := w.Write(ctx, d)
				Release(d)
				return err
			},
		})},
		{"hides that it was cancelled", "cancel_is_prompt", "hides the cancellation", spoiled(spoiledDestination{
			writeFn: func(ctx context.Context, w connectors.Writer, d messages.Data) error {
				if err := w.Write(ctx, d); err != nil {
					return errors.New("channel closed")
				}
				return nil
			},
		})},
		{"cuts long names", "odd_names_are_kept_or_refused", "doubled rows", spoiled(spoiledDestination{
			beginFn: func(l *connectors.Load) {
				l.Streams[0].Target = l.Streams[0].Target[:min(63, len(l.Streams[0].Target))]
			},
		})},
		{"appends where it should upsert", "upsert_last_wins", "doubled rows", spoiled(spoiledDestination{
			beginFn: func(l *connectors.Load) {
				if l.Mode == connectors.ModeUpsert && len(l.Streams[0].Key) > 0 {
					l.Mode = connectors.ModeAppend
				}
			},
		})},
		{"does not check the epoch", "older_epoch_is_fenced", "commit of an older epoch", flawed(flaws{anyEpoch: true})},
		{"lets a lower epoch open", "lower_epoch_is_refused", "open with epoch 4", flawed(flaws{anyEpoch: true})},
		{"does not check the attempt", "older_attempt_is_fenced", "commit of an older attempt", flawed(flaws{anyAttempt: true})},
		{"does not check the attempt of another session", "older_attempt_of_another_session_is_fenced", "commit of an older attempt", flawed(flaws{anyAttempt: true})},
		{"lets an older load commit", "older_load_is_fenced", "commit of an older load", flawed(flaws{anyAttempt: true})},
		{"takes any state store", "foreign_store_is_refused", "another state store", flawed(flaws{anyStore: true})},
		{"finishes early", "finish_waits_for_every_part", "with one of two parts final", flawed(flaws{finishEarly: true})},
		{"shows the staging of a replace", "replace_swaps_whole", "staging", flawed(flaws{noStaging: true})},
		{"owns what it surveys", "survey_fences_nobody", "the epoch of the owner", flawed(flaws{surveyOwns: true})},
		{"keeps old receipts", "new_load_drops_receipts", "receipts of the old load are gone", flawed(flaws{keepReceipts: true})},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantCaught(t, DestinationChecks(), c.factory, c.check, c.says)
		})
	}
}

// A receipt that is returned before its rows are durable is the worst fault of all:
// the source forgets rows that a crash then loses.
func TestSuiteCatchesAnAckBeforeTheCommit(t *testing.T) {
	early := destinations(func(d *MemoryDestination) connectors.Destination {
		var held []func()
		return &spoiledDestination{Destination: d, commitFn: func(ctx context.Context, w connectors.Writer, b messages.Barrier) (messages.Receipt, error) {
			for _, f := range held {
				f()
			}
			held = []func(){func() { _, _ = w.Commit(ctx, b) }}
			inner, _ := w.(*memoryWriter)
			r := inner.part.receipt
			r.Version.Commit++
			r.Token, r.Position, r.Final = inner.token, b.Position, b.Kind == messages.BarrierEnd
			return r, nil
		}}
	})
	wantCaught(t, only(DestinationChecks(), "commit_shows_rows_and_receipt"), early, "commit_shows_rows_and_receipt", "when the first commit returned")
}

func TestSuiteCatchesALeakedGoroutine(t *testing.T) {
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	leak := func() { go func() { <-stop }() }
	wantCaught(t, only(DestinationChecks(), "close_is_idempotent"), destinations(func(d *MemoryDestination) connectors.Destination {
		return &spoiledDestination{Destination: d, openWriterFn: leak}
	}), "close_is_idempotent", "leaked goroutine")
	wantCaught(t, only(SourceChecks(), "close_is_idempotent"), sources(SourceFactory{}, func(s *MemorySource) connectors.Source {
		s.OpenFn = func(context.Context, Call) error { leak(); return nil }
		return s
	}), "close_is_idempotent", "leaked goroutine")
}

func TestRecordKeepsWhatACheckReports(t *testing.T) {
	var order []string
	said := Record(t, "check", func(t T) {
		t.Cleanup(func() { order = append(order, "first registered") })
		t.Cleanup(func() { order = append(order, "last registered"); t.Errorf("from a cleanup") })
		require.NoError(t, t.Context().Err())
		require.DirExists(t, t.TempDir())
		t.Errorf("one %d", 1)
		require.Fail(t, "two")
		t.Errorf("not reached")
	})
	require.Len(t, said, 3)
	require.Equal(t, "one 1", said[0])
	require.Contains(t, said[1], "two")
	require.Equal(t, "from a cleanup", said[2])
	require.Equal(t, []string{"last registered", "first registered"}, order)
	require.Contains(t, Record(t, "panic", func(T) { panic("oh") })[0], "panic: oh")
	require.Empty(t, Record(t, "good", func(t T) { require.False(t, t.Failed()) }))
}
